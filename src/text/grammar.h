// Structured output: which tokens may come next so that an answer follows a grammar; llguidance, in Rust.
// A GrammarEngine belongs to one model, is made once (some 50 ms) and keeps what it compiled lately; any
// thread. A GrammarMatcher is one answer's state; one thread at a time. Grammars that cannot be compiled
// throw kInvalidArgument and say what is wrong in them.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>

#include "text/tokenizer.h"

struct mlxs_grammar_engine;
struct mlxs_matcher;

namespace mlxs {

// A JSON schema; a regular expression (of the regex crate); llguidance's Lark; a JSON array of strings.
enum class GrammarKind : std::uint8_t { kJsonSchema, kRegex, kLark, kChoice };

class GrammarMatcher {
 public:
  explicit GrammarMatcher(mlxs_matcher* owned) : handle_(owned) {}

  // Bit i of allowed becomes 1 where token i may come next; bits behind the vocabulary 0.
  void mask(std::span<std::uint32_t> allowed);
  // Whether the mask would have the token: without computing all of it. May say no where it would.
  bool allows(TokenId token);
  // The answer goes on with a token that the mask allowed; true: nothing can follow.
  bool commit(TokenId token);
  std::unique_ptr<GrammarMatcher> copy() const;

 private:
  struct Free {
    void operator()(mlxs_matcher* matcher) const;
  };
  std::unique_ptr<mlxs_matcher, Free> handle_;
};

class GrammarEngine {
 public:
  explicit GrammarEngine(const Tokenizer& tokenizer);

  // At the start of an answer.
  std::unique_ptr<GrammarMatcher> matcher(GrammarKind kind, std::string_view text) const;

 private:
  struct Free {
    void operator()(mlxs_grammar_engine* engine) const;
  };
  struct Compiled {
    GrammarKind kind;
    std::string text;
    std::unique_ptr<GrammarMatcher> fresh;  // copied for each answer
  };
  std::unique_ptr<mlxs_grammar_engine, Free> handle_;
  mutable std::mutex mutex_;            // of the list
  mutable std::list<Compiled> recent_;  // the last used first
};

}  // namespace mlxs
