// Builds safetensors files in memory for tests, and small Hugging Face folders around them. Header-only, no
// reader.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "support/temp_dir.h"

namespace mlxs::test {

// header_length: what the first eight bytes say, if not the truth.
inline std::string safetensors_file(std::string header, std::string_view data = {},
                                    std::uint64_t header_length = UINT64_MAX) {
  const std::uint64_t length = header_length == UINT64_MAX ? header.size() : header_length;
  std::string file(sizeof(length), '\0');
  std::memcpy(file.data(), &length, sizeof(length));
  return file + header + std::string(data);
}

class SafetensorsWriter {
 public:
  SafetensorsWriter& add(const std::string& name, const std::string& dtype, std::vector<std::int64_t> shape,
                         std::size_t bytes) {
    header_[name] = {
        {"dtype", dtype}, {"shape", shape}, {"data_offsets", {data_.size(), data_.size() + bytes}}};
    for (std::size_t i = 0; i < bytes; ++i) data_.push_back(static_cast<char>(i * 37 + 11));
    return *this;
  }
  std::string build() const { return safetensors_file(header_.dump(), data_); }
  nlohmann::json& header() { return header_; }  // to damage it

 private:
  nlohmann::json header_ = nlohmann::json::object();
  std::string data_;
};

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace mlxs::test
