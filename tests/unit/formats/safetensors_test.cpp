// Safetensors headers and shard indexes: sound ones, and every way in which they can lie.
#include "formats/safetensors.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/weight_index.h"
#include "mlxs/error.h"
#include "support/safetensors_writer.h"

namespace mlxs {
namespace {

using test::bytes_of;
using test::safetensors_file;
using test::SafetensorsWriter;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <class Call>
std::string message_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kModelLoad) << error.full();
    EXPECT_TRUE(std::string_view(error.what()).starts_with("model.file: ")) << error.what();
    EXPECT_FALSE(error.hint().empty()) << error.what();
    EXPECT_EQ(error.full().find('\n'), std::string::npos);
    return error.full();
  }
  ADD_FAILURE() << "accepted";
  return {};
}

std::string refusal(std::string_view file) {
  return message_of([&] { (void)parse_safetensors(bytes_of(file), "model.file"); });
}
std::string refusal(const nlohmann::json& header, std::size_t data_bytes) {
  return refusal(safetensors_file(header.dump(), std::string(data_bytes, 'x')));
}

nlohmann::json entry(const char* dtype, nlohmann::json shape, std::uint64_t begin, std::uint64_t end) {
  return {{"dtype", dtype}, {"shape", std::move(shape)}, {"data_offsets", {begin, end}}};
}

TEST(Safetensors, PlacesTensors) {
  SafetensorsWriter writer;
  writer.add("b", "BF16", {2, 3}, 12)
      .add("a", "U32", {1}, 4)
      .add("scalar", "F32", {}, 4)
      .add("none", "F16", {0, 4}, 0);
  writer.header()["__metadata__"] = {{"format", "mlx"}};
  const std::string file = writer.build();
  const SafetensorsContent content = parse_safetensors(bytes_of(file), "model.file");
  ASSERT_EQ(content.tensors.size(), 4u);
  EXPECT_EQ(content.tensors[0].name, "b");
  EXPECT_EQ(content.tensors[0].type->dtype, DType::kBF16);
  EXPECT_THAT(content.tensors[0].shape, ElementsAre(2, 3));
  EXPECT_EQ(content.tensors[0].bytes.data(), bytes_of(file).data() + content.header_bytes);
  EXPECT_EQ(content.tensors[0].bytes.size(), 12u);
  EXPECT_EQ(content.tensors[1].name, "a");
  EXPECT_EQ(content.tensors[1].type->dtype, std::nullopt);
  EXPECT_TRUE(content.tensors[3].shape.empty() || content.tensors[2].shape.empty());
  EXPECT_TRUE(parse_safetensors(bytes_of(safetensors_file("{}")), "model.file").tensors.empty());
}

TEST(Safetensors, RefusesHeadersOfAnySize) {
  EXPECT_THAT(refusal(safetensors_file("{}", "", std::uint64_t{1} << 60)),
              HasSubstr("its header of 1152921504606846976 bytes is over the limit of 100000000"));
  EXPECT_THAT(refusal(safetensors_file("{}", "", UINT64_MAX - 1)), HasSubstr("over the limit"));
  EXPECT_THAT(refusal(safetensors_file("{}", "", 3)),
              HasSubstr("its header of 3 bytes is over the 2 bytes that follow"));
  EXPECT_THAT(refusal(""), HasSubstr("is no safetensors file: it is empty"));
  EXPECT_THAT(refusal("short"), HasSubstr("is no safetensors file"));
  EXPECT_THAT(refusal("version https://git-lfs.github.com/spec/v1\n"), HasSubstr("git-lfs pointer"));
  EXPECT_THAT(refusal("<!DOCTYPE html><html></html>"), HasSubstr("a web page"));
  EXPECT_THAT(refusal(safetensors_file("")), HasSubstr("no valid JSON"));
  EXPECT_THAT(refusal(safetensors_file("{\"a\": ")), HasSubstr("no valid JSON at byte"));
  EXPECT_THAT(refusal(safetensors_file("[1]")), HasSubstr("is JSON, but no object"));
  EXPECT_THAT(refusal(safetensors_file(std::string(100'000, '['))), HasSubstr("no valid JSON"));
}

TEST(Safetensors, RefusesOffsetsThatLie) {
  EXPECT_THAT(refusal({{"a", entry("F32", {2}, 0, 8)}, {"b", entry("F32", {2}, 4, 12)}}, 12),
              HasSubstr("tensor 'b' at 4 overlaps 'a', which ends at 8"));
  EXPECT_THAT(refusal({{"a", entry("F32", {2}, 0, 8)}}, 7),
              HasSubstr("tensor 'a' lies at 0 … 8, past the 7 bytes of data: the file is cut short"));
  EXPECT_THAT(refusal({{"a", entry("F32", {2}, UINT64_MAX - 7, UINT64_MAX)}}, 8),
              HasSubstr("past the 8 bytes"));
  EXPECT_THAT(refusal({{"a", entry("F32", {2}, 8, 0)}}, 8), HasSubstr("ends at 0 before it begins at 8"));
  EXPECT_THAT(refusal({{"a", entry("F32", {2}, 0, 4)}}, 4),
              HasSubstr("has 4 bytes, its shape and dtype ask for 8"));
  EXPECT_THAT(refusal({{"a", entry("F32", {2}, 4, 12)}}, 12),
              HasSubstr("4 bytes before tensor 'a' belong to none"));
  EXPECT_THAT(refusal({{"a", entry("F32", {2}, 0, 8)}}, 11),
              HasSubstr("the last 3 bytes belong to no tensor"));
  EXPECT_THAT(refusal({{"a", {{"dtype", "F32"}, {"shape", {2}}, {"data_offsets", {0, 4, 8}}}}}, 8),
              HasSubstr("no data_offsets"));
  EXPECT_THAT(refusal({{"a", {{"dtype", "F32"}, {"shape", {2}}, {"data_offsets", {-8, 0}}}}}, 8),
              HasSubstr("no data_offsets"));
}

TEST(Safetensors, RefusesTypesAndShapesThatLie) {
  EXPECT_THAT(refusal({{"a", entry("F31", {2}, 0, 8)}}, 8),
              HasSubstr("tensor 'a' has the unknown dtype 'F31'"));
  EXPECT_THAT(refusal({{"a", {{"shape", {2}}, {"data_offsets", {0, 8}}}}}, 8), HasSubstr("has no dtype"));
  EXPECT_THAT(refusal({{"a", entry("F32", {1 << 30, 1 << 30, 1 << 30}, 0, 8)}}, 8),
              HasSubstr("has the shape '[1073741824,"));
  EXPECT_THAT(refusal({{"a", entry("F32", {-2}, 0, 8)}}, 8), HasSubstr("has the shape '[-2]'"));
  EXPECT_THAT(refusal({{"a", entry("F32", {1.5}, 0, 8)}}, 8), HasSubstr("has the shape '[1.5]"));
  EXPECT_THAT(refusal({{"a", entry("F32", nlohmann::json(9, 1), 0, 4)}}, 4),
              HasSubstr("at most 8 dimensions"));
  EXPECT_THAT(refusal({{"a", 5}}, 0), HasSubstr("the entry 'a' is no object"));
  EXPECT_THAT(refusal(safetensors_file(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                                          "a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                                       "xxxx")),
              HasSubstr("the key 'a' occurs twice"));
}

TEST(Safetensors, EveryCutOfAFileIsRefused) {
  const std::string file = SafetensorsWriter().add("a", "F32", {4}, 16).add("b", "BF16", {4}, 8).build();
  for (std::size_t size = 0; size < file.size(); ++size)
    (void)refusal(std::string_view(file).substr(0, size));
}

TEST(WeightIndex, ReadsWhereTensorsAre) {
  const auto index = parse_weight_index(
      bytes_of(R"({"metadata": {}, "weight_map": {"a": "x.safetensors", "b": "y.safetensors"}})"),
      "model.file");
  EXPECT_EQ(index.file_of.at("b"), "y.safetensors");
}

TEST(WeightIndex, RefusesWhatIsNone) {
  const auto refused = [](std::string_view text) {
    return message_of([&] { (void)parse_weight_index(bytes_of(text), "model.file"); });
  };
  EXPECT_THAT(refused("{}"), HasSubstr("holds no 'weight_map'"));
  EXPECT_THAT(refused(R"({"weight_map": {}})"), HasSubstr("holds no 'weight_map'"));
  EXPECT_THAT(refused(R"({"weight_map": {"a": 1}})"), HasSubstr("tensor 'a' names no file"));
  for (const char* file : {"../x.safetensors", "/etc/x.safetensors", "x.bin", "", "a\\\\x.safetensors"}) {
    EXPECT_THAT(refused(fmt::format(R"({{"weight_map": {{"a": "{}"}}}})", file)),
                HasSubstr("no .safetensors file of this folder"));
  }
}

}  // namespace
}  // namespace mlxs
