// WeightCache: what is stored is found again, and nothing but the same model and layout ever finds it.
#include "backend/weight_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "backend/weight_cache_format.h"
#include "backend/weight_mapping.h"
#include "mlxs/error.h"
#include "support/temp_dir.h"

namespace mlxs {
namespace {

namespace fs = std::filesystem;
using test::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::string_view kModel = "98362432-1738911764-cd2d87a2", kLayout = "cpu-avx512-3";

// Collects the log while it lives.
class LogCapture {
 public:
  LogCapture() : before_(spdlog::default_logger()) {
    spdlog::set_default_logger(
        std::make_shared<spdlog::logger>("test", std::make_shared<spdlog::sinks::ostream_sink_mt>(out_)));
  }
  ~LogCapture() { spdlog::set_default_logger(before_); }
  std::string text() const { return out_.str(); }

 private:
  std::ostringstream out_;
  std::shared_ptr<spdlog::logger> before_;
};

void fill(std::span<std::byte> bytes, unsigned seed) {
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / 251 + seed);
}

bool holds(std::span<const std::byte> bytes, std::size_t size, unsigned seed) {
  std::vector<std::byte> wanted(size);
  fill(wanted, seed);
  return std::ranges::equal(bytes, wanted);
}

// Small ones that share a mapping, one that does not fit its rest, large ones with their own, an empty one.
const std::vector<std::pair<std::string, std::size_t>> kEntries{
    {"norm", 256},     {"bias", 1},       {"wide", 200000},  {"large", 300001},
    {"wide2", 250000}, {"wide3", 262143}, {"wide4", 262143}, {"wide5", 262143},
    {"huge", 3 << 20}, {"empty", 0},      {"", 64}};

void build(WeightCache& cache) {
  unsigned seed = 0;
  for (const auto& [key, size] : kEntries) fill(cache.create(key, size), seed++);
  cache.commit();
}

void expect_entries(const WeightCache& cache) {
  unsigned seed = 0;
  for (const auto& [key, size] : kEntries) {
    SCOPED_TRACE(key);
    const auto found = cache.find(key);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->size(), size);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(found->data()) % 64, 0u);
    EXPECT_TRUE(holds(*found, size, seed++));
  }
}

std::vector<fs::path> files_in(const fs::path& directory) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(directory)) files.push_back(entry.path());
  std::ranges::sort(files);
  return files;
}

fs::path only_file(const fs::path& directory) {
  const auto files = files_in(directory);
  EXPECT_EQ(files.size(), 1u);
  return files.empty() ? fs::path{} : files.front();
}

TEST(WeightCache, FindsWhatWasCommitted) {
  const TempDir dir;
  const fs::path packed = dir / "a/packed";
  {
    WeightCache cache(packed, kModel, kLayout);
    EXPECT_FALSE(cache.complete());
    EXPECT_FALSE(cache.find("norm").has_value());
    build(cache);
    EXPECT_TRUE(cache.complete());
    expect_entries(cache);
  }
  const WeightCache again(packed, kModel, kLayout);
  EXPECT_TRUE(again.complete());
  expect_entries(again);
  EXPECT_FALSE(again.find("other").has_value());
  EXPECT_EQ(only_file(packed).filename(), std::string(kModel) + ".cpu-avx512.packed");
}

TEST(WeightCache, SpansOutliveTheCacheThroughTheToken) {
  const TempDir dir;
  std::shared_ptr<const void> built_token, mapped_token;
  std::span<const std::byte> built, mapped;
  {
    WeightCache cache(dir.path(), kModel, kLayout);
    build(cache);
    built = *cache.find("huge");
    built_token = cache.keep_alive();
  }
  {
    const WeightCache cache(dir.path(), kModel, kLayout);
    mapped = *cache.find("huge");
    mapped_token = cache.keep_alive();
  }
  fs::remove_all(dir.path());
  EXPECT_TRUE(holds(built, 3 << 20, 8));
  EXPECT_TRUE(holds(mapped, 3 << 20, 8));
}

TEST(WeightCache, LeavesNothingBehindWithoutCommit) {
  const TempDir dir;
  {
    WeightCache cache(dir.path(), kModel, kLayout);
    fill(cache.create("x", 1 << 20), 1);
    EXPECT_EQ(files_in(dir.path()).size(), 1u);
  }
  EXPECT_TRUE(files_in(dir.path()).empty());
  const WeightCache again(dir.path(), kModel, kLayout);
  EXPECT_FALSE(again.complete());
}

TEST(WeightCache, OtherModelsHaveTheirOwnFiles) {
  const TempDir dir;
  WeightCache one(dir.path(), "one", kLayout), two(dir.path(), "two", kLayout),
      amx(dir.path(), "one", "cpu-amx-1");
  build(one);
  EXPECT_FALSE(WeightCache(dir.path(), "two", kLayout).complete());
  build(two);
  build(amx);
  EXPECT_EQ(files_in(dir.path()).size(), 3u);
  EXPECT_TRUE(WeightCache(dir.path(), "one", kLayout).complete());
  EXPECT_TRUE(WeightCache(dir.path(), "two", kLayout).complete());
  EXPECT_TRUE(WeightCache(dir.path(), "one", "cpu-amx-1").complete());
}

TEST(WeightCache, AwkwardFingerprintsStayInTheFolderAndApart) {
  const TempDir dir;
  const std::string longer(5000, 'x');
  for (const std::string& name :
       {std::string("../../etc/m"), std::string(".._.._etc_m"), longer, longer + "y"}) {
    WeightCache cache(dir / "packed", name, kLayout);
    EXPECT_FALSE(cache.complete()) << name;
    build(cache);
    EXPECT_TRUE(WeightCache(dir / "packed", name, kLayout).complete()) << name;
  }
  EXPECT_EQ(files_in(dir / "packed").size(), 4u);
  EXPECT_EQ(files_in(dir.path()).size(), 1u);
}

TEST(WeightCache, ANewLayoutVersionReplacesTheOldFile) {
  const TempDir dir;
  {
    WeightCache cache(dir.path(), kModel, kLayout);
    build(cache);
  }
  const LogCapture log;
  {
    WeightCache cache(dir.path(), kModel, "cpu-avx512-4");
    EXPECT_FALSE(cache.complete());
    EXPECT_THAT(log.text(),
                HasSubstr("its layout is cpu-avx512-3, not cpu-avx512-4: packing the weights again"));
    EXPECT_TRUE(files_in(dir.path()).empty());
    build(cache);
  }
  only_file(dir.path());
  EXPECT_TRUE(WeightCache(dir.path(), kModel, "cpu-avx512-4").complete());
}

TEST(WeightCache, ACopiedFileOfAnotherModelIsNotUsed) {
  const TempDir dir;
  {
    WeightCache cache(dir.path(), "one", kLayout);
    build(cache);
  }
  fs::rename(dir / "one.cpu-avx512.packed", dir / "two.cpu-avx512.packed");
  const LogCapture log;
  EXPECT_FALSE(WeightCache(dir.path(), "two", kLayout).complete());
  EXPECT_THAT(log.text(), HasSubstr("it was built from another file"));
}

class WeightCacheDamage : public ::testing::Test {
 protected:
  WeightCacheDamage() {
    WeightCache cache(dir_.path(), kModel, kLayout);
    fill(cache.create("norm", 100), 1);
    fill(cache.create("q", 100), 2);
    cache.commit();
    path_ = only_file(dir_.path());
    whole_ = test::read_file(path_);
  }
  // Opens the content: refused means the file is gone, the log says so and the cache can be built again.
  bool accepted(const std::string& content) {
    test::write_file(path_, content);
    const LogCapture log;
    const bool complete = WeightCache(dir_.path(), kModel, kLayout).complete();
    EXPECT_EQ(fs::exists(path_), complete);
    EXPECT_EQ(log.text().empty(), complete) << log.text();
    return complete;
  }
  // The file as another boot of the machine left it.
  std::string from_another_boot(std::string content) {
    CacheHeader header;
    EXPECT_EQ(decode_header(std::as_bytes(std::span(content)), header), "");
    header.boot_id = "another-boot";
    const auto bytes = encode_header(header);
    std::memcpy(content.data(), bytes.data(), bytes.size());
    return content;
  }

  TempDir dir_;
  fs::path path_;
  std::string whole_;
};

TEST_F(WeightCacheDamage, OfEachHeaderAndIndexByteIsFound) {
  ASSERT_TRUE(accepted(whole_));
  CacheHeader header;
  ASSERT_EQ(decode_header(std::as_bytes(std::span(whole_)), header), "");
  for (std::size_t i = 0; i < whole_.size(); ++i) {
    if (i >= kCacheHeaderBytes && i < header.index_offset) continue;
    for (const int flip : {0x01, 0x80, 0xff}) {
      std::string damaged = whole_;
      damaged[i] = static_cast<char>(damaged[i] ^ flip);
      ASSERT_FALSE(accepted(damaged)) << "byte " << i;
    }
  }
}

TEST_F(WeightCacheDamage, ByTruncationOrGrowthIsFound) {
  for (std::size_t size = 0; size < whole_.size(); size += size < 200 ? 1 : 4093) {
    ASSERT_FALSE(accepted(whole_.substr(0, size))) << size;
  }
  EXPECT_FALSE(accepted(whole_.substr(0, whole_.size() - 1)));
  EXPECT_FALSE(accepted(whole_ + "x"));
  EXPECT_FALSE(accepted(std::string(whole_.size(), '\0')));
}

TEST_F(WeightCacheDamage, OfEntriesIsFoundAfterABoot) {
  const std::string old = from_another_boot(whole_);
  ASSERT_TRUE(accepted(old));
  EXPECT_EQ(test::read_file(path_), whole_);  // verified once: now trusted for this boot
  const std::size_t data = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  for (const std::size_t at : {data, data + 99, data + 128}) {
    std::string damaged = old;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x80);
    EXPECT_FALSE(accepted(damaged)) << at;
  }
  std::string hole = old;
  std::fill_n(hole.begin() + static_cast<std::ptrdiff_t>(data), 4096, '\0');  // what a power failure leaves
  EXPECT_FALSE(accepted(hole));
}

TEST_F(WeightCacheDamage, InAnIndexWithAValidChecksumIsFound) {
  const auto with_entry = [&](CacheEntry entry) {
    CacheIndex index{std::string(kModel), std::string(kLayout), {{"norm", entry}}};
    CacheHeader header;
    EXPECT_EQ(decode_header(std::as_bytes(std::span(whole_)), header), "");
    const auto bytes = encode_index(index);
    header.index_bytes = bytes.size();
    header.index_checksum = cache_checksum(bytes);
    header.file_bytes = header.index_offset + bytes.size();
    std::string content = whole_.substr(0, header.index_offset);
    content.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const auto head = encode_header(header);
    std::memcpy(content.data(), head.data(), head.size());
    return content;
  };
  EXPECT_TRUE(accepted(with_entry({4096, 100, 0})));
  EXPECT_FALSE(accepted(with_entry({4097, 100, 0})));
  EXPECT_FALSE(accepted(with_entry({0, 100, 0})));
  EXPECT_FALSE(accepted(with_entry({4096, std::uint64_t{1} << 40, 0})));
  EXPECT_FALSE(accepted(with_entry({~std::uint64_t{63}, 128, 0})));
}

TEST(WeightCache, ACompleteFileThatLacksAnEntryGrowsByARebuild) {
  const TempDir dir;
  {
    WeightCache cache(dir.path(), kModel, kLayout);
    build(cache);
  }
  {
    WeightCache cache(dir.path(), kModel, kLayout);
    ASSERT_TRUE(cache.complete());
    fill(cache.create("added", 1000), 77);
    fill(cache.create("norm", 300), 78);  // stored anew
    cache.commit();
    fill(cache.create("later", 10), 79);  // a second commit keeps everything
    cache.commit();
  }
  const WeightCache cache(dir.path(), kModel, kLayout);
  EXPECT_TRUE(holds(*cache.find("added"), 1000, 77));
  EXPECT_TRUE(holds(*cache.find("norm"), 300, 78));
  EXPECT_TRUE(holds(*cache.find("later"), 10, 79));
  EXPECT_TRUE(holds(*cache.find("huge"), 3 << 20, 8));
  only_file(dir.path());
}

TEST(WeightCache, RefusesToCreateAKeyTwice) {
  const TempDir dir;
  WeightCache cache(dir.path(), kModel, kLayout);
  (void)cache.create("q", 10);
  EXPECT_THROW((void)cache.create("q", 10), Error);
}

TEST(WeightCache, WorksInMemoryWhereNothingCanBeWritten) {
  const TempDir dir;
  test::write_file(dir / "file", "not a folder");  // refuses root, too
  const LogCapture log;
  WeightCache cache(dir / "file/packed", kModel, kLayout);
  build(cache);
  expect_entries(cache);
  EXPECT_FALSE(cache.complete());
  const std::string text = log.text();
  EXPECT_THAT(text, HasSubstr("packed weights are kept in memory"));
  EXPECT_EQ(text.find("cannot be written"), text.rfind("cannot be written")) << "one warning is enough";
}

TEST(WeightCache, TwoBuildersAtOnceBothSucceed) {
  const TempDir dir;
  {
    WeightCache one(dir.path(), kModel, kLayout), two(dir.path(), kModel, kLayout);
    fill(one.create("norm", 256), 0);
    fill(two.create("norm", 256), 0);  // does not take the other's file for an orphan
    fill(one.create("last", 300000), 1);
    fill(two.create("last", 300000), 2);
    one.commit();
    two.commit();
    EXPECT_TRUE(holds(*one.find("last"), 300000, 1));
    EXPECT_TRUE(holds(*two.find("last"), 300000, 2));
  }
  only_file(dir.path());
  const WeightCache cache(dir.path(), kModel, kLayout);
  EXPECT_TRUE(holds(*cache.find("last"), 300000, 2));
}

TEST(WeightCache, RemovesWhatADeadBuilderLeft) {
  const TempDir dir;
  test::write_file(dir / (std::string(kModel) + ".cpu-avx512.packed.tmp-99999-0"), "half");
  test::write_file(dir / "other.cpu-avx512.packed.tmp-99999-0", "not ours");
  WeightCache cache(dir.path(), kModel, kLayout);
  build(cache);
  EXPECT_EQ(files_in(dir.path()).size(), 2u);
  EXPECT_TRUE(fs::exists(dir / "other.cpu-avx512.packed.tmp-99999-0"));
}

// Files of this process cannot grow beyond the limit while it lives: the disk is full.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

TEST(WeightCache, AFullDiskIsAnErrorThatNamesTheBytes) {
  const TempDir dir;
  {
    WeightCache cache(dir.path(), kModel, kLayout);
    const FileSizeLimit limit(4 << 20);
    fill(cache.create("small", 1000), 1);
    try {
      (void)cache.create("huge", 8 << 20);
      FAIL() << "the disk has no room for this";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kIo);
      EXPECT_THAT(error.full(),
                  AllOf(HasSubstr("cannot store 8388608 more bytes"), HasSubstr("MLXS_CACHE_DIR")));
    }
    EXPECT_TRUE(holds(*cache.find("small"), 1000, 1));
  }
  EXPECT_TRUE(files_in(dir.path()).empty());
}

TEST(WeightCache, ADiskThatFillsUpAtCommitCostsOnlyTheCache) {
  const TempDir dir;
  WeightCache cache(dir.path(), kModel, kLayout);
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  fill(cache.create("large", (1 << 20) - page), 1);  // the file is 1 MiB now: no room for the index
  const LogCapture log;
  {
    const FileSizeLimit limit(1 << 20);
    cache.commit();
  }
  EXPECT_FALSE(cache.complete());
  EXPECT_TRUE(holds(*cache.find("large"), (1 << 20) - page, 1));
  EXPECT_THAT(log.text(), HasSubstr("cannot be published"));
  EXPECT_TRUE(files_in(dir.path()).empty());
}

// Addresses and contents stay while the mapped file turns into memory, piece by piece.
TEST(WeightCache, AFoundFileMovesIntoHugePages) {
  const TempDir dir;
  constexpr std::size_t kBytes = (11u << 20) + 333;
  {
    WeightCache cache(dir.path(), kModel, kLayout);
    fill(cache.create("first", kBytes), 1);
    fill(cache.create("second", 100), 2);
    EXPECT_EQ(cache.mapping(), nullptr);
    cache.commit();
    EXPECT_EQ(cache.mapping(), nullptr) << "what was built lies in many mappings";
  }
  std::shared_ptr<WeightMapping> mapping;
  std::shared_ptr<const void> token;
  std::span<const std::byte> first, second;
  {
    const WeightCache cache(dir.path(), kModel, kLayout);
    mapping = cache.mapping();
    token = cache.keep_alive();
    first = *cache.find("first");
    second = *cache.find("second");
  }
  ASSERT_NE(mapping, nullptr);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(mapping->span().data()) % (2u << 20), 0u);
  EXPECT_FALSE(mapping->can_move(kBytes)) << "half of the memory at most";
  ThreadPool pool(2);
  int pieces = 0;
  for (bool more = true; more; ++pieces) {
    ASSERT_LT(pieces, 100);
    more = mapping->move(pool, 1);
    EXPECT_TRUE(holds(first, kBytes, 1)) << pieces;
    EXPECT_TRUE(holds(second, 100, 2)) << pieces;
  }
#ifdef __linux__
  EXPECT_EQ(pieces, 3) << "10 MiB, a huge page for each of two threads at a time; the rest stays";
#endif
  EXPECT_FALSE(mapping->move(pool, 1 << 30));
}

TEST(WeightCacheFormat, ChecksumSeesEveryBit) {
  std::vector<std::byte> bytes(100);
  fill(bytes, 5);
  std::vector<std::uint64_t> sums{cache_checksum(bytes), cache_checksum(std::span(bytes).first(99)),
                                  cache_checksum({})};
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
    sums.push_back(cache_checksum(bytes));
    bytes[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
  }
  std::ranges::sort(sums);
  EXPECT_EQ(std::ranges::adjacent_find(sums), sums.end());
}

}  // namespace
}  // namespace mlxs
