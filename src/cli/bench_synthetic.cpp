#include "cli/bench_synthetic.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

#include "base/percentile.h"
#include "cli/format.h"
#include "engine/runner.h"
#include "formats/model_file.h"
#include "kv/kv_pool.h"
#include "mlxs/error.h"
#include "models/model.h"

namespace mlxs::cli {
namespace {

constexpr int kWarmSteps = 4;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Bytes of the packed weights by how a step reads them.
struct WeightBytes {
  double all = 0;
  double every_step = 0;  // whatever the rows
  double experts = 0;     // shared evenly by them; a step reads those that its rows choose
  double chosen = 0;      // of the experts, by one row
};

WeightBytes weigh(const ModelFile& file, const Backend& backend) {
  WeightBytes bytes;
  const bool tied = file.find_tensor("output.weight") == nullptr;
  for (const TensorInfo& tensor : file.tensors()) {
    RawWeight raw{tensor.name, tensor.type, 1, tensor.shape.back(), tensor.bytes, tensor.scales};
    for (std::size_t i = 0; i + 1 < tensor.shape.size(); ++i) raw.rows *= tensor.shape[i];
    const auto size = static_cast<double>(
        backend.packed_size(raw, tensor.shape.size() == 1 ? WeightUse::kVector : WeightUse::kMatrix));
    bytes.all += size;
    if (tensor.name.find("_exps.") != std::string_view::npos) {
      bytes.experts += size;
    } else if (tied || tensor.name != "token_embd.weight") {
      bytes.every_step += size;  // a table that is no head is read row by row
    }
  }
  if (bytes.experts > 0) {
    const std::string prefix = std::string(file.architecture()) + ".";
    bytes.chosen = static_cast<double>(file.get_int(prefix + "expert_used_count")) /
                   static_cast<double>(file.get_int(prefix + "expert_count"));
  }
  return bytes;
}

// A model and so many sequences of equal length, stepped together.
class Streams {
 public:
  // chunk: tokens of a sequence in one step, at most.
  Streams(Backend& backend, Model& model, DType kv_type, int count, int longest, int chunk)
      : backend_(backend), model_(model) {
    const ModelConfig& c = model.config();
    const int each = KvPool::pages_for(longest);
    KvSpec spec{.layers = c.layers,
                .kv_heads = c.kv_heads,
                .key_dim = c.key_dim,
                .value_dim = c.value_dim,
                .num_pages = count * each,
                .type = kv_type};
    const auto scatter = [&](int pages) {
      std::vector<PageId> order(static_cast<std::size_t>(pages));
      std::iota(order.begin(), order.end(), 0);
      std::ranges::shuffle(order, random_);
      return order;
    };
    pages_ = scatter(spec.num_pages);
    pages_each_ = static_cast<std::size_t>(each);
    const std::int64_t own = WindowPlaces::enough(c.layer_window, 1, chunk);
    if (c.layer_window > 0 && backend.has_window_pages() && own < each) {  // as the engine has them
      spec.windowed = c.windowed;
      spec.num_window_pages = static_cast<std::int32_t>(count * own);
      const std::vector<PageId> places = scatter(spec.num_window_pages);
      for (int s = 0; s < count; ++s) {
        for (std::int64_t i = 0; i < each; ++i)
          window_pages_.push_back(places[static_cast<std::size_t>(s * own + i % own)]);
      }
    }
    kv_ = backend.make_kv(spec);
  }

  std::size_t kv_bytes() const { return kv_->bytes(); }

  double host_seconds() const { return host_seconds_; }  // of the last step, until it was handed over

  // `count` more tokens of each of the streams first … last - 1, whose last ones sample; seconds.
  double step(int first, int last, int start, int count) {
    tokens_.clear();
    positions_.clear();
    sequences_.clear();
    sampled_.clear();
    std::uniform_int_distribution<TokenId> token(0, model_.config().vocabulary - 1);
    for (int s = first; s < last; ++s) {
      const auto row = static_cast<std::int32_t>(tokens_.size());
      const auto of = [&](const std::vector<PageId>& all) {
        return all.empty()
                   ? std::span<const PageId>()
                   : std::span(all).subspan(static_cast<std::size_t>(s) * pages_each_,
                                            static_cast<std::size_t>(KvPool::pages_for(start + count)));
      };
      sequences_.push_back({row, count, start, of(pages_), of(window_pages_)});
      for (int i = 0; i < count; ++i) {
        tokens_.push_back(token(random_));
        positions_.push_back(start + i);
      }
      sampled_.push_back(row + count - 1);
    }
    const auto began = std::chrono::steady_clock::now();
    backend_.begin_step({.tokens = tokens_,
                         .positions = positions_,
                         .sequences = sequences_,
                         .sampled_rows = sampled_,
                         .kv = kv_.get(),
                         .program = 1});
    backend_.sample(model_.forward(backend_), std::vector<SampleRow>(sampled_.size()));
    host_seconds_ = seconds_since(began);
    const std::span<const Sampled> drawn = backend_.end_step();
    const double took = seconds_since(began);
    if (std::ranges::any_of(drawn, &Sampled::invalid))
      throw Error(ErrorCode::kInternal, "the random model produced numbers that are not finite");
    return took;
  }

 private:
  Backend& backend_;
  Model& model_;
  std::unique_ptr<KvStore> kv_;
  std::vector<PageId> pages_, window_pages_;  // of all streams; the latter empty: no layer has its own
  std::size_t pages_each_ = 0;
  std::mt19937 random_{1};
  double host_seconds_ = 0;
  std::vector<TokenId> tokens_;
  std::vector<std::int32_t> positions_, sampled_;
  std::vector<SequenceSpan> sequences_;
};

}  // namespace

SyntheticFigures run_synthetic(Backend& backend, const SyntheticBench& what) {
  SyntheticFigures figures;
  const auto began = std::chrono::steady_clock::now();
  const std::unique_ptr<ModelFile> file = ModelFile::synthesize(what.config);
  const std::unique_ptr<Model> model = load_model(*file, backend, nullptr);
  figures.load_seconds = seconds_since(began);
  const WeightBytes weights = weigh(*file, backend);
  figures.weight_gigabytes = weights.all * 1e-9;
  figures.read_gb_per_second = backend.read_gb_per_second();

  const int most = std::ranges::max(what.streams), steps = what.steps + kWarmSteps;
  // Whole prompts a step, as many as it may hold; a longer prompt in chunks.
  const int at_once = std::clamp(what.rows / what.context, 1, most),
            chunk = std::min(what.context, what.rows);
  Streams streams(backend, *model, what.kv_type, most, what.context + steps, chunk);
  figures.kv_gigabytes = static_cast<double>(streams.kv_bytes()) * 1e-9;
  const auto prefill = [&](int first, int last) {
    double took = 0;
    for (int start = 0; start < what.context; start += chunk)
      took += streams.step(first, last, start, std::min(chunk, what.context - start));
    return took;
  };
  prefill(0, at_once);  // warm: memory and kernels are there
  double seconds = 0;
  for (int s = 0; s < most; s += at_once) seconds += prefill(s, std::min(s + at_once, most));
  figures.prefill_tokens_per_second = static_cast<double>(most) * what.context / seconds;

  const double kv_token = static_cast<double>(page_bytes(model->config(), what.kv_type)) / kPageTokens;
  for (const int count : what.streams) {
    std::vector<double> took, host;
    double busy = 0;
    for (int i = 0; i < steps; ++i) {
      const double one = streams.step(0, count, what.context + i, 1);
      if (i < kWarmSteps) continue;
      took.push_back(one);
      host.push_back(streams.host_seconds());
      busy += backend.busy_seconds();
    }
    const double used = 1.0 - std::pow(1.0 - weights.chosen, count);  // of the experts, on average
    const double bytes = weights.every_step + used * weights.experts +
                         kv_token * count * (what.context + kWarmSteps + what.steps / 2.0);
    const double all = std::accumulate(took.begin(), took.end(), 0.0);
    const double limit = figures.read_gb_per_second * 1e9 / bytes * count;
    figures.decode.push_back({.streams = count,
                              .tokens_per_second = static_cast<double>(count) * what.steps / all,
                              .host_us = percentile(host, 50) * 1e6,
                              .step_ms = percentile(took, 50) * 1e3,
                              .idle_share = busy > 0 ? 1.0 - busy / all : -1.0,
                              .gigabytes = bytes * 1e-9,
                              .limit_tokens_per_second = limit});
  }
  return figures;
}

void print_synthetic(const SyntheticFigures& figures, const std::string& device, bool json) {
  if (json) {
    nlohmann::json decode = nlohmann::json::array();
    for (const DecodeFigure& f : figures.decode) {
      decode.push_back({{"streams", f.streams},
                        {"tokens_per_second", f.tokens_per_second},
                        {"step_ms", f.step_ms},
                        {"host_us", f.host_us},
                        {"idle_share", f.idle_share < 0 ? nlohmann::json() : nlohmann::json(f.idle_share)},
                        {"read_gigabytes", f.gigabytes},
                        {"limit_tokens_per_second", f.limit_tokens_per_second}});
    }
    fmt::print("{}\n", nlohmann::json{{"device", device},
                                      {"load_seconds", figures.load_seconds},
                                      {"weight_gigabytes", figures.weight_gigabytes},
                                      {"read_gb_per_second", figures.read_gb_per_second},
                                      {"kv_gigabytes", figures.kv_gigabytes},
                                      {"prefill_tokens_per_second", figures.prefill_tokens_per_second},
                                      {"decode", decode}}
                           .dump());
    return;
  }
  fmt::print(
      "{}; reads {:.0f} GB/s at most\n{:.2f} GB of random weights in {:.1f} s, {:.2f} GB of KV; prefill "
      "{:.0f} tokens/s\n\n",
      device, figures.read_gb_per_second, figures.weight_gigabytes, figures.load_seconds,
      figures.kv_gigabytes, figures.prefill_tokens_per_second);
  std::vector<std::vector<std::string>> table{
      {"STREAMS", "TOKENS/S", "A STEP", "HOST", "IDLE", "READS", "OF LIMIT"}};
  for (const DecodeFigure& f : figures.decode) {
    table.push_back({std::to_string(f.streams), fmt::format("{:.1f}", f.tokens_per_second),
                     fmt::format("{:.3f} ms", f.step_ms), fmt::format("{:.0f} us", f.host_us),
                     f.idle_share < 0 ? "?" : fmt::format("{:.1f} %", 100 * f.idle_share),
                     fmt::format("{:.2f} GB", f.gigabytes),
                     f.limit_tokens_per_second > 0
                         ? fmt::format("{:.1f} %", 100 * f.tokens_per_second / f.limit_tokens_per_second)
                         : "?"});
  }
  fmt::print("{}", format_table(table));
}

}  // namespace mlxs::cli
