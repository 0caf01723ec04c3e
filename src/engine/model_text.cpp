#include "engine/model_text.h"

#include <fmt/format.h>

#include "formats/mock_model.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

TokenizerSpec tokenizer_spec(const ModelFile& file) {
  const auto id = [&](std::string_view key) { return static_cast<TokenId>(file.get_int(key, -1)); };
  const auto flag = [&](std::string_view key) {
    return file.has(key) ? std::optional(file.get_bool(key)) : std::nullopt;
  };
  TokenizerSpec spec;
  const std::string_view kind = file.get_string("tokenizer.ggml.model");
  if (kind == "gpt2") {
    spec.kind = TokenizerSpec::Kind::kByteLevelBpe;
  } else if (kind == "llama") {
    spec.kind = TokenizerSpec::Kind::kSentencePieceBpe;
  } else {
    throw Error(ErrorCode::kModelLoad,
                fmt::format("{}: tokenizer.ggml.model = '{}' is not supported", file.path().string(), kind),
                "supported: gpt2, llama");
  }
  const auto* tokens = file.find_strings("tokenizer.ggml.tokens");
  if (tokens == nullptr || tokens->empty()) {
    throw Error(ErrorCode::kModelLoad,
                fmt::format("{}: tokenizer.ggml.tokens is missing", file.path().string()),
                "the file holds no tokenizer: convert the model again");
  }
  spec.tokens = *tokens;
  spec.pre = file.get_string("tokenizer.ggml.pre", "default");
  if (const auto* types = file.find_ints("tokenizer.ggml.token_type")) spec.token_types = *types;
  if (const auto* scores = file.find_floats("tokenizer.ggml.scores")) spec.scores = *scores;
  if (const auto* merges = file.find_strings("tokenizer.ggml.merges")) spec.merges = *merges;
  spec.add_bos = flag("tokenizer.ggml.add_bos_token");
  spec.add_eos = flag("tokenizer.ggml.add_eos_token");
  spec.add_space_prefix = flag("tokenizer.ggml.add_space_prefix");
  spec.bos = id("tokenizer.ggml.bos_token_id");
  spec.eos = id("tokenizer.ggml.eos_token_id");
  spec.eot = id("tokenizer.ggml.eot_token_id");
  spec.unknown = id("tokenizer.ggml.unknown_token_id");
  spec.padding = id("tokenizer.ggml.padding_token_id");
  return spec;
}

}  // namespace

std::unique_ptr<Tokenizer> make_tokenizer(const ModelFile& file) {
  if (file.format() == "gguf" || file.format() == kMockFormat)
    return std::make_unique<Tokenizer>(tokenizer_spec(file));
  const std::string_view json = file.get_string("tokenizer.huggingface.json", "");
  if (json.empty()) {
    throw Error(ErrorCode::kModelLoad, fmt::format("{}: tokenizer.json is missing", file.path().string()),
                "download the whole repository; a tokenizer.model or vocab.json alone cannot be read");
  }
  std::vector<TokenId> ends;
  if (const auto* ids = file.find_ints("tokenizer.eos_token_ids")) {
    for (const std::int64_t id : *ids) ends.push_back(static_cast<TokenId>(id));
  }
  try {
    return std::make_unique<Tokenizer>(
        json, static_cast<TokenId>(file.get_int("tokenizer.ggml.bos_token_id", -1)),
        static_cast<TokenId>(file.get_int("tokenizer.ggml.eos_token_id", -1)), ends);
  } catch (const Error& error) {  // which names the file, but not where it lies
    throw Error(error.code(), (file.path() / error.what()).string(), error.hint());
  }
}

// Converters to GGUF pad the vocabulary. Elsewhere the embedding often has spare rows, and tokenizers a few
// placeholders (for images) that a text model has no row for: encode() refuses these.
void check_vocabulary(const ModelFile& file, std::int32_t tokens, std::int32_t rows) {
  constexpr std::int32_t kPlaceholders = 64;
  if (file.format() == "gguf" ? tokens == rows : tokens - kPlaceholders <= rows) return;
  throw Error(ErrorCode::kModelLoad,
              fmt::format("{}: the tokenizer has {} tokens, the embedding {} rows", file.path().string(),
                          tokens, rows),
              "metadata and tensors contradict each other: convert the model again");
}

std::string tool_format(std::string_view chat_template) {
  const auto has = [&](std::string_view word) { return chat_template.find(word) != std::string_view::npos; };
  if (has("<|channel|>") && has("<|message|>")) return "harmony";
  if (has("<start_function_call>")) return "gemma";
  if (has("<tool_call>")) return "hermes";
  if (has("[TOOL_CALLS]")) return "mistral";
  if (has("<|python_tag|>") || has("<|eom_id|>") || (has("\"parameters\"") && has("<|start_header_id|>"))) {
    return "llama3";
  }
  if (has("functools") || has("<|tool|>")) return "phi";
  return "hermes";
}

std::string reasoning_format(std::string_view chat_template) {
  const auto has = [&](std::string_view word) { return chat_template.find(word) != std::string_view::npos; };
  if (has("<|channel|>") && has("<|message|>")) return "harmony";
  return has("<think>") || has("enable_thinking") ? "think" : "";
}

std::string token_text(const ModelFile& file, std::string_view key, const Tokenizer& tokenizer, TokenId id) {
  const std::string_view text = file.get_string(key, "");
  return std::string(text.empty() ? tokenizer.token_bytes(id) : text);
}

}  // namespace mlxs
