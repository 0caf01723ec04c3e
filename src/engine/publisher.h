// Brings what a step sampled to its requests' streams: text, stop strings, the end. Runs on the model's
// StepTail, in order; a request's detokenizer belongs to it, and an ended request altogether. Nothing after a
// stop string is shown, however late the engine hears of it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/ops.h"
#include "engine/request.h"
#include "mlxs/engine.h"
#include "text/tokenizer.h"

namespace mlxs {

// One request's news: a token, its end, or both.
struct Delivery {
  Request* request = nullptr;
  std::optional<Sampled> sampled;
  bool shown = true;                 // an end token is counted, not shown
  bool first = false;                // the request's first token
  double gap_seconds = 0;            // received → it, if first; else since the one before
  std::unique_ptr<Request> ended{};  // over: this is its last delivery
  Chunk last{};                      // of the ended: done or error
  std::string_view reason{};         // of the ended
  TimePoint now{};
};

class Publisher {
 public:
  // The engine thread is told by these, which run on the publishing one: a stop string was found, its request
  // may end; a stream is full, its request should pause.
  struct Signals {
    std::function<void(RequestId)> stopped, full;
  };

  Publisher(const ModelInfo& model, const Tokenizer& tokenizer, std::shared_ptr<EngineObserver> observer,
            Signals signals)
      : model_(model), tokenizer_(tokenizer), observer_(std::move(observer)), signals_(std::move(signals)) {}

  void publish(std::vector<Delivery>& news);

 private:
  void token(Delivery& news);
  void end(Delivery& news);

  const ModelInfo& model_;
  const Tokenizer& tokenizer_;
  std::shared_ptr<EngineObserver> observer_;
  Signals signals_;
};

}  // namespace mlxs
