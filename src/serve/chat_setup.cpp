#include "serve/chat_setup.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "serve/text_marks.h"

namespace mlxs {
namespace {

constexpr std::size_t kMostStops = 16;  // of a request

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

// It always thinks, more or less; and its template has another name for what was thought.
void set_up_harmony(Thinking thinking, bool bound, GenerateParams& params, ChatPrompt& prompt,
                    ChatSetup& setup) {
  if (thinking.on == false || thinking.effort == "minimal") thinking.effort = "low";
  ask_template(prompt, {.on = std::nullopt, .effort = thinking.effort});
  if (!prompt.messages_json.empty()) {
    OrderedJson messages = OrderedJson::parse(prompt.messages_json);
    for (auto& message : messages) {
      const auto thought = message.find("reasoning_content");
      if (thought == message.end()) continue;
      message["thinking"] = OrderedJson(*thought);
      message.erase("reasoning_content");
    }
    prompt.messages_json = messages.dump();
  }
  if (bound) return;
  setup.shape.harmony = true;
  params.show_special = true;
  if (params.stop.size() < kMostStops) params.stop.emplace_back("<|call|>");
}

void set_up_thinking(const Engine& engine, const ModelInfo& model, Thinking thinking, GenerateParams& params,
                     ChatPrompt& prompt, ChatSetup& setup) {
  const bool asked = thinking.on.value_or(false) || !thinking.effort.empty();
  if (model.reasoning.empty()) {
    if (asked) setup.warnings.push_back(fmt::format("'{}' does not think: reasoning is ignored", model.id));
    return;
  }
  const bool bound = params.structured && !setup.free_grammar;  // the grammar holds from the first token
  if (bound) thinking.on = false;
  if (model.reasoning == "harmony") {
    set_up_harmony(thinking, bound, params, prompt, setup);
    return;
  }
  ask_template(prompt, thinking);
  setup.shape.thinks = true;
  setup.shape.thinking = !bound && ends_thinking(engine, model, prompt);
}

// Why an answer that must be `what` cannot be calls instead. Empty: it can.
std::string_view only_one_of_both(StructuredOutput::Kind what, ToolFormat format) {
  using Kind = StructuredOutput::Kind;
  if (what != Kind::kJsonObject && what != Kind::kJsonSchema) return "only JSON can stand beside calls";
  switch (format) {
    case ToolFormat::kHermes:
    case ToolFormat::kPhi:
      return "";
    case ToolFormat::kLlama3:
      return "its calls are plain JSON, which nothing would tell from the answer";
    case ToolFormat::kMistral:
    case ToolFormat::kGemma:
    case ToolFormat::kHarmony:
      return "its calls begin with a control token, which no grammar of an answer can hold";
  }
  return "";
}

// The answer is calls, or obeys what it must be.
void bind_calls_or_answer(const ModelInfo& model, const ToolRequest& tools, ToolFormat format,
                          std::string_view field, StructuredOutput& structured) {
  using Kind = StructuredOutput::Kind;
  if (const std::string_view why = only_one_of_both(structured.kind, format); !why.empty()) {
    refuse_field(field, fmt::format("{} and tools are both given to '{}': {}", field, model.id, why),
                 fmt::format("send one of them, or {} with tool_choice none", field));
  }
  OrderedJson schema{{"type", "object"}};
  if (structured.kind == Kind::kJsonSchema) schema = OrderedJson::parse(structured.text, nullptr, false);
  if (schema == true) schema = OrderedJson::object();
  // What is no schema is refused as a schema, not as one beside tools.
  if (!schema.is_object()) return;
  structured = {Kind::kGrammar, calls_or_json_grammar(tools, format, std::move(schema))};
}

}  // namespace

ChatSetup set_up_chat(const Engine& engine, const ModelInfo& model, ToolRequest tools,
                      const Thinking& thinking, std::string structured_field, GenerateParams& params,
                      ChatPrompt& prompt) {
  ChatSetup setup;
  setup.structured_field = std::move(structured_field);
  AnswerShape& shape = setup.shape;
  shape.tools = tools.active();
  shape.tool_format = tool_format_of(model.tool_format);
  shape.tools_forced = tools.forced();
  std::optional<std::string> free_grammar;
  const bool also_bound = tools.active() && !tools.forced() && params.structured;
  if (also_bound) {
    bind_calls_or_answer(model, tools, shape.tool_format, setup.structured_field, *params.structured);
  } else if (tools.strict() && !tools.forced()) {
    free_grammar = free_tool_grammar(tools, shape.tool_format);
    // Where no grammar keeps it from the others, it does not see them.
    if (!free_grammar) keep_allowed_tools(tools);
  }
  add_tools(prompt, tools, model.template_has_tools);
  if (shape.tools_forced) {
    if (params.structured) {
      setup.warnings.push_back(
          fmt::format("{} binds no answer while tool_choice makes all of it calls", setup.structured_field));
    }
    params.structured = {StructuredOutput::Kind::kGrammar, tool_grammar(tools, shape.tool_format)};
    setup.structured_field = "tools";
    if (shape.tool_format == ToolFormat::kGemma || shape.tool_format == ToolFormat::kHarmony)
      shape.tool_format = ToolFormat::kHermes;  // as the grammar has it
  } else if (free_grammar) {
    params.structured = {StructuredOutput::Kind::kGrammar, *std::move(free_grammar)};
    setup.structured_field = "tools";
    setup.free_grammar = true;
  } else if (tools.strict() && !also_bound) {
    setup.warnings.push_back(fmt::format(
        "strict binds the arguments of '{}' only with tool_choice required or a named function", model.id));
  }
  if (shape.tools)
    params.show_special = shape.tool_format != ToolFormat::kHermes;  // control tokens mark them
  set_up_thinking(engine, model, thinking, params, prompt, setup);
  return setup;
}

std::string chosen_model(const Engine& engine, const std::string& asked) {
  if (!asked.empty()) return asked;
  std::vector<ModelInfo> models = engine.list_models();
  std::erase_if(models, [](const ModelInfo& model) { return model.is_encoder; });
  if (models.size() == 1) return models.front().id;
  if (models.empty() && !engine.list_models().empty()) {
    throw Error(ErrorCode::kInvalidArgument, "no model that generates text is loaded",
                "serve one beside the encoders, such as smollm2", "model");
  }
  throw Error(ErrorCode::kInvalidArgument, "model is missing",
              fmt::format("{} models are loaded: name one of GET /v1/models", models.size()), "model");
}

}  // namespace mlxs
