// The table and a loaded configuration as text and JSON, for people and for scripts/docs.py.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "config/config.h"

namespace mlxs::config {

// One key, or every key of a section; kNotFound with near names.
std::string explain(const std::string& path);
std::string explain_all();
nlohmann::json explain_json();

nlohmann::json show_json(const Config& config);

// A commented configuration file that says what holds without it.
std::string default_file();

}  // namespace mlxs::config
