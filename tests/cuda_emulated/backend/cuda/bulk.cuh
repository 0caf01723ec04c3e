// The instructions of src/backend/cuda/bulk.cuh for the CPU, with the same meaning.
#pragma once

#include "backend/cuda/machine.cuh"

namespace mlxs::cuda {

struct PageMap {
  const char* pages;
  std::size_t count, dims;
};
inline PageMap map_pages(void* pages, std::size_t count, int dims) {
  return {static_cast<const char*>(pages), count, static_cast<std::size_t>(dims)};
}

struct Barrier {
  unsigned long long state;
};
inline void begin_barrier(Barrier& barrier, int arrivals) { emulated::begin_barrier(&barrier, arrivals); }
inline void show_barriers() {}
inline void arrive(Barrier& barrier) { emulated::arrive_at(&barrier, 0); }
inline void arrive_expecting(Barrier& barrier, int bytes) {
  emulated::arrive_at(&barrier, static_cast<std::size_t>(bytes));
}
inline void wait(Barrier& barrier, int parity) { emulated::wait_for(&barrier, parity); }

inline void copy_page(void* to, const PageMap& map, int page, Barrier& barrier) {
  const std::size_t bytes = 16 * map.dims * 2, parts = map.dims / 64;
  if (page < 0 || static_cast<std::size_t>(page) >= map.count || shared_address(to) % 1024 != 0) std::abort();
  emulated::copy_towards(&barrier, bytes, [=] {
    const char* from = map.pages + static_cast<std::size_t>(page) * bytes;
    for (std::size_t token = 0; token < 16; ++token) {
      for (std::size_t chunk = 0; chunk < parts * 8; ++chunk) {
        const std::size_t at =
            (token / 8 * parts + chunk / 8) * 1024 + token % 8 * 128 + (chunk % 8 ^ token % 8) * 16;
        std::memcpy(static_cast<char*>(to) + at, from + token * map.dims * 2 + chunk * 16, 16);
      }
    }
  });
}
inline void copy_bytes(void* to, const void* from, int bytes, Barrier& barrier) {
  if (bytes % 16 != 0 || shared_address(to) % 16 != 0) std::abort();
  const auto count = static_cast<std::size_t>(bytes);
  emulated::copy_towards(&barrier, count, [=] { std::memcpy(to, from, count); });
}

inline void sync_warpgroup(int barrier) { emulated::sync_some(barrier, 128); }
inline void await_warpgroup(int barrier) { emulated::sync_some(barrier, 256); }
inline void let_warpgroup(int barrier) { emulated::arrive_some(barrier, 256); }
template <int kRegisters>
void take_registers() {}
template <int kRegisters>
void give_registers() {}

inline float fast_exp2(float x) { return std::exp2(x); }
inline float fast_tanh(float x) {  // with an error of the size that the instruction's may have
  const float y = std::tanh(x);
  return y * (1.0f + (__float_as_uint(x) % 2 == 0 ? 0.000488f : -0.000488f));
}
template <int kCount>
void settle(float (&)[kCount]) {}

inline unsigned long long swizzled_columns(unsigned address, unsigned step) {
  return address | static_cast<unsigned long long>(step) << 20;
}
inline unsigned long long swizzled_lines(unsigned address, unsigned across, unsigned step) {
  return swizzled_columns(address, step) | static_cast<unsigned long long>(across) << 40;
}
inline unsigned long long further(unsigned long long operand, unsigned bytes) { return operand + bytes; }

template <int kColumns, bool kFirst, bool kLines>
void multiply_as(float (&d)[kColumns / 2], const unsigned (&a)[4], unsigned long long b) {
  emulated::self().next_products.push_back(
      {d,
       a,
       {static_cast<unsigned>(b & 0xfffff), static_cast<unsigned>(b >> 20 & 0xfffff),
        static_cast<unsigned>(b >> 40)},
       kColumns,
       kFirst,
       kLines});
}

}  // namespace mlxs::cuda
