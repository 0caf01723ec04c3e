// Tokenizes texts for the parity tests: encode_texts MODEL.gguf < texts > ids.
// In: for each text its size (uint32, little-endian) and bytes. Out: for each text, with control tokens
// parsed, then without, then parsed with BOS and EOS: the number of ids and the ids (uint32 each); then the
// size and bytes of the text that the second list decodes to.
#include <bit>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>

#include "formats/model_file.h"
#include "mlxs/error.h"
#include "text/tokenizer.h"

namespace {

using namespace mlxs;

std::optional<bool> flag(const ModelFile& file, std::string_view key) {
  return file.has(key) ? std::optional(file.get_bool(key)) : std::nullopt;
}

Tokenizer tokenizer_of(const ModelFile& file) {
  const auto id = [&](std::string_view key) { return static_cast<TokenId>(file.get_int(key, -1)); };
  TokenizerSpec spec{.kind = file.get_string("tokenizer.ggml.model") == "llama"
                                 ? TokenizerSpec::Kind::kSentencePieceBpe
                                 : TokenizerSpec::Kind::kByteLevelBpe,
                     .pre = file.get_string("tokenizer.ggml.pre", ""),
                     .tokens = *file.find_strings("tokenizer.ggml.tokens"),
                     .token_types = *file.find_ints("tokenizer.ggml.token_type"),
                     .add_bos = flag(file, "tokenizer.ggml.add_bos_token"),
                     .add_eos = flag(file, "tokenizer.ggml.add_eos_token"),
                     .add_space_prefix = flag(file, "tokenizer.ggml.add_space_prefix"),
                     .bos = id("tokenizer.ggml.bos_token_id"),
                     .eos = id("tokenizer.ggml.eos_token_id"),
                     .unknown = id("tokenizer.ggml.unknown_token_id")};
  if (const auto* scores = file.find_floats("tokenizer.ggml.scores")) spec.scores = *scores;
  if (const auto* merges = file.find_strings("tokenizer.ggml.merges")) spec.merges = *merges;
  return Tokenizer(spec);
}

static_assert(std::endian::native == std::endian::little, "the format is written as memory is");

void put(std::uint32_t value) { std::cout.write(reinterpret_cast<const char*>(&value), sizeof value); }

void put(const std::vector<TokenId>& ids) {
  put(static_cast<std::uint32_t>(ids.size()));
  for (const TokenId id : ids) put(static_cast<std::uint32_t>(id));
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) {
    std::fprintf(stderr, "usage: encode_texts MODEL.gguf < texts > ids\n");
    return 2;
  }
  std::ios::sync_with_stdio(false);
  const auto file = ModelFile::open(argv[1]);
  const Tokenizer tokenizer = tokenizer_of(*file);
  std::uint32_t size = 0;
  std::string text;
  while (std::cin.read(reinterpret_cast<char*>(&size), sizeof size)) {
    text.resize(size);
    std::cin.read(text.data(), size);
    put(tokenizer.encode(text, {.add_special = false}));
    const std::vector<TokenId> plain = tokenizer.encode(text, {.add_special = false, .parse_special = false});
    put(plain);
    put(tokenizer.encode(text, {}));
    const std::string decoded = tokenizer.decode(plain);
    put(static_cast<std::uint32_t>(decoded.size()));
    std::cout << decoded;
  }
  return 0;
} catch (const mlxs::Error& error) {
  std::fprintf(stderr, "encode_texts: %s\n", error.full().c_str());
  return 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "encode_texts: %s\n", error.what());
  return 1;
}
