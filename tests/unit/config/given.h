// A configuration out of a file's text, variables and flags, as the tests write them down.
#pragma once

#include <map>
#include <string>

#include "config/config.h"

namespace mlxs::config {

struct Given {
  std::string file;  // its text; empty: none
  std::map<std::string, std::string> variables = {}, flags = {};
};

inline Config load_given(const Given& given) {
  Sources sources;
  if (!given.file.empty()) {
    sources.file = "runtime.yaml";
    sources.text = given.file;
  }
  sources.env = [&given](const std::string& name) -> std::optional<std::string> {
    const auto found = given.variables.find(name);
    return found == given.variables.end() ? std::nullopt : std::optional(found->second);
  };
  for (const auto& [name, value] : given.variables) sources.variables.push_back(name);
  for (const auto& [path, text] : given.flags) sources.flags[path] = Raw::of(text);
  return load(sources);
}

}  // namespace mlxs::config
