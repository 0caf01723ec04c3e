// Names: aliases, cached models, paths, mistakes; and removing models with what belongs to them.
#include "formats/catalog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>

#include "formats/model_file.h"
#include "formats/near_names.h"
#include "gguf_samples.h"
#include "mlxs/error.h"
#include "support/temp_dir.h"

namespace mlxs {
namespace {

namespace fs = std::filesystem;
using test::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// Sets an environment variable (nullopt: unsets it) for the scope.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, std::optional<std::string> value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    set(value);
  }
  ~ScopedVariable() { set(before_); }

 private:
  void set(const std::optional<std::string>& value) {
    value ? ::setenv(name_, value->c_str(), 1) : ::unsetenv(name_);
  }
  const char* name_;
  std::optional<std::string> before_;
};

class CatalogTest : public ::testing::Test {
 protected:
  fs::path add_cached(std::string_view name, std::string_view file = "model.gguf") {
    const fs::path folder = dir_.path() / "cache/models" / name;
    fs::create_directories(folder);
    test::sample_model().write(folder / file);
    return folder / file;
  }
  std::string unknown(std::string_view name) {
    try {
      return catalog_.resolve(name).string();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kModelNotFound);
      return error.full();
    }
  }

  TempDir dir_;
  Catalog catalog_{dir_ / "cache", HubCache(dir_ / "hub")};
};

TEST(CacheDirectory, FollowsTheEnvironment) {
  const ScopedVariable home("HOME", "/home/someone");
  {
    const ScopedVariable own("MLXS_CACHE_DIR", "/data/cache"), xdg("XDG_CACHE_HOME", "/xdg");
    EXPECT_EQ(cache_directory(), "/data/cache");
  }
  const ScopedVariable own("MLXS_CACHE_DIR", "");
  {
    const ScopedVariable xdg("XDG_CACHE_HOME", "/xdg");
    EXPECT_EQ(cache_directory(), "/xdg/mlx-serving");
  }
  {
    const ScopedVariable xdg("XDG_CACHE_HOME", "relative/is/ignored");
    EXPECT_EQ(cache_directory(), "/home/someone/.cache/mlx-serving");
  }
  const ScopedVariable xdg("XDG_CACHE_HOME", std::nullopt);
  EXPECT_EQ(cache_directory(), "/home/someone/.cache/mlx-serving");
}

TEST_F(CatalogTest, ListsWhatIsInTheCache) {
  EXPECT_THAT(catalog_.list(), IsEmpty());
  const fs::path file = add_cached("smollm2");
  (void)add_cached("org/repo");
  (void)add_cached("org/two", "a.gguf");
  (void)add_cached("org/two", "b.gguf");
  (void)add_cached(".hidden");
  fs::create_directories(dir_ / "cache/models/nothing-in-it");
  const auto entries = catalog_.list();
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(entries[0].name, "org/repo");
  EXPECT_EQ(entries[1].name, "org/two");
  EXPECT_EQ(entries[1].path, dir_ / "cache/models/org/two");  // two files: the folder
  EXPECT_EQ(entries[2].name, "smollm2");
  EXPECT_EQ(entries[2].path, file);
  EXPECT_EQ(entries[2].bytes, fs::file_size(file));
  EXPECT_EQ(entries[1].bytes, 2 * entries[2].bytes);
  EXPECT_GT(entries[2].modified_unix_s, 1'600'000'000);
}

TEST_F(CatalogTest, ResolvesAliasesPathsAndCachedNames) {
  EXPECT_THAT(catalog_.aliases(), ElementsAre("smollm2", "minilm"));
  EXPECT_THAT(unknown("smollm2"),
              HasSubstr("model 'smollm2' is not downloaded yet (run `mlx-serving pull smollm2`)"));
  const fs::path cached = add_cached("smollm2"), repo = add_cached("org/repo");
  EXPECT_EQ(catalog_.resolve("smollm2"), cached);
  EXPECT_EQ(catalog_.resolve("org/repo"), repo);
  EXPECT_EQ(catalog_.resolve(cached.string()), cached);
  EXPECT_EQ(catalog_.resolve(cached.parent_path().string()), cached.parent_path());
  EXPECT_EQ(catalog_.pull("org/repo", {}), repo);
}

TEST_F(CatalogTest, NamesWhatIsServed) {
  const fs::path cached = add_cached("smollm2"), repo = add_cached("org/repo");
  fs::create_directories(dir_ / "my-model");
  test::sample_model().write(dir_ / "my-model/Tiny.Q4_1.gguf");
  EXPECT_EQ(catalog_.display_name("smollm2"), "smollm2");
  EXPECT_EQ(catalog_.display_name("org/repo"), "org/repo");
  EXPECT_EQ(catalog_.display_name(cached.string()), "smollm2");
  EXPECT_EQ(catalog_.display_name((dir_ / "my-model/Tiny.Q4_1.gguf").string()), "Tiny.Q4_1");
  EXPECT_EQ(catalog_.display_name((dir_ / "my-model").string()), "my-model");
  EXPECT_EQ(catalog_.display_name((dir_ / "my-model").string() + "/"), "my-model");
}

TEST_F(CatalogTest, SuggestsNearNames) {
  (void)add_cached("org/repository");
  test::sample_model().write(dir_ / "Tiny.Q4_1.gguf");
  EXPECT_THAT(unknown("smolm2"),
              AllOf(HasSubstr("there is no model 'smolm2'"), HasSubstr("did you mean smollm2?")));
  EXPECT_THAT(unknown("SMOLLM"), HasSubstr("did you mean smollm2?"));
  EXPECT_THAT(unknown("org/repositroy"), AllOf(HasSubstr("model 'org/repositroy' is not downloaded yet"),
                                               HasSubstr("did you mean org/repository?")));
  EXPECT_THAT(unknown((dir_ / "Tiny.Q4_0.gguf").string()),
              AllOf(HasSubstr("there is no file or folder"),
                    HasSubstr("did you mean " + (dir_ / "Tiny.Q4_1.gguf").string() + "?")));
  EXPECT_THAT(unknown((dir_ / "absent/model.gguf").string()),
              HasSubstr("the folder '" + (dir_ / "absent").string() + "' does not exist"));
  EXPECT_THAT(unknown("something else entirely"), Not(HasSubstr("did you mean")));
  EXPECT_THAT(unknown(""), HasSubstr("the model's name is empty"));
  EXPECT_THAT(unknown("./\xc3\xb6.gguf"), HasSubstr("'./ö.gguf'"));
  EXPECT_THAT(unknown("./\xf6\n.gguf"), HasSubstr("'./\\xf6\\n.gguf'"));
  std::string longer(63, 'a');
  for (int i = 0; i < 9; ++i) longer += "ö";
  EXPECT_THAT(unknown(longer), HasSubstr("aa… (81 bytes)'"));
  EXPECT_THROW((void)catalog_.pull("./unknown", {}), Error);
  EXPECT_THROW((void)catalog_.remove("org/unknown"), Error);
}

TEST_F(CatalogTest, RemovesAModelWithItsPackedWeights) {
  const fs::path file = add_cached("org/repo");
  (void)add_cached("smollm2");
  const fs::path packed = dir_ / "cache/packed";
  fs::create_directories(packed);
  const std::string fingerprint = ModelFile::open(file)->fingerprint();
  test::write_file(packed / (fingerprint + ".cpu-avx512.packed"), "12345");
  test::write_file(packed / (fingerprint + ".cpu-amx.packed"), "123");
  test::write_file(packed / "1-2-3.cpu-avx512.packed", "of another model");
  const auto model_bytes = fs::file_size(file);
  EXPECT_EQ(catalog_.remove("org/repo").bytes, model_bytes + 8);
  EXPECT_FALSE(fs::exists(dir_ / "cache/models/org"));
  EXPECT_TRUE(fs::exists(packed / "1-2-3.cpu-avx512.packed"));
  EXPECT_EQ(catalog_.list().size(), 1u);
  EXPECT_THROW((void)catalog_.remove("org/repo"), Error);
}

TEST_F(CatalogTest, OfAFileOfOnesOwnOnlyThePackedWeightsGo) {
  const fs::path file = dir_ / "mine/own.gguf";
  fs::create_directories(file.parent_path());
  test::sample_model().write(file);
  const fs::path packed = dir_ / "cache/packed";
  fs::create_directories(packed);
  test::write_file(packed / (ModelFile::open(file)->fingerprint() + ".cpu-amx.packed"), "123");
  test::write_file(packed / "1-2-3.cpu-avx512.packed", "of another model");
  const Removed removed = catalog_.remove(file.string());
  EXPECT_EQ(removed.bytes, 3u);
  EXPECT_TRUE(removed.model_stays);
  EXPECT_TRUE(fs::exists(file));
  EXPECT_TRUE(fs::exists(packed / "1-2-3.cpu-avx512.packed"));
  EXPECT_EQ(catalog_.remove(file.parent_path().string()).bytes, 0u);
  EXPECT_TRUE(fs::exists(file));
}

TEST_F(CatalogTest, RemovesADamagedModelAndAHalfFinishedPull) {
  fs::create_directories(dir_ / "cache/models/smollm2");
  fs::create_directories(dir_ / "cache/staging/smollm2");
  test::write_file(dir_ / "cache/models/smollm2/m.gguf", "damaged");
  test::write_file(dir_ / "cache/staging/smollm2/archive", "half");
  EXPECT_EQ(catalog_.remove("smollm2").bytes, 11u);
  test::write_file((fs::create_directories(dir_ / "cache/staging/smollm2"), dir_ / "cache/staging/smollm2/a"),
                   "abc");
  EXPECT_EQ(catalog_.remove("smollm2").bytes, 3u);
  EXPECT_THROW((void)catalog_.remove("smollm2"), Error);
}

TEST_F(CatalogTest, NamesNeverLeaveTheCache) {
  test::sample_model().write(dir_ / "outside.gguf");
  for (const char* name : {"..", "../..", "/", ".", "models/.."}) {
    EXPECT_THROW((void)catalog_.remove(name), Error) << name;
  }
  EXPECT_TRUE(fs::exists(dir_ / "outside.gguf"));
}

TEST(NearNames, CountsEdits) {
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("abc", "abc"), 0u);
  EXPECT_EQ(edit_distance("ABC", "abc"), 0u);
  EXPECT_EQ(edit_distance("abc", "acb"), 1u);  // a swap
  EXPECT_EQ(edit_distance("abcd", "acbd"), 1u);
  EXPECT_EQ(edit_distance("abc", "axc"), 1u);
  EXPECT_EQ(edit_distance("abc", "ab"), 1u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
}

TEST(NearNames, NearestFirstWithoutDuplicates) {
  EXPECT_THAT(near_names("smolm2", {"llama3", "smollm2", "smollm3", "smollm2"}),
              ElementsAre("smollm2", "smollm3"));
  EXPECT_THAT(near_names("smo", {"smollm2-instruct"}), ElementsAre("smollm2-instruct"));
  EXPECT_THAT(near_names("aaaa1", {"aaaa5", "aaaa4", "aaaa3", "aaaa2"}),
              ElementsAre("aaaa2", "aaaa3", "aaaa4"));
  EXPECT_THAT(near_names("x", {"abcdef"}), IsEmpty());
}

}  // namespace
}  // namespace mlxs
