// `chat MODEL`: a conversation in the terminal.
#include <fmt/format.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "cli/commands.h"
#include "cli/engine_flags.h"
#include "cli/line_editor.h"
#include "cli/sampling_flags.h"
#include "formats/catalog.h"

namespace mlxs::cli {
namespace {

constexpr std::string_view kHelp =
    "  /system TEXT  set the system message (without TEXT: remove it)\n"
    "  /clear        forget the conversation\n"
    "  /help         this text\n"
    "  /exit         leave; so does Ctrl-D\n"
    "A line that ends in a backslash goes on in the next. Ctrl-C stops the answer.\n";

struct ChatFlags {
  std::string model;
  bool stats = false;
  EngineFlags engine;
  SamplingFlags sampling;
};

// Generator::next() that notices Ctrl-C: the answer is cancelled, its last chunk still comes.
class InterruptibleStream {
 public:
  explicit InterruptibleStream(Generator& generator) : generator_(generator) {}

  std::optional<Chunk> next() {
    Chunk chunk;
    for (;;) {
      switch (generator_.try_next(chunk)) {
        case Generator::Poll::kChunk:
          return chunk;
        case Generator::Poll::kEnd:
          return std::nullopt;
        case Generator::Poll::kPending:
          wait_a_little();
      }
      if (LineEditor::take_interrupt()) generator_.cancel();
    }
  }

 private:
  struct Signal {
    std::mutex mutex;
    std::condition_variable condition;
    bool ready = true;
  };

  void wait_a_little() {
    std::unique_lock lock(signal_->mutex);
    if (std::exchange(signal_->ready, false)) {  // the last callback was used up
      lock.unlock();
      generator_.notify_when_ready([signal = signal_] {
        const std::lock_guard guard(signal->mutex);
        signal->ready = true;
        signal->condition.notify_one();
      });
      lock.lock();
    }
    signal_->condition.wait_for(lock, std::chrono::milliseconds(50), [this] { return signal_->ready; });
  }

  Generator& generator_;
  std::shared_ptr<Signal> signal_ =
      std::make_shared<Signal>();  // the engine thread may call back after we are gone
};

class Conversation {
 public:
  Conversation(Engine& engine, const ModelInfo& model, const ChatFlags& flags)
      : engine_(engine), params_(generate_params(flags.sampling, model)), stats_(flags.stats) {
    set_system(flags.sampling.system);
  }

  void clear() { messages_.clear(); }
  void set_system(std::string text) { system_ = std::move(text); }

  // Streams the answer; a failure is told and leaves the conversation as it was.
  void ask(std::string text) {
    messages_.push_back({"user", std::move(text)});
    try {
      messages_.push_back({"assistant", stream_answer()});
    } catch (const Error& error) {
      messages_.pop_back();
      fmt::print(stderr, "error: {}\n", error.full());
      if (error.code() == ErrorCode::kContextOverflow)
        fmt::print(stderr, "/clear starts a new conversation\n");
    }
  }

 private:
  std::string stream_answer() {
    ChatPrompt prompt;
    if (!system_.empty()) prompt.messages.push_back({"system", system_});
    prompt.messages.insert(prompt.messages.end(), messages_.begin(), messages_.end());
    params_.prompt = std::move(prompt);

    const auto generator = engine_.create_generator(params_);
    InterruptibleStream stream(*generator);
    std::string answer;
    while (auto chunk = stream.next()) {
      if (chunk->type == Chunk::Type::kError) {
        std::fputc('\n', stdout);
        throw Error(chunk->error_code, chunk->error_message);
      }
      answer += chunk->text;
      std::fwrite(chunk->text.data(), 1, chunk->text.size(), stdout);
      std::fflush(stdout);
      if (chunk->type != Chunk::Type::kDone) continue;
      fmt::print("{}\n", chunk->finish == FinishReason::kCancelled ? " [stopped]" : "");
      std::fflush(stdout);
      if (stats_) fmt::print(stderr, "{}\n", describe_stats(chunk->stats, chunk->finish));
    }
    return answer;
  }

  Engine& engine_;
  GenerateParams params_;
  bool stats_;
  std::string system_;
  std::vector<ChatMessage> messages_;
};

// One message: lines joined while they end in a backslash.
LineEditor::Result read_message(LineEditor& editor, std::string& message) {
  message.clear();
  std::string line;
  for (const char* prompt = ">>> ";; prompt = "... ") {
    const auto result = editor.read(prompt, line);
    if (result != LineEditor::Result::kLine) return message.empty() ? result : LineEditor::Result::kLine;
    if (line.empty() || line.back() != '\\') {
      message += line;
      return LineEditor::Result::kLine;
    }
    line.back() = '\n';
    message += line;
  }
}

// False: leave.
bool run_command(const std::string& message, Conversation& conversation) {
  const auto space = message.find(' ');
  const std::string_view name = std::string_view(message).substr(0, space);
  std::string argument = space == std::string::npos ? "" : message.substr(space + 1);
  if (name == "/exit") return false;
  if (name == "/clear") {
    conversation.clear();
  } else if (name == "/system") {
    conversation.set_system(std::move(argument));
  } else if (name == "/help") {
    fmt::print("{}", kHelp);
  } else {
    fmt::print(stderr, "no command '{}'; /help lists them\n", name);
  }
  std::fflush(stdout);
  return true;
}

int chat(const ChatFlags& flags) {
  const LoadedEngine loaded = load_single(flags.engine, flags.model);
  if (!loaded.model.has_chat_template) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("model '{}' has no chat template", flags.model),
                "it can only continue text: mlx-serving run --raw");
  }
  LineEditor editor(cache_directory() / "chat_history");
  if (editor.interactive()) fmt::print("{} is ready; /help lists the commands\n", loaded.model.id);
  std::fflush(stdout);

  Conversation conversation(*loaded.engine, loaded.model, flags);
  std::string message;
  for (;;) {
    const auto result = read_message(editor, message);
    if (result == LineEditor::Result::kEnd) return 0;
    if (result == LineEditor::Result::kInterrupted || message.find_first_not_of(" \t\n") == std::string::npos)
      continue;
    if (message.front() == '/') {
      if (!run_command(message, conversation)) return 0;
    } else {
      conversation.ask(message);
    }
  }
}

}  // namespace

void add_chat(CLI::App& app, Action& action) {
  auto flags = std::make_shared<ChatFlags>();
  CLI::App* command = app.add_subcommand("chat", "Talk to a model in the terminal");
  command->add_option("MODEL", flags->model, kModelHelp)->required();
  command->add_flag("--stats", flags->stats, "Token counts and speed after each answer, on stderr");
  add_sampling_flags(*command, flags->sampling);
  add_engine_flags(*command, flags->engine);
  command->footer("In the conversation:\n" + std::string(kHelp) +
                  "\nExamples:\n"
                  "  mlx-serving chat smollm2\n"
                  "  mlx-serving chat smollm2 --system \"Answer in French.\" --temperature 0.2");
  command->callback([flags, &action] { action = [flags] { return chat(*flags); }; });
}

}  // namespace mlxs::cli
