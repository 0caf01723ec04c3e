#include "telemetry/otlp_post.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

namespace mlxs {
namespace {

constexpr std::size_t kKeptAnswer = 16 << 10;

std::size_t on_data(char* data, std::size_t, std::size_t size, void* user) {
  auto& text = *static_cast<std::string*>(user);
  text.append(data, std::min(size, kKeptAnswer - std::min(kKeptAnswer, text.size())));
  return size;
}

int on_progress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  const auto* give_up = static_cast<const std::atomic<bool>*>(user);
  return give_up != nullptr && give_up->load(std::memory_order_relaxed) ? 1 : 0;
}

// What a receiver that took only some of it says.
std::string partial_success(const std::string& body) {
  const auto answer = nlohmann::json::parse(body, nullptr, false);
  if (!answer.is_object() || !answer.contains("partialSuccess")) return {};
  const auto& partial = answer["partialSuccess"];
  if (!partial.is_object()) return {};
  for (const char* name : {"rejectedSpans", "rejectedDataPoints"}) {
    if (!partial.contains(name)) continue;
    const std::string count =
        partial[name].is_string() ? partial[name].get<std::string>() : partial[name].dump();
    if (count != "0")
      return fmt::format("{} of them: {}", count, partial.value("errorMessage", "no reason given"));
  }
  return {};
}

}  // namespace

OtlpAnswer post_otlp(const OtlpPost& post) {
  static const CURLcode kStarted = curl_global_init(CURL_GLOBAL_DEFAULT);
  const std::unique_ptr<CURL, void (*)(CURL*)> curl(kStarted == CURLE_OK ? curl_easy_init() : nullptr,
                                                    &curl_easy_cleanup);
  OtlpAnswer answer;
  if (!curl) {
    answer.failure = "libcurl could not be started";
    return answer;
  }
  curl_slist* list = curl_slist_append(nullptr, "Content-Type: application/json");
  list = curl_slist_append(list, "Expect:");  // no round trip before the body
  if (post.gzip) list = curl_slist_append(list, "Content-Encoding: gzip");
  for (const auto& [name, value] : post.headers)
    list = curl_slist_append(list, (name + ": " + value).c_str());
  const std::unique_ptr<curl_slist, void (*)(curl_slist*)> headers(list, &curl_slist_free_all);

  std::string text;
  char reason[CURL_ERROR_SIZE] = "";
  CURL* c = curl.get();
  curl_easy_setopt(c, CURLOPT_URL, post.url.c_str());
  curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(c, CURLOPT_USERAGENT, "mlx-serving");
  curl_easy_setopt(c, CURLOPT_POSTFIELDS, post.body.data());
  curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(post.body.size()));
  curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, static_cast<long>(post.timeout_ms));
  curl_easy_setopt(c, CURLOPT_ERRORBUFFER, reason);
  curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, &on_data);
  curl_easy_setopt(c, CURLOPT_WRITEDATA, &text);
  curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, &on_progress);
  curl_easy_setopt(c, CURLOPT_XFERINFODATA, const_cast<std::atomic<bool>*>(post.give_up));
  if (!post.certificate_file.empty()) curl_easy_setopt(c, CURLOPT_CAINFO, post.certificate_file.c_str());

  const CURLcode code = curl_easy_perform(c);
  if (code != CURLE_OK) {
    answer.failure = *reason != '\0' ? reason : curl_easy_strerror(code);
    return answer;
  }
  long status = 0;
  curl_off_t retry_after = 0;
  curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
  curl_easy_getinfo(c, CURLINFO_RETRY_AFTER, &retry_after);
  if (status >= 200 && status < 300) {
    answer.kind = OtlpAnswer::Kind::kDone;
    answer.warning = partial_success(text);
    return answer;
  }
  const bool again = status == 429 || status == 502 || status == 503 || status == 504;
  answer.kind = again ? OtlpAnswer::Kind::kRetry : OtlpAnswer::Kind::kRefused;
  answer.retry_after_s = static_cast<int>(std::clamp<curl_off_t>(retry_after, 0, 300));
  answer.failure = fmt::format("HTTP {}: {}", status, text.substr(0, 200));
  return answer;
}

}  // namespace mlxs
