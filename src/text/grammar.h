// Structured output: which tokens may come next so that an answer follows a grammar; llguidance, in Rust.
// A GrammarEngine belongs to one model, is made once (some 50 ms) and keeps what it compiled lately; any
// thread. A GrammarMatcher is one answer's state; one thread at a time; may outlive its engine. Grammars that
// cannot be compiled throw kInvalidArgument and say what is wrong in them.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/tokenizer.h"

struct mlxs_grammar_engine;
struct mlxs_matcher;

namespace mlxs {

// A JSON schema; a regular expression (of the regex crate); llguidance's Lark; a JSON array of strings.
enum class GrammarKind : std::uint8_t { kJsonSchema, kRegex, kLark, kChoice };

struct FreeMatcher {
  void operator()(mlxs_matcher* matcher) const;
};
using MatcherHandle = std::unique_ptr<mlxs_matcher, FreeMatcher>;

// Matchers of ended answers, at their start again, for the next answers of their grammars: what an answer
// taught its matcher's lexer is most of a short one's cost. Any thread.
class SpareMatchers {
 public:
  MatcherHandle take(std::uint64_t grammar);  // null: none
  void give(std::uint64_t grammar, MatcherHandle used);

 private:
  static constexpr std::size_t kMost = 64;  // of all grammars together; one takes some 100 KB, at most 1 MB

  struct Spare {
    std::uint64_t grammar;
    MatcherHandle matcher;
  };
  std::mutex mutex_;
  std::vector<Spare> spares_;  // the last given last
};

class GrammarMatcher {
 public:
  GrammarMatcher(MatcherHandle handle, std::uint64_t grammar, std::shared_ptr<SpareMatchers> spares)
      : handle_(std::move(handle)), grammar_(grammar), spares_(std::move(spares)) {}
  ~GrammarMatcher();
  GrammarMatcher(const GrammarMatcher&) = delete;
  GrammarMatcher& operator=(const GrammarMatcher&) = delete;

  // Bit i of allowed becomes 1 where token i may come next; bits behind the vocabulary 0.
  void mask(std::span<std::uint32_t> allowed);
  // Whether the mask would have the token: without computing all of it. May say no where it would.
  bool allows(TokenId token);
  // The answer goes on with a token that the mask allowed; true: nothing can follow.
  bool commit(TokenId token);

 private:
  MatcherHandle handle_;
  std::uint64_t grammar_;
  std::shared_ptr<SpareMatchers> spares_;
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
    std::uint64_t id;                           // of no other
    std::shared_ptr<const mlxs_matcher> fresh;  // others are made of it
  };
  struct Recent {
    GrammarKind kind;
    std::string text;
    Compiled compiled;
  };
  std::optional<Compiled> known(GrammarKind kind, std::string_view text) const;
  Compiled compile(GrammarKind kind, std::string_view text) const;

  std::unique_ptr<mlxs_grammar_engine, Free> handle_;
  std::shared_ptr<SpareMatchers> spares_ = std::make_shared<SpareMatchers>();
  mutable std::mutex mutex_;          // of what follows
  mutable std::list<Recent> recent_;  // the last used first
  mutable std::uint64_t last_id_ = 0;
};

}  // namespace mlxs
