#include "serve/chat_setup.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "serve/text_marks.h"

namespace mlxs {
namespace {

// Templates know one or the other name.
void ask_template(ChatPrompt& prompt, const Thinking& thinking) {
  OrderedJson variables = OrderedJson::object();
  if (!prompt.variables_json.empty()) variables = OrderedJson::parse(prompt.variables_json);
  if (thinking.on) variables["enable_thinking"] = variables["thinking"] = *thinking.on;
  if (!thinking.effort.empty()) variables["reasoning_effort"] = thinking.effort;
  if (!variables.empty()) prompt.variables_json = variables.dump();
}

bool ends_thinking(const Engine& engine, const ModelInfo& model, const ChatPrompt& prompt) {
  std::string text = engine.render_chat(model.id, prompt);
  trim_end(text);
  return text.ends_with("<think>");
}

void set_up_thinking(const Engine& engine, const ModelInfo& model, Thinking thinking,
                     const GenerateParams& params, ChatPrompt& prompt, ChatSetup& setup) {
  const bool asked = thinking.on.value_or(false) || !thinking.effort.empty();
  if (model.reasoning.empty()) {
    if (asked) setup.warnings.push_back(fmt::format("'{}' does not think: reasoning is ignored", model.id));
    return;
  }
  if (params.structured) thinking.on = false;  // the grammar holds from the first token
  ask_template(prompt, thinking);
  setup.shape.thinks = true;
  setup.shape.thinking = !params.structured && ends_thinking(engine, model, prompt);
}

}  // namespace

Thinking read_effort(std::string_view field, std::string_view effort) {
  static constexpr std::array<std::string_view, 5> kEfforts{"minimal", "low", "medium", "high", "xhigh"};
  if (effort == "none") return {.on = false, .effort = {}};
  if (std::ranges::find(kEfforts, effort) == kEfforts.end()) {
    refuse_field(field, fmt::format("{} = '{}' is not supported", field, effort),
                 "use none, minimal, low, medium, high or xhigh");
  }
  return {.on = true, .effort = effort == "xhigh" ? "high" : std::string(effort)};
}

ChatSetup set_up_chat(const Engine& engine, const ModelInfo& model, const ToolRequest& tools,
                      const Thinking& thinking, std::string structured_field, GenerateParams& params,
                      ChatPrompt& prompt) {
  ChatSetup setup;
  setup.structured_field = std::move(structured_field);
  AnswerShape& shape = setup.shape;
  shape.tools = tools.active();
  shape.tool_format = tool_format_of(model.tool_format);
  shape.tools_forced = tools.forced();
  add_tools(prompt, tools, model.template_has_tools);
  if (shape.tools)
    params.show_special = shape.tool_format != ToolFormat::kHermes;  // markers are control tokens
  if (shape.tools_forced) {
    params.structured = {StructuredOutput::Kind::kGrammar, tool_grammar(tools, shape.tool_format)};
    setup.structured_field = "tools";
  }
  for (std::size_t i = 0; shape.tools && !shape.tools_forced && i < tools.tools.size(); ++i) {
    if (!tools.tools[i].strict) continue;
    setup.warnings.push_back(fmt::format(
        "tools[{}].strict binds the arguments only with tool_choice required or a named function", i));
  }
  set_up_thinking(engine, model, thinking, params, prompt, setup);
  return setup;
}

std::string chosen_model(const Engine& engine, const std::string& asked) {
  if (!asked.empty()) return asked;
  const std::vector<ModelInfo> models = engine.list_models();
  if (models.size() == 1) return models.front().id;
  throw Error(ErrorCode::kInvalidArgument, "model is missing",
              fmt::format("{} models are loaded: name one of GET /v1/models", models.size()), "model");
}

}  // namespace mlxs
