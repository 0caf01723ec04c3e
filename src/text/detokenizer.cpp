#include "text/detokenizer.h"

#include <algorithm>
#include <utility>

#include "text/utf8.h"

namespace mlxs {
namespace {

struct Match {
  std::size_t begin = std::string::npos, end = std::string::npos;
  const std::string* stop = nullptr;
};

// The match that ends first; of those that end together the one that begins first.
Match first_match(const std::string& text, const std::vector<std::string>& stops) {
  Match best;
  for (const std::string& stop : stops) {
    const std::size_t begin = text.find(stop);
    if (begin == std::string::npos) continue;
    const std::size_t end = begin + stop.size();
    if (std::pair(end, begin) < std::pair(best.end, best.begin)) best = {begin, end, &stop};
  }
  return best;
}

// Length of the longest end of `text` with which a stop string could still begin.
std::size_t possible_stop(std::string_view text, const std::vector<std::string>& stops) {
  std::size_t longest = 0;
  for (const std::string& stop : stops) {
    for (std::size_t size = std::min(text.size(), stop.size() - 1); size > longest; --size) {
      if (text.ends_with(std::string_view(stop).substr(0, size))) longest = size;
    }
  }
  return longest;
}

}  // namespace

Detokenizer::Detokenizer(const Tokenizer& tokenizer, std::vector<std::string> stops, bool include_special)
    : tokenizer_(tokenizer), stops_(std::move(stops)), include_special_(include_special) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

Detokenizer::Piece Detokenizer::append(TokenId token) {
  if (include_special_ || !tokenizer_.is_special(token)) pending_bytes_ += tokenizer_.token_bytes(token);
  take_characters(pending_bytes_, held_);
  return emit(false);
}

Detokenizer::Piece Detokenizer::flush() {
  if (!pending_bytes_.empty()) {
    pending_bytes_.clear();
    held_ += "\xef\xbf\xbd";  // the start of one character
  }
  return emit(true);
}

Detokenizer::Piece Detokenizer::emit(bool is_final) {
  if (const Match match = first_match(held_, stops_); match.stop != nullptr) {
    Piece piece{.text = held_.substr(0, match.begin), .stopped = true, .stop = *match.stop};
    held_.clear();
    pending_bytes_.clear();
    return piece;
  }
  const std::size_t safe = is_final ? held_.size() : held_.size() - possible_stop(held_, stops_);
  Piece piece{.text = held_.substr(0, safe)};
  held_.erase(0, safe);
  return piece;
}

}  // namespace mlxs
