// An opened model: metadata and tensors, mapped read-only, nothing copied: GGUF v2/v3, or a Hugging Face or
// MLX folder of safetensors, whose keys and names become those of GGUF. Immutable after open(), safe to share
// between threads; views live as long as the ModelFile. Every damage is refused in open() with kModelLoad
// naming file, item, value and remedy; reading untrusted bytes never crashes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/dtype.h"

namespace mlxs {

using MetaValue = std::variant<bool, std::int64_t, double, std::string_view, std::vector<std::int64_t>,
                               std::vector<double>, std::vector<std::string_view>>;

struct TensorInfo {
  std::string_view name;
  DType type;
  std::vector<std::int64_t> shape;   // outermost first: a matrix is [out, in]
  std::span<const std::byte> bytes;  // exactly the tensor's bytes
  GroupScales scales = {};           // MLX and FP8: beside the codes; leading dimensions count as rows
};

class ModelFile {
 public:
  // path: a .gguf file (of a split model: any part), or a folder that holds exactly one model, or safetensors
  // with their config.json.
  static std::unique_ptr<ModelFile> open(const std::filesystem::path& path);
  // The same from memory that outlives the ModelFile; name stands for the path in messages.
  static std::unique_ptr<ModelFile> open_bytes(std::span<const std::byte> bytes, std::string_view name);
  // Random tensors of a published model: only its config.json is read (formats/synthetic_model.h).
  static std::unique_ptr<ModelFile> synthesize(const std::filesystem::path& config_json);
  ~ModelFile();

  const std::filesystem::path& path() const;
  std::uint64_t file_bytes() const;
  std::string_view format() const;        // "gguf", "safetensors", "synthetic"
  std::string_view architecture() const;  // "llama"
  // Identifies the content for caches, path-independent: "<size>-<mtime>-<hash of header and tensor table>",
  // safe in file names. Hashes the header at each call (milliseconds).
  std::string fingerprint() const;

  const std::map<std::string_view, MetaValue, std::less<>>& metadata() const;
  // Typed look-ups; the second form takes a default where absent. A wrong type or an absent required key
  // throws kModelLoad naming the key.
  bool get_bool(std::string_view key, std::optional<bool> fallback = {}) const;
  std::int64_t get_int(std::string_view key, std::optional<std::int64_t> fallback = {}) const;
  double get_float(std::string_view key, std::optional<double> fallback = {}) const;
  std::string_view get_string(std::string_view key, std::optional<std::string_view> fallback = {}) const;
  const std::vector<std::int64_t>* find_ints(std::string_view key) const;  // nullptr: absent
  const std::vector<double>* find_floats(std::string_view key) const;
  const std::vector<std::string_view>* find_strings(std::string_view key) const;
  bool has(std::string_view key) const;

  const std::vector<TensorInfo>& tensors() const;
  const TensorInfo* find_tensor(std::string_view name) const;  // nullptr: absent
  // What the file itself calls a tensor, for messages: of one that is absent, by those of the same kind in
  // other layers. The name given where nothing better is known.
  std::string stored_name(std::string_view name) const;
  // As find_tensor(), but a synthetic model makes a tensor of this shape where it has none; not thread-safe
  // then.
  const TensorInfo* take_tensor(std::string_view name, std::span<const std::int64_t> shape) const;

  // Tells the kernel that the mapped tensor bytes are no longer needed (after packing).
  void drop_pages() const;

 private:
  struct Impl;
  explicit ModelFile(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mlxs
