// What `bench` asks a server: its own questions, or those of a file. Deterministic.
#pragma once

#include <string>
#include <vector>

namespace mlxs::cli {

// So many questions, no two alike: the built-in ones, again and again with a number.
std::vector<std::string> built_in_questions(int count);

// A question a line: text, or (in a .jsonl file) a JSON string or an object with "question", "prompt" or
// "text". Empty lines are left out. Throws kIo, or kInvalidArgument with the line, also if there is none at
// all.
std::vector<std::string> read_questions(const std::string& file);

// So many out of them, again and again with a number where there are fewer.
std::vector<std::string> take_questions(const std::vector<std::string>& questions, int count);

}  // namespace mlxs::cli
