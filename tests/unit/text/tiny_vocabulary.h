// A byte-level vocabulary made for tests: one token a byte, a few words, control and user-defined tokens.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace mlxs {

struct TinyVocabulary {
  static constexpr TokenId kWords = 256;  // byte b is token b

  std::vector<std::string> texts, merge_texts;
  std::vector<std::int64_t> types;
  std::vector<std::string_view> tokens, merges;
  TokenizerSpec spec;

  // extra: pieces in the byte alphabet that the merges produce; they follow the bytes.
  explicit TinyVocabulary(std::vector<std::string> extra = {}, std::vector<std::string> merge_list = {},
                          std::vector<std::string> control = {"<|im_start|>", "<|im_end|>"},
                          std::vector<std::string> user_defined = {"<think>"})
      : merge_texts(std::move(merge_list)) {
    for (int byte = 0; byte < 256; ++byte) texts.push_back(byte_character(byte));
    const auto add = [&](const std::vector<std::string>& more, std::int64_t type) {
      types.resize(texts.size(), 1);
      texts.insert(texts.end(), more.begin(), more.end());
      types.resize(texts.size(), type);
    };
    add(extra, 1);
    add(control, 3);
    add(user_defined, 4);
    tokens.assign(texts.begin(), texts.end());
    merges.assign(merge_texts.begin(), merge_texts.end());
    spec = {.pre = "gpt-2", .tokens = tokens, .token_types = types, .merges = merges};
  }
  TinyVocabulary(const TinyVocabulary&) = delete;
  TinyVocabulary& operator=(const TinyVocabulary&) = delete;

  // GPT-2's printable character for a byte, in UTF-8.
  static std::string byte_character(int byte) {
    const auto printable = [](int b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 255 && b != 173); };
    int code = byte;
    if (!printable(byte)) {
      code = 256;
      for (int b = 0; b < byte; ++b) code += !printable(b);
    }
    if (code < 128) return std::string(1, static_cast<char>(code));
    return {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
  }
};

}  // namespace mlxs
