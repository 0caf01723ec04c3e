// What a decode step launches for each layer of a model, as its graph replays it.
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "backend/registry.h"
#include "blocks.h"
#include "models/model.h"
#include "support/temp_dir.h"

namespace mlxs {
namespace {

// Kernels of the third step of `rows` streams: the first runs op by op, the second is captured.
int kernels_of_a_step(const std::string& family, int layers, int rows) {
  const test::TempDir folder;
  std::ofstream(folder / "config.json")
      << R"({"model_type": ")" << family << R"(", "num_hidden_layers": )" << layers
      << R"(, "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 64, "query_pre_attn_scalar": 64, "sliding_window": 4096,
             "max_position_embeddings": 512, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
             "tie_word_embeddings": true, "vocab_size": 128, "attn_logit_softcapping": 50.0,
             "final_logit_softcapping": 30.0, "hidden_act": ")"
      << (family.starts_with("gemma") ? "gelu_pytorch_tanh" : "silu") << R"(",
             "quantization": {"group_size": 64, "bits": 4}})";
  const std::unique_ptr<ModelFile> file = ModelFile::synthesize(folder / "config.json");
  const std::unique_ptr<Backend> backend = make_backend("cuda");
  const std::unique_ptr<Model> model = load_model(*file, *backend, nullptr);
  const ModelConfig& c = model->config();
  const std::unique_ptr<KvStore> kv = backend->make_kv({.layers = layers,
                                                        .kv_heads = c.kv_heads,
                                                        .key_dim = c.key_dim,
                                                        .value_dim = c.value_dim,
                                                        .num_pages = rows});
  const std::vector<SampleRow> greedy(static_cast<std::size_t>(rows));
  std::size_t launched = 0;
  for (int step = 0; step < 3; ++step) {
    std::vector<TokenId> tokens;
    std::vector<std::int32_t> positions, sampled;
    std::vector<PageId> pages;
    for (int row = 0; row < rows; ++row) {
      tokens.push_back(row + step);
      positions.push_back(step);
      sampled.push_back(row);
      pages.push_back(row);
    }
    std::vector<SequenceSpan> spans;
    for (int row = 0; row < rows; ++row)
      spans.push_back({row, 1, step, std::span(pages).subspan(static_cast<std::size_t>(row), 1)});
    launched = emulated::launched();
    backend->begin_step({tokens, positions, spans, sampled, kv.get(), 1});
    backend->sample(model->forward(*backend), greedy);
    backend->end_step();
    launched = emulated::launched() - launched;
  }
  return static_cast<int>(launched);
}

int kernels_of_a_layer(const std::string& family, int rows) {
  const int two = kernels_of_a_step(family, 2, rows), four = kernels_of_a_step(family, 4, rows);
  EXPECT_EQ((four - two) % 2, 0);
  return (four - two) / 2;
}

TEST(CudaLayers, DenseOnesHaveFiveKernels) {
  for (const int rows : {1, 4}) {
    for (const char* family : {"llama", "qwen3", "gemma2", "gemma3_text"})
      EXPECT_EQ(kernels_of_a_layer(family, rows), 5) << family << ", " << rows << " rows";
  }
}

}  // namespace
}  // namespace mlxs
