// What ModelFile reads from a sound file, from a folder, and from the real default model.
#include "formats/model_file.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <random>

#include "formats/ggml_types.h"
#include "gguf_samples.h"
#include "support/temp_dir.h"

namespace mlxs {
namespace {

using test::GgufWriter;
using test::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string open_error(const std::filesystem::path& path) {
  try {
    (void)ModelFile::open(path);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kModelLoad);
    return error.full();
  }
  ADD_FAILURE() << path << " was accepted";
  return {};
}

TEST(ModelFile, ReadsEveryKindOfMetadata) {
  const auto bytes = test::sample_model().build();
  const auto file = test::open_built(bytes);
  EXPECT_EQ(file->format(), "gguf");
  EXPECT_EQ(file->architecture(), "llama");
  EXPECT_EQ(file->file_bytes(), bytes.size());
  EXPECT_EQ(file->metadata().size(), 8u);
  EXPECT_EQ(file->get_int("llama.block_count"), 30);
  EXPECT_DOUBLE_EQ(file->get_float("llama.rope.freq_base"), 10000.5);
  EXPECT_DOUBLE_EQ(file->get_float("llama.block_count"), 30.0);  // an integer serves as a float
  EXPECT_TRUE(file->get_bool("tokenizer.ggml.add_bos_token"));
  EXPECT_EQ(file->get_string("general.name"), "sample");
  EXPECT_THAT(*file->find_strings("tokenizer.ggml.tokens"), ElementsAre("a", "", "\xf0\x9f\x98\x80"));
  EXPECT_THAT(*file->find_ints("tokenizer.ggml.token_type"), ElementsAre(1, -2, 3));
  EXPECT_THAT(*file->find_floats("tokenizer.ggml.scores"), ElementsAre(0.5, -1.0));
  EXPECT_TRUE(file->has("general.name"));
  EXPECT_FALSE(file->has("general.nam"));
}

TEST(ModelFile, ReadsEveryScalarAndElementType) {
  GgufWriter writer;
  writer.add_entry("u8", 0, std::uint8_t{255})
      .add_entry("i8", 1, std::int8_t{-128})
      .add_entry("u16", 2, std::uint16_t{65535})
      .add_entry("i16", 3, std::int16_t{-32768})
      .add_entry("u32", 4, std::uint32_t{4294967295})
      .add_entry("i32", 5, std::int32_t{-2147483647 - 1})
      .add_entry("u64", 10, std::uint64_t{1} << 62)
      .add_entry("i64", 11, std::int64_t{-1} << 62)
      .add_entry("f64", 12, 0.1)
      .add_list("u8s", 0, std::vector<std::uint8_t>{0, 255})
      .add_list("i8s", 1, std::vector<std::int8_t>{-128, 127})
      .add_list("u16s", 2, std::vector<std::uint16_t>{65535})
      .add_list("i16s", 3, std::vector<std::int16_t>{-32768})
      .add_list("u32s", 4, std::vector<std::uint32_t>{4294967295})
      .add_list("bools", 7, std::vector<std::uint8_t>{1, 0})
      .add_list("u64s", 10, std::vector<std::uint64_t>{1})
      .add_list("i64s", 11, std::vector<std::int64_t>{-1})
      .add_list("f64s", 12, std::vector<double>{0.1})
      .add_list("none", 8, std::vector<std::uint8_t>{});
  const auto bytes = writer.build();
  const auto file = test::open_built(bytes);
  EXPECT_EQ(file->get_int("u8"), 255);
  EXPECT_EQ(file->get_int("i8"), -128);
  EXPECT_EQ(file->get_int("u16"), 65535);
  EXPECT_EQ(file->get_int("i16"), -32768);
  EXPECT_EQ(file->get_int("u32"), 4294967295);
  EXPECT_EQ(file->get_int("i32"), -2147483648);
  EXPECT_EQ(file->get_int("u64"), std::int64_t{1} << 62);
  EXPECT_EQ(file->get_int("i64"), std::int64_t{-1} << 62);
  EXPECT_EQ(file->get_float("f64"), 0.1);
  EXPECT_THAT(*file->find_ints("u8s"), ElementsAre(0, 255));
  EXPECT_THAT(*file->find_ints("i8s"), ElementsAre(-128, 127));
  EXPECT_THAT(*file->find_ints("u16s"), ElementsAre(65535));
  EXPECT_THAT(*file->find_ints("i16s"), ElementsAre(-32768));
  EXPECT_THAT(*file->find_ints("u32s"), ElementsAre(4294967295));
  EXPECT_THAT(*file->find_ints("bools"), ElementsAre(1, 0));
  EXPECT_THAT(*file->find_ints("u64s"), ElementsAre(1));
  EXPECT_THAT(*file->find_ints("i64s"), ElementsAre(-1));
  EXPECT_THAT(*file->find_floats("f64s"), ElementsAre(0.1));
  EXPECT_TRUE(file->find_strings("none")->empty());
}

TEST(ModelFile, FallsBackOnlyWhereTheKeyIsAbsent) {
  const auto bytes = test::sample_model().build();
  const auto file = test::open_built(bytes);
  EXPECT_EQ(file->get_int("absent", 7), 7);
  EXPECT_EQ(file->get_string("absent", "x"), "x");
  EXPECT_EQ(file->find_ints("absent"), nullptr);
  const auto message_of = [](auto&& call) -> std::string {
    try {
      call();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kModelLoad);
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(message_of([&] { (void)file->get_int("absent"); }),
            "model.gguf: metadata 'absent' is missing (an integer)");
  EXPECT_EQ(message_of([&] { (void)file->get_int("general.name", 7); }),
            "model.gguf: metadata 'general.name' is a string, an integer was expected");
  EXPECT_EQ(message_of([&] { (void)file->get_bool("llama.block_count"); }),
            "model.gguf: metadata 'llama.block_count' is an integer, a bool was expected");
  EXPECT_EQ(
      message_of([&] { (void)file->find_ints("tokenizer.ggml.tokens"); }),
      "model.gguf: metadata 'tokenizer.ggml.tokens' is a list of strings, a list of integers was expected");
}

TEST(ModelFile, PlacesTensors) {
  const auto bytes = test::sample_model().build();
  const auto file = test::open_built(bytes);
  ASSERT_EQ(file->tensors().size(), 3u);
  const TensorInfo* q = file->find_tensor("blk.0.attn_q.weight");
  ASSERT_NE(q, nullptr);
  EXPECT_EQ(q->type, DType::kQ4_1);
  EXPECT_THAT(q->shape, ElementsAre(3, 64));  // outermost first
  const auto wanted = test::pattern_bytes(3 * 2 * 20);
  ASSERT_EQ(q->bytes.size(), wanted.size());
  EXPECT_EQ(std::memcmp(q->bytes.data(), wanted.data(), wanted.size()), 0);
  EXPECT_EQ((q->bytes.data() - bytes.data()) % 32, 0);
  const TensorInfo* norm = file->find_tensor("output_norm.weight");
  ASSERT_NE(norm, nullptr);
  EXPECT_THAT(norm->shape, ElementsAre(8));
  float second = 0;
  std::memcpy(&second, norm->bytes.data() + 4, 4);
  EXPECT_EQ(second, 2.0f);
  EXPECT_EQ(file->find_tensor("absent"), nullptr);
}

TEST(ModelFile, HonoursTheAlignmentKey) {
  const std::vector<float> values(8, 3.0f);
  for (const std::uint32_t alignment : {8u, 64u, 4096u}) {
    GgufWriter writer = test::sample_model();
    writer.add_int("general.alignment", alignment).set_alignment(alignment).add_f32("last", {8}, values);
    const auto bytes = writer.build();
    const auto file = test::open_built(bytes);
    const TensorInfo* last = file->find_tensor("last");
    ASSERT_NE(last, nullptr);
    EXPECT_EQ((last->bytes.data() - bytes.data()) % alignment, 0);
    EXPECT_EQ(std::memcmp(last->bytes.data(), values.data(), 32), 0);
  }
}

TEST(ModelFile, OpensVersion2AndFilesWithoutTensors) {
  const auto old = test::sample_model().set_version(2).build();
  EXPECT_EQ(test::open_built(old)->tensors().size(), 3u);
  const auto vocabulary_only = GgufWriter("llama").build();
  EXPECT_TRUE(test::open_built(vocabulary_only)->tensors().empty());
}

TEST(ModelFile, FingerprintFollowsTheContentNotThePath) {
  const TempDir dir;
  const auto time = std::filesystem::file_time_type::clock::now();
  const auto fingerprint = [&](std::string_view name, const GgufWriter& writer) {
    writer.write(dir / name);
    std::filesystem::last_write_time(dir / name, time);
    return ModelFile::open(dir / name)->fingerprint();
  };
  const std::string one = fingerprint("one.gguf", test::sample_model());
  EXPECT_EQ(fingerprint("two.gguf", test::sample_model()), one);
  EXPECT_NE(fingerprint("three.gguf", test::sample_model().add_int("x", 1)), one);
  EXPECT_EQ(one.find_first_not_of("0123456789abcdef-"), std::string::npos);
  std::filesystem::last_write_time(dir / "one.gguf", time + std::chrono::seconds(1));
  EXPECT_NE(ModelFile::open(dir / "one.gguf")->fingerprint(), one);
}

TEST(ModelFile, ReadsTheSameAfterDroppingPages) {
  const TempDir dir;
  GgufWriter writer = test::sample_model();
  const std::vector<float> big(1 << 18, 2.5f);
  writer.add_f32("big", {1 << 18}, big).write(dir / "m.gguf");
  const auto file = ModelFile::open(dir / "m.gguf");
  const auto same = [&] {
    return std::memcmp(file->find_tensor("big")->bytes.data(), big.data(), 1 << 20) == 0;
  };
  EXPECT_TRUE(same());
  file->drop_pages();
  EXPECT_TRUE(same());
  EXPECT_EQ(file->get_string("general.name"), "sample");
}

TEST(ModelFile, OpensAFolderThatHoldsOneModel) {
  const TempDir dir;
  EXPECT_THAT(open_error(dir.path()),
              HasSubstr("the folder holds no model: no .gguf file, no config.json (give a .gguf file"));
  test::write_file(dir / "README.md", "x");
  test::sample_model().write(dir / "b.gguf");
  EXPECT_EQ(ModelFile::open(dir.path())->path(), dir / "b.gguf");
  test::sample_model().write(dir / "a.gguf");
  EXPECT_THAT(open_error(dir.path()), AllOf(HasSubstr("holds 2 .gguf files, one was expected"),
                                            HasSubstr("give one of them: a.gguf, b.gguf")));
}

GgufWriter part_of(std::uint16_t number, std::uint16_t count, const std::string& tensor) {
  GgufWriter writer = number == 0 ? GgufWriter("llama") : GgufWriter("");
  const std::vector<float> values(8, static_cast<float>(number));
  writer.add_entry("split.no", 2, number).add_entry("split.count", 2, count).add_f32(tensor, {8}, values);
  return writer;
}

TEST(ModelFile, OpensASplitModel) {
  const TempDir dir;
  for (std::uint16_t i = 0; i < 3; ++i) {
    part_of(i, 3, "t" + std::to_string(i)).write(dir / fmt::format("big-{:05}-of-00003.gguf", i + 1));
  }
  const auto by_folder = ModelFile::open(dir.path());
  EXPECT_EQ(by_folder->path(), dir / "big-00001-of-00003.gguf");
  const auto by_part = ModelFile::open(dir / "big-00002-of-00003.gguf");
  for (const auto* file : {by_folder.get(), by_part.get()}) {
    EXPECT_EQ(file->architecture(), "llama");
    EXPECT_EQ(file->tensors().size(), 3u);
    ASSERT_NE(file->find_tensor("t2"), nullptr);
    float value = 0;
    std::memcpy(&value, file->find_tensor("t2")->bytes.data(), 4);
    EXPECT_EQ(value, 2.0f);
  }
  EXPECT_EQ(by_folder->fingerprint(), by_part->fingerprint());
  test::sample_model().write(dir / "other.gguf");
  EXPECT_THAT(open_error(dir.path()), HasSubstr("holds 4 .gguf files, one was expected"));
  test::sample_model().write(dir / "whole-00001-of-00001.gguf");
  EXPECT_EQ(ModelFile::open(dir / "whole-00001-of-00001.gguf")->tensors().size(), 3u);
}

TEST(ModelFile, RefusesSplitModelsWithoutAllTheirParts) {
  const TempDir dir;
  const auto part = [&](int i) { return dir / fmt::format("big-{:05}-of-00002.gguf", i); };
  part_of(0, 2, "a").write(part(1));
  EXPECT_THAT(open_error(part(1)),
              HasSubstr("big-00002-of-00002.gguf: part 2 of 2 is missing (the download did not"));
  part_of(1, 2, "a").write(part(2));
  EXPECT_THAT(open_error(part(1)),
              HasSubstr("big-00002-of-00002.gguf: tensor 'a' is in an earlier part too"));
  part_of(0, 2, "b").write(part(2));
  EXPECT_THAT(open_error(part(1)), HasSubstr("metadata 'split.no' says part 1 of 2, the name part 2 of 2"));
  part_of(1, 3, "b").write(part(2));
  EXPECT_THAT(open_error(part(1)), HasSubstr("says part 2 of 3, the name part 2 of 2"));
  part_of(1, 2, "b").write(part(2));
  part_of(0, 2, "a").add_entry("split.tensors.count", 5, std::int32_t{9}).write(part(1));
  EXPECT_THAT(open_error(dir.path()), HasSubstr("'split.tensors.count' is 9, the 2 parts hold 2 tensors"));
  EXPECT_THAT(test::refusal(test::sample_model().add_entry("split.count", 2, std::uint16_t{4})),
              HasSubstr("metadata 'split.no' says part 1 of 4, the name part 1 of 1"));
}

TEST(ModelFile, RefusesWhatCannotBeOpened) {
  const TempDir dir;
  EXPECT_THAT(open_error(dir / "absent.gguf"), HasSubstr("absent.gguf: cannot be read: No such file"));
  EXPECT_THAT(open_error("/dev/null"), HasSubstr("is not a regular file"));
}

TEST(GgmlTypes, MapsEveryDTypeBothWays) {
  for (int i = 0; i <= static_cast<int>(DType::kMXFP4); ++i) {
    const auto type = static_cast<DType>(i);
    const std::uint32_t id = ggml_type_of(type);
    EXPECT_EQ(dtype_of_ggml(id), type);
    EXPECT_EQ(ggml_type_name(id), dtype_info(type).name);
  }
  EXPECT_EQ(dtype_of_ggml(16), std::nullopt);
  EXPECT_EQ(dtype_of_ggml(0xffffffffu), std::nullopt);
}

TEST(ModelFile, OpensTheDefaultModel) {
  const char* path = std::getenv("MLXS_TEST_MODEL");
  if (path == nullptr) GTEST_SKIP() << "MLXS_TEST_MODEL is not set";
  const auto file = ModelFile::open(path);
  EXPECT_EQ(file->architecture(), "llama");
  EXPECT_EQ(file->get_int("llama.block_count"), 30);
  EXPECT_EQ(file->find_strings("tokenizer.ggml.tokens")->size(), 49152u);
  EXPECT_EQ(file->tensors().size(), 272u);
  const TensorInfo* embedding = file->find_tensor("token_embd.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_EQ(embedding->type, DType::kQ8_0);
  EXPECT_THAT(embedding->shape, ElementsAre(49152, 576));
  EXPECT_EQ(embedding->bytes.size(), 49152u * 576 / 32 * 34);
}

}  // namespace
}  // namespace mlxs
