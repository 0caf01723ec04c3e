#include "engine/encoder_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "backend/encoder_ops.h"
#include "base/log.h"
#include "kv/kv_pool.h"

namespace mlxs {
namespace {

// Each input begins a page of its own, and few have less than a page of tokens.
std::int32_t pages_of(std::int32_t tokens) { return tokens / kPageTokens + tokens / 2 + 1; }

}  // namespace

EncoderRunner::EncoderRunner(Backend& backend, Encoder& model, std::int32_t token_budget)
    : backend_(backend), model_(model), token_budget_(std::max(token_budget, model.config().context)) {
  const ModelConfig& config = model.config();
  kv_ = backend.make_kv({.layers = 1,
                         .kv_heads = config.kv_heads,
                         .key_dim = config.key_dim,
                         .value_dim = config.value_dim,
                         .num_pages = pages_of(token_budget_),
                         .type = DType::kBF16});
}

void EncoderRunner::cancel(const EncodeTask& task) {
  std::erase_if(waiting_, [&](const auto& other) { return other.get() == &task; });
}

void EncoderRunner::end_all(const Error& error) {
  for (const auto& task : waiting_) task->fail(error);
  waiting_.clear();
}

void EncoderRunner::add(const std::shared_ptr<EncodeTask>& task) {
  const EncodedInput& input = task->inputs[task->begun];
  const auto first_row = static_cast<std::int32_t>(tokens_.size());
  const auto count = static_cast<std::int32_t>(input.tokens.size());
  parts_.push_back({task, task->begun++, first_row});
  tokens_.insert(tokens_.end(), input.tokens.begin(), input.tokens.end());
  for (std::int32_t i = 0; i < count; ++i) {
    positions_.push_back(i);
    position_rows_.push_back(
        i < input.first_pair_token || model_.encoder().token_types < 2 ? i : i + model_.config().context);
  }
  std::vector<PageId> pages(static_cast<std::size_t>(KvPool::pages_for(count)));
  std::iota(pages.begin(), pages.end(), pages_used_);
  pages_used_ += static_cast<std::int32_t>(pages.size());
  pages_.push_back(std::move(pages));
  sequences_.push_back({first_row, count, 0, {}});
}

void EncoderRunner::plan() {
  parts_.clear();
  tokens_.clear();
  positions_.clear();
  position_rows_.clear();
  pages_.clear();
  sequences_.clear();
  pages_used_ = 0;
  const auto fits = [&](const EncodedInput& input) {
    const auto count = static_cast<std::int32_t>(input.tokens.size());
    return static_cast<std::int32_t>(tokens_.size()) + count <= token_budget_ &&
           pages_used_ + KvPool::pages_for(count) <= pages_of(token_budget_);
  };
  while (!waiting_.empty() && fits(waiting_.front()->inputs[waiting_.front()->begun])) {
    const std::shared_ptr<EncodeTask> task = std::move(waiting_.front());
    waiting_.pop_front();
    add(task);
    if (task->begun < task->inputs.size()) waiting_.push_back(task);
  }
  for (std::size_t i = 0; i < sequences_.size(); ++i) sequences_[i].pages = pages_[i];
}

void EncoderRunner::run() {
  backend_.begin_step({.tokens = tokens_,
                       .positions = positions_,
                       .sequences = sequences_,
                       .sampled_rows = {},
                       .kv = kv_.get()});
  dynamic_cast<EncoderOps&>(backend_).set_position_rows(position_rows_);
  const Tensor hidden = model_.forward(backend_);
  backend_.end_step();
  hidden_.resize(static_cast<std::size_t>(hidden.rows) * static_cast<std::size_t>(hidden.columns));
  backend_.read(hidden, hidden_);
}

std::vector<float> EncoderRunner::pooled(std::span<const float> rows) const {
  const auto size = static_cast<std::size_t>(model_.config().hidden);
  const EncoderSpec& spec = model_.encoder();
  if (spec.scores) return {model_.score(rows.first(size))};
  std::vector<float> vector(size);
  if (spec.pooling == EncoderSpec::Pooling::kMean) {
    for (std::size_t i = 0; i < rows.size(); ++i) vector[i % size] += rows[i];  // its length follows
  } else {
    const auto from = spec.pooling == EncoderSpec::Pooling::kFirst ? rows.first(size) : rows.last(size);
    vector.assign(from.begin(), from.end());
  }
  const float squares = std::inner_product(vector.begin(), vector.end(), vector.begin(), 0.0f);
  const float scale = 1.0f / std::max(std::sqrt(squares), 1e-12f);
  for (float& value : vector) value *= scale;
  return vector;
}

bool EncoderRunner::step() {
  if (waiting_.empty()) return false;
  plan();
  try {
    run();
  } catch (const std::exception& error) {
    log::error("an encoder's step failed and ends its {} input(s): {}", parts_.size(), error.what());
    const Error failure(ErrorCode::kInternal, fmt::format("the step failed: {}", error.what()));
    for (const Part& part : parts_) {
      cancel(*part.task);
      part.task->fail(failure);
    }
    return true;
  }
  ++steps_;
  tokens_done_ += tokens_.size();
  const auto hidden = static_cast<std::size_t>(model_.config().hidden);
  for (const Part& part : parts_) {
    EncodeTask& task = *part.task;
    const std::span<const float> rows = std::span(hidden_).subspan(
        static_cast<std::size_t>(part.first_row) * hidden, task.inputs[part.input].tokens.size() * hidden);
    task.set(part.input, pooled(rows));
    if (++task.done == task.inputs.size()) task.finish();
  }
  return true;
}

}  // namespace mlxs
