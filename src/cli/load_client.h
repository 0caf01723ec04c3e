// A load of chat requests against any OpenAI-compatible server, streaming, from one thread over libcurl:
// what `mlx-serving bench serve` sends and measures. Deterministic in what it asks for; a failed request is
// counted with its reason, never retried.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace mlxs::cli {

struct RequestFigures {
  int number = 0;                  // from 0, in the order of sending
  std::string failure;             // empty: none
  double ttft_ms = 0, e2e_ms = 0;  // ttft: 0 if the answer had no text
  int prompt_tokens = 0, generated_tokens = 0;
};

struct ServeLoad {
  std::string url = "http://127.0.0.1:8000";  // before /v1/…
  std::string model;                          // empty: the first that /v1/models lists
  std::string key;                            // bearer token; empty: none
  int clients = 16;                           // requests at once (closed loop)
  int requests = 128;
  double rate = 0;         // > 0: open loop, Poisson arrivals a second, whatever is still running
  int prompt_words = 100;  // about a token each
  int prefix_words = 0;    // of a system prompt that all requests share
  double long_share = 0;   // of the requests have long_words instead
  int long_words = 1000;
  int max_tokens = 64;
  double temperature = 0;
  std::vector<std::string> questions;  // asked one after another instead of made-up words, round and round
  double timeout_s = 0;                // of one request; 0: none
  std::uint64_t seed = 1;
  std::function<void(const RequestFigures&)> on_request;  // called as each ends; may be empty
};

struct ServeFigures {
  int requests = 0, failed = 0;
  std::map<std::string, int> failures;  // by reason
  double seconds = 0;                   // first request sent → last answer ended
  std::int64_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;  // as the server counted them
  int without_usage = 0;  // answers whose tokens the server did not count: their pieces of text are
  int without_text = 0;   // answers that ended well without any text: nothing of theirs is in ttft and itl
  std::vector<double> ttft_ms, itl_ms, e2e_ms;  // itl: between two pieces of text of one answer

  double tokens_per_second() const {
    return seconds > 0 ? static_cast<double>(generated_tokens) / seconds : 0.0;
  }
};

// The models that the server lists, those that generate text first. Throws kUnavailable if it does not answer
// or lists none, kUnauthorized if it wants a key or another one, kInvalidArgument on a bad URL.
std::vector<std::string> served_models(const ServeLoad& load);

// Throws kUnavailable if the server does not answer at all, kInvalidArgument on a bad URL.
ServeFigures run_serve_load(const ServeLoad& load);

}  // namespace mlxs::cli
