// The disk tier's files: what comes back after a restart, and that nothing damaged ever does.
#include "kv/page_store.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <future>
#include <iterator>
#include <numeric>
#include <thread>

#include "kv/page_file.h"
#include "mlxs/error.h"
#include "support/temp_dir.h"

namespace mlxs {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kPageBytes = 5000;

std::vector<PageName> names_of(TokenId first, int pages, std::uint64_t salt = 0) {
  std::vector<TokenId> tokens(static_cast<std::size_t>(pages * kPageTokens + 1));
  std::iota(tokens.begin(), tokens.end(), first);
  return page_names(root_name("test", salt), tokens);
}

// Bytes that depend on the name, so that a mix-up shows.
PageBytes page_of(const PageName& name) {
  PageBytes bytes(kPageBytes);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(name.digest[i % name.digest.size()] + i / 256);
  }
  return bytes;
}

std::vector<PageBytes> read(PageStore& store, std::vector<PageName> names) {
  std::promise<std::vector<PageBytes>> promise;
  store.get(std::move(names), [&](std::vector<PageBytes> pages) { promise.set_value(std::move(pages)); });
  return promise.get_future().get();
}

void put_all(PageStore& store, std::span<const PageName> names) {
  for (const PageName& name : names) {
    while (!store.put(name, page_of(name))) store.wait_for_room(std::chrono::milliseconds(100));
  }
}

void expect_pages(const std::vector<PageBytes>& pages, std::span<const PageName> names) {
  ASSERT_EQ(pages.size(), names.size());
  for (std::size_t i = 0; i < pages.size(); ++i) EXPECT_EQ(pages[i], page_of(names[i])) << i;
}

std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file() && entry.path().filename() != "lock") files.push_back(entry.path());
  }
  return files;
}

TEST(PageName, DependsOnEverythingBefore) {
  const auto a = names_of(0, 3);
  EXPECT_EQ(a, names_of(0, 3));
  EXPECT_NE(a[1], names_of(0, 3, 7)[1]) << "salt";
  EXPECT_NE(a[0], names_of(1, 3)[0]);
  std::vector<TokenId> changed(49);
  std::iota(changed.begin(), changed.end(), 0);
  changed[0] = 99;
  EXPECT_NE(a[2], page_names(root_name("test", 0), changed)[2]) << "a token long before";
  EXPECT_NE(root_name("a", 0), root_name("b", 0));
  EXPECT_EQ(names_of(0, 3).size(), 3u);
  EXPECT_TRUE(page_names(root_name("test", 0), std::vector<TokenId>(16)).empty())
      << "the last token is computed again";
}

TEST(PageName, ReadsWhatItWrites) {
  const PageName name = names_of(0, 1)[0];
  PageName other;
  EXPECT_TRUE(other.parse(name.hex()));
  EXPECT_EQ(other, name);
  for (const std::string wrong : {"", "ab", "../../../etc/passwd"}) EXPECT_FALSE(other.parse(wrong));
  EXPECT_FALSE(other.parse(std::string(64, 'G')));
  EXPECT_FALSE(other.parse(std::string(64, 'A'))) << "one file, one name";
  EXPECT_EQ(other, name);
}

TEST(PageStore, KeepsPagesOverARestart) {
  const test::TempDir folder;
  const auto names = names_of(0, 5);
  {
    PageStore store(folder.path() / "kv", 1 << 20);
    put_all(store, names);
  }
  PageStore store(folder.path() / "kv", 1 << 20);
  EXPECT_EQ(store.count_present(names), 5u);
  EXPECT_EQ(store.stats().files, 5u);
  EXPECT_EQ(store.stats().bytes, 5 * page_file_bytes(kPageBytes));
  expect_pages(read(store, names), names);
  EXPECT_EQ(store.stats().read, 5u);
  EXPECT_EQ(store.count_present(names_of(700, 2)), 0u);
  EXPECT_TRUE(read(store, names_of(700, 2)).empty());
  EXPECT_EQ(fs::status(folder.path() / "kv").permissions(), fs::perms::owner_all);
}

TEST(PageStore, OneProcessAtATime) {
  const test::TempDir folder;
  const PageStore store(folder.path(), 1 << 20);
  try {
    PageStore second(folder.path(), 1 << 20);
    FAIL() << "two stores in one folder";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
  }
}

// Every byte of a file counts: whichever is wrong or missing, the page does not come back.
TEST(PageStore, DamagedFilesAreNeverUsed) {
  const test::TempDir folder;
  const auto names = names_of(0, 1);
  {
    PageStore store(folder.path(), 1 << 20);
    put_all(store, names);
  }
  const fs::path file = files_in(folder.path()).at(0);
  std::ifstream in(file, std::ios::binary);
  const std::string whole{std::istreambuf_iterator<char>(in), {}};
  ASSERT_EQ(whole.size(), page_file_bytes(kPageBytes));
  std::vector<std::string> damaged{"", whole.substr(0, 20), whole.substr(0, 48),
                                   whole.substr(0, whole.size() - 1), whole + "x"};
  for (std::size_t at = 0; at < whole.size(); at += at < 64 ? 1 : 97) {
    damaged.push_back(whole);
    damaged.back()[at] = static_cast<char>(damaged.back()[at] ^ 4);
  }
  for (const std::string& content : damaged) {
    std::ofstream(file, std::ios::binary | std::ios::trunc) << content;
    PageStore store(folder.path(), 1 << 20);
    EXPECT_TRUE(read(store, names).empty());
    EXPECT_EQ(store.stats().damaged, 1u);
    EXPECT_FALSE(store.contains(names[0]));
    EXPECT_FALSE(fs::exists(file)) << "rubbish takes no room";
  }
}

TEST(PageStore, APageUnderAnothersNameIsNotThatPage) {
  const test::TempDir folder;
  const auto names = names_of(0, 2);
  {
    PageStore store(folder.path(), 1 << 20);
    put_all(store, std::span(names).first(1));
  }
  const fs::path file = files_in(folder.path()).at(0);
  const std::string hex = names[1].hex();
  fs::create_directories(folder.path() / hex.substr(0, 2));
  fs::rename(file, folder.path() / hex.substr(0, 2) / (hex + ".kv"));
  PageStore store(folder.path(), 1 << 20);
  EXPECT_TRUE(read(store, {names[1]}).empty());
}

TEST(PageStore, DeletesTheLeastRecentlyUsed) {
  const test::TempDir folder;
  const std::uint64_t file = page_file_bytes(kPageBytes);
  const auto a = names_of(0, 3), b = names_of(1000, 3), c = names_of(2000, 3);
  {
    PageStore store(folder.path(), 6 * file);
    put_all(store, a);
    put_all(store, b);
    while (store.stats().written < 6) std::this_thread::yield();
    store.touch(a);
    put_all(store, c);
  }
  {
    PageStore store(folder.path(), 6 * file);
    EXPECT_EQ(store.count_present(a), 3u);
    EXPECT_EQ(store.count_present(b), 0u);
    EXPECT_EQ(store.count_present(c), 3u);
    expect_pages(read(store, a), a);  // its files are the newest now
  }
  PageStore smaller(folder.path(), 4 * file);
  EXPECT_EQ(smaller.count_present(a), 3u)
      << "a smaller limit holds from the start, and times outlive the process";
  EXPECT_EQ(smaller.stats().files, 4u);
  EXPECT_EQ(files_in(folder.path()).size(), 4u);
  EXPECT_FALSE(smaller.put(names_of(5000, 1)[0], PageBytes(5 * kPageBytes))) << "it could never fit";
}

TEST(PageStore, RemovesAlsoWhatWaitsToBeWritten) {
  const test::TempDir folder;
  const auto names = names_of(0, 40);
  {
    PageStore store(folder.path(), 1 << 20);
    put_all(store, names);
    store.remove({names.begin() + 10, names.end()});
  }
  PageStore store(folder.path(), 1 << 20);
  EXPECT_EQ(store.stats().files, 10u);
  EXPECT_EQ(store.count_present(names), 10u);
  put_all(store, names);
  EXPECT_FALSE(store.put(names_of(900, 1)[0], {})) << "no page is empty";
}

TEST(PageStore, AFullDiskCostsHitsOnly) {
  const test::TempDir folder;
  const auto names = names_of(0, 1);
  PageStore store(folder.path(), 1 << 20);
  std::ofstream(folder.path() / names[0].hex().substr(0, 2)) << "a file where the store wants a folder";
  put_all(store, names);
  while (store.stats().failed_writes == 0) std::this_thread::yield();
  EXPECT_FALSE(store.contains(names[0]));
}

// The process dies in the middle of writing, again and again: whatever a later one reads is whole.
TEST(PageStore, AKilledWriterLeavesWholePagesOnly) {
  const test::TempDir folder;
  std::size_t recovered = 0;
  for (int round = 0; round < 8; ++round) {
    int pipe_ends[2];
    ASSERT_EQ(pipe(pipe_ends), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      PageStore store(folder.path(), std::uint64_t{1} << 30);
      const auto names = names_of(round * 100'000, 2000);
      put_all(store, names);
      while (store.stats().written < static_cast<std::uint64_t>(20 + round * 31)) std::this_thread::yield();
      (void)!write(pipe_ends[1], "x", 1);
      for (;;) pause();
    }
    close(pipe_ends[1]);
    char byte = 0;
    EXPECT_EQ(::read(pipe_ends[0], &byte, 1), 1);
    ASSERT_EQ(kill(child, SIGKILL), 0);
    ASSERT_EQ(waitpid(child, nullptr, 0), child);
    close(pipe_ends[0]);

    PageStore store(folder.path(), std::uint64_t{1} << 30);
    const auto names = names_of(round * 100'000, 2000);
    const std::size_t present = store.count_present(names);
    EXPECT_GE(present, 20u);
    expect_pages(read(store, {names.begin(), names.begin() + static_cast<std::ptrdiff_t>(present)}),
                 std::span(names).first(present));
    EXPECT_EQ(store.stats().damaged, 0u) << "files are renamed into place when they are whole";
    recovered += present;
  }
  EXPECT_GT(recovered, 160u);
  for (const fs::path& file : files_in(folder.path())) EXPECT_EQ(file.extension(), ".kv") << file;
}

}  // namespace
}  // namespace mlxs
