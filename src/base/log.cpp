#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

#include <cstdlib>
#include <string>

namespace mlxs {

void init_logging(std::string_view level_override) {
  std::string name(level_override);
  for (const char* variable : {"MLXS_LOG_LEVEL", "KR_MLX_LOG_LEVEL"}) {
    if (!name.empty()) break;
    if (const char* value = std::getenv(variable)) name = value;
  }
  if (name.empty()) name = "info";
  auto logger =
      std::make_shared<spdlog::logger>("mlxs", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ %v");
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
  const auto level = spdlog::level::from_str(name);
  if (level == spdlog::level::off && name != "off") {
    spdlog::set_level(spdlog::level::info);
    log::warn("unknown log level '{}': using info (debug, info, warn, error, off)", name);
    return;
  }
  spdlog::set_level(level);
}

}  // namespace mlxs
