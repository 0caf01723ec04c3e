// Every kernel that a CUDA program runs, one line each: start and end in ns, grid, threads, registers, shared
// memory, name. The driver loads it into the program that is started with it; nothing of the program changes,
// and kernels of graphs count.
//   g++ -O1 -shared -fPIC -o trace.so bench/kernel_trace.cpp -I$CUDA/include -L$CUDA/lib64 -lcupti
//   CUDA_INJECTION64_PATH=$PWD/trace.so MLXS_TRACE=trace.tsv build-cuda/mlx-serving bench synthetic
//   bench/configs/NAME.json bench/kernel_timeline.py trace.tsv --rows 8 > docs/img/cuda-step.svg
#include <cupti.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace {

std::FILE* out = nullptr;

void CUPTIAPI give_buffer(std::uint8_t** buffer, std::size_t* size, std::size_t* records) {
  *size = std::size_t{8} << 20;
  *buffer = static_cast<std::uint8_t*>(std::aligned_alloc(8, *size));
  *records = 0;
}

void CUPTIAPI take_buffer(CUcontext, std::uint32_t, std::uint8_t* buffer, std::size_t, std::size_t valid) {
  CUpti_Activity* record = nullptr;
  while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
    if (record->kind != CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) continue;
    const auto* k = reinterpret_cast<const CUpti_ActivityKernel9*>(record);
    std::fprintf(out, "%llu\t%llu\t%d,%d,%d\t%d\t%d\t%d\t%s\n", static_cast<unsigned long long>(k->start),
                 static_cast<unsigned long long>(k->end), k->gridX, k->gridY, k->gridZ, k->blockX,
                 k->registersPerThread, k->dynamicSharedMemory + k->staticSharedMemory,
                 k->name ? k->name : "?");
  }
  std::free(buffer);
}

void finish() {
  cuptiActivityFlushAll(1);
  std::fflush(out);
}

}  // namespace

extern "C" int InitializeInjection() {
  const char* path = std::getenv("MLXS_TRACE");
  out = std::fopen(path != nullptr ? path : "trace.tsv", "w");
  if (out == nullptr) return 0;
  cuptiActivityRegisterCallbacks(give_buffer, take_buffer);
  cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
  std::atexit(finish);
  return 1;
}
