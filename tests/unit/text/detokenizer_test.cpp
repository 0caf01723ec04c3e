#include "text/detokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "text/utf8.h"
#include "tiny_vocabulary.h"

namespace mlxs {
namespace {

// The WHATWG decoder as the standard words it, on a whole string: the reference.
std::string decode_whole(std::string_view bytes) {
  std::string text, partial;
  int needed = 0;
  unsigned char lower = 0x80, upper = 0xbf;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const auto byte = static_cast<unsigned char>(bytes[i]);
    if (needed == 0) {
      if (byte < 0x80) {
        text += bytes[i];
        continue;
      }
      if (byte >= 0xc2 && byte <= 0xdf) {
        needed = 1;
      } else if (byte >= 0xe0 && byte <= 0xef) {
        if (byte == 0xe0) lower = 0xa0;
        if (byte == 0xed) upper = 0x9f;
        needed = 2;
      } else if (byte >= 0xf0 && byte <= 0xf4) {
        if (byte == 0xf0) lower = 0x90;
        if (byte == 0xf4) upper = 0x8f;
        needed = 3;
      } else {
        text += "\xef\xbf\xbd";
        continue;
      }
      partial = bytes[i];
      continue;
    }
    const bool continues = byte >= lower && byte <= upper;
    lower = 0x80, upper = 0xbf;
    if (!continues) {
      text += "\xef\xbf\xbd";
      needed = 0;
      --i;
      continue;
    }
    partial += bytes[i];
    if (--needed == 0) text += partial;
  }
  if (needed > 0) text += "\xef\xbf\xbd";
  return text;
}

bool is_whole_utf8(std::string_view text) { return decode_whole(text) == text; }

// Where the answer ends: the stop string that is complete first, the longest of those that end together.
std::pair<std::string, std::string> cut_whole(const std::string& text,
                                              const std::vector<std::string>& stops) {
  for (std::size_t end = 0; end <= text.size(); ++end) {
    const std::string* found = nullptr;
    for (const std::string& stop : stops) {
      const bool here = std::string_view(text).substr(0, end).ends_with(stop);
      if (!stop.empty() && here && (found == nullptr || stop.size() > found->size())) found = &stop;
    }
    if (found != nullptr) return {text.substr(0, end - found->size()), *found};
  }
  return {text, ""};
}

// Bytes that are characters, halves of characters and nonsense, in any order.
std::string random_bytes(std::mt19937& random, std::size_t size) {
  static const std::string kPieces[] = {"a",        "b",        "é",        "\xc3",     "東",
                                        "\xe6\x9d", "🦀",       "\xf0\x9f", "\x80",     "\xff",
                                        "\xed\xa0", "\xe0\x80", "\xf4\x90", "\xf0\x80", "\xc0"};
  std::string bytes;
  while (bytes.size() < size) {
    bytes += random() % 8 == 0 ? std::string(1, static_cast<char>(random()))
                               : kPieces[random() % std::size(kPieces)];
  }
  return bytes;
}

TEST(Utf8Test, EverySplitGivesTheSameText) {
  std::mt19937 random(7);
  for (int round = 0; round < 3000; ++round) {
    const std::string bytes = random_bytes(random, random() % 24);
    std::string pending, text;
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t size = 1 + random() % 4;
      pending += bytes.substr(at, size);
      take_characters(pending, text);
      ASSERT_LE(pending.size(), 3u);
      ASSERT_TRUE(is_whole_utf8(text));
      at += size;
    }
    if (!pending.empty()) text += "\xef\xbf\xbd";
    ASSERT_EQ(text, decode_whole(bytes));
  }
}

TEST(Utf8Test, TheWholeCharactersAtTheStart) {
  EXPECT_EQ(characters_prefix(""), 0u);
  EXPECT_EQ(characters_prefix("café 東 🦀"), std::string_view("café 東 🦀").size());
  EXPECT_EQ(characters_prefix("caf\xe9 au lait"), 3u);
  EXPECT_EQ(characters_prefix("東\xe6\x9d"), 3u);
  EXPECT_EQ(characters_prefix("a\xff"), 1u);
}

TEST(Utf8Test, EveryPairOfLeadAndContinuation) {
  for (int lead = 0; lead < 256; ++lead) {
    for (int next = 0; next < 256; ++next) {
      const std::string bytes = {static_cast<char>(lead), static_cast<char>(next), '\x80', '\x80', 'x'};
      std::string pending = bytes, text;
      take_characters(pending, text);
      ASSERT_TRUE(pending.empty());
      ASSERT_EQ(text, decode_whole(bytes)) << lead << ' ' << next;
    }
  }
}

class DetokenizerTest : public testing::Test {
 protected:
  // Byte tokens, then words of several bytes, some of them half characters.
  static constexpr TokenId kFirstWord = TinyVocabulary::kWords;
  static std::vector<std::string> words() {
    return {"ab", "ba", "aab",
            byte_text("\xc3\xa9"
                      "a"),
            byte_text("a\xe6\x9d")};
  }
  static std::string byte_text(std::string_view bytes) {
    std::string text;
    for (const char byte : bytes) text += TinyVocabulary::byte_character(static_cast<unsigned char>(byte));
    return text;
  }

  struct Answer {
    std::string text, stop;
  };
  Answer run(const std::vector<TokenId>& tokens, std::vector<std::string> stops) const {
    Detokenizer detokenizer(tokenizer_, std::move(stops));
    Answer answer;
    const auto add = [&](const Detokenizer::Piece& piece) {
      EXPECT_TRUE(is_whole_utf8(piece.text));
      EXPECT_TRUE(piece.stopped || piece.stop.empty());
      answer.text += piece.text;
      answer.stop = piece.stop;
      return piece.stopped;
    };
    for (const TokenId token : tokens) {
      if (add(detokenizer.append(token))) {
        EXPECT_EQ(detokenizer.flush().text, "") << "nothing follows a stop";
        return answer;
      }
    }
    add(detokenizer.flush());
    return answer;
  }
  std::vector<TokenId> byte_tokens(std::string_view text) const {
    std::vector<TokenId> tokens;
    for (const char byte : text) tokens.push_back(static_cast<unsigned char>(byte));
    return tokens;
  }

  TinyVocabulary vocabulary_{words()};
  Tokenizer tokenizer_{vocabulary_.spec};
};

TEST_F(DetokenizerTest, RandomTokensEqualTheWholeString) {
  std::mt19937 random(11);
  const auto word_count = static_cast<TokenId>(words().size());
  for (int round = 0; round < 3000; ++round) {
    std::vector<TokenId> tokens;
    for (auto count = random() % 20; count > 0; --count) {
      tokens.push_back(random() % 3 == 0 ? kFirstWord + static_cast<TokenId>(random() % word_count)
                                         : static_cast<TokenId>(random() % 256));
    }
    ASSERT_EQ(run(tokens, {}).text, decode_whole(tokenizer_.decode(tokens)));
  }
}

TEST_F(DetokenizerTest, RandomStopsCutWhereTheWholeStringIsCut) {
  std::mt19937 random(13);
  const auto random_text = [&](std::size_t size) {
    static const std::string kPieces[] = {"a", "b", "a", "b", "é", "東"};
    std::string text;
    for (std::size_t i = 0; i < size; ++i) text += kPieces[random() % std::size(kPieces)];
    return text;
  };
  int stopped = 0;
  for (int round = 0; round < 4000; ++round) {
    std::vector<std::string> stops;
    for (auto count = random() % 4; count > 0; --count) stops.push_back(random_text(random() % 6));
    std::vector<TokenId> tokens;
    for (auto count = random() % 16; count > 0; --count) {
      if (random() % 2 == 0) {
        tokens.push_back(kFirstWord + static_cast<TokenId>(random() % words().size()));
      } else {
        for (const TokenId token : byte_tokens(random_text(1))) tokens.push_back(token);
      }
    }
    const auto [text, stop] = cut_whole(decode_whole(tokenizer_.decode(tokens)), stops);
    const Answer answer = run(tokens, stops);
    ASSERT_EQ(answer.text, text);
    ASSERT_EQ(answer.stop, stop);
    stopped += !stop.empty();
  }
  EXPECT_GT(stopped, 1000) << "the test exercises stops";
}

TEST_F(DetokenizerTest, HoldsBackOnlyWhatMayBecomeAStop) {
  Detokenizer detokenizer(tokenizer_, {"stop", "tower"});
  const auto append = [&](char c) { return detokenizer.append(static_cast<unsigned char>(c)).text; };
  EXPECT_EQ(append('x'), "x");
  EXPECT_EQ(append('s'), "");
  EXPECT_EQ(append('t'), "");
  EXPECT_EQ(append('o'), "");
  EXPECT_EQ(append('w'), "s") << "\"tow\" may become tower";
  EXPECT_EQ(append('!'), "tow!");
  EXPECT_EQ(append('s'), "");
  EXPECT_EQ(detokenizer.flush().text, "s");
}

TEST_F(DetokenizerTest, HalfACharacterIsHeldAndNeverLost) {
  Detokenizer detokenizer(tokenizer_);
  EXPECT_EQ(detokenizer.append(0xf0).text, "");
  EXPECT_EQ(detokenizer.append(0x9f).text, "");
  EXPECT_EQ(detokenizer.append(0xa6).text, "");
  EXPECT_EQ(detokenizer.append(0x80).text, "🦀");
  EXPECT_EQ(detokenizer.append(0xe6).text, "");
  EXPECT_EQ(detokenizer.append('a').text,
            "\xef\xbf\xbd"
            "a");
  EXPECT_EQ(detokenizer.append(0xe6).text, "");
  EXPECT_EQ(detokenizer.flush().text, "\xef\xbf\xbd");
  EXPECT_EQ(detokenizer.flush().text, "");
}

TEST_F(DetokenizerTest, ControlTokensAreShownOnlyIfAsked) {
  const TokenId start = *tokenizer_.find("<|im_start|>"), think = *tokenizer_.find("<think>");
  Detokenizer quiet(tokenizer_), loud(tokenizer_, {}, true);
  EXPECT_EQ(quiet.append(start).text, "");
  EXPECT_EQ(quiet.append(think).text, "<think>");
  EXPECT_EQ(loud.append(start).text, "<|im_start|>");
  EXPECT_EQ(loud.append(-5).text, "");
}

}  // namespace
}  // namespace mlxs
