#include "formats/retry.h"

#include <curl/curl.h>

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <ctime>
#include <mutex>

#include "formats/http_client.h"

namespace mlxs {

using std::chrono::seconds;

bool may_pass(const FetchAnswer& answer) {
  return answer.status == 0 || !answer.failure.empty() || answer.status == 408 || answer.status == 429 ||
         answer.status >= 500;
}

std::optional<seconds> retry_after(const FetchAnswer& answer) {
  const auto header = answer.headers.find("retry-after");
  if (header == answer.headers.end()) return std::nullopt;
  const std::string& text = header->second;
  long value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && value >= 0) return seconds(value);
  const std::time_t at = curl_getdate(text.c_str(), nullptr);
  if (at == -1) return std::nullopt;
  return seconds(std::max<std::time_t>(0, at - std::time(nullptr)));
}

std::optional<Retry::Milliseconds> Retry::next(const FetchAnswer& answer) {
  constexpr int kFailures = 6;
  constexpr Milliseconds kFirst{250}, kMostAsked = std::chrono::minutes(5);
  if (const auto asked = retry_after(answer)) {
    const Milliseconds wait = std::max<Milliseconds>(*asked, kFirst);
    if (waited_ + wait > kMostAsked) return std::nullopt;
    waited_ += wait;
    return wait;
  }
  if (++failures_ >= kFailures) return std::nullopt;
  return kFirst * (1 << (failures_ - 1));
}

bool wait_for(std::chrono::milliseconds time, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any condition;
  std::unique_lock lock(mutex);
  return !condition.wait_for(lock, stop, time, [] { return false; }) && !stop.stop_requested();
}

}  // namespace mlxs
