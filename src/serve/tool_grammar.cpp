// Grammars of answers with calls, in llguidance's variant of Lark.
#include <fmt/format.h>

#include <string>
#include <string_view>

#include "serve/tool_request.h"

namespace mlxs {
namespace {

// JSON as models write it: a space behind commas and colons.
void write_on_one_line(OrderedJson& schema) {
  schema["x-guidance"] = {{"whitespace_flexible", false}, {"item_separator", ", "}, {"key_separator", ": "}};
}

std::string literal(std::string_view text) { return OrderedJson(text).dump(); }

// Rules "call", of any of the tools as a JSON object, and what it needs. all_strict: or only where a tool is.
std::string call_rules(const ToolRequest& request, ToolFormat format, bool all_strict) {
  const std::string_view arguments = format == ToolFormat::kLlama3 ? "parameters" : "arguments";
  std::string choices, rules;
  for (std::size_t i = 0; i < request.tools.size(); ++i) {
    const ToolRequest::Tool& tool = request.tools[i];
    if (!request.may_call(tool)) continue;
    OrderedJson schema = all_strict || tool.strict ? tool.parameters : OrderedJson{{"type", "object"}};
    write_on_one_line(schema);
    choices += fmt::format("{}call_{}", choices.empty() ? "" : " | ", i);
    rules += fmt::format("call_{}: {} args_{} \"}}\"\nargs_{}: %json {}\n", i,
                         literal(fmt::format(R"({{"name": "{}", "{}": )", tool.name, arguments)), i, i,
                         schema.dump());
  }
  return fmt::format("call: {}\n{}", choices, rules);
}

}  // namespace

std::string tool_grammar(const ToolRequest& request, ToolFormat format) {
  std::string one = "call", start, end, separator = R"(", ")";
  switch (format) {
    case ToolFormat::kHermes:
    case ToolFormat::kGemma:    // no JSON of their own: they write
    case ToolFormat::kHarmony:  // Hermes' where calls are forced
      one = R"("<tool_call>\n" call "\n</tool_call>")";
      separator = R"("\n")";
      break;
    case ToolFormat::kLlama3:
      separator = R"("; ")";
      break;
    case ToolFormat::kMistral:
      start = R"("[" )", end = R"( "]")";
      break;
    case ToolFormat::kPhi:
      start = R"("functools[" )", end = R"( "]")";
      break;
  }
  const std::string more =
      request.parallel ? fmt::format(" ({} one){{0,{}}}", separator, kMostCalls - 1) : std::string();
  return fmt::format("start: {}one{}{}\none: {}\n{}", start, more, end, one,
                     call_rules(request, format, true));
}

std::string calls_or_json_grammar(const ToolRequest& request, ToolFormat format, OrderedJson schema) {
  if (!schema.contains("x-guidance")) write_on_one_line(schema);
  const bool hermes = format == ToolFormat::kHermes;
  const std::string_view one = hermes ? R"("<tool_call>\n" call "\n</tool_call>")" : "call";
  const std::string more =
      request.parallel ? fmt::format(" ({} one){{0,{}}}", hermes ? R"("\n")" : R"(", ")", kMostCalls - 1)
                       : std::string();
  return fmt::format("start: json | calls\njson: %json {}\ncalls: {}one{}{}\none: {}\n{}", schema.dump(),
                     hermes ? "" : R"("functools[" )", more, hermes ? "" : R"( "]")", one,
                     call_rules(request, format, false));
}

std::optional<std::string> free_tool_grammar(const ToolRequest& request, ToolFormat format) {
  const std::string calls = call_rules(request, format, false);
  const auto more = [&](std::string_view separator) {
    return request.parallel ? fmt::format(" ({} call)*", literal(separator)) : std::string();
  };
  // A lazy lexeme ends as soon as it can: behind the marker nothing but a call goes on.
  switch (format) {
    case ToolFormat::kHermes:
      return fmt::format(
          "start: (before \"\\n\" call \"\\n</tool_call>\"){} rest\nbefore[lazy]: /(.|\\n)*<tool_call>/\n"
          "rest: /(.|\\n)*/\n{}",
          request.parallel ? "*" : "?", calls);
    case ToolFormat::kPhi:
      return fmt::format(
          "start: rest | before call{} \"]\"\nbefore[lazy]: /(.|\\n)*functools\\[/\n"
          "rest: /(.|\\n)*/\n{}",
          more(", "), calls);
    case ToolFormat::kLlama3:  // a call is the whole answer
      return fmt::format("start: call{} | text\ntext: /([^{{](.|\\n)*)?/\n{}", more("; "), calls);
    case ToolFormat::kMistral:
    case ToolFormat::kGemma:
    case ToolFormat::kHarmony:
      return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace mlxs
