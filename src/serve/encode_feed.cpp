#include "serve/encode_feed.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace mlxs {
namespace {

class EncodeFeed final : public Feed {
 public:
  EncodeFeed(Admission::Ticket ticket, std::unique_ptr<Encoding> encoding, RenderEncoding render)
      : ticket_(std::move(ticket)), encoding_(std::move(encoding)), render_(std::move(render)) {}

  bool take(std::string& out) override {
    const std::optional<EncodeResult> result = encoding_->try_take();
    if (!result) return false;
    out += render_(*result);
    return true;
  }
  void notify_when_ready(const std::function<void()>& wake) override { encoding_->notify_when_ready(wake); }
  void fail(const Error& /*error*/, std::string& /*out*/) override {}  // a document has not begun

 private:
  Admission::Ticket ticket_;
  std::unique_ptr<Encoding> encoding_;
  RenderEncoding render_;
};

}  // namespace

EncodeReply encode_reply(EncodeParams params, std::string_view inputs_field, RenderEncoding render,
                         ErrorBody error_body, std::vector<std::string> ignored) {
  for (std::string& name : ignored) name += " is not known and was ignored";
  return {.params = std::move(params),
          .inputs_field = std::string(inputs_field),
          .render = std::move(render),
          .error_body = error_body,
          .warnings = std::move(ignored)};
}

FeedReply start_encoding(Engine& engine, Admission& admission, EncodeReply reply) {
  Admission::Ticket ticket = admission.enter(1);
  try {
    return {.feed = std::make_unique<EncodeFeed>(std::move(ticket), engine.create_encoding(reply.params),
                                                 std::move(reply.render)),
            .stream_type = {},
            .error_body = reply.error_body,
            .warnings = std::move(reply.warnings)};
  } catch (const Error& error) {
    if (error.field() != "input") throw;
    Error renamed(error.code(), error.what(), error.hint(), reply.inputs_field);
    renamed.set_retry_after_s(error.retry_after_s());
    throw renamed;
  }
}

std::string chosen_encoder(const Engine& engine, const std::string& asked) {
  if (!asked.empty()) return asked;
  std::vector<ModelInfo> models = engine.list_models();
  std::erase_if(models, [](const ModelInfo& model) { return !model.is_encoder; });
  if (models.size() == 1) return models.front().id;
  if (models.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "no model that makes embeddings or scores is loaded",
                "serve an encoder beside the others, such as minilm", "model");
  }
  throw Error(ErrorCode::kInvalidArgument, "model is missing",
              fmt::format("{} encoders are loaded: name one of GET /v1/models", models.size()), "model");
}

void append_vector(std::string& out, std::span<const float> vector) {
  out += '[';
  for (std::size_t i = 0; i < vector.size(); ++i)
    fmt::format_to(std::back_inserter(out), "{}{}", i == 0 ? "" : ",", vector[i]);
  out += ']';
}

}  // namespace mlxs
