#include "formats/hub_client.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "formats/hub_cache.h"
#include "formats/json_file.h"
#include "formats/near_names.h"
#include "formats/quote.h"
#include "formats/retry.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

// As huggingface_hub reads its switches.
bool is_true(std::string text) {
  std::ranges::transform(text, text.begin(),
                         [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return text == "1" || text == "ON" || text == "YES" || text == "TRUE";
}

std::string stored_token() {
  const std::string named = variable("HF_TOKEN_PATH");
  std::ifstream file(named.empty() ? hub_home() / "token" : fs::path(named));
  std::string token;
  file >> token;
  return token;
}

// A file that is appended to; every failure says where and how far.
class PartFile {
 public:
  PartFile(const fs::path& path, std::uint64_t whole)
      : path_(path),
        whole_(whole),
        fd_(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) {
    if (fd_ < 0) refuse(errno);
    const off_t end = ::lseek(fd_, 0, SEEK_END);
    if (end < 0) refuse(errno);
    size_ = static_cast<std::uint64_t>(end);
    if (size_ > whole_) truncate();
  }
  ~PartFile() { ::close(fd_); }
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;

  std::uint64_t size() const { return size_; }
  void truncate() {
    if (::ftruncate(fd_, 0) != 0) refuse(errno);
    size_ = 0;
  }
  void append(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t wrote = ::write(fd_, bytes.data(), bytes.size());
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote <= 0) refuse(errno);
      size_ += static_cast<std::uint64_t>(wrote);
      bytes = bytes.subspan(static_cast<std::size_t>(wrote));
    }
  }
  void sync() {
    if (::fsync(fd_) != 0) refuse(errno);
  }

 private:
  [[noreturn]] void refuse(int error) const {
    const bool full = error == ENOSPC || error == EFBIG || error == EDQUOT;
    throw Error(ErrorCode::kIo,
                fmt::format("{}: cannot be written past {} of {} bytes: {}", path_.string(), size_, whole_,
                            std::strerror(error)),
                full ? "free space there or set HF_HUB_CACHE to a larger disk, then run the same command "
                       "again: it goes on from here"
                     : "give this user permission to write there, or set HF_HUB_CACHE to another folder");
  }

  fs::path path_;
  std::uint64_t whole_;
  int fd_;
  std::uint64_t size_ = 0;
};

// The first byte that a 206 brings, by its Content-Range.
std::optional<std::uint64_t> range_start(const FetchAnswer& answer) {
  const auto header = answer.headers.find("content-range");
  unsigned long long start = 0;
  if (header == answer.headers.end() || std::sscanf(header->second.c_str(), "bytes %llu-", &start) != 1)
    return std::nullopt;
  return start;
}

}  // namespace

HubSettings hub_settings() {
  HubSettings settings;
  settings.endpoint = variable("HF_ENDPOINT");
  if (settings.endpoint.empty()) settings.endpoint = "https://huggingface.co";
  while (settings.endpoint.ends_with('/')) settings.endpoint.pop_back();
  settings.token = variable("HF_TOKEN");
  if (settings.token.empty()) settings.token = stored_token();
  // A stray line end would become a header of its own.
  std::erase_if(settings.token, [](unsigned char c) { return c <= ' ' || c == 0x7f; });
  settings.offline = is_true(variable("HF_HUB_OFFLINE"));
  const int seconds = std::atoi(variable("HF_HUB_DOWNLOAD_TIMEOUT").c_str());
  if (seconds > 0) settings.stall_seconds = seconds;
  return settings;
}

FetchAnswer HubClient::get(const std::string& url, const std::stop_token& stop) const {
  constexpr std::size_t kMaxAnswer = std::size_t{64} << 20;
  for (Retry retry;;) {
    std::string body;
    FetchAnswer answer =
        http_get({.url = url,
                  .token = settings_.token,
                  .stall_seconds = settings_.stall_seconds,
                  .stop = stop,
                  .on_body = [&](const FetchAnswer&, std::span<const std::byte> piece) {
                    if (body.size() + piece.size() > kMaxAnswer) {
                      throw Error(ErrorCode::kUnavailable,
                                  fmt::format("{}: the answer is over {} bytes", url, kMaxAnswer),
                                  "check HF_ENDPOINT");
                    }
                    body.append(reinterpret_cast<const char*>(piece.data()), piece.size());
                  }});
    if (answer.status == 200) answer.body = std::move(body);
    if (!may_pass(answer)) return answer;
    const auto wait = retry.next(answer);
    if (!wait || !wait_for(*wait, stop)) return answer;
    log::info("{}: {}; trying again in {} ms", url,
              answer.failure.empty() ? fmt::format("status {}", answer.status) : answer.failure,
              wait->count());
  }
}

std::vector<std::string> HubClient::similar(const std::string& repo) const {
  const std::size_t slash = repo.find('/');
  std::vector<std::string> names;
  // What the owner has, and what others have under that name.
  for (const std::string& query :
       {"author=" + url_escape(repo.substr(0, slash)), "search=" + url_escape(repo.substr(slash + 1))}) {
    std::string body;
    (void)http_get({.url = fmt::format("{}/api/models?{}&limit=200", settings_.endpoint, query),
                    .token = settings_.token,
                    .stall_seconds = 5,
                    .on_body = [&](const FetchAnswer&, std::span<const std::byte> piece) {
                      if (body.size() < (4u << 20))
                        body.append(reinterpret_cast<const char*>(piece.data()), piece.size());
                    }});
    const json list = json::parse(body, nullptr, false);
    for (const json& item : list.is_array() ? list : json::array()) {
      if (item.is_object() && item.contains("id") && item["id"].is_string())
        names.push_back(item["id"].get<std::string>());
    }
  }
  return near_names(repo, std::move(names));
}

void HubClient::refuse(const FetchAnswer& answer, const std::string& repo, const std::string& what) const {
  const auto header = answer.headers.find("x-error-code");
  const std::string code = header == answer.headers.end() ? "" : header->second;
  const bool has_token = !settings_.token.empty();
  if (code == "GatedRepo" || (answer.status == 403 && code.empty())) {
    throw Error(
        ErrorCode::kUnauthorized, fmt::format("{}: access is restricted ({})", what, answer.status),
        fmt::format("accept the conditions at {}/{} with your account, then set HF_TOKEN to its token",
                    settings_.endpoint, repo));
  }
  if (code == "RevisionNotFound" || code == "EntryNotFound") {
    throw Error(ErrorCode::kModelNotFound,
                fmt::format("{}: there is no such {}", what, code == "EntryNotFound" ? "file" : "revision"),
                fmt::format("see {}/{}/tree/main", settings_.endpoint, repo));
  }
  // A hub answers 401 for names that do not exist too, so as not to tell which private ones do.
  if (answer.status == 401 || answer.status == 404) {
    std::vector<std::string> near = similar(repo);
    std::erase(near, repo);  // listed, and yet not for this one
    std::string hint = near.empty() ? "" : fmt::format("did you mean {}? ", fmt::join(near, ", "));
    hint += has_token ? "check the name, and that HF_TOKEN may read it"
                      : "check the name; if it is private, set HF_TOKEN";
    const bool bad_token = has_token && answer.status == 401 && code.empty();
    throw Error(answer.status == 401 && has_token ? ErrorCode::kUnauthorized : ErrorCode::kModelNotFound,
                bad_token ? fmt::format("{}: HF_TOKEN is not valid, or may not read it", what)
                          : fmt::format("{}: does not exist on {}, or is private", what, settings_.endpoint),
                std::move(hint));
  }
  if (answer.status == 429) {
    const auto wait = retry_after(answer);
    throw Error(ErrorCode::kUnavailable,
                fmt::format("{}: {} asks for fewer requests (429)", what, settings_.endpoint),
                wait ? fmt::format("try again in {} s; what was downloaded is kept", wait->count())
                     : "try again later; what was downloaded is kept");
  }
  const std::string reason =
      answer.failure.empty() ? fmt::format("status {}", answer.status) : answer.failure;
  throw Error(
      answer.status == 0 || answer.status >= 500 ? ErrorCode::kUnavailable : ErrorCode::kIo,
      fmt::format("{}: {} gave no answer that can be used: {}", what, settings_.endpoint, reason),
      "check the network and HF_ENDPOINT, then run the same command again: it goes on from where it stopped");
}

HubRepo HubClient::describe(const std::string& repo, const std::string& revision) const {
  const std::string url =
      fmt::format("{}/api/models/{}/revision/{}?blobs=true", settings_.endpoint, repo, url_escape(revision));
  const std::string what = revision == "main" ? repo : repo + "@" + revision;
  const FetchAnswer answer = get(url, {});
  if (answer.status != 200) refuse(answer, repo, what);
  const json root = parse_json_object(std::as_bytes(std::span(answer.body)), url);
  const auto text = [](const json& object, const char* key) {
    const auto entry = object.find(key);
    return entry != object.end() && entry->is_string() ? entry->get<std::string>() : std::string();
  };
  HubRepo result;
  result.commit = text(root, "sha");
  const auto siblings = root.find("siblings");
  if (!is_hex(result.commit, 40) || siblings == root.end() || !siblings->is_array())
    fail_json(url, "names no commit and files");
  for (const json& item : *siblings) {
    if (!item.is_object()) fail_json(url, "lists a file that is no object");
    HubFile file;
    file.path = text(item, "rfilename");
    const auto lfs = item.find("lfs");
    const bool large = lfs != item.end() && lfs->is_object();
    file.etag = large ? text(*lfs, "sha256") : text(item, "blobId");
    const json& sized = large && lfs->contains("size") ? *lfs : item;
    const auto size = json_int(sized, "size", url, 0, std::int64_t{1} << 50);
    if (!is_plain_path(file.path) || !is_hex(file.etag, large ? 64 : 40) || !size) {
      fail_json(url, fmt::format("lists the file {} without a usable name, size and hash", quote(file.path)));
    }
    file.size = static_cast<std::uint64_t>(*size);
    result.files.push_back(std::move(file));
  }
  return result;
}

void HubClient::download(const std::string& repo, const std::string& commit, const HubFile& file,
                         const fs::path& part, const std::stop_token& stop,
                         const std::function<void(std::uint64_t)>& on_size) const {
  std::string path;
  for (const char c : file.path) path += c == '/' ? std::string("/") : url_escape(std::string(1, c));
  const std::string url = fmt::format("{}/{}/resolve/{}/{}", settings_.endpoint, repo, commit, path);
  const std::string what = fmt::format("{}: {}", repo, file.path);
  const auto ends_early = [&](std::uint64_t size) {
    throw Error(ErrorCode::kUnavailable,
                fmt::format("{}: the server ends after {} of {} bytes", what, size, file.size),
                "try again later; if it happens again, the endpoint (HF_ENDPOINT) is at fault");
  };
  PartFile out(part, file.size);
  on_size(out.size());
  std::uint64_t furthest = out.size();  // only more than ever before is progress
  for (Retry retry; out.size() < file.size;) {
    const std::uint64_t before = out.size();
    FetchRequest request{.url = url,
                         .token = settings_.token,
                         .from = before,
                         .stall_seconds = settings_.stall_seconds,
                         .stop = stop,
                         .on_body = {}};
    bool started = false;
    request.on_body = [&](const FetchAnswer& head, std::span<const std::byte> piece) {
      if (!started && head.status == 200) out.truncate();  // a server without ranges begins again
      if (!started && head.status == 206 && range_start(head) != before) {
        throw Error(ErrorCode::kUnavailable,
                    fmt::format("{}: the server sends another range than was asked for", what),
                    "try again later; if it happens again, the endpoint (HF_ENDPOINT) is at fault");
      }
      started = true;
      if (piece.size() > file.size - out.size()) {
        throw Error(
            ErrorCode::kModelLoad,
            fmt::format("{}: the server sends more than the {} bytes that the hub lists", what, file.size),
            "try again later; if it happens again, the endpoint (HF_ENDPOINT) is at fault");
      }
      out.append(piece);
      on_size(out.size());
    };
    const FetchAnswer answer = http_get(request);
    if (stop.stop_requested()) return;
    if (out.size() == file.size) break;
    const bool answered = answer.failure.empty() && (answer.status == 200 || answer.status == 206);
    const bool beyond = answer.status == 416;  // our beginning is of another file, or theirs is too short
    if (!answered && !beyond && !may_pass(answer)) refuse(answer, repo, what);
    if (out.size() > furthest) retry.progressed();
    furthest = std::max(furthest, out.size());
    const auto wait = retry.next(answer);
    if (!wait && (answered || beyond)) ends_early(before);
    if (!wait) refuse(answer, repo, what);
    if (beyond) out.truncate();
    log::info("{}: {} after {} of {} bytes; trying again in {} ms", what,
              !answer.failure.empty() ? answer.failure
              : answered              ? "the server ended"
                                      : fmt::format("status {}", answer.status),
              out.size(), file.size, wait->count());
    if (!wait_for(*wait, stop)) return;
  }
  if (!stop.stop_requested()) out.sync();
}

}  // namespace mlxs
