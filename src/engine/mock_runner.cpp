#include "engine/mock_runner.h"

#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "engine/request.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

class MockModel final : public Model {
 public:
  explicit MockModel(const ModelFile& file) {
    config_.architecture = file.architecture();
    config_.layers = config_.hidden = config_.heads = config_.kv_heads = 1;
    config_.key_dim = config_.value_dim = config_.feed_forward = 1;
    config_.vocabulary = kMockFirstWord + kMockWords;
    config_.context = static_cast<std::int32_t>(file.get_int("mock.context_length"));
  }
  Tensor forward(Backend&) override {
    throw Error(ErrorCode::kInternal, "a mock has no forward pass");  // MockRunner runs it
  }
};

bool allowed(std::span<const std::uint32_t> mask, std::int32_t token) {
  const auto bit = static_cast<std::uint32_t>(token);
  return (mask[bit / 32] >> (bit % 32) & 1u) != 0;
}

}  // namespace

std::unique_ptr<Model> make_mock_model(const ModelFile& file) { return std::make_unique<MockModel>(file); }

Sampled MockRunner::next_token(Request& request) {
  const std::int32_t done = request.generated();
  Sampled sampled{.token = done < spec_.tokens ? kMockFirstWord + done % kMockWords : kMockEnd};
  if (request.grammar) {  // the word if it may stand here, else the end, else whatever may
    request.compute_mask(clock_);
    if (!allowed(request.allowed, sampled.token)) sampled.token = kMockEnd;
    for (std::int32_t id = 0; !allowed(request.allowed, sampled.token); ++id) {
      if (id == vocabulary_) return {.invalid = true};
      sampled.token = id;
    }
  }
  if (request.sampling.top_logprobs > 0) sampled.top.push_back({sampled.token, 0.0f});
  return sampled;
}

std::span<const Sampled* const> MockRunner::run(const StepPlan& plan,
                                                const std::function<Request&(RequestId)>& request_of) {
  if (spec_.memory > 0 && plan.total_tokens > spec_.memory) {
    throw Error(ErrorCode::kOutOfMemory, "the mock's memory holds no step of so many tokens");
  }
  if (spec_.fail > 0 && ++steps_ % spec_.fail == 0) {
    throw Error(ErrorCode::kInternal, fmt::format("the mock fails every {} steps", spec_.fail));
  }
  if (spec_.delay_ms > 0)
    std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(spec_.delay_ms));
  sampled_.clear();
  sampled_.reserve(plan.spans.size());  // results_ points into it
  results_.clear();
  for (const PlannedSpan& span : plan.spans) {
    if (span.samples) sampled_.push_back(next_token(request_of(span.request)));
    results_.push_back(span.samples ? &sampled_.back() : nullptr);
  }
  return results_;
}

std::vector<float> MockRunner::evaluate(std::span<const TokenId> tokens, std::int32_t) {
  return std::vector<float>(tokens.size() * static_cast<std::size_t>(vocabulary_));
}

}  // namespace mlxs
