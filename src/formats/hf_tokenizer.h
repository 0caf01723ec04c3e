// The text files of a Hugging Face folder → canonical metadata: tokenizer.json whole, the chat template
// (chat_template.jinja, chat_template.json or tokenizer_config.json), the tokens that templates name, and
// every id that ends an answer. Files that are absent add nothing. Throws kModelLoad on damaged ones.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

#include "formats/model_content.h"

namespace mlxs {

// Keys: tokenizer.huggingface.json, tokenizer.chat_template, tokenizer.bos_token, tokenizer.eos_token,
// tokenizer.ggml.eos_token_id, tokenizer.eos_token_ids.
void read_hf_tokenizer(const std::filesystem::path& folder, const nlohmann::json& config,
                       ModelContent& content);

}  // namespace mlxs
