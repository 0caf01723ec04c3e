#include "cli/server_options.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>

#include "mlxs/error.h"

namespace mlxs::cli {
namespace {

bool is_loopback(const std::string& host) {
  in6_addr v6{};
  if (inet_pton(AF_INET6, host.c_str(), &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6) != 0;
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  return host == "localhost";
}

}  // namespace

ApiKeys read_api_keys(const config::Settings& settings) {
  ApiKeys keys;
  if (!settings.api_keys_file.empty()) keys.add_file(settings.api_keys_file);
  if (!settings.api_key.empty()) keys.add(settings.api_key, {.tenant = "default", .role = Role::kAdmin});
  return keys;
}

ServerOptions server_options(const config::Settings& settings) {
  ServerOptions options = settings.server;
  options.keys = read_api_keys(settings);
  if (options.keys.empty() && !settings.insecure && options.listen_tcp && !is_loopback(options.host)) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("--host {} can be reached from other machines, and there is no API key", options.host),
        "give --api-keys or MLXS_API_KEY; --insecure serves everybody all the same");
  }
  return options;
}

std::string server_url(const ServerOptions& options, int port) {
  if (!options.listen_tcp) return "unix:" + options.unix_socket;
  const bool v6 = options.host.find(':') != std::string::npos;
  return fmt::format("{}://{}{}{}:{}", options.tls_certificate_file.empty() ? "http" : "https", v6 ? "[" : "",
                     options.host, v6 ? "]" : "", port);
}

std::uint64_t raise_open_files() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return 0;
  constexpr rlim_t kEnough = 1 << 20;  // macOS refuses "as many as there are"
  const rlim_t wanted = std::min(files.rlim_max, kEnough);
  if (files.rlim_cur < wanted) {
    files.rlim_cur = wanted;
    if (::setrlimit(RLIMIT_NOFILE, &files) != 0) ::getrlimit(RLIMIT_NOFILE, &files);
  }
  return files.rlim_cur;
}

}  // namespace mlxs::cli
