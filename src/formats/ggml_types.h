// The numbers that GGUF files use for tensor types and metadata value types, and their names.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/dtype.h"

namespace mlxs {

// nullopt: a type that mlx-serving has no kernels for.
std::optional<DType> dtype_of_ggml(std::uint32_t ggml_type);
// The number that a file stores for a DType up to kMXFP4; the others are not GGUF's.
std::uint32_t ggml_type_of(DType type);
// "IQ2_XXS", also for types we cannot run; "type 99" for numbers that nobody defined.
std::string ggml_type_name(std::uint32_t ggml_type);
// "F32, F16, Q4_0, …": every supported type.
std::string supported_ggml_types();

enum class GgufValueType : std::uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};
inline constexpr std::uint32_t kGgufValueTypes = 13;

}  // namespace mlxs
