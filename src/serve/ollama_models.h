// What Ollama's APIs tell of models: those on this disk (tags), one of them (show), those loaded (ps). Reads
// model files, and remembers what it read as long as a file does not change. Any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "mlxs/engine.h"
#include "serve/fields.h"
#include "serve/model_keeper.h"

namespace mlxs {

class OllamaModels {
 public:
  OllamaModels(const Engine& engine, const ModelKeeper& keeper) : engine_(engine), keeper_(keeper) {}

  Json tags() const;
  Json running() const;
  // kModelNotFound. verbose: long lists (the vocabulary) too.
  Json show(std::string_view name, bool verbose) const;

 private:
  struct Details {
    std::uint64_t bytes = 0;
    std::int64_t modified_ns = 0;
    std::string digest;  // of what identifies the content: size, time and header, as for packed weights
    Json json;           // Ollama's "details"
  };
  struct Named {
    std::string name;
    std::filesystem::path path;
  };
  std::shared_ptr<const Details> details(const std::filesystem::path& path) const;  // throws kModelLoad, kIo
  std::vector<Named> all() const;
  Named find(std::string_view name) const;

  const Engine& engine_;
  const ModelKeeper& keeper_;
  mutable std::mutex mutex_;  // guards seen_
  mutable std::map<std::filesystem::path, std::shared_ptr<const Details>> seen_;
};

}  // namespace mlxs
