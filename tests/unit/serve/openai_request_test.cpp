#include "serve/openai_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mlxs {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using testing::UnorderedElementsAre;

constexpr const char* kMessages = R"("messages":[{"role":"user","content":"hi"}])";

OpenAiRequest chat(const std::string& fields) {
  return parse_chat_request(std::string("{") + kMessages + (fields.empty() ? "" : ",") + fields + "}");
}
OpenAiRequest completion(const std::string& fields) {
  return parse_completion_request(R"({"prompt":"hi")" + (fields.empty() ? std::string() : "," + fields) +
                                  "}");
}

Error error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was thrown";
  return Error(ErrorCode::kInternal, "");
}

TEST(ChatRequest, DefaultsAreOpenAis) {
  const OpenAiRequest request = chat("");
  EXPECT_FLOAT_EQ(request.params.temperature, 1.0f);
  EXPECT_FLOAT_EQ(request.params.top_p, 1.0f);
  EXPECT_FALSE(request.params.max_tokens.has_value());
  EXPECT_FALSE(request.params.seed.has_value());
  EXPECT_EQ(request.params.top_logprobs, -1);
  EXPECT_EQ(request.n, 1);
  EXPECT_FALSE(request.stream);
  EXPECT_TRUE(request.ignored.empty());
}

TEST(ChatRequest, EveryParameterArrives) {
  const OpenAiRequest request = chat(
      R"("model":"m","stream":true,"stream_options":{"include_usage":true},"max_tokens":7,"n":3,"temperature":0.5,
         "top_p":0.9,"top_k":40,"min_p":0.05,"presence_penalty":1,"frequency_penalty":-1.5,"repetition_penalty":1.1,
         "seed":42,"stop":["a","b"],"stop_token_ids":[5],"logit_bias":{"12":-100,"7":3.5},"logprobs":true,
         "top_logprobs":4,"user":"me","ignore_eos":true)");
  const GenerateParams& p = request.params;
  EXPECT_EQ(p.model, "m");
  EXPECT_TRUE(request.stream);
  EXPECT_TRUE(request.include_usage);
  EXPECT_EQ(p.max_tokens, 7);
  EXPECT_EQ(request.n, 3);
  EXPECT_FLOAT_EQ(p.temperature, 0.5f);
  EXPECT_FLOAT_EQ(p.top_p, 0.9f);
  EXPECT_EQ(p.top_k, 40);
  EXPECT_FLOAT_EQ(p.min_p, 0.05f);
  EXPECT_FLOAT_EQ(p.presence_penalty, 1);
  EXPECT_FLOAT_EQ(p.frequency_penalty, -1.5f);
  EXPECT_FLOAT_EQ(p.repetition_penalty, 1.1f);
  EXPECT_EQ(p.seed, 42u);
  EXPECT_THAT(p.stop, ElementsAre("a", "b"));
  EXPECT_THAT(p.stop_token_ids, ElementsAre(5));
  EXPECT_THAT(p.logit_bias, UnorderedElementsAre(Pair(12, -100.0f), Pair(7, 3.5f)));
  EXPECT_EQ(p.top_logprobs, 4);
  EXPECT_EQ(p.user, "me");
  EXPECT_TRUE(p.ignore_eos);
  EXPECT_TRUE(request.ignored.empty());
}

TEST(ChatRequest, ContentIsTextOrParts) {
  const OpenAiRequest request = parse_chat_request(
      R"({"messages":[{"role":"developer","content":"be brief"},{"role":"assistant","content":"ok","refusal":null},
          {"role":"user","content":[{"type":"text","text":"one "},{"type":"text","text":"two"}]}]})");
  const auto& messages = std::get<ChatPrompt>(request.prompts.at(0)).messages;
  ASSERT_EQ(messages.size(), 3u);
  EXPECT_EQ(messages[0].role, "system");
  EXPECT_EQ(messages[1].content, "ok");
  EXPECT_EQ(messages[2].content, "one two");
}

TEST(ChatRequest, NullCountsAsAbsent) {
  const OpenAiRequest request = chat(R"("temperature":null,"stop":null,"tools":null,"max_tokens":null)");
  EXPECT_FLOAT_EQ(request.params.temperature, 1.0f);
  EXPECT_TRUE(request.ignored.empty());
}

TEST(ChatRequest, NewerNameOfMaxTokens) {
  const OpenAiRequest request = chat(R"("max_completion_tokens":9)");
  EXPECT_EQ(request.params.max_tokens, 9);
  EXPECT_EQ(request.max_tokens_field, "max_completion_tokens");
  EXPECT_EQ(chat(R"("max_completion_tokens":9,"max_tokens":9)").params.max_tokens, 9);
  EXPECT_EQ(error_of([] { chat(R"("max_completion_tokens":9,"max_tokens":8)"); }).field(),
            "max_completion_tokens");
}

TEST(ChatRequest, WholeNumbersMayBeWrittenAsFloats) {
  EXPECT_EQ(chat(R"("max_tokens":5.0)").params.max_tokens, 5);
  EXPECT_EQ(chat(R"("seed":-1)").params.seed, ~std::uint64_t{0});
  EXPECT_EQ(chat(R"("seed":18446744073709551615)").params.seed, ~std::uint64_t{0});
}

TEST(ChatRequest, UnknownFieldsAreReportedNotDropped) {
  const OpenAiRequest request = parse_chat_request(
      R"({"messages":[{"role":"user","content":"x","name":"bob"}],"store":true,"stream":true,
          "stream_options":{"shiny":1}})");
  EXPECT_THAT(request.ignored, UnorderedElementsAre("messages[0].name", "store", "stream_options.shiny"));
}

struct Wrong {
  const char* fields;
  const char* field;
};
void PrintTo(const Wrong& wrong, std::ostream* out) { *out << wrong.fields; }

TEST(OpenAiRequest, ANumberOfChoicesIsHeldAgainstWhatIsPossibleHere) {
  const auto with_n = [](const char* n) {
    return parse_completion_request(std::string(R"({"prompt":"hi","n":)") + n + "}", 128);
  };
  EXPECT_EQ(with_n("128").n, 128);
  EXPECT_EQ(with_n("2.0").n, 2);
  for (const char* n : {"0", "-1", "129", "65537", "1e12"}) {
    const Error error = error_of([&] { with_n(n); });
    EXPECT_EQ(error.field(), "n");
    EXPECT_THAT(error.full(), HasSubstr("n must be 1 … 128")) << n;
  }
}

class WrongChat : public testing::TestWithParam<Wrong> {};
TEST_P(WrongChat, IsRefusedWithTheFieldsName) {
  const Error error = error_of([] { chat(GetParam().fields); });
  EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(error.field(), GetParam().field);
  EXPECT_THAT(error.full(), HasSubstr(GetParam().field));
}
INSTANTIATE_TEST_SUITE_P(
    Fields, WrongChat,
    testing::Values(
        Wrong{R"("temperature":"warm")", "temperature"}, Wrong{R"("temperature":2.1)", "temperature"},
        Wrong{R"("temperature":-0.1)", "temperature"}, Wrong{R"("temperature":true)", "temperature"},
        Wrong{R"("max_tokens":0)", "max_tokens"}, Wrong{R"("max_tokens":1.5)", "max_tokens"},
        Wrong{R"("max_tokens":1e99)", "max_tokens"}, Wrong{R"("max_tokens":"5")", "max_tokens"},
        Wrong{R"("n":0)", "n"}, Wrong{R"("n":1e6)", "n"}, Wrong{R"("top_p":1.5)", "top_p"},
        Wrong{R"("top_k":-2)", "top_k"}, Wrong{R"("min_p":[])", "min_p"},
        Wrong{R"("presence_penalty":3)", "presence_penalty"},
        Wrong{R"("frequency_penalty":-3)", "frequency_penalty"},
        Wrong{R"("repetition_penalty":0)", "repetition_penalty"}, Wrong{R"("seed":1.5)", "seed"},
        Wrong{R"("seed":1e30)", "seed"}, Wrong{R"("stop":5)", "stop"}, Wrong{R"("stop":"")", "stop"},
        Wrong{R"("stop":["a",5])", "stop[1]"}, Wrong{R"("logit_bias":[1])", "logit_bias"},
        Wrong{R"("logit_bias":{"x":1})", "logit_bias"}, Wrong{R"("logit_bias":{"-1":1})", "logit_bias"},
        Wrong{R"("logit_bias":{"5":101})", "logit_bias.5"}, Wrong{R"("logprobs":2)", "logprobs"},
        Wrong{R"("top_logprobs":2)", "top_logprobs"},
        Wrong{R"("logprobs":true,"top_logprobs":21)", "top_logprobs"}, Wrong{R"("stream":1)", "stream"},
        Wrong{R"("stream_options":{})", "stream_options"}, Wrong{R"("model":1)", "model"},
        Wrong{R"("user":{})", "user"}, Wrong{R"("tools":[{"type":"function"}])", "tools[0].function"},
        Wrong{R"("tool_choice":"required")", "tool_choice"},
        Wrong{R"("response_format":{"type":"xml"})", "response_format.type"},
        Wrong{R"("response_format":{"type":"json_schema"})", "response_format.json_schema"},
        Wrong{R"("response_format":{"type":"json_schema","json_schema":{"schema":5}})",
              "response_format.json_schema.schema"},
        Wrong{R"("response_format":{"type":"json_object"},"guided_regex":"a")", "response_format"},
        Wrong{R"("structured_outputs":{})", "structured_outputs"},
        Wrong{R"("structured_outputs":{"json_object":false})", "structured_outputs.json_object"},
        Wrong{R"("guided_json":7)", "guided_json"}, Wrong{R"("modalities":["audio"])", "modalities"},
        Wrong{R"("stop_token_ids":[-1])", "stop_token_ids[0]"},
        Wrong{R"("stop_token_ids":[4294967296])", "stop_token_ids[0]"},
        Wrong{R"("ignore_eos":"no")", "ignore_eos"}));

TEST(ChatRequest, PriorityComesFromItsFieldOrTheServiceTier) {
  const auto priority = [](const std::string& fields) {
    return parse_chat_request(R"({"messages":[{"role":"user","content":"x"}])" + fields + "}")
        .params.priority;
  };
  EXPECT_EQ(priority(""), RequestPriority::kNormal);
  EXPECT_EQ(priority(R"(,"priority":"critical")"), RequestPriority::kCritical);
  EXPECT_EQ(priority(R"(,"priority":"low")"), RequestPriority::kLow);
  EXPECT_EQ(priority(R"(,"service_tier":"priority")"), RequestPriority::kHigh);
  EXPECT_EQ(priority(R"(,"service_tier":"flex")"), RequestPriority::kLow);
  EXPECT_EQ(priority(R"(,"service_tier":"auto")"), RequestPriority::kNormal);
  EXPECT_EQ(priority(R"(,"service_tier":"flex","priority":"normal")"), RequestPriority::kNormal);
}

TEST(ChatRequest, ReadsEveryWayToAskForStructure) {
  using Kind = StructuredOutput::Kind;
  const auto read = [](const std::string& fields) {
    return parse_chat_request(R"({"messages":[{"role":"user","content":"x"}],)" + fields + "}");
  };
  const auto expect = [&](const std::string& fields, Kind kind, const std::string& text,
                          const std::string& field) {
    const OpenAiRequest request = read(fields);
    ASSERT_TRUE(request.params.structured) << fields;
    EXPECT_EQ(request.params.structured->kind, kind) << fields;
    EXPECT_EQ(request.params.structured->text, text) << fields;
    EXPECT_EQ(request.structured_field, field);
  };
  expect(R"("response_format":{"type":"json_object"})", Kind::kJsonObject, "", "response_format");
  expect(R"("response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"null"}}})",
         Kind::kJsonSchema, R"({"type":"null"})", "response_format");
  expect(R"("guided_json":{"type":"object","properties":{"z":{},"a":{}}})", Kind::kJsonSchema,
         R"({"type":"object","properties":{"z":{},"a":{}}})", "guided_json");  // in the order given
  expect(R"("structured_outputs":{"regex":"a+"})", Kind::kRegex, "a+", "structured_outputs");
  expect(R"("structured_outputs":{"choice":["a","b"],"json":null})", Kind::kChoice, R"(["a","b"])",
         "structured_outputs");
  expect(R"("structured_outputs":{"json_object":true})", Kind::kJsonObject, "", "structured_outputs");
  expect(R"("guided_json":"{}")", Kind::kJsonSchema, "{}", "guided_json");
  expect(R"("guided_grammar":"start: \"a\"")", Kind::kGrammar, "start: \"a\"", "guided_grammar");
  EXPECT_FALSE(read(R"("response_format":{"type":"text"})").params.structured);
}

class WrongMessages : public testing::TestWithParam<Wrong> {};
TEST_P(WrongMessages, AreRefusedWithTheirPath) {
  const Error error =
      error_of([] { parse_chat_request(std::string(R"({"messages":)") + GetParam().fields + "}"); });
  EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(error.field(), GetParam().field);
}
INSTANTIATE_TEST_SUITE_P(
    Paths, WrongMessages,
    testing::Values(
        Wrong{"[]", "messages"}, Wrong{"null", "messages"}, Wrong{R"("hi")", "messages"},
        Wrong{R"(["hi"])", "messages[0]"}, Wrong{R"([{"content":"x"}])", "messages[0].role"},
        Wrong{R"([{"role":"function","content":"x"}])", "messages[0].role"},
        Wrong{R"([{"role":"user"}])", "messages[0].content"},
        Wrong{R"([{"role":"user","content":"a"},{"role":"user","content":7}])", "messages[1].content"},
        Wrong{R"([{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}])",
              "messages[0].content[0].type"},
        Wrong{R"([{"role":"user","content":[{"type":"text","text":1}]}])", "messages[0].content[0].text"},
        Wrong{R"([{"role":"user","content":["x"]}])", "messages[0].content[0]"},
        Wrong{R"([{"role":"assistant","content":null,"tool_calls":[{}]}])",
              "messages[0].tool_calls[0].function"}));

TEST(CompletionRequest, DefaultsAreOpenAis) {
  const OpenAiRequest request = completion("");
  EXPECT_EQ(request.params.max_tokens, 16);
  EXPECT_FLOAT_EQ(request.params.temperature, 1.0f);
}

TEST(CompletionRequest, PromptsOfEveryKind) {
  const auto prompts = [](const std::string& value) {
    return parse_completion_request(R"({"prompt":)" + value + "}").prompts;
  };
  EXPECT_EQ(std::get<std::string>(prompts(R"("x")").at(0)), "x");
  EXPECT_EQ(std::get<std::string>(prompts(R"(["x","y"])").at(1)), "y");
  EXPECT_THAT(std::get<TokenPrompt>(prompts("[1,2]").at(0)).tokens, ElementsAre(1, 2));
  EXPECT_EQ(prompts("[[1],[2,3]]").size(), 2u);
  EXPECT_THAT(std::get<TokenPrompt>(prompts("[[1],[2,3]]").at(1)).tokens, ElementsAre(2, 3));
}

TEST(CompletionRequest, LogprobsIsACount) {
  EXPECT_EQ(completion(R"("logprobs":0)").params.top_logprobs, 0);
  EXPECT_EQ(completion(R"("logprobs":3)").params.top_logprobs, 3);
  EXPECT_EQ(completion("").params.top_logprobs, -1);
  EXPECT_TRUE(completion(R"("best_of":2,"n":2,"echo":false,"suffix":"")").ignored.empty());
}

class WrongCompletion : public testing::TestWithParam<Wrong> {};
TEST_P(WrongCompletion, IsRefusedWithTheFieldsName) {
  const Error error = error_of([] { parse_completion_request(GetParam().fields); });
  EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(error.field(), GetParam().field);
}
INSTANTIATE_TEST_SUITE_P(
    Fields, WrongCompletion,
    testing::Values(Wrong{"{}", "prompt"}, Wrong{R"({"prompt":5})", "prompt"},
                    Wrong{R"({"prompt":[]})", "prompt"}, Wrong{R"({"prompt":["a",1]})", "prompt[1]"},
                    Wrong{R"({"prompt":[1,"a"]})", "prompt[1]"}, Wrong{R"({"prompt":[1,-1]})", "prompt[1]"},
                    Wrong{R"({"prompt":[1,1.5]})", "prompt[1]"}, Wrong{R"({"prompt":[[1],2]})", "prompt[1]"},
                    Wrong{R"({"prompt":[[1],["a"]]})", "prompt[1][0]"},
                    Wrong{R"({"prompt":"x","echo":1})", "echo"},
                    Wrong{R"({"prompt":"x","echo":true,"logprobs":1})", "echo"},
                    Wrong{R"({"prompt":"x","best_of":3})", "best_of"},
                    Wrong{R"({"prompt":"x","suffix":"y"})", "suffix"},
                    Wrong{R"({"prompt":"x","logprobs":true})", "logprobs"},
                    Wrong{R"({"prompt":"x","logprobs":21})", "logprobs"}));

}  // namespace
}  // namespace mlxs
