// LoadedModel's making: what it takes from the file, and the parts that it gets by it.
#include <algorithm>
#include <filesystem>
#include <map>
#include <utility>

#include "backend/weight_cache.h"
#include "base/log.h"
#include "engine/load_plan.h"
#include "engine/loaded_model.h"
#include "engine/mock_runner.h"
#include "engine/model_text.h"
#include "engine/params.h"
#include "engine/runner.h"
#include "engine/sampling_advice.h"
#include "formats/catalog.h"

namespace mlxs {
namespace {

// The type that holds most of the weights' bytes, as users name a quantization.
std::string main_type(const ModelFile& file) {
  std::map<DType, std::size_t> bytes;
  for (const TensorInfo& tensor : file.tensors()) bytes[tensor.type] += tensor.bytes.size();
  const auto most = std::ranges::max_element(bytes, {}, [](const auto& entry) { return entry.second; });
  return most == bytes.end() ? std::string() : std::string(dtype_info(most->first).name);
}

std::int64_t count_parameters(const ModelFile& file) {
  std::int64_t total = 0;
  for (const TensorInfo& tensor : file.tensors()) {
    std::int64_t elements = 1;
    for (const std::int64_t dim : tensor.shape) elements *= dim;
    total += elements;
  }
  return total;
}

}  // namespace

LoadedModel::LoadedModel(const LoadOptions& options, const EngineOptions& engine, const std::string& path,
                         Backend& backend, const Clock& clock, std::shared_ptr<PageStore> store,
                         std::shared_ptr<Inbox> inbox)
    : clock_(clock), observer_(engine.observer), store_(std::move(store)), inbox_(std::move(inbox)) {
  const TimePoint start = clock.now();
  info_.id = options.served_name;
  info_.path = path;
  load(options, engine, backend);
  info_.load_seconds = to_seconds(clock.now() - start);
  info_.loaded_unix_s =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  publish_stats();
}

void LoadedModel::load(const LoadOptions& options, const EngineOptions& given, Backend& backend) {
  file_ = ModelFile::open(info_.path);
  tokenizer_ = make_tokenizer(*file_);
  if (const std::string_view source = file_->get_string("tokenizer.chat_template", ""); !source.empty()) {
    template_ = std::make_unique<ChatTemplate>(
        source, token_text(*file_, "tokenizer.bos_token", *tokenizer_, tokenizer_->bos()),
        token_text(*file_, "tokenizer.eos_token", *tokenizer_, tokenizer_->eos()));
  }

  const LoadPlan plan = plan_load(*file_, backend, given, options.context_length);
  if (!options.force) require_fit(plan, info_.id);
  const EngineOptions engine = with_budget(plan, given);
  const std::filesystem::path cache_dir =
      engine.cache_dir.empty() ? cache_directory() : std::filesystem::path(engine.cache_dir);
  const bool mock = file_->format() == kMockFormat;
  const auto load_weights = [&] {
    if (mock) {
      model_ = make_mock_model(*file_);
      return true;
    }
    WeightCache cache(cache_dir / "packed", file_->fingerprint(), backend.device().packed_layout);
    const bool found = cache.complete();
    model_ = load_model(*file_, backend, &cache);
    cache.commit();
    return found || !cache.complete();
  };
  if (!load_weights()) {  // packed just now, into many mappings: take them from the file, as every later
                          // start does
    model_.reset();
    load_weights();
  }
  if (!mock) file_->drop_pages();

  const ModelConfig& config = model_->config();
  check_vocabulary(*file_, tokenizer_->vocabulary_size(), config.vocabulary);
  auto* const encoder = dynamic_cast<Encoder*>(model_.get());
  const int asked = context_to_load(options.context_length, config.context, encoder != nullptr, info_.id);
  if (asked < options.context_length) {
    log::info("'{}' is an encoder and reads {} tokens of a text; a context of {} is not for it", info_.id,
              config.context, options.context_length);
  }
  const std::int32_t context = asked > 0 ? asked : config.context;
  info_.context_length = info_.context_limit = context;
  info_.parameter_count = count_parameters(*file_);
  if (encoder != nullptr) {
    encoder_ = std::make_unique<EncoderRunner>(
        backend, *encoder,
        EncoderSettings{.model = info_.id,
                        .token_budget = engine.token_budget,
                        .max_queue_depth = static_cast<std::size_t>(engine.max_queue_depth),
                        .clock = clock_,
                        .observer = observer_});
    info_.is_encoder = true;
    info_.scores = encoder->encoder().scores;
    info_.dimensions = config.hidden;
  } else {
    make_decoder_parts(options, engine, backend);
  }
  info_.architecture = config.architecture;
  info_.quantization = main_type(*file_);
  info_.weight_bytes = model_->weight_bytes();
  info_.kv_bytes = encoder_ ? encoder_->kv_bytes() : runner_->kv() != nullptr ? runner_->kv()->bytes() : 0;
  info_.vocabulary = config.vocabulary;
  info_.has_chat_template = template_ != nullptr;
  const std::string_view chat_template = file_->get_string("tokenizer.chat_template", "");
  info_.template_has_tools = chat_template.find("tools") != std::string_view::npos;
  info_.tool_format = tool_format(chat_template);
  info_.reasoning = reasoning_format(chat_template);
  info_.sampling = sampling_advice(*file_);
}

void LoadedModel::make_decoder_parts(const LoadOptions& options, const EngineOptions& given,
                                     Backend& backend) {
  EngineOptions engine = given;
  engine.max_running = concurrency_limit_ = running_limit(given, info_.parameter_count);
  if (engine.max_running != given.max_running)
    log::info("'{}' has 30 billion parameters or more: its requests run one at a time", info_.id);
  const KvPages kv = pages_for_kv(engine, backend, options);
  const auto num_pages = static_cast<std::int32_t>(kv.pages);
  make_publisher(engine, backend);
  const bool mock = file_->format() == kMockFormat;
  if (mock) {
    runner_ = std::make_unique<MockRunner>(parse_mock(info_.path), model_->config().vocabulary, clock_);
  } else {
    runner_ = std::make_unique<Runner>(backend, *model_, kv, swap_slots(engine), kv_type(engine), clock_);
  }
  pool_ = std::make_unique<KvPool>(KvPoolConfig{
      .num_pages = num_pages,
      .prefix_cache = engine.prefix_cache,
      .list_entered = store_ != nullptr,
      .window = model_->config().window,
      .layer_window = kv.window_pages > 0 ? model_->config().layer_window : 0,
      .num_window_pages = static_cast<std::int32_t>(kv.window_pages),
      .ttl = engine.prefix_cache_ttl_ms > 0 ? std::chrono::milliseconds(engine.prefix_cache_ttl_ms)
                                            : Duration::max(),
      .max_entries = engine.prefix_cache_max_entries});
  info_.context_limit =
      static_cast<int>(std::min<std::int64_t>(info_.context_limit, std::int64_t{num_pages} * kPageTokens));
  SchedulerConfig scheduling = scheduler_config(engine, info_.context_limit);
  scheduling.swap_pages = swap_slots(engine);
  scheduling.pinned_pages =
      engine.prefix_cache ? static_cast<std::int32_t>(engine.prefix_cache_pin_share * num_pages) : 0;
  scheduler_ = std::make_unique<Scheduler>(scheduling, *pool_);
  if (store_ && !mock) make_disk_tier(engine, backend);
  ahead_ = runs_ahead(engine);
}

}  // namespace mlxs
