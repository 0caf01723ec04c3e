// The engine in a program of your own: hello MODEL PROMPT. Built against the installed package
// (CMakeLists.txt beside this).
#include <iostream>

#include "mlxs/engine.h"

int main(int argc, char** argv) try {
  if (argc != 3) return std::cerr << "usage: hello MODEL PROMPT\n", 2;
  const auto engine = mlxs::Engine::create();
  const auto model = engine->load_model({.model = argv[1]});
  const auto stream = engine->create_generator({.model = model.id,
                                                .prompt = mlxs::ChatPrompt{.messages = {{"user", argv[2]}}},
                                                .max_tokens = 64,
                                                .temperature = 0});
  while (const auto chunk = stream->next()) std::cout << chunk->text << chunk->error_message << std::flush;
  std::cout << '\n';
} catch (const mlxs::Error& error) {
  return std::cerr << "error: " << error.full() << '\n', 1;
}
