#include "cli/engine_flags.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdio>

#include "base/bytes.h"
#include "cli/metal_flags.h"
#include "cli/progress_bar.h"
#include "formats/catalog.h"
#include "mlxs/error.h"

namespace mlxs::cli {

void add_engine_flags(CLI::App& command, EngineFlags& flags) {
  command
      .add_option("--backend", flags.backend, "Where to compute: auto, cpu, mlx, cuda (if built with them)")
      ->capture_default_str();
  command.add_option("--device", flags.device, "Which GPU of the cuda backend, as nvidia-smi numbers them")
      ->check(CLI::Range(0, 255, "0..255"));
  command.add_option("--threads", flags.threads, "Compute threads (default: one a physical core)")
      ->check(CLI::Range(1, 256, "1..256"));
  add_bytes_option(command, "--kv-cache-bytes", flags.kv_cache_bytes,
                   "Memory for the KV cache, such as 2GiB (default: what the running requests may need)");
  command
      .add_option("--gpu-memory-utilization", flags.gpu_memory_utilization,
                  "Share of a GPU's memory that weights, a step and the KV cache may take; the KV cache gets "
                  "what the others leave of it")
      ->check(CLI::Range(0.05, 1.0, "0.05..1"))
      ->capture_default_str();
  command
      .add_option("--kv-cache-dtype", flags.kv_cache_dtype,
                  "Type of keys and values: auto (bf16), bf16, int8 (half the memory)")
      ->check(CLI::IsMember({"auto", "bf16", "int8"}))
      ->capture_default_str();
  command
      .add_option("--kv-window-share", flags.kv_window_share,
                  "Of models that mix layers with a sliding window and layers without: how many KV pages the "
                  "former have at most, as a share of what they would have if they kept every token; 1: they "
                  "keep every token")
      ->check(CLI::Range(0.0, 1.0, "0..1"))
      ->capture_default_str();
  add_bytes_option(
      command, "--kv-swap-bytes", flags.kv_swap_bytes,
      "Memory of the host for the KV of preempted requests, where copies are faster than computing "
      "it again (default: none)");
  command.add_option("--context", flags.context, "Context length in tokens (default: the model's own)")
      ->check(CLI::Range(16, 1 << 24, ">= 16"));
  command
      .add_option_function<double>(
          "--prefix-cache-ttl",
          [&flags](double seconds) {
            flags.prefix_cache_ttl_ms = static_cast<int>(std::lround(seconds * 1e3));
          },
          "Seconds after which an unused prompt is forgotten (default: 300; 0: never)")
      ->check(CLI::Validator(
          [](const std::string& text) -> std::string {
            double seconds = 0;
            const bool fits = CLI::detail::lexical_cast(text, seconds) &&
                              (seconds == 0 || (seconds >= 1 && seconds <= 86400));
            return fits ? "" : text + " is neither 0 nor 1 … 86400 s";
          },
          "0, 1..86400"));
  command
      .add_option("--prefix-cache-entries", flags.prefix_cache_max_entries,
                  "Prompts that are remembered at most")
      ->capture_default_str();
  add_metal_flags(command, flags.metal_optimizations);
  command
      .add_option(
          "--ring-depth", flags.ring_depth,
          "Steps whose tokens may be on their way out at once, 1 to 3 (default: 2 where a core is free, "
          "else 1). Unless it is 1, a device that works by itself has the next step while one runs; with 3 "
          "any that can")
      ->check(CLI::Range(1, 3, "1..3"));
  command.add_flag("--force", flags.force, "Load the model even if it will not fit into memory");
}

EngineOptions engine_options(const EngineFlags& flags) {
  EngineOptions options;
  options.backend = flags.backend;
  options.threads = flags.threads;
  options.device = flags.device;
  options.kv_cache_bytes = flags.kv_cache_bytes;
  options.gpu_memory_utilization = flags.gpu_memory_utilization;
  options.kv_cache_dtype = flags.kv_cache_dtype;
  options.kv_window_share = flags.kv_window_share;
  options.kv_swap_bytes = flags.kv_swap_bytes;
  options.prefix_cache_ttl_ms = flags.prefix_cache_ttl_ms;
  options.ring_depth = flags.ring_depth;
  options.prefix_cache_max_entries = flags.prefix_cache_max_entries;
  options.metal_optimizations = flags.metal_optimizations;
  return options;
}

CLI::Option* add_bytes_option(CLI::App& command, const std::string& name, std::uint64_t& value,
                              const std::string& help) {
  return command
      .add_option_function<std::string>(
          name,
          [&value, name](const std::string& text) {
            try {
              value = parse_bytes(text);
            } catch (const Error& error) {
              throw CLI::ValidationError(name, error.full());
            }
          },
          help)
      ->type_name("BYTES");
}

void fetch_if_absent(const std::string& model) {
  const Catalog catalog;
  try {
    catalog.resolve(model);
    return;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kModelNotFound || !catalog.can_pull(model)) throw;
  }
  ProgressBar bar(model, stderr);
  catalog.pull(model, [&bar](const PullProgress& progress) { bar.update(progress); });
}

LoadedEngine load_single(const EngineFlags& flags, const std::string& model) {
  fetch_if_absent(model);
  EngineOptions options = engine_options(flags);
  options.max_running = 1;  // one KV context is enough
  LoadedEngine loaded;
  loaded.engine = Engine::create(options);
  loaded.model = loaded.engine->load_model(
      {.model = model, .served_name = {}, .context_length = flags.context, .force = flags.force});
  if (loaded.model.is_encoder) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("'{}' is an encoder and generates no text", loaded.model.id),
                fmt::format("mlx-serving serve {}, then POST /v1/{}", model,
                            loaded.model.scores ? "rerank or /v1/score" : "embeddings"));
  }
  return loaded;
}

}  // namespace mlxs::cli
