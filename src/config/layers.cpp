#include "config/layers.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "formats/near_names.h"
#include "mlxs/error.h"

namespace mlxs::config {
namespace {

Effective::From origin(Rank rank) {
  switch (rank) {
    case Rank::kDefault:
      return Effective::From::kDefault;
    case Rank::kFilePreset:
    case Rank::kEnvironmentPreset:
    case Rank::kFlagPreset:
      return Effective::From::kPreset;
    case Rank::kFile:
    case Rank::kFileBlock:
      return Effective::From::kFile;
    case Rank::kEnvironment:
      return Effective::From::kEnvironment;
    case Rank::kFlag:
      break;
  }
  return Effective::From::kFlag;
}

// Rank of the values that a preset chosen at this rank stands for.
Rank preset_rank(Rank chosen) {
  if (chosen == Rank::kFlag) return Rank::kFlagPreset;
  return chosen == Rank::kEnvironment ? Rank::kEnvironmentPreset : Rank::kFilePreset;
}

template <class Number>
bool move_inside(const Key& key, Number& number) {
  const auto value = static_cast<double>(number);
  if (!key.has_range() || (value == 0 && !key.zero.empty())) return false;
  const double inside = std::clamp(value, key.low, key.high);
  if (inside == value) return false;
  number = static_cast<Number>(inside);
  return true;
}

bool move_inside(const Key& key, Value& value) {
  if (auto* whole = std::get_if<std::int64_t>(&value)) return move_inside(key, *whole);
  if (auto* number = std::get_if<double>(&value)) return move_inside(key, *number);
  bool moved = false;
  if (auto* integers = std::get_if<Integers>(&value)) {
    for (std::int64_t& number : *integers) moved = move_inside(key, number) || moved;
  }
  if (auto* weights = std::get_if<Weights>(&value)) {
    for (auto& [name, weight] : *weights) moved = move_inside(key, weight) || moved;
  }
  return moved;
}

// "a whole number, 1 … 16", as the remedy of a wrong value.
std::string wanted(const Key& key, double factor) {
  if (factor != 1) return "a number, " + key.values(factor);
  switch (key.type) {
    case Type::kBool:
      return "on or off";
    case Type::kInteger:
      return "a whole number, " + key.values();
    case Type::kNumber:
      return "a number, " + key.values();
    case Type::kBytes:
      return "bytes such as 2GiB, " + key.values();
    case Type::kText:
      return key.choices.empty() ? "one text" : "one of " + key.values();
    case Type::kList:
      return "a list of texts";
    case Type::kIntegers:
      return "a list of whole numbers, each " + key.values();
    case Type::kWeights:
      return "names and numbers, {alice: 2} or alice=2, each " + key.values();
  }
  return "";
}

}  // namespace

Name find_name(std::string_view path) {
  for (const Key& key : keys()) {
    if (key.path == path) return {&key, nullptr};
    for (const Alias& alias : key.aliases) {
      if (alias.path == path) return {&key, &alias};
    }
  }
  return {};
}

std::string flag_problem(const Key& key, const Raw& raw) {
  Layers layers;
  layers.add({.key = &key}, raw, Rank::kFlag, key.flag_name, true);
  return layers.problems().empty() ? "" : layers.problems().front();
}

void Layers::add(Name name, const Raw& raw, Rank rank, const std::string& where, bool applies) {
  if (raw.kind == Raw::Kind::kNull) return;
  const Key& key = *name.key;
  const bool file = rank == Rank::kFile || rank == Rank::kFileBlock;
  const std::string subject =
      file ? fmt::format("{}: {}", where, name.alias != nullptr ? name.alias->path : key.path) : where;
  const std::string quoted = key.secret ? "…" : to_text(raw);
  const double factor = name.alias != nullptr ? name.alias->factor
                        : rank == Rank::kFlag ? key.flag_factor
                                              : 1;
  // In another unit the number may have a fraction.
  std::optional<Value> value = parse(factor != 1 ? Type::kNumber : key.type, raw);
  if (value && factor != 1) {
    *value = key.type == Type::kNumber ? Value(std::get<double>(*value) * factor)
                                       : Value(static_cast<std::int64_t>(std::llround(
                                             std::clamp(std::get<double>(*value) * factor, -9e18, 9e18))));
  }
  if (value && !key.choices.empty()) {
    const auto& text = std::get<std::string>(*value);
    if (std::ranges::find(key.choices, text) == key.choices.end()) {
      const std::vector<std::string> near = near_names(text, key.choices, 1);
      return refuse(fmt::format(
          "{} = '{}' is not {}{}", subject, quoted, wanted(key, factor),
          near.empty() || near.front().empty() ? "" : fmt::format(" (did you mean {}?)", near.front())));
    }
  }
  if (!value) return refuse(fmt::format("{} = '{}' is not {}", subject, quoted, wanted(key, factor)));
  if (move_inside(key, *value)) {
    const std::string problem = fmt::format("{} = {} is outside {}", subject, quoted, key.values(factor));
    if (rank == Rank::kFlag) return refuse(problem);
    const std::string used = to_text(*value, key.type);
    warnings_.push_back(fmt::format("{}: {} is used", problem, factor == 1 ? used : used + " " + key.unit));
  }
  if (applies) take(key, {std::move(*value), rank, where, name.alias != nullptr});
}

void Layers::take(const Key& key, Given given) {
  std::vector<Given>& all = given_[&key];
  for (const Given& other : all) {
    if (other.rank != given.rank || other.value == given.value) continue;
    // The file under two names, or the environment: the key's own name counts, else the first.
    const bool replaces = other.alias && !given.alias;
    warnings_.push_back(fmt::format("{} and {} both set {}, differently: {} counts", other.where, given.where,
                                    key.path, replaces ? given.where : other.where));
    if (!replaces) return;
  }
  std::erase_if(
      all, [&given](const Given& other) { return other.rank == given.rank && other.alias && !given.alias; });
  all.push_back(std::move(given));
}

const Layers::Given* Layers::best(const Key& key) const {
  const auto found = given_.find(&key);
  if (found == given_.end() || found->second.empty()) return nullptr;
  return &*std::ranges::max_element(found->second, {}, &Given::rank);
}

// The preset's values, as they are after the file has had its say on them.
void Layers::expand_preset(const Settings& settings) {
  const Given* chosen = best(*find_key("gpu_scheduler.preset"));
  if (chosen == nullptr) return;
  const auto name = std::get<std::string>(chosen->value);
  if (name.empty()) return;
  const WindowPreset& preset = name == "latency_sensitive" ? settings.latency_sensitive
                               : name == "balanced"        ? settings.balanced
                                                           : settings.throughput_optimized;
  const Rank rank = preset_rank(chosen->rank);
  const std::string where = fmt::format("preset {} of {}", name, chosen->where);
  const auto stands_for = [&](const char* path, Value value) {
    take(*find_key(path), {std::move(value), rank, where, false});
  };
  stands_for("gpu_scheduler.enabled", true);
  stands_for("gpu_scheduler.batch_window_ms", preset.window_ms);
  stands_for("gpu_scheduler.max_batch_size", std::int64_t{preset.batch_size});
  stands_for("gpu_scheduler.adaptive_window.enabled", preset.adaptive);
  stands_for("gpu_scheduler.fast_path.enabled", preset.fast_path);
  stands_for("gpu_scheduler.auto_tune.enabled", preset.auto_tune);
  stands_for("gpu_scheduler.auto_tune.max_batch", std::int64_t{preset.auto_tune_max_batch});
}

std::vector<Effective> Layers::resolve(Settings& settings, std::vector<std::string>& warnings) {
  for (const Key& key : keys()) {  // first, so that presets are what the file makes of them
    if (const Given* given = best(key)) key.set(settings, given->value);
  }
  expand_preset(settings);
  warnings.insert(warnings.end(), warnings_.begin(), warnings_.end());
  if (!problems_.empty()) {
    const bool one = problems_.size() == 1;
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("Configuration validation failed{}{}", one ? ": " : ":\n  ",
                            fmt::join(problems_, "\n  ")),
                one ? "" : fmt::format("{} problems", problems_.size()));
  }
  std::vector<Effective> effective;
  for (const Key& key : keys()) {
    const Given* given = best(key);
    if (given == nullptr) {
      effective.push_back({&key, key.get(settings), Effective::From::kDefault, ""});
    } else {
      key.set(settings, given->value);
      effective.push_back({&key, given->value, origin(given->rank), given->where});
    }
  }
  return effective;
}

}  // namespace mlxs::config
