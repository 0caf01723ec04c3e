#include "engine/structured.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

namespace mlxs {

namespace {

// A lenient grammar would skip keywords that it does not know, and the answer break a promise.
bool is_lenient(const nlohmann::json& schema) {
  if (!schema.is_structured()) return false;
  if (schema.is_object()) {
    const auto guidance = schema.find("x-guidance");
    if (guidance != schema.end() && guidance->is_object() &&
        guidance->value("lenient", nlohmann::json()) == true)
      return true;
  }
  return std::ranges::any_of(schema, is_lenient);
}

// The JSON object at the start of `text`, blanks before it left out; empty: none.
std::string_view leading_object(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
  int depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (quoted) {
      if (text[i] == '\\') ++i;
      if (i < text.size() && text[i] == '"') quoted = false;
    } else if (text[i] == '"') {
      quoted = true;
    } else if (text[i] == '{') {
      ++depth;
    } else if (text[i] == '}' && --depth == 0) {
      return text.substr(0, i + 1);
    }
    if (depth == 0) return {};
  }
  return {};
}

void refuse_lenient(std::string_view schema) {
  if (!is_lenient(nlohmann::json::parse(schema, nullptr, false))) return;
  throw Error(ErrorCode::kInvalidArgument, "x-guidance.lenient is not allowed",
              "it would skip keywords of the schema without a word: leave it out", "structured");
}

void check(const StructuredOutput& structured) {
  if (structured.kind == StructuredOutput::Kind::kJsonSchema) refuse_lenient(structured.text);
  if (structured.kind != StructuredOutput::Kind::kGrammar) return;
  constexpr std::string_view kJson = "%json";
  std::string_view rest = structured.text;
  for (std::size_t at; (at = rest.find(kJson)) != std::string_view::npos;) {
    rest.remove_prefix(at + kJson.size());
    refuse_lenient(leading_object(rest));
  }
}

}  // namespace

std::unique_ptr<GrammarMatcher> matcher_for(const LoadedModel& model, const StructuredOutput& structured) {
  using Kind = StructuredOutput::Kind;
  check(structured);
  const GrammarKind kind = structured.kind == Kind::kRegex     ? GrammarKind::kRegex
                           : structured.kind == Kind::kChoice  ? GrammarKind::kChoice
                           : structured.kind == Kind::kGrammar ? GrammarKind::kLark
                                                               : GrammarKind::kJsonSchema;
  const std::string_view text =
      structured.kind == Kind::kJsonObject ? R"({"type": "object"})" : std::string_view(structured.text);
  try {
    return model.grammars().matcher(kind, text);
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("the grammar cannot be used: {}", error.what()), error.hint(),
                "structured");
  }
}

}  // namespace mlxs
