#include "text/grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <regex>
#include <set>

#include "mlxs/error.h"
#include "tiny_vocabulary.h"

namespace mlxs {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;

bool allows(std::span<const std::uint32_t> mask, TokenId token) {
  const auto id = static_cast<std::size_t>(token);
  return (mask[id / 32] >> (id % 32) & 1) != 0;
}

class GrammarTest : public testing::Test {
 protected:
  TinyVocabulary vocabulary{{"tr", "ue", R"({")", R"(":)"}};
  Tokenizer tokenizer{vocabulary.spec};
  GrammarCompiler compiler{tokenizer};
  TokenId end = *tokenizer.find("<|im_end|>");

  std::vector<TokenId> allowed(GrammarMatcher& matcher) const {
    std::vector<TokenId> tokens;
    const auto mask = matcher.mask();
    for (TokenId id = 0; id < static_cast<TokenId>(mask.size() * 32); ++id) {
      if (allows(mask, id)) tokens.push_back(id);
    }
    return tokens;
  }

  void feed(GrammarMatcher& matcher, std::string_view text) const {
    for (const char c : text) {
      const auto id = static_cast<TokenId>(static_cast<unsigned char>(c));
      ASSERT_TRUE(allows(matcher.mask(), id)) << "'" << c << "' of " << text;
      matcher.commit(id);
    }
  }

  // An answer drawn evenly from what the masks leave; ends as soon as it may after `enough` tokens.
  std::string draw(const Grammar& grammar, std::mt19937& random, std::size_t enough = 60) const {
    const auto matcher = grammar.matcher();
    std::vector<TokenId> answer;
    while (!matcher->stopped() && answer.size() < 5000) {
      const std::vector<TokenId> choices = allowed(*matcher);
      EXPECT_FALSE(choices.empty());
      if (choices.empty()) break;
      const bool may_end = allows(matcher->mask(), end);
      const TokenId token = may_end && answer.size() >= enough ? end : choices[random() % choices.size()];
      EXPECT_LT(token, tokenizer.vocabulary_size());
      matcher->commit(token);
      if (token == end) break;
      answer.push_back(token);
    }
    return tokenizer.decode(answer, true);
  }

  std::string refusal(GrammarKind kind, std::string_view text) {
    try {
      compiler.compile(kind, text);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      return error.what();
    }
    ADD_FAILURE() << "accepted: " << text;
    return {};
  }
};

TEST_F(GrammarTest, EveryDrawObeysTheSchema) {
  const auto grammar = compiler.compile(GrammarKind::kJsonSchema, R"({
    "type": "object", "additionalProperties": false, "required": ["zeta", "alpha"],
    "properties": {"zeta": {"type": "integer", "minimum": -5, "maximum": 120},
                   "alpha": {"enum": ["red", "green", 7]},
                   "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3}}})");
  std::mt19937 random(1);
  std::set<std::string> seen;
  for (int i = 0; i < 200; ++i) {
    const std::string text = draw(*grammar, random);
    const auto value = nlohmann::ordered_json::parse(text, nullptr, false);
    ASSERT_TRUE(value.is_object()) << text;
    EXPECT_EQ(value.items().begin().key(), "zeta") << "properties keep the schema's order: " << text;
    EXPECT_TRUE(value["zeta"].is_number_integer() && value["zeta"] >= -5 && value["zeta"] <= 120) << text;
    EXPECT_TRUE(value["alpha"] == "red" || value["alpha"] == "green" || value["alpha"] == 7) << text;
    EXPECT_LE(value.value("tags", Json::array()).size(), 3u) << text;
    EXPECT_EQ(value.size(), 2u + value.contains("tags")) << text;
    seen.insert(text);
  }
  EXPECT_GT(seen.size(), 50u);
}

TEST_F(GrammarTest, WhitespaceBetweenJsonPartsIsBounded) {
  const auto matcher = compiler.compile(GrammarKind::kJsonSchema, R"({"type":"object"})")->matcher();
  feed(*matcher, "{\n");
  int blanks = 0;
  for (; blanks < 1000 && allows(matcher->mask(), ' '); ++blanks) matcher->commit(' ');
  EXPECT_EQ(blanks, 40);
  feed(*matcher, "\"a\": 1");
}

TEST_F(GrammarTest, EveryDrawMatchesTheRegex) {
  const std::string pattern = R"((\+|-)?[0-9]{1,4}/[a-f]+\.(txt|md))";
  const auto grammar = compiler.compile(GrammarKind::kRegex, pattern);
  std::mt19937 random(2);
  for (int i = 0; i < 100; ++i) {
    const std::string text = draw(*grammar, random);
    EXPECT_TRUE(std::regex_match(text, std::regex(pattern))) << text;
  }
}

TEST_F(GrammarTest, EveryDrawIsOneOfTheChoices) {
  const std::set<std::string> choices = {"yes", "yes.*", "no\n/\\\"", "ünïcode 漢字", "a|b"};
  const auto grammar = compiler.compile(GrammarKind::kChoice, Json(choices).dump());
  std::mt19937 random(3);
  std::set<std::string> seen;
  for (int i = 0; i < 200; ++i) seen.insert(draw(*grammar, random));
  EXPECT_EQ(seen, choices);
}

TEST_F(GrammarTest, LarkMayNameControlTokens) {
  const auto grammar = compiler.compile(GrammarKind::kLark, R"(start: <|im_start|> /[ab]{3}/)");
  const auto matcher = grammar->matcher();
  EXPECT_THAT(allowed(*matcher), testing::ElementsAre(*tokenizer.find("<|im_start|>")));
  matcher->commit(*tokenizer.find("<|im_start|>"));
  EXPECT_THAT(allowed(*matcher), testing::ElementsAre('a', 'b'));
  feed(*matcher, "aba");
  EXPECT_TRUE(matcher->stopped());
}

TEST_F(GrammarTest, TextNeverMatchesAControlToken) {
  const auto matcher = compiler.compile(GrammarKind::kRegex, "[^x]+")->matcher();
  feed(*matcher, "a");
  EXPECT_FALSE(allows(matcher->mask(), *tokenizer.find("<|im_start|>")));
  EXPECT_TRUE(allows(matcher->mask(), *tokenizer.find("<think>"))) << "a word like any other";
  EXPECT_FALSE(allows(matcher->mask(), 0xff)) << "half a character that is none";
}

TEST_F(GrammarTest, TheEndIsAllowedWhereTheGrammarMayEndAndNowhereElse) {
  const auto matcher = compiler.compile(GrammarKind::kRegex, "ab?c*")->matcher();
  EXPECT_FALSE(matcher->accepting());
  EXPECT_FALSE(allows(matcher->mask(), end));
  feed(*matcher, "a");
  EXPECT_TRUE(matcher->accepting());
  EXPECT_FALSE(matcher->stopped());
  EXPECT_TRUE(allows(matcher->mask(), end));
  matcher->commit(end);
  EXPECT_TRUE(matcher->stopped());
}

TEST_F(GrammarTest, MasksReachOverTokenBordersAndWholeCharacters) {
  const auto matcher = compiler.compile(GrammarKind::kRegex, "true|é")->matcher();
  EXPECT_THAT(allowed(*matcher), testing::ElementsAre('t', 0xc3, *tokenizer.find("tr")));
  matcher->commit(*tokenizer.find("tr"));
  EXPECT_THAT(allowed(*matcher), testing::ElementsAre('u', *tokenizer.find("ue")));
  matcher->commit(*tokenizer.find("ue"));
  EXPECT_TRUE(matcher->stopped());
}

TEST_F(GrammarTest, AVocabularyWithoutEndTokensStopsByItself) {
  TinyVocabulary plain({}, {}, {}, {});
  const Tokenizer without(plain.spec);
  ASSERT_TRUE(without.end_tokens().empty());
  GrammarCompiler own(without);
  const auto matcher = own.compile(GrammarKind::kRegex, "ab?")->matcher();
  matcher->commit('a');
  EXPECT_THAT(allowed(*matcher), testing::ElementsAre('b'));
  matcher->commit('b');
  EXPECT_TRUE(matcher->stopped());
  EXPECT_THAT(allowed(*matcher), testing::IsEmpty());
}

TEST_F(GrammarTest, MatchersOfOneGrammarAreIndependent) {
  const auto grammar = compiler.compile(GrammarKind::kChoice, R"(["ab","cd"])");
  const auto first = grammar->matcher(), second = grammar->matcher();
  first->commit('a');
  EXPECT_THAT(allowed(*first), testing::ElementsAre('b'));
  EXPECT_THAT(allowed(*second), testing::ElementsAre('a', 'c'));
}

TEST_F(GrammarTest, ATokenThatIsNotAllowedIsRefused) {
  const auto matcher = compiler.compile(GrammarKind::kChoice, R"(["ab"])")->matcher();
  EXPECT_THROW(matcher->commit('z'), Error);
}

TEST_F(GrammarTest, WhatWasCompiledLastIsKept) {
  const auto first = compiler.compile(GrammarKind::kRegex, "a+");
  EXPECT_EQ(compiler.compile(GrammarKind::kRegex, "a+"), first);
  EXPECT_NE(compiler.compile(GrammarKind::kLark, "start: \"a\""), first);
  for (std::size_t i = 0; i < GrammarCompiler::kKept; ++i) {
    compiler.compile(GrammarKind::kRegex, "b{" + std::to_string(i + 1) + "}");
  }
  EXPECT_NE(compiler.compile(GrammarKind::kRegex, "a+"), first) << "the oldest made room";
}

TEST_F(GrammarTest, WhatCannotBeUsedIsNamed) {
  const auto schema = [&](std::string_view text) { return refusal(GrammarKind::kJsonSchema, text); };
  EXPECT_THAT(schema(R"({"type":"array","uniqueItems":true})"), HasSubstr("uniqueItems"));
  EXPECT_THAT(schema(R"({"type":"strnig"})"), HasSubstr("strnig"));
  EXPECT_THAT(schema(R"({"type":"string","format":"shoe-size"})"), HasSubstr("shoe-size"));
  EXPECT_THAT(schema(R"({"$ref":"https://example.org/x.json"})"), HasSubstr("example.org"));
  EXPECT_THAT(schema(R"({"type":"integer","minimum":3,"maximum":2})"), HasSubstr("minimum"));
  EXPECT_THAT(schema("{"), HasSubstr("not JSON"));
  EXPECT_THAT(schema("[]"), HasSubstr("object or a boolean"));
  EXPECT_THAT(schema(R"({"type":"array","uniqueItems":true,"x-guidance":{"lenient":true}})"),
              HasSubstr("uniqueItems"))
      << "a client cannot switch the checks off";
  EXPECT_THAT(refusal(GrammarKind::kRegex, "(ab"), HasSubstr("regular expression"));
  EXPECT_THAT(refusal(GrammarKind::kChoice, "[]"), HasSubstr("at least one"));
  EXPECT_THAT(refusal(GrammarKind::kChoice, R"(["a", 5])"), HasSubstr("at least one text"));
  EXPECT_THAT(refusal(GrammarKind::kLark, "start: missing_rule"), HasSubstr("missing_rule"));
  EXPECT_THAT(refusal(GrammarKind::kLark, "\xff"), HasSubstr("UTF-8"));
  EXPECT_THAT(refusal(GrammarKind::kRegex, std::string(GrammarCompiler::kMaxTextBytes + 1, 'a')),
              HasSubstr("1048577 bytes"));
}

TEST_F(GrammarTest, DeepNestingIsRefusedRatherThanACrash) {
  EXPECT_THAT(refusal(GrammarKind::kJsonSchema, std::string(100000, '[')), HasSubstr("recursion"));
  refusal(GrammarKind::kRegex, std::string(100000, '('));
  refusal(GrammarKind::kLark, "start: " + std::string(100000, '('));
}

}  // namespace
}  // namespace mlxs
