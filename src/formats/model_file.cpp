#include "formats/model_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <type_traits>
#include <utility>

#include "formats/gguf_parser.h"
#include "formats/hf_folder.h"
#include "formats/mapped_file.h"
#include "formats/model_content.h"
#include "formats/model_folder.h"
#include "formats/quote.h"
#include "formats/sha256.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

// How each alternative of MetaValue is called in messages, in its order.
constexpr std::string_view kKindNames[] = {"a bool",           "an integer",         "a float",
                                           "a string",         "a list of integers", "a list of floats",
                                           "a list of strings"};

// Enough for the header of most models in one read from a cold disk.
constexpr std::size_t kPrefetchBytes = std::size_t{4} << 20;

void refuse_split_metadata(const ModelFile& file) {
  const std::int64_t parts = file.get_int("split.count", 1);
  if (parts <= 1) return;
  throw Error(
      ErrorCode::kModelLoad,
      fmt::format("{}: metadata 'split.count': is one part of a model split into {} files, which cannot be "
                  "read yet",
                  file.path().string(), parts),
      "join the parts first with `llama-gguf-split --merge`");
}

}  // namespace

struct ModelFile::Impl {
  std::filesystem::path path;
  std::string_view format;
  ModelContent content;
  std::string_view architecture;

  // One GGUF file, mapped or in memory.
  void read_gguf(std::span<const std::byte> bytes) {
    format = "gguf";
    const std::uint64_t header = parse_gguf(bytes, path.string(), content);
    content.headers.push_back(bytes.first(header));
    content.data.push_back(bytes.subspan(header));
  }

  const MetaValue* find(std::string_view key) const {
    const auto entry = content.metadata.find(key);
    return entry == content.metadata.end() ? nullptr : &entry->second;
  }

  [[noreturn]] void fail_kind(std::string_view key, const MetaValue& value, std::string_view wanted) const {
    throw Error(ErrorCode::kModelLoad,
                fmt::format("{}: metadata {} is {}, {} was expected", path.string(), quote(key),
                            kKindNames[value.index()], wanted),
                "the file is damaged or from an incompatible converter: fetch or convert it again");
  }

  // The value as T, the fallback where absent.
  template <class T>
  T get(std::string_view key, const std::optional<T>& fallback) const {
    constexpr std::size_t kIndex = MetaValue(T{}).index();
    const MetaValue* value = find(key);
    if (value == nullptr) {
      if (fallback) return *fallback;
      throw Error(
          ErrorCode::kModelLoad,
          fmt::format("{}: metadata {} is missing ({})", path.string(), quote(key), kKindNames[kIndex]),
          "the file is incomplete or from an incompatible converter: fetch or convert it again");
    }
    if (const T* typed = std::get_if<T>(value)) return *typed;
    if constexpr (std::is_same_v<T, double>) {
      if (const auto* integer = std::get_if<std::int64_t>(value)) return static_cast<double>(*integer);
    }
    fail_kind(key, *value, kKindNames[kIndex]);
  }

  template <class T>
  const std::vector<T>* find_list(std::string_view key, std::string_view wanted) const {
    const MetaValue* value = find(key);
    if (value == nullptr) return nullptr;
    const auto* list = std::get_if<std::vector<T>>(value);
    if (list == nullptr) fail_kind(key, *value, wanted);
    return list;
  }
};

ModelFile::ModelFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {
  impl_->architecture = get_string("general.architecture");
}
ModelFile::~ModelFile() = default;

std::unique_ptr<ModelFile> ModelFile::open(const std::filesystem::path& path) {
  std::error_code ignored;
  auto impl = std::make_unique<Impl>();
  impl->path = std::filesystem::is_directory(path, ignored) ? single_model_in(path) : path;
  if (std::filesystem::is_directory(impl->path, ignored)) {
    impl->format = "safetensors";
    impl->content = open_hf_folder(impl->path);
    return std::unique_ptr<ModelFile>(new ModelFile(std::move(impl)));
  }
  refuse_split_name(impl->path);
  const std::span<const std::byte> bytes = impl->content.map(impl->path).bytes();
  advise_will_need(bytes.first(std::min(bytes.size(), kPrefetchBytes)));
  impl->read_gguf(bytes);
  std::unique_ptr<ModelFile> file(new ModelFile(std::move(impl)));
  refuse_split_metadata(*file);
  return file;
}

std::unique_ptr<ModelFile> ModelFile::open_bytes(std::span<const std::byte> bytes, std::string_view name) {
  auto impl = std::make_unique<Impl>();
  impl->path = name;
  impl->content.file_bytes = bytes.size();
  impl->read_gguf(bytes);
  std::unique_ptr<ModelFile> file(new ModelFile(std::move(impl)));
  refuse_split_metadata(*file);
  return file;
}

const std::filesystem::path& ModelFile::path() const { return impl_->path; }
std::uint64_t ModelFile::file_bytes() const { return impl_->content.file_bytes; }
std::string_view ModelFile::format() const { return impl_->format; }
std::string_view ModelFile::architecture() const { return impl_->architecture; }

std::string ModelFile::fingerprint() const {
  Sha256 hash;
  for (const auto header : impl_->content.headers) hash.update(header);
  return fmt::format("{}-{}-{}", file_bytes(), impl_->content.modified_ns, hash.finish_hex().substr(0, 32));
}

const std::map<std::string_view, MetaValue, std::less<>>& ModelFile::metadata() const {
  return impl_->content.metadata;
}

bool ModelFile::get_bool(std::string_view key, std::optional<bool> fallback) const {
  return impl_->get<bool>(key, fallback);
}
std::int64_t ModelFile::get_int(std::string_view key, std::optional<std::int64_t> fallback) const {
  return impl_->get<std::int64_t>(key, fallback);
}
double ModelFile::get_float(std::string_view key, std::optional<double> fallback) const {
  return impl_->get<double>(key, fallback);
}
std::string_view ModelFile::get_string(std::string_view key, std::optional<std::string_view> fallback) const {
  return impl_->get<std::string_view>(key, fallback);
}
const std::vector<std::int64_t>* ModelFile::find_ints(std::string_view key) const {
  return impl_->find_list<std::int64_t>(key, "a list of integers");
}
const std::vector<double>* ModelFile::find_floats(std::string_view key) const {
  return impl_->find_list<double>(key, "a list of floats");
}
const std::vector<std::string_view>* ModelFile::find_strings(std::string_view key) const {
  return impl_->find_list<std::string_view>(key, "a list of strings");
}
bool ModelFile::has(std::string_view key) const { return impl_->find(key) != nullptr; }

const std::vector<TensorInfo>& ModelFile::tensors() const { return impl_->content.tensors; }

const TensorInfo* ModelFile::find_tensor(std::string_view name) const {
  const auto entry = impl_->content.tensor_index.find(name);
  return entry == impl_->content.tensor_index.end() ? nullptr : &impl_->content.tensors[entry->second];
}

void ModelFile::drop_pages() const {
  if (impl_->content.maps.empty()) return;  // not ours
  for (const auto data : impl_->content.data) advise_drop(data);
}

}  // namespace mlxs
