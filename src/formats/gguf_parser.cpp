#include "formats/gguf_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include "formats/ggml_types.h"
#include "formats/gguf_reader.h"
#include "formats/quote.h"
#include "formats/sniff.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

constexpr std::uint32_t kMaxDims = 4;
constexpr std::uint64_t kMaxArrayElements = std::uint64_t{1} << 24;  // 100x the largest vocabularies
constexpr std::uint64_t kMaxAlignment = std::uint64_t{1} << 20;
// The fewest bytes that a metadata entry and a tensor entry can take: counts beyond are refused before any
// allocation.
constexpr std::size_t kMinEntryBytes = 8 + 4 + 1;
constexpr std::size_t kMinTensorBytes = 8 + 4 + 8 + 4 + 8;

void check_magic(std::span<const std::byte> file, GgufReader& reader, std::string_view name) {
  if (!looks_like_gguf(file)) {
    throw Error(ErrorCode::kModelLoad,
                fmt::format("{}: is not a GGUF file: {}", name, describe_content(file)),
                remedy_for_content(file));
  }
  reader.set_item("header");
  (void)reader.take(4, "the magic number");
  const auto version = reader.read<std::uint32_t>("the version");
  if (version == 2 || version == 3) return;
  if (version != 0 && (version & 0xffffu) == 0) {
    reader.fail(fmt::format("version {:#010x}: the file is big-endian", version),
                "fetch or convert the little-endian form of the model");
  }
  reader.fail(fmt::format("GGUF version {} is not supported (2 and 3 are)", version),
              version == 1 ? "convert the model again with a current converter"
                           : "the file is damaged, or newer than this program: fetch it again or update");
}

template <class T>
std::int64_t to_int64(T value, const GgufReader& reader) {
  if constexpr (std::is_same_v<T, std::uint64_t>) {
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      reader.fail(fmt::format("value {} is larger than 2^63-1", value));
    }
  }
  return static_cast<std::int64_t>(value);
}

bool read_bool(GgufReader& reader) {
  const auto value = reader.read<std::uint8_t>("a bool");
  if (value > 1) reader.fail(fmt::format("a bool holds {} instead of 0 or 1", value));
  return value == 1;
}

template <class T, class Out>
MetaValue read_numbers(GgufReader& reader, std::uint64_t count) {
  const auto bytes = reader.take(count * sizeof(T), "the array");  // count was checked against sizeof(T)
  std::vector<Out> values(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    if constexpr (std::is_floating_point_v<T>) {
      values[i] = value;
    } else {
      values[i] = to_int64(value, reader);
    }
  }
  return values;
}

std::size_t min_bytes_of(GgufValueType type) {
  switch (type) {
    case GgufValueType::kU8:
    case GgufValueType::kI8:
    case GgufValueType::kBool:
      return 1;
    case GgufValueType::kU16:
    case GgufValueType::kI16:
      return 2;
    case GgufValueType::kU32:
    case GgufValueType::kI32:
    case GgufValueType::kF32:
      return 4;
    case GgufValueType::kString:  // its length alone
    case GgufValueType::kU64:
    case GgufValueType::kI64:
    case GgufValueType::kF64:
      return 8;
    case GgufValueType::kArray:
      break;
  }
  return 12;
}

GgufValueType read_value_type(GgufReader& reader, std::string_view what) {
  const auto type = reader.read<std::uint32_t>(what);
  if (type >= kGgufValueTypes) reader.fail(fmt::format("{} {} does not exist in GGUF", what, type));
  return static_cast<GgufValueType>(type);
}

MetaValue read_array(GgufReader& reader) {
  const GgufValueType type = read_value_type(reader, "array element type");
  if (type == GgufValueType::kArray) {
    reader.fail("arrays of arrays are not supported", "convert the model again without nested arrays");
  }
  const std::uint64_t count = reader.read_count(min_bytes_of(type), "array");
  if (count > kMaxArrayElements) {
    reader.fail(fmt::format("array of {} elements is over the limit of {}", count, kMaxArrayElements));
  }
  switch (type) {
    case GgufValueType::kU8:
      return read_numbers<std::uint8_t, std::int64_t>(reader, count);
    case GgufValueType::kI8:
      return read_numbers<std::int8_t, std::int64_t>(reader, count);
    case GgufValueType::kU16:
      return read_numbers<std::uint16_t, std::int64_t>(reader, count);
    case GgufValueType::kI16:
      return read_numbers<std::int16_t, std::int64_t>(reader, count);
    case GgufValueType::kU32:
      return read_numbers<std::uint32_t, std::int64_t>(reader, count);
    case GgufValueType::kI32:
      return read_numbers<std::int32_t, std::int64_t>(reader, count);
    case GgufValueType::kU64:
      return read_numbers<std::uint64_t, std::int64_t>(reader, count);
    case GgufValueType::kI64:
      return read_numbers<std::int64_t, std::int64_t>(reader, count);
    case GgufValueType::kF32:
      return read_numbers<float, double>(reader, count);
    case GgufValueType::kF64:
      return read_numbers<double, double>(reader, count);
    case GgufValueType::kBool: {
      std::vector<std::int64_t> values(count);
      for (auto& value : values) value = read_bool(reader) ? 1 : 0;
      return values;
    }
    case GgufValueType::kString: {
      std::vector<std::string_view> values(count);
      for (auto& value : values) value = reader.read_string("array string");
      return values;
    }
    case GgufValueType::kArray:
      break;
  }
  reader.fail("unreachable array type");
}

MetaValue read_value(GgufReader& reader, GgufValueType type) {
  switch (type) {
    case GgufValueType::kU8:
      return to_int64(reader.read<std::uint8_t>("the value"), reader);
    case GgufValueType::kI8:
      return to_int64(reader.read<std::int8_t>("the value"), reader);
    case GgufValueType::kU16:
      return to_int64(reader.read<std::uint16_t>("the value"), reader);
    case GgufValueType::kI16:
      return to_int64(reader.read<std::int16_t>("the value"), reader);
    case GgufValueType::kU32:
      return to_int64(reader.read<std::uint32_t>("the value"), reader);
    case GgufValueType::kI32:
      return to_int64(reader.read<std::int32_t>("the value"), reader);
    case GgufValueType::kU64:
      return to_int64(reader.read<std::uint64_t>("the value"), reader);
    case GgufValueType::kI64:
      return to_int64(reader.read<std::int64_t>("the value"), reader);
    case GgufValueType::kF32:
      return static_cast<double>(reader.read<float>("the value"));
    case GgufValueType::kF64:
      return reader.read<double>("the value");
    case GgufValueType::kBool:
      return read_bool(reader);
    case GgufValueType::kString:
      return reader.read_string("the string");
    case GgufValueType::kArray:
      return read_array(reader);
  }
  reader.fail("unreachable value type");
}

void read_metadata(GgufReader& reader, std::uint64_t count, ModelContent& content) {
  for (std::uint64_t i = 0; i < count; ++i) {
    reader.set_item("metadata");
    const std::string_view key = reader.read_string("key");
    if (key.empty()) reader.fail(fmt::format("key {} of {} is empty", i + 1, count));
    reader.set_item("metadata", key);
    const GgufValueType type = read_value_type(reader, "value type");
    if (!content.metadata.try_emplace(key, read_value(reader, type)).second) {
      reader.fail("the key occurs twice");
    }
  }
}

std::uint64_t alignment_of(const ModelContent& content, const GgufReader& reader) {
  const auto entry = content.metadata.find("general.alignment");
  if (entry == content.metadata.end()) return 32;
  const auto* value = std::get_if<std::int64_t>(&entry->second);
  if (value == nullptr) reader.fail("is not an integer");
  if (*value < 8 || *value > std::int64_t{kMaxAlignment} || (*value & (*value - 1)) != 0) {
    reader.fail(fmt::format("{} is not a power of two from 8 to {}", *value, kMaxAlignment));
  }
  return static_cast<std::uint64_t>(*value);
}

// A table entry whose bytes are not placed yet; shape, type and size are valid.
struct Placement {
  std::uint64_t offset;  // from the start of the data section
  std::uint64_t bytes;
};

Placement read_tensor(GgufReader& reader, ModelContent& content) {
  reader.set_item("tensor table");
  TensorInfo tensor{};
  tensor.name = reader.read_string("tensor name");
  if (tensor.name.empty()) reader.fail(fmt::format("tensor {} has no name", content.tensors.size() + 1));
  reader.set_item("tensor", tensor.name);
  const auto dims = reader.read<std::uint32_t>("the number of dimensions");
  if (dims == 0 || dims > kMaxDims)
    reader.fail(fmt::format("{} dimensions are outside 1 … {}", dims, kMaxDims));
  std::uint64_t elements = 1;
  for (std::uint32_t i = 0; i < dims; ++i) {
    const auto size = reader.read<std::int64_t>("a dimension");
    if (size <= 0) reader.fail(fmt::format("dimension {} is {}", i, size));
    // 2^60 elements of the widest type still fit 63 bits.
    if (static_cast<std::uint64_t>(size) > (std::uint64_t{1} << 59) / elements) {
      reader.fail(fmt::format("dimension {} of {} makes the tensor larger than any file", i, size));
    }
    elements *= static_cast<std::uint64_t>(size);
    tensor.shape.push_back(size);
  }
  const std::int64_t row = tensor.shape.front();
  std::ranges::reverse(tensor.shape);  // GGUF lists the innermost dimension first
  const auto ggml_type = reader.read<std::uint32_t>("the type");
  const auto type = dtype_of_ggml(ggml_type);
  if (!type) {
    reader.fail(fmt::format("{} is not supported", ggml_type_name(ggml_type)),
                "use a file quantized to one of: " + supported_ggml_types());
  }
  tensor.type = *type;
  const DTypeInfo& info = dtype_info(*type);
  if (row % info.block_elements != 0) {
    reader.fail(fmt::format("rows of {} elements are not a multiple of the {} elements of a {} block", row,
                            info.block_elements, info.name));
  }
  const auto offset = reader.read<std::uint64_t>("the data offset");
  const std::uint64_t bytes = elements / static_cast<std::uint64_t>(info.block_elements) *
                              static_cast<std::uint64_t>(info.block_bytes);
  if (!content.tensor_index.try_emplace(tensor.name, content.tensors.size()).second) {
    reader.fail("the name occurs twice");
  }
  content.tensors.push_back(std::move(tensor));
  return {offset, bytes};
}

void check_overlaps(GgufReader& reader, const ModelContent& content, const std::vector<Placement>& places) {
  std::vector<std::size_t> order(places.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) { return places[i].offset; });
  for (std::size_t k = 1; k < order.size(); ++k) {
    const std::size_t before = order[k - 1], here = order[k];
    if (places[before].offset + places[before].bytes <= places[here].offset) continue;
    reader.set_item("tensor", content.tensors[here].name);
    reader.fail(fmt::format("its data at offset {} overlaps {}, which ends at {}", places[here].offset,
                            quote(content.tensors[before].name),
                            places[before].offset + places[before].bytes));
  }
}

// Gives every tensor its bytes. The data section starts at the next multiple of the alignment after the
// table.
void place_tensors(std::span<const std::byte> file, GgufReader& reader, std::uint64_t header_bytes,
                   std::uint64_t alignment, const std::vector<Placement>& places, ModelContent& content) {
  const std::uint64_t data = (header_bytes + alignment - 1) / alignment * alignment;
  const std::uint64_t available = file.size() > data ? file.size() - data : 0;
  for (std::size_t i = 0; i < places.size(); ++i) {
    const auto [offset, bytes] = places[i];
    reader.set_item("tensor", content.tensors[i].name);
    if (offset % alignment != 0) {
      reader.fail(fmt::format("data offset {} is not a multiple of the alignment {}", offset, alignment));
    }
    if (offset > available || bytes > available - offset) {
      reader.fail(
          fmt::format("its {} bytes at data offset {} (file offset {} + {}) run past the end of the file, {}",
                      bytes, offset, data, offset, file.size()));
    }
    content.tensors[i].bytes = file.subspan(data + offset, bytes);
  }
  check_overlaps(reader, content, places);
}

}  // namespace

std::uint64_t parse_gguf(std::span<const std::byte> file, std::string_view name, ModelContent& content) {
  GgufReader reader(file, name);
  check_magic(file, reader, name);
  const std::uint64_t tensor_count = reader.read<std::uint64_t>("the tensor count");
  const std::uint64_t entry_count = reader.read_count(kMinEntryBytes, "metadata list");
  if (tensor_count > reader.remaining() / kMinTensorBytes) {
    reader.fail(fmt::format("{} tensors cannot fit: the file has {} bytes", tensor_count, file.size()));
  }
  read_metadata(reader, entry_count, content);
  reader.set_item("metadata", "general.alignment");
  const std::uint64_t alignment = alignment_of(content, reader);
  std::vector<Placement> places;
  places.reserve(tensor_count);
  content.tensors.reserve(tensor_count);
  content.tensor_index.reserve(tensor_count);
  for (std::uint64_t i = 0; i < tensor_count; ++i) places.push_back(read_tensor(reader, content));
  const std::uint64_t header_bytes = reader.offset();
  place_tensors(file, reader, header_bytes, alignment, places, content);
  return header_bytes;
}

}  // namespace mlxs
