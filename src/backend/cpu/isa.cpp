#include "backend/cpu/isa.h"

#include <array>
#include <cstdlib>
#include <string>

#include "base/log.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace mlxs::cpu {
namespace {

constexpr std::array<std::string_view, 4> kNames{"portable", "avx2", "avx512", "amx"};

#if defined(__x86_64__)

struct Registers {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  if (!__get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d)) return {};
  return r;
}

constexpr bool bit(unsigned word, int position) { return ((word >> position) & 1u) != 0; }

// Which register states the operating system saves (XCR0).
unsigned long long enabled_states() {
  unsigned low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<unsigned long long>(high) << 32) | low;
}

// Linux hands out the 8 KiB of tile state on request only; a kernel or sandbox may refuse although CPUID says
// yes.
bool request_tiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kGetPermission = 0x1022;      // ARCH_GET_XCOMP_PERM
  constexpr long kTileData = 18;
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0) return false;
  unsigned long granted = 0;
  return syscall(SYS_arch_prctl, kGetPermission, &granted) == 0 && ((granted >> kTileData) & 1) != 0;
#else
  return false;
#endif
}

IsaSupport detect() {
  constexpr unsigned long long kAvxState = 0x6, kAvx512State = 0xE6, kTileState = 0x60000;
  IsaSupport support;
  const Registers basic = cpuid(1, 0);
  if (!bit(basic.c, 27)) return support;  // OSXSAVE: else xgetbv itself faults
  const unsigned long long states = enabled_states();
  const Registers features = cpuid(7, 0);
  const Registers more = cpuid(7, 1);
  const bool fma = bit(basic.c, 12), f16c = bit(basic.c, 29), avx2 = bit(features.b, 5);
  if ((states & kAvxState) != kAvxState || !fma || !f16c || !avx2) return support;
  support.best = Isa::kAvx2;
  const bool avx512 = bit(features.b, 16) && bit(features.b, 17) && bit(features.b, 30) &&
                      bit(features.b, 31) && bit(features.c, 11);  // F, DQ, BW, VL, VNNI
  if ((states & kAvx512State) != kAvx512State || !avx512) return support;
  support.best = Isa::kAvx512;
  support.avx512_bf16 = bit(more.a, 5);
  const bool amx = bit(features.d, 22) && bit(features.d, 24) && bit(features.d, 25);  // BF16, TILE, INT8
  if ((states & kTileState) != kTileState || !amx || !support.avx512_bf16) return support;
  if (request_tiles()) support.best = Isa::kAmx;
  return support;
}

#else

IsaSupport detect() { return {}; }

#endif

Isa choose() {
  const Isa best = detect_isa().best;
  const char* wanted = std::getenv("MLXS_CPU_ISA");
  if (wanted == nullptr || *wanted == '\0') return best;
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] != wanted) continue;
    const Isa isa = static_cast<Isa>(i);
    if (isa <= best) return isa;
    log::warn("MLXS_CPU_ISA={} is more than this machine runs: using {}", wanted, isa_name(best));
    return best;
  }
  log::warn("MLXS_CPU_ISA={} is unknown (portable, avx2, avx512, amx): using {}", wanted, isa_name(best));
  return best;
}

}  // namespace

IsaSupport detect_isa() {
  static const IsaSupport support = detect();
  return support;
}

Isa choose_isa() {
  static const Isa isa = choose();
  return isa;
}

std::string_view isa_name(Isa isa) { return kNames[static_cast<std::size_t>(isa)]; }

}  // namespace mlxs::cpu
