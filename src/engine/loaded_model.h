// One model that is ready to serve: file, tokenizer, template, weights, KV pool, scheduler, and the requests
// it runs. text() parts and info() are immutable and thread-safe; everything else belongs to the engine
// thread. A request's failure ends that request; a step's failure ends the requests of that step, never the
// loop.
#pragma once

#include <exception>
#include <memory>
#include <string>
#include <unordered_map>

#include "base/clock.h"
#include "base/latest.h"
#include "engine/disk_tier.h"
#include "engine/encoder_runner.h"
#include "engine/inbox.h"
#include "engine/kv_cut.h"
#include "engine/publisher.h"
#include "engine/request.h"
#include "engine/stats.h"
#include "engine/step_runner.h"
#include "engine/step_tail.h"
#include "formats/model_file.h"
#include "mlxs/engine.h"
#include "models/encoder.h"
#include "models/model.h"
#include "sched/scheduler.h"
#include "text/chat_template.h"
#include "text/grammar.h"
#include "text/tokenizer.h"

namespace mlxs {

class LoadedModel : public std::enable_shared_from_this<LoadedModel> {
 public:
  // Engine thread: the backend is used to pack weights and to make the KV tensors. Throws kModelLoad,
  // kOutOfMemory. store: where its KV pages outlive it, or null; inbox: how the store's thread reaches this
  // one.
  LoadedModel(const LoadOptions& options, const EngineOptions& engine, const std::string& path,
              Backend& backend, const Clock& clock, std::shared_ptr<PageStore> store,
              std::shared_ptr<Inbox> inbox);

  // Any thread.
  const ModelInfo& info() const { return info_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const ChatTemplate* chat_template() const { return template_.get(); }  // nullptr: the model has none
  // Tokens that prompt and answer of one request may have together.
  int context_limit() const { return info_.context_limit; }
  bool double_separator() const {  // of an encoder's pairs
    const auto* encoder = dynamic_cast<const Encoder*>(model_.get());
    return encoder != nullptr && encoder->encoder().double_separator;
  }
  EngineSchedulerStats stats() const;
  const GrammarEngine& grammars() const;  // made by the first caller

  // Engine thread. Encoders have EncodeTasks, other models have Requests.
  void submit(std::unique_ptr<Request> request, SchedRequest entry);
  void cancel(RequestId id);
  void resume(RequestId id);
  void encode(const std::shared_ptr<EncodeTask>& task);
  void cancel(const EncodeTask& task) { encoder_->cancel(task); }
  // Runs one step; false: nothing could run. alone: nobody else uses the backend before the next call; then
  // the step behind it may be under way afterwards.
  bool step(bool alone);
  int steps_under_way() const { return under_way_; }
  void settle();  // ends the step that is under way: anybody may use the backend
  // After step() was false: requests are held until then for others to join; nullopt: none are.
  std::optional<TimePoint> held_until() const { return oldest().plan.held_until; }
  void end_all(const Error& error);
  std::vector<float> evaluate(std::span<const TokenId> tokens, std::int32_t chunk) {
    return runner_->evaluate(tokens, chunk);
  }
  void publish_stats();  // makes stats() current
  bool idle() const { return requests_.empty() && (!encoder_ || encoder_->waiting() == 0); }

 private:
  // From its plan to its end.
  struct Step {
    StepPlan plan;
    TimePoint started{}, copying{}, planned{};  // planning began; page copies began; both ended
    Duration hidden{};                          // of its parts: while another step ran
    bool ahead = false;
    std::exception_ptr failed_launch{};
  };

  void load(const LoadOptions& options, const EngineOptions& engine, Backend& backend);
  void make_decoder_parts(const LoadOptions& options, const EngineOptions& engine, Backend& backend);
  KvPages pages_for_kv(const EngineOptions& engine, const Backend& backend, const LoadOptions& options) const;
  std::int32_t swap_slots(const EngineOptions& engine) const;
  void make_disk_tier(const EngineOptions& engine, const Backend& backend);
  // True: the prompt's pages are being read, and enqueue() follows when they are there.
  bool restore_first(SchedRequest& entry);
  void enqueue(SchedRequest entry);
  void refuse(const Refusal& refusal);
  // Applies what was sampled for a request; true: the request is over.
  bool accept(Request& request, const Sampled& sampled, const StepShare& step);
  // Ends a request: takes it out of requests_, for the publisher to tell its client.
  void finish(Request& request, FinishReason reason, TimePoint now);
  void fail(Request& request, ErrorCode code, std::string message, TimePoint now);
  void end(Request& request, Chunk last, std::string_view reason, TimePoint now);
  // Its delivery of this step, the last in news_ or a new one.
  Delivery& news_of(Request& request, TimePoint now);
  void deliver();
  void make_publisher(const EngineOptions& engine, const Backend& backend);
  // The publisher found that it may end, or that nobody reads it.
  void stop(RequestId id);
  void pause(RequestId id);
  RequestSeen seen(RequestId id) const;
  // stepping.cpp
  bool runs_ahead(const EngineOptions& engine) const;
  Step& oldest() { return steps_[under_way_ == 2 ? 1 - newest_ : newest_]; }
  const Step& oldest() const { return steps_[under_way_ == 2 ? 1 - newest_ : newest_]; }
  bool begin_step();    // plans and launches one; false: nothing could run
  void begin_behind();  // the one behind that, if there is anything to plan
  void launch(Step& step);
  void drop_behind();
  void end_step();  // the oldest
  // What came of it for its requests; failure: of the whole step, else empty.
  void apply(const Step& step, const StepShare& share, std::span<const Sampled* const> sampled,
             const std::string& failure, ErrorCode failure_code);
  // Of a step that is about to run: who got a place, who lost it.
  void note_plan(const StepPlan& plan, TimePoint now);
  void note_preempted(const StepPlan& plan, TimePoint now);
  // A step that ran out of memory: false if no smaller one can be tried.
  bool give_way(StepPlan& plan, const Error& error);
  void note_admissions(const StepPlan& plan, TimePoint now);
  void note_who_went_first(Request& request);  // while it waits
  // To the observer, if there is one.
  void tell(RequestEvent::Kind kind, const Request& request, TimePoint at);
  void tell_step(const Step& step, const StepShare& share, bool failed);

  const Clock& clock_;
  std::shared_ptr<EngineObserver> observer_;
  ModelInfo info_;
  int concurrency_limit_ = 0;  // of a decoder
  std::unique_ptr<ModelFile> file_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> template_;
  mutable std::once_flag grammars_made_;
  mutable std::unique_ptr<GrammarEngine> grammars_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<EncoderRunner> encoder_;  // of an encoder, which has nothing of what follows
  std::unique_ptr<StepRunner> runner_;
  std::unique_ptr<KvPool> pool_;
  std::unique_ptr<Scheduler> scheduler_;
  std::shared_ptr<PageStore> store_;
  std::shared_ptr<Inbox> inbox_;
  std::unique_ptr<DiskTier> tier_;  // null without a store
  std::unordered_map<RequestId, std::unique_ptr<Request>> requests_;
  Step steps_[2];  // reused, as result_ is: no allocation in the steady state
  std::size_t newest_ = 0;
  int under_way_ = 0;
  bool ahead_ = false;      // a step may be begun while the one before runs
  TimePoint last_ended_{};  // a step
  Duration hidden_{};       // of all steps
  StepResult result_;
  std::vector<StepSpanRecord> span_records_;  // reused, too
  QueueClock queue_clock_;
  AdmissionHistory admissions_;
  bool broken_ = false;  // a request of this step failed in the model

  std::unique_ptr<Publisher> publisher_;
  std::vector<Delivery> news_;      // since the last deliver()
  std::unique_ptr<StepTail> tail_;  // publishes; refers to all of the above

  PageMap map_;  // for publish_stats(), and when it was taken
  TimePoint mapped_{};
  Latest<EngineSchedulerStats> stats_;
};

}  // namespace mlxs
