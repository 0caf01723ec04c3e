// `bench` on running servers: one, or two side by side in turns. What is measured, and the measurements as
// one JSON document, which url_report.h makes tables and plots of.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace mlxs::cli {

struct BenchSide {
  std::string url = "http://127.0.0.1:8000";
  std::string model;  // empty: the first that it lists
  std::string key;
};

struct UrlBench {
  std::vector<BenchSide> sides{1};  // one or two
  bool ask = false;                 // the questions, by clients.front() at once
  bool first_token = false;         // one client, prompts of each of prompt_words
  bool closed_loop = false;         // the questions, by each number of clients
  bool open_loop = false;           // the questions, arriving at each of rates
  int questions = 10;               // of a run; at least four for each client
  std::string question_file;        // empty: the built-in ones
  std::vector<int> prompt_words{16, 128, 512, 1024};
  std::vector<int> clients{1, 2, 4, 8, 16};
  std::vector<double> rates;  // a second
  int max_tokens = 100;
  double temperature = 0.7;
  int cycles = 1;  // of everything; the sides take turns within one
  double timeout_s = 600;
  std::uint64_t seed = 1;
  std::function<void(const std::string&)> tell;  // a line a run; with `verbose` one a request
  bool verbose = false;
};

// {"benchmark", "version", "timestamp", "settings", "sides": […], "runs": [{"kind", "x", "side", "cycle",
// …}], …}. Throws kUnavailable, kUnauthorized or kModelNotFound if a side does not answer a first request,
// saying which.
nlohmann::json run_url_bench(UrlBench bench, const std::string& name);

}  // namespace mlxs::cli
