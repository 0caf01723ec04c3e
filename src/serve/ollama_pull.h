// POST /api/pull: a download's progress as Ollama's status lines, or one answer when it is complete. Pure but
// for the download it starts.
#pragma once

#include <string_view>

#include "serve/downloads.h"
#include "serve/fields.h"
#include "serve/http.h"

namespace mlxs {

Json pull_request_schema();

FeedReply pull_model(Downloads& downloads, const Catalog& catalog, std::string_view body);

}  // namespace mlxs
