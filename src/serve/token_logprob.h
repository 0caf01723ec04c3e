// A token's log probability, as chat clients of every dialect read it. Pure.
#pragma once

#include <string>

#include "mlxs/engine.h"

namespace mlxs {

// Appends {"token":…,"logprob":…,"bytes":[…],"top_logprobs":[…]}; the chunk has a logprob.
void append_token_logprob(std::string& out, const Chunk& chunk);

}  // namespace mlxs
