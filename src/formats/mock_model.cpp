#include "formats/mock_model.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <string>
#include <utility>
#include <vector>

#include "mlxs/error.h"

namespace mlxs {
namespace {

constexpr std::string_view kName = "mock";
constexpr std::int64_t kPromptRoom = 32768;  // tokens of the context beside the answer

constexpr std::array<std::string_view, kMockWords> kWords{
    " The",  " quick", " brown", " fox",   " jumps", " over",   " the",   " lazy",
    " dog,", " then",  " rests", " under", " an",    " \u00f6", " old\n", " oak."};

constexpr std::string_view kTemplate =
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

[[noreturn]] void refuse(std::string_view name, const std::string& what) {
  throw Error(
      ErrorCode::kInvalidArgument, fmt::format("model '{}': {}", name, what),
      "write mock:tokens=512,delay=0,memory=0,fail=0 (delay: milliseconds of each step; memory: tokens of a "
      "step that there is memory for, 0: any; fail: every so many steps one fails, 0: none); each may be "
      "left "
      "out",
      "model");
}

template <class Number>
Number number_of(std::string_view name, std::string_view key, std::string_view value, Number least,
                 Number most) {
  Number number{};
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  const bool whole = error == std::errc() && end == value.data() + value.size();
  if (!whole || !(number >= least && number <= most)) {
    refuse(name, fmt::format("{} = '{}' is not a number from {} to {}", key, value, least, most));
  }
  return number;
}

void append_utf8(std::string& out, unsigned code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else {
    out += static_cast<char>(0xC0 | (code >> 6));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

// Bytes as byte-level BPE spells them in a vocabulary: those that are not printable are moved above 255.
std::string spelled(std::string_view bytes) {
  const auto printable = [](unsigned b) {
    return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
  };
  std::string out;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    unsigned code = byte;
    if (!printable(byte)) {
      code = 256;
      for (unsigned b = 0; b < byte; ++b) code += printable(b) ? 0 : 1;
    }
    append_utf8(out, code);
  }
  return out;
}

}  // namespace

bool names_mock(std::string_view name) {
  return name == kName || (name.starts_with(kName) && name.substr(kName.size()).starts_with(':'));
}

MockSpec parse_mock(std::string_view name) {
  MockSpec spec;
  std::string_view rest = name.substr(std::min(kName.size() + 1, name.size()));
  while (!rest.empty()) {
    const std::string_view item = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(item.size() + 1, rest.size()));
    const std::size_t equals = item.find('=');
    const std::string_view key = item.substr(0, equals);
    const std::string_view value = equals == std::string_view::npos ? "" : item.substr(equals + 1);
    if (key == "tokens") {
      spec.tokens = number_of<std::int32_t>(name, key, value, 1, 1'000'000);
    } else if (key == "delay") {
      spec.delay_ms = number_of<double>(name, key, value, 0, 600'000);
    } else if (key == "memory") {
      spec.memory = number_of<std::int32_t>(name, key, value, 0, 1'000'000);
    } else if (key == "fail") {
      spec.fail = number_of<std::int32_t>(name, key, value, 0, 1'000'000);
    } else {
      refuse(name, fmt::format("'{}' is not an option", key));
    }
  }
  return spec;
}

void describe_mock(const MockSpec& spec, ModelContent& content) {
  std::vector<std::string_view> tokens{"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  std::vector<std::int64_t> types(tokens.size(), 3);  // control
  for (int byte = 0; byte < 256; ++byte) {
    const char one = static_cast<char>(byte);
    tokens.push_back(content.keep(spelled({&one, 1})));
  }
  for (const std::string_view word : kWords) tokens.push_back(content.keep(spelled(word)));
  types.resize(tokens.size(), 1);  // normal

  content.set("general.architecture", kName);
  content.set("mock.context_length", kPromptRoom + spec.tokens);
  content.set("mock.block_count", std::int64_t{1});
  content.set("mock.embedding_length", std::int64_t{1});
  content.set("mock.attention.head_count", std::int64_t{1});
  content.set("tokenizer.ggml.model", std::string_view("gpt2"));
  content.set("tokenizer.ggml.pre", std::string_view("gpt-2"));
  content.set("tokenizer.ggml.tokens", std::move(tokens));
  content.set("tokenizer.ggml.token_type", std::move(types));
  content.set("tokenizer.ggml.bos_token_id", std::int64_t{1});
  content.set("tokenizer.ggml.eos_token_id", std::int64_t{kMockEnd});
  content.set("tokenizer.ggml.add_bos_token", false);
  content.set("tokenizer.chat_template", kTemplate);
}

}  // namespace mlxs
