// A tiny random llama as a GGUF file: real architecture, real tokenizer (bytes, three merges, chat tokens),
// fixed seed. Weights are scaled so that greedy answers vary. Header-only; for tests that need a whole model
// in milliseconds.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "support/gguf_writer.h"

namespace mlxs::test {

struct TinyModel {
  int layers = 2, hidden = 64, heads = 4, kv_heads = 2, head_dim = 16, feed_forward = 96, context = 512;
  std::uint32_t seed = 1;
  int broken_token = -1;                   // its embedding is NaN
  int window = 0;                          // of attention in every layer; 0: none
  std::vector<std::int32_t> sliding = {};  // by layer: 1 if the window is this layer's; empty: every layer's

  // Ids: 0 <|endoftext|>, 1 <|im_start|>, 2 <|im_end|>, 3 … 258 the bytes, then "he", "ll", "hell".
  static std::vector<std::string> tokens() {
    std::vector<std::string> result{"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    for (int byte = 0; byte < 256; ++byte) result.push_back(byte_symbol(byte));
    for (const char* merged : {"he", "ll", "hell"}) result.emplace_back(merged);
    return result;
  }

  GgufWriter writer() const {
    GgufWriter w("llama");
    const std::vector<std::string> vocabulary = tokens();
    std::vector<std::int32_t> types(vocabulary.size(), 1);
    types[0] = types[1] = types[2] = 3;
    w.add_int("llama.block_count", static_cast<std::uint32_t>(layers))
        .add_int("llama.context_length", static_cast<std::uint32_t>(context))
        .add_int("llama.embedding_length", static_cast<std::uint32_t>(hidden))
        .add_int("llama.feed_forward_length", static_cast<std::uint32_t>(feed_forward))
        .add_int("llama.attention.head_count", static_cast<std::uint32_t>(heads))
        .add_int("llama.attention.head_count_kv", static_cast<std::uint32_t>(kv_heads))
        .add_int("llama.rope.dimension_count", static_cast<std::uint32_t>(head_dim))
        .add_float("llama.rope.freq_base", 10000.0f)
        .add_float("llama.attention.layer_norm_rms_epsilon", 1e-5f)
        .add_string("tokenizer.ggml.model", "gpt2")
        .add_string("tokenizer.ggml.pre", "gpt-2")
        .add_strings("tokenizer.ggml.tokens", vocabulary)
        .add_ints("tokenizer.ggml.token_type", types)
        .add_strings("tokenizer.ggml.merges", {"h e", "l l", "he ll"})
        .add_int("tokenizer.ggml.bos_token_id", 1)
        .add_int("tokenizer.ggml.eos_token_id", 2)
        .add_bool("tokenizer.ggml.add_bos_token", false)
        .add_string("tokenizer.chat_template",
                    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] "
                    "}}<|im_end|>\n"
                    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}");
    if (window > 0) w.add_int("llama.attention.sliding_window", static_cast<std::uint32_t>(window));
    if (!sliding.empty()) w.add_ints("llama.attention.sliding_layers", sliding);
    std::mt19937 random(seed);
    const auto matrix = [&](const std::string& name, std::int64_t rows, std::int64_t columns, float gain) {
      std::normal_distribution<float> normal(0.0f, gain / std::sqrt(static_cast<float>(columns)));
      std::vector<float> values(static_cast<std::size_t>(rows * columns));
      for (float& value : values) value = normal(random);
      if (broken_token >= 0 && name == "token_embd.weight") {
        std::fill_n(values.begin() + broken_token * columns, columns, std::nanf(""));
      }
      w.add_f32(name, {rows, columns}, values);
    };
    const auto ones = [&](const std::string& name, std::int64_t size) {
      w.add_f32(name, {size}, std::vector<float>(static_cast<std::size_t>(size), 1.0f));
    };
    const auto vocab = static_cast<std::int64_t>(vocabulary.size());
    matrix("token_embd.weight", vocab, hidden, 8.0f);
    for (int i = 0; i < layers; ++i) {
      const std::string blk = "blk." + std::to_string(i) + ".";
      ones(blk + "attn_norm.weight", hidden);
      matrix(blk + "attn_q.weight", heads * head_dim, hidden, 1.5f);
      matrix(blk + "attn_k.weight", kv_heads * head_dim, hidden, 1.5f);
      matrix(blk + "attn_v.weight", kv_heads * head_dim, hidden, 1.5f);
      matrix(blk + "attn_output.weight", hidden, heads * head_dim, 1.5f);
      ones(blk + "ffn_norm.weight", hidden);
      matrix(blk + "ffn_gate.weight", feed_forward, hidden, 1.5f);
      matrix(blk + "ffn_up.weight", feed_forward, hidden, 1.5f);
      matrix(blk + "ffn_down.weight", hidden, feed_forward, 1.5f);
    }
    ones("output_norm.weight", hidden);
    matrix("output.weight", vocab, hidden, 2.0f);
    return w;
  }

  std::filesystem::path write(const std::filesystem::path& folder, const std::string& stem = "tiny") const {
    const std::filesystem::path path = folder / (stem + ".gguf");
    writer().write(path);
    return path;
  }

 private:
  // GPT-2's printable stand-in of a byte, in UTF-8.
  static std::string byte_symbol(int byte) {
    const auto printable = [](int b) {
      return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
    };
    int code = byte;
    if (!printable(byte)) {
      code = 256;
      for (int b = 0; b < byte; ++b) code += printable(b) ? 0 : 1;
    }
    std::string utf8;
    if (code < 0x80) return utf8 += static_cast<char>(code), utf8;
    utf8 += static_cast<char>(0xC0 | (code >> 6));
    utf8 += static_cast<char>(0x80 | (code & 0x3F));
    return utf8;
  }
};

}  // namespace mlxs::test
