#include "serve/anthropic_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/types.h"

namespace mlxs {
namespace {

constexpr int kShortMs = 5 * 60 * 1000, kLongMs = 60 * 60 * 1000;

class MarkReader {
 public:
  explicit MarkReader(const OrderedJson& body) : body_(body) {}

  std::vector<CacheMark> read() {
    const OrderedJson system = member(body_, "system"), messages = list(body_, "messages");
    const OrderedJson tools = list(body_, "tools");
    for (std::size_t i = 0; i < tools.size(); ++i)
      block(fmt::format("tools[{}]", i), tools[i], system, OrderedJson::array());
    if (system.is_array()) {
      for (std::size_t i = 0; i < system.size(); ++i) {
        if (marked(system[i]))
          block(fmt::format("system[{}]", i), system[i], first(system, i + 1), OrderedJson::array());
      }
    }
    for (std::size_t i = 0; i < messages.size(); ++i) {
      if (has_mark(messages[i])) message(i, system, messages);
    }
    block("", body_, system, messages);  // all of it
    return std::move(marks_);
  }

 private:
  static OrderedJson member(const OrderedJson& object, const char* name) {
    return object.is_object() ? object.value(name, OrderedJson()) : OrderedJson();
  }
  static OrderedJson list(const OrderedJson& object, const char* name) {
    OrderedJson value = member(object, name);
    return value.is_array() ? value : OrderedJson::array();
  }
  // At any depth: what says so by chance is looked at for nothing.
  static bool has_mark(const OrderedJson& value) {
    return value.is_structured() && (value.contains("cache_control") || std::ranges::any_of(value, has_mark));
  }
  static bool marked(const OrderedJson& block) {
    return block.is_object() && block.contains("cache_control") && !block["cache_control"].is_null();
  }
  static OrderedJson first(const OrderedJson& array, std::size_t count) {
    OrderedJson cut = OrderedJson::array();
    for (std::size_t i = 0; i < count; ++i) cut.push_back(array[i]);
    return cut;
  }

  void message(std::size_t index, const OrderedJson& system, const OrderedJson& messages) {
    const OrderedJson content = list(messages[index], "content");
    for (std::size_t j = 0; j < content.size(); ++j) {
      // Copies are made for marks only, of which there are few: blocks may be very many.
      const OrderedJson inner = list(content[j], "content");  // of a tool's result
      if (!marked(content[j]) && std::ranges::none_of(inner, marked)) continue;
      OrderedJson cut = first(messages, index + 1);
      cut.back()["content"] = first(content, j + 1);
      const std::string path = fmt::format("messages[{}].content[{}]", index, j);
      for (std::size_t k = 0; k < inner.size(); ++k)
        block(fmt::format("{}.content[{}]", path, k), inner[k], system, cut);
      block(path, content[j], system, cut);
    }
  }

  void block(const std::string& path, const OrderedJson& block, const OrderedJson& system,
             const OrderedJson& messages) {
    const Json control = member(block, "cache_control");
    if (control.is_null()) return;
    const std::string at = path.empty() ? "cache_control" : path + ".cache_control";
    check_value({.name = {}, .type = FieldType::kObject}, at, control);
    if (const std::string type = as_string(at + ".type", control.value("type", Json())); type != "ephemeral")
      refuse_field(at + ".type", fmt::format("{}.type = '{}' is not supported", at, type), "use ephemeral");
    const Json given = control.value("ttl", Json());
    const std::string ttl = given.is_null() ? "5m" : as_string(at + ".ttl", given);
    if (ttl != "5m" && ttl != "1h")
      refuse_field(at + ".ttl", fmt::format("{}.ttl = '{}' is not supported", at, ttl), "use 5m or 1h");
    if (marks_.size() == kMostCacheMarks) {
      refuse_field(at, fmt::format("{} is one more than {} places with cache_control", at, kMostCacheMarks),
                   "mark the last block of what stays the same; what is before it is included");
    }
    marks_.push_back({system, messages, ttl == "1h" ? kLongMs : kShortMs});
  }

  const OrderedJson& body_;
  std::vector<CacheMark> marks_;
};

}  // namespace

std::vector<CacheMark> read_cache_marks(const OrderedJson& body) { return MarkReader(body).read(); }

CacheWrites cache_writes(std::span<const CachedBeginning> beginnings, int cached) {
  CacheWrites writes;
  for (const CachedBeginning& beginning : beginnings) {
    const int written = std::max(0, beginning.tokens - cached);
    (beginning.ttl_ms == kLongMs ? writes.long_lived : writes.short_lived) += written;
    cached = std::max(cached, beginning.tokens);
  }
  return writes;
}

int common_beginning(std::span<const std::int32_t> whole, std::span<const std::int32_t> beginning) {
  if (whole.empty()) return 0;
  whole = whole.first(whole.size() - 1);
  const auto common = std::ranges::mismatch(whole, beginning).in1 - whole.begin();
  return static_cast<int>(common) / kPageTokens * kPageTokens;
}

}  // namespace mlxs
