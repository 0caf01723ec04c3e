#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "mlxs/error.h"
#include "tiny_vocabulary.h"

namespace mlxs {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr TokenId kHe = 256, kHello = 257, kStart = 258, kEnd = 259, kThink = 260;

struct Greeting : TinyVocabulary {
  Greeting() : TinyVocabulary({"he", "hello"}, {"h e", "l o", "l lo", "he llo"}) {
    // "lo" and "llo" are needed on the way to "hello".
    texts.insert(texts.end(), {"lo", "llo"});
    types.resize(texts.size(), 1);
    tokens.assign(texts.begin(), texts.end());
    spec.tokens = tokens;
    spec.token_types = types;
  }
};

std::string message_of(const TokenizerSpec& spec) {
  try {
    Tokenizer tokenizer(spec);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kModelLoad);
    return error.full();
  }
  return "no error";
}

TEST(TokenizerTest, MergesByRank) {
  Greeting vocabulary;
  const Tokenizer tokenizer(vocabulary.spec);
  EXPECT_THAT(tokenizer.encode("hello", {}), ElementsAre(kHello));
  EXPECT_THAT(tokenizer.encode("heXe", {}), ElementsAre(kHe, 'X', 'e'));
  EXPECT_THAT(tokenizer.encode(" hello", {}), ElementsAre(' ', kHello));
  EXPECT_THAT(tokenizer.encode("", {}), ElementsAre());
}

TEST(TokenizerTest, SpecialTokensInTheText) {
  Greeting vocabulary;
  const Tokenizer tokenizer(vocabulary.spec);
  const std::string text = "<|im_start|>hello<think><|im_end|>";
  EXPECT_THAT(tokenizer.encode(text, {}), ElementsAre(kStart, kHello, kThink, kEnd));
  const std::vector<TokenId> plain = tokenizer.encode(text, {.parse_special = false});
  EXPECT_THAT(plain, testing::Not(testing::Contains(kStart)));
  EXPECT_THAT(plain, testing::Not(testing::Contains(kEnd)));
  EXPECT_THAT(plain, testing::Contains(kThink)) << "user-defined tokens are part of the text";
  EXPECT_EQ(tokenizer.decode(plain), text);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, {})), "hello<think>");
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, {}), true), text);
}

TEST(TokenizerTest, BosAndEosAsAsked) {
  Greeting vocabulary;
  vocabulary.spec.bos = kStart;
  vocabulary.spec.eos = kEnd;
  EXPECT_THAT(Tokenizer(vocabulary.spec).encode("h", {}), ElementsAre('h'));
  vocabulary.spec.add_bos = vocabulary.spec.add_eos = true;
  EXPECT_THAT(Tokenizer(vocabulary.spec).encode("h", {}), ElementsAre(kStart, 'h', kEnd));
  EXPECT_THAT(Tokenizer(vocabulary.spec).encode("h", {.add_special = false}), ElementsAre('h'));
  vocabulary.spec.add_bos = vocabulary.spec.add_eos = std::nullopt;
  vocabulary.spec.pre = "llama-bpe";
  EXPECT_THAT(Tokenizer(vocabulary.spec).encode("h", {}), ElementsAre(kStart, 'h')) << "by default";
  vocabulary.spec.add_bos = false;
  EXPECT_THAT(Tokenizer(vocabulary.spec).encode("h", {}), ElementsAre('h'));
}

TEST(TokenizerTest, TheFilesOwnEndIsAControlTokenWhateverItsType) {
  TinyVocabulary vocabulary({"<stop>"});  // typed normal, as old files do
  const TokenId stop = TinyVocabulary::kWords;
  EXPECT_EQ(Tokenizer(vocabulary.spec).encode("<stop>", {}).size(), 6u);
  vocabulary.spec.eos = stop;
  const Tokenizer tokenizer(vocabulary.spec);
  EXPECT_THAT(tokenizer.encode("a<stop>", {}), ElementsAre('a', stop));
  EXPECT_EQ(tokenizer.encode("<stop>", {.parse_special = false}).size(), 6u);
  EXPECT_TRUE(tokenizer.is_end(stop));
  EXPECT_TRUE(tokenizer.is_special(stop));
}

TEST(TokenizerTest, TableKnowsBytesAndKinds) {
  Greeting vocabulary;
  vocabulary.spec.bos = kStart;
  vocabulary.spec.eos = 'Z';
  const Tokenizer tokenizer(vocabulary.spec);
  EXPECT_EQ(tokenizer.vocabulary_size(), static_cast<std::int32_t>(vocabulary.tokens.size()));
  for (int byte = 0; byte < 256; ++byte) {
    EXPECT_EQ(tokenizer.token_bytes(byte), std::string(1, static_cast<char>(byte)));
  }
  EXPECT_EQ(tokenizer.token_bytes(kStart), "<|im_start|>");
  EXPECT_EQ(tokenizer.token_bytes(-1), "");
  EXPECT_EQ(tokenizer.token_bytes(tokenizer.vocabulary_size()), "");
  EXPECT_TRUE(tokenizer.is_special(kStart));
  EXPECT_FALSE(tokenizer.is_special(kThink));
  EXPECT_FALSE(tokenizer.is_special(-1));
  EXPECT_THAT(tokenizer.end_tokens(), ElementsAre('Z', kEnd));  // the file's and the well-known
  EXPECT_FALSE(tokenizer.is_end(kStart));
  EXPECT_EQ(tokenizer.bos(), kStart);
  EXPECT_EQ(tokenizer.find("<|im_end|>"), kEnd);
  EXPECT_EQ(tokenizer.find("hello"), kHello);
  EXPECT_EQ(tokenizer.find("hell"), std::nullopt);
}

TEST(TokenizerTest, InvalidUtf8IsReadAsReplacement) {
  Greeting vocabulary;
  const Tokenizer tokenizer(vocabulary.spec);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("a\xff\xc3", {})), "a\xef\xbf\xbd\xef\xbf\xbd");
}

TEST(TokenizerTest, RefusesBadVocabularies) {
  {
    Greeting v;
    v.spec.pre = "no-such-thing";
    EXPECT_THAT(message_of(v.spec), HasSubstr("'no-such-thing'"));
    EXPECT_THAT(message_of(v.spec), HasSubstr("smollm"));
  }
  {
    Greeting v;
    v.spec.tokens = {};
    v.spec.token_types = {};
    EXPECT_THAT(message_of(v.spec), HasSubstr("tokens has 0 entries"));
  }
  {
    Greeting v;
    v.spec.token_types = v.spec.token_types.first(3);
    EXPECT_THAT(message_of(v.spec), HasSubstr("token_type has 3 entries for 263 tokens"));
  }
  {
    Greeting v;
    v.types[7] = 9;
    EXPECT_THAT(message_of(v.spec), HasSubstr("token_type[7] = 9"));
  }
  {
    Greeting v;
    v.merges[1] = "q x";
    EXPECT_THAT(message_of(v.spec), HasSubstr("merges[1] = 'q x'"));
  }
  {
    Greeting v;
    v.spec.eos = 263;
    EXPECT_THAT(message_of(v.spec), HasSubstr("eos_token_id = 263"));
  }
  {
    Greeting v;
    v.tokens[40] = "\xff";
    EXPECT_THAT(message_of(v.spec), HasSubstr("tokens[40] is not UTF-8"));
  }
  {
    Greeting v;
    v.spec.add_bos = true;
    EXPECT_THAT(message_of(v.spec), HasSubstr("bos_token_id"));
  }
  {
    Greeting v;
    v.spec.kind = TokenizerSpec::Kind::kSentencePieceBpe;
    EXPECT_THAT(message_of(v.spec), HasSubstr("scores has 0 entries"));
  }
}

TEST(TokenizerTest, EncodesOnManyThreads) {
  Greeting vocabulary;
  const Tokenizer tokenizer(vocabulary.spec);
  std::string text;
  for (int i = 0; i < 500; ++i) text += "hello <|im_end|> héé 123 \n";
  const std::vector<TokenId> expected = tokenizer.encode(text, {});
  std::vector<std::vector<TokenId>> results(8);
  {
    std::vector<std::jthread> threads;
    for (auto& result : results) threads.emplace_back([&] { result = tokenizer.encode(text, {}); });
  }
  for (const auto& result : results) EXPECT_EQ(result, expected);
}

struct Pieces {
  const std::vector<std::string_view> tokens{"<unk>", "<s>", "</s>", "▁",      "a",
                                             "b",     "▁a",  "ab",   "<0xC3>", "<0xA9>"};
  const std::vector<std::int64_t> types{2, 3, 3, 1, 1, 1, 1, 1, 6, 6};
  const std::vector<double> scores{0, 0, 0, -5, -6, -7, -2, -1, 0, 0};
  TokenizerSpec spec{.kind = TokenizerSpec::Kind::kSentencePieceBpe,
                     .tokens = tokens,
                     .token_types = types,
                     .scores = scores};
};

TEST(TokenizerTest, SentencePiece) {
  const Pieces pieces;
  const Tokenizer tokenizer(pieces.spec);
  EXPECT_EQ(tokenizer.bos(), 1) << "old files leave it out";
  EXPECT_THAT(tokenizer.end_tokens(), ElementsAre(2));
  EXPECT_THAT(tokenizer.encode("a é", {}), ElementsAre(1, 6, 3, 8, 9));
  EXPECT_THAT(tokenizer.encode("a</s>b", {}), ElementsAre(1, 6, 2, 3, 5));
  EXPECT_THAT(tokenizer.encode("aX", {.add_special = false}), ElementsAre(6, 0));
  EXPECT_EQ(tokenizer.token_bytes(8), "\xc3");
  EXPECT_EQ(tokenizer.token_bytes(6), " a");
  for (const std::string_view text : {"", " ", "a", " a", "  ab b ", "é a"}) {
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, {})), text);
  }
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("<s>a</s> b", {.add_special = false}), true), "<s>a</s> b");
}

TEST(TokenizerTest, SentencePieceWithoutPrefix) {
  Pieces pieces;
  pieces.spec.add_space_prefix = false;
  const Tokenizer tokenizer(pieces.spec);
  EXPECT_THAT(tokenizer.encode("ab", {}), ElementsAre(1, 7));
  EXPECT_EQ(tokenizer.decode(std::vector<TokenId>{6}), " a");
}

constexpr std::string_view kByteLevelJson = R"({
  "version": "1.0", "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
  "padding": null,
  "added_tokens": [
    {"id": 15, "content": "<|im_end|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
    {"id": 16, "content": "<think>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false}],
  "normalizer": null,
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
  "post_processor": null,
  "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
  "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3, "Ġa": 4, "<": 5, "|": 6, ">": 7, "_": 8, "im": 9, "i": 10,
                      "m": 11, "e": 12, "n": 13, "d": 19},
            "merges": [["a", "b"], ["Ġ", "a"], ["i", "m"]]}})";

TEST(TokenizerTest, HuggingFaceByteLevel) {
  const Tokenizer tokenizer(kByteLevelJson, -1, 15);
  EXPECT_EQ(tokenizer.vocabulary_size(), 20);
  EXPECT_EQ(tokenizer.token_bytes(4), " a");
  EXPECT_EQ(tokenizer.token_bytes(17), "") << "a number without a token";
  EXPECT_TRUE(tokenizer.is_end(15));
  EXPECT_FALSE(tokenizer.is_special(16));
  EXPECT_THAT(tokenizer.encode("ab a ab<|im_end|>", {}), ElementsAre(2, 4, 3, 2, 15)) << "never cut";
  const std::vector<TokenId> plain = tokenizer.encode("<|im_end|>", {.parse_special = false});
  EXPECT_THAT(plain, ElementsAre(5, 6, 9, 8, 12, 13, 19, 6, 7));
  EXPECT_EQ(tokenizer.decode(plain), "<|im_end|>");
  EXPECT_THAT(tokenizer.encode("<think>", {.parse_special = false}), ElementsAre(16));
}

constexpr std::string_view kSentencePieceJson = R"({
  "version": "1.0", "truncation": null, "padding": null,
  "added_tokens": [
    {"id": 1, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
  "normalizer": {"type": "Sequence", "normalizers": [
    {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
  "pre_tokenizer": null,
  "post_processor": {"type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
  "decoder": {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
  "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
            "vocab": {"<unk>": 0, "<s>": 1, "▁": 2, "a": 3, "▁a": 4, "<0xC3>": 5, "<0xA9>": 6},
            "merges": [["▁", "a"]]}})";

TEST(TokenizerTest, HuggingFaceSentencePiece) {
  const Tokenizer tokenizer(kSentencePieceJson, 1, -1);
  EXPECT_THAT(tokenizer.encode("a é", {}), ElementsAre(1, 4, 2, 5, 6));
  EXPECT_THAT(tokenizer.encode("a", {.add_special = false}), ElementsAre(4));
  EXPECT_EQ(tokenizer.token_bytes(5), "\xc3");
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("a é a", {})), "a é a");
}

TEST(TokenizerTest, HuggingFaceErrors) {
  EXPECT_THROW(Tokenizer("{\"model\": 3}", -1, -1), Error);
  EXPECT_THROW(Tokenizer("", -1, -1), Error);
  EXPECT_THROW(Tokenizer(kByteLevelJson, 99, -1), Error);
}

}  // namespace
}  // namespace mlxs
