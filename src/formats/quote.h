// Untrusted text (keys, tensor names) made safe for a one-line message: quoted, escaped, cut.
#pragma once

#include <string>
#include <string_view>

namespace mlxs {

// 'blk.0.attn_q.weight'; control characters and bytes that are no UTF-8 as \n or \xNN; more than 64 bytes are
// cut with an ellipsis.
std::string quote(std::string_view text);

}  // namespace mlxs
