#include "text/tokenizer.h"

#include <algorithm>
#include <type_traits>

#include "text/rust_call.h"

namespace mlxs {

struct Tokenizer::Impl {
  mlxs_tokenizer* handle = nullptr;
  mlxs_token_table table{};  // views into the handle
  std::vector<TokenId> ends;

  Impl() = default;
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() { mlxs_tokenizer_free(handle); }

  void read_table() {
    table = mlxs_tokenizer_table(handle);
    for (std::size_t id = 0; id < table.num_tokens; ++id) {
      if (table.flags[id] & MLXS_TOKEN_END) ends.push_back(static_cast<TokenId>(id));
    }
  }
  unsigned flags(TokenId id) const {
    return static_cast<std::size_t>(id) < table.num_tokens ? table.flags[id] : 0u;  // negative ids are huge
  }
};

namespace {

std::vector<mlxs_str> to_rust_all(std::span<const std::string_view> texts) {
  std::vector<mlxs_str> result;
  result.reserve(texts.size());
  for (const std::string_view text : texts) result.push_back(to_rust(text));
  return result;
}

std::int8_t to_rust(std::optional<bool> flag) {
  return flag ? static_cast<std::int8_t>(*flag) : std::int8_t{-1};
}

}  // namespace

Tokenizer::Tokenizer(const TokenizerSpec& spec) : impl_(std::make_unique<Impl>()) {
  const std::vector<mlxs_str> tokens = to_rust_all(spec.tokens), merges = to_rust_all(spec.merges);
  const mlxs_tokenizer_spec rust_spec{
      .kind = spec.kind == TokenizerSpec::Kind::kByteLevelBpe ? MLXS_TOKENIZER_BYTE_LEVEL
                                                              : MLXS_TOKENIZER_SENTENCEPIECE,
      .pre = to_rust(spec.pre),
      .tokens = tokens.data(),
      .num_tokens = tokens.size(),
      .token_types = spec.token_types.data(),
      .num_token_types = spec.token_types.size(),
      .scores = spec.scores.data(),
      .num_scores = spec.scores.size(),
      .merges = merges.data(),
      .num_merges = merges.size(),
      .add_bos = to_rust(spec.add_bos),
      .add_eos = to_rust(spec.add_eos),
      .add_space_prefix = to_rust(spec.add_space_prefix),
      .bos = spec.bos,
      .eos = spec.eos,
      .eot = spec.eot,
      .unknown = spec.unknown,
  };
  call_rust(
      [&](mlxs_text_error* error) { return mlxs_tokenizer_from_spec(&rust_spec, &impl_->handle, error); });
  impl_->read_table();
}

Tokenizer::Tokenizer(std::string_view tokenizer_json, TokenId bos, TokenId eos,
                     std::span<const TokenId> more_ends)
    : impl_(std::make_unique<Impl>()) {
  call_rust([&](mlxs_text_error* error) {
    return mlxs_tokenizer_from_json(to_rust(tokenizer_json), bos, eos, &impl_->handle, error);
  });
  impl_->read_table();
  for (const TokenId id : more_ends) {
    if (!is_end(id)) impl_->ends.push_back(id);
  }
}

Tokenizer::~Tokenizer() = default;

std::vector<TokenId> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  mlxs_text_ids ids{};
  call_rust([&](mlxs_text_error* error) {
    return mlxs_tokenizer_encode(impl_->handle, to_rust(text), options.add_special, options.parse_special,
                                 &ids, error);
  });
  static_assert(std::is_same_v<TokenId, std::int32_t>);
  std::vector<TokenId> result(ids.data, ids.data + ids.size);
  mlxs_text_free_ids(ids);
  return result;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool include_special) const {
  if (impl_->table.joins != 0) return joined(ids, include_special);
  std::string text;
  bool after_prefix = impl_->table.space_prefix != 0;  // encode() put a space where the next piece starts
  for (const TokenId id : ids) {
    std::string_view bytes = token_bytes(id);
    if (const unsigned flags = impl_->flags(id); flags & (MLXS_TOKEN_SPECIAL | MLXS_TOKEN_ADDED)) {
      if (include_special || !(flags & MLXS_TOKEN_SPECIAL)) text += bytes;
      after_prefix = impl_->table.space_prefix != 0;
      continue;
    }
    if (after_prefix && bytes.starts_with(' ')) bytes.remove_prefix(1);
    after_prefix = false;
    text += bytes;
  }
  return text;
}

// As the file's own decoder joins them: WordPiece writes "##" where no space stands before.
std::string Tokenizer::joined(std::span<const TokenId> ids, bool include_special) const {
  const std::vector<std::uint32_t> numbers(ids.begin(), ids.end());
  mlxs_text_bytes bytes{};
  call_rust([&](mlxs_text_error* error) {
    return mlxs_tokenizer_decode(impl_->handle, numbers.data(), numbers.size(), include_special, &bytes,
                                 error);
  });
  std::string text(reinterpret_cast<const char*>(bytes.data), bytes.size);
  mlxs_text_free(bytes);
  return text;
}

std::string_view Tokenizer::token_bytes(TokenId id) const {
  const mlxs_token_table& table = impl_->table;
  if (static_cast<std::size_t>(id) >= table.num_tokens) return {};
  const std::uint32_t begin = table.offsets[id], end = table.offsets[id + 1];
  return {reinterpret_cast<const char*>(table.bytes) + begin, end - begin};
}

bool Tokenizer::is_special(TokenId id) const { return impl_->flags(id) & MLXS_TOKEN_SPECIAL; }
bool Tokenizer::is_end(TokenId id) const {
  return std::ranges::find(impl_->ends, id) != impl_->ends.end();  // a handful
}
std::span<const TokenId> Tokenizer::end_tokens() const { return impl_->ends; }
TokenId Tokenizer::bos() const { return impl_->table.bos; }
TokenId Tokenizer::eos() const { return impl_->table.eos; }

const mlxs_tokenizer* Tokenizer::handle() const { return impl_->handle; }

std::int32_t Tokenizer::vocabulary_size() const { return static_cast<std::int32_t>(impl_->table.num_tokens); }

std::optional<TokenId> Tokenizer::find(std::string_view token) const {
  const TokenId id = mlxs_tokenizer_find(impl_->handle, to_rust(token));
  return id < 0 ? std::nullopt : std::optional(id);
}

}  // namespace mlxs
