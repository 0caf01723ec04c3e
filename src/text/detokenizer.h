// Incremental detokenizer and stop strings of one request. Emits only whole UTF-8 characters and never loses
// a byte: bytes that cannot become a character (invalid UTF-8) come out as U+FFFD, at flush() at the latest.
// Used by one thread at a time. Never fails.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "text/tokenizer.h"

namespace mlxs {

class Detokenizer {
 public:
  // stops: strings that end the answer, matched across token boundaries on the text; the match itself is not
  // emitted. The match that is complete first wins, so the result does not depend on how tokens cut the text.
  Detokenizer(const Tokenizer& tokenizer, std::vector<std::string> stops = {}, bool include_special = false);

  struct Piece {
    std::string text;  // safe to show; may be empty while a character or a possible stop string is incomplete
    bool stopped = false;  // a stop string was completed: text holds what comes before it, nothing follows
    std::string stop;      // which one
  };
  Piece append(TokenId token);
  Piece flush();  // the end of the answer: everything still held back

 private:
  Piece emit(bool is_final);
  const Tokenizer& tokenizer_;
  std::vector<std::string> stops_;
  bool include_special_;
  std::string pending_bytes_;  // an incomplete UTF-8 character
  std::string held_;           // text that may be the start of a stop string
};

}  // namespace mlxs
