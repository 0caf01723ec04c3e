// What an encoder answers, as a document: from a dialect's request to a feed that waits for the engine
// without a thread, then lets the dialect write. One thread at a time; destroying it ends the work.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "admit/admission.h"
#include "mlxs/engine.h"
#include "serve/http.h"

namespace mlxs {

using RenderEncoding = std::function<std::string(const EncodeResult&)>;

// error_body: of the dialect; null: OpenAI's. ignored: fields that nothing reads.
EncodeReply encode_reply(EncodeParams params, std::string_view inputs_field, RenderEncoding render,
                         ErrorBody error_body, std::vector<std::string> ignored);

// Takes a place (one a request: its inputs take turns with those of others) and queues it. Throws what
// create_encoding() throws, its fields under the client's name of the inputs; kOverloaded: there is no place.
FeedReply start_encoding(Engine& engine, Admission& admission, EncodeReply reply);

// The model that encodes, if the client named none: the only encoder. Throws kInvalidArgument.
std::string chosen_encoder(const Engine& engine, const std::string& asked);

// "[0.1,-0.2]"
void append_vector(std::string& out, std::span<const float> vector);

}  // namespace mlxs
