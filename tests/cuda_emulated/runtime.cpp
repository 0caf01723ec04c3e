// As much of CUDA's runtime as the backend calls, on host memory: streams run at once, graphs keep what was
// queued while they were captured. MLXS_EMULATED_SM: the GPUs' architecture, 90 unless said otherwise;
// MLXS_EMULATED_MULTIPROCESSORS: how many each has, 8 unless said otherwise.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "blocks.h"

namespace {

// What runs at once runs alone: weights are loaded by several threads.
std::recursive_mutex alone;

using Work = std::vector<std::function<void()>>;
Work* capturing = nullptr;

// Memory that is taken, of a device or the host's (-1), and what there is of the devices'.
struct Taken {
  size_t bytes;
  int device;
};
std::map<void*, Taken> taken;
size_t device_taken = 0, most_taken = 0, device_memory = size_t{1} << 30;

constexpr size_t kMostPitch = size_t{64} << 10;  // less than a GPU's, so that pages of tests reach it

std::function<float()> elapsed;  // ms between any two events

thread_local int device_now = 0;
// Streams and events are their device's number and one.
template <class Handle>
Handle handle_here() {
  return reinterpret_cast<Handle>(static_cast<size_t>(device_now) + 1);
}

// What went wrong stays the thread's last error until it asks, whatever it calls between.
thread_local cudaError_t last_error = cudaSuccess;
cudaError_t refused(cudaError_t status) { return last_error = status; }

int instantiations_refused = 0;

cudaError_t take(void** to, size_t bytes, bool of_device) {
  const std::lock_guard lock(alone);
  if (bytes > size_t{1} << 30 || (of_device && device_taken + bytes > device_memory))
    return refused(cudaErrorMemoryAllocation);
  *to = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(*to, 0xff, bytes);  // nobody may count on zeros
  taken[*to] = {bytes, of_device ? device_now : -1};
  if (of_device) device_taken += bytes;
  most_taken = std::max(most_taken, device_taken);
  return cudaSuccess;
}
cudaError_t give(void* memory) {
  const std::lock_guard lock(alone);
  if (const auto found = taken.find(memory); found != taken.end()) {
    if (found->second.device >= 0) device_taken -= found->second.bytes;
    taken.erase(found);
    std::free(memory);
  }
  return cudaSuccess;
}

mlxs::emulated::Machine machine;
constexpr int kRuntime = 13000;

// What cudaMemcpy() from pageable memory and cudaMemset() have still to do when they return. Of the engine's
// thread.
thread_local Work late;
void run_late() {
  for (const auto& work : std::exchange(late, {})) work();
}

int architecture() {
  if (machine.architecture != 0) return machine.architecture;
  const char* chosen = std::getenv("MLXS_EMULATED_SM");
  return chosen != nullptr ? std::atoi(chosen) : 90;
}

}  // namespace

namespace mlxs::emulated {

void set_machine(const Machine& as) { machine = as; }

void refuse_graphs(int count) { instantiations_refused = count; }
void set_elapsed(std::function<float()> ms) { elapsed = std::move(ms); }
void set_device_memory(size_t bytes) {
  device_memory = bytes;
  most_taken = device_taken;
}
size_t device_memory_most() { return most_taken; }
size_t device_memory_taken(int device) {
  const std::lock_guard lock(alone);
  size_t bytes = 0;
  for (const auto& [memory, own] : taken) {
    if (device < 0 ? own.device >= 0 : own.device == device) bytes += own.bytes;
  }
  return bytes;
}

void check_stream(cudaStream_t stream) {
  if (stream == handle_here<cudaStream_t>()) return;
  std::fprintf(stderr, "a launch to a stream of another device\n");
  std::abort();
}

void queue(std::function<void()> work) {
  const std::lock_guard lock(alone);
  if (capturing != nullptr) {
    capturing->push_back(std::move(work));
  } else {
    work();
  }
}

}  // namespace mlxs::emulated

using mlxs::emulated::queue;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = machine.driver < kRuntime ? 0 : machine.devices;
  if (machine.driver < kRuntime) return refused(cudaErrorInsufficientDriver);
  return machine.devices == 0 ? cudaErrorNoDevice : cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = machine.driver;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = kRuntime;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= machine.devices) return refused(cudaErrorInvalidDevice);
  device_now = device;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = device_now;
  return cudaSuccess;
}
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
const char* cudaGetErrorString(cudaError_t) { return "an error"; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  std::memset(static_cast<void*>(properties), 0, sizeof(*properties));
  std::strcpy(properties->name, "emulated");
  properties->major = architecture() / 10;
  properties->minor = architecture() % 10;
  const char* many = std::getenv("MLXS_EMULATED_MULTIPROCESSORS");
  properties->multiProcessorCount = many != nullptr ? std::atoi(many) : 8;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = architecture() / 10;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = architecture() % 10;
      return cudaSuccess;
    case cudaDevAttrMaxPitch:
      *value = static_cast<int>(kMostPitch);
      return cudaSuccess;
    default:
      return refused(cudaErrorInvalidValue);
  }
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const std::lock_guard lock(alone);
  *free = device_memory > device_taken ? device_memory - device_taken : 0;
  *total = device_memory;
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** to, size_t bytes) { return take(to, bytes, true); }
cudaError_t cudaFree(void* memory) { return give(memory); }
cudaError_t cudaMallocHost(void** to, size_t bytes) { return take(to, bytes, false); }
cudaError_t cudaFreeHost(void* memory) { return give(memory); }
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  const auto* const own = static_cast<const char*>(from);
  late.push_back(
      [to, read = std::vector<char>(own, own + bytes)] { std::memcpy(to, read.data(), read.size()); });
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  queue([=] { std::memcpy(to, from, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind, cudaStream_t) {
  if (to_pitch > kMostPitch || from_pitch > kMostPitch) return refused(cudaErrorInvalidPitchValue);
  queue([=] {
    for (size_t i = 0; i < height; ++i)
      std::memcpy(static_cast<char*>(to) + i * to_pitch, static_cast<const char*>(from) + i * from_pitch,
                  width);
  });
  return cudaSuccess;
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  late.push_back([=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  queue([=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = handle_here<cudaStream_t>();
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream == nullptr) run_late();
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  run_late();
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = handle_here<cudaEvent_t>();
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t) {
  if (!elapsed) return refused(cudaErrorNotReady);
  *ms = elapsed();
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return static_cast<void*>(event) == static_cast<void*>(stream) ? cudaSuccess
                                                                 : refused(cudaErrorInvalidResourceHandle);
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = capturing != nullptr ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  capturing = new Work;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  *graph = reinterpret_cast<cudaGraph_t>(std::exchange(capturing, nullptr));
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  if (instantiations_refused > 0) {
    --instantiations_refused;
    return refused(cudaErrorMemoryAllocation);
  }
  *exec = reinterpret_cast<cudaGraphExec_t>(new Work(*reinterpret_cast<Work*>(graph)));
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete reinterpret_cast<Work*>(graph);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete reinterpret_cast<Work*>(exec);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t) {
  for (const auto& work : *reinterpret_cast<Work*>(exec)) work();
  return cudaSuccess;
}

}  // extern "C"
