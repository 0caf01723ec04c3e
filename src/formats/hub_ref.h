// Names on a Hugging Face hub as users type them, and the GGUF files of a repository by their quantization.
// Pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mlxs {

// "org/repo[@revision][:Q4_K_M]".
struct HubRef {
  std::string repo;               // "org/repo"
  std::string revision = "main";  // a branch, tag or commit
  std::string quant;              // empty: not given
};

// nullopt: not of that form, and so perhaps a path.
std::optional<HubRef> parse_hub_ref(std::string_view text);

// One model among the .gguf files of a repository: its file, or all its parts.
struct GgufVariant {
  std::string tag;                 // "Q4_K_M"; the file's stem if it names no quantization
  std::vector<std::string> files;  // in order of the parts
};

// paths: of all files of a repository; others than .gguf and projectors of images ("mmproj") are left out.
std::vector<GgufVariant> gguf_variants(const std::vector<std::string>& paths);
// The variant that `quant` means, letter case ignored; with an empty one the only variant, or Q4_K_M.
// nullptr: none.
const GgufVariant* choose_variant(const std::vector<GgufVariant>& variants, std::string_view quant);

}  // namespace mlxs
