#include "cli/url_bench.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <numeric>

#include "base/percentile.h"
#include "cli/base_url.h"
#include "cli/load_client.h"
#include "cli/question_set.h"
#include "formats/near_names.h"
#include "mlxs/error.h"

namespace mlxs::cli {
namespace {

using nlohmann::json;

// Percentiles 0 … 100, for plots; empty of nothing.
json curve(std::vector<double> values) {
  json points = json::array();
  if (values.empty()) return points;
  std::ranges::sort(values);
  for (std::size_t p = 0; p <= 100; ++p) points.push_back(values[(values.size() - 1) * p / 100]);
  return points;
}

json summary(const std::vector<double>& values) {
  if (values.empty()) return nullptr;
  json all{{"mean", std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size())}};
  for (const int p : {50, 90, 95, 99}) all[fmt::format("p{}", p)] = percentile(values, p);
  return all;
}

json figures_json(const ServeFigures& f) {
  json result{{"requests", f.requests},
              {"failed", f.failed},
              {"failures", f.failures},
              {"success_rate", f.requests > 0 ? 1.0 - double(f.failed) / f.requests : 0.0},
              {"seconds", f.seconds},
              {"prompt_tokens", f.prompt_tokens},
              {"cached_tokens", f.cached_tokens},
              {"generated_tokens", f.generated_tokens},
              {"throughput_tok_s", f.tokens_per_second()},
              {"ttft_ms", summary(f.ttft_ms)},
              {"itl_ms", summary(f.itl_ms)},
              {"e2e_ms", summary(f.e2e_ms)},
              {"ttft_curve_ms", curve(f.ttft_ms)},
              {"e2e_curve_ms", curve(f.e2e_ms)}};
  if (f.without_usage > 0) result["without_usage"] = f.without_usage;
  if (f.without_text > 0) result["without_text"] = f.without_text;
  return result;
}

std::string first_after(const RequestFigures& one) {
  return one.ttft_ms > 0 ? fmt::format("first after {:.1f} ms", one.ttft_ms) : "none of them text";
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

class Runner {
 public:
  Runner(UrlBench& bench, json& runs) : bench_(bench), runs_(runs) {
    if (!bench.question_file.empty()) file_ = read_questions(bench.question_file);
  }

  // Is it there, and does it answer? Finds the model, and warms up what is cold.
  void meet(BenchSide& side) {
    side.url = base_url(side.url);
    ServeLoad load = load_of(side);
    const std::vector<std::string> models = served_models(load);
    if (side.model.empty()) side.model = load.model = models.front();
    load.requests = load.clients = 1;
    load.max_tokens = 8;
    load.prompt_words = 8;
    const ServeFigures figures = run_serve_load(load);
    if (figures.failed == 0) return;
    const bool listed = std::ranges::find(models, side.model) != models.end();
    std::vector<std::string> near = near_names(side.model, models);
    if (near.empty())
      near.assign(models.begin(), models.begin() + std::min<std::ptrdiff_t>(5, std::ssize(models)));
    throw Error(listed ? ErrorCode::kUnavailable : ErrorCode::kModelNotFound,
                fmt::format("{} does not answer with model '{}': {}", side.url, side.model,
                            figures.failures.begin()->first),
                listed ? "see the server's log" : fmt::format("it has {}", fmt::join(near, ", ")), "--model");
  }

  void cycle(int number) {
    if (bench_.ask)
      each_side("questions", bench_.clients.front(), number, [this](ServeLoad& load, int x) {
        load.clients = x;
        load.requests = bench_.questions;
      });
    if (bench_.first_token) {
      for (const int words : bench_.prompt_words) {
        each_side("first_token", words, number, [this, number](ServeLoad& load, int x) {
          load.clients = 1;
          load.requests = bench_.questions;
          load.prompt_words = x;
          load.max_tokens = std::min(bench_.max_tokens, 4);
          load.seed = bench_.seed * 1'000'003 + static_cast<std::uint64_t>(number * 8191 + x);
        });
      }
    }
    if (bench_.closed_loop) {
      for (const int clients : bench_.clients) {
        each_side("closed_loop", clients, number, [this](ServeLoad& load, int x) {
          load.clients = x;
          load.requests = std::max(bench_.questions, 4 * x);
        });
      }
    }
    if (bench_.open_loop) {
      for (const double rate : bench_.rates) {
        each_side("open_loop", rate, number, [this](ServeLoad& load, double x) {
          load.rate = x;
          load.requests = bench_.questions;
        });
      }
    }
  }

 private:
  ServeLoad load_of(const BenchSide& side) const {
    ServeLoad load;
    load.url = side.url;
    load.model = side.model;
    load.key = side.key;
    load.max_tokens = bench_.max_tokens;
    load.temperature = bench_.temperature;
    load.timeout_s = bench_.timeout_s;
    load.seed = bench_.seed;
    return load;
  }

  // Every second cycle begins with the other side, so that neither always finds the machine as the other left
  // it.
  template <class X, class Change>
  void each_side(const char* kind, X x, int number, const Change& change) {
    for (std::size_t i = 0; i < bench_.sides.size(); ++i) {
      const std::size_t which = number % 2 == 0 ? i : bench_.sides.size() - 1 - i;
      ServeLoad load = load_of(bench_.sides[which]);
      change(load, x);
      const std::string label = fmt::format("{} {}, cycle {}, {}", kind, x, number + 1, name_of(which));
      if (std::string_view(kind) != "first_token")
        load.questions = questions(fmt::format("{} {}.{}", kind, x, number + 1), load.requests);
      if (bench_.verbose) {
        load.on_request = [this, &label](const RequestFigures& one) {
          bench_.tell(one.failure.empty()
                          ? fmt::format("{}: request {}: {} tokens, {}, all after {:.1f} ms", label,
                                        one.number + 1, one.generated_tokens, first_after(one), one.e2e_ms)
                          : fmt::format("{}: request {}: {}", label, one.number + 1, one.failure));
        };
      }
      const ServeFigures figures = run_serve_load(load);
      if (bench_.tell) {
        bench_.tell(fmt::format("{}: {} requests, {} failed, {:.1f} tokens/s", label, figures.requests,
                                figures.failed, figures.tokens_per_second()));
      }
      json run = figures_json(figures);
      run.update({{"kind", kind}, {"x", x}, {"side", which}, {"cycle", number}});
      runs_.push_back(std::move(run));
    }
  }

  // Both sides get the same. No two runs do: a prompt that was computed before would be measured as if it
  // were fast.
  std::vector<std::string> questions(const std::string& run, int count) const {
    std::vector<std::string> all = file_.empty() ? built_in_questions(count) : take_questions(file_, count);
    for (std::string& question : all) question = fmt::format("[{}] {}", run, question);
    return all;
  }

  std::string name_of(std::size_t side) const {
    return bench_.sides.size() == 1 ? "A" : side == 0 ? "A" : "B";
  }

  UrlBench& bench_;
  json& runs_;
  std::vector<std::string> file_;
};

double median_throughput(const json& runs, const char* kind, std::size_t side) {
  std::vector<double> values;
  for (const json& run : runs) {
    if (run["kind"] == kind && run["side"] == side) values.push_back(run["throughput_tok_s"]);
  }
  return percentile(values, 50);
}

}  // namespace

json run_url_bench(UrlBench bench, const std::string& name) {
  json runs = json::array();
  Runner runner(bench, runs);
  for (BenchSide& side : bench.sides) runner.meet(side);
  const std::string began = utc_now();
  for (int cycle = 0; cycle < bench.cycles; ++cycle) runner.cycle(cycle);
  json sides = json::array();
  for (std::size_t i = 0; i < bench.sides.size(); ++i) {
    sides.push_back({{"url", bench.sides[i].url}, {"model", bench.sides[i].model}});
    if (bench.ask) sides.back()["throughput_tok_s"] = median_throughput(runs, "questions", i);
  }
  return {{"benchmark", name},
          {"version", MLXS_VERSION},
          {"timestamp", began},
          {"settings",
           {{"questions", bench.questions},
            {"question_file", bench.question_file},
            {"max_tokens", bench.max_tokens},
            {"temperature", bench.temperature},
            {"cycles", bench.cycles},
            {"seed", bench.seed}}},
          {"sides", sides},
          {"runs", runs}};
}

}  // namespace mlxs::cli
