// What a model file says of text: its tokenizer, checked against the embedding, and the tokens that templates
// name. Throws kModelLoad. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "formats/model_file.h"
#include "text/tokenizer.h"

namespace mlxs {

// GGUF files hold the vocabulary; Hugging Face folders the whole tokenizer.json.
std::unique_ptr<Tokenizer> make_tokenizer(const ModelFile& file);

// tokens: of the tokenizer; rows: of the embedding.
void check_vocabulary(const ModelFile& file, std::int32_t tokens, std::int32_t rows);

// How the model was taught to write tool calls, as its chat template tells: "hermes", "llama3", "mistral",
// "phi", "gemma" or "harmony". Hermes, the most common, where it does not say.
std::string tool_format(std::string_view chat_template);
// Likewise how it writes what it thinks: "think", "harmony", or empty where the template knows no thinking.
std::string reasoning_format(std::string_view chat_template);

// A token as chat templates name it: as the file spells it under `key`, else by its id.
std::string token_text(const ModelFile& file, std::string_view key, const Tokenizer& tokenizer, TokenId id);

}  // namespace mlxs
