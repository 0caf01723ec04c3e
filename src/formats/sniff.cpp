#include "formats/sniff.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <string_view>

namespace mlxs {
namespace {

using namespace std::string_view_literals;

enum class Content {
  kEmpty,
  kZeros,
  kSafetensors,
  kZip,
  kGzip,
  kHtml,
  kLfsPointer,
  kOldGgml,
  kJson,
  kUnknown
};

std::string_view head_of(std::span<const std::byte> file, std::size_t count) {
  return {reinterpret_cast<const char*>(file.data()), std::min(count, file.size())};
}

std::string lower_without_leading_space(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  std::string out(text);
  std::ranges::transform(out, out.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

// safetensors: a little-endian u64 header length, then a JSON object.
bool looks_like_safetensors(std::span<const std::byte> file) {
  std::uint64_t length = 0;
  if (file.size() < 10) return false;
  std::memcpy(&length, file.data(), sizeof(length));
  return length >= 2 && length <= file.size() - 8 && file[8] == std::byte{'{'};
}

Content classify(std::span<const std::byte> file) {
  if (file.empty()) return Content::kEmpty;
  const std::string_view head = head_of(file, 64);
  if (std::ranges::all_of(head, [](char c) { return c == 0; })) return Content::kZeros;
  if (head.starts_with("PK\x03\x04"sv)) return Content::kZip;
  if (head.starts_with("\x1f\x8b"sv)) return Content::kGzip;
  if (head.starts_with("version https://git-lfs"sv)) return Content::kLfsPointer;
  for (const auto magic : {"lmgg"sv, "fmgg"sv, "tjgg"sv}) {  // GGML, GGMF, GGJT as little-endian u32
    if (head.starts_with(magic)) return Content::kOldGgml;
  }
  if (looks_like_safetensors(file)) return Content::kSafetensors;
  const std::string text = lower_without_leading_space(head);
  if (text.starts_with("<!doctype") || text.starts_with("<html") || text.starts_with("<?xml"))
    return Content::kHtml;
  if (text.starts_with("{") || text.starts_with("[")) return Content::kJson;
  return Content::kUnknown;
}

}  // namespace

bool looks_like_gguf(std::span<const std::byte> file) { return head_of(file, 4) == "GGUF"; }

std::string describe_content(std::span<const std::byte> file) {
  switch (classify(file)) {
    case Content::kEmpty:
      return "it is empty";
    case Content::kZeros:
      return "it starts with zeros";
    case Content::kSafetensors:
      return "it looks like safetensors";
    case Content::kZip:
      return "it looks like a zip archive or a PyTorch checkpoint";
    case Content::kGzip:
      return "it looks like a gzip archive";
    case Content::kHtml:
      return "it looks like a web page (HTML)";
    case Content::kLfsPointer:
      return "it is a git-lfs pointer, not the model";
    case Content::kOldGgml:
      return "it is an old GGML file, from before GGUF";
    case Content::kJson:
      return "it looks like JSON";
    case Content::kUnknown:
      break;
  }
  std::string hex;
  for (const char c : head_of(file, 8)) {
    fmt::format_to(std::back_inserter(hex), " {:02x}", static_cast<unsigned char>(c));
  }
  return "it starts with the bytes" + hex;
}

std::string remedy_for_content(std::span<const std::byte> file) {
  switch (classify(file)) {
    case Content::kEmpty:
    case Content::kZeros:
      return "the download did not complete: fetch it again";
    case Content::kHtml:
      return "the download saved a web page: use the link of the file itself";
    case Content::kLfsPointer:
      return "run `git lfs pull` in the model's repository";
    case Content::kZip:
    case Content::kGzip:
      return "unpack it, and give the .gguf file inside if there is one";
    case Content::kSafetensors:
      return "give the folder that holds it with its config.json";
    case Content::kOldGgml:
      return "convert the model again to GGUF";
    case Content::kJson:
    case Content::kUnknown:
      break;
  }
  return "give the path of a .gguf file";
}

}  // namespace mlxs
