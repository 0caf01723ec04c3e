#include "formats/sentence_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>

#include "formats/json_file.h"
#include "formats/quote.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::pair<const char*, std::int64_t> kPoolings[] = {
    {"pooling_mode_mean_tokens", 1}, {"pooling_mode_cls_token", 2}, {"pooling_mode_lasttoken", 3}};

std::int64_t pooling_of(const fs::path& path) {
  const json settings = read_json_object(path).value_or(json::object());
  std::int64_t pooling = 0;
  for (const auto& [name, value] : settings.items()) {
    if (!name.starts_with("pooling_mode_") || value != true) continue;
    const auto* known = std::ranges::find_if(kPoolings, [&](const auto& row) { return name == row.first; });
    if (known == std::end(kPoolings) || pooling != 0) {
      throw Error(ErrorCode::kModelLoad, fmt::format("{}: {} is not supported", path.string(), quote(name)),
                  "one of the poolings mean, cls and lasttoken is");
    }
    pooling = known->second;
  }
  return pooling == 0 ? 1 : pooling;
}

void read_modules(const fs::path& folder, const std::string& prefix, ModelContent& content) {
  const fs::path path = folder / "modules.json";
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return;
  const MappedFile file(path);
  const json modules = parse_json(file.bytes(), path.string());
  for (const json& module : modules.is_array() ? modules : json::array()) {
    if (!module.is_object()) fail_json(path.string(), "holds something that is no module");
    const std::string type = module.value("type", json("")).is_string() ? module.value("type", "") : "";
    const std::string kind = type.substr(type.rfind('.') + 1);
    const std::string where = module.value("path", json("")).is_string() ? module.value("path", "") : "";
    if (kind == "Pooling") {
      if (where.empty() || where.find("..") != std::string::npos || where.starts_with('/'))
        fail_json(path.string(), fmt::format("has the module path {}", quote(where)));
      content.set(prefix + "pooling_type", pooling_of(folder / where / "config.json"));
    } else if (kind != "Transformer" && kind != "Normalize") {
      throw Error(ErrorCode::kModelLoad,
                  fmt::format("{}: the module {} is not supported", path.string(), quote(type)),
                  "Transformer, Pooling and Normalize are");
    }
  }
}

}  // namespace

void read_sentence_settings(const fs::path& folder, std::string_view architecture, ModelContent& content) {
  const std::string prefix = std::string(architecture) + ".";
  read_modules(folder, prefix, content);
  const fs::path path = folder / "sentence_bert_config.json";
  const auto settings = read_json_object(path);
  if (!settings) return;
  const auto longest = json_int(*settings, "max_seq_length", path.string(), 1, 1 << 27);
  const auto context = content.metadata.find(prefix + "context_length");
  const auto* known =
      context != content.metadata.end() ? std::get_if<std::int64_t>(&context->second) : nullptr;
  if (longest && known != nullptr) content.set(prefix + "context_length", std::min(*longest, *known));
}

}  // namespace mlxs
