#include "serve/http_text.h"

#include <fmt/format.h>

#include <boost/beast/http/status.hpp>
#include <charconv>
#include <chrono>
#include <ctime>
#include <iterator>

namespace mlxs {
namespace {

constexpr std::size_t kLongestValue = 1024;

std::string_view reason_phrase(int status) {
  const auto text = boost::beast::http::obsolete_reason(static_cast<boost::beast::http::status>(status));
  return {text.data(), text.size()};
}

}  // namespace

std::string lower_case(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

std::string http_date(std::int64_t unix_s) {
  constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const auto time = static_cast<std::time_t>(unix_s);
  std::tm utc{};
  gmtime_r(&time, &utc);
  return fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", kDays[utc.tm_wday], utc.tm_mday,
                     kMonths[utc.tm_mon], utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
}

std::string render_head(const ResponseHead& head) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  std::string out = fmt::format(
      "HTTP/1.1 {} {}\r\n"
      "date: {}\r\n",
      head.status, reason_phrase(head.status),
      http_date(std::chrono::duration_cast<std::chrono::seconds>(now).count()));
  const auto add = [&out](std::string_view name, std::string_view value) {
    fmt::format_to(std::back_inserter(out), "{}: {}\r\n", name, value);
  };
  if (!head.content_type.empty()) add("content-type", head.content_type);
  if (!head.request_id.empty()) add("x-request-id", head.request_id);
  constexpr int kNoContent = 204;  // must not say how long its body is
  if (head.status == kNoContent) {
  } else if (head.length) {
    add("content-length", fmt::format("{}", *head.length));
  } else if (head.version >= 11) {
    add("transfer-encoding", "chunked");
  }
  if (!head.keep_alive) {
    add("connection", "close");
  } else if (head.version < 11) {
    add("connection", "keep-alive");
  }
  for (const auto& [name, value] : head.headers) add(name, value);
  return out += "\r\n";
}

std::optional<std::string> decode_path(std::string_view target) {
  for (const std::string_view scheme : {"http://", "https://"}) {  // the form that proxies get
    if (!target.starts_with(scheme)) continue;
    const std::size_t slash = target.find('/', scheme.size());
    target = slash == std::string_view::npos ? "/" : target.substr(slash);
  }
  target = target.substr(0, target.find_first_of("?#"));
  if (!target.starts_with('/')) return std::nullopt;
  std::string path;
  for (std::size_t i = 0; i < target.size(); ++i) {
    if (target[i] != '%') {
      path += target[i];
      continue;
    }
    unsigned code = 0;
    if (i + 2 >= target.size()) return std::nullopt;
    const auto [end, error] = std::from_chars(&target[i + 1], &target[i + 1] + 2, code, 16);
    if (error != std::errc() || end != &target[i + 1] + 2) return std::nullopt;
    path += static_cast<char>(code);
    i += 2;
  }
  return path;
}

std::string query_of(std::string_view target) {
  target = target.substr(0, target.find('#'));
  const std::size_t mark = target.find('?');
  return mark == std::string_view::npos ? std::string() : std::string(target.substr(mark + 1));
}

std::string header_value(std::string_view text) {
  std::string out(text.substr(0, kLongestValue));
  for (char& c : out) {
    if (c < ' ' || c > '~') c = '?';
  }
  return out;
}

}  // namespace mlxs
