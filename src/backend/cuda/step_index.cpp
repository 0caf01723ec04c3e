#include "backend/cuda/step_index.h"

#include <algorithm>

namespace mlxs::cuda {

void StepIndex::begin(const Batch& batch, StepMemory& memory, cudaStream_t stream) {
  tables_.clear();
  const std::size_t rows = batch.tokens.size();
  std::size_t pages = 0;
  for (const SequenceSpan& s : batch.sequences) pages += s.pages.size();
  const std::size_t count = 4 * rows + pages + batch.sampled_rows.size();
  auto* host = reinterpret_cast<int*>(staging_.reserve(std::max<std::size_t>(count, 1) * sizeof(int)));
  auto* device = static_cast<int*>(memory.allocate(std::max<std::size_t>(count, 1) * sizeof(int)));

  int* first_pages = host + 2 * rows;
  int* lengths = host + 3 * rows;
  int* page = host + 4 * rows;
  std::ranges::copy(batch.tokens, host);
  std::ranges::copy(batch.positions, host + rows);
  rows_.longest = 0;
  for (const SequenceSpan& s : batch.sequences) {
    const int length = s.start + s.num_rows;
    for (int i = 0; i < s.num_rows; ++i) {
      first_pages[s.first_row + i] = static_cast<int>(page - (host + 4 * rows));
      lengths[s.first_row + i] = length;
    }
    page = std::ranges::copy(s.pages, page).out;
    rows_.longest = std::max(rows_.longest, length);
  }
  std::ranges::copy(batch.sampled_rows, page);
  check(cudaMemcpyAsync(device, host, count * sizeof(int), cudaMemcpyHostToDevice, stream), "a step's rows");
  tokens_ = device;
  rows_.positions = device + rows;
  rows_.first_page = device + 2 * rows;
  rows_.lengths = device + 3 * rows;
  rows_.pages = device + 4 * rows;
  rows_.rows = static_cast<int>(rows);
  sampled_ = device + 4 * rows + pages;
}

Rotation StepIndex::rotation(const RopeSpec& rope, StepMemory& memory, cudaStream_t stream) {
  if (rope.dims == 0) return {};
  std::vector<float> key(rope.inverse_frequencies.begin(), rope.inverse_frequencies.end());
  auto found = frequencies_.find(key);
  if (found == frequencies_.end()) {
    DeviceBuffer buffer(key.size() * sizeof(float), "rotation frequencies");
    check(cudaMemcpy(buffer.data(), key.data(), key.size() * sizeof(float), cudaMemcpyHostToDevice),
          "rotation frequencies");
    found = frequencies_.emplace(std::move(key), std::move(buffer)).first;
  }
  void*& table = tables_[{found->second.data(), rope.magnitude}];
  if (table == nullptr) {
    const auto half = static_cast<std::size_t>(rope.dims) / 2;
    table = memory.allocate(static_cast<std::size_t>(rows_.rows) * half * 2 * sizeof(float));
    make_rotation(stream, rows_.positions, reinterpret_cast<const float*>(found->second.data()), rows_.rows,
                  rope.dims, rope.magnitude, table);
  }
  return {.table = table, .dims = rope.dims, .interleaved = rope.interleaved};
}

}  // namespace mlxs::cuda
