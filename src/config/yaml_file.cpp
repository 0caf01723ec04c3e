#include "config/yaml_file.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

#include "mlxs/error.h"

namespace mlxs::config {
namespace {

constexpr std::size_t kMaxText = 1 << 20;
constexpr int kMaxDepth = 32;

// What no type takes: a list or map that holds more than texts.
Raw nested() { return {.kind = Raw::Kind::kMap, .scalar = {}, .items = {}, .entries = {{"…", "…"}}}; }

Raw to_raw(const YAML::Node& node) {
  Raw raw;
  if (node.IsScalar()) return Raw::of(node.Scalar());
  if (node.IsSequence()) {
    raw.kind = Raw::Kind::kList;
    for (const YAML::Node& item : node) {
      if (!item.IsScalar()) return nested();
      raw.items.push_back(item.Scalar());
    }
  } else if (node.IsMap()) {
    raw.kind = Raw::Kind::kMap;
    for (const auto& entry : node) {
      if (!entry.first.IsScalar() || !entry.second.IsScalar()) return nested();
      raw.entries.emplace_back(entry.first.Scalar(), entry.second.Scalar());
    }
  }
  return raw;
}

class Reader {
 public:
  Reader(const std::string& name, const std::function<bool(std::string_view)>& is_leaf)
      : name_(name), is_leaf_(is_leaf) {}

  std::vector<FileEntry> read(const YAML::Node& top) {
    if (!top.IsNull() && !top.IsMap()) {
      throw Error(ErrorCode::kInvalidArgument, fmt::format("{}:1: no map of keys", name_),
                  "write lines such as `server:` and below it `  port: 8000`");
    }
    if (top.IsMap()) walk(top, "", 0);
    return std::move(entries_);
  }

 private:
  [[noreturn]] void refuse(const YAML::Node& at, const std::string& what, const std::string& hint) const {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{}:{}: {}", name_, at.Mark().line + 1, what), hint);
  }

  void walk(const YAML::Node& map, const std::string& prefix, int depth) {
    std::set<std::string> seen;
    for (const auto& entry : map) {
      if (!entry.first.IsScalar()) refuse(entry.first, "a key is no text", "write `name: value`");
      const std::string& key = entry.first.Scalar();
      if (key == "<<") refuse(entry.first, "merge keys (<<) are not read", "write the keys out");
      const std::string path = prefix + key;
      if (!seen.insert(key).second) refuse(entry.first, fmt::format("{} is given twice", path), "remove one");
      const YAML::Node& value = entry.second;
      const bool leaf = !value.IsMap() || is_leaf_(path);
      if (!leaf) {
        if (depth >= kMaxDepth) refuse(entry.first, "too many levels", "at most 32");
        walk(value, path + ".", depth + 1);
      } else {
        entries_.push_back({path, to_raw(value), entry.first.Mark().line + 1});
      }
    }
  }

  const std::string& name_;
  const std::function<bool(std::string_view)>& is_leaf_;
  std::vector<FileEntry> entries_;
};

}  // namespace

std::vector<FileEntry> read_yaml(std::string_view text, const std::string& name,
                                 const std::function<bool(std::string_view)>& is_leaf) {
  try {
    return Reader(name, is_leaf).read(YAML::Load(std::string(text)));
  } catch (const YAML::Exception& error) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}:{}: no YAML: {}", name, error.mark.line + 1, error.msg),
                "indent with spaces, and quote texts that hold `: ` or ` #`");
  }
}

std::string read_config_text(const std::string& file) {
  std::error_code failed;
  if (std::filesystem::is_directory(file, failed)) {
    throw Error(ErrorCode::kIo, fmt::format("{} is a folder", file), "name the file in it");
  }
  std::ifstream stream(file, std::ios::binary);
  if (!stream) {
    throw Error(ErrorCode::kIo, fmt::format("{} cannot be read: {}", file, std::strerror(errno)),
                "check the path given with --config");
  }
  std::string text;
  char part[4096];
  while (text.size() <= kMaxText && (stream.read(part, sizeof part), stream.gcount() > 0)) {
    text.append(part, static_cast<std::size_t>(stream.gcount()));
  }
  if (text.size() > kMaxText) {
    throw Error(ErrorCode::kTooLarge, fmt::format("{} has more than {} bytes", file, kMaxText),
                "a configuration is a few kilobytes; is it the right file?");
  }
  return text;
}

}  // namespace mlxs::config
