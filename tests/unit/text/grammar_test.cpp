// The C++ face of grammars; what llguidance makes of schemas is tested end to end, with a real model.
#include "text/grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "mlxs/error.h"

namespace mlxs {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Token i is the character 'a' + i; the last ends an answer.
class GrammarTest : public ::testing::Test {
 protected:
  static constexpr int kLetters = 26;

  GrammarTest() {
    for (int i = 0; i < kLetters; ++i) names_.push_back(std::string(1, static_cast<char>('a' + i)));
    names_.push_back("<|end|>");
    const std::vector<std::string_view> views(names_.begin(), names_.end());
    std::vector<std::int64_t> types(names_.size(), 1);
    types.back() = 3;
    tokenizer_ = std::make_unique<Tokenizer>(
        TokenizerSpec{.pre = "gpt-2", .tokens = views, .token_types = types, .eos = kLetters});
    engine_ = std::make_unique<GrammarEngine>(*tokenizer_);
  }

  std::string allowed(GrammarMatcher& matcher) {
    std::vector<std::uint32_t> bits(3, 0xffffffffu);  // one word more than the vocabulary needs
    matcher.mask(bits);
    std::string letters;
    for (int i = 0; i < 96; ++i) {
      if ((bits[static_cast<std::size_t>(i / 32)] >> (i % 32)) & 1u) {
        letters += i == kLetters ? '$' : static_cast<char>('a' + i);
      }
    }
    return letters;
  }

  std::vector<std::string> names_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<GrammarEngine> engine_;
};

TEST_F(GrammarTest, FollowsARegularExpressionToItsEnd) {
  const auto matcher = engine_->matcher(GrammarKind::kRegex, "[bc]x?");
  EXPECT_EQ(allowed(*matcher), "bc");
  EXPECT_FALSE(matcher->commit(1));
  EXPECT_EQ(allowed(*matcher), "x$");  // it may end here
  EXPECT_TRUE(matcher->commit('x' - 'a'));
  EXPECT_EQ(allowed(*matcher), "$");
}

TEST_F(GrammarTest, AnswersOfOneGrammarAreIndependent) {
  const auto first = engine_->matcher(GrammarKind::kChoice, R"(["ab", "cd"])");
  first->commit(0);
  const auto second = engine_->matcher(GrammarKind::kChoice, R"(["ab", "cd"])");  // compiled before
  EXPECT_EQ(allowed(*first), "b");
  EXPECT_EQ(allowed(*second), "ac");
}

// The letters that may come next, step by step, of an answer that takes the first of them each time.
std::string path(GrammarMatcher& matcher, const auto& allowed) {
  std::string path;
  for (int step = 0; step < 8; ++step) {
    const std::string letters = allowed(matcher);
    path += letters + ' ';
    if (letters == "$" || matcher.commit(letters[0] - 'a')) break;
  }
  return path;
}

TEST_F(GrammarTest, AnAnswerFollowsItsGrammarWhateverBecameOfTheOnesBefore) {
  constexpr std::string_view kGrammar = "(ab|ac|b[d-f]{2}|c)+x";
  const auto of = [&](GrammarMatcher& matcher) { return allowed(matcher); };
  const auto next = [&] { return engine_->matcher(GrammarKind::kRegex, kGrammar); };
  GrammarEngine other(*tokenizer_);
  const std::string expected = path(*other.matcher(GrammarKind::kRegex, kGrammar), of);
  EXPECT_EQ(path(*next(), of), expected);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(path(*next(), of), expected) << "after a whole answer";
  {
    const auto partial = next();
    partial->commit(1);
    partial->commit(3);
    const auto beside = next();  // two at once
    beside->commit(2);
    EXPECT_EQ(allowed(*partial), "def");
  }
  for (int i = 0; i < 3; ++i) EXPECT_EQ(path(*next(), of), expected) << "after partial answers";
  EXPECT_THROW(next()->commit(20), Error);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(path(*next(), of), expected) << "after a failed answer";
}

TEST_F(GrammarTest, SpareMatchersAreOfTheirGrammarAlone) {
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 100; ++i) {  // more than are kept of grammars and of spares
      const std::string word{static_cast<char>('a' + i % kLetters), static_cast<char>('a' + i / kLetters)};
      std::vector<std::unique_ptr<GrammarMatcher>> answers;
      for (int k = 0; k < 1 + round; ++k) answers.push_back(engine_->matcher(GrammarKind::kRegex, word));
      for (const auto& answer : answers)
        EXPECT_EQ(path(*answer, [&](GrammarMatcher& m) { return allowed(m); }),
                  word.substr(0, 1) + ' ' + word.substr(1) + ' ');
    }
  }
}

TEST_F(GrammarTest, AnswersOfManyThreadsShareSpares) {
  const auto of = [&](GrammarMatcher& matcher) { return allowed(matcher); };
  constexpr std::string_view kGrammars[] = {"(ab|ac)+x", "(ab|cd)+x", "[a-e]{3}f?"};
  std::vector<std::string> expected;
  for (const std::string_view text : kGrammars)
    expected.push_back(path(*GrammarEngine(*tokenizer_).matcher(GrammarKind::kRegex, text), of));
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = 0; i < 60; ++i) {
        const std::size_t which = (i + t) % 3;
        const auto first = engine_->matcher(GrammarKind::kRegex, kGrammars[which]);
        const auto second = engine_->matcher(GrammarKind::kRegex, kGrammars[which]);
        first->commit(0);
        EXPECT_EQ(path(*second, of), expected[which]);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(GrammarTest, AMatcherMayOutliveItsEngine) {
  const auto matcher = GrammarEngine(*tokenizer_).matcher(GrammarKind::kRegex, "ab");
  matcher->commit(0);
  EXPECT_EQ(allowed(*matcher), "b");
}

TEST_F(GrammarTest, ManyGrammarsStayCorrectWhenOldOnesAreForgotten) {
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 60; ++i) {
      const std::string word{static_cast<char>('a' + i % kLetters), static_cast<char>('a' + i / kLetters)};
      const auto matcher = engine_->matcher(GrammarKind::kRegex, word);
      EXPECT_EQ(allowed(*matcher), word.substr(0, 1));
    }
  }
}

TEST_F(GrammarTest, SaysWhatIsWrong) {
  const auto message = [&](GrammarKind kind, std::string_view text) -> std::string {
    try {
      engine_->matcher(kind, text);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      return error.what();
    }
    return "accepted";
  };
  EXPECT_THAT(message(GrammarKind::kJsonSchema, "{"), HasSubstr("JSON"));
  EXPECT_THAT(message(GrammarKind::kJsonSchema, R"({"contains": {"type": "null"}})"), HasSubstr("contains"));
  EXPECT_THAT(message(GrammarKind::kChoice, "[]"), HasSubstr("none of them empty"));
  EXPECT_NE(message(GrammarKind::kRegex, "(a"), "accepted");
  EXPECT_NE(message(GrammarKind::kLark, "start: other"), "accepted");
}

TEST_F(GrammarTest, ATokenThatIsNotAllowedIsAnErrorNotACrash) {
  const auto matcher = engine_->matcher(GrammarKind::kRegex, "ab");
  EXPECT_THROW(matcher->commit(5), Error);
}

}  // namespace
}  // namespace mlxs
