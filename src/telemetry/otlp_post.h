// One POST of an OTLP body over libcurl, blocking. Any thread. Failures are values; nothing is retried here.
#pragma once

#include <atomic>
#include <string>
#include <utility>
#include <vector>

namespace mlxs {

struct OtlpAnswer {
  enum class Kind { kDone, kRetry, kRefused } kind = Kind::kRetry;  // kRefused: the same again would not help
  int retry_after_s = 0;                                            // 0: not said
  std::string failure;                                              // of the last two
  std::string warning;                                              // kDone, but something was left out
};

struct OtlpPost {
  const std::string& url;
  const std::vector<std::pair<std::string, std::string>>& headers;
  const std::string& certificate_file;
  const std::string& body;
  bool gzip;  // the body is compressed
  int timeout_ms;
  const std::atomic<bool>* give_up = nullptr;  // true: ends the transfer
};

OtlpAnswer post_otlp(const OtlpPost& post);

}  // namespace mlxs
