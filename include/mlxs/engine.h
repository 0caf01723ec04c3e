// The engine: loads models and turns prompts into token streams. The public C++ API; needs only the standard
// library. An Engine owns one device, its models and the engine thread that runs every step. All methods are
// thread-safe and throw mlxs::Error. Generators may outlive neither the Engine nor dispose().
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "mlxs/admission_window.h"
#include "mlxs/error.h"
#include "mlxs/metal_optimizations.h"
#include "mlxs/observer.h"
#include "mlxs/scheduler_stats.h"
#include "mlxs/timeline.h"

namespace mlxs {

struct EngineOptions {
  std::string backend = "auto";      // "auto", "cpu", "mlx", "cuda"
  int device = 0;                    // which GPU, of the CUDA backend
  int threads = 0;                   // compute threads; 0: one a physical core
  std::uint64_t kv_cache_bytes = 0;  // 0: what one context of every running request may need, within memory
  // Of the memory of a device that has its own: what weights, a step and the KV cache may take of it, of
  // which the KV cache gets the rest unless kv_cache_bytes says how much. 0.05 … 1; other devices: no
  // meaning.
  double gpu_memory_utilization = 0.9;
  std::string kv_cache_dtype =
      "auto";  // "auto" (bf16), "bf16", "int8": half the bytes, one scale a token and head
  // Of models that mix layers with a sliding window and layers without: how many KV pages the former have at
  // most, as a share of what they would have if they kept every token; the less, the more tokens fit, and the
  // fewer requests run at once. 0 … 1; 1: they keep every token. CPU and CUDA, without prefix_cache_dir.
  double kv_window_share = 0.5;
  // Memory of the host where preempted requests may keep their KV, if copying it is faster than computing it
  // again; 0: they compute it again.
  std::uint64_t kv_swap_bytes = 0;
  int max_running = 64;  // sequences that run at once, per model; 1 … 4096
  // A model of 30 billion parameters or more runs one request at a time, whatever max_running says.
  bool large_models_alone = false;
  int max_queue_depth = 1000;    // waiting requests per model
  int aging_interval_ms = 5000;  // a waiting request moves up a tier each; 100 ms … 1 h
  // Tokens of one step, at most; 16 … 65536. 0: 512, and where the device computes prompts faster by more, as
  // many as it gains from while no answer is under way; beside answers as many as keep a step within
  // large_step_ms by what steps were measured to take, and 512 at least. 0 there: no such bound.
  int token_budget = 0;
  double large_step_ms = 50;
  int max_loaded_models = 5;
  bool prefix_cache = true;
  // Computed prompts are forgotten when unused for so long; 0: never, else 1 s … 1 day. max_entries: at most
  // so many prompts, 1 … 10^6, the least recently used go first. Values outside are moved inside, with a
  // warning.
  int prefix_cache_ttl_ms = 300'000;
  int prefix_cache_max_entries = 10'000;
  // Prompts that their requests pin (GenerateParams::pin_prompt) stay in the cache until unused for so long,
  // 1 s … 7 days, and hold together at most this share of a model's KV cache, 0 … 0.9; 0: none is pinned.
  int prefix_cache_pin_ttl_ms = 3'600'000;
  double prefix_cache_pin_share = 0.25;
  // A folder in which computed prompts outlive the process, up to so many bytes; empty: none.
  std::string prefix_cache_dir;
  std::uint64_t prefix_cache_disk_bytes = std::uint64_t{1} << 30;
  double target_itl_ms = 0;  // steps are kept this short while somebody waits for a next token; 0: no target
  // Steps whose results may be in work at once: with 2 or 3, tokens are turned into text and sent while the
  // next step runs. 1 … 3; 0: 2 where the host has a core that the steps leave free, else 1. Unless it is 1,
  // the next step is planned and handed to the device while one runs, where that pays; with 3 also where it
  // only can be. Not with a disk tier, nor while several models are loaded.
  int ring_depth = 0;
  bool fair_share = true;  // tenants (GenerateParams::user) share by tokens; else in order of arrival
  double fair_prompt_weight = 1, fair_output_weight = 2;  // of a computed prompt token and a generated one
  std::vector<std::pair<std::string, double>> tenant_weights;  // > 0; 1 for those not named
  AdmissionWindowOptions admission_window;
  MetalOptimizations metal_optimizations;
  std::string cache_dir;  // packed weights and pulled models; empty: the user's cache directory
  std::shared_ptr<EngineObserver> observer;  // told of requests and steps; may be null
};

struct LoadOptions {
  std::string model;        // a path, an alias or "org/repo"
  std::string served_name;  // empty: the alias, or the file's stem
  int context_length = 0;   // 0: the model's own; more than that is refused, but for an encoder, which keeps
                            // its own
  bool force = false;       // load it even if it will not fit into the memory that is free
  // Models that will be loaded behind it: on a device with memory of its own, room is left for them, and the
  // KV caches of those that generate are as large as each other.
  std::vector<std::string> next;
};

// How a model's makers want it sampled; unset where they say nothing, or nothing possible.
struct SamplingAdvice {
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int> top_k;
};

struct ModelInfo {
  std::string id;  // the served name
  std::string path;
  std::string architecture;
  std::string quantization;  // the most used tensor type: "Q4_1"
  std::int64_t parameter_count = 0;
  std::uint64_t weight_bytes = 0;  // packed
  std::uint64_t kv_bytes = 0;
  int context_length = 0;
  int context_limit = 0;  // of these, what one request can have: fewer where the KV cache holds fewer
  int vocabulary = 0;
  bool has_chat_template = false;
  bool template_has_tools = false;  // the template shows `tools` to the model
  std::string tool_format;  // how the model writes calls: "hermes", "llama3", … (engine/model_text.h)
  std::string
      reasoning;  // how it thinks before it answers: "think" (<think>…</think>), "harmony"; empty: not
  bool is_encoder = false;  // makes embeddings, or scores, of texts, and generates none
  bool scores = false;      // an encoder that scores pairs instead
  int dimensions = 0;       // of an embedding
  SamplingAdvice sampling;  // generation_config.json, GGUF's general.sampling.*; the engine does not use it
  double load_seconds = 0;
  std::int64_t loaded_unix_s = 0;
};

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};
struct ChatPrompt {
  std::vector<ChatMessage> messages;
  std::string messages_json;   // if set, used instead: a JSON array, passed to the template as it is
  std::string tools_json;      // if set, a JSON array for the template's `tools`
  std::string variables_json;  // if set, a JSON object: further variables of the template
  bool add_generation_prompt = true;
};
struct TokenPrompt {
  std::vector<std::int32_t> tokens;
};
// Text is used verbatim (BOS as the model asks); chat goes through the model's template.
using Prompt = std::variant<std::string, ChatPrompt, TokenPrompt>;

enum class RequestPriority { kCritical, kHigh, kNormal, kLow };

// What the whole answer must be. Every answer that is not cut short by max_tokens or a stop string obeys.
struct StructuredOutput {
  enum class Kind {
    kJsonObject,  // any JSON object; text is not used
    kJsonSchema,  // text: a JSON schema
    kRegex,       // text: a regular expression
    kChoice,      // text: a JSON array of strings
    kGrammar,     // text: a Lark grammar, in llguidance's variant
  } kind = Kind::kJsonObject;
  std::string text;
};

// So many of a prompt's first tokens, in whole KV pages, stay in the prefix cache although nobody uses them:
// until unused for so long, at most EngineOptions::prefix_cache_pin_ttl_ms (0: that).
struct PromptPin {
  int tokens = 0;
  int ttl_ms = 0;
};

struct GenerateParams {
  std::string model;  // a loaded model's id
  Prompt prompt;
  std::optional<int> max_tokens;      // unset: up to the context's end
  float temperature = 0.7f;           // 0 … 2; 0 is greedy
  int top_k = 0;                      // 0: off
  float top_p = 1.0f;                 // (0, 1]
  float min_p = 0.0f;                 // [0, 1)
  float presence_penalty = 0.0f;      // -2 … 2
  float frequency_penalty = 0.0f;     // -2 … 2
  float repetition_penalty = 1.0f;    // > 0
  std::optional<std::uint64_t> seed;  // unset: random
  std::vector<std::string> stop;      // at most 16, none empty
  std::vector<std::int32_t> stop_token_ids;
  std::vector<std::pair<std::int32_t, float>> logit_bias;  // -100 … 100
  int top_logprobs = -1;  // -1: none; 0 … 20: the chosen token's and this many of the best
  bool ignore_eos = false;
  bool show_special = false;  // control tokens stand in the text, but for the end token
  std::optional<StructuredOutput> structured;
  RequestPriority priority = RequestPriority::kNormal;
  double slo_ttft_ms =
      0;  // wanted: arrival to first token; 0: no target; refused at once if it cannot be met
  double slo_tpot_ms = 0;  // wanted: mean time of every later token; 0: no target
  std::string user;        // tenant label
  std::string cache_salt;  // computed prompts are shared only among requests where this is equal
  // What begins the prompt stays in the prefix cache when nobody uses it (EngineOptions::prefix_cache_pin_*):
  // of a chat the system messages and tools, else all of it; whole KV pages.
  bool pin_prompt = false;
  std::vector<PromptPin> pins;  // at most 8; beside pin_prompt
  std::string request_id;       // for logs; empty: made up

  // When its client sent it, and how much of the time since then went into tokenizing; unset: now.
  std::optional<std::chrono::steady_clock::time_point> received;
  std::chrono::steady_clock::duration tokenizing{};
  // Called once, before the last chunk can be had, unless create_generator throws. From a thread of the
  // engine (of a model that is gone: whichever thread finds out); must not block or throw.
  std::function<void(RequestTimeline)> on_ended;
};

enum class FinishReason { kStop, kLength, kCancelled, kError };
std::string_view finish_reason_name(FinishReason reason);  // "stop", "length", "cancelled", "error"

struct GenerationStats {
  int prompt_tokens = 0;
  int cached_prompt_tokens = 0;  // of these, KV found in the prefix cache
  int generated_tokens = 0;
  double queue_seconds = 0;      // queued → first step
  double ttft_seconds = 0;       // received → first token
  double total_seconds = 0;      // received → end
  double tokens_per_second = 0;  // after the first token
};

struct TokenAlternative {
  std::int32_t token_id = -1;
  float logprob = 0;
  std::string bytes;  // what the token stands for
};

struct Chunk {
  enum class Type { kToken, kDone, kError } type = Type::kToken;
  std::string text;            // whole characters; may be empty while one is incomplete
  std::int32_t token_id = -1;  // -1: text that was held back (end of the answer)
  std::optional<float> logprob;
  std::string token_bytes;  // with logprob
  std::vector<TokenAlternative> top_logprobs;
  FinishReason finish = FinishReason::kStop;    // done
  std::string stop;                             // done: the stop string that ended it, if one did
  GenerationStats stats;                        // done and error
  ErrorCode error_code = ErrorCode::kInternal;  // error
  std::string error_message;
  int retry_after_s = 0;  // as Error has it
};

// A running request as a stream: token chunks, then exactly one done or error chunk, then the end.
// One consumer thread at a time. Destroying it cancels the request and frees its slot and pages within one
// step.
class Generator {
 public:
  ~Generator();
  Generator(const Generator&) = delete;
  Generator& operator=(const Generator&) = delete;

  std::optional<Chunk> next();  // blocks; nullopt after the last chunk
  enum class Poll { kChunk, kPending, kEnd };
  Poll try_next(Chunk& out);  // never blocks
  // Called once, from a thread of the engine, when try_next would no longer answer kPending; must not block.
  // Set again to be called again. Called at once, on this thread, if something is there already.
  void notify_when_ready(std::function<void()> callback);
  void cancel();  // ends with a done chunk, finish kCancelled
  int prompt_tokens() const;

 private:
  friend class Engine;
  struct Impl;
  explicit Generator(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

struct GenerateResult {
  std::string text;
  std::vector<std::int32_t> tokens;
  FinishReason finish = FinishReason::kStop;
  GenerationStats stats;
};

// A text for an encoder: as text or as tokens, special ones included. With `pair`: two texts that are read
// together.
struct EncoderInput {
  std::string text;
  std::optional<std::string> pair;
  std::vector<std::int32_t> tokens;  // used instead, if not empty
};

struct EncodeParams {
  std::string model;
  std::vector<EncoderInput> inputs;  // 1 … 2048
  std::optional<int> truncate_to;    // longer texts lose their ends; unset: they are refused
  std::string request_id;            // for logs; without one, metrics do not count it
  std::string user;                  // tenant label: tenants that have texts waiting take turns

  // As GenerateParams's; on_ended: called once, before the result can be had, unless create_encoding throws.
  std::optional<std::chrono::steady_clock::time_point> received;
  std::function<void(RequestTimeline)> on_ended;
};

struct EncodeResult {
  std::vector<std::vector<float>> values;  // for each input: its embedding, of length 1; or its score, 0 … 1
  std::vector<int> tokens;                 // of each input
};

// Texts that an encoder reads. One consumer thread at a time; destroying it ends the work within one step.
class Encoding {
 public:
  ~Encoding();
  Encoding(const Encoding&) = delete;
  Encoding& operator=(const Encoding&) = delete;

  EncodeResult wait();                     // throws what went wrong; once
  std::optional<EncodeResult> try_take();  // the same, without waiting
  // As Generator's.
  void notify_when_ready(std::function<void()> callback);

  struct Impl;
  explicit Encoding(std::shared_ptr<Impl> impl);  // the engine's

 private:
  std::shared_ptr<Impl> impl_;
};

struct EngineHealth {
  bool live = false;   // the engine thread runs
  bool ready = false;  // a model is loaded and the loop is idle or completed a step recently
  std::string reason;  // why not ready
  int active_requests = 0;
  double last_step_age_seconds = 0;  // 0 while idle
};

class Engine {
 public:
  // The log goes to stderr: the logger that spdlog begins with is replaced, one of the program's own stays.
  static std::unique_ptr<Engine> create(EngineOptions options = {});
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Idempotent: a loaded model is returned as it is; concurrent loads of one model share the work.
  ModelInfo load_model(const LoadOptions& options);
  void unload_model(std::string_view id);  // unknown ids are ignored; running requests end with an error
  std::vector<ModelInfo> list_models() const;
  ModelInfo model_info(std::string_view id) const;  // kModelNotFound with near names

  // Validates every parameter (kInvalidArgument names it; kContextOverflow gives both numbers), tokenizes,
  // queues.
  std::unique_ptr<Generator> create_generator(const GenerateParams& params);
  // All or none of them, in one go: choices of one prompt then share their steps, whatever else is going on.
  std::vector<std::unique_ptr<Generator>> create_generators(std::span<const GenerateParams> all);
  GenerateResult generate(const GenerateParams& params);

  // Of an encoder (ModelInfo::is_encoder). Validates and tokenizes every input, then queues all of them;
  // inputs of all requests share steps. kContextOverflow names the input that is too long.
  std::unique_ptr<Encoding> create_encoding(const EncodeParams& params);

  std::vector<std::int32_t> tokenize(std::string_view model, std::string_view text,
                                     bool add_special = true) const;
  std::string detokenize(std::string_view model, std::span<const std::int32_t> tokens) const;
  // The bytes that each token stands for; empty for ids that the vocabulary has not.
  std::vector<std::string> token_texts(std::string_view model, std::span<const std::int32_t> tokens) const;
  std::string render_chat(std::string_view model, const ChatPrompt& prompt) const;
  // Tokens that a prompt turns into (template applied), as create_generator would run them.
  std::vector<std::int32_t> encode_prompt(std::string_view model, const Prompt& prompt) const;

  // Runs the model once, so that the first user finds everything mapped. Counts nowhere.
  void warmup_model(std::string_view model);
  std::vector<EngineSchedulerStats> scheduler_stats() const;
  MetalOptimizationsStats metal_optimizations_stats() const;
  EngineHealth health() const;
  std::string device_description() const;
  const EngineOptions& options() const;  // as they hold

  // Logits of every position of one sequence, row-major [tokens, vocabulary], fp32: for oracles and
  // perplexity. Runs alone, `chunk` tokens a step (1: each decoded from the cache).
  std::vector<float> evaluate(std::string_view model, std::span<const std::int32_t> tokens,
                              std::int32_t chunk = 256);

  void dispose();  // idempotent; running requests end with kCancelled

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mlxs
