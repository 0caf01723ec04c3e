// The small model that the GGUF tests open, whole and damaged.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/model_file.h"
#include "mlxs/error.h"
#include "support/gguf_writer.h"

namespace mlxs::test {

inline constexpr std::uint32_t kGgmlF32 = 0, kGgmlQ4_1 = 3, kGgmlQ8_0 = 8;

inline std::vector<std::byte> pattern_bytes(std::size_t count) {
  std::vector<std::byte> bytes(count);
  for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(i * 37 + 11);
  return bytes;
}

// Every kind of metadata and three tensors of different types and ranks.
inline GgufWriter sample_model() {
  GgufWriter writer("llama");
  writer.add_int("llama.block_count", 30)
      .add_float("llama.rope.freq_base", 10000.5f)
      .add_bool("tokenizer.ggml.add_bos_token", true)
      .add_string("general.name", "sample")
      .add_strings("tokenizer.ggml.tokens", {"a", "", "\xf0\x9f\x98\x80"})
      .add_ints("tokenizer.ggml.token_type", {1, -2, 3})
      .add_floats("tokenizer.ggml.scores", {0.5f, -1.0f});
  const std::vector<float> norm{1, 2, 3, 4, 5, 6, 7, 8};
  writer.add_f32("output_norm.weight", {8}, norm)
      .add_tensor("blk.0.attn_q.weight", kGgmlQ4_1, {3, 64}, pattern_bytes(3 * 2 * 20))
      .add_tensor("token_embd.weight", kGgmlQ8_0, {2, 32}, pattern_bytes(2 * 34));
  return writer;
}

inline std::unique_ptr<ModelFile> open_built(const std::vector<std::byte>& bytes) {
  return ModelFile::open_bytes(bytes, "model.gguf");
}

// The error of opening these bytes: it must be kModelLoad, name the file, give a hint.
inline std::string refusal(std::span<const std::byte> bytes) {
  try {
    (void)ModelFile::open_bytes(bytes, "model.gguf");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kModelLoad) << error.full();
    EXPECT_TRUE(std::string_view(error.what()).starts_with("model.gguf: ")) << error.what();
    EXPECT_FALSE(error.hint().empty()) << error.what();
    return error.full();
  }
  ADD_FAILURE() << "the file was accepted";
  return {};
}

inline std::string refusal(const GgufWriter& writer) { return refusal(writer.build()); }

}  // namespace mlxs::test
