// Flags that every command with an engine shares, and how a command gets its model: found, or fetched the
// first time.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <memory>
#include <string>

#include "mlxs/engine.h"

namespace mlxs::cli {

inline constexpr const char* kModelHelp =
    "A .gguf file, a folder of safetensors, an alias (smollm2) or org/repo[:quantization]";

struct EngineFlags {
  std::string backend = "auto";
  int device = 0;
  int threads = 0;
  std::uint64_t kv_cache_bytes = 0, kv_swap_bytes = 0;
  double gpu_memory_utilization = EngineOptions{}.gpu_memory_utilization;
  std::string kv_cache_dtype = "auto";
  double kv_window_share = EngineOptions{}.kv_window_share;
  int prefix_cache_ttl_ms = EngineOptions{}.prefix_cache_ttl_ms;
  int prefix_cache_max_entries = EngineOptions{}.prefix_cache_max_entries;
  MetalOptimizations metal_optimizations;
  int ring_depth = 0;
  int context = 0;
  bool force = false;
};
void add_engine_flags(CLI::App& command, EngineFlags& flags);
EngineOptions engine_options(const EngineFlags& flags);

// An option that takes "2GiB" style values; a wrong one is a usage error.
CLI::Option* add_bytes_option(CLI::App& command, const std::string& name, std::uint64_t& value,
                              const std::string& help);

// Makes sure that the model is on this machine: an alias or a hub's name that is absent is pulled, with a
// progress bar on stderr. Throws kModelNotFound with near names.
void fetch_if_absent(const std::string& model);

// An engine for one conversation at a time with one model loaded: what run and chat need. Refuses encoders.
struct LoadedEngine {
  std::unique_ptr<Engine> engine;
  ModelInfo model;
};
LoadedEngine load_single(const EngineFlags& flags, const std::string& model);

}  // namespace mlxs::cli
