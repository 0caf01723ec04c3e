#include "engine/prompt.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <variant>

#include "engine/loaded_model.h"
#include "text/utf8.h"

namespace mlxs {

namespace {

// Templates read JSON, which is UTF-8.
void check_utf8(std::string_view text, std::size_t message, std::string_view part) {
  const std::size_t valid = characters_prefix(text);
  if (valid == text.size()) return;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("messages[{}].{} is not UTF-8: byte 0x{:02x} at offset {}", message, part,
                          static_cast<unsigned char>(text[valid]), valid),
              "convert it, for example with iconv -f latin1 -t utf-8", "messages");
}

nlohmann::ordered_json messages_of(const ChatPrompt& prompt) {
  if (!prompt.messages_json.empty()) return nlohmann::ordered_json::parse(prompt.messages_json);
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  for (const ChatMessage& message : prompt.messages) {
    check_utf8(message.role, messages.size(), "role");
    check_utf8(message.content, messages.size(), "content");
    messages.push_back({{"role", message.role}, {"content", message.content}});
  }
  return messages;
}

}  // namespace

std::string render(const LoadedModel& model, const ChatPrompt& prompt) {
  const ChatTemplate* chat_template = model.chat_template();
  if (chat_template == nullptr) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("model '{}' has no chat template", model.info().id),
                "send a plain prompt instead (POST /v1/completions, or run --raw)", "messages");
  }
  nlohmann::ordered_json context;
  context["messages"] = messages_of(prompt);
  if (!prompt.tools_json.empty()) context["tools"] = nlohmann::ordered_json::parse(prompt.tools_json);
  if (!prompt.variables_json.empty()) context.update(nlohmann::ordered_json::parse(prompt.variables_json));
  context["add_generation_prompt"] = prompt.add_generation_prompt;
  return chat_template->render(context.dump());
}

std::vector<TokenId> encode(const LoadedModel& model, const Prompt& prompt) {
  struct Visitor {
    const LoadedModel& model;
    std::vector<TokenId> operator()(const std::string& text) const {
      return model.tokenizer().encode(text, {});
    }
    // The template writes the special tokens itself.
    std::vector<TokenId> operator()(const ChatPrompt& chat) const {
      return model.tokenizer().encode(render(model, chat), {.add_special = false});
    }
    std::vector<TokenId> operator()(const TokenPrompt& given) const {
      const int vocabulary = model.info().vocabulary;
      for (const TokenId token : given.tokens) {
        if (token < 0 || token >= vocabulary) {
          throw Error(ErrorCode::kInvalidArgument,
                      fmt::format("token id {} is outside the vocabulary", token),
                      fmt::format("ids of '{}' are 0 … {}", model.info().id, vocabulary - 1), "prompt");
        }
      }
      return given.tokens;
    }
  };
  std::vector<TokenId> tokens = std::visit(Visitor{model}, prompt);
  const auto unknown =
      std::ranges::find_if(tokens, [&](TokenId id) { return id >= model.info().vocabulary; });
  if (unknown != tokens.end()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the prompt holds '{}' (token {}), which '{}' has no embedding for",
                            model.tokenizer().token_bytes(*unknown), *unknown, model.info().id),
                "leave it out: it stands for something else than text", "prompt");
  }
  if (tokens.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "the prompt is empty", "send at least one token of text",
                "prompt");
  }
  return tokens;
}

// What it has in common with the same system messages in front of another question.
int system_tokens(const LoadedModel& model, const Prompt& prompt, std::span<const TokenId> tokens) {
  const auto* chat = std::get_if<ChatPrompt>(&prompt);
  if (chat == nullptr) return static_cast<int>(tokens.size());
  ChatPrompt other = *chat;
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  for (const auto& message : messages_of(*chat)) {
    const std::string role = message.value("role", "");
    if (role != "system" && role != "developer") break;
    messages.push_back(message);
  }
  messages.push_back({{"role", "user"}, {"content", "\x1f"}});
  other.messages_json = messages.dump();
  const std::vector<TokenId> others = encode(model, other);
  return static_cast<int>(std::ranges::mismatch(tokens, others).in1 - tokens.begin());
}

int answer_limit(const LoadedModel& model, int prompt_tokens, std::optional<int> asked) {
  const int context = model.context_limit(), whole = model.info().context_length;
  const int room = context - prompt_tokens;
  const std::string why = context < whole ? fmt::format(" (of {}: its KV cache holds no more)", whole) : "";
  const std::string more = context < whole ? ", or have the server started with more kv_cache_bytes" : "";
  if (room < 1) {
    throw Error(ErrorCode::kContextOverflow,
                fmt::format("the prompt has {} tokens, the context of '{}' is {}{}", prompt_tokens,
                            model.info().id, context, why),
                "shorten the prompt; it is never truncated for you" + more, "prompt");
  }
  if (asked.value_or(1) > room) {
    throw Error(ErrorCode::kContextOverflow,
                fmt::format("{} prompt tokens + max_tokens {} = {} exceed the context of {} tokens{}",
                            prompt_tokens, *asked, prompt_tokens + *asked, context, why),
                fmt::format("max_tokens can be at most {} here{}", room, more), "max_tokens");
  }
  return asked.value_or(room);
}

}  // namespace mlxs
