#include "base/log.h"

#include <fmt/chrono.h>
#include <fmt/ranges.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_color_sinks.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "base/log_control.h"
#include "base/log_text.h"

namespace mlxs {
namespace {

constexpr const char* kPattern = "%Y-%m-%dT%H:%M:%S.%e %^%l%$ %*";
constexpr std::string_view kAccess = "access";

std::atomic<LogFormat> current_format{LogFormat::kPretty};

void append(std::string_view text, spdlog::memory_buf_t& out) {
  out.append(text.data(), text.data() + text.size());
}

// The message of a line for a person, "%*" of the pattern.
class VisibleMessage final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    append(visible({message.payload.data(), message.payload.size()}), out);
  }
  std::unique_ptr<spdlog::custom_flag_formatter> clone() const override {
    return std::make_unique<VisibleMessage>();
  }
};

class JsonFormatter final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    const auto since = message.time.time_since_epoch();
    const auto whole = std::chrono::floor<std::chrono::seconds>(since);
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(since - whole).count();
    const spdlog::string_view_t level = spdlog::level::to_string_view(message.level);
    fmt::format_to(
        std::back_inserter(out), R"({{"ts":"{:%Y-%m-%dT%H:%M:%S}.{:03}Z","level":"{}",)",
        fmt::gmtime(std::chrono::system_clock::to_time_t(std::chrono::system_clock::time_point(whole))), ms,
        std::string_view(level.data(), level.size()));
    if (std::string_view(message.logger_name.data(), message.logger_name.size()) == kAccess) {
      append(R"("event":"access",)", out);
      append(quiet_json({message.payload.data(), message.payload.size()}), out);
    } else {
      append(R"("msg":")", out);
      append(json_text({message.payload.data(), message.payload.size()}), out);
      out.push_back('"');
    }
    append("}\n", out);
  }
  std::unique_ptr<spdlog::formatter> clone() const override { return std::make_unique<JsonFormatter>(); }
};

std::string first_set(std::initializer_list<const char*> variables) {
  for (const char* variable : variables) {
    const char* value = std::getenv(variable);
    if (value != nullptr && *value != '\0') return value;
  }
  return {};
}

}  // namespace

void init_logging(std::string_view level_override) {
  const auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  auto logger = std::make_shared<spdlog::logger>("mlxs", sink);
  auto access = std::make_shared<spdlog::logger>(std::string(kAccess), sink);
  logger->flush_on(spdlog::level::info);
  access->flush_on(spdlog::level::debug);
  spdlog::drop_all();
  spdlog::set_default_logger(std::move(logger));
  spdlog::register_logger(std::move(access));

  LogFormat wanted = LogFormat::kPretty;
  const std::string format_name = first_set({"MLXS_LOG_FORMAT"});
  const bool known_format = format_name.empty() || log::parse_format(format_name, wanted);
  log::set_format(wanted);

  std::string name(level_override);
  if (name.empty()) name = first_set({"MLXS_LOG_LEVEL", "KR_MLX_LOG_LEVEL"});
  if (name.empty()) name = "info";
  if (!log::set_level(name)) {
    log::set_level("info");
    log::warn("unknown log level '{}': using info ({})", name, fmt::join(log::kLevels, ", "));
  }
  if (!known_format) log::warn("unknown log format '{}': using pretty (json, pretty)", format_name);
}

namespace log {

void leave_stdout() {
  const std::shared_ptr<spdlog::logger> now = spdlog::default_logger();
  if (now == nullptr || !now->name().empty() || now->sinks().size() != 1 ||
      std::dynamic_pointer_cast<spdlog::sinks::stdout_color_sink_mt>(now->sinks().front()) == nullptr)
    return;
  auto logger = std::make_shared<spdlog::logger>("", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_level(now->level());
  logger->flush_on(now->flush_level());
  static const std::shared_ptr<spdlog::logger> kept = now;  // another thread may be logging to it
  spdlog::set_default_logger(std::move(logger));
}

bool set_level(std::string_view name) {
  if (name != "warning" && name != "err" && std::ranges::find(kLevels, name) == kLevels.end()) return false;
  spdlog::set_level(spdlog::level::from_str(std::string(name)));
  return true;
}

std::string level() {
  switch (spdlog::get_level()) {
    case spdlog::level::trace:
      return "trace";
    case spdlog::level::debug:
      return "debug";
    case spdlog::level::info:
      return "info";
    case spdlog::level::warn:
      return "warn";
    case spdlog::level::critical:
      return "critical";
    case spdlog::level::off:
      return "off";
    default:
      return "error";
  }
}

void set_format(LogFormat wanted) {
  current_format = wanted;
  if (wanted == LogFormat::kJson) {
    spdlog::set_formatter(std::make_unique<JsonFormatter>());
  } else {
    auto formatter = std::make_unique<spdlog::pattern_formatter>(spdlog::pattern_time_type::local);
    formatter->add_flag<VisibleMessage>('*').set_pattern(kPattern);
    spdlog::set_formatter(std::move(formatter));
  }
}

LogFormat format() { return current_format; }

bool parse_format(std::string_view name, LogFormat& out) {
  if (name != "json" && name != "pretty") return false;
  out = name == "json" ? LogFormat::kJson : LogFormat::kPretty;
  return true;
}

bool access_wanted(bool debug_only) {
  return spdlog::should_log(debug_only ? spdlog::level::debug : spdlog::level::info);
}

void access(std::string_view fields, bool debug_only) {
  if (const auto logger = spdlog::get(std::string(kAccess))) {
    logger->log(debug_only ? spdlog::level::debug : spdlog::level::info,
                spdlog::string_view_t(fields.data(), fields.size()));
  }
}

}  // namespace log
}  // namespace mlxs
