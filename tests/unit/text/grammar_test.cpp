// The C++ face of grammars; what llguidance makes of schemas is tested end to end, with a real model.
#include "text/grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
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
