// What keys say together: values that need one another, after each is right by itself.
#pragma once

#include "config/config.h"

namespace mlxs::config {

// Adjusts settings and effective values with a warning; throws kInvalidArgument where nothing sensible is
// left.
void check_together(Config& config);

}  // namespace mlxs::config
