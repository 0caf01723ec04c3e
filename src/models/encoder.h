// Models that read texts and generate none. load_model() makes one where a file holds an encoder: then its
// Model is an Encoder, and forward() gives the hidden states of all rows, [num_rows, hidden].
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "models/model.h"

namespace mlxs {

// What a text becomes: pooled from the hidden states of its tokens.
struct EncoderSpec {
  enum class Pooling : std::uint8_t { kMean, kFirst, kLast } pooling = Pooling::kMean;
  std::int32_t token_types = 1;   // 2: a pair's second text is of type 1
  bool double_separator = false;  // two separators stand between the texts of a pair
  bool scores = false;            // there is a head that scores a pair
};

class Encoder : public Model {
 public:
  const EncoderSpec& encoder() const { return spec_; }
  // Of the first token's hidden state, where encoder().scores: 0 … 1.
  virtual float score(std::span<const float> hidden) const = 0;

 protected:
  EncoderSpec spec_;
};

// Whether load_model() would make one of it.
bool is_encoder(const ModelFile& file);

std::unique_ptr<Model> load_bert(const ModelFile& file, Backend& backend, WeightCache* cache);

}  // namespace mlxs
