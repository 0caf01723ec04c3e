#include <fmt/format.h>

#include <utility>

#include "serve/ids.h"
#include "serve/responses_request.h"

namespace mlxs {
namespace {

// Missing, or null, is an empty Json.
OrderedJson member(const OrderedJson& item, const char* name) { return item.value(name, OrderedJson()); }

bool is_text_part(std::string_view type) {
  return type == "input_text" || type == "output_text" || type == "text" || type == "summary_text" ||
         type == "reasoning_text";
}

// A string, or parts of which every one is text. Parts follow each other as they are.
std::string content_text(const std::string& path, const OrderedJson& content) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) {
    refuse_field(path, fmt::format("{} is missing or has the wrong type", path),
                 fmt::format("{} must be a string or an array of text parts", path));
  }
  std::string text;
  for (std::size_t i = 0; i < content.size(); ++i) {
    const std::string at = fmt::format("{}[{}]", path, i);
    check_value({.name = {}, .type = FieldType::kObject}, at, content[i]);
    const std::string type = as_string(at + ".type", member(content[i], "type"));
    const bool refusal = type == "refusal";
    if (!refusal && !is_text_part(type)) {
      refuse_field(at + ".type", fmt::format("{}.type = '{}' is not supported", at, type),
                   "the model reads text: send parts of type 'input_text'");
    }
    text +=
        as_string(at + (refusal ? ".refusal" : ".text"), member(content[i], refusal ? "refusal" : "text"));
  }
  return text;
}

class InputReader {
 public:
  explicit InputReader(ResponsesRequest& request) : request_(request) {}

  void read(std::size_t index, const OrderedJson& item) {
    const std::string path = fmt::format("input[{}]", index);
    check_value({.name = {}, .type = FieldType::kObject}, path, item);
    const OrderedJson given = member(item, "type");
    const std::string type = given.is_null() ? "message" : as_string(path + ".type", given);
    if (type == "message") {
      message(path, item);
    } else if (type == "function_call") {
      call(path, item);
    } else if (type == "function_call_output") {
      result(path, item);
    } else if (type == "reasoning") {
      if (const OrderedJson content = member(item, "content"); !content.is_null())
        reasoning_ = content_text(path + ".content", content);
    } else {
      refuse_field(path + ".type", fmt::format("{}.type = '{}' is not supported", path, type),
                   "use message, function_call, function_call_output or reasoning");
    }
    request_.input_items.push_back(item);
    auto& stored = request_.input_items.back();
    stored["type"] = type;
    if (!stored.contains("id")) stored["id"] = random_id(type == "message" ? "msg_" : "item_");
  }

 private:
  // Of one assistant's turn are its thinking, its text and its calls; templates want them in one message.
  OrderedJson& assistant() {
    OrderedJson& messages = request_.messages;
    if (messages.empty() || messages.back()["role"] != "assistant")
      messages.push_back({{"role", "assistant"}, {"content", ""}});
    if (!reasoning_.empty()) messages.back()["reasoning_content"] = std::exchange(reasoning_, {});
    return messages.back();
  }

  void message(const std::string& path, const OrderedJson& item) {
    std::string role = as_string(path + ".role", member(item, "role"));
    if (role == "developer") role = "system";
    if (role != "system" && role != "user" && role != "assistant") {
      refuse_field(path + ".role", fmt::format("{}.role = '{}' is not supported", path, role),
                   "use system, developer, user or assistant");
    }
    std::string text = content_text(path + ".content", member(item, "content"));
    if (role == "assistant" && !reasoning_.empty()) {
      assistant()["content"] = std::move(text);
    } else {
      request_.messages.push_back({{"role", role}, {"content", std::move(text)}});
    }
  }

  void call(const std::string& path, const OrderedJson& item) {
    const Json chat_call{
        {"id", member(item, "call_id")},
        {"function", {{"name", member(item, "name")}, {"arguments", member(item, "arguments")}}}};
    assistant()["tool_calls"].push_back(template_tool_calls(path, Json::array({chat_call}))[0]);
  }

  void result(const std::string& path, const OrderedJson& item) {
    request_.messages.push_back({{"role", "tool"},
                                 {"tool_call_id", as_string(path + ".call_id", member(item, "call_id"))},
                                 {"content", content_text(path + ".output", member(item, "output"))}});
  }

  ResponsesRequest& request_;
  std::string reasoning_;  // waits for the answer that it led to
};

}  // namespace

void read_responses_input(ResponsesRequest& request, const OrderedJson& input) {
  InputReader reader(request);
  if (input.is_string()) {
    const OrderedJson part{{"type", "input_text"}, {"text", input}};
    reader.read(0, {{"type", "message"}, {"role", "user"}, {"content", OrderedJson::array({part})}});
    return;
  }
  if (!input.is_array() || input.empty()) {
    refuse_field("input", "input is missing, empty or has the wrong type",
                 "input must be a string or an array of items");
  }
  for (std::size_t i = 0; i < input.size(); ++i) reader.read(i, input[i]);
}

}  // namespace mlxs
