#include "engine/runner.h"

#include <algorithm>
#include <atomic>
#include <numeric>
#include <thread>
#include <utility>

#include "engine/request.h"
#include "kv/kv_pool.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

KvSpec kv_spec(const ModelConfig& config, const KvPages& pages, DType type) {
  KvSpec spec{.layers = config.layers,
              .kv_heads = config.kv_heads,
              .key_dim = config.key_dim,
              .value_dim = config.value_dim,
              .num_pages = static_cast<std::int32_t>(pages.pages),
              .type = type};
  if (pages.window_pages > 0) {
    spec.windowed = config.windowed;
    spec.num_window_pages = static_cast<std::int32_t>(pages.window_pages);
  }
  return spec;
}

// Some help is enough: 16 masks take about a millisecond.
int mask_threads() { return std::clamp(static_cast<int>(std::thread::hardware_concurrency()) / 2, 1, 4); }

// Waits for the masks in any case: they are written into requests, which a failed step ends.
class MasksOfStep {
 public:
  explicit MasksOfStep(MaskPool* pool) : pool_(pool) {}
  ~MasksOfStep() { finish(); }
  MasksOfStep(const MasksOfStep&) = delete;
  MasksOfStep& operator=(const MasksOfStep&) = delete;
  void finish() {
    if (pool_ != nullptr) std::exchange(pool_, nullptr)->finish();
  }

 private:
  MaskPool* pool_;
};

std::uint64_t next_program() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

}  // namespace

Runner::Runner(Backend& backend, Model& model, const KvPages& pages, std::int32_t swap_slots, DType kv_type,
               const Clock& clock)
    : backend_(backend),
      resample_(dynamic_cast<ResampleOps*>(&backend)),
      model_(model),
      kv_type_(kv_type),
      program_(next_program()),
      clock_(clock),
      kv_(backend.make_kv(kv_spec(model.config(), pages, kv_type))) {
  if (swap_slots == 0) return;
  if (kv_->page_bytes() == 0) {
    throw Error(ErrorCode::kInvalidArgument, "this backend's KV cache cannot be swapped out",
                "leave out --kv-swap-bytes, or use --backend cpu", "kv_swap_bytes");
  }
  swapped_.reset(new std::byte[static_cast<std::size_t>(swap_slots) * kv_->page_bytes()]);
}

void Runner::copy_pages(const StepPlan& plan) {
  const auto slot = [&](const PageCopy& copy) {
    return std::span(swapped_.get() + static_cast<std::size_t>(copy.slot) * kv_->page_bytes(),
                     kv_->page_bytes());
  };
  for (const PageCopy& copy : plan.swap_out) kv_->read_page(copy.page, copy.window, slot(copy));
  for (const PageCopy& copy : plan.swap_in) kv_->write_page(copy.page, copy.window, slot(copy));
  for (const PageBranch& branch : plan.branches) {
    backend_.copy_page(*kv_, branch.from, branch.to);
    if (branch.window_to >= 0) backend_.copy_window_page(*kv_, branch.window_from, branch.window_to);
  }
}

MaskPool* Runner::begin_masks() {
  if (constrained_.empty()) return nullptr;
  if (!masks_) masks_ = std::make_unique<MaskPool>(mask_threads(), clock_);
  masks_->begin(constrained_);
  return masks_.get();
}

bool Runner::feeds(const Request& request, const SampleRow& row) const {
  return !request.grammar && backend_.draws_on_device(row);
}

void Runner::fill(Host& host, const StepPlan& plan, const std::function<Request&(RequestId)>& request_of) {
  host.plan = &plan;
  host.tokens.clear();
  host.positions.clear();
  host.sequences.clear();
  host.sampled_rows.clear();
  host.fed.clear();
  host.sampling.clear();
  host.times = {};
  host.feeds_next = backend_.run_ahead() != RunAhead::kNo;
  constrained_.clear();
  unmasked_.rows.clear();
  unmasked_.requests.clear();
  for (const PlannedSpan& span : plan.spans) {
    Request& request = request_of(span.request);
    const auto first_row = static_cast<std::int32_t>(host.tokens.size());
    host.sequences.push_back({first_row, span.count, span.start, span.pages, span.window_pages});
    if (span.fed >= 0) {  // by a span of a step that samples in every one: rows of its logits are its spans
      host.tokens.push_back(0);
      host.fed.push_back(span.fed);
    } else {
      const auto begin = request.tokens.begin() + span.start;
      host.tokens.insert(host.tokens.end(), begin, begin + span.count);
    }
    for (std::int32_t i = 0; i < span.count; ++i) host.positions.push_back(span.start + i);
    if (!span.samples) {
      host.feeds_next = false;
      continue;
    }
    host.sampled_rows.push_back(first_row + span.count - 1);
    SampleRow& row = host.sampling.emplace_back(request.sample_row());
    if (span.fed >= 0) {  // the token before is drawn and not known
      ++row.draw;
      row.counts_own = request.penalized;
    }
    host.feeds_next = host.feeds_next && feeds(request, row);
    if (!request.grammar) continue;
    // Log probabilities are those among the allowed tokens: they need the mask.
    if (resample_ != nullptr && request.sampling.top_logprobs < 0) {
      row.allowed = {};
      unmasked_.rows.push_back(static_cast<std::int32_t>(host.sampled_rows.size()) - 1);
      unmasked_.requests.push_back(&request);
    } else {
      constrained_.push_back(&request);
    }
  }
}

void Runner::launch(const StepPlan& plan, const std::function<Request&(RequestId)>& request_of) {
  const TimePoint began = clock_.now();
  const std::size_t place = under_way_ == 0 ? newest_ : 1 - newest_;
  Host& host = hosts_[place];
  fill(host, plan, request_of);
  MasksOfStep masks(begin_masks());

  // A step that samples nothing (a prompt's early chunk) makes one op less than the others.
  const std::uint64_t program = host.sampling.empty() ? 0 : program_;
  backend_.begin_step({host.tokens, host.positions, host.sequences, host.sampled_rows, kv_.get(), program,
                       host.fed, host.sampling});
  host.logits = model_.forward(backend_);
  const TimePoint launched = clock_.now();
  host.times.launch = launched - began;
  masks.finish();
  const TimePoint masked = clock_.now();
  host.times.mask = masked - launched;
  if (!host.sampling.empty()) backend_.sample(host.logits, host.sampling);
  if (host.feeds_next) backend_.submit_step();
  host.times.sample = clock_.now() - masked;
  newest_ = place;
  ++under_way_;
}

std::span<const Sampled* const> Runner::finish() {
  Host& host = hosts_[under_way_ == 2 ? 1 - newest_ : newest_];
  const TimePoint waiting = clock_.now();
  const int left = std::exchange(under_way_, 0) - 1;
  const std::span<const Sampled> sampled = backend_.end_step();
  under_way_ = left;
  times_ = host.times;
  const TimePoint drawn = clock_.now();
  times_.wait = drawn - waiting;

  results_.clear();
  std::size_t next = 0;
  for (const PlannedSpan& span : host.plan->spans)
    results_.push_back(span.samples ? &sampled[next++] : nullptr);
  if (left == 0 && !unmasked_.rows.empty()) {  // of this step: behind another there are none
    correct(host.logits, sampled);
    times_.mask += clock_.now() - drawn;
  }
  return results_;
}

// A token drawn without the mask is taken if the grammar allows it, else one is drawn among those that it
// allows, independently: together that is a draw among the allowed (where top_k, top_p or min_p cut the tail,
// the first draw's was cut before the mask). Most tokens of a model that is within its grammar are allowed,
// and to look at one costs a hundredth of a mask. All of it runs on the backend's threads, which would wait.
void Runner::correct(Tensor logits, std::span<const Sampled> sampled) {
  constexpr std::uint64_t kSecondDraw = std::uint64_t{1} << 32;  // no answer has so many tokens
  auto& [rows, requests, drawn] = unmasked_;
  drawn.clear();
  for (const std::int32_t row : rows) drawn.push_back(sampled[static_cast<std::size_t>(row)]);
  resample_->resample(
      logits, rows,
      [&, &requests = requests, &drawn = drawn](std::size_t i, SampleRow& spec) {
        Request& request = *requests[i];
        if (drawn[i].invalid || request.follow(drawn[i].token, clock_)) return false;
        request.compute_mask(clock_);
        spec = request.sample_row();
        spec.draw |= kSecondDraw;
        return true;
      },
      drawn);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    *std::ranges::find(results_, &sampled[static_cast<std::size_t>(rows[i])]) = &drawn[i];
  }
}

std::vector<float> Runner::evaluate(std::span<const TokenId> tokens, std::int32_t chunk_rows) {
  const auto rows_at_once = static_cast<std::size_t>(chunk_rows);
  const std::int32_t num_pages = KvPool::pages_for(static_cast<std::int32_t>(tokens.size()));
  const auto kv = backend_.make_kv(kv_spec(model_.config(), {.pages = num_pages}, kv_type_));
  std::vector<PageId> pages(static_cast<std::size_t>(num_pages));
  std::iota(pages.begin(), pages.end(), 0);

  const auto vocabulary = static_cast<std::size_t>(model_.config().vocabulary);
  std::vector<float> logits(tokens.size() * vocabulary);
  for (std::size_t start = 0; start < tokens.size(); start += rows_at_once) {
    const std::size_t count = std::min(rows_at_once, tokens.size() - start);
    std::vector<std::int32_t> positions(count), rows(count);
    std::iota(positions.begin(), positions.end(), static_cast<std::int32_t>(start));
    std::iota(rows.begin(), rows.end(), 0);
    const SequenceSpan sequence{0, static_cast<std::int32_t>(count), static_cast<std::int32_t>(start), pages};
    backend_.begin_step({tokens.subspan(start, count), positions, {&sequence, 1}, rows, kv.get()});
    const Tensor chunk = model_.forward(backend_);
    backend_.end_step();
    backend_.read(chunk, std::span(logits).subspan(start * vocabulary, count * vocabulary));
  }
  return logits;
}

}  // namespace mlxs
