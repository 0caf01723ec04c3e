#include "backend/cpu/isa.h"

#include <array>
#include <cstdint>
#include <cstdlib>

#include "base/log.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace mlxs::cpu {
namespace {

constexpr std::array<std::string_view, 4> kNames{"portable", "avx2", "avx512", "amx"};

#if defined(__x86_64__)

struct Registers {
  std::uint32_t a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
  Registers r;
  if (__get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d) == 0) return {};
  return r;
}

bool bit(std::uint32_t word, int index) { return ((word >> index) & 1u) != 0; }

// Which register states the operating system saves: without that, an instruction the CPU has still faults.
std::uint64_t saved_states() {
  if (!bit(cpuid(1, 0).c, 27)) return 0;  // OSXSAVE
  std::uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
}

constexpr std::uint64_t kYmmState = 0x6;       // XMM, upper halves of YMM
constexpr std::uint64_t kZmmState = 0xe6;      // and masks, upper halves of ZMM, ZMM16-31
constexpr std::uint64_t kTileState = 0x60000;  // tile configuration (17) and data (18)
constexpr long kRequestPermission = 0x1023;    // ARCH_REQ_XCOMP_PERM
constexpr long kTileData = 18;

// Linux hands out the 8 KiB of tile state on request only; a kernel or sandbox may refuse although CPUID says
// yes.
bool request_amx() {
#if defined(__linux__)
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

#endif

IsaSupport detect() {
  IsaSupport support;
#if defined(__x86_64__)
  const std::uint64_t states = saved_states();
  const auto has = [&](std::uint64_t wanted) { return (states & wanted) == wanted; };
  const Registers base = cpuid(1, 0), seven = cpuid(7, 0), seven_one = cpuid(7, 1);

  const bool avx2 =
      has(kYmmState) && bit(seven.b, 5) && bit(base.c, 12) /* fma */ && bit(base.c, 29) /* f16c */;
  if (!avx2) return support;
  support.best = Isa::kAvx2;

  const bool avx512 = has(kZmmState) && bit(seven.b, 16) /* f */ && bit(seven.b, 17) /* dq */ &&
                      bit(seven.b, 30) /* bw */ && bit(seven.b, 31) /* vl */ && bit(seven.c, 11) /* vnni */;
  if (!avx512) return support;
  support.best = Isa::kAvx512;
  support.avx512_bf16 = bit(seven_one.a, 5);

  const bool amx = has(kTileState) && bit(seven.d, 22) /* bf16 */ && bit(seven.d, 24) /* tile */ &&
                   bit(seven.d, 25) /* int8 */;
  if (amx && support.avx512_bf16 && request_amx()) support.best = Isa::kAmx;
#endif
  return support;
}

}  // namespace

IsaSupport detect_isa() {
  static const IsaSupport support = detect();
  return support;
}

Isa choose_isa() {
  static const Isa chosen = [] {
    Isa best = detect_isa().best;
    if (const char* wanted = std::getenv("MLXS_CPU_ISA"); wanted != nullptr && *wanted != '\0') {
      std::size_t index = 0;
      while (index < kNames.size() && kNames[index] != wanted) ++index;
      if (index == kNames.size()) {
        log::warn("MLXS_CPU_ISA='{}' is ignored: it is none of portable, avx2, avx512, amx", wanted);
      } else if (static_cast<Isa>(index) > best) {
        log::warn("MLXS_CPU_ISA='{}' is ignored: this processor runs {} at best", wanted, isa_name(best));
      } else {
        best = static_cast<Isa>(index);
      }
    }
    return best;
  }();
  return chosen;
}

std::string_view isa_name(Isa isa) { return kNames[static_cast<std::size_t>(isa)]; }

}  // namespace mlxs::cpu
