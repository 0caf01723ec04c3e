// Collects what the sources say of each key and decides which counts. One load() uses one of these.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"

namespace mlxs::config {

// A key by its name in a file.
struct Name {
  const Key* key = nullptr;  // null: it is none
  const Alias* alias = nullptr;
};
Name find_name(std::string_view path);

// What is wrong with a flag's value; empty: nothing.
std::string flag_problem(const Key& key, const Raw& raw);

// Higher wins. A preset of the file yields to the file's keys, one of a flag or variable to variables that
// name one value.
enum class Rank {
  kDefault,
  kFilePreset,
  kFile,
  kFileBlock,
  kEnvironmentPreset,
  kFlagPreset,
  kEnvironment,
  kFlag,
};

class Layers {
 public:
  // Checks the value and, if `applies`, takes it. A null value says nothing.
  void add(Name name, const Raw& raw, Rank rank, const std::string& where, bool applies);
  void refuse(std::string problem) { problems_.push_back(std::move(problem)); }
  const std::vector<std::string>& problems() const { return problems_; }

  // Writes what won into the settings. Throws if anything was refused.
  std::vector<Effective> resolve(Settings& settings, std::vector<std::string>& warnings);

 private:
  struct Given {
    Value value;
    Rank rank = Rank::kDefault;
    std::string where;
    bool alias = false;
  };
  const Given* best(const Key& key) const;
  void expand_preset(const Settings& settings);
  void take(const Key& key, Given given);

  std::map<const Key*, std::vector<Given>> given_;
  std::vector<std::string> warnings_, problems_;
};

}  // namespace mlxs::config
