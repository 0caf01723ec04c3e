// A model without weights, "mock:tokens=512,delay=0": answers every prompt with the same words at the pace
// that its name says. For tests and measurements of everything around a model: scheduler, engine, protocols,
// clients. Pure.
#pragma once

#include <cstdint>
#include <string_view>

#include "formats/model_content.h"

namespace mlxs {

struct MockSpec {
  std::int32_t tokens = 512;  // of every answer, unless the request wants fewer
  double delay_ms = 0;        // of each step
  std::int32_t memory = 0;    // tokens of a step that it has memory for; more throw kOutOfMemory; 0: any
  std::int32_t fail = 0;      // every so many steps one throws kInternal; 0: none
};

// Token ids of a mock: the end, two of the chat template, 256 bytes, then the words of its answers.
inline constexpr std::int32_t kMockEnd = 2;
inline constexpr std::int32_t kMockFirstWord = 3 + 256;
inline constexpr std::int32_t kMockWords = 16;

inline constexpr std::string_view kMockFormat = "mock";  // as ModelFile::format() calls it

// "mock", or "mock:" and what follows it.
bool names_mock(std::string_view name);
// Throws kInvalidArgument, naming the option, its value and its range.
MockSpec parse_mock(std::string_view name);

// Its metadata: tokenizer, chat template, sizes. No tensors.
void describe_mock(const MockSpec& spec, ModelContent& content);

}  // namespace mlxs
