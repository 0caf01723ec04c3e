#include "serve/ollama_models.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>
#include <variant>

#include "base/log.h"
#include "engine/model_text.h"
#include "formats/model_file.h"
#include "formats/model_folder.h"
#include "formats/model_summary.h"
#include "formats/sha256.h"
#include "serve/ollama_format.h"

namespace mlxs {
namespace {

constexpr std::int64_t kForEver = std::numeric_limits<std::int64_t>::max();  // the last time that Go can tell

// "134.52M", "8B"
std::string human_count(std::int64_t count) {
  const auto value = static_cast<double>(count);
  if (count >= 1'000'000'000) return fmt::format("{:.1f}B", value / 1e9);
  if (count >= 1'000'000) return fmt::format("{:.2f}M", value / 1e6);
  return fmt::format("{}", count);
}

struct OnDisk {
  std::uint64_t bytes = 0;
  std::int64_t modified_ns = 0;
};
OnDisk stat_files(const std::filesystem::path& path) {
  OnDisk all;
  for (const auto& file : weight_files_of(path)) {
    struct stat status {};
    if (::stat(file.c_str(), &status) != 0) continue;
    all.bytes += static_cast<std::uint64_t>(status.st_size);
    all.modified_ns = std::max(all.modified_ns, std::int64_t{status.st_mtime} * 1'000'000'000);
  }
  return all;
}

std::string digest_of(const ModelFile& file) {
  Sha256 hash;
  const std::string fingerprint = file.fingerprint();
  hash.update(std::as_bytes(std::span(fingerprint)));
  return hash.finish_hex();
}

Json details_json(const ModelFile& file) {
  const ModelSummary summary = summarize(file);
  return {{"parent_model", ""},
          {"format", file.format()},
          {"family", summary.architecture},
          {"families", Json::array({summary.architecture})},
          {"parameter_size", human_count(summary.parameters)},
          {"quantization_level", summary.quantization.substr(0, summary.quantization.find_first_of(", "))}};
}

// Long values (the vocabulary, a tokenizer.json) are null, as Ollama has it, unless all is asked for.
Json metadata_json(const ModelFile& file, bool verbose) {
  constexpr std::size_t kLongestText = 16 << 10, kLongestList = 16;
  Json result = Json::object();
  for (const auto& [key, value] : file.metadata()) {
    if (key == "tokenizer.chat_template") continue;  // stands in "template"
    result[std::string(key)] = std::visit(
        [&](const auto& held) -> Json {
          using Held = std::decay_t<decltype(held)>;
          if constexpr (std::is_same_v<Held, std::string_view>) {
            return verbose || held.size() <= kLongestText ? Json(held) : Json();
          } else if constexpr (std::is_same_v<Held, bool> || std::is_arithmetic_v<Held>) {
            return held;
          } else {
            return verbose || held.size() <= kLongestList ? Json(held) : Json();
          }
        },
        value);
  }
  return result;
}

}  // namespace

std::shared_ptr<const OllamaModels::Details> OllamaModels::details(const std::filesystem::path& path) const {
  const OnDisk now = stat_files(path);
  {
    const std::lock_guard lock(mutex_);
    const auto seen = seen_.find(path);
    if (seen != seen_.end() && seen->second->bytes == now.bytes &&
        seen->second->modified_ns == now.modified_ns)
      return seen->second;
  }
  const auto file = ModelFile::open(path);
  auto read = std::make_shared<const Details>(Details{.bytes = now.bytes,
                                                      .modified_ns = now.modified_ns,
                                                      .digest = digest_of(*file),
                                                      .json = details_json(*file)});
  const std::lock_guard lock(mutex_);
  seen_[path] = read;
  return read;
}

// The catalog's models, and those that were loaded by their path.
std::vector<OllamaModels::Named> OllamaModels::all() const {
  std::vector<Named> models;
  for (CatalogEntry& entry : keeper_.catalog().list()) {
    models.push_back({.name = std::move(entry.name), .path = std::move(entry.path)});
  }
  for (const ModelInfo& loaded : engine_.list_models()) {
    if (std::ranges::none_of(models, [&](const Named& named) { return named.name == loaded.id; }))
      models.push_back({.name = loaded.id, .path = loaded.path});
  }
  return models;
}

OllamaModels::Named OllamaModels::find(std::string_view name) const {
  std::optional<std::string> known = keeper_.loaded_name(name);
  if (!known) known = keeper_.catalog_name(name);
  for (Named& named : all()) {
    if (known && named.name == *known) return std::move(named);
  }
  throw Error(ErrorCode::kModelNotFound, fmt::format("model '{}' not found", name),
              "GET /api/tags lists them", "model");
}

Json OllamaModels::tags() const {
  Json models = Json::array();
  for (const Named& named : all()) {
    try {
      const auto found = details(named.path);
      models.push_back({{"name", named.name},
                        {"model", named.name},
                        {"modified_at", rfc3339(found->modified_ns)},
                        {"size", found->bytes},
                        {"digest", found->digest},
                        {"details", found->json}});
    } catch (const Error& error) {
      log::warn("{} is not listed: {}", named.name, error.full());  // it could not be loaded either
    }
  }
  return {{"models", std::move(models)}};
}

Json OllamaModels::running() const {
  Json models = Json::array();
  for (const ModelInfo& loaded : engine_.list_models()) {
    const auto found = details(loaded.path);
    std::int64_t expires = kForEver;
    if (const auto expiry = keeper_.expiry(loaded.id)) {
      const auto left = *expiry - std::chrono::steady_clock::now();
      expires = unix_nanoseconds() + std::chrono::duration_cast<std::chrono::nanoseconds>(left).count();
    }
    models.push_back({{"name", loaded.id},
                      {"model", loaded.id},
                      {"size", loaded.weight_bytes + loaded.kv_bytes},
                      {"digest", found->digest},
                      {"details", found->json},
                      {"expires_at", rfc3339(expires)},
                      {"context_length", loaded.context_limit}});
  }
  return {{"models", std::move(models)}};
}

Json OllamaModels::show(std::string_view name, bool verbose) const {
  const Named named = find(name);
  const auto found = details(named.path);
  const auto file = ModelFile::open(named.path);
  const ModelSummary summary = summarize(*file);
  const bool encoder = file->has(summary.architecture + ".token_type_count");
  Json capabilities = Json::array({encoder ? "embedding" : "completion"});
  if (summary.has_chat_template) capabilities.push_back("tools");
  if (!reasoning_format(file->get_string("tokenizer.chat_template", "")).empty())
    capabilities.push_back("thinking");
  Json shown{{"modelfile", fmt::format("# on an mlx-serving server\nFROM {}\n", named.name)},
             {"template", file->get_string("tokenizer.chat_template", "")},
             {"details", found->json},
             {"model_info", metadata_json(*file, verbose)},
             {"capabilities", std::move(capabilities)},
             {"modified_at", rfc3339(found->modified_ns)}};
  shown["model_info"]["general.parameter_count"] = summary.parameters;
  if (!summary.licence.empty()) shown["license"] = summary.licence;
  return shown;
}

}  // namespace mlxs
