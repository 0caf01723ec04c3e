// Layers with a window whose KV lies in pages of their own, and pages that leave a KvStore and come back: the
// same results as from layers that keep every token where they are, on every backend.
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include "backend/registry.h"
#include "backends_here.h"
#include "conformance_model.h"

namespace mlxs {
namespace {

using test::AttentionCase;
using test::distance;
using test::Steps;
using test::TinyBlock;

constexpr int kWindow = 20, kSequences = 3;
constexpr int kEach =
    5;  // window pages of a sequence: what a chunk of 40 tokens and the window before it see

const AttentionCase kCases[] = {
    {.name = "groups", .window = kWindow, .only_first = true},
    {.name = "many heads",
     .heads = 8,
     .kv_heads = 1,
     .window = kWindow,
     .soft_cap = 20.0f,
     .only_first = true},
    {.name = "other heads",
     .key_dim = 96,
     .value_dim = 80,
     .sinks = true,
     .window = kWindow,
     .only_first = true},
};

// Each shape of a decode step several times, so that it is replayed, and prompts between; each sequence
// passes more pages than it has window pages.
const std::vector<std::vector<int>> kCounts{{30, 20, 40}, {1, 1, 1}, {1, 1, 1},  {1, 1, 1}, {40, 1, 0},
                                            {0, 35, 1},   {1, 1, 1}, {30, 1, 1}, {1, 1, 1}, {0, 25, 40},
                                            {1, 1, 1},    {1, 1, 1}, {1, 0, 1},  {1, 0, 1}, {1, 0, 1}};

// A step whose sequences have window pages: in turn the same few, and behind them, where no row sees them,
// somebody else's.
struct Apart {
  std::array<std::vector<PageId>, kSequences> pages;
  Steps::Step step;

  explicit Apart(const Steps& steps, const Steps::Step& of) : step(of) {
    for (SequenceSpan& span : step.spans) {
      std::size_t s = 0;
      while (steps.sequences[s].pages.data() != span.pages.data()) ++s;
      const int first = span.start + 1 > kWindow ? (span.start + 1 - kWindow) / kPageTokens : 0;
      const int end = (span.start + span.num_rows + kPageTokens - 1) / kPageTokens;
      EXPECT_LE(end - first, kEach) << "the test needs more window pages";
      pages[s].assign(span.pages.size(), static_cast<PageId>((s + 1) % kSequences * kEach));
      for (int page = first; page < end; ++page) pages[s][static_cast<std::size_t>(page)] = place(s, page);
      span.window_pages = pages[s];
    }
  }
  static PageId place(std::size_t sequence, int page) {
    return static_cast<PageId>(sequence) * kEach + (kEach - 1 - page % kEach);
  }
};

class WindowPages : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { backend_ = make_backend(GetParam()); }
  std::unique_ptr<Backend> backend_;
};

void expect_the_same(Backend& backend, const AttentionCase& c, DType type, double bound) {
  AttentionCase own = c;
  own.window_pages = kSequences * kEach;
  TinyBlock whole(backend, c, type), apart(backend, own, type);
  EXPECT_LT(apart.kv().bytes(), whole.kv().bytes());
  Steps steps(kSequences, TinyBlock::kVocabulary);
  for (std::size_t i = 0; i < kCounts.size(); ++i) {
    const Steps::Step step = steps.next(kCounts[i]);
    const std::vector<float> expected = whole.run(step, 1);
    EXPECT_LE(distance(apart.run(Apart(steps, step).step, 2), expected), bound) << c.name << ", step " << i;
  }
}

TEST_P(WindowPages, HoldWhatAWindowSees) {
  for (const AttentionCase& c : kCases) expect_the_same(*backend_, c, DType::kBF16, 0);
}

TEST_P(WindowPages, HoldCodesOf8BitsToo) {
  for (const AttentionCase& c : {kCases[0], kCases[2]}) expect_the_same(*backend_, c, DType::kI8, 0);
}

// What a page holds leaves the store, its place gets something else, and it comes back to another one.
TEST_P(WindowPages, LeaveAndComeBack) {
  for (const DType type : {DType::kBF16, DType::kI8}) {
    AttentionCase c = kCases[0];
    TinyBlock whole(*backend_, c, type);
    c.window_pages = kSequences * kEach;
    TinyBlock apart(*backend_, c, type);
    if (apart.kv().page_bytes() == 0) GTEST_SKIP() << "pages of this backend stay";
    Steps steps(kSequences, TinyBlock::kVocabulary);
    const Steps::Step prompt = steps.next({20, 0, 0});
    whole.run(prompt);
    apart.run(Apart(steps, prompt).step);
    auto& pages = steps.sequences[0].pages;
    const PageId spare = steps.sequences[1].pages[0];
    std::vector<std::byte> bytes(apart.kv().page_bytes());
    ASSERT_EQ(whole.kv().page_bytes(), bytes.size());
    for (TinyBlock* model : {&whole, &apart}) {
      const PageId window = model == &apart ? Apart::place(0, 0) : -1;
      model->kv().read_page(pages[0], window, bytes);
      std::vector<std::byte> others(bytes.size(), std::byte{0x3c});
      model->kv().write_page(pages[0], window, others);
      if (window < 0) {
        model->kv().write_page(spare, window, bytes);
        model->copy_page(spare, pages[2]);
      } else {  // and from there to where it is looked for, each part by itself
        model->kv().write_page(spare, Apart::place(1, 0), bytes);
        model->copy_page(spare, pages[2]);
        model->copy_window_page(Apart::place(1, 0), window);
      }
      std::vector<std::byte> again(bytes.size());
      model->kv().read_page(pages[2], window, again);
      EXPECT_EQ(again, bytes);
    }
    std::swap(pages[0], pages[2]);
    const Steps::Step step = steps.next({1, 0, 0});
    const std::vector<float> expected = whole.run(step);
    EXPECT_EQ(distance(apart.run(Apart(steps, step).step), expected), 0);
  }
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(WindowPages);
INSTANTIATE_TEST_SUITE_P(Backends, WindowPages, testing::ValuesIn(test::backends_here([](Backend& b) {
                           return b.has_window_pages();
                         })),
                         [](const auto& tested) { return tested.param; });

}  // namespace
}  // namespace mlxs
