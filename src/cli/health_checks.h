// What is wrong with a machine, and what to do about it. Pure: facts in, findings out.
#pragma once

#include <string>
#include <vector>

#include "cli/machine_facts.h"

namespace mlxs::cli {

struct Finding {
  enum class Level { kGood, kWarning, kFailure } level = Level::kGood;
  std::string subject;  // "memory"
  std::string found;    // "15.2 GB, 14.1 GB available"
  std::string remedy;   // of what is not good; may be empty
};

// One or more per subject, in the order in which they are read.
std::vector<Finding> judge(const MachineFacts& facts);

}  // namespace mlxs::cli
