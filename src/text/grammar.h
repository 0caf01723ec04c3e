// Grammars that an answer must match, as masks over the next token (llguidance, in Rust). A GrammarCompiler
// belongs to one tokenizer and keeps what it compiled last; it and a Grammar are immutable to their users and
// serve any thread. A GrammarMatcher follows one answer, one thread at a time; matchers share nothing.
// What cannot be used is kInvalidArgument and names the keyword or the place; it never goes unnoticed.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/types.h"
#include "text/tokenizer.h"

namespace mlxs {

enum class GrammarKind : std::uint8_t {
  kJsonSchema,  // the answer is JSON that obeys this schema
  kRegex,       // the whole answer matches this; syntax of Rust's regex crate
  kChoice,      // a JSON array of strings: the answer is one of them
  kLark,        // llguidance's variant of Lark
};

class GrammarMatcher {
 public:
  ~GrammarMatcher();
  GrammarMatcher(const GrammarMatcher&) = delete;
  GrammarMatcher& operator=(const GrammarMatcher&) = delete;

  // Which tokens can come next, a bit each, valid until commit(): SampleRow::allowed. Computed once a state;
  // tens of microseconds, at times some milliseconds. Throws kInvalidArgument if the grammar grows too
  // complex to follow.
  std::span<const std::uint32_t> mask();
  // Takes a token that the mask allowed; throws if it did not.
  void commit(TokenId token);
  bool accepting() const { return accepting_; }  // the answer could end here
  bool stopped() const { return stopped_; }      // nothing can follow

 private:
  friend class Grammar;
  struct Impl;
  explicit GrammarMatcher(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
  bool accepting_ = false;
  bool stopped_ = false;
};

class Grammar {
 public:
  ~Grammar();
  std::unique_ptr<GrammarMatcher> matcher() const;  // at the start of an answer

 private:
  friend class GrammarCompiler;
  struct Impl;
  explicit Grammar(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

class GrammarCompiler {
 public:
  // Sorts the vocabulary: up to some 100 ms. The tokenizer is not kept.
  explicit GrammarCompiler(const Tokenizer& tokenizer);
  ~GrammarCompiler();

  // Milliseconds, or as good as nothing for one of the last kKept grammars.
  std::shared_ptr<const Grammar> compile(GrammarKind kind, std::string_view text);

  static constexpr std::size_t kKept = 64;
  static constexpr std::size_t kMaxTextBytes = 1 << 20;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mlxs
