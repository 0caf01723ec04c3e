// `trace FILE|URL`: the flight recorder's steps as a trace for Perfetto.
#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <span>
#include <string>

#include "cli/base_url.h"
#include "cli/telemetry_commands.h"
#include "formats/http_client.h"
#include "mlxs/error.h"
#include "telemetry/flight_trace.h"

namespace mlxs::cli {
namespace {

struct TraceFlags {
  std::string source, output = "trace.json", key;
};

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(file), {}};
  if (!file.is_open() || file.bad()) {
    throw Error(ErrorCode::kIo, fmt::format("'{}' cannot be read: {}", path, std::strerror(errno)),
                "give a file that a server wrote at SIGUSR1, a stall or a crash, or a server's URL");
  }
  return bytes;
}

std::string fetch(const TraceFlags& flags) {
  std::string body;
  FetchRequest request{.url = base_url(flags.source) + "/v1/flight", .token = flags.key};
  request.on_body = [&body](const FetchAnswer&, std::span<const std::byte> piece) {
    body.append(reinterpret_cast<const char*>(piece.data()), piece.size());
  };
  const FetchAnswer answer = http_get(request);
  if (answer.status == 200 && answer.failure.empty()) return body;
  throw Error(ErrorCode::kUnavailable,
              answer.status == 0 ? fmt::format("{} does not answer: {}", flags.source, answer.failure)
                                 : fmt::format("{} answered {}", flags.source, answer.status),
              answer.status == 401 || answer.status == 403 ? "give an admin's key with --api-key"
              : answer.status == 404                       ? "the server keeps no steps (--flight-steps 0)"
                                                           : "");
}

int trace(const TraceFlags& flags) {
  const bool is_url = flags.source.starts_with("http://") || flags.source.starts_with("https://");
  const FlightDump dump = read_flight(is_url ? fetch(flags) : read_file(flags.source));
  const std::string json = chrome_trace(dump);
  if (flags.output == "-") {
    fmt::print("{}\n", json);
    return 0;
  }
  std::ofstream file(flags.output, std::ios::binary);
  file << json << '\n';
  file.close();
  if (!file) {
    throw Error(ErrorCode::kIo, fmt::format("'{}' cannot be written: {}", flags.output, std::strerror(errno)),
                "choose another file with -o");
  }
  fmt::print("{}: {} steps, {} events of requests; open it in https://ui.perfetto.dev\n", flags.output,
             dump.steps.size(), dump.events.size());
  return 0;
}

}  // namespace

void add_trace(CLI::App& app, Action& action) {
  auto flags = std::make_shared<TraceFlags>();
  CLI::App* command = app.add_subcommand("trace", "Turn a server's last steps into a trace for Perfetto");
  command->add_option("FILE|URL", flags->source, "The flight recorder's file, or a running server's URL")
      ->required();
  command->add_option("-o,--output", flags->output, "Where to; - is stdout")->capture_default_str();
  command->add_option("--api-key", flags->key, "Sent as a bearer token")->envname("MLXS_API_KEY");
  command->footer(
      "Examples:\n"
      "  mlx-serving trace http://127.0.0.1:8000\n"
      "  kill -USR1 PID; mlx-serving trace ~/.cache/mlx-serving/flight/flight-PID-0-asked.bin -o - | gzip > "
      "t.json.gz");
  command->callback([flags, &action] { action = [flags] { return trace(*flags); }; });
}

}  // namespace mlxs::cli
