#include "formats/hub_ref.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <regex>

namespace mlxs {
namespace {

std::string upper(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(),
                         [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return out;
}

// "Qwen3-8B-Q4_K_M" → "Q4_K_M", "model.UD-IQ2_M" → "UD-IQ2_M"; empty if the stem ends in no quantization.
std::string quant_of(const std::string& stem) {
  static const std::regex kQuant(
      R"((?:^|[-._])((?:UD-)?(?:I?Q[1-8](?:_[0-9A-Z]+)*|TQ[12]_0|B?F16|F32|MXFP4(?:_MOE)?))$)",
      std::regex::icase);
  std::smatch match;
  return std::regex_search(stem, match, kQuant) ? upper(match[1].str()) : std::string();
}

}  // namespace

std::optional<HubRef> parse_hub_ref(std::string_view text) {
  static const std::regex kForm(
      R"(([A-Za-z0-9_][A-Za-z0-9._-]{0,95}/[A-Za-z0-9_][A-Za-z0-9._-]{0,95})(?:@([A-Za-z0-9_][A-Za-z0-9._/-]{0,250}))?(?::([A-Za-z0-9._-]{1,64}))?)");
  if (text.size() > 512) return std::nullopt;
  const std::string line(text);
  std::smatch match;
  if (!std::regex_match(line, match, kForm) || line.find("..") != std::string::npos) return std::nullopt;
  HubRef ref;
  ref.repo = match[1].str();
  if (ref.repo.find("--") != std::string::npos || ref.repo.ends_with(".git") || ref.repo.ends_with(".gguf"))
    return std::nullopt;
  if (match[2].matched) ref.revision = match[2].str();
  if (match[3].matched) ref.quant = match[3].str();
  return ref;
}

std::vector<GgufVariant> gguf_variants(const std::vector<std::string>& paths) {
  static const std::regex kPart(R"(^(.*)-\d{5}-of-\d{5}$)");
  std::map<std::string, std::vector<std::string>> by_stem;  // without the part's number
  for (const std::string& path : paths) {
    if (!path.ends_with(".gguf") || upper(path).find("MMPROJ") != std::string::npos) continue;
    std::string stem = path.substr(0, path.size() - 5);
    std::smatch match;
    if (std::regex_match(stem, match, kPart)) stem = match[1].str();
    by_stem[stem].push_back(path);
  }
  std::vector<GgufVariant> variants;
  for (auto& [stem, files] : by_stem) {
    std::ranges::sort(files);
    const std::string name = stem.substr(stem.rfind('/') + 1);
    const std::string quant = quant_of(name);
    variants.push_back({quant.empty() ? name : quant, std::move(files)});
  }
  // Two models of one quantization in a repository: their whole names tell them apart.
  for (std::size_t i = 0; i < variants.size(); ++i) {
    const std::string tag = variants[i].tag;
    if (std::ranges::count(variants, tag, &GgufVariant::tag) < 2) continue;
    std::size_t index = 0;
    for (const auto& [stem, unused] : by_stem) {
      if (variants[index].tag == tag) variants[index].tag = stem.substr(stem.rfind('/') + 1);
      ++index;
    }
  }
  return variants;
}

const GgufVariant* choose_variant(const std::vector<GgufVariant>& variants, std::string_view quant) {
  if (quant.empty() && variants.size() == 1) return &variants.front();
  const std::string wanted = quant.empty() ? "Q4_K_M" : upper(quant);
  const auto found =
      std::ranges::find_if(variants, [&](const GgufVariant& v) { return upper(v.tag) == wanted; });
  return found == variants.end() ? nullptr : &*found;
}

}  // namespace mlxs
