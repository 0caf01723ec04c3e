// Every way in which a GGUF file can be damaged is one clear kModelLoad error, never a crash.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <random>
#include <string>
#include <string_view>

#include "gguf_samples.h"

namespace mlxs {
namespace {

using test::GgufWriter;
using test::refusal;
using test::sample_model;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string refusal_of_text(std::string_view text) { return refusal(std::as_bytes(std::span(text))); }

template <class... T>
std::vector<std::byte> raw(T... values) {
  std::vector<std::byte> out;
  const auto append = [&](auto value) {
    const auto bytes = std::bit_cast<std::array<std::byte, sizeof(value)>>(value);
    out.insert(out.end(), bytes.begin(), bytes.end());
  };
  (append(values), ...);
  return out;
}

constexpr std::uint64_t kHuge = std::uint64_t{1} << 60;

TEST(GgufDamage, SaysWhatAFileThatIsNotGgufLooksLike) {
  using namespace std::string_view_literals;
  EXPECT_THAT(refusal_of_text(""),
              HasSubstr("is not a GGUF file: it is empty (the download did not complete"));
  EXPECT_THAT(refusal_of_text("\0\0\0\0\0\0"sv), HasSubstr("it starts with zeros"));
  EXPECT_THAT(refusal_of_text("\x08\0\0\0\0\0\0\0{\"a\": 1}"sv), HasSubstr("it looks like safetensors"));
  EXPECT_THAT(refusal_of_text("PK\x03\x04zip"), HasSubstr("zip archive"));
  EXPECT_THAT(refusal_of_text("\x1f\x8bgz"), HasSubstr("gzip archive"));
  EXPECT_THAT(refusal_of_text("\n <!DOCTYPE html><html>"), HasSubstr("a web page (HTML)"));
  EXPECT_THAT(refusal_of_text("version https://git-lfs.example/spec/v1"), HasSubstr("git lfs pull"));
  EXPECT_THAT(refusal_of_text("tjgg\x01\0\0\0"sv), HasSubstr("old GGML file"));
  EXPECT_THAT(refusal_of_text("{\"architectures\": []}"), HasSubstr("looks like JSON"));
  EXPECT_THAT(refusal_of_text("GGU"), HasSubstr("it starts with the bytes 47 47 55 (give the path"));
  EXPECT_THAT(refusal(sample_model().set_magic("GGUG")),
              HasSubstr("starts with the bytes 47 47 55 47 03 00 00 00"));
}

TEST(GgufDamage, RefusesOtherVersions) {
  EXPECT_THAT(refusal(sample_model().set_version(1)),
              HasSubstr("GGUF version 1 is not supported (2 and 3 are) (convert"));
  EXPECT_THAT(refusal(sample_model().set_version(0)), HasSubstr("GGUF version 0 is not supported"));
  EXPECT_THAT(refusal(sample_model().set_version(4)), HasSubstr("newer than this program"));
  EXPECT_THAT(refusal(sample_model().set_version(0x03000000)), HasSubstr("the file is big-endian"));
}

TEST(GgufDamage, RefusesTruncationAtEveryByte) {
  std::vector<std::size_t> boundaries;
  const auto whole = sample_model().build(&boundaries);
  ASSERT_GT(boundaries.size(), 40u);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    // A copy of its own, so that a sanitizer sees any read past the end.
    const std::vector<std::byte> part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    SCOPED_TRACE(size);
    const std::string message = refusal(part);
    if (size < 4) continue;
    EXPECT_THAT(message, HasSubstr("fetch it again"));
  }
  EXPECT_NO_THROW((void)ModelFile::open_bytes(whole, "model.gguf"));
}

TEST(GgufDamage, SurvivesRandomFlips) {
  const auto whole = sample_model().build();
  std::mt19937_64 random(20240607);
  int refused = 0;
  for (int round = 0; round < 20000; ++round) {
    auto damaged = whole;
    const int flips = 1 + static_cast<int>(random() % 4);
    for (int i = 0; i < flips; ++i)
      damaged[random() % damaged.size()] ^= static_cast<std::byte>(1u << (random() % 8));
    try {
      const auto file = ModelFile::open_bytes(damaged, "model.gguf");
      std::uint64_t touched = 0;
      for (const TensorInfo& tensor : file->tensors()) {
        for (const std::byte byte : tensor.bytes) touched += static_cast<std::uint64_t>(byte);
      }
      EXPECT_GT(touched + 1, 0u);
    } catch (const Error& error) {
      ++refused;
      ASSERT_EQ(error.code(), ErrorCode::kModelLoad) << error.full();
      ASSERT_EQ(error.full().find('\n'), std::string::npos) << error.full();
    }
  }
  EXPECT_GT(refused, 5000);   // the structure is most of this file
  EXPECT_LT(refused, 19999);  // and some flips only change a value
}

TEST(GgufDamage, RefusesCountsThatCannotFit) {
  EXPECT_THAT(refusal(sample_model().set_entry_count(kHuge)),
              HasSubstr("header: metadata list of length 1152921504606846976 at offset 16 cannot fit"));
  EXPECT_THAT(refusal(sample_model().set_tensor_count(kHuge)),
              HasSubstr("header: 1152921504606846976 tensors cannot fit"));
  EXPECT_FALSE(
      refusal(sample_model().set_entry_count(9)).empty());  // the tensor table read as metadata, or worse
  EXPECT_THAT(refusal(GgufWriter().add_raw("k", 8, raw(kHuge))),
              HasSubstr("metadata 'k': the string of length 1152921504606846976"));
  EXPECT_THAT(refusal(GgufWriter().add_raw("k", 8, raw(~std::uint64_t{0}))),
              HasSubstr("18446744073709551615"));
  EXPECT_THAT(refusal(GgufWriter().add_raw("k", 9, raw(std::uint32_t{5}, kHuge))),
              HasSubstr("metadata 'k': array of length 1152921504606846976"));
  EXPECT_THAT(refusal(GgufWriter().add_raw("k", 9, raw(std::uint32_t{8}, std::uint64_t{1}, kHuge))),
              HasSubstr("array string of length 1152921504606846976"));
  const std::vector<std::byte> many((std::size_t{1} << 24) + 1);
  auto list = raw(std::uint32_t{0}, std::uint64_t{many.size()});
  list.insert(list.end(), many.begin(), many.end());
  EXPECT_THAT(refusal(GgufWriter().add_raw("k", 9, list)),
              HasSubstr("array of 16777217 elements is over the limit"));
}

TEST(GgufDamage, RefusesWrongMetadata) {
  EXPECT_THAT(refusal(sample_model().add_int("general.name", 1)),
              HasSubstr("metadata 'general.name': the key occurs twice"));
  EXPECT_THAT(refusal(GgufWriter().add_int("", 1)), HasSubstr("key 2 of 2 is empty"));
  EXPECT_THAT(refusal(GgufWriter().add_entry("k", 13, std::uint32_t{0})),
              HasSubstr("metadata 'k': value type 13 does not exist"));
  EXPECT_THAT(refusal(GgufWriter().add_raw("k", 9, raw(std::uint32_t{99}, std::uint64_t{1}))),
              HasSubstr("array element type 99 does not exist"));
  EXPECT_THAT(refusal(GgufWriter().add_raw(
                  "k", 9, raw(std::uint32_t{9}, std::uint64_t{1}, std::uint32_t{0}, std::uint64_t{0}))),
              HasSubstr("metadata 'k': arrays of arrays are not supported"));
  EXPECT_THAT(refusal(GgufWriter().add_entry("k", 7, std::uint8_t{2})),
              HasSubstr("a bool holds 2 instead of 0 or 1"));
  EXPECT_THAT(refusal(GgufWriter().add_entry("k", 10, std::uint64_t{1} << 63)),
              HasSubstr("value 9223372036854775808 is larger"));
  EXPECT_THAT(refusal(GgufWriter("")), HasSubstr("metadata 'general.architecture' is missing"));
  EXPECT_THAT(refusal(GgufWriter("").add_int("general.architecture", 1)),
              HasSubstr("is an integer, a string was expected"));
  EXPECT_THAT(refusal(GgufWriter().add_raw("evil\n\x1b[31m", 13, {})),
              HasSubstr("metadata 'evil\\n\\x1b[31m'"));
  EXPECT_THAT(refusal(GgufWriter().add_raw(std::string(5000, 'k'), 13, {})), HasSubstr("… (5000 bytes)'"));
}

TEST(GgufDamage, RefusesWrongAlignment) {
  for (const std::uint32_t alignment : {0u, 1u, 4u, 24u, 33u, 1u << 21, 1u << 31}) {
    EXPECT_THAT(refusal(sample_model().add_int("general.alignment", alignment)),
                HasSubstr(std::to_string(alignment) + " is not a power of two from 8 to 1048576"));
  }
  EXPECT_THAT(refusal(GgufWriter().add_string("general.alignment", "32")),
              HasSubstr("'general.alignment': is not an integer"));
}

TEST(GgufDamage, RefusesWrongShapes) {
  const auto refused = [](std::uint32_t type, std::vector<std::int64_t> shape) {
    return refusal(sample_model().add_tensor("t", type, std::move(shape), test::pattern_bytes(64)));
  };
  EXPECT_THAT(refused(0, {}), HasSubstr("tensor 't': 0 dimensions are outside 1 … 4"));
  EXPECT_THAT(refused(0, {1, 1, 1, 1, 1}), HasSubstr("tensor 't': 5 dimensions are outside 1 … 4"));
  EXPECT_THAT(refused(0, {4, 0}), HasSubstr("tensor 't': dimension 0 is 0"));
  EXPECT_THAT(refused(0, {-4, 4}), HasSubstr("tensor 't': dimension 1 is -4"));
  EXPECT_THAT(refused(0, {std::int64_t{1} << 40, std::int64_t{1} << 40}),
              HasSubstr("dimension 1 of 1099511627776 makes the tensor larger than any file"));
  EXPECT_THAT(refused(0, {std::int64_t{1} << 32, std::int64_t{1} << 32, 4}),
              HasSubstr("larger than any file"));
  EXPECT_THAT(refused(0, {std::int64_t{1} << 58}), HasSubstr("run past the end of the file"));
  EXPECT_THAT(refused(3, {2, 48}),
              HasSubstr("rows of 48 elements are not a multiple of the 32 elements of a Q4_1 block"));
  EXPECT_THAT(refused(14, {128}), HasSubstr("not a multiple of the 256 elements of a Q6_K block"));
}

TEST(GgufDamage, NamesUnsupportedTypesAndTheSupportedOnes) {
  const auto refused = [](std::uint32_t type) {
    return refusal(sample_model().add_tensor("blk.0.ffn_up.weight", type, {256}, test::pattern_bytes(256)));
  };
  EXPECT_THAT(refused(16), AllOf(HasSubstr("tensor 'blk.0.ffn_up.weight': IQ2_XXS is not supported"),
                                 HasSubstr("F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K")));
  EXPECT_THAT(refused(4), HasSubstr("Q4_2 is not supported"));
  EXPECT_THAT(refused(35), HasSubstr("TQ2_0 is not supported"));
  EXPECT_THAT(refused(99), HasSubstr("type 99 is not supported"));
}

TEST(GgufDamage, RefusesWrongPlaces) {
  const auto data = test::pattern_bytes(64);
  const auto placed = [&](std::uint64_t offset) {
    return refusal(sample_model().add_tensor("t", 0, {16}, data).set_last_offset(offset));
  };
  EXPECT_THAT(placed(1), HasSubstr("tensor 't': data offset 1 is not a multiple of the alignment 32"));
  EXPECT_THAT(placed(1 << 20), AllOf(HasSubstr("tensor 't': its 64 bytes at data offset 1048576"),
                                     HasSubstr("run past the end of the file, ")));
  EXPECT_THAT(placed(~std::uint64_t{31}), HasSubstr("run past the end of the file"));
  EXPECT_THAT(placed(0), HasSubstr("its data at offset 0 overlaps 'output_norm.weight', which ends at 32"));
  EXPECT_THAT(placed(32), HasSubstr("overlaps"));
  EXPECT_THAT(refusal(sample_model().add_tensor("token_embd.weight", 0, {16}, data)),
              HasSubstr("tensor 'token_embd.weight': the name occurs twice"));
  EXPECT_THAT(refusal(sample_model().add_tensor("", 0, {16}, data)), HasSubstr("tensor 4 has no name"));
}

}  // namespace
}  // namespace mlxs
