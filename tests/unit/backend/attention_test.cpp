// Every path of paged attention against the f64 reference, on random ragged batches over shared and scattered
// pages.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <string>

#include "attention_reference.h"
#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/attention_plan.h"

namespace mlxs::cpu {
namespace {

using test::HeadsCase;
using test::LayerWeights;
using test::ReferenceSequence;

struct Path {
  const char* name;
  const AttentionKernels* kernels;  // null: this processor cannot run it
  double bound;                     // of |out - reference| for values of order 1
};

// f32 paths err by K or V rounding the other way now and then (bf16: 2^-9); bf16 paths also round q and p
// (2^-9 each).
std::vector<Path> paths() {
  [[maybe_unused]] const AttentionKernels* none = nullptr;
  std::vector<Path> all{{"portable", &attention_portable(), 2e-3}};
#if defined(__x86_64__)
  const IsaSupport cpu = detect_isa();
  const bool amx = choose_isa() == Isa::kAmx;  // asks the kernel for tiles
  all.push_back({"avx2", cpu.best >= Isa::kAvx2 ? &attention_avx2() : none, 2e-3});
  all.push_back({"avx512", cpu.best >= Isa::kAvx512 ? &attention_avx512() : none, 2e-3});
  all.push_back({"amx", amx ? &attention_amx() : none, 2e-2});
#endif
  return all;
}

// A store, sequences over it, and steps that run some of their next rows.
class World {
 public:
  World(const HeadsCase& c, const Path& path, int threads, int num_pages = 400)
      : case_(c),
        path_(path),
        weights_(c),
        pool_(threads),
        kv_({.layers = 2,
             .kv_heads = c.kv_heads,
             .key_dim = c.key_dim,
             .value_dim = c.value_dim,
             .num_pages = num_pages,
             .type = c.type}) {
    free_.resize(static_cast<std::size_t>(num_pages));
    std::iota(free_.begin(), free_.end(), 0);
    std::shuffle(free_.begin(), free_.end(), std::mt19937(3));
    // A page held anything before: NaN everywhere but in the padding, which nobody ever writes.
    for (PageId page = 0; page < num_pages; ++page) poison(page);
  }

  struct Sequence {
    ReferenceSequence reference;
    std::vector<PageId> pages;
    int done = 0;
    std::uint64_t content;
  };

  // Appends a sequence; the first `shared` tokens (whole pages) are those of sequence `parent`.
  int add(std::uint64_t content, int tokens, int parent = -1, int shared = 0, float factor = 1.0f) {
    Sequence sequence{ReferenceSequence(case_, weights_), {}, 0, content};
    for (int t = 0; t < shared; ++t)
      sequence.reference.push_row(sequences_[static_cast<std::size_t>(parent)].reference.row(t));
    for (int t = shared; t < tokens; ++t) sequence.reference.push(content, factor);
    for (int p = 0; p < (tokens + kPageTokens - 1) / kPageTokens; ++p) {
      if (p < shared / kPageTokens) {
        sequence.pages.push_back(
            sequences_[static_cast<std::size_t>(parent)].pages[static_cast<std::size_t>(p)]);
      } else {
        sequence.pages.push_back(free_.back());
        free_.pop_back();
      }
    }
    sequence.done = shared;
    sequences_.push_back(std::move(sequence));
    return static_cast<int>(sequences_.size()) - 1;
  }
  void add_with_rows(std::vector<std::vector<float>> rows) {
    const int index = add(0, 0);
    Sequence& s = at(index);
    for (auto& row : rows) s.reference.push_row(std::move(row));
    for (int p = 0; p < (s.reference.tokens() + kPageTokens - 1) / kPageTokens; ++p) {
      s.pages.push_back(free_.back());
      free_.pop_back();
    }
  }
  Sequence& at(int index) { return sequences_[static_cast<std::size_t>(index)]; }
  int size() const { return static_cast<int>(sequences_.size()); }
  int left(int index) { return at(index).reference.tokens() - at(index).done; }

  // Runs the next rows[i] of sequence order[i]; returns [rows, heads · value_dim].
  std::vector<float> step(const std::vector<int>& order, const std::vector<int>& rows) {
    std::vector<float> qkv;
    std::vector<std::int32_t> positions;
    spans_.clear();
    for (std::size_t i = 0; i < order.size(); ++i) {
      Sequence& s = at(order[i]);
      spans_.push_back({static_cast<std::int32_t>(positions.size()), rows[i], s.done, s.pages});
      for (int r = 0; r < rows[i]; ++r, ++s.done) {
        positions.push_back(s.done);
        const std::vector<float>& row = s.reference.row(s.done);
        qkv.insert(qkv.end(), row.begin(), row.end());
      }
    }
    Batch batch;
    batch.positions = positions;
    batch.sequences = spans_;
    batch.kv = &kv_;
    std::vector<float> out(positions.size() * static_cast<std::size_t>(case_.heads * case_.value_dim),
                           std::numeric_limits<float>::quiet_NaN());
    attention_on(*path_.kernels, pool_, qkv.data(), out.data(), batch, kv_, weights_.spec(case_),
                 weights_.vectors(case_), scratch_);
    return out;
  }

  // Compares up to `samples` rows of each sequence of the last step with the reference.
  void compare(const std::vector<int>& order, const std::vector<float>& out, int samples,
               std::mt19937& random) {
    const auto columns = static_cast<std::size_t>(case_.heads * case_.value_dim);
    for (std::size_t i = 0; i < order.size(); ++i) {
      const SequenceSpan& span = spans_[i];
      for (int n = 0; n < std::min(samples, span.num_rows); ++n) {
        const int row =
            n == 0 ? span.num_rows - 1 : static_cast<int>(random() % static_cast<unsigned>(span.num_rows));
        const std::vector<double> expected =
            at(order[i]).reference.attend(span.start + row, span.start + span.num_rows);
        double worst = 0;
        for (std::size_t c = 0; c < columns; ++c) {
          const double got =
              static_cast<double>(out[static_cast<std::size_t>(span.first_row + row) * columns + c]);
          const double error = std::abs(got - expected[c]);
          worst = error <= worst ? worst : error;  // NaN counts
        }
        worst_ = worst <= worst_ ? worst_ : worst;
        ASSERT_LE(worst, path_.bound) << "sequence " << order[i] << " token " << span.start + row << " of "
                                      << span.start + span.num_rows;
      }
    }
  }
  double worst() const { return worst_; }
  CpuKvStore& kv() { return kv_; }

  void poison(PageId page) {
    const KvLayout& layout = kv_.layout();
    for (int layer = 0; layer < 2; ++layer) {
      for (int head = 0; head < case_.kv_heads; ++head) {
        std::byte* block = kv_.blocks(layer, head) + static_cast<std::size_t>(page) * kv_.page_bytes();
        const std::size_t unit = layout.int8 ? 4 : 2;
        std::memset(block, 0xff, static_cast<std::size_t>(layout.key_dim) / unit * 64);
        for (std::size_t lane = 0; lane < 16 / unit; ++lane) {
          std::memset(block + layout.value_offset + lane * static_cast<std::size_t>(layout.value_padded) * 4,
                      0xff, static_cast<std::size_t>(layout.value_dim) * 4);
        }
        if (layout.int8) std::memset(block + layout.scale_offset, 0xff, 128);
      }
    }
  }

 private:
  HeadsCase case_;
  Path path_;
  LayerWeights weights_;
  ThreadPool pool_;
  CpuKvStore kv_;
  AttentionScratch scratch_;
  std::vector<PageId> free_;
  std::vector<Sequence> sequences_;
  std::vector<SequenceSpan> spans_;
  double worst_ = 0;
};

class AttentionPaths : public testing::TestWithParam<Path> {
 protected:
  void SetUp() override {
    if (GetParam().kernels == nullptr) GTEST_SKIP() << "this processor has no " << GetParam().name;
  }
};
INSTANTIATE_TEST_SUITE_P(Cpu, AttentionPaths, testing::ValuesIn(paths()),
                         [](const auto& param) { return std::string(param.param.name); });

// Prefill chunks and decode rows mixed in random proportion until every sequence is done.
double run_ragged(const HeadsCase& c, const Path& path, int threads, std::vector<int> lengths,
                  unsigned seed) {
  World world(c, path, threads);
  std::mt19937 random(seed);
  world.add(1, lengths[0]);
  while (world.left(0) > lengths[0] - 2 * kPageTokens &&
         world.left(0) > 0) {  // two pages that others will share
    const int rows = std::min(world.left(0), 1 + static_cast<int>(random() % 20));
    const std::vector<float> out = world.step({0}, {rows});
    world.compare({0}, out, 2, random);
  }
  for (std::size_t i = 1; i < lengths.size(); ++i) {
    const bool share = i % 2 == 1 && lengths[i] > 2 * kPageTokens && lengths[0] > 2 * kPageTokens;
    world.add(i + 1, lengths[i], share ? 0 : -1, share ? 2 * kPageTokens : 0);
  }
  for (;;) {
    std::vector<int> order, rows;
    for (int s = 0; s < world.size(); ++s) {
      if (world.left(s) == 0 || random() % 8 == 0) continue;
      const int wish = random() % 2 == 0 ? 1 : 1 + static_cast<int>(random() % 150);
      order.push_back(s);
      rows.push_back(std::min(wish, world.left(s)));
    }
    if (order.empty()) {
      bool done = true;
      for (int s = 0; s < world.size(); ++s) done = done && world.left(s) == 0;
      if (done) break;
      continue;
    }
    const std::vector<float> out = world.step(order, rows);
    world.compare(order, out, 2, random);
    if (testing::Test::HasFatalFailure()) break;
  }
  return world.worst();
}

TEST_P(AttentionPaths, RaggedBatchesOfEveryShape) {
  const HeadsCase shapes[] = {
      {.heads = 9, .kv_heads = 3, .interleaved = true},                                // SmolLM2
      {.heads = 3, .kv_heads = 3, .key_dim = 32, .value_dim = 32},                     // 1:1
      {.heads = 8, .kv_heads = 1, .key_dim = 128, .value_dim = 128, .rope_dims = 64},  // MQA, partial rope
      {.heads = 16, .kv_heads = 2, .key_dim = 80, .value_dim = 80},                    // 8:1, padded keys
      {.heads = 6, .kv_heads = 2, .key_dim = 96, .value_dim = 96, .rope_dims = 0},     // no rope
      {.heads = 2,
       .kv_heads = 1,
       .key_dim = 256,
       .value_dim = 256,
       .qk_norm = true,
       .unit_offset = true},                                                           // Gemma
      {.heads = 10, .kv_heads = 2, .key_dim = 48, .value_dim = 112, .qk_norm = true},  // K and V differ
      {.heads = 5,
       .kv_heads = 5,
       .key_dim = 192,
       .value_dim = 128,
       .rope_dims = 64,
       .interleaved = true},                                                           // MLA-like
      {.heads = 3, .kv_heads = 1, .key_dim = 20, .value_dim = 36, .magnitude = 1.3f},  // padded both
      {.heads = 40, .kv_heads = 1, .key_dim = 576, .value_dim = 512, .rope_dims = 64, .interleaved = true},
  };
  unsigned seed = 11;
  for (const HeadsCase& c : shapes) {
    SCOPED_TRACE(testing::Message() << c.heads << " heads, " << c.kv_heads << " kv heads, dims " << c.key_dim
                                    << "/" << c.value_dim);
    const double worst =
        run_ragged(c, GetParam(), 1 + static_cast<int>(seed % 3), {250, 45, 1, 330, 16, 33}, seed);
    if (HasFatalFailure()) return;
    RecordProperty("worst_" + std::to_string(c.key_dim), std::to_string(worst));
    ++seed;
  }
}

TEST_P(AttentionPaths, WindowsSoftCapsAndSinks) {
  const HeadsCase shapes[] = {
      {.heads = 6, .kv_heads = 2, .window = 1},
      {.heads = 6, .kv_heads = 2, .window = 17},
      {.heads = 9, .kv_heads = 3, .window = 200},
      {.heads = 6, .kv_heads = 2, .soft_cap = 5.0f},
      {.heads = 16, .kv_heads = 2, .window = 64, .sinks = true},
      {.heads = 4, .kv_heads = 4, .soft_cap = 30.0f, .sinks = true},
  };
  unsigned seed = 31;
  for (const HeadsCase& c : shapes) {
    SCOPED_TRACE(testing::Message() << "window " << c.window << ", cap " << c.soft_cap << ", sinks "
                                    << c.sinks);
    run_ragged(c, GetParam(), 2, {300, 129, 40}, seed++);
    if (HasFatalFailure()) return;
  }
}

TEST_P(AttentionPaths, EncodersSeeEveryRow) {
  const HeadsCase c{.heads = 4, .kv_heads = 2, .causal = false};
  std::mt19937 random(5);
  for (const int length : {1, 15, 16, 17, 63, 200, 415}) {
    World world(c, GetParam(), 2);
    world.add(9, length);
    world.add(10, 21);
    const std::vector<float> out = world.step({0, 1}, {length, 21});
    world.compare({0, 1}, out, 6, random);
    if (HasFatalFailure()) return;
  }
}

TEST_P(AttentionPaths, Int8Pages) {
  Path path = GetParam();
  for (HeadsCase c : {HeadsCase{.heads = 9, .kv_heads = 3, .interleaved = true},
                      HeadsCase{.heads = 8, .kv_heads = 1, .key_dim = 80, .value_dim = 48},
                      HeadsCase{.heads = 4, .kv_heads = 2, .window = 50, .soft_cap = 20.0f, .sinks = true}}) {
    c.type = DType::kI8;
    path.bound = 4e-2;  // a rounding that goes the other way moves a value by 1/127 of the head's largest
    run_ragged(c, path, 2, {270, 33, 140}, 77);
    if (HasFatalFailure()) return;
  }
}

TEST_P(AttentionPaths, LongContextsAreSplitAndMerged) {
  const HeadsCase c{.heads = 9, .kv_heads = 3};
  std::mt19937 random(5);
  for (const int threads : {2, 4}) {
    for (const int length : {511, 700, 1030}) {
      World world(c, GetParam(), threads);
      world.add(2, length);
      world.step({0}, {length - 3});
      for (int i = 0; i < 3; ++i) {
        const std::vector<float> out = world.step({0}, {1});
        world.compare({0}, out, 1, random);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Every block has to rescale what was summed before it, or to be forgotten itself.
TEST_P(AttentionPaths, ScoresThatGrowOrShrinkAlongTheContext) {
  const HeadsCase c{.heads = 6, .kv_heads = 2, .rope_dims = 0};
  std::mt19937 random(5);
  for (const bool grow : {true, false}) {
    std::vector<std::vector<float>> rows;
    for (int t = 0; t < 500; ++t) {
      std::normal_distribution<float> normal;
      std::vector<float> row(static_cast<std::size_t>(c.columns()), 1.0f);  // q = 1: the score is 8 · k
      for (std::size_t i = 6 * 64; i < 8 * 64; ++i) row[i] = 0.0125f * static_cast<float>(grow ? t : 500 - t);
      for (std::size_t i = 8 * 64; i < row.size(); ++i) row[i] = normal(random);
      rows.push_back(std::move(row));
    }
    for (const int chunk : {1, 30, 125, 500}) {
      World world(c, GetParam(), 2);
      world.add_with_rows(rows);
      while (world.left(0) > 0) {
        const std::vector<float> out = world.step({0}, {std::min(chunk, world.left(0))});
        if (chunk > 1 || world.left(0) < 3) world.compare({0}, out, 8, random);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(AttentionPaths, ChunkedEqualsWhole) {
  const HeadsCase c{.heads = 9, .kv_heads = 3, .interleaved = true};
  const int length = 211;
  World whole(c, GetParam(), 2);
  whole.add(4, length);
  const std::vector<float> expected = whole.step({0}, {length});
  for (const int chunk : {1, 7, 16, 50, 130}) {
    World chunked(c, GetParam(), 2);
    chunked.add(4, length);
    std::vector<float> got;
    while (chunked.left(0) > 0) {
      const std::vector<float> part = chunked.step({0}, {std::min(chunk, chunked.left(0))});
      got.insert(got.end(), part.begin(), part.end());
    }
    ASSERT_EQ(got.size(), expected.size());
    double worst = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      worst = std::max(worst, std::abs(static_cast<double>(got[i]) - static_cast<double>(expected[i])));
    }
    EXPECT_LE(worst, GetParam().bound / 2) << "chunks of " << chunk;
  }
}

TEST_P(AttentionPaths, TheSameRowsGiveTheSameBitsInAnyCompanyOfDecodes) {
  const HeadsCase c{.heads = 9, .kv_heads = 3};
  std::vector<float> alone;
  for (const int others : {0, 1, 6}) {
    World world(c, GetParam(), 1);
    world.add(4, 100);
    world.step({0}, {99});
    std::vector<int> order, rows;
    for (int i = 0; i < others; ++i) {
      order.push_back(world.add(20 + static_cast<std::uint64_t>(i), 30 + i));
      rows.push_back(1 + i * 5);
    }
    order.push_back(0);
    rows.push_back(1);
    const std::vector<float> out = world.step(order, rows);
    const std::vector<float> last(out.end() - 9 * 64, out.end());
    if (others == 0) alone = last;
    EXPECT_EQ(last, alone) << others << " others";
  }
}

TEST_P(AttentionPaths, ManyDecodesGiveTheBitsOfOneAlone) {
  for (const DType type : {DType::kBF16, DType::kI8}) {
    for (HeadsCase c :
         {HeadsCase{.heads = 9, .kv_heads = 3}, HeadsCase{.heads = 8, .kv_heads = 4, .window = 40},
          HeadsCase{.heads = 12, .kv_heads = 2, .key_dim = 48, .value_dim = 80}}) {
      c.type = type;
      Path path = GetParam();
      if (type == DType::kI8) path.bound = 4e-2;
      std::mt19937 random(5);
      const int lengths[] = {1, 15, 16, 17, 63, 65, 128, 129, 140, 200};
      World together(c, path, 2);
      std::vector<int> order, prefill, one;
      for (int i = 0; i < 10; ++i) {
        order.push_back(together.add(20 + static_cast<std::uint64_t>(i), lengths[i] + 1));
        prefill.push_back(lengths[i]);
        one.push_back(1);
      }
      together.step(order, prefill);
      const std::vector<float> out = together.step(order, one);
      together.compare(order, out, 1, random);
      if (HasFatalFailure()) return;
      const auto columns = static_cast<std::size_t>(c.heads * c.value_dim);
      for (int i = 0; i < 10; ++i) {
        World alone(c, path, 1);
        alone.add(20 + static_cast<std::uint64_t>(i), lengths[i] + 1);
        alone.step({0}, {lengths[i]});
        const std::vector<float> row = alone.step({0}, {1});
        EXPECT_TRUE(
            std::equal(row.begin(), row.end(), out.begin() + static_cast<std::ptrdiff_t>(i * columns)))
            << "length " << lengths[i];
      }
    }
  }
}

TEST_P(AttentionPaths, NaNStaysInItsSequence) {
  for (const DType type : {DType::kBF16, DType::kI8}) {
    HeadsCase c{.heads = 6, .kv_heads = 2};
    c.type = type;
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      World world(c, GetParam(), 2);
      std::mt19937 random(5);
      std::vector<std::vector<float>> rows(60,
                                           std::vector<float>(static_cast<std::size_t>(c.columns()), 0.5f));
      for (float& x : rows[40]) x = bad;
      world.add_with_rows(std::move(rows));
      world.add(5, 70);
      world.add(6, 23);
      const auto columns = static_cast<std::size_t>(c.heads * c.value_dim);
      for (const int chunk : {22, 20, 1}) {
        const std::vector<int> order{0, 1, 2};
        const std::vector<int> counts{chunk, chunk, chunk == 22 ? 22 : chunk == 1 ? 1 : 0};
        std::vector<int> used_order, used_counts;
        for (std::size_t i = 0; i < 3; ++i) {
          if (counts[i] > 0) {
            used_order.push_back(order[i]);
            used_counts.push_back(counts[i]);
          }
        }
        const std::vector<float> out = world.step(used_order, used_counts);
        const std::vector<int> clean(used_order.begin() + 1, used_order.end());
        // Rows of the clean sequences follow the bad one's.
        for (std::size_t i = static_cast<std::size_t>(chunk) * columns; i < out.size(); ++i) {
          ASSERT_TRUE(std::isfinite(out[i])) << "row " << i / columns;
        }
        if (chunk != 22) {
          const std::size_t last = static_cast<std::size_t>(chunk) * columns - 1;
          EXPECT_TRUE(std::isnan(out[last])) << "a row that sees the bad token must show it";
        }
      }
    }
  }
}

// Within a chunk, too: rows before the bad token, and rows whose window has left it, stay as they are.
TEST_P(AttentionPaths, OnlyRowsThatSeeABadTokenAreBad) {
  for (const DType type : {DType::kBF16, DType::kI8}) {
    for (const int window : {0, 10}) {
      for (const int group : {1, 3}) {
        HeadsCase c{.heads = 2 * group, .kv_heads = 2, .window = window};
        c.type = type;
        for (const float bad :
             {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
          constexpr int kBad = 70, kTokens = 170;
          std::vector<std::vector<float>> rows(
              kTokens, std::vector<float>(static_cast<std::size_t>(c.columns()), 0.5f));
          for (float& x : rows[kBad]) x = bad;
          for (const int chunk : {kTokens, 63, 17, 2}) {
            World world(c, GetParam(), 2);
            world.add_with_rows(rows);
            std::vector<float> out;
            while (world.left(0) > 0) {
              const std::vector<float> part = world.step({0}, {std::min(chunk, world.left(0))});
              out.insert(out.end(), part.begin(), part.end());
            }
            const auto columns = static_cast<std::size_t>(c.heads * c.value_dim);
            for (std::size_t i = 0; i < out.size(); ++i) {
              const int token = static_cast<int>(i / columns);
              const bool sees = token >= kBad && (window == 0 || token < kBad + window);
              ASSERT_EQ(std::isfinite(out[i]), !sees) << "token " << token << ", chunks of " << chunk
                                                      << ", window " << window << ", group " << group;
            }
          }
        }
      }
    }
  }
}

TEST_P(AttentionPaths, AReusedPageLeavesNoTrace) {
  const HeadsCase c{.heads = 6, .kv_heads = 2};
  World world(c, GetParam(), 1, 4);
  std::mt19937 random(5);
  world.add(5, 20);
  world.step({0}, {20});
  const std::vector<PageId> pages = world.at(0).pages;
  world.add(6, 0);
  World::Sequence& second = world.at(1);
  for (int t = 0; t < 19; ++t) second.reference.push(6);
  for (const PageId page : pages) world.poison(page);
  second.pages = pages;
  for (const int rows : {3, 1, 15}) {
    const std::vector<float> out = world.step({1}, {rows});
    world.compare({1}, out, 3, random);
  }
}

TEST(AttentionPlan, EveryRowAndTokenExactlyOnce) {
  std::mt19937 random(9);
  for (int round = 0; round < 200; ++round) {
    std::vector<SequenceSpan> sequences;
    const bool decodes = round % 4 == 3;
    const int count = decodes ? 30 + round % 5 : 1 + static_cast<int>(random() % 5);
    for (int s = 0; s < count; ++s) {
      const unsigned most[] = {1, 40, 600};
      const int rows = 1 + static_cast<int>(random() % (decodes ? 3 : most[random() % 3]));
      sequences.push_back({0, rows, static_cast<int>(random() % 3000), {}});
    }
    const AttentionShape shape{.heads = 12,
                               .kv_heads = 4,
                               .causal = random() % 4 != 0,
                               .window = random() % 3 == 0 ? 100 : 0,
                               .threads = 1 + static_cast<int>(random() % 8)};
    const AttentionPlan plan = make_attention_plan(sequences, shape);
    for (int s = 0; s < count; ++s) {
      const SequenceSpan& sequence = sequences[static_cast<std::size_t>(s)];
      for (int head = 0; head < 4; ++head) {
        std::vector<int> appended(static_cast<std::size_t>(sequence.num_rows));
        for (const AppendTask& task : plan.appends) {
          if (task.sequence != s || task.kv_head != head) continue;
          EXPECT_TRUE(task.row == 0 || (sequence.start + task.row) % kPageTokens == 0);
          for (int r = task.row; r < task.row + task.rows; ++r) ++appended[static_cast<std::size_t>(r)];
        }
        std::vector<std::int64_t> seen(static_cast<std::size_t>(sequence.num_rows));
        for (const AttendTask& task : plan.attends) {
          if (task.sequence != s || task.kv_head != head) continue;
          EXPECT_EQ(task.begin % kPageTokens, 0);
          EXPECT_LT(task.begin, task.end);
          if (task.append) {
            EXPECT_LE(task.begin, sequence.start);  // nobody else reads what this task writes
            for (int& n : appended) ++n;
          }
          for (int r = task.row; r < task.row + task.rows; ++r) {
            const int token = sequence.start + r;
            const int low = std::max(task.begin, shape.window > 0 ? token + 1 - shape.window : 0);
            const int high =
                std::min(task.end, shape.causal ? token + 1 : sequence.start + sequence.num_rows);
            seen[static_cast<std::size_t>(r)] += std::max(0, high - low);
          }
        }
        for (int r = 0; r < sequence.num_rows; ++r) {
          const int token = sequence.start + r;
          const int end = shape.causal ? token + 1 : sequence.start + sequence.num_rows;
          const int low = shape.window > 0 ? std::max(0, token + 1 - shape.window) : 0;
          ASSERT_EQ(appended[static_cast<std::size_t>(r)], 1);
          ASSERT_EQ(seen[static_cast<std::size_t>(r)], end - low);
        }
      }
    }
  }
}

}  // namespace
}  // namespace mlxs::cpu
