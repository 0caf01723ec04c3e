// The keys of the engine: which models, where they compute, and the memory of prompts.
#include "config/table.h"

namespace mlxs::config {

std::vector<Key> engine_keys() {
  return {
      MLXS_KEY("engine.backend", engine.backend)
          .one_of({"auto", "cpu", "mlx", "cuda"})
          .flag("--backend")
          .says("Where to compute; mlx and cuda if built with them"),
      MLXS_KEY("engine.device", engine.device)
          .range(0, 255)
          .flag("--device")
          .says("Which GPU of the cuda backend, as nvidia-smi numbers them"),
      MLXS_KEY("engine.threads", engine.threads)
          .range(1, 256)
          .or_zero("one a physical core")
          .flag("--threads")
          .says("Compute threads"),
      MLXS_KEY("engine.kv_cache_bytes", engine.kv_cache_bytes)
          .bytes()
          .range(1 << 20, 0x1p50)
          .or_zero("what the running requests may need; on a GPU what gpu_memory_utilization leaves")
          .flag("--kv-cache-bytes")
          .says("Memory for the KV cache, such as 2GiB"),
      MLXS_KEY("engine.gpu_memory_utilization", engine.gpu_memory_utilization)
          .range(0.05, 1)
          .flag("--gpu-memory-utilization")
          .says("Share of a GPU's memory that weights, a step and the KV cache may take; the KV cache gets "
                "what "
                "the others leave of it, unless kv_cache_bytes says how much"),
      MLXS_KEY("engine.kv_cache_dtype", engine.kv_cache_dtype)
          .one_of({"auto", "bf16", "int8"})
          .flag("--kv-cache-dtype")
          .says("Type of keys and values: auto (bf16), bf16, int8 (half the memory)"),
      MLXS_KEY("engine.kv_window_share", engine.kv_window_share)
          .range(0, 1)
          .flag("--kv-window-share")
          .says(
              "Of models that mix layers with a sliding window and layers without (Gemma, gpt-oss): how many "
              "KV pages the former have at most, as a share of what they would have if they kept every "
              "token; 1, or pages on disk (prompt_cache.persistence): they keep every token (cpu and cuda "
              "backends)"),
      MLXS_KEY("engine.kv_swap_bytes", engine.kv_swap_bytes)
          .bytes()
          .range(0, 0x1p50)
          .flag("--kv-swap-bytes")
          .says(
              "Memory of the host where preempted requests may keep their KV, such as 4GiB; 0: they compute "
              "it again"),
      MLXS_KEY("engine.ring_depth", engine.ring_depth)
          .range(1, 3)
          .or_zero("2 where the host has a core that the steps leave free, else 1")
          .flag("--ring-depth")
          .says("Steps whose results may be in work at once; with 3 any device that can has the next one "
                "while one runs, else those that work by themselves do, unless it is 1"),
      MLXS_KEY("engine.token_budget", engine.token_budget)
          .range(16, 65536)
          .or_zero("512, on a GPU up to 8192 as large_step_ms says, fewer where memory is short")
          .says("Tokens of one step, at most"),
      MLXS_KEY("engine.large_step_ms", engine.large_step_ms)
          .range(0, 60e3)
          .in("ms")
          .says("With the default token_budget on a GPU: while answers run, a step has more than 512 tokens "
                "only "
                "as far as measured steps say that it stays below this; 0: no bound"),
      MLXS_KEY("engine.context_length", context_length)
          .range(16, 1 << 24)
          .or_zero("the model's own")
          .flag("--context")
          .says("Context length in tokens"),
      MLXS_KEY("engine.force_load", force_load)
          .flag("--force")
          .says("Load a model even if it will not fit into memory"),
      MLXS_KEY("mlx.concurrency_limit", engine.max_running)
          .range(1, 4096)
          .flag("--max-running")
          .says("Requests that run at once, per model"),
      MLXS_KEY("mlx.large_models_alone", engine.large_models_alone)
          .says("Models of 30 billion parameters or more run one request at a time"),
      MLXS_KEY("model.max_loaded_models", engine.max_loaded_models)
          .range(1, 1024)
          .also("model.memory_cache.max_cached_models")
          .also("multi_model.max_loaded_models")
          .also("advanced_optimizations.multi_model.max_cached_models")
          .says("Models in memory at once; those of the command line always fit"),
      MLXS_KEY("model.memory_cache.warmup_on_start", models)
          .also("advanced_optimizations.multi_model.preload_on_startup")
          .says("Models that are loaded at the start where the command line names none"),
      MLXS_KEY("model.served_name", served_name)
          .flag("--served-model-name")
          .says("Name of the first model in the API; empty: its alias, or its file's stem"),
      MLXS_KEY("cache.cache_dir", engine.cache_dir)
          .env("MLXS_CACHE_DIR")
          .says("Where pulled models and packed weights lie; empty: ~/.cache/mlx-serving"),
      MLXS_KEY("prompt_cache.enabled", engine.prefix_cache)
          .also("kv_cache_pool.enabled")
          .also("cpu_optimizations.kv_cache_pool.enabled")
          .says("Keep computed prompts, so that one that begins like an earlier one skips that part"),
      MLXS_KEY("prompt_cache.max_entries", engine.prefix_cache_max_entries)
          .range(1, 1'000'000)
          .flag("--prefix-cache-entries")
          .also("kv_cache_pool.max_size")
          .also("kv_cache_pool.max_entries")
          .also("cpu_optimizations.kv_cache_pool.max_entries")
          .says("Prompts that are remembered at most"),
      MLXS_KEY("prompt_cache.ttl_ms", engine.prefix_cache_ttl_ms)
          .range(1000, 86'400'000)
          .or_zero("never")
          .in("ms")
          .flag("--prefix-cache-ttl", 1000)
          .also("kv_cache_pool.ttl_seconds", 1000)
          .also("cpu_optimizations.kv_cache_pool.ttl_seconds", 1000)
          .says("Time after which an unused prompt is forgotten"),
      MLXS_KEY("prompt_cache.pinning.max_share", engine.prefix_cache_pin_share)
          .range(0, 0.9)
          .says("Of the KV cache, what prompts that their requests pin (prompt_cache_retention, "
                "cache_control) may hold; 0: "
                "none is pinned"),
      MLXS_KEY("prompt_cache.pinning.ttl_ms", engine.prefix_cache_pin_ttl_ms)
          .range(1000, 604'800'000)
          .in("ms")
          .says("Time after which an unused pinned prompt is let go"),
      MLXS_KEY("prompt_cache.persistence.enabled", persistence)
          .says("Keep computed prompts on disk, so that they outlive the server (cpu and cuda "
                "backends)"),
      MLXS_KEY("prompt_cache.persistence.path", engine.prefix_cache_dir)
          .flag("--prefix-cache-dir")
          .says("Keep computed prompts in this folder, so that they outlive the server (cpu and cuda "
                "backends); turns "
                "persistence on"),
      MLXS_KEY("prompt_cache.persistence.max_bytes", engine.prefix_cache_disk_bytes)
          .bytes()
          .range(1 << 20, 0x1p50)
          .flag("--prefix-cache-bytes")
          .says("What that folder of computed prompts may hold, such as 10GiB; the least recently used goes"),
  };
}

}  // namespace mlxs::config
