// What this processor can run, decided once at start: CPUID and XCR0, and for AMX the kernel's permission as
// well. MLXS_CPU_ISA=portable|avx2|avx512|amx lowers the choice (never raises it; a higher or unknown name
// warns and is ignored). Pure after the first call; thread-safe.
#pragma once

#include <string_view>

namespace mlxs::cpu {

enum class Isa { kPortable, kAvx2, kAvx512, kAmx };  // each includes the ones before it

struct IsaSupport {
  Isa best = Isa::kPortable;
  bool avx512_bf16 = false;  // vdpbf16ps; implied by kAmx
};

IsaSupport detect_isa();  // hardware and kernel only, no environment
Isa choose_isa();         // detect_isa() lowered by MLXS_CPU_ISA; asks the kernel for AMX once a process
std::string_view isa_name(Isa isa);

}  // namespace mlxs::cpu
