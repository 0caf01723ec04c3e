#include "backend/cpu/kv_store.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "mlxs/error.h"

namespace mlxs::cpu {
namespace {

KvSpec small(DType type = DType::kBF16) {
  return {.layers = 3, .kv_heads = 2, .key_dim = 80, .value_dim = 48, .num_pages = 5, .type = type};
}

TEST(KvStore, BlocksTileThePagesExactly) {
  for (const DType type : {DType::kBF16, DType::kI8}) {
    const CpuKvStore kv(small(type));
    const KvLayout& layout = kv.layout();
    const std::size_t element = type == DType::kBF16 ? 2 : 1;
    EXPECT_EQ(layout.key_padded, 96);
    EXPECT_EQ(layout.value_padded, 48);
    EXPECT_EQ(layout.value_offset, 96 * 16 * element);
    EXPECT_EQ(layout.block_bytes, (96 + 48) * 16 * element + (layout.int8 ? 128 : 0));
    EXPECT_EQ(layout.block_bytes % 64, 0u);
    EXPECT_EQ(kv.page_bytes(), 6 * layout.block_bytes);
    EXPECT_EQ(kv.bytes(), 5 * kv.page_bytes());
    for (int layer = 0; layer < 3; ++layer) {
      for (int head = 0; head < 2; ++head) {
        EXPECT_EQ(
            kv.blocks(layer, head) - kv.blocks(0, 0),
            static_cast<std::ptrdiff_t>(static_cast<std::size_t>(layer * 2 + head) * layout.block_bytes));
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(kv.blocks(layer, head)) % 64, 0u);
      }
    }
  }
}

TEST(KvStore, CopiesAllLayersOfOnePageOnly) {
  CpuKvStore kv(small());
  std::byte* base = kv.blocks(0, 0);
  for (std::size_t page = 0; page < 5; ++page) {
    for (std::size_t i = 0; i < kv.page_bytes(); ++i) {
      base[page * kv.page_bytes() + i] = static_cast<std::byte>(page * 31 + i * 7);
    }
  }
  kv.copy_page(1, 3);
  kv.copy_page(2, 2);
  for (std::size_t page = 0; page < 5; ++page) {
    const std::size_t source = page == 3 ? 1 : page;
    for (std::size_t i = 0; i < kv.page_bytes(); ++i) {
      ASSERT_EQ(base[page * kv.page_bytes() + i], static_cast<std::byte>(source * 31 + i * 7))
          << page << " " << i;
    }
  }
}

// Layers 0 and 2 of three have pages of their own: each page is written, copied and read by itself.
TEST(KvStore, WindowedLayersHavePagesOfTheirOwn) {
  KvSpec spec = small();
  spec.windowed = {true, false, true};
  spec.num_window_pages = 2;
  CpuKvStore kv(spec);
  const std::size_t layer = 2 * kv.layout().block_bytes;
  EXPECT_EQ(kv.page_bytes(), 3 * layer);
  EXPECT_EQ(kv.bytes(), (5 * 1 + 2 * 2) * layer);
  EXPECT_EQ(kv.stride(0), 2 * layer);
  EXPECT_EQ(kv.stride(1), layer);
  EXPECT_EQ(kv.blocks(0, 0), kv.blocks(1, 0) + 5 * layer) << "behind the others";
  EXPECT_EQ(kv.blocks(2, 1), kv.blocks(0, 0) + layer + layer / 2);

  const auto fill = [&](PageId page, PageId window, int with) {
    kv.write_page(page, window, std::vector<std::byte>(kv.page_bytes(), static_cast<std::byte>(with)));
  };
  for (PageId page = 0; page < 5; ++page) fill(page, -1, page + 1);
  fill(0, 1, 9);
  kv.copy_page(2, 3);
  kv.copy_window_page(1, 0);
  std::vector<std::byte> read(kv.page_bytes());
  kv.read_page(3, 0, read);
  EXPECT_EQ(read.front(), std::byte{3});
  EXPECT_EQ(read[layer - 1], std::byte{3});
  EXPECT_EQ(read[layer], std::byte{9});
  EXPECT_EQ(read.back(), std::byte{9});
  kv.read_page(4, -1, read);
  EXPECT_EQ(read.front(), std::byte{5});
  EXPECT_EQ(read.back(), std::byte{9}) << "left alone";
}

TEST(KvStore, ReservesWithoutTouching) {
  KvSpec spec{.layers = 30, .kv_heads = 3, .key_dim = 64, .value_dim = 64, .num_pages = 4096};  // 1.5 GB
  const CpuKvStore kv(spec);
  EXPECT_EQ(kv.bytes(), std::size_t{4096} * 30 * 3 * 4096);
  const std::byte* last = kv.blocks(29, 2) + std::size_t{4095} * kv.page_bytes();
  EXPECT_EQ(last[kv.layout().block_bytes - 1], std::byte{0});  // the last byte is there, and zero
}

TEST(KvStore, RefusesWhatCannotFitWithTheFigures) {
  KvSpec spec = small();
  spec.layers = 1000;
  spec.kv_heads = 100;
  spec.num_pages = 1 << 30;
  try {
    const CpuKvStore kv(spec);
    FAIL() << "no machine has that much memory";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
    EXPECT_NE(std::string(error.what()).find("1073741824 pages"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("MiB"), std::string::npos) << error.what();
    EXPECT_FALSE(error.hint().empty());
  }
}

TEST(KvStore, RefusesWrongShapesAndTypes) {
  const auto refused = [](auto change, const char* named) {
    KvSpec spec = small();
    change(spec);
    try {
      const CpuKvStore kv(spec);
      ADD_FAILURE() << named << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find(named), std::string::npos) << error.what();
    }
  };
  refused([](KvSpec& s) { s.layers = 0; }, "layers");
  refused([](KvSpec& s) { s.kv_heads = -1; }, "kv_heads");
  refused([](KvSpec& s) { s.num_pages = 0; }, "num_pages");
  refused([](KvSpec& s) { s.key_dim = 2048; }, "key_dim");
  refused([](KvSpec& s) { s.value_dim = 0; }, "value_dim");
  refused([](KvSpec& s) { s.type = DType::kQ4_1; }, "Q4_1");
  refused([](KvSpec& s) { s.windowed = {true}; }, "layers");
  refused([](KvSpec& s) { s.windowed = {true, false, true}; }, "num_window_pages");
  refused([](KvSpec& s) { s.num_window_pages = 3; }, "num_window_pages");
}

}  // namespace
}  // namespace mlxs::cpu
