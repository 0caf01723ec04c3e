#include "engine/structured.h"

#include <fmt/format.h>

namespace mlxs {

std::unique_ptr<GrammarMatcher> matcher_for(const LoadedModel& model, const StructuredOutput& structured) {
  using Kind = StructuredOutput::Kind;
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
