// Builds GGUF v3 files in memory for tests: metadata, tensors, and hooks to damage them. Header-only, no GGUF
// reader.
//
//   GgufWriter writer("llama");
//   writer.add_int("llama.block_count", 2).add_strings("tokenizer.ggml.tokens", {"a", "b"});
//   writer.add_f32("output_norm.weight", {64}, values);            // shape outermost first, as
//   TensorInfo::shape writer.add_tensor("blk.0.attn_q.weight", 3, {64, 64}, bytes);  // any ggml type number
//   with its block bytes writer.write(path);                                            // or build() for the
//   bytes
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace mlxs::test {

class GgufWriter {
 public:
  explicit GgufWriter(std::string_view architecture = "llama") {
    if (!architecture.empty()) add_string("general.architecture", architecture);
  }

  // ---- metadata: each call appends one entry, duplicates included
  GgufWriter& add_bool(std::string_view key, bool value) {
    return add_entry(key, 7, value ? std::uint8_t{1} : std::uint8_t{0});
  }
  GgufWriter& add_int(std::string_view key, std::uint32_t value) { return add_entry(key, 4, value); }
  GgufWriter& add_float(std::string_view key, float value) { return add_entry(key, 6, value); }
  GgufWriter& add_string(std::string_view key, std::string_view value) {
    begin_entry(key, 8);
    put_string(meta_, value);
    return *this;
  }
  GgufWriter& add_ints(std::string_view key, const std::vector<std::int32_t>& values) {
    return add_list(key, 5, values);
  }
  GgufWriter& add_floats(std::string_view key, const std::vector<float>& values) {
    return add_list(key, 6, values);
  }
  GgufWriter& add_strings(std::string_view key, const std::vector<std::string>& values) {
    begin_entry(key, 9);
    put(meta_, std::uint32_t{8});
    put(meta_, std::uint64_t{values.size()});
    for (const std::string& value : values) put_string(meta_, value);
    return *this;
  }
  // A scalar of any value type (T's bytes), also of types that do not exist.
  template <class T>
  GgufWriter& add_entry(std::string_view key, std::uint32_t value_type, T value) {
    begin_entry(key, value_type);
    put(meta_, value);
    return *this;
  }
  // A list with the given element type; T's bytes one after another.
  template <class T>
  GgufWriter& add_list(std::string_view key, std::uint32_t element_type, const std::vector<T>& values) {
    begin_entry(key, 9);
    put(meta_, element_type);
    put(meta_, std::uint64_t{values.size()});
    for (const T& value : values) put(meta_, value);
    return *this;
  }
  // An entry whose value is exactly these bytes.
  GgufWriter& add_raw(std::string_view key, std::uint32_t value_type, std::span<const std::byte> bytes) {
    begin_entry(key, value_type);
    meta_.insert(meta_.end(), bytes.begin(), bytes.end());
    return *this;
  }

  // ---- tensors; shape outermost first ([out, in]); data is placed in order of the calls, aligned
  GgufWriter& add_tensor(std::string_view name, std::uint32_t ggml_type, std::vector<std::int64_t> shape,
                         std::span<const std::byte> data) {
    tensors_.push_back({std::string(name), ggml_type, std::move(shape), {data.begin(), data.end()}, {}});
    return *this;
  }
  GgufWriter& add_f32(std::string_view name, std::vector<std::int64_t> shape, std::span<const float> values) {
    std::int64_t elements = 1;
    for (const std::int64_t size : shape) elements *= size;
    if (elements != static_cast<std::int64_t>(values.size())) {
      throw std::logic_error("GgufWriter: " + std::string(name) + ": shape and values disagree");
    }
    return add_tensor(name, 0, std::move(shape), std::as_bytes(values));
  }

  // ---- hooks to damage
  GgufWriter& set_magic(std::string_view four_bytes) { return magic_ = four_bytes, *this; }
  GgufWriter& set_version(std::uint32_t version) { return version_ = version, *this; }
  GgufWriter& set_tensor_count(std::uint64_t count) { return tensor_count_ = count, *this; }
  GgufWriter& set_entry_count(std::uint64_t count) { return entry_count_ = count, *this; }
  // What the data offset of the last tensor says; its bytes are still placed where they belong.
  GgufWriter& set_last_offset(std::uint64_t offset) { return tensors_.back().offset = offset, *this; }
  // The alignment of the data section; does not write general.alignment.
  GgufWriter& set_alignment(std::size_t alignment) { return alignment_ = alignment, *this; }

  // boundaries, if given, gets the offset where each field of the file starts, and the size of the file.
  std::vector<std::byte> build(std::vector<std::size_t>* boundaries = nullptr) const {
    std::vector<std::byte> out;
    std::vector<std::size_t> marks;
    const auto mark = [&] { marks.push_back(out.size()); };
    mark();
    for (const char c : magic_) out.push_back(static_cast<std::byte>(c));
    mark(), put(out, version_);
    mark(), put(out, tensor_count_.value_or(tensors_.size()));
    mark(), put(out, entry_count_.value_or(entries_));
    for (const std::size_t at : meta_marks_) marks.push_back(out.size() + at);
    out.insert(out.end(), meta_.begin(), meta_.end());
    std::uint64_t offset = 0;
    for (const Tensor& tensor : tensors_) {
      mark(), put_string(out, tensor.name);
      mark(), put(out, static_cast<std::uint32_t>(tensor.shape.size()));
      for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size) mark(), put(out, *size);
      mark(), put(out, tensor.type);
      mark(), put(out, tensor.offset.value_or(offset));
      offset = aligned(offset + tensor.data.size());
    }
    for (const Tensor& tensor : tensors_) {
      out.resize(aligned(out.size()));
      mark();
      out.insert(out.end(), tensor.data.begin(), tensor.data.end());
    }
    mark();
    if (boundaries != nullptr) *boundaries = std::move(marks);
    return out;
  }

  void write(const std::filesystem::path& path) const {
    const std::vector<std::byte> bytes = build();
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    if (!file.flush()) throw std::runtime_error("GgufWriter: cannot write " + path.string());
  }

 private:
  struct Tensor {
    std::string name;
    std::uint32_t type;
    std::vector<std::int64_t> shape;
    std::vector<std::byte> data;
    std::optional<std::uint64_t> offset;
  };

  template <class T>
  static void put(std::vector<std::byte>& out, T value) {
    const std::size_t at = out.size();
    out.resize(at + sizeof(T));
    std::memcpy(out.data() + at, &value, sizeof(T));
  }
  static void put_string(std::vector<std::byte>& out, std::string_view text) {
    put(out, std::uint64_t{text.size()});
    for (const char c : text) out.push_back(static_cast<std::byte>(c));
  }
  void begin_entry(std::string_view key, std::uint32_t value_type) {
    ++entries_;
    meta_marks_.push_back(meta_.size());
    put_string(meta_, key);
    meta_marks_.push_back(meta_.size());
    put(meta_, value_type);
    meta_marks_.push_back(meta_.size());
  }
  std::size_t aligned(std::size_t offset) const {
    return (offset + alignment_ - 1) / alignment_ * alignment_;
  }

  std::string magic_ = "GGUF";
  std::uint32_t version_ = 3;
  std::optional<std::uint64_t> tensor_count_, entry_count_;
  std::size_t alignment_ = 32;
  std::uint64_t entries_ = 0;
  std::vector<std::byte> meta_;
  std::vector<std::size_t> meta_marks_;
  std::vector<Tensor> tensors_;
};

}  // namespace mlxs::test
