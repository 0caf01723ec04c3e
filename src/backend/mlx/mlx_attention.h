// Paged attention over MlxKvStore: rope tables of a step, then one graph of MLX operations for all of a
// batch's decode rows and one for each prefill chunk. Runs on every MLX device; on Metal a kernel of our own
// takes the decode rows. Engine thread only.
#pragma once

#include <mlx/mlx.h>

#include <map>
#include <vector>

#include "backend/mlx/mlx_kv.h"
#include "backend/ops.h"

namespace mlxs::mlx_backend {

// Per-head vectors of AttentionSpec as arrays; unit offsets already added.
struct HeadVectors {
  std::optional<mx::array> query_gain, key_gain;  // [key_dim]
  float query_epsilon = 0, key_epsilon = 0;
  std::optional<mx::array> sinks;  // [heads]
};

// What every layer of a step shares: where its tokens go, what its rows may see, the rotations.
class StepIndex {
 public:
  explicit StepIndex(const Batch& batch);

  struct Group {
    int first_row, sequences, rows;  // sequences · rows tokens, all of the same shape
    int tokens;                      // longest of the sequences' KV
    mx::array slots;                 // int32 [sequences · tokens]; padding repeats a valid slot
    mx::array pages;                 // int32 [sequences, pages]; the same
    mx::array positions;             // int32 [sequences, rows]: of the queries
  };
  const std::vector<Group>& groups() const { return groups_; }
  const mx::array& row_order() const { return *row_order_; }  // batch row of each row of the groups
  bool reordered() const { return reordered_; }
  const mx::array& restore_order() const { return *restore_; }      // and back
  const mx::array& append_slots() const { return *append_slots_; }  // int32 [num_rows]
  // cos and sin, f32 [num_rows, dims/2], magnitude included.
  const std::pair<mx::array, mx::array>& rotation(const RopeSpec& rope);

 private:
  std::vector<std::int32_t> positions_;
  std::vector<Group> groups_;
  std::optional<mx::array> row_order_, restore_, append_slots_;
  bool reordered_ = false;
  std::map<std::pair<const float*, float>, std::pair<mx::array, mx::array>> rotations_;
};

mx::array attention(const mx::array& qkv, const AttentionSpec& spec, const HeadVectors& vectors,
                    StepIndex& index, MlxKvStore& kv);

}  // namespace mlxs::mlx_backend
