// Tokenizer of one model: text ↔ token ids, in Rust (rust/mlxs-text); GGUF vocabularies by its own BPE, which
// is ready in milliseconds, tokenizer.json files by the `tokenizers` crate.
// Immutable after construction; encode() may be called from any thread at once.
// Fails with kModelLoad on a bad vocabulary, naming the entry.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"

struct mlxs_tokenizer;  // rust/mlxs-text/include/mlxs_text.h

namespace mlxs {

// What a GGUF says of its tokenizer (tokenizer.ggml.*). Views must live until the Tokenizer is made.
struct TokenizerSpec {
  enum class Kind { kByteLevelBpe, kSentencePieceBpe };  // tokenizer.ggml.model "gpt2", "llama"
  enum class TokenType : std::uint8_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };
  Kind kind = Kind::kByteLevelBpe;
  std::string_view pre;  // tokenizer.ggml.pre: "smollm", "llama-bpe", "qwen2", …
  std::span<const std::string_view> tokens;
  std::span<const std::int64_t> token_types;                         // as TokenType; empty: all normal
  std::span<const double> scores;                                    // SentencePiece only
  std::span<const std::string_view> merges;                          // "left right"
  std::optional<bool> add_bos, add_eos, add_space_prefix;            // absent: as `pre` and kind usually do
  TokenId bos = -1, eos = -1, eot = -1, unknown = -1, padding = -1;  // -1: none
};

class Tokenizer {
 public:
  explicit Tokenizer(const TokenizerSpec& spec);
  // A Hugging Face tokenizer.json; bos, eos: -1 is none. more_ends: further tokens that end an answer.
  Tokenizer(std::string_view tokenizer_json, TokenId bos, TokenId eos,
            std::span<const TokenId> more_ends = {});
  ~Tokenizer();

  struct EncodeOptions {
    bool add_special = true;    // BOS/EOS as the model asks
    bool parse_special = true;  // "<|im_start|>" in the text becomes its token; false: plain characters
  };
  std::vector<TokenId> encode(std::string_view text, EncodeOptions options) const;
  // Bytes of the ids joined; specials included if asked. decode(encode(x)) == x for valid UTF-8, but for
  // bytes that the vocabulary has no token for: encode() leaves these out, as every implementation does. An
  // encoder's tokens (WordPiece) come back as words, as transformers joins them.
  std::string decode(std::span<const TokenId> ids, bool include_special = false) const;

  // The bytes that one token stands for, from a table made at load: no call into Rust. Empty for out-of-range
  // ids.
  std::string_view token_bytes(TokenId id) const;
  bool is_special(TokenId id) const;  // control tokens: not shown to users
  bool is_end(TokenId id) const;      // EOS, EOT and other end-of-generation tokens
  std::span<const TokenId> end_tokens() const;
  TokenId bos() const;
  TokenId eos() const;
  std::int32_t vocabulary_size() const;
  std::optional<TokenId> find(std::string_view token) const;  // exact vocabulary entry, e.g. "<|im_end|>"
  const mlxs_tokenizer* handle() const;                       // for src/text only

 private:
  std::string joined(std::span<const TokenId> ids, bool include_special) const;

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mlxs
