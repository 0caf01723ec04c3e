#include "engine/mock_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>
#include <utility>

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

Sampled MockRunner::next_token(Request& request, bool ahead) {
  const std::int32_t done = request.generated() + (ahead ? 1 : 0);
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

// Failures come in turn as a step is handed over, and as it ends.
void MockRunner::launch(const StepPlan& plan, const std::function<Request&(RequestId)>& request_of) {
  if (spec_.memory > 0 && plan.total_tokens > spec_.memory) {
    throw Error(ErrorCode::kOutOfMemory, "the mock's memory holds no step of so many tokens");
  }
  const bool fails = spec_.fail > 0 && ++launches_ % spec_.fail == 0;
  if (fails && failures_++ % 2 == 0) fail();
  const std::size_t place = under_way_ == 0 ? newest_ : 1 - newest_;
  Step& step = steps_[place];
  step.fails = fails;
  step.feeds_next = true;
  step.sampled.clear();
  for (const PlannedSpan& span : plan.spans) {
    Request& request = request_of(span.request);
    step.feeds_next = step.feeds_next && span.samples && !request.grammar;
    step.sampled.emplace_back();
    if (span.samples) step.sampled.back() = next_token(request, span.fed >= 0);
  }
  step.launched = clock_.now();
  newest_ = place;
  ++under_way_;
}

std::span<const Sampled* const> MockRunner::finish() {
  const Step& step = steps_[under_way_ == 2 ? 1 - newest_ : newest_];
  const int left = std::exchange(under_way_, 0) - 1;
  const TimePoint waiting = clock_.now();
  const TimePoint ends = std::max(step.launched, ended_) + from_ms(spec_.delay_ms);
  if (ends > waiting) std::this_thread::sleep_for(ends - waiting);
  if (step.fails) fail();
  under_way_ = left;
  ended_ = clock_.now();
  times_ = {.wait = ended_ - waiting};
  results_.clear();
  for (const auto& sampled : step.sampled) results_.push_back(sampled ? &*sampled : nullptr);
  return results_;
}

void MockRunner::fail() const {
  throw Error(ErrorCode::kInternal, fmt::format("the mock fails every {} steps", spec_.fail));
}

std::vector<float> MockRunner::evaluate(std::span<const TokenId> tokens, std::int32_t) {
  return std::vector<float>(tokens.size() * static_cast<std::size_t>(vocabulary_));
}

}  // namespace mlxs
