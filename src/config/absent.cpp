// The seeds' keys that have no mechanism in this build. A row goes away when its key is in the table.
#include "config/table.h"

namespace mlxs::config {
namespace {

constexpr std::string_view kNoPython = "there is no Python process to talk to: the engine is in this one";
constexpr std::string_view kContinuous =
    "requests join and leave between steps: see engine.token_budget and mlx.concurrency_limit";
constexpr std::string_view kNoFleet = "one server does not steer others";
constexpr std::string_view kNoRollout = "there is no rollout, canary or A/B test in it";

constexpr Absent kKeys[] = {
    {"batch_queue", "there are no calls to another process to gather; tokenizing runs on threads of its own"},
    {"generate_batcher", kContinuous},
    {"continuous_batching", kContinuous},
    {"request_deduplication", "equal requests are computed each; prompt_cache shares what they begin with"},
    {"request_coalescing", "equal streams are computed each; prompt_cache shares what they begin with"},
    {"prompt_cache.max_total_tokens", "computed prompts share the KV cache: engine.kv_cache_bytes"},
    {"prompt_cache.max_total_bytes", "computed prompts share the KV cache: engine.kv_cache_bytes"},
    {"prompt_cache.cleanup_interval_ms", "what is too old is dropped at every step"},
    {"prompt_cache.persistence.save_interval_ms", "pages are written as they are computed"},
    {"kv_cache_pool.enable_prefix_sharing", "whatever two prompts begin with in common is shared"},
    {"kv_cache_pool.prefix_length_ratio", "the longest common beginning is found, of any length"},
    {"kv_cache_pool.enable_statistics", "statistics are always kept: /metrics, /v1/scheduler/stats"},
    {"kv_cache_pool.log_operations", "MLXS_LOG_LEVEL=debug and `why` say what happened"},
    {"cpu_optimizations.kv_cache_pool.enable_prefix_sharing",
     "whatever two prompts begin with in common is shared"},
    {"cpu_optimizations.tokenizer", "prompts are tokenized in parallel, each by one thread: num_threads"},
    {"cpu_optimizations.parallel_tokenizer",
     "prompts are tokenized in parallel, each by one thread: num_threads"},
    {"cpu_optimizations.enabled",
     "the processor's own instructions are always used; MLXS_CPU_ISA limits them"},
    {"binary_streaming", kNoPython},
    {"ipc_batching", kNoPython},
    {"object_pooling", "chunks are values, not pooled objects"},
    {"python_runtime", kNoPython},
    {"python_runtime_manager", kNoPython},
    {"python_bridge", kNoPython},
    {"json_rpc", kNoPython},
    {"connection_pool", kNoPython},
    {"adaptive_batch_coordinator", kNoPython},
    {"rolling_restart_coordinator", kNoPython},
    {"retry_policy", "nothing is sent twice by a server; clients learn from Retry-After when to return"},
    {"circuit_breaker", "a model's failure ends its requests, not the server"},
    {"stream_registry.default_timeout_ms",
     "an answer may take as long as its tokens do; server.write_timeout_ms ends "
     "those that nobody reads"},
    {"stream_registry.cleanup_interval_ms", "a stream's places are free within one step of its end"},
    {"stream_registry.adaptive_limits", "stream_registry.max_active_streams is one number"},
    {"stream_registry.chunk_pooling", "chunks are values, not pooled objects"},
    {"stream_registry.backpressure",
     "a slow reader pauses its own stream: server.stream_buffer_bytes, server.slow_reader and "
     "server.write_timeout_ms"},
    {"stream_registry.metrics", "telemetry.metrics says whether metrics are kept"},
    {"streaming_controller", "tokens are sent as they come; a slow reader pauses its own stream"},
    {"streaming", "stream_registry.max_active_streams is one number, without a governor"},
    {"transport.http2.enabled", "HTTP/2 is always spoken beside HTTP/1.1, on the same port"},
    {"transport.http2.max_sessions", "server.max_connections counts connections of every kind"},
    {"transport.http2.ping_interval_ms",
     "an HTTP/2 client that is gone is noticed by server.write_timeout_ms"},
    {"transport.http2.connect_timeout_ms", "a server does not connect"},
    {"transport.http2.tls", "client certificates are not asked for; cert_file and key_file act"},
    {"transport.websocket.ping_interval_ms", "transport.websocket.idle_timeout_ms ends idle ones"},
    {"ttft_accelerator",
     "prompts are computed in order of priority, target and share; nothing is guessed ahead"},
    {"qos_monitor",
     "targets are kept by the scheduler itself: x-slo-ttft-ms, x-slo-tpot-ms, scheduling.target_itl_ms"},
    {"model_preload",
     "name models on the command line or in model.memory_cache.warmup_on_start; each is warmed up"},
    {"generation_warmup", "every model is run once before it is served"},
    {"model.default_context_length", "the model's file says it; engine.context_length limits it"},
    {"model.default_max_tokens", "an answer may go on to the context's end unless max_tokens says less"},
    {"model.max_generation_tokens", "the context length is the limit: engine.context_length"},
    {"model.max_temperature", "the API's own limit, 2, holds"},
    {"model.supported_dtypes", "the loader says for each file which types it reads"},
    {"model.default_quantization", "models are read as they are stored"},
    {"model.default_dtype", "models are read as they are stored"},
    {"model.trusted_model_directories", "clients cannot name paths, only models of the caches"},
    {"model.memory_cache",
     "the model that was idle longest goes first; max_cached_models and warmup_on_start act"},
    {"model_lifecycle_manager",
     "Ollama's keep_alive unloads idle models; model.max_loaded_models limits them"},
    {"multi_model", "models are loaded by name when they are asked for; max_loaded_models acts"},
    {"advanced_optimizations.multi_model",
     "models are loaded by name when they are asked for; max_cached_models and "
     "preload_on_startup act"},
    {"advanced_optimizations.weight_management",
     "packed weights are mapped, and the system keeps what is used"},
    {"memory_management", "packed weights are mapped, and the system keeps what is used"},
    {"advanced_optimizations.priority_scheduling", "priorities are always on; max_queue_size acts"},
    {"advanced_optimizations.enabled", "every mechanism has its own key"},
    {"advanced_optimizations.horizontal_scaling", kNoFleet},
    {"scheduling.priority_scheduler.enabled", "priorities are always on"},
    {"cache", "the cache of models does not empty itself: `mlx-serving rm`"},
    {"metal_optimizations.memory_pool.warmup_sizes", "warmup_buffer_sizes_mb says it in MB"},
    {"metal_optimizations.memory_pool.pool_size", "num_heaps says how many heaps there are"},
    {"metal_optimizations.log_fallbacks", "fallback_log_level says how loud"},
    {"mlx.force_metal_sync", "every step ends with the backend's own synchronization"},
    {"outlines", "schemas go through llguidance, which has limits of its own"},
    {"performance", "it named parts of the JavaScript process"},
    {"telemetry.enabled", "metrics are on without it: telemetry.metrics, telemetry.otlp_endpoint"},
    {"telemetry.prometheus_port", "metrics are on the server's own port: GET /metrics"},
    {"development", "log.level says how much is logged"},
    {"production_infrastructure", kNoRollout},
    {"phase4_rollout", kNoRollout},
    {"runtime_router", kNoFleet},
    {"horizontal_scaling", "instance_registry.redis_url acts; one server does not steer others"},
};

constexpr Absent kVariables[] = {
    {"MLX_METAL_SYNC_INTERVAL", "every step ends with the backend's own synchronization"},
    {"MLX_METRICS_EXPORT", "telemetry.metrics says whether metrics are kept: GET /metrics"},
    {"MLX_METRICS_PORT", "metrics are on the server's own port: GET /metrics"},
    {"KR_MLX_DISABLE_GENERATE_BATCHING",
     "requests join and leave between steps: mlx.concurrency_limit 1 runs "
     "them one by one"},
};

}  // namespace

std::span<const Absent> absent_keys() { return kKeys; }
std::span<const Absent> absent_variables() { return kVariables; }

}  // namespace mlxs::config
