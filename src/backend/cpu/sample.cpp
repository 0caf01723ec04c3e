#include "backend/cpu/sample.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <vector>

#include "backend/cpu/sample_candidates.h"
#include "backend/cpu/sample_kernels.h"
#include "backend/cpu/sample_random.h"

namespace mlxs::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLog2E = std::numbers::log2e_v<float>;
constexpr int kChunk = 8 * kGroup;  // elements scanned as one; fixed, so that sums do not depend on threads
constexpr int kSplitVocabulary =
    1 << 17;  // below, a row takes some 10 µs: less than threads may cost that come late

struct ChunkResult {
  bool nan = false;
  int found = 0;
  TierSums sums;
};

// Buffers of one row at a time.
struct Workspace {
  std::vector<float> logits;      // the row after bias, mask and penalties
  std::vector<float> maxima;      // of the logits drawn from
  std::vector<float> raw_maxima;  // of the row as it came
  std::vector<float> order;       // maxima, partly ordered
  std::vector<std::int32_t> ids;  // gathered, chunk by chunk
  std::vector<float> values;
  std::vector<float> weights;
  std::vector<ChunkResult> chunks;
  std::vector<Candidate> candidates;
  std::vector<Candidate> ranked;  // some of them, partly ordered
};

// The chunk-wise scans of one row, on the pool or on this thread alone.
class Scanner {
 public:
  Scanner(const SampleKernels& kernels, ThreadPool* pool, int vocabulary, Workspace& work)
      : kernels_(kernels), pool_(pool), vocabulary_(vocabulary), work_(work) {
    work.chunks.assign(static_cast<std::size_t>((vocabulary + kChunk - 1) / kChunk), {});
  }

  int vocabulary() const { return vocabulary_; }

  bool scan(const float* x, std::vector<float>& maxima) {
    maxima.resize(static_cast<std::size_t>((vocabulary_ + kGroup - 1) / kGroup * kLaneMaxima));
    each([&](int begin, int count, ChunkResult& chunk) {
      chunk.nan = kernels_.scan(x + begin, count, maxima.data() + begin / kGroup * kLaneMaxima);
    });
    return std::ranges::any_of(work_.chunks, &ChunkResult::nan);
  }

  TokenId find(const float* x, float value, const std::vector<float>& maxima) const {
    const auto at = std::ranges::find(maxima, value) - maxima.begin();
    const int begin = static_cast<int>(at) / kLaneMaxima * kGroup;  // the first group that has it
    return begin + kernels_.find(x + begin, std::min(kGroup, vocabulary_ - begin), value);
  }

  TierSums sum(const float* x, float shift, float factor, bool tiers) {
    each([&](int begin, int count, ChunkResult& chunk) {
      chunk.sums = {};
      kernels_.sum(x + begin, count, shift, factor, tiers, chunk.sums);
    });
    TierSums all;
    for (const ChunkResult& chunk : work_.chunks) {
      all.total += chunk.sums.total;
      for (int t = 0; t < kTiers; ++t) all.above[t] += chunk.sums.above[t];
    }
    return all;
  }

  // Candidates with (x - shift) · factor ≥ least, in the order of their ids; weights are not set.
  void gather(const float* x, float shift, float factor, float least) {
    const std::size_t room = work_.chunks.size() * (kChunk + 16);
    work_.ids.resize(room);
    work_.values.resize(room);
    each([&](int begin, int count, ChunkResult& chunk) {
      const std::size_t at = static_cast<std::size_t>(begin / kChunk) * (kChunk + 16);
      chunk.found =
          kernels_.gather(x + begin, count, shift, factor, least, begin, &work_.ids[at], &work_.values[at]);
    });
    work_.candidates.clear();
    for (std::size_t c = 0; c < work_.chunks.size(); ++c) {
      const std::size_t at = c * (kChunk + 16);
      for (std::size_t i = at; i < at + static_cast<std::size_t>(work_.chunks[c].found); ++i) {
        work_.candidates.push_back({work_.values[i], work_.ids[i], 0.0f});
      }
    }
  }

  // The k best tokens with logits above -inf (fewer if there are fewer), in the order of their ids.
  void best(const float* x, int k, const std::vector<float>& maxima) {
    // The k-th best maximum is a lower bound of the k-th best logit: k groups hold a logit at least that
    // high.
    float least = std::numeric_limits<float>::lowest();
    if (static_cast<std::size_t>(k) <= maxima.size() / 2) {
      work_.order = maxima;
      std::nth_element(work_.order.begin(), work_.order.begin() + (k - 1), work_.order.end(),
                       std::greater<>{});
      least = std::max(least, work_.order[static_cast<std::size_t>(k - 1)]);
    }
    gather(x, 0.0f, 1.0f, least);
    std::vector<Candidate>& found = work_.candidates;
    if (found.size() > static_cast<std::size_t>(k)) {
      work_.ranked = found;
      const auto last = work_.ranked.begin() + (k - 1);
      std::nth_element(work_.ranked.begin(), last, work_.ranked.end(), better);
      std::erase_if(found, [last](const Candidate& c) { return better(*last, c); });
    }
  }

  // Sets the candidates' weights; returns their sum.
  double weigh(float shift, float factor) {
    std::vector<Candidate>& found = work_.candidates;
    work_.values.resize(std::max(work_.values.size(), found.size()));
    work_.weights.resize(work_.values.size());
    for (std::size_t i = 0; i < found.size(); ++i) work_.values[i] = found[i].logit;
    kernels_.weigh(work_.values.data(), static_cast<int>(found.size()), shift, factor, work_.weights.data());
    double total = 0.0;
    for (std::size_t i = 0; i < found.size(); ++i)
      total += static_cast<double>(found[i].weight = work_.weights[i]);
    return total;
  }

  // A token of the whole vocabulary with probability exp2(score) / Σ.
  TokenId draw_dense(const float* x, float shift, float factor, double uniform) {
    double target = uniform * sum(x, shift, factor, false).total;
    std::size_t chunk = 0;
    for (; chunk + 1 < work_.chunks.size() && target >= work_.chunks[chunk].sums.total; ++chunk) {
      target -= work_.chunks[chunk].sums.total;
    }
    const int begin = static_cast<int>(chunk) * kChunk;
    const int count = std::min(kChunk, vocabulary_ - begin);
    work_.weights.resize(std::max<std::size_t>(work_.weights.size(), kChunk));
    kernels_.weigh(x + begin, count, shift, factor, work_.weights.data());
    int last = -1;
    for (int i = 0; i < count; ++i) {
      const auto weight = static_cast<double>(work_.weights[static_cast<std::size_t>(i)]);
      if (weight <= 0.0) continue;
      if (target < weight) return begin + i;
      target -= weight;
      last = begin + i;
    }
    // Rounding left a crumb behind the last token that has weight; the chunk may also have none at all.
    return last >= 0 ? last : find(x, shift, work_.maxima);
  }

 private:
  template <class Work>
  void each(Work&& work) {
    const auto run = [&](std::int64_t begin, std::int64_t end, int) {
      for (; begin < end; ++begin) {
        const int first = static_cast<int>(begin) * kChunk;
        work(first, std::min(kChunk, vocabulary_ - first), work_.chunks[static_cast<std::size_t>(begin)]);
      }
    };
    const auto chunks = static_cast<std::int64_t>(work_.chunks.size());
    if (pool_ != nullptr) {
      pool_->parallel_for(chunks, 1, run);
    } else {
      run(0, chunks, 0);
    }
  }

  const SampleKernels& kernels_;
  ThreadPool* pool_;
  int vocabulary_;
  Workspace& work_;
};

bool modifies(const SampleRow& spec) {
  const bool penalized =
      spec.repetition_penalty != 1.0f || spec.presence_penalty != 0.0f || spec.frequency_penalty != 0.0f;
  return !spec.bias.empty() || !spec.allowed.empty() || (penalized && !spec.counts.empty());
}

// Bias and mask, then penalties, on a copy of the row.
void modify(const SampleKernels& kernels, const SampleRow& spec, const float* raw, int vocabulary,
            std::vector<float>& out) {
  out.resize(static_cast<std::size_t>(vocabulary));
  if (spec.allowed.empty()) {
    std::memcpy(out.data(), raw, static_cast<std::size_t>(vocabulary) * sizeof(float));
  } else {
    const int covered = std::min<int>(vocabulary, static_cast<int>(spec.allowed.size()) * 32);
    kernels.mask(raw, covered, spec.allowed.data(), out.data());
    std::fill(out.begin() + covered, out.end(),
              -kInfinity);  // a mask shorter than the vocabulary allows no more
  }
  const auto logit = [&](TokenId token) -> float* {
    return token >= 0 && token < vocabulary ? &out[static_cast<std::size_t>(token)] : nullptr;
  };
  for (const TokenBias& bias : spec.bias) {
    if (float* x = logit(bias.token)) *x += bias.bias;
  }
  for (const TokenCount& count : spec.counts) {
    float* x = logit(count.token);
    if (x == nullptr) continue;
    if (spec.repetition_penalty != 1.0f)
      *x = *x > 0.0f ? *x / spec.repetition_penalty : *x * spec.repetition_penalty;
    if (count.generated > 0) {
      *x -= spec.presence_penalty + spec.frequency_penalty * static_cast<float>(count.generated);
    }
  }
}

// +inf beats everything: those tokens share the draw, the others are out.
void flatten_infinities(const float* raw, int vocabulary, std::vector<float>& out) {
  out.resize(static_cast<std::size_t>(vocabulary));
  for (int i = 0; i < vocabulary; ++i)
    out[static_cast<std::size_t>(i)] = raw[i] == kInfinity ? 0.0f : -kInfinity;
}

// Draws from the row's logits, whose maxima are in work.maxima and whose best is finite.
TokenId draw(const SampleRow& spec, Scanner& scanner, const float* x, float best, Workspace& work) {
  if (spec.temperature <= 0.0f) return scanner.find(x, best, work.maxima);
  const double uniform = uniform_draw(spec.seed, spec.draw);
  const float factor = std::min(kLog2E / spec.temperature, std::numeric_limits<float>::max());
  const bool top_k = spec.top_k > 0 && spec.top_k < scanner.vocabulary();
  const bool top_p = spec.top_p < 1.0f;
  const float least = spec.min_p > 0.0f ? std::log2(spec.min_p) : std::numeric_limits<float>::lowest();
  if (!top_k && !top_p && spec.min_p <= 0.0f) return scanner.draw_dense(x, best, factor, uniform);

  double total;  // weight of everything that top_k left
  if (top_k) {
    scanner.best(x, spec.top_k, work.maxima);
    total = scanner.weigh(best, factor);
  } else if (top_p) {
    const TierSums sums = scanner.sum(x, best, factor, true);
    total = sums.total;
    float tier = std::numeric_limits<float>::lowest();
    for (int t = kTiers - 1; t >= 0; --t) {
      if (sums.above[t] >= static_cast<double>(spec.top_p) * total * (1 + 1e-6)) tier = kTierScores[t];
    }
    scanner.gather(x, best, factor, tier);
    scanner.weigh(best, factor);
  } else {
    scanner.gather(x, best, factor, least);
    total = scanner.weigh(best, factor);
  }
  std::vector<Candidate>& candidates = work.candidates;
  if (top_p) keep_nucleus(candidates, best, static_cast<double>(spec.top_p) * total, work.ranked);
  if (spec.min_p > 0.0f && (top_k || top_p)) {
    std::erase_if(candidates, [&](const Candidate& c) { return !((c.logit - best) * factor >= least); });
  }
  return draw_candidate(candidates, uniform);
}

// Log-probabilities of the raw row: of the chosen token and of the n best.
void report_logprobs(const SampleRow& spec, Scanner& scanner, const float* raw, Workspace& work,
                     Sampled& result) {
  float best = *std::ranges::max_element(work.raw_maxima);
  std::vector<float> flat;
  std::vector<float> flat_maxima;
  const std::vector<float>* maxima = &work.raw_maxima;
  if (best == kInfinity) {
    flatten_infinities(raw, scanner.vocabulary(), flat);
    scanner.scan(flat.data(), flat_maxima);
    raw = flat.data();
    maxima = &flat_maxima;
    best = 0.0f;
  }
  const double log_sum = std::log(scanner.sum(raw, best, kLog2E, false).total) + static_cast<double>(best);
  const auto logprob = [&](float logit) { return static_cast<float>(static_cast<double>(logit) - log_sum); };
  result.logprob = logprob(raw[result.token]);
  if (spec.top_logprobs <= 0) return;
  scanner.best(raw, std::min(spec.top_logprobs, scanner.vocabulary()), *maxima);
  std::ranges::sort(work.candidates, better);
  for (const Candidate& c : work.candidates) result.top.push_back({c.token, logprob(c.logit)});
}

void sample_row(const SampleKernels& kernels, ThreadPool* pool, const float* raw, int vocabulary,
                const SampleRow& spec, Workspace& work, Sampled& result) {
  result = {};
  Scanner scanner(kernels, pool, vocabulary, work);
  result.invalid = true;  // until something was drawn
  if (scanner.scan(raw, work.raw_maxima)) return;
  const float* x = raw;
  if (modifies(spec)) {
    modify(kernels, spec, raw, vocabulary, work.logits);
    x = work.logits.data();
    if (scanner.scan(x, work.maxima)) return;
  } else {
    work.maxima = work.raw_maxima;
  }
  float best = *std::ranges::max_element(work.maxima);
  if (best == -kInfinity) return;
  if (best == kInfinity) {
    flatten_infinities(x, vocabulary, work.logits);
    x = work.logits.data();
    scanner.scan(x, work.maxima);
    best = 0.0f;
  }
  result.token = draw(spec, scanner, x, best, work);
  result.invalid = false;
  if (spec.top_logprobs >= 0) report_logprobs(spec, scanner, raw, work, result);
}

const SampleKernels& kernels_for(Isa isa) {
#if defined(__x86_64__)
  if (isa >= Isa::kAvx512) return sample_avx512();
  if (isa == Isa::kAvx2) return sample_avx2();
#else
  static_cast<void>(isa);
#endif
  return sample_portable();
}

// Rows in parallel, or fewer than there are threads one after another: then they split a row's scans.
template <class Row>
void each_row(ThreadPool& pool, int rows, int vocabulary, std::vector<Workspace>& workers, Row&& row_of) {
  workers.resize(static_cast<std::size_t>(pool.threads()));
  if (rows < pool.threads() && vocabulary >= kSplitVocabulary) {
    for (int row = 0; row < rows; ++row) row_of(row, &pool, workers[0]);
    return;
  }
  pool.parallel_for(rows, 1, [&](std::int64_t begin, std::int64_t end, int worker) {
    for (; begin < end; ++begin)
      row_of(static_cast<int>(begin), nullptr, workers[static_cast<std::size_t>(worker)]);
  });
}

}  // namespace

struct SampleScratch::Impl {
  std::vector<Workspace> workers;
};

SampleScratch::SampleScratch() : impl_(std::make_unique<Impl>()) {}
SampleScratch::~SampleScratch() = default;

void sample(ThreadPool& pool, Isa isa, const float* logits, int rows, int vocabulary,
            std::span<const SampleRow> specs, std::span<Sampled> results, SampleScratch& scratch) {
  const SampleKernels& kernels = kernels_for(isa);
  each_row(pool, rows, vocabulary, scratch.impl().workers, [&](int row, ThreadPool* split, Workspace& work) {
    const auto index = static_cast<std::size_t>(row);
    sample_row(kernels, split, logits + index * static_cast<std::size_t>(vocabulary), vocabulary,
               specs[index], work, results[index]);
  });
}

std::vector<TokenCount> with_own(std::span<const TokenCount> counts, TokenId own) {
  std::vector<TokenCount> all(counts.begin(), counts.end());
  const auto found = std::ranges::find(all, own, &TokenCount::token);
  if (found != all.end()) {
    ++found->generated;
  } else {
    all.push_back({own, 1});
  }
  return all;
}

void resample(ThreadPool& pool, Isa isa, const float* logits, int vocabulary,
              std::span<const std::int32_t> rows, const ResampleOps::Spec& spec, std::span<Sampled> results,
              SampleScratch& scratch) {
  const SampleKernels& kernels = kernels_for(isa);
  each_row(pool, static_cast<int>(rows.size()), vocabulary, scratch.impl().workers,
           [&](int entry, ThreadPool* split, Workspace& work) {
             const auto index = static_cast<std::size_t>(entry);
             SampleRow row;
             if (!spec(index, row)) return;
             const auto at = static_cast<std::size_t>(rows[index]) * static_cast<std::size_t>(vocabulary);
             sample_row(kernels, split, logits + at, vocabulary, row, work, results[index]);
           });
}

}  // namespace mlxs::cpu
