// `run MODEL PROMPT`: one answer, streamed to stdout.
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <vector>

#include "cli/commands.h"
#include "cli/engine_flags.h"
#include "cli/sampling_flags.h"

namespace mlxs::cli {
namespace {

struct RunFlags {
  std::string model;
  std::vector<std::string> words;
  bool raw = false, stats = false, json = false;
  EngineFlags engine;
  SamplingFlags sampling;
};

std::string read_stdin() {
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

// Whether stdin is a file or a pipe with something to add to a prompt. Scripts also leave pipes open that
// nobody ever writes to: those are given up after a while, and that is said.
bool stdin_adds() {
  struct stat status {};
  if (::fstat(STDIN_FILENO, &status) != 0) return false;
  if (S_ISREG(status.st_mode)) return true;
  if (!S_ISFIFO(status.st_mode)) return false;
  constexpr int kPatienceMs = 5000;
  pollfd source{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
  int ready = 0;
  while ((ready = ::poll(&source, 1, kPatienceMs)) < 0 && errno == EINTR) {
  }
  if (ready == 0) {
    fmt::print(stderr,
               "nothing came through the pipe in {} s: going on without it ('-' after the prompt waits)\n",
               kPatienceMs / 1000);
  }
  return ready > 0;
}

// The words, then, after a blank line, what stdin holds.
std::string prompt_text(std::vector<std::string> words) {
  const bool dash = !words.empty() && words.back() == "-";
  if (dash) words.pop_back();
  std::string text = fmt::format("{}", fmt::join(words, " "));
  if (dash || (text.empty() ? isatty(STDIN_FILENO) == 0 : stdin_adds())) {
    std::string piped = read_stdin();
    if (piped.ends_with('\n')) piped.pop_back();
    if (!text.empty() && !piped.empty()) text += "\n\n";
    text += piped;
  }
  if (text.empty()) {
    throw CLI::RequiredError("PROMPT");
  }
  return text;
}

Prompt make_prompt(const RunFlags& flags, std::string text, bool has_template) {
  if (flags.raw) return text;
  if (!has_template) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("model '{}' has no chat template", flags.model),
                "--raw gives it the prompt as it is");
  }
  ChatPrompt chat;
  if (!flags.sampling.system.empty()) chat.messages.push_back({"system", flags.sampling.system});
  chat.messages.push_back({"user", std::move(text)});
  return chat;
}

nlohmann::json to_json(const ModelInfo& model, const std::string& text, const Chunk& done) {
  const GenerationStats& stats = done.stats;
  return {{"model", model.id},
          {"text", text},
          {"finish_reason", finish_reason_name(done.finish)},
          {"usage",
           {{"prompt_tokens", stats.prompt_tokens},
            {"cached_prompt_tokens", stats.cached_prompt_tokens},
            {"generated_tokens", stats.generated_tokens}}},
          {"timings",
           {{"load_seconds", model.load_seconds},
            {"ttft_seconds", stats.ttft_seconds},
            {"total_seconds", stats.total_seconds},
            {"tokens_per_second", stats.tokens_per_second}}}};
}

int run(const RunFlags& flags) {
  std::string text = prompt_text(flags.words);  // before the model loads: a wrong call fails at once
  const LoadedEngine loaded = load_single(flags.engine, flags.model);
  GenerateParams params = generate_params(flags.sampling, loaded.model);
  params.prompt = make_prompt(flags, std::move(text), loaded.model.has_chat_template);

  std::string answer;
  const std::unique_ptr<Generator> generator = loaded.engine->create_generator(params);
  while (auto chunk = generator->next()) {
    if (chunk->type == Chunk::Type::kError) throw Error(chunk->error_code, chunk->error_message);
    if (chunk->type == Chunk::Type::kToken) {
      answer += chunk->text;
      if (flags.json || chunk->text.empty()) continue;
      std::fwrite(chunk->text.data(), 1, chunk->text.size(), stdout);
      if (std::fflush(stdout) != 0) throw std::system_error(errno, std::generic_category(), "stdout");
      continue;
    }
    if (flags.json) {
      const nlohmann::json result = to_json(loaded.model, answer, *chunk);
      fmt::print("{}\n", result.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
    } else {
      fmt::print("\n");
    }
    if (flags.stats) fmt::print(stderr, "{}\n", describe_stats(chunk->stats, chunk->finish));
  }
  return 0;
}

}  // namespace

void add_run(CLI::App& app, Action& action) {
  auto flags = std::make_shared<RunFlags>();
  CLI::App* command = app.add_subcommand("run", "Answer one prompt and exit");
  command->add_option("MODEL", flags->model, kModelHelp)->required();
  command->add_option(
      "PROMPT", flags->words,
      "What to ask; what a pipe or a file on stdin holds follows it, and is all of it without "
      "words; '-' at the end waits for stdin as long as it takes");
  command->add_flag("--raw", flags->raw, "The prompt as it is, without the chat template");
  command->add_flag("--json", flags->json, "Print one JSON object instead of streaming");
  command->add_flag("--stats", flags->stats, "Token counts and speed on stderr");
  add_sampling_flags(*command, flags->sampling);
  add_engine_flags(*command, flags->engine);
  command->footer(
      "Examples:\n"
      "  mlx-serving run smollm2 \"What is the capital of France?\"\n"
      "  cat notes.txt | mlx-serving run smollm2 \"Summarize in one sentence:\" --max-tokens 60\n"
      "  while read -r line; do mlx-serving run smollm2 \"$line\" </dev/null; done <questions.txt\n"
      "  ssh host mlx-serving run smollm2 Hello </dev/null        (scripts that a shell reads from stdin: "
      "likewise)\n"
      "  mlx-serving run ./model.gguf --raw --temperature 0 --json \"Once upon a time\"");
  command->callback([flags, &action] { action = [flags] { return run(*flags); }; });
}

}  // namespace mlxs::cli
