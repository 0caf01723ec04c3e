// Test helper: logits of every position of a token sequence, for comparison with an oracle.
// usage: eval_logits MODEL TOKENS OUT   TOKENS: raw int32; OUT: raw float32 [tokens, vocabulary]
//        eval_logits --backends           those of this build that run here
// MLXS_TEST_BACKEND picks the backend, MLXS_TEST_KV the type of the KV cache, MLXS_TEST_CHUNK the tokens a
// step.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <span>
#include <string_view>
#include <vector>

#include "backend/registry.h"
#include "mlxs/engine.h"

namespace {

int list_backends() {
  for (const std::string_view name : mlxs::backend_names()) {
    try {
      mlxs::make_backend(name);
      std::printf("%.*s\n", static_cast<int>(name.size()), name.data());
    } catch (const mlxs::Error&) {  // built, but this machine has no such device
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--backends") return list_backends();
  if (argc != 4) {
    std::fprintf(stderr, "usage: eval_logits MODEL TOKENS OUT\n");
    return 2;
  }
  try {
    std::ifstream in(argv[2], std::ios::binary);
    const std::vector<char> raw{std::istreambuf_iterator<char>(in), {}};
    const std::span tokens(reinterpret_cast<const std::int32_t*>(raw.data()),
                           raw.size() / sizeof(std::int32_t));
    mlxs::EngineOptions options;
    if (const char* backend = std::getenv("MLXS_TEST_BACKEND")) options.backend = backend;
    if (const char* type = std::getenv("MLXS_TEST_KV")) options.kv_cache_dtype = type;
    const char* rows = std::getenv("MLXS_TEST_CHUNK");
    const int chunk = rows != nullptr ? std::atoi(rows) : 256;
    const auto engine = mlxs::Engine::create(options);
    const mlxs::ModelInfo model = engine->load_model({.model = argv[1]});
    const std::vector<float> logits = engine->evaluate(model.id, tokens, chunk);
    std::ofstream out(argv[3], std::ios::binary);
    out.write(reinterpret_cast<const char*>(logits.data()),
              static_cast<std::streamsize>(logits.size() * sizeof(float)));
    return out.good() ? 0 : 1;
  } catch (const mlxs::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.full().c_str());
    return 1;
  }
}
