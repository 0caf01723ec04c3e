#include "serve/ollama_pull.h"

#include <fmt/format.h>

#include <memory>
#include <string>
#include <utility>

#include "serve/fields.h"
#include "serve/json_text.h"
#include "serve/ollama_format.h"

namespace mlxs {
namespace {

struct PullRequest {
  std::string model;
  bool stream = true;
};

constexpr Field<PullRequest> kFields[] = {
    {field::text("model", "An alias, or org/repo[:quantization]"),
     [](PullRequest& r, const Json& v) { r.model = v.get<std::string>(); }},
    {field::text("name", "The older name of model"),
     [](PullRequest& r, const Json& v) { r.model = v.get<std::string>(); }},
    {field::flag("stream", "JSON lines with the progress; true unless given"),
     [](PullRequest& r, const Json& v) { r.stream = v.get<bool>(); }},
    {field::any("insecure", "Not supported", R"({"anyOf": [{"const": false}]})"),
     [](PullRequest&, const Json& v) {
       check_value({.name = {}, .type = FieldType::kBoolean}, "insecure", v);
       if (v.get<bool>())
         refuse_field("insecure", "insecure = true is not supported",
                      "set HF_ENDPOINT of the server instead");
     }},
};

class PullFeed final : public Feed {
 public:
  PullFeed(std::string model, bool stream, std::unique_ptr<Downloads::Watch> watch)
      : model_(std::move(model)), stream_(stream), watch_(std::move(watch)) {}

  bool take(std::string& out) override {
    if (!std::exchange(begun_, true)) line(out, "pulling manifest");
    const Downloads::News news = watch_->take();
    if (news.progress) tell(out, *news.progress);
    if (!news.done) return false;
    if (news.error) throw *news.error;  // NOLINT: the waiting client's failure, told as its own
    if (stream_) {
      line(out, "success");
    } else {
      out = R"({"status":"success"})";
    }
    return true;
  }

  void notify_when_ready(const std::function<void()>& wake) override { watch_->notify_when_ready(wake); }

  void fail(const Error& error, std::string& out) override { out += ollama_error_json(error) + "\n"; }

 private:
  void line(std::string& out, std::string_view status) {
    if (stream_) out += fmt::format(R"({{"status":{}}})", json_string(status)) + "\n";
  }

  void tell(std::string& out, const PullProgress& progress) {
    if (!stream_) return;
    if (progress.stage != "downloading") {
      if (std::exchange(stage_, progress.stage) != progress.stage) line(out, progress.stage + " " + model_);
      return;
    }
    stage_ = progress.stage;
    // Several files may be on their way; their sum is one layer, named by the model.
    out += fmt::format(R"({{"status":{},"digest":{},"total":{},"completed":{}}})",
                       json_string("pulling " + model_), json_string(model_), progress.total_bytes,
                       progress.done_bytes) +
           "\n";
  }

  std::string model_;
  bool stream_;
  std::unique_ptr<Downloads::Watch> watch_;
  bool begun_ = false;
  std::string stage_;
};

}  // namespace

Json pull_request_schema() { return fields_schema<PullRequest>(kFields); }

FeedReply pull_model(Downloads& downloads, const Catalog& catalog, std::string_view body) {
  PullRequest request;
  for (const std::string& name : read_fields<PullRequest>(parse_body(body), kFields, request)) {
    refuse_field(name, fmt::format("{} is not supported", name), "leave it out");
  }
  constexpr std::string_view kLatest = ":latest";
  if (request.model.ends_with(kLatest)) request.model.resize(request.model.size() - kLatest.size());
  if (request.model.empty()) refuse_field("model", "model is missing or empty", "model is required");
  if (!catalog.can_pull(request.model)) {
    throw Error(ErrorCode::kModelNotFound, fmt::format("model '{}' cannot be pulled", request.model),
                fmt::format("use {} or org/repo[:quantization]", fmt::join(catalog.aliases(), ", ")),
                "model");
  }
  auto watch = downloads.watch(request.model);
  return {.feed = std::make_unique<PullFeed>(request.model, request.stream, std::move(watch)),
          .stream_type = request.stream ? kJsonLines : std::string_view(),
          .error_body = ollama_error_json};
}

}  // namespace mlxs
