// Takes a family's tensors out of a model file by name, checks each shape, and packs them for the backend.
// Lives during load_model() only. Throws kModelLoad naming the tensor, both shapes, or what is left over.
#pragma once

#include <deque>
#include <initializer_list>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backend/ops.h"
#include "backend/weight_cache.h"
#include "formats/model_file.h"

namespace mlxs {

class WeightLoader {
 public:
  WeightLoader(const ModelFile& file, Backend& backend, WeightCache* cache)
      : file_(file), backend_(backend), cache_(cache) {}

  WeightPtr matrix(std::string_view name, std::int64_t rows, std::int64_t columns);
  // One weight from several matrices with the same inputs, outputs stacked in this order: {name, rows}.
  WeightPtr stacked(std::initializer_list<std::pair<std::string, std::int64_t>> parts, std::int64_t columns);
  // A tensor of which only slices are packed; its leading dimensions count as rows.
  RawWeight whole(std::string_view name, std::initializer_list<std::int64_t> shape);
  WeightPtr slice(const RawWeight& whole, std::int64_t first, std::int64_t count);
  // Those rows as columns: [whole.columns, count].
  WeightPtr transposed_slice(const RawWeight& whole, std::int64_t first, std::int64_t count);
  WeightPtr vector(std::string_view name, std::int64_t size);
  WeightPtr stacked_vector(std::initializer_list<std::pair<std::string, std::int64_t>> parts);
  // The experts of one block ("blk.3."), from stacked tensors (ffn_gate_exps …, or ffn_gate_up_pairs, whose
  // rows are gate and up in turn) or from one tensor an expert (ffn_gate.0 …). biases: of all three
  // projections, stacked.
  std::vector<Expert> experts(const std::string& block, std::int64_t count, std::int64_t inner,
                              std::int64_t hidden, bool biases);
  WeightPtr embedding(std::string_view name, std::int64_t rows, std::int64_t columns);
  // An optional small tensor as it is in the file (F32), e.g. rope_freqs.weight; empty if absent.
  std::vector<float> optional_floats(std::string_view name, std::int64_t size);
  bool has(std::string_view name) const { return file_.find_tensor(name) != nullptr; }

  // Every tensor of the file was used; else throws: a bias or norm that we ignored would give wrong answers
  // silently.
  void expect_all_used() const;
  std::size_t packed_bytes() const { return packed_bytes_; }

 private:
  RawWeight take(std::string_view name, std::initializer_list<std::int64_t> shape);
  // Expert `index` of a stacked tensor [count, rows, columns], or the tensor of its own, under a name of its
  // own: the packed form is cached by name.
  RawWeight take_expert(const std::string& block, std::string_view part, std::int64_t index,
                        std::int64_t count, std::int64_t rows, std::int64_t columns);
  void paired_gate_up(const std::string& block, std::int64_t index, std::int64_t count, std::int64_t inner,
                      std::int64_t hidden, bool biased, Expert& expert);
  WeightPtr prepare(std::span<const RawWeight> parts, WeightUse use);

  const ModelFile& file_;
  Backend& backend_;
  WeightCache* cache_;
  std::set<std::string_view> used_;
  std::deque<std::string> names_;  // of experts in stacked tensors, and of slices
  std::size_t packed_bytes_ = 0;
};

}  // namespace mlxs
