#include "cli/load_client.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string_view>

#include "cli/base_url.h"
#include "mlxs/error.h"

namespace mlxs::cli {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;
using Milliseconds = std::chrono::duration<double, std::milli>;
using nlohmann::json;

constexpr std::size_t kMaxBody = std::size_t{1} << 20;  // of an error's body, or of one event
constexpr std::array kWords{"river", "stone", "light", "table", "green", "house", "water", "music",
                            "paper", "cloud", "north", "bread", "field", "glass", "horse", "night"};

struct CloseEasy {
  void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
};
struct CloseMulti {
  void operator()(CURLM* handle) const { curl_multi_cleanup(handle); }
};
struct FreeList {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using Easy = std::unique_ptr<CURL, CloseEasy>;

// One request in flight and what came back so far.
struct Transfer {
  Easy handle{curl_easy_init()};
  std::unique_ptr<curl_slist, FreeList> headers;
  std::string body;  // sent
  std::string line;  // of the answer, not ended yet
  std::string error_body;
  SteadyTime sent{}, last{};
  int number = 0;
  int pieces = 0;  // of text
  bool first = true;
  std::string failure;  // an error event within the stream
  json usage;
  std::vector<double> itl_ms;
  double ttft_ms = 0;

  void event(std::string_view data) {
    if (data == "[DONE]") return;
    const json parsed = json::parse(data, nullptr, false);
    if (parsed.is_discarded() || !parsed.is_object()) {
      failure = "an event is not JSON";
      return;
    }
    if (parsed.contains("error")) failure = "error event: " + parsed["error"].dump().substr(0, 200);
    if (parsed.contains("usage") && parsed["usage"].is_object()) usage = parsed["usage"];
    const json& choices = parsed.value("choices", json::array());
    if (!choices.is_array() || choices.empty()) return;
    const json delta = choices[0].value("delta", json::object());
    const auto has_text = [&delta](const char* field) {
      const auto found = delta.find(field);
      return found != delta.end() && found->is_string() && !found->get_ref<const std::string&>().empty();
    };
    if (!has_text("content") && !has_text("reasoning_content")) return;
    ++pieces;
    const SteadyTime now = std::chrono::steady_clock::now();
    const double gap = Milliseconds(now - last).count();
    if (first) {
      ttft_ms = gap;
    } else {
      itl_ms.push_back(gap);
    }
    first = false;
    last = now;
  }

  void receive(std::string_view bytes) {
    for (const char c : bytes) {
      if (c == '\n') {
        std::string_view text = line;
        if (text.ends_with('\r')) text.remove_suffix(1);
        if (text.starts_with("data: ")) event(text.substr(6));
        line.clear();
      } else if (line.size() < kMaxBody) {
        line += c;
      }
    }
  }
};

std::size_t on_data(char* data, std::size_t size, std::size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  long status = 0;
  curl_easy_getinfo(transfer.handle.get(), CURLINFO_RESPONSE_CODE, &status);
  const std::string_view bytes(data, size * count);
  if (status == 200) {
    transfer.receive(bytes);
  } else if (transfer.error_body.size() < kMaxBody) {
    transfer.error_body += bytes;
  }
  return size * count;
}

std::size_t append_text(char* data, std::size_t size, std::size_t count, void* user) {
  auto& text = *static_cast<std::string*>(user);
  if (text.size() > kMaxBody) return 0;
  text.append(data, size * count);
  return size * count;
}

curl_slist* header_list(const ServeLoad& load) {
  curl_slist* list = curl_slist_append(nullptr, "Content-Type: application/json");
  if (!load.key.empty()) list = curl_slist_append(list, ("Authorization: Bearer " + load.key).c_str());
  return list;
}

std::string error_text(const std::string& body) {
  const json parsed = json::parse(body, nullptr, false);
  const json error = parsed.is_object() ? parsed.value("error", json()) : json();
  const json text = error.is_object() ? error.value("message", json()) : error;
  return text.is_string() ? ": " + text.get<std::string>().substr(0, 200) : "";
}

class LoadRun {
 public:
  explicit LoadRun(const ServeLoad& load) : load_(load), random_(load.seed), multi_(curl_multi_init()) {
    prefix_ = words(load.prefix_words);
    curl_multi_setopt(multi_.get(), CURLMOPT_MAX_TOTAL_CONNECTIONS, 0L);
  }

  ServeFigures run() {
    const SteadyTime started = std::chrono::steady_clock::now();
    SteadyTime due = started;
    while (sent_ < load_.requests || !active_.empty()) {
      const SteadyTime now = std::chrono::steady_clock::now();
      while (sent_ < load_.requests && may_send(now, due)) send(now);
      int running = 0;
      curl_multi_perform(multi_.get(), &running);
      collect();
      int wait_ms = 100;
      if (load_.rate > 0 && sent_ < load_.requests) {
        wait_ms = std::clamp(static_cast<int>(std::ceil(Milliseconds(due - now).count())), 0, 100);
      }
      curl_multi_poll(multi_.get(), nullptr, 0, wait_ms, nullptr);
    }
    figures_.seconds = Milliseconds(std::chrono::steady_clock::now() - started).count() / 1e3;
    return std::move(figures_);
  }

 private:
  std::string words(int count) {
    std::string text;
    for (int i = 0; i < count; ++i) {
      if (i > 0) text += ' ';
      text += kWords[random_() % kWords.size()];
    }
    return text;
  }

  bool may_send(SteadyTime now, SteadyTime& due) {
    if (load_.rate <= 0) return active_.size() < static_cast<std::size_t>(load_.clients);
    if (now < due) return false;
    std::exponential_distribution<double> gap(load_.rate);
    due += std::chrono::duration_cast<SteadyTime::duration>(std::chrono::duration<double>(gap(random_)));
    return true;
  }

  void send(SteadyTime now) {
    auto transfer = std::make_unique<Transfer>();
    const bool is_long = std::uniform_real_distribution<double>()(random_) < load_.long_share;
    json messages = json::array();
    if (!prefix_.empty()) messages.push_back({{"role", "system"}, {"content", prefix_}});
    const auto number = static_cast<std::size_t>(sent_);
    messages.push_back(
        {{"role", "user"},
         {"content", load_.questions.empty() ? words(is_long ? load_.long_words : load_.prompt_words)
                                             : load_.questions[number % load_.questions.size()]}});
    transfer->body = json{{"model", load_.model},
                          {"messages", std::move(messages)},
                          {"max_tokens", load_.max_tokens},
                          {"temperature", load_.temperature},
                          {"stream", true},
                          {"stream_options", {{"include_usage", true}}}}
                         .dump();
    transfer->headers.reset(header_list(load_));
    transfer->sent = transfer->last = now;
    transfer->number = sent_;
    CURL* handle = transfer->handle.get();
    curl_easy_setopt(handle, CURLOPT_URL, (load_.url + "/v1/chat/completions").c_str());
    curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(handle, CURLOPT_HTTPHEADER, transfer->headers.get());
    curl_easy_setopt(handle, CURLOPT_POSTFIELDS, transfer->body.data());
    curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(transfer->body.size()));
    curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(handle, CURLOPT_WRITEDATA, transfer.get());
    curl_easy_setopt(handle, CURLOPT_PRIVATE, transfer.get());
    curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, static_cast<long>(1e3 * load_.timeout_s));
    curl_multi_add_handle(multi_.get(), handle);
    active_.emplace(transfer.get(), std::move(transfer));
    ++sent_;
  }

  void collect() {
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi_.get(), &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      const CURLcode code = message->data.result;
      CURL* handle = message->easy_handle;
      Transfer* transfer = nullptr;
      curl_easy_getinfo(handle, CURLINFO_PRIVATE, &transfer);
      long status = 0;
      curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
      curl_multi_remove_handle(multi_.get(), handle);
      std::string failure = transfer->failure;
      if (code != CURLE_OK) {
        failure = curl_easy_strerror(code);
      } else if (status != 200) {
        failure = fmt::format("HTTP {}{}", status, error_text(transfer->error_body));
      } else if (failure.empty() && !transfer->usage.is_object() && transfer->pieces == 0) {
        failure = "the stream ended without text or usage";
      }
      add(*transfer, failure);
      active_.erase(transfer);
    }
  }

  void add(const Transfer& transfer, const std::string& failure) {
    RequestFigures one{.number = transfer.number, .failure = failure, .ttft_ms = transfer.ttft_ms};
    one.e2e_ms = Milliseconds(std::chrono::steady_clock::now() - transfer.sent).count();
    ++figures_.requests;
    if (failure.empty()) {
      count(transfer, one);
    } else {
      ++figures_.failed;
      ++figures_.failures[failure];
    }
    if (load_.on_request) load_.on_request(one);
  }

  void count(const Transfer& transfer, RequestFigures& one) {
    if (transfer.first) {
      ++figures_.without_text;
    } else {
      figures_.ttft_ms.push_back(transfer.ttft_ms);
    }
    figures_.e2e_ms.push_back(one.e2e_ms);
    figures_.itl_ms.insert(figures_.itl_ms.end(), transfer.itl_ms.begin(), transfer.itl_ms.end());
    if (!transfer.usage.is_object()) {
      ++figures_.without_usage;
      one.generated_tokens = transfer.pieces;
    } else {
      one.prompt_tokens = transfer.usage.value("prompt_tokens", 0);
      one.generated_tokens = transfer.usage.value("completion_tokens", 0);
      const json details = transfer.usage.value("prompt_tokens_details", json::object());
      if (details.is_object()) figures_.cached_tokens += details.value("cached_tokens", 0);
    }
    figures_.prompt_tokens += one.prompt_tokens;
    figures_.generated_tokens += one.generated_tokens;
  }

  const ServeLoad& load_;
  std::mt19937_64 random_;
  std::unique_ptr<CURLM, CloseMulti> multi_;
  std::string prefix_;
  std::map<Transfer*, std::unique_ptr<Transfer>> active_;
  int sent_ = 0;
  ServeFigures figures_;
};

}  // namespace

std::vector<std::string> served_models(const ServeLoad& load) {
  const Easy handle(curl_easy_init());
  const std::unique_ptr<curl_slist, FreeList> headers(header_list(load));
  const std::string url = load.url + "/v1/models";
  std::string body;
  curl_easy_setopt(handle.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(handle.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle.get(), CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(handle.get(), CURLOPT_WRITEFUNCTION, append_text);
  curl_easy_setopt(handle.get(), CURLOPT_WRITEDATA, &body);
  curl_easy_setopt(handle.get(), CURLOPT_TIMEOUT, 30L);
  curl_easy_setopt(handle.get(), CURLOPT_NOSIGNAL, 1L);
  const CURLcode code = curl_easy_perform(handle.get());
  if (code != CURLE_OK) {
    throw Error(code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL
                    ? ErrorCode::kInvalidArgument
                    : ErrorCode::kUnavailable,
                fmt::format("{}: {}", url, curl_easy_strerror(code)),
                "start a server (mlx-serving serve), or name one with --url", "--url");
  }
  long status = 0;
  curl_easy_getinfo(handle.get(), CURLINFO_RESPONSE_CODE, &status);
  if (status == 401 || status == 403) {
    throw Error(
        ErrorCode::kUnauthorized, fmt::format("{}: HTTP {}{}", url, status, error_text(body)),
        load.key.empty() ? "give its key with --api-key or OPENAI_API_KEY" : "the key is not one of its keys",
        "--api-key");
  }
  std::vector<std::string> names, others;  // others generate no text, and say so
  const json answer = json::parse(body, nullptr, false);
  if (answer.is_object() && answer.contains("data") && answer["data"].is_array()) {
    for (const json& model : answer["data"]) {
      if (!model.is_object() || !model.contains("id") || !model["id"].is_string()) continue;
      (model.value("task", json()) == "embed" || model.value("task", json()) == "score" ? others : names)
          .push_back(model["id"]);
    }
  }
  std::ranges::move(others, std::back_inserter(names));
  if (names.empty()) {
    throw Error(ErrorCode::kUnavailable, fmt::format("{} lists no model (HTTP {})", url, status),
                "name one with --model", "--model");
  }
  return names;
}

ServeFigures run_serve_load(const ServeLoad& load) {
  ServeLoad complete = load;
  complete.url = base_url(complete.url);
  const std::vector<std::string> found = served_models(complete);  // also: is anybody there?
  if (complete.model.empty()) complete.model = found.front();
  return LoadRun(complete).run();
}

}  // namespace mlxs::cli
