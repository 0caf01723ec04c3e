#include "formats/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>

#include "formats/json_file.h"
#include "formats/quote.h"
#include "formats/sniff.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

using nlohmann::json;
static_assert(std::endian::native == std::endian::little, "the file's integers are read as they lie");

constexpr std::array kTypes{
    StoredType{"F64", 64, DType::kF64},       StoredType{"F32", 32, DType::kF32},
    StoredType{"F16", 16, DType::kF16},       StoredType{"BF16", 16, DType::kBF16},
    StoredType{"I64", 64, DType::kI64},       StoredType{"I32", 32, DType::kI32},
    StoredType{"I16", 16, DType::kI16},       StoredType{"I8", 8, DType::kI8},
    StoredType{"F8_E4M3", 8, DType::kF8E4M3}, StoredType{"F8_E8M0", 8, DType::kE8M0},
    StoredType{"F8_E5M2", 8, std::nullopt},   StoredType{"U64", 64, std::nullopt},
    StoredType{"U32", 32, std::nullopt},      StoredType{"U16", 16, std::nullopt},
    StoredType{"U8", 8, std::nullopt},        StoredType{"BOOL", 8, std::nullopt},
};

constexpr std::size_t kMaxDims = 8;
constexpr std::uint64_t kMaxElements = std::uint64_t{1} << 56;

[[noreturn]] void fail(std::string_view name, std::string_view what) { fail_json(name, what); }

struct Range {
  std::uint64_t begin, end;
};

Range read_offsets(const json& entry, std::string_view name, std::string_view tensor) {
  const auto found = entry.find("data_offsets");
  const bool sound = found != entry.end() && found->is_array() && found->size() == 2 &&
                     (*found)[0].is_number_unsigned() && (*found)[1].is_number_unsigned();
  if (!sound) fail(name, fmt::format("tensor {} has no data_offsets [begin, end]", quote(tensor)));
  const Range range{(*found)[0].get<std::uint64_t>(), (*found)[1].get<std::uint64_t>()};
  if (range.begin > range.end)
    fail(name,
         fmt::format("tensor {} ends at {} before it begins at {}", quote(tensor), range.end, range.begin));
  return range;
}

const StoredType& read_type(const json& entry, std::string_view name, std::string_view tensor) {
  const auto found = entry.find("dtype");
  if (found == entry.end() || !found->is_string())
    fail(name, fmt::format("tensor {} has no dtype", quote(tensor)));
  const auto& text = found->get_ref<const std::string&>();
  const auto type = std::ranges::find(kTypes, text, &StoredType::name);
  if (type == kTypes.end())
    fail(name, fmt::format("tensor {} has the unknown dtype {}", quote(tensor), quote(text)));
  return *type;
}

std::vector<std::int64_t> read_shape(const json& entry, std::string_view name, std::string_view tensor) {
  const auto found = entry.find("shape");
  if (found == entry.end() || !found->is_array() || found->size() > kMaxDims)
    fail(name, fmt::format("tensor {} has no shape of at most {} dimensions", quote(tensor), kMaxDims));
  std::vector<std::int64_t> shape;
  std::uint64_t elements = 1;
  for (const json& extent : *found) {
    const bool sound = extent.is_number_unsigned() &&
                       extent.get<std::uint64_t>() <= kMaxElements / std::max<std::uint64_t>(elements, 1);
    if (!sound) fail(name, fmt::format("tensor {} has the shape {}", quote(tensor), quote(found->dump())));
    elements *= extent.get<std::uint64_t>();
    shape.push_back(extent.get<std::int64_t>());
  }
  return shape;
}

}  // namespace

SafetensorsContent parse_safetensors(std::span<const std::byte> file, std::string_view name) {
  std::uint64_t header = 0;
  if (file.size() < sizeof(header)) {
    throw Error(ErrorCode::kModelLoad,
                fmt::format("{}: is no safetensors file: {}", name, describe_content(file)),
                remedy_for_content(file));
  }
  std::memcpy(&header, file.data(), sizeof(header));
  const std::uint64_t after = file.size() - sizeof(header);
  if (header > after || header > kMaxSafetensorsHeader) {
    // A file of another kind has its magic where the header's length should be.
    if (file.size() < 9 || file[8] != std::byte{'{'}) {
      throw Error(ErrorCode::kModelLoad,
                  fmt::format("{}: is no safetensors file: {}", name, describe_content(file)),
                  remedy_for_content(file));
    }
    fail(name,
         fmt::format("its header of {} bytes is over {}", header,
                     header > kMaxSafetensorsHeader ? fmt::format("the limit of {}", kMaxSafetensorsHeader)
                                                    : fmt::format("the {} bytes that follow", after)));
  }
  const json table = parse_json_object(file.subspan(sizeof(header), header), name);
  SafetensorsContent content;
  content.header_bytes = sizeof(header) + header;
  const std::uint64_t available = after - header;

  struct Placed {
    StoredTensor tensor;
    Range range;
  };
  std::vector<Placed> placed;
  placed.reserve(table.size());
  for (const auto& [key, entry] : table.items()) {
    if (key == "__metadata__") continue;
    if (!entry.is_object()) fail(name, fmt::format("the entry {} is no object", quote(key)));
    const Range range = read_offsets(entry, name, key);
    StoredTensor tensor{key, &read_type(entry, name, key), read_shape(entry, name, key), {}};
    std::uint64_t bytes = static_cast<std::uint64_t>(tensor.type->bits) / 8;
    for (const std::int64_t extent : tensor.shape) bytes *= static_cast<std::uint64_t>(extent);
    if (range.end > available) {
      fail(name, fmt::format("tensor {} lies at {} … {}, past the {} bytes of data: the file is cut short",
                             quote(key), range.begin, range.end, available));
    }
    if (range.end - range.begin != bytes) {
      fail(name, fmt::format("tensor {} has {} bytes, its shape and dtype ask for {}", quote(key),
                             range.end - range.begin, bytes));
    }
    tensor.bytes = file.subspan(content.header_bytes + range.begin, bytes);
    placed.push_back({std::move(tensor), range});
  }
  std::ranges::sort(placed, {}, [](const Placed& p) { return std::pair(p.range.begin, p.range.end); });
  std::uint64_t end = 0;
  std::string_view before;
  for (const Placed& p : placed) {
    if (p.range.begin < end) {
      fail(name, fmt::format("tensor {} at {} overlaps {}, which ends at {}", quote(p.tensor.name),
                             p.range.begin, quote(before), end));
    }
    if (p.range.begin > end) {
      fail(name, fmt::format("{} bytes before tensor {} belong to none", p.range.begin - end,
                             quote(p.tensor.name)));
    }
    end = p.range.end;
    before = p.tensor.name;
  }
  if (end != available) fail(name, fmt::format("the last {} bytes belong to no tensor", available - end));
  for (Placed& p : placed) content.tensors.push_back(std::move(p.tensor));
  return content;
}

}  // namespace mlxs
