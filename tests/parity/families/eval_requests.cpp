// Test helper: what requests that share steps generate, with log probabilities, for comparison with an
// oracle. usage: eval_requests MODEL TOKENS LENGTH...   TOKENS: raw int32 Runs one greedy request for each
// prompt TOKENS[0, LENGTH), all at once and none of them cached, then all of TOKENS behind them, which finds
// its prefix. A JSON line each: prompt, cached, tokens, top (id, logprob).
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "mlxs/engine.h"

namespace {

constexpr int kGenerated = 32;

std::unique_ptr<mlxs::Generator> start(mlxs::Engine& engine, const std::string& model,
                                       const std::vector<std::int32_t>& tokens, std::size_t length) {
  const std::vector<std::int32_t> prompt(tokens.begin(),
                                         tokens.begin() + static_cast<std::ptrdiff_t>(length));
  return engine.create_generator({.model = model,
                                  .prompt = mlxs::TokenPrompt{prompt},
                                  .max_tokens = kGenerated,
                                  .temperature = 0,
                                  .top_logprobs = 20,
                                  .ignore_eos = true});
}

void print(mlxs::Generator& generator) {
  nlohmann::json line{{"tokens", nlohmann::json::array()}, {"top", nlohmann::json::array()}};
  while (const auto chunk = generator.next()) {
    if (chunk->type == mlxs::Chunk::Type::kError) throw mlxs::Error(chunk->error_code, chunk->error_message);
    if (chunk->type == mlxs::Chunk::Type::kDone) {
      line["prompt"] = chunk->stats.prompt_tokens;
      line["cached"] = chunk->stats.cached_prompt_tokens;
    } else if (chunk->token_id >= 0) {
      line["tokens"].push_back(chunk->token_id);
      nlohmann::json top = nlohmann::json::array();
      for (const mlxs::TokenAlternative& other : chunk->top_logprobs) {
        top.push_back({other.token_id, other.logprob});
      }
      line["top"].push_back(std::move(top));
    }
  }
  std::printf("%s\n", line.dump().c_str());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: eval_requests MODEL TOKENS LENGTH...\n");
    return 2;
  }
  try {
    std::ifstream in(argv[2], std::ios::binary);
    const std::vector<char> raw{std::istreambuf_iterator<char>(in), {}};
    const auto* values = reinterpret_cast<const std::int32_t*>(raw.data());
    const std::vector<std::int32_t> tokens(values, values + raw.size() / sizeof(std::int32_t));
    mlxs::EngineOptions options;
    if (const char* backend = std::getenv("MLXS_TEST_BACKEND")) options.backend = backend;
    const auto engine = mlxs::Engine::create(options);
    const mlxs::ModelInfo model = engine->load_model({.model = argv[1]});
    std::vector<std::unique_ptr<mlxs::Generator>> running;
    for (int i = 3; i < argc; ++i) {
      running.push_back(start(*engine, model.id, tokens, std::strtoul(argv[i], nullptr, 10)));
    }
    for (const auto& generator : running) print(*generator);
    print(*start(*engine, model.id, tokens, tokens.size()));
    return 0;
  } catch (const mlxs::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.full().c_str());
    return 1;
  }
}
