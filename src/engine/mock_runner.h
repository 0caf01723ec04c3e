// Steps of a mock (formats/mock_model.h): the words of its answer in order, each step as long as it says.
// Keeps to grammars and counts like a model, computes nothing. Used by the engine thread only.
#pragma once

#include <memory>

#include "base/clock.h"
#include "engine/step_runner.h"
#include "formats/mock_model.h"
#include "models/model.h"

namespace mlxs {

class MockRunner final : public StepRunner {
 public:
  MockRunner(MockSpec spec, std::int32_t vocabulary, const Clock& clock)
      : spec_(spec), vocabulary_(vocabulary), clock_(clock) {}

  std::span<const Sampled* const> run(const StepPlan& plan,
                                      const std::function<Request&(RequestId)>& request_of) override;
  std::vector<float> evaluate(std::span<const TokenId> tokens, std::int32_t chunk) override;  // zeros
  void copy_pages(const StepPlan&) override {}
  KvStore* kv() override { return nullptr; }

 private:
  Sampled next_token(Request& request);

  MockSpec spec_;
  std::int32_t vocabulary_;
  const Clock& clock_;
  std::int64_t steps_ = 0;
  std::vector<Sampled> sampled_;
  std::vector<const Sampled*> results_;
};

// The sizes that scheduler and KV pool go by; its forward() is never called.
std::unique_ptr<Model> make_mock_model(const ModelFile& file);

}  // namespace mlxs
