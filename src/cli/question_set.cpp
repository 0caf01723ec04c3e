#include "cli/question_set.h"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "mlxs/error.h"

namespace mlxs::cli {
namespace {

constexpr std::array kQuestions{
    "What is the capital of France?",
    "Explain in two sentences why the sky is blue.",
    "Write a short poem about the sea in winter.",
    "How does a refrigerator keep food cold?",
    "List five uses of a paper clip.",
    "What is the difference between weather and climate?",
    "Tell me a story about a fox that learns to read.",
    "Describe how to boil an egg, step by step.",
    "Why do leaves change their colour in autumn?",
    "What would you pack for three days in the mountains?",
    "Explain recursion to a child.",
    "Who invented the printing press, and what did it change?",
    "Give three tips for sleeping better.",
    "How do bees make honey?",
    "Write a polite letter that asks for a refund.",
    "What is photosynthesis?",
    "Compare trains and aeroplanes for a journey of 500 kilometres.",
    "Name the planets of the solar system in order.",
    "What makes bread rise?",
    "Summarize the plot of Romeo and Juliet.",
    "How does a bicycle stay upright?",
    "Describe a perfect breakfast.",
    "What is a prime number? Give some examples.",
    "Why is the sea salty?",
    "Explain what an operating system does.",
};

std::string question_of(const std::string& line, bool json, const std::string& where) {
  if (!json) return line;
  const nlohmann::json parsed = nlohmann::json::parse(line, nullptr, false);
  if (parsed.is_string()) return parsed;
  if (parsed.is_object()) {
    for (const char* field : {"question", "prompt", "text"}) {
      if (const auto found = parsed.find(field); found != parsed.end() && found->is_string()) return *found;
    }
  }
  throw Error(ErrorCode::kInvalidArgument, fmt::format("{}: no question", where),
              "write a JSON string, or an object with \"question\", \"prompt\" or \"text\"",
              "--question-file");
}

}  // namespace

std::vector<std::string> take_questions(const std::vector<std::string>& questions, int count) {
  std::vector<std::string> taken;
  for (std::size_t i = 0; taken.size() < static_cast<std::size_t>(count); ++i) {
    const std::size_t round = i / questions.size();
    const std::string& question = questions[i % questions.size()];
    taken.push_back(round == 0 ? question : fmt::format("({}) {}", round + 1, question));
  }
  return taken;
}

std::vector<std::string> built_in_questions(int count) {
  return take_questions({kQuestions.begin(), kQuestions.end()}, count);
}

std::vector<std::string> read_questions(const std::string& file) {
  std::ifstream stream(file);
  std::error_code ignored;
  if (!stream || std::filesystem::is_directory(file, ignored)) {
    throw Error(ErrorCode::kIo,
                fmt::format("{} cannot be read: {}", file, std::strerror(stream ? EISDIR : errno)),
                "name a file with a question a line", "--question-file");
  }
  const bool json = file.ends_with(".jsonl") || file.ends_with(".json");
  std::vector<std::string> questions;
  std::string line;
  for (int number = 1; std::getline(stream, line); ++number) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ' || line.back() == '\t'))
      line.pop_back();
    if (line.empty()) continue;
    std::string question = question_of(line, json, fmt::format("{}:{}", file, number));
    if (!question.empty()) questions.push_back(std::move(question));
  }
  if (questions.empty()) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{} has no question in it", file),
                "write a question a line", "--question-file");
  }
  return questions;
}

}  // namespace mlxs::cli
