// What a chat becomes for the model that answers it: tools and thinking in the prompt as its template wants
// them, a grammar where calls must come, and the shape that its answer will have. Any thread; throws
// mlxs::Error naming the field.
#pragma once

#include <string>
#include <vector>

#include "mlxs/engine.h"
#include "serve/answer_reader.h"
#include "serve/thinking.h"
#include "serve/tool_request.h"

namespace mlxs {

struct ChatSetup {
  AnswerShape shape;
  std::string structured_field;       // the field that a grammar came from
  bool free_grammar = false;          // it is of the calls only: the rest of the answer is free
  std::vector<std::string> warnings;  // what was asked for and does not happen
};
// structured_field: of params.structured, if there is one. With tools, the answer is then calls or what it
// says.
ChatSetup set_up_chat(const Engine& engine, const ModelInfo& model, ToolRequest tools,
                      const Thinking& thinking, std::string structured_field, GenerateParams& params,
                      ChatPrompt& prompt);

// A request need not name the model where there is only one.
std::string chosen_model(const Engine& engine, const std::string& asked);

}  // namespace mlxs
