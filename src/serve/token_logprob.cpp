#include "serve/token_logprob.h"

#include <fmt/format.h>

#include <iterator>
#include <string_view>

#include "serve/json_text.h"

namespace mlxs {
namespace {

// "token":…,"logprob":…,"bytes":[…]
void append_token(std::string& out, std::string_view bytes, float logprob) {
  out += R"("token":)";
  append_json_string(out, bytes);
  out += R"(,"logprob":)";
  append_logprob(out, logprob);
  out += R"(,"bytes":[)";
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    fmt::format_to(std::back_inserter(out), "{}{}", i == 0 ? "" : ",", static_cast<unsigned char>(bytes[i]));
  }
  out += ']';
}

}  // namespace

void append_token_logprob(std::string& out, const Chunk& chunk) {
  out += '{';
  append_token(out, chunk.token_bytes, *chunk.logprob);
  out += R"(,"top_logprobs":[)";
  for (std::size_t i = 0; i < chunk.top_logprobs.size(); ++i) {
    out += i == 0 ? "{" : ",{";
    append_token(out, chunk.top_logprobs[i].bytes, chunk.top_logprobs[i].logprob);
    out += '}';
  }
  out += "]}";
}

}  // namespace mlxs
