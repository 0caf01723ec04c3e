#include "formats/hf_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "formats/json_file.h"
#include "formats/quote.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

using nlohmann::json;

struct KeyName {
  std::string_view config;
  std::string_view canonical;  // after "<architecture>."
};

constexpr KeyName kKeys[] = {
    {"num_hidden_layers", "block_count"},
    {"max_position_embeddings", "context_length"},
    {"hidden_size", "embedding_length"},
    {"intermediate_size", "feed_forward_length"},
    {"num_attention_heads", "attention.head_count"},
    {"num_key_value_heads", "attention.head_count_kv"},
    {"rms_norm_eps", "attention.layer_norm_rms_epsilon"},
    {"layer_norm_eps", "attention.layer_norm_epsilon"},
    {"type_vocab_size", "token_type_count"},
    {"vocab_size", "vocab_size"},
    {"rope_theta", "rope.freq_base"},
    {"rope_local_base_freq", "rope.freq_base_swa"},
    {"rope_traditional", "rope.interleaved"},
    {"rope_interleave", "rope.interleaved"},
    {"no_rope_layers", "rope.layers"},
    {"sliding_window_pattern", "attention.sliding_window_pattern"},
    {"max_window_layers", "attention.max_window_layers"},
    {"attn_logit_softcapping", "attn_logit_softcapping"},
    {"final_logit_softcapping", "final_logit_softcapping"},
    {"norm_unit_offset", "norm_unit_offset"},
    {"num_experts", "expert_count"},
    {"num_local_experts", "expert_count"},
    {"n_routed_experts", "expert_count"},
    {"num_experts_per_tok", "expert_used_count"},
    {"moe_intermediate_size", "expert_feed_forward_length"},
    {"n_shared_experts", "expert_shared_count"},
    {"first_k_dense_replace", "leading_dense_block_count"},
    {"decoder_sparse_step", "expert_layer_step"},
    {"moe_layer_freq", "expert_layer_step"},
    {"mlp_only_layers", "dense_layers"},
    {"norm_topk_prob", "expert_weights_norm"},
    {"routed_scaling_factor", "expert_weights_scale"},
    {"n_group", "expert_group_count"},
    {"topk_group", "expert_group_used_count"},
    {"swiglu_limit", "swiglu_limit"},
    {"q_lora_rank", "attention.q_lora_rank"},
    {"kv_lora_rank", "attention.kv_lora_rank"},
};

constexpr KeyName kScalingKeys[] = {
    {"factor", "factor"},
    {"original_max_position_embeddings", "original_context_length"},
    {"low_freq_factor", "low_freq_factor"},
    {"high_freq_factor", "high_freq_factor"},
    {"attention_factor", "attn_factor"},
    {"beta_fast", "yarn_beta_fast"},
    {"beta_slow", "yarn_beta_slow"},
    {"mscale", "yarn_mscale"},
    {"mscale_all_dim", "yarn_mscale_all_dim"},
    {"truncate", "yarn_truncate"},
    {"short_factor", "short_factors"},
    {"long_factor", "long_factors"},
};

class Reader {
 public:
  Reader(const json& config, std::string_view name, ModelContent& content)
      : config_(config), name_(name), content_(content) {}

  HfConfig read() {
    out_.family = family();
    prefix_ = std::string(out_.family->architecture) + ".";
    merge_defaults();
    content_.set("general.architecture", out_.family->architecture);
    for (const KeyName& key : kKeys) copy(config_, key.config, prefix_ + std::string(key.canonical));
    heads();
    attention();
    rope();
    experts();
    check_activation();
    tokens();
    if (out_.family->encoder) encoder();
    out_.layers = integer("num_hidden_layers", 1, 1 << 20).value_or(0);
    out_.draft_layers = integer("num_nextn_predict_layers", 0, 1 << 10).value_or(0);
    if (const json* tied = find("tie_word_embeddings"); tied != nullptr)
      out_.tied_head = flag(*tied, "tie_word_embeddings");
    quantization();
    return std::move(out_);
  }

 private:
  const json* find(std::string_view key) const {
    const auto entry = config_.find(key);
    return entry == config_.end() || entry->is_null() ? nullptr : &*entry;
  }
  bool flag(const json& value, std::string_view key) const {
    if (!value.is_boolean()) fail_json(name_, fmt::format("{} is no bool", quote(key)));
    return value.get<bool>();
  }
  std::optional<std::int64_t> integer(std::string_view key, std::int64_t minimum,
                                      std::int64_t maximum) const {
    return json_int(config_, key, name_, minimum, maximum);
  }
  std::string_view text(const json& object, std::string_view key) const {
    const auto entry = object.find(key);
    if (entry == object.end() || entry->is_null()) return {};
    if (!entry->is_string()) fail_json(name_, fmt::format("{} is no string", quote(key)));
    return entry->get_ref<const std::string&>();
  }
  void set(std::string_view key, MetaValue value) {
    content_.set(prefix_ + std::string(key), std::move(value));
  }

  const HfFamily* family() {
    std::string type(text(config_, "model_type"));
    // A text model inside a multimodal one: its settings stand in text_config.
    if (const json* inner = find("text_config");
        inner != nullptr && inner->is_object() && find("num_hidden_layers") == nullptr) {
      json merged = *inner;
      for (const char* key : {"quantization", "quantization_config", "eos_token_id", "bos_token_id"}) {
        if (const json* outer = find(key); outer != nullptr && !merged.contains(key)) merged[key] = *outer;
      }
      config_ = std::move(merged);
      if (const std::string_view own = text(config_, "model_type"); !own.empty()) type = own;
    }
    if (type.empty()) fail_json(name_, "has no 'model_type'");
    if (const HfFamily* known = find_hf_family(type)) return known;
    throw Error(ErrorCode::kModelLoad, fmt::format("{}: model_type {} is not supported", name_, quote(type)),
                "supported: " + supported_model_types());
  }

  void merge_defaults() {
    json merged = json::parse(out_.family->defaults);
    // A scaling or base that newer files keep in rope_parameters must not meet an old default.
    for (auto& [key, value] : config_.items()) {
      if (!value.is_null() || !merged.contains(key)) merged[key] = value;
    }
    config_ = std::move(merged);
  }

  // Copies a value of any plain kind.
  void copy(const json& object, std::string_view from, std::string key) {
    const auto entry = object.find(from);
    if (entry == object.end() || entry->is_null()) return;
    const json& value = *entry;
    const auto wrong = [&] { fail_json(name_, fmt::format("{} is of the wrong kind", quote(from))); };
    if (value.is_boolean()) return content_.set(std::move(key), value.get<bool>());
    if (value.is_number_integer())
      return content_.set(std::move(key), *json_int(object, from, name_, INT64_MIN, INT64_MAX));
    if (value.is_number_float()) return content_.set(std::move(key), finite(value.get<double>(), from));
    if (value.is_string()) return content_.set(std::move(key), content_.keep(value.get<std::string>()));
    if (!value.is_array()) wrong();
    std::vector<std::int64_t> integers;
    std::vector<double> floats;
    for (const json& item : value) {
      if (!item.is_number() && !item.is_boolean()) wrong();
      if (item.is_number_unsigned() && item.get<std::uint64_t>() > std::uint64_t{INT64_MAX}) wrong();
      if (!item.is_number_float())
        integers.push_back(item.is_boolean() ? std::int64_t{item.get<bool>()} : item.get<std::int64_t>());
      floats.push_back(item.is_boolean() ? (item.get<bool>() ? 1.0 : 0.0) : finite(item.get<double>(), from));
    }
    if (integers.size() == floats.size()) return content_.set(std::move(key), std::move(integers));
    content_.set(std::move(key), std::move(floats));
  }
  double finite(double value, std::string_view key) const {
    if (!std::isfinite(value)) fail_json(name_, fmt::format("{} is not finite", quote(key)));
    return value;
  }

  void heads() {
    constexpr std::int64_t kMost = 1 << 20;
    const auto heads = integer("num_attention_heads", 1, kMost);
    const auto hidden = integer("hidden_size", 1, std::int64_t{1} << 32);
    std::optional<std::int64_t> dim = integer("head_dim", 1, kMost);
    if (!dim && heads && hidden) dim = *hidden / *heads;
    const auto nope = integer("qk_nope_head_dim", 0, kMost), roped = integer("qk_rope_head_dim", 0, kMost);
    if (nope && roped) {  // multi-head latent attention
      set("attention.key_length", *nope + *roped);
      set("rope.dimension_count", *roped);
      if (const auto value = integer("v_head_dim", 1, kMost)) set("attention.value_length", *value);
      return;
    }
    if (!dim) return;  // the family says which key is missing
    set("attention.key_length", *dim);
    set("attention.value_length", *dim);
    double part = 1.0;
    if (const json* factor = find("partial_rotary_factor"); factor != nullptr && factor->is_number())
      part = factor->get<double>();
    if (const json* p = find("rope_parameters"); p != nullptr && p->is_object() &&
                                                 p->contains("partial_rotary_factor") &&
                                                 (*p)["partial_rotary_factor"].is_number())
      part = (*p)["partial_rotary_factor"].get<double>();
    if (!(part > 0.0 && part <= 1.0))
      fail_json(name_, fmt::format("'partial_rotary_factor' = {} is outside 0 … 1", part));
    set("rope.dimension_count", static_cast<std::int64_t>(static_cast<double>(*dim) * part));
  }

  void attention() {
    const json* use = find("use_sliding_window");
    if (use == nullptr || flag(*use, "use_sliding_window"))
      copy(config_, "sliding_window", prefix_ + "attention.sliding_window");
    if (const json* scalar = find("query_pre_attn_scalar"); scalar != nullptr) {
      if (!scalar->is_number() || !(scalar->get<double>() > 0))
        fail_json(name_, "'query_pre_attn_scalar' is no positive number");
      set("attention.scale", 1.0 / std::sqrt(scalar->get<double>()));
    }
    const json* types = find("layer_types");
    if (types == nullptr) return;
    std::vector<std::int64_t> sliding;  // 1: the layer sees a window only
    for (const json& type : types->is_array() ? *types : json::array()) {
      const std::string kind = type.is_string() ? type.get<std::string>() : type.dump();
      if (kind != "full_attention" && kind != "sliding_attention") {
        fail_json(name_,
                  fmt::format("'layer_types' holds {}; full_attention and sliding_attention are supported",
                              quote(kind)));
      }
      sliding.push_back(kind == "sliding_attention" ? 1 : 0);
    }
    set("attention.sliding_layers", std::move(sliding));
  }

  void rope() {
    if (!content_.metadata.contains(prefix_ + "rope.interleaved")) set("rope.interleaved", false);
    const json* scaling = find("rope_parameters");  // transformers 5: with rope_theta inside
    if (scaling == nullptr) scaling = find("rope_scaling");
    if (scaling == nullptr) return;
    if (!scaling->is_object()) fail_json(name_, "'rope_scaling' is no object");
    if (const auto local = scaling->find("sliding_attention");
        local != scaling->end() && local->is_object()) {
      copy(*local, "rope_theta", prefix_ + "rope.freq_base_swa");
    }
    if (const auto global = scaling->find("full_attention"); global != scaling->end() && global->is_object())
      scaling = &*global;
    copy(*scaling, "rope_theta", prefix_ + "rope.freq_base");
    std::string type(text(*scaling, "rope_type"));
    if (type.empty()) type = text(*scaling, "type");
    if (type == "su") type = "longrope";
    if (type.empty() || type == "default") return;
    copy(config_, "original_max_position_embeddings", prefix_ + "rope.scaling.original_context_length");
    for (const KeyName& key : kScalingKeys)
      copy(*scaling, key.config, prefix_ + "rope.scaling." + std::string(key.canonical));
    set("rope.scaling.type", content_.keep(std::move(type)));
  }

  void experts() {
    const std::string_view scoring = text(config_, "scoring_func");
    if (scoring.empty()) return;
    if (scoring != "softmax" && scoring != "sigmoid") {
      fail_json(name_,
                fmt::format("'scoring_func' = {} is not supported (softmax, sigmoid)", quote(scoring)));
    }
    set("expert_gating_func", std::int64_t{scoring == "softmax" ? 1 : 2});
  }

  void check_activation() const {
    std::string_view used = text(config_, "hidden_activation");
    if (used.empty()) used = text(config_, "hidden_act");
    if (used == "swish") used = "silu";
    if (used.empty() || used == out_.family->activation) return;
    throw Error(ErrorCode::kModelLoad,
                fmt::format("{}: the activation {} is not what {} computes", name_, quote(used),
                            out_.family->model_type),
                fmt::format("supported: {}", out_.family->activation));
  }

  void tokens() {
    if (const auto id = integer("bos_token_id", -1, INT32_MAX))
      content_.set("tokenizer.ggml.bos_token_id", *id);
  }

  // RoBERTa counts positions from behind the padding's id.
  void encoder() {
    const std::string_view kind = text(config_, "position_embedding_type");
    if (!kind.empty() && kind != "absolute")
      fail_json(name_,
                fmt::format("'position_embedding_type' = {} is not supported (absolute)", quote(kind)));
    if (out_.family->architecture != "roberta") return;
    const std::int64_t offset = integer("pad_token_id", 0, 1 << 20).value_or(0) + 1;
    const std::int64_t positions = integer("max_position_embeddings", offset + 1, 1 << 27).value_or(0);
    set("position_offset", offset);
    set("context_length", positions - offset);
  }

  std::optional<MlxQuantization> one(const json& entry, std::string_view what) const {
    if (entry.is_boolean() && !entry.get<bool>()) return std::nullopt;
    if (!entry.is_object()) fail_json(name_, fmt::format("{} is no object", quote(what)));
    MlxQuantization q;
    const std::string_view mode = text(entry, "mode");
    if (mode == "mxfp4") {
      q.mode = QuantMode::kMxfp4;
    } else if (!mode.empty() && mode != "affine") {
      throw Error(
          ErrorCode::kModelLoad,
          fmt::format("{}: quantization mode {} of {} is not supported", name_, quote(mode), quote(what)),
          "supported: affine, mxfp4");
    }
    const bool fp4 = q.mode == QuantMode::kMxfp4;
    q.bits = static_cast<int>(json_int(entry, "bits", name_, 1, 64).value_or(4));
    q.group = static_cast<int>(json_int(entry, "group_size", name_, 1, 1 << 16).value_or(fp4 ? 32 : 64));
    const bool bits_fit = fp4 ? q.bits == 4 : (q.bits >= 2 && q.bits <= 6) || q.bits == 8;
    const bool group_fits = fp4 ? q.group == 32 : q.group == 32 || q.group == 64 || q.group == 128;
    if (!bits_fit || !group_fits) {
      throw Error(
          ErrorCode::kModelLoad,
          fmt::format("{}: {} asks for {} bits in groups of {}", name_, quote(what), q.bits, q.group),
          fp4 ? "mxfp4 has 4 bits in groups of 32" : "supported: 2-6 and 8 bits in groups of 32, 64 or 128");
    }
    return q;
  }

  void quantization() {
    const json* entry = find("quantization");
    const json* method_entry = find("quantization_config");
    if (entry == nullptr && method_entry != nullptr && method_entry->is_object() &&
        !method_entry->contains("quant_method")) {
      entry = method_entry;  // MLX writes both, and old files this one only
    }
    if (entry != nullptr) {
      out_.quantization = one(*entry, "quantization");
      if (!entry->is_object()) return;
      for (const auto& [module, override_] : entry->items()) {
        if (override_.is_object() || (override_.is_boolean() && module.find('.') != std::string::npos)) {
          out_.overrides.emplace(module, override_.is_object() || !override_.get<bool>()
                                             ? one(override_, module)
                                             : out_.quantization);
        }
      }
      return;
    }
    if (method_entry == nullptr) return;
    if (!method_entry->is_object()) fail_json(name_, "'quantization_config' is no object");
    const std::string_view method = text(*method_entry, "quant_method");
    if (method == "mxfp4") return;  // the tensors' names say which
    if (method != "fp8") {
      throw Error(ErrorCode::kModelLoad,
                  fmt::format("{}: weights quantized by {} cannot be read", name_, quote(method)),
                  "supported: MLX's own quantization, fp8 (block-scaled) and mxfp4; or take the model's "
                  "plain or GGUF form");
    }
    out_.fp8 = true;
    const auto block = method_entry->find("weight_block_size");
    if (block == method_entry->end() || block->is_null()) return;
    const bool sound = block->is_array() && block->size() == 2 && (*block)[0].is_number_unsigned() &&
                       (*block)[1].is_number_unsigned() && (*block)[0] >= 1 && (*block)[0] <= 4096 &&
                       (*block)[1] >= 1 && (*block)[1] <= 4096;
    if (!sound) fail_json(name_, "'weight_block_size' is no pair of sizes from 1 to 4096");
    out_.fp8_rows = (*block)[0].get<std::int64_t>();
    out_.fp8_columns = (*block)[1].get<std::int64_t>();
  }

  json config_;
  std::string_view name_;
  ModelContent& content_;
  std::string prefix_;
  HfConfig out_;
};

}  // namespace

HfConfig read_hf_config(const json& config, std::string_view name, ModelContent& content) {
  return Reader(config, name, content).read();
}

}  // namespace mlxs
