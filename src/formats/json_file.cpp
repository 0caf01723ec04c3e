#include "formats/json_file.h"

#include <fmt/format.h>

#include <set>
#include <string>
#include <system_error>
#include <vector>

#include "formats/mapped_file.h"
#include "formats/quote.h"
#include "mlxs/error.h"

namespace mlxs {

using nlohmann::json;

void fail_json(std::string_view name, std::string_view what) {
  throw Error(ErrorCode::kModelLoad, fmt::format("{}: {}", name, what),
              "the file is damaged or from an incompatible converter: download it again");
}

json parse_json(std::span<const std::byte> bytes, std::string_view name) {
  if (bytes.size() > kMaxJsonBytes) {
    fail_json(name, fmt::format("{} bytes are over the limit of {}", bytes.size(), kMaxJsonBytes));
  }
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  std::string twice;
  const auto watch = [&](int, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key && twice.empty()) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second) twice = key;
    }
    return true;
  };
  const char* text = reinterpret_cast<const char*>(bytes.data());
  json object;
  try {
    object = json::parse(text, text + bytes.size(), watch);
  } catch (const json::parse_error& error) {
    fail_json(name, fmt::format("is no valid JSON at byte {}", error.byte));
  } catch (const json::exception&) {  // a number out of range
    fail_json(name, "is no valid JSON");
  }
  if (!twice.empty()) fail_json(name, fmt::format("the key {} occurs twice", quote(twice)));
  return object;
}

json parse_json_object(std::span<const std::byte> bytes, std::string_view name) {
  json object = parse_json(bytes, name);
  if (!object.is_object()) fail_json(name, "is JSON, but no object");
  return object;
}

std::optional<json> read_json_object(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return std::nullopt;
  const MappedFile file(path);
  return parse_json_object(file.bytes(), path.string());
}

std::optional<std::int64_t> json_int(const json& object, std::string_view key, std::string_view name,
                                     std::int64_t minimum, std::int64_t maximum) {
  const auto entry = object.find(key);
  if (entry == object.end() || entry->is_null()) return std::nullopt;
  if (!entry->is_number_integer()) {
    fail_json(name, fmt::format("{} is no integer", quote(key)));
  }
  const bool huge = entry->is_number_unsigned() && entry->get<std::uint64_t>() > std::uint64_t{INT64_MAX};
  const std::int64_t value = huge ? INT64_MAX : entry->get<std::int64_t>();
  if (huge || value < minimum || value > maximum) {
    fail_json(name, fmt::format("{} = {} is outside {} … {}", quote(key), entry->dump(), minimum, maximum));
  }
  return value;
}

}  // namespace mlxs
