// Logging: the one global of the project, a thin face on spdlog. Everything goes to stderr; stdout is for
// answers. Level from MLXS_LOG_LEVEL (or the older KR_MLX_LOG_LEVEL), default "info". Thread-safe.
#pragma once

#include <spdlog/spdlog.h>

#include <string_view>

namespace mlxs {

// Sets the sink (stderr) and the level; call once at the start of main(). Unknown names fall back to info
// with a warning.
void init_logging(std::string_view level_override = {});

namespace log {
// For programs that use the library and never call init_logging(): the logger that spdlog makes by itself,
// which writes to stdout, is replaced by one that writes to stderr. One of the program's own stays.
void leave_stdout();

using spdlog::debug;
using spdlog::error;
using spdlog::info;
using spdlog::warn;
}  // namespace log

}  // namespace mlxs
