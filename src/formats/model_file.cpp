#include "formats/model_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <type_traits>
#include <utility>

#include "formats/gguf_parser.h"
#include "formats/hf_folder.h"
#include "formats/mapped_file.h"
#include "formats/mock_model.h"
#include "formats/model_content.h"
#include "formats/model_folder.h"
#include "formats/quote.h"
#include "formats/sha256.h"
#include "formats/synthetic_model.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

// How each alternative of MetaValue is called in messages, in its order.
constexpr std::string_view kKindNames[] = {"a bool",           "an integer",         "a float",
                                           "a string",         "a list of integers", "a list of floats",
                                           "a list of strings"};

// Enough for the header of most models in one read from a cold disk.
constexpr std::size_t kPrefetchBytes = std::size_t{4} << 20;

}  // namespace

struct ModelFile::Impl {
  std::filesystem::path path;
  std::string_view format;
  ModelContent content;
  std::string_view architecture;
  std::optional<SyntheticTensors> synthetic;

  // A GGUF model: one file, or the parts that `llama-gguf-split` made of one. The first part has the
  // metadata.
  void read_gguf(std::span<const std::span<const std::byte>> parts, std::span<const std::string> names) {
    format = "gguf";
    for (std::size_t i = 0; i < parts.size(); ++i) {
      ModelContent part;
      ModelContent& target = i == 0 ? content : part;
      const std::uint64_t header = parse_gguf(parts[i], names[i], target);
      content.headers.push_back(parts[i].first(header));
      content.data.push_back(parts[i].subspan(header));
      check_part(target, names[i], i, parts.size());
      for (TensorInfo& tensor : part.tensors) {
        if (!content.tensor_index.emplace(tensor.name, content.tensors.size()).second) {
          fail_part(names[i], fmt::format("tensor {} is in an earlier part too", quote(tensor.name)));
        }
        content.tensors.push_back(std::move(tensor));
      }
    }
    const std::int64_t tensors = split_value(content, "split.tensors.count", -1);
    if (parts.size() > 1 && tensors >= 0 && tensors != static_cast<std::int64_t>(content.tensors.size())) {
      fail_part(names.front(),
                fmt::format("metadata 'split.tensors.count' is {}, the {} parts hold {} tensors", tensors,
                            parts.size(), content.tensors.size()));
    }
  }

  static std::int64_t split_value(const ModelContent& part, std::string_view key, std::int64_t fallback) {
    const auto entry = part.metadata.find(key);
    if (entry == part.metadata.end()) return fallback;
    const auto* value = std::get_if<std::int64_t>(&entry->second);
    return value == nullptr ? -1 : *value;
  }
  [[noreturn]] static void fail_part(std::string_view name, std::string_view what) {
    throw Error(ErrorCode::kModelLoad, fmt::format("{}: {}", name, what),
                "the parts are of different models or renamed: fetch them again, with their own names");
  }
  static void check_part(const ModelContent& part, std::string_view name, std::size_t index,
                         std::size_t parts) {
    const std::int64_t count = split_value(part, "split.count", 1);
    const std::int64_t number = split_value(part, "split.no", 0);
    const bool whole = count <= 1 && parts == 1;
    if (whole || (count == static_cast<std::int64_t>(parts) && number == static_cast<std::int64_t>(index)))
      return;
    fail_part(name, fmt::format("metadata 'split.no' says part {} of {}, the name part {} of {}", number + 1,
                                count, index + 1, parts));
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
  if (names_mock(path.native())) {
    impl->path = path;
    impl->format = kMockFormat;
    describe_mock(parse_mock(path.native()), impl->content);
    return std::unique_ptr<ModelFile>(new ModelFile(std::move(impl)));
  }
  impl->path = std::filesystem::is_directory(path, ignored) ? single_model_in(path) : path;
  if (std::filesystem::is_directory(impl->path, ignored)) {
    impl->format = "safetensors";
    impl->content = open_hf_folder(impl->path);
    return std::unique_ptr<ModelFile>(new ModelFile(std::move(impl)));
  }
  std::vector<std::span<const std::byte>> parts;
  std::vector<std::string> names;
  for (const std::filesystem::path& part : gguf_parts(impl->path)) {
    parts.push_back(impl->content.map(part).bytes());
    names.push_back(part.string());
    advise_will_need(parts.back().first(std::min(parts.back().size(), kPrefetchBytes)));
  }
  impl->read_gguf(parts, names);
  return std::unique_ptr<ModelFile>(new ModelFile(std::move(impl)));
}

std::unique_ptr<ModelFile> ModelFile::open_bytes(std::span<const std::byte> bytes, std::string_view name) {
  auto impl = std::make_unique<Impl>();
  impl->path = name;
  impl->content.file_bytes = bytes.size();
  const std::string names[] = {std::string(name)};
  impl->read_gguf({&bytes, 1}, names);
  return std::unique_ptr<ModelFile>(new ModelFile(std::move(impl)));
}

std::unique_ptr<ModelFile> ModelFile::synthesize(const std::filesystem::path& config_json) {
  auto impl = std::make_unique<Impl>();
  impl->path = config_json;
  impl->format = "synthetic";
  impl->synthetic.emplace(config_json, impl->content);
  return std::unique_ptr<ModelFile>(new ModelFile(std::move(impl)));
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

std::string ModelFile::stored_name(std::string_view name) const {
  const auto& names = impl_->content.stored_names;
  if (const auto own = names.find(name); own != names.end()) return std::string(own->second);
  // "blk.1.ffn_up.weight": as that of another layer, with this one's number.
  const auto layer_of = [](std::string_view canonical) -> std::pair<std::string_view, std::string_view> {
    constexpr std::string_view kBlock = "blk.";
    if (!canonical.starts_with(kBlock)) return {};
    canonical.remove_prefix(kBlock.size());
    const std::size_t dot = canonical.find('.');
    if (dot == std::string_view::npos) return {};
    return {canonical.substr(0, dot), canonical.substr(dot)};
  };
  const auto [layer, kind] = layer_of(name);
  if (kind.empty()) return std::string(name);
  for (const auto& [canonical, stored] : names) {
    const auto [other, other_kind] = layer_of(canonical);
    if (other_kind != kind) continue;
    std::string text(stored);
    const std::string number = fmt::format(".{}.", other);
    const std::size_t at = text.find(number);
    if (at == std::string::npos) continue;
    return text.replace(at, number.size(), fmt::format(".{}.", layer));
  }
  return std::string(name);
}

const TensorInfo* ModelFile::take_tensor(std::string_view name, std::span<const std::int64_t> shape) const {
  const TensorInfo* found = find_tensor(name);
  if (found != nullptr || !impl_->synthetic) return found;
  impl_->synthetic->add(name, shape, impl_->content);
  return &impl_->content.tensors.back();
}

void ModelFile::drop_pages() const {
  if (impl_->content.maps.empty()) return;  // not ours
  for (const auto data : impl_->content.data) advise_drop(data);
}

}  // namespace mlxs
