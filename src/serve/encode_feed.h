// What an encoder answers, as a document: waits for the engine without a thread, then lets the dialect write.
// One thread at a time; destroying it ends the work.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "mlxs/engine.h"
#include "serve/http.h"

namespace mlxs {

using RenderEncoding = std::function<std::string(const EncodeResult&)>;

// error_body: of the dialect; null: OpenAI's. Throws what create_encoding() throws, its fields under the
// client's name of the inputs.
FeedReply encode_reply(Engine& engine, const EncodeParams& params, std::string_view inputs_field,
                       RenderEncoding render, ErrorBody error_body, std::vector<std::string> ignored);

// The model that encodes, if the client named none: the only encoder. Throws kInvalidArgument.
std::string chosen_encoder(const Engine& engine, const std::string& asked);

// "[0.1,-0.2]"
void append_vector(std::string& out, std::span<const float> vector);

}  // namespace mlxs
