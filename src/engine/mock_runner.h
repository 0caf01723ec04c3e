// Steps of a mock (formats/mock_model.h): the words of its answer in order, each step as long as it says.
// Keeps to grammars and counts like a model, computes nothing. Used by the engine thread only.
#pragma once

#include <memory>
#include <optional>

#include "base/clock.h"
#include "engine/step_runner.h"
#include "formats/mock_model.h"
#include "models/model.h"

namespace mlxs {

class MockRunner final : public StepRunner {
 public:
  MockRunner(MockSpec spec, std::int32_t vocabulary, const Clock& clock)
      : spec_(spec), vocabulary_(vocabulary), clock_(clock) {}

  void launch(const StepPlan& plan, const std::function<Request&(RequestId)>& request_of) override;
  std::span<const Sampled* const> finish() override;
  bool feeds_next() const override { return steps_[newest_].feeds_next; }
  // A delay is a device's, which computes by itself.
  RunAhead run_ahead() const override { return spec_.delay_ms > 0 ? RunAhead::kPays : RunAhead::kPossible; }
  std::vector<float> evaluate(std::span<const TokenId> tokens, std::int32_t chunk) override;  // zeros
  void copy_pages(const StepPlan&) override {}
  KvStore* kv() override { return nullptr; }

 private:
  struct Step {
    std::vector<std::optional<Sampled>> sampled;  // of each span
    TimePoint launched{};
    bool feeds_next = false;
    bool fails = false;
  };
  // ahead: of the token before it is not known yet.
  Sampled next_token(Request& request, bool ahead);
  [[noreturn]] void fail() const;

  MockSpec spec_;
  std::int32_t vocabulary_;
  const Clock& clock_;
  std::int64_t launches_ = 0, failures_ = 0;
  Step steps_[2];
  std::size_t newest_ = 0;
  int under_way_ = 0;
  TimePoint ended_{};
  std::vector<const Sampled*> results_;
};

// The sizes that scheduler and KV pool go by; its forward() is never called.
std::unique_ptr<Model> make_mock_model(const ModelFile& file);

}  // namespace mlxs
