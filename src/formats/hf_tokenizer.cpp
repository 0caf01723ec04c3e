#include "formats/hf_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>

#include "formats/json_file.h"
#include "formats/quote.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::size_t kMaxTemplateBytes = std::size_t{4} << 20;

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

// "<s>" or {"content": "<s>", …}.
std::string token_text(const json& config, std::string_view key) {
  const auto entry = config.find(key);
  if (entry == config.end()) return {};
  if (entry->is_string()) return entry->get<std::string>();
  if (entry->is_object() && entry->contains("content") && (*entry)["content"].is_string()) {
    return (*entry)["content"].get<std::string>();
  }
  return {};
}

// A template, or the one named "default" of several.
std::string template_in(const json& object) {
  const auto entry = object.find("chat_template");
  if (entry == object.end()) return {};
  if (entry->is_string()) return entry->get<std::string>();
  if (!entry->is_array()) return {};
  std::string first;
  for (const json& item : *entry) {
    const bool sound = item.is_object() && item.contains("template") && item["template"].is_string();
    if (!sound) continue;
    std::string source = item["template"].get<std::string>();
    if (item.contains("name") && item["name"] == "default") return source;
    if (first.empty()) first = source;
  }
  return first;
}

// One id or a list of ids.
void add_ids(const json& object, std::string_view key, const std::string& name,
             std::vector<std::int64_t>& ids) {
  const auto entry = object.find(key);
  if (entry == object.end() || entry->is_null()) return;
  for (const json& id : entry->is_array() ? *entry : json::array({*entry})) {
    const std::int64_t value = json_int(json{{std::string(key), id}}, key, name, 0, INT32_MAX).value_or(0);
    if (std::ranges::find(ids, value) == ids.end()) ids.push_back(value);
  }
}

// How the makers want the model sampled, under GGUF's keys.
void add_sampling(const json& object, ModelContent& content) {
  constexpr std::pair<const char*, const char*> kKeys[] = {
      {"temperature", "general.sampling.temp"},
      {"top_p", "general.sampling.top_p"},
      {"min_p", "general.sampling.min_p"},
      {"repetition_penalty", "general.sampling.penalty_repeat"}};
  for (const auto& [from, to] : kKeys) {
    const auto entry = object.find(from);
    if (entry != object.end() && entry->is_number()) content.set(to, entry->get<double>());
  }
  if (const auto entry = object.find("top_k"); entry != object.end() && entry->is_number_integer())
    content.set("general.sampling.top_k", entry->get<std::int64_t>());
}

}  // namespace

void read_hf_tokenizer(const fs::path& folder, const json& config, ModelContent& content) {
  if (const fs::path path = folder / "tokenizer.json"; is_there(path)) {
    const auto& file = *content.maps.emplace_back(std::make_unique<MappedFile>(path));
    content.set("tokenizer.huggingface.json", text_of(file));
  }
  const fs::path settings_path = folder / "tokenizer_config.json";
  const json settings = read_json_object(settings_path).value_or(json::object());
  for (const char* key : {"bos_token", "eos_token"}) {
    if (std::string text = token_text(settings, key); !text.empty()) {
      content.set(fmt::format("tokenizer.{}", key), content.keep(std::move(text)));
    }
  }

  std::string source;
  if (const fs::path path = folder / "chat_template.jinja"; is_there(path)) {
    source = text_of(MappedFile(path));
  } else if (const auto object = read_json_object(folder / "chat_template.json")) {
    source = template_in(*object);
  }
  if (source.empty()) source = template_in(settings);
  if (source.size() > kMaxTemplateBytes) {
    fail_json(folder.string(), fmt::format("a chat template of {} bytes is over the limit of {}",
                                           source.size(), kMaxTemplateBytes));
  }
  if (!source.empty()) content.set("tokenizer.chat_template", content.keep(std::move(source)));

  // generation_config.json says what ends an answer; config.json often less.
  std::vector<std::int64_t> ends;
  const fs::path generation = folder / "generation_config.json";
  if (const auto object = read_json_object(generation)) {
    add_ids(*object, "eos_token_id", generation.string(), ends);
    add_sampling(*object, content);
  }
  add_ids(config, "eos_token_id", (folder / "config.json").string(), ends);
  if (ends.empty()) return;
  content.set("tokenizer.ggml.eos_token_id", ends.front());
  content.set("tokenizer.eos_token_ids", std::move(ends));
}

}  // namespace mlxs
