// The inner loops of measure_limits(), one for each instruction set. Stateless; any thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mlxs::cpu {

// Reads `bytes` (a multiple of 512, 64-byte aligned) and returns something that depends on all of them.
std::uint64_t read_stream_portable(const std::byte* data, std::size_t bytes);
std::uint64_t read_stream_avx512(const std::byte* data, std::size_t bytes);

// Runs `rounds` rounds of independent multiply-adds; returns the floating-point operations done.
double multiply_add_portable(std::int64_t rounds);
double multiply_add_avx2(std::int64_t rounds);
double multiply_add_avx512(std::int64_t rounds);
double tiles_bf16_amx(std::int64_t rounds);
double tiles_int8_amx(std::int64_t rounds);

}  // namespace mlxs::cpu
