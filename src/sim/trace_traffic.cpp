#include "sim/trace_traffic.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "mlxs/error.h"

namespace mlxs {
namespace {

using nlohmann::json;

constexpr double kMaxMs = 1e12;  // of a time: 31 years
constexpr std::int32_t kMaxTokens = 1 << 20;
constexpr std::array kPriorities = {"critical", "high", "normal", "low"};

struct Row {
  double timestamp_ms = 0, cancel_after_ms = -1;
  std::int32_t input_length = 0, output_length = 0, tenant = 0;
  Priority priority = Priority::kNormal;
  std::vector<std::uint64_t> hash_ids;
};

Duration from_ms(double ms) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double, std::milli>(ms));
}

class Reader {
 public:
  explicit Reader(std::string name) : name_(std::move(name)) {}

  void read(std::istream& lines) {
    for (std::string text; std::getline(lines, text);) {
      ++line_;
      if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
      rows_.push_back(row_of(json::parse(text, nullptr, false)));
    }
    if (rows_.empty()) fail("no request in it", "", "one JSON object a line: see docs/scheduling.md");
    std::ranges::stable_sort(rows_, {}, &Row::timestamp_ms);
  }

  std::vector<Row>& rows() { return rows_; }
  std::vector<std::string>& tenants() { return tenants_; }

 private:
  [[noreturn]] void fail(const std::string& what, const std::string& field, const std::string& hint) const {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{}:{}: {}", name_, line_, what), hint, field);
  }

  double number(const json& object, const char* field, double least, double most) const {
    const auto found = object.find(field);
    if (found == object.end()) fail(fmt::format("'{}' is missing", field), field, "every request needs it");
    const double value = found->is_number() ? found->get<double>() : std::nan("");
    if (value >= least && value <= most) return value;
    fail(fmt::format("{} = {}", field, found->dump()), field,
         fmt::format("a number from {:.0f} to {:.0f}", least, most));
  }

  Row row_of(const json& object) {
    if (!object.is_object()) fail("no JSON object", "", "one JSON object a line");
    for (const auto& [key, value] : object.items()) {
      if (std::ranges::find(kFields, key) == kFields.end())
        fail(fmt::format("unknown field '{}'", key), key, "take it out");
    }
    Row row;
    row.timestamp_ms = number(object, "timestamp", 0, kMaxMs);
    row.input_length = static_cast<std::int32_t>(number(object, "input_length", 1, kMaxTokens));
    row.output_length = static_cast<std::int32_t>(number(object, "output_length", 1, kMaxTokens));
    if (object.contains("cancel_after_ms"))
      row.cancel_after_ms = number(object, "cancel_after_ms", 0, kMaxMs);
    row.tenant = tenant_index(word(object, "tenant", "trace"));
    const std::string priority = word(object, "priority", "normal");
    const auto tier = std::ranges::find(kPriorities, priority) - kPriorities.begin();
    if (tier == std::ssize(kPriorities))
      fail(fmt::format("priority = \"{}\"", priority), "priority", "critical, high, normal or low");
    row.priority = static_cast<Priority>(tier);
    row.hash_ids = blocks(object, row.input_length);
    return row;
  }

  std::string word(const json& object, const char* field, const char* otherwise) const {
    const auto found = object.find(field);
    if (found == object.end()) return otherwise;
    if (!found->is_string()) fail(fmt::format("{} = {}", field, found->dump()), field, "a string");
    return found->get<std::string>();
  }

  std::vector<std::uint64_t> blocks(const json& object, std::int32_t input_length) const {
    std::vector<std::uint64_t> ids;
    const auto found = object.find("hash_ids");
    if (found == object.end()) return ids;
    const auto most = static_cast<std::size_t>((input_length + kTraceBlockTokens - 1) / kTraceBlockTokens);
    const bool holds = found->is_array() && found->size() <= most &&
                       std::ranges::all_of(*found, [](const json& id) { return id.is_number_unsigned(); });
    if (!holds)
      fail(fmt::format("hash_ids do not describe {} tokens", input_length), "hash_ids",
           fmt::format("at most {} whole numbers ≥ 0, one each {} tokens", most, kTraceBlockTokens));
    return found->get<std::vector<std::uint64_t>>();
  }

  std::int32_t tenant_index(const std::string& name) {
    const auto index = std::ranges::find(tenants_, name) - tenants_.begin();
    if (index == std::ssize(tenants_)) tenants_.push_back(name);
    return static_cast<std::int32_t>(index);
  }

  static constexpr std::array<std::string_view, 7> kFields = {
      "timestamp", "input_length", "output_length", "hash_ids", "tenant", "priority", "cancel_after_ms"};

  std::string name_;
  std::size_t line_ = 0;
  std::vector<Row> rows_;
  std::vector<std::string> tenants_;
};

class TraceTraffic final : public Traffic {
 public:
  TraceTraffic(std::vector<Row> rows, std::vector<std::string> tenants, double speed)
      : rows_(std::move(rows)), tenants_(std::move(tenants)), speed_(speed) {}

  std::optional<TimePoint> next_arrival() override {
    if (next_ == rows_.size()) return std::nullopt;
    return TimePoint{} + from_ms((rows_[next_].timestamp_ms - rows_.front().timestamp_ms) / speed_);
  }

  SimRequest take(RequestId) override {
    const Row& row = rows_[next_++];
    SimRequest out;
    out.request.prompt.reserve(static_cast<std::size_t>(row.input_length));
    for (std::int32_t i = 0; i < row.input_length; ++i) {
      const auto block = static_cast<std::size_t>(i / kTraceBlockTokens);
      const std::uint64_t owner = block < row.hash_ids.size() ? mix64(row.hash_ids[block]) : mix64(~next_);
      out.request.prompt.push_back(
          static_cast<TokenId>(mix64(owner + static_cast<std::uint64_t>(i)) & 0xffff));
    }
    out.request.max_new_tokens = out.output_tokens = row.output_length;
    out.request.priority = row.priority;
    out.tenant = row.tenant;
    if (row.cancel_after_ms >= 0) out.patience = from_ms(row.cancel_after_ms);
    return out;
  }

  const std::vector<std::string>& tenants() const override { return tenants_; }

 private:
  std::vector<Row> rows_;  // by timestamp
  std::vector<std::string> tenants_;
  double speed_;
  std::size_t next_ = 0;
};

}  // namespace

std::unique_ptr<Traffic> trace_traffic(std::istream& lines, const std::string& name, double speed) {
  Reader reader(name);
  reader.read(lines);
  return std::make_unique<TraceTraffic>(std::move(reader.rows()), std::move(reader.tenants()), speed);
}

std::unique_ptr<Traffic> trace_file_traffic(const std::string& path, double speed) {
  std::ifstream file(path);
  if (!file)
    throw Error(ErrorCode::kIo, fmt::format("cannot read the trace '{}'", path), "is the path right?");
  return trace_traffic(file, path, speed);
}

}  // namespace mlxs
