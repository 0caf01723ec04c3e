// What sentence-transformers stores beside an encoder: how the tokens of a text become one vector
// (modules.json, N_Pooling/config.json) and how many tokens it reads (sentence_bert_config.json) → canonical
// metadata. Files that are absent add nothing. Throws kModelLoad on damaged ones, and on a module that would
// change the vectors if it were left out.
#pragma once

#include <filesystem>
#include <string_view>

#include "formats/model_content.h"

namespace mlxs {

// Keys: <architecture>.pooling_type (1 mean, 2 first token, 3 last token), .context_length.
void read_sentence_settings(const std::filesystem::path& folder, std::string_view architecture,
                            ModelContent& content);

}  // namespace mlxs
