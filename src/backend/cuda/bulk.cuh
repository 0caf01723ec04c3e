// Hopper's copies of whole pages, barriers in shared memory that count what has come, and the products of
// attention: more of the GPU's own instructions, as machine.cuh. tests/cuda_emulated has the same functions
// for the CPU.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include "backend/cuda/machine.cuh"

namespace mlxs::cuda {

// Pages [count][16 tokens][dims] of bf16 as the copy engine takes them apart: eight tokens of 64 dims are a
// block of 1,024 bytes, swizzled in 128; blocks of the same tokens are neighbours.
struct PageMap {
  CUtensorMap map;
};

// dims: a multiple of 64, 256 at most. On the host.
inline PageMap map_pages(void* pages, size_t count, int dims) {
  using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                              const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                              CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  static const auto encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result{};
    cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
    return reinterpret_cast<Encode>(found);
  }();
  const auto row = static_cast<cuuint64_t>(dims) * 2, parts = static_cast<cuuint64_t>(dims) / 64;
  const cuuint64_t sizes[] = {64, 8, parts, 2 * count}, steps[] = {row, 128, 8 * row};
  const cuuint32_t box[] = {64, 8, static_cast<cuuint32_t>(parts), 2}, each[] = {1, 1, 1, 1};
  PageMap map{};
  encode(&map.map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, pages, sizes, steps, box, each,
         CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
         CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return map;
}

// Counts arrivals and bytes of a phase; the phases are even and odd in turn, the first one even.
struct Barrier {
  unsigned long long state;
};

#if defined(MLXS_HAS_WGMMA)

__device__ inline void begin_barrier(Barrier& barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)), "r"(arrivals)
               : "memory");
}
// For other threads and the copy engine, once they have met this one.
__device__ inline void show_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ inline void arrive(Barrier& barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier)) : "memory");
}
// Arrives, and the phase ends when so many bytes have come, too.
__device__ inline void arrive_expecting(Barrier& barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)),
               "r"(bytes)
               : "memory");
}
// Until the phase of this parity has ended.
__device__ inline void wait(Barrier& barrier, int parity) {
  unsigned done = 0;
  while (done == 0) {
    asm volatile(
        "{ .reg .pred done;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n"
        "selp.u32 %0, 1, 0, done; }"
        : "=r"(done)
        : "r"(shared_address(&barrier)), "r"(parity)
        : "memory");
  }
}
__device__ inline void copy_page(void* to, const PageMap& map, int page, Barrier& barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %2, %2, "
      "%3}], [%4];" ::"r"(shared_address(to)),
      "l"(&map), "r"(0), "r"(2 * page), "r"(shared_address(&barrier))
      : "memory");
}
// A multiple of sixteen bytes, as they are.
__device__ inline void copy_bytes(void* to, const void* from, int bytes, Barrier& barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(&barrier))
      : "memory");
}

// All of 128 threads; barriers from 1 on are the caller's.
__device__ inline void sync_warpgroup(int barrier) {
  asm volatile("bar.sync %0, 128;" ::"r"(barrier) : "memory");
}
// Two warpgroups: one goes on when the other has let it, which does not wait.
__device__ inline void await_warpgroup(int barrier) {
  asm volatile("bar.sync %0, 256;" ::"r"(barrier) : "memory");
}
__device__ inline void let_warpgroup(int barrier) {
  asm volatile("bar.arrive %0, 256;" ::"r"(barrier) : "memory");
}
// A warpgroup's registers, of which the block has as many as its threads started with.
template <int kRegisters>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

__device__ inline float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// Within 2^-11 of the value.
__device__ inline float fast_tanh(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// What products have left in these registers is there: behind wait_products().
template <int kCount>
__device__ inline void settle(float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(values[i]));
}

// Rows of 64 values (128 bytes), swizzled in 128 bytes, eight of them in 1,024. Either the rows are the
// columns of the product's right operand, whose next eight stand `step` bytes on; or they are its lines, 64
// columns being `across` bytes apart and the next eight lines `step`.
__device__ inline unsigned long long swizzled_columns(unsigned address, unsigned step) {
  return 1ull << 62 | static_cast<unsigned long long>(step >> 4) << 32 | 1ull << 16 |
         (address & 0x3ffff) >> 4;
}
__device__ inline unsigned long long swizzled_lines(unsigned address, unsigned across, unsigned step) {
  return 1ull << 62 | static_cast<unsigned long long>(step >> 4) << 32 |
         static_cast<unsigned long long>(across >> 4) << 16 | (address & 0x3ffff) >> 4;
}
// The same, so many bytes on.
__device__ inline unsigned long long further(unsigned long long operand, unsigned bytes) {
  return operand + (bytes >> 4);
}

#define MLXS_TO4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define MLXS_TO16(d, i) MLXS_TO4(d, i), MLXS_TO4(d, i + 4), MLXS_TO4(d, i + 8), MLXS_TO4(d, i + 12)
#define MLXS_NAMES32                                                                                        \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27," \
  "%28,%29,%30,%31"
#define MLXS_NAMES64                                                                                      \
  MLXS_NAMES32                                                                                            \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56," \
  "%57,%58,%59,%60,%61,%62,%63"

// As multiply(): kFirst: d = a · b. kLines: how b lies.
template <int kColumns, bool kFirst, bool kLines>
__device__ inline void multiply_as(float (&d)[kColumns / 2], const unsigned (&a)[4], unsigned long long b) {
  static_assert(kColumns == 64 || kColumns == 128);
  if constexpr (kColumns == 64) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " MLXS_NAMES32
                 "}, {%32,%33,%34,%35}, %36, %37, 1, 1, %38;"
                 : MLXS_TO16(d, 0), MLXS_TO16(d, 16)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kFirst ? 0 : 1),
                   "n"(kLines ? 1 : 0));
  } else {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " MLXS_NAMES64
                 "}, {%64,%65,%66,%67}, %68, %69, 1, 1, %70;"
                 : MLXS_TO16(d, 0), MLXS_TO16(d, 16), MLXS_TO16(d, 32), MLXS_TO16(d, 48)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kFirst ? 0 : 1),
                   "n"(kLines ? 1 : 0));
  }
}

#undef MLXS_TO4
#undef MLXS_TO16
#undef MLXS_NAMES32
#undef MLXS_NAMES64

#endif

}  // namespace mlxs::cuda
