// Hugging Face folders: what config.json, names and text files become, and what is refused.
#include "formats/hf_folder.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/hf_names.h"
#include "formats/model_file.h"
#include "mlxs/error.h"
#include "support/safetensors_writer.h"
#include "support/temp_dir.h"

namespace mlxs {
namespace {

using nlohmann::json;
using test::SafetensorsWriter;
using test::TempDir;
using test::write_file;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

json llama_config() {
  return {{"model_type", "llama"},    {"hidden_size", 64},       {"num_hidden_layers", 1},
          {"num_attention_heads", 4}, {"intermediate_size", 96}, {"rms_norm_eps", 1e-5},
          {"vocab_size", 16},         {"rope_theta", 10000},     {"max_position_embeddings", 8}};
}

struct Folder {
  TempDir dir;
  json config = llama_config();
  SafetensorsWriter weights;

  void write() const {
    write_file(dir / "config.json", config.dump());
    write_file(dir / "model.safetensors", weights.build());
  }
  std::unique_ptr<ModelFile> open() const {
    write();
    return ModelFile::open(dir.path());
  }
  std::string refusal() const {
    write();
    return opening_error();
  }
  std::string opening_error() const {
    try {
      (void)ModelFile::open(dir.path());
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kModelLoad) << error.full();
      EXPECT_TRUE(std::string_view(error.what()).starts_with(dir.path().string())) << error.what();
      EXPECT_FALSE(error.hint().empty()) << error.what();
      return error.full();
    }
    ADD_FAILURE() << "accepted";
    return {};
  }
};

TEST(HfFolder, ConfigBecomesTheKeysOfGguf) {
  Folder folder;
  folder.config["rope_scaling"] = {{"rope_type", "llama3"},
                                   {"factor", 8.0},
                                   {"low_freq_factor", 1.0},
                                   {"high_freq_factor", 4.0},
                                   {"original_max_position_embeddings", 4}};
  folder.config["num_key_value_heads"] = 2;
  folder.config["eos_token_id"] = {5, 6};
  const auto file = folder.open();
  EXPECT_EQ(file->format(), "safetensors");
  EXPECT_EQ(file->architecture(), "llama");
  EXPECT_EQ(file->get_int("llama.block_count"), 1);
  EXPECT_EQ(file->get_int("llama.context_length"), 8);
  EXPECT_EQ(file->get_int("llama.attention.head_count_kv"), 2);
  EXPECT_EQ(file->get_int("llama.attention.key_length"), 16);
  EXPECT_EQ(file->get_int("llama.rope.dimension_count"), 16);
  EXPECT_FALSE(file->get_bool("llama.rope.interleaved"));
  EXPECT_DOUBLE_EQ(file->get_float("llama.rope.freq_base"), 10000);
  EXPECT_EQ(file->get_string("llama.rope.scaling.type"), "llama3");
  EXPECT_DOUBLE_EQ(file->get_float("llama.rope.scaling.high_freq_factor"), 4);
  EXPECT_EQ(file->get_int("llama.rope.scaling.original_context_length"), 4);
  EXPECT_THAT(*file->find_ints("tokenizer.eos_token_ids"), ElementsAre(5, 6));
}

TEST(HfFolder, RopeParametersOfTransformers5) {
  Folder folder;
  folder.config.erase("rope_theta");
  folder.config["rope_parameters"] = {
      {"rope_type", "yarn"}, {"rope_theta", 500000.0}, {"factor", 4}, {"beta_fast", 32}};
  const auto file = folder.open();
  EXPECT_DOUBLE_EQ(file->get_float("llama.rope.freq_base"), 500000);
  EXPECT_EQ(file->get_string("llama.rope.scaling.type"), "yarn");
  EXPECT_DOUBLE_EQ(file->get_float("llama.rope.scaling.yarn_beta_fast"), 32);
}

TEST(HfFolder, NamesBecomeCanonical) {
  const HfFamily& llama = *find_hf_family("llama");
  const HfFamily& gemma = *find_hf_family("gemma3_text");
  EXPECT_EQ(canonical_tensor_name(llama, "model.layers.12.self_attn.q_proj.weight"), "blk.12.attn_q.weight");
  EXPECT_EQ(canonical_tensor_name(llama, "model.layers.12.self_attn.q_proj.bias"), "blk.12.attn_q.bias");
  EXPECT_EQ(canonical_tensor_name(llama, "lm_head.weight"), "output.weight");
  EXPECT_EQ(canonical_tensor_name(llama, "language_model.model.norm.weight"), "output_norm.weight");
  EXPECT_EQ(canonical_tensor_name(llama, "model.layers.1.block_sparse_moe.experts.7.w2.weight"),
            "blk.1.ffn_down.7.weight");
  EXPECT_EQ(canonical_tensor_name(llama, "model.layers.3.self_attn.sinks"), "blk.3.attn_sinks.weight");
  EXPECT_EQ(canonical_tensor_name(llama, "model.layers.3.mlp.gate.e_score_correction_bias"),
            "blk.3.exp_probs_b.bias");
  EXPECT_EQ(canonical_tensor_name(llama, "model.layers.0.self_attn.rotary_emb.inv_freq"), "");
  EXPECT_EQ(canonical_tensor_name(llama, "model.layers.0.unheard.of"), "model.layers.0.unheard.of");
  EXPECT_EQ(canonical_tensor_name(llama, "model.layers.2.post_attention_layernorm.weight"),
            "blk.2.ffn_norm.weight");
  EXPECT_EQ(canonical_tensor_name(gemma, "model.layers.2.post_attention_layernorm.weight"),
            "blk.2.post_attention_norm.weight");
}

TEST(HfFolder, MlxQuantizationBecomesScalesBesideTheCodes) {
  Folder folder;
  folder.config["quantization"] = {
      {"bits", 4}, {"group_size", 64}, {"lm_head", {{"bits", 8}, {"group_size", 32}}}};
  folder.weights.add("model.embed_tokens.weight", "U32", {16, 8}, 512)
      .add("model.embed_tokens.scales", "BF16", {16, 1}, 32)
      .add("model.embed_tokens.biases", "BF16", {16, 1}, 32)
      .add("lm_head.weight", "U32", {16, 16}, 1024)
      .add("lm_head.scales", "F16", {16, 2}, 64)
      .add("lm_head.biases", "F16", {16, 2}, 64)
      .add("model.norm.weight", "F32", {64}, 256);
  const auto file = folder.open();
  ASSERT_EQ(file->tensors().size(), 3u);
  const TensorInfo& table = *file->find_tensor("token_embd.weight");
  EXPECT_EQ(table.type, DType::kMlx4);
  EXPECT_THAT(table.shape, ElementsAre(16, 64));
  EXPECT_EQ(table.scales.group, 64);
  EXPECT_EQ(table.scales.type, DType::kBF16);
  EXPECT_EQ(table.scales.biases.size(), 32u);
  const TensorInfo& head = *file->find_tensor("output.weight");
  EXPECT_EQ(head.type, DType::kMlx8);
  EXPECT_EQ(head.scales.group, 32);
  EXPECT_EQ(file->find_tensor("output_norm.weight")->type, DType::kF32);
}

TEST(HfFolder, ATiedHeadIsLeftOut) {
  Folder folder;
  folder.weights.add("lm_head.weight", "F32", {16, 64}, 4096)
      .add("model.embed_tokens.weight", "F32", {16, 64}, 4096);
  EXPECT_NE(folder.open()->find_tensor("output.weight"), nullptr);
  folder.config["tie_word_embeddings"] = true;
  EXPECT_EQ(folder.open()->find_tensor("output.weight"), nullptr);
}

TEST(HfFolder, ReadsTemplatesAndEndsFromWhereverTheyAre) {
  Folder folder;
  folder.config["eos_token_id"] = 2;
  write_file(folder.dir / "generation_config.json", R"({"eos_token_id": [7, 2]})");
  write_file(folder.dir / "tokenizer.json", "{}");
  write_file(folder.dir / "tokenizer_config.json",
             R"({"bos_token": {"content": "<s>"}, "eos_token": "</s>",
                 "chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]})");
  auto file = folder.open();
  EXPECT_EQ(file->get_string("tokenizer.chat_template"), "D");
  EXPECT_EQ(file->get_string("tokenizer.bos_token"), "<s>");
  EXPECT_EQ(file->get_string("tokenizer.eos_token"), "</s>");
  EXPECT_EQ(file->get_string("tokenizer.huggingface.json"), "{}");
  EXPECT_EQ(file->get_int("tokenizer.ggml.eos_token_id"), 7);
  EXPECT_THAT(*file->find_ints("tokenizer.eos_token_ids"), ElementsAre(7, 2));
  write_file(folder.dir / "chat_template.jinja", "J");
  EXPECT_EQ(folder.open()->get_string("tokenizer.chat_template"), "J");
}

TEST(HfFolder, FingerprintFollowsConfigAndWeights) {
  Folder folder;
  folder.weights.add("model.norm.weight", "F32", {4}, 16);
  const std::string before = folder.open()->fingerprint();
  EXPECT_EQ(ModelFile::open(folder.dir.path())->fingerprint(), before);
  folder.config["rope_theta"] = 20000;
  EXPECT_NE(folder.open()->fingerprint(), before);
}

TEST(HfFolder, RefusesConfigsThatCannotBeServed) {
  const auto refusal = [](const char* key, const json& value) {
    Folder folder;
    folder.config[key] = value;
    return folder.refusal();
  };
  EXPECT_THAT(refusal("model_type", "zebra"),
              HasSubstr("config.json: model_type 'zebra' is not supported (supported: llama, mistral, "));
  EXPECT_THAT(refusal("model_type", nullptr), HasSubstr("has no 'model_type'"));
  EXPECT_THAT(refusal("model_type", 7), HasSubstr("'model_type' is no string"));
  EXPECT_THAT(refusal("hidden_act", "relu"),
              HasSubstr("the activation 'relu' is not what llama computes (supported: silu)"));
  EXPECT_THAT(refusal("num_attention_heads", 0), HasSubstr("'num_attention_heads' = 0 is outside 1 … "));
  EXPECT_THAT(refusal("num_hidden_layers", json::object()),
              HasSubstr("'num_hidden_layers' is of the wrong kind"));
  EXPECT_THAT(refusal("rope_scaling", 3), HasSubstr("'rope_scaling' is no object"));
  EXPECT_THAT(refusal("layer_types", {"linear_attention"}),
              HasSubstr("'layer_types' holds 'linear_attention'"));
  EXPECT_THAT(refusal("quantization", {{"bits", 7}, {"group_size", 64}}),
              HasSubstr("asks for 7 bits in groups of 64"));
  EXPECT_THAT(refusal("quantization", {{"bits", 4}, {"group_size", 48}}),
              HasSubstr("asks for 4 bits in groups of 48"));
  EXPECT_THAT(refusal("quantization", {{"mode", "nvfp4"}}),
              HasSubstr("mode 'nvfp4' of 'quantization' is not supported (supported: affine, mxfp4"));
  EXPECT_THAT(refusal("quantization_config", {{"quant_method", "gptq"}}),
              HasSubstr("weights quantized by 'gptq' cannot be read"));
  EXPECT_THAT(refusal("eos_token_id", "x"), HasSubstr("'eos_token_id' is no integer"));
  EXPECT_THAT(refusal("partial_rotary_factor", 3.0),
              HasSubstr("'partial_rotary_factor' = 3 is outside 0 … 1"));
}

TEST(HfFolder, RefusesFoldersThatLackSomething) {
  {
    Folder folder;
    folder.write();
    std::filesystem::remove(folder.dir / "config.json");
    EXPECT_THAT(folder.opening_error(), HasSubstr("config.json is missing (download the whole repository"));
  }
  {
    Folder folder;
    folder.write();
    std::filesystem::remove(folder.dir / "model.safetensors");
    EXPECT_THAT(folder.opening_error(), HasSubstr("the folder holds no .safetensors file"));
    write_file(
        folder.dir / "model.safetensors.index.json",
        R"({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})");
    write_file(folder.dir / "model-00001-of-00002.safetensors",
               SafetensorsWriter().add("a", "F32", {1}, 4).build());
    EXPECT_THAT(folder.opening_error(),
                HasSubstr("the index names the file 'model-00002-of-00002.safetensors', which is missing"));
    write_file(folder.dir / "model-00002-of-00002.safetensors",
               SafetensorsWriter().add("c", "F32", {1}, 4).build());
    EXPECT_THAT(
        folder.opening_error(),
        HasSubstr("model-00002-of-00002.safetensors: tensor 'b' is missing, the index says it is here"));
    write_file(folder.dir / "model-00002-of-00002.safetensors",
               SafetensorsWriter().add("b", "F32", {1}, 4).add("a", "F32", {1}, 4).build());
    EXPECT_THAT(folder.opening_error(), HasSubstr("tensor 'a' is in model-00001-of-00002.safetensors too"));
  }
}

TEST(HfFolder, RefusesWeightsThatContradictTheConfig) {
  const auto refusal = [](json quantization, auto&& fill) {
    Folder folder;
    if (!quantization.is_null()) folder.config["quantization"] = std::move(quantization);
    fill(folder.weights);
    return folder.refusal();
  };
  const json q4{{"bits", 4}, {"group_size", 64}};
  const auto codes = [](SafetensorsWriter& w) { w.add("lm_head.weight", "U32", {16, 8}, 512); };
  EXPECT_THAT(refusal(q4, codes), HasSubstr("tensor 'lm_head.weight' (U32 [16, 8]) has no scales beside it"));
  EXPECT_THAT(refusal(nullptr,
                      [&](SafetensorsWriter& w) {
                        codes(w), w.add("lm_head.scales", "F16", {16, 1}, 32);
                      }),
              HasSubstr("holds quantized codes, but config.json has no quantization for it"));
  EXPECT_THAT(refusal(q4,
                      [&](SafetensorsWriter& w) {
                        codes(w), w.add("lm_head.scales", "F16", {16, 1}, 32);
                      }),
              HasSubstr("has no biases beside it"));
  const auto with = [&](const char* dtype, std::int64_t groups, std::size_t bytes) {
    return [&codes, dtype, groups, bytes](SafetensorsWriter& w) {
      codes(w);
      w.add("lm_head.scales", dtype, {16, groups}, bytes).add("lm_head.biases", dtype, {16, groups}, bytes);
    };
  };
  EXPECT_THAT(refusal(q4, with("F16", 2, 64)),
              HasSubstr("with scales [16, 2] is not 4 bits in groups of 64, as config.json says"));
  EXPECT_THAT(refusal(json{{"bits", 8}, {"group_size", 64}}, with("F16", 1, 32)),
              HasSubstr("is not 8 bits in groups of 64"));
  EXPECT_THAT(refusal(q4, with("U8", 1, 16)), HasSubstr("is of no type that scales have"));
  EXPECT_THAT(refusal(nullptr,
                      [](SafetensorsWriter& w) {
                        w.add("lm_head.weight", "F8_E4M3", {4, 4}, 16);
                      }),
              HasSubstr("is FP8 without block scales"));
  EXPECT_THAT(refusal(nullptr,
                      [](SafetensorsWriter& w) {
                        w.add("lm_head.weight", "U8", {4, 4}, 16);
                      }),
              HasSubstr("is of no type that weights have"));
  EXPECT_THAT(refusal(nullptr,
                      [](SafetensorsWriter& w) {
                        w.add("lm_head.weight", "F32", {0, 4}, 0);
                      }),
              HasSubstr("is empty"));
  EXPECT_THAT(
      refusal(
          nullptr,
          [](SafetensorsWriter& w) {
            w.add("model.norm.weight", "F32", {1}, 4).add("language_model.model.norm.weight", "F32", {1}, 4);
          }),
      HasSubstr("and another one are both 'output_norm.weight'"));
}

}  // namespace
}  // namespace mlxs
