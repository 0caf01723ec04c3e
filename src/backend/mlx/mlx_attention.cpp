#include "backend/mlx/mlx_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "backend/mlx/mlx_paged_attention.h"

namespace mlxs::mlx_backend {
namespace {

mx::array int_array(const std::vector<std::int32_t>& values) {
  return mx::array(values.begin(), {static_cast<int>(values.size())}, mx::int32);
}

std::int32_t slot_of(const SequenceSpan& sequence, int token) {
  return sequence.pages[static_cast<std::size_t>(token / kPageTokens)] * kPageTokens + token % kPageTokens;
}

// x: [rows, heads, dim]; cos, sin: [rows, dims/2].
mx::array rotate(const mx::array& x, const RopeSpec& rope, const std::pair<mx::array, mx::array>& rotation) {
  const int rows = x.shape(0), heads = x.shape(1), dim = x.shape(2), half = rope.dims / 2;
  const mx::array cos = mx::expand_dims(rotation.first, 1), sin = mx::expand_dims(rotation.second, 1);
  const mx::array turned = mx::astype(mx::slice(x, {0, 0, 0}, {rows, heads, rope.dims}), mx::float32);
  const auto pair = rope.interleaved
                        ? mx::reshape(turned, {rows, heads, half, 2})
                        : mx::transpose(mx::reshape(turned, {rows, heads, 2, half}), {0, 1, 3, 2});
  const std::vector<mx::array> parts = mx::split(pair, 2, 3);
  const mx::array a = mx::squeeze(parts[0], 3), b = mx::squeeze(parts[1], 3);
  const std::vector<mx::array> both{a * cos - b * sin, a * sin + b * cos};
  mx::array out =
      rope.interleaved ? mx::reshape(mx::stack(both, 3), {rows, heads, rope.dims}) : mx::concatenate(both, 2);
  out = mx::astype(out, x.dtype());
  if (rope.dims == dim) return out;
  return mx::concatenate({out, mx::slice(x, {0, 0, rope.dims}, {rows, heads, dim})}, 2);
}

// True where a query may look: [sequences, 1, rows, tokens].
mx::array visible(const StepIndex::Group& group, const AttentionSpec& spec) {
  const mx::array keys = mx::reshape(mx::arange(0, group.tokens, 1, mx::int32), {1, 1, 1, group.tokens});
  const mx::array queries = mx::reshape(group.positions, {group.sequences, 1, group.rows, 1});
  mx::array mask = mx::less_equal(keys, queries);
  // Without a causal order a row sees its whole sequence, whose last token is the last query's.
  if (!spec.causal) mask = mx::less_equal(keys, mx::max(queries, 2, true));
  if (spec.window > 0)
    mask = mx::logical_and(mask, mx::greater(keys, queries - mx::array(spec.window, mx::int32)));
  return mask;
}

// q: [sequences, heads, rows, key_dim]; k, v: [sequences, kv_heads, tokens, dim] → [sequences, heads, rows,
// value_dim].
mx::array attend(const mx::array& q, const mx::array& k, const mx::array& v, const mx::array& mask,
                 const AttentionSpec& spec, const HeadVectors& vectors) {
  if (spec.soft_cap <= 0.0f) {
    std::optional<mx::array> sinks;
    if (vectors.sinks) sinks = mx::astype(*vectors.sinks, q.dtype());
    return mx::fast::scaled_dot_product_attention(q, k, v, spec.scale, "array", mask, sinks);
  }
  const int sequences = q.shape(0), rows = q.shape(2), tokens = k.shape(2),
            group = spec.heads / spec.kv_heads;
  const mx::array grouped = mx::reshape(q, {sequences, spec.kv_heads, group, rows, spec.key_dim});
  mx::array scores = mx::matmul(grouped, mx::expand_dims(mx::swapaxes(k, 2, 3), 2));
  scores = mx::astype(scores, mx::float32) * mx::array(spec.scale);
  scores = mx::tanh(scores / mx::array(spec.soft_cap)) * mx::array(spec.soft_cap);
  scores = mx::where(mx::expand_dims(mask, 1), scores, mx::array(-std::numeric_limits<float>::infinity()));
  if (vectors.sinks) {
    const mx::array sink = mx::broadcast_to(mx::reshape(*vectors.sinks, {1, spec.kv_heads, group, 1, 1}),
                                            {sequences, spec.kv_heads, group, rows, 1});
    scores = mx::softmax(mx::concatenate({scores, sink}, -1), -1, true);
    scores = mx::slice(scores, {0, 0, 0, 0, 0}, {sequences, spec.kv_heads, group, rows, tokens});
  } else {
    scores = mx::softmax(scores, -1, true);
  }
  const mx::array out = mx::matmul(mx::astype(scores, v.dtype()), mx::expand_dims(v, 2));
  return mx::reshape(out, {sequences, spec.heads, rows, spec.value_dim});
}

// The KV of a group: [sequences, kv_heads, tokens, dim] in the type of the queries.
mx::array gather(const mx::array& store, const StepIndex::Group& group, mx::Dtype type) {
  const mx::array flat = mx::take(store, group.slots, 0);
  const mx::array shaped = mx::reshape(flat, {group.sequences, group.tokens, store.shape(1), store.shape(2)});
  return mx::astype(mx::transpose(shaped, {0, 2, 1, 3}), type);
}

}  // namespace

StepIndex::StepIndex(const Batch& batch) : positions_(batch.positions.begin(), batch.positions.end()) {
  std::vector<std::int32_t> append_slots, order;
  std::vector<const SequenceSpan*> decodes, chunks;
  for (const SequenceSpan& sequence : batch.sequences) {
    (sequence.num_rows == 1 ? decodes : chunks).push_back(&sequence);
    for (int i = 0; i < sequence.num_rows; ++i) append_slots.push_back(slot_of(sequence, sequence.start + i));
  }
  const auto add_group = [&](std::span<const SequenceSpan* const> sequences) {
    const int rows = sequences.front()->num_rows;
    int tokens = 0;
    for (const SequenceSpan* s : sequences) tokens = std::max(tokens, s->start + s->num_rows);
    std::vector<std::int32_t> slots, pages, positions;
    for (const SequenceSpan* s : sequences) {
      const int last = (s->start + rows - 1) / kPageTokens;
      for (int p = 0; p <= (tokens - 1) / kPageTokens; ++p)
        pages.push_back(s->pages[static_cast<std::size_t>(std::min(p, last))]);
      for (int t = 0; t < tokens; ++t) slots.push_back(slot_of(*s, std::min(t, s->start + s->num_rows - 1)));
      for (int i = 0; i < rows; ++i) {
        positions.push_back(s->start + i);
        order.push_back(s->first_row + i);
      }
    }
    const int count = static_cast<int>(sequences.size());
    groups_.push_back({.first_row = static_cast<int>(order.size()) - count * rows,
                       .sequences = count,
                       .rows = rows,
                       .tokens = tokens,
                       .slots = int_array(slots),
                       .pages = mx::reshape(int_array(pages), {count, -1}),
                       .positions = mx::reshape(int_array(positions), {count, rows})});
  };
  // Decode rows together, padded to the longest; ordered by length so that a group wastes at most half.
  std::ranges::sort(decodes, {}, [](const SequenceSpan* s) { return s->start; });
  for (std::size_t begin = 0; begin < decodes.size();) {
    std::size_t end = begin + 1;
    while (end < decodes.size() && decodes[end]->start <= 2 * decodes[begin]->start + 64) ++end;
    add_group(std::span<const SequenceSpan* const>(decodes).subspan(begin, end - begin));
    begin = end;
  }
  for (const SequenceSpan* chunk : chunks) add_group({&chunk, 1});

  reordered_ = !std::ranges::is_sorted(order);
  std::vector<std::int32_t> restore(order.size());
  for (std::size_t i = 0; i < order.size(); ++i)
    restore[static_cast<std::size_t>(order[i])] = static_cast<std::int32_t>(i);
  row_order_ = int_array(order);
  restore_ = int_array(restore);
  append_slots_ = int_array(append_slots);
}

const std::pair<mx::array, mx::array>& StepIndex::rotation(const RopeSpec& rope) {
  const auto key = std::pair(rope.inverse_frequencies.data(), rope.magnitude);
  if (const auto found = rotations_.find(key); found != rotations_.end()) return found->second;
  const std::size_t half = static_cast<std::size_t>(rope.dims) / 2;
  std::vector<float> cos(positions_.size() * half), sin(cos.size());
  for (std::size_t row = 0; row < positions_.size(); ++row) {
    for (std::size_t i = 0; i < half; ++i) {
      const double angle =
          static_cast<double>(positions_[row]) * static_cast<double>(rope.inverse_frequencies[i]);
      cos[row * half + i] = static_cast<float>(std::cos(angle)) * rope.magnitude;
      sin[row * half + i] = static_cast<float>(std::sin(angle)) * rope.magnitude;
    }
  }
  const mx::Shape shape{static_cast<int>(positions_.size()), static_cast<int>(half)};
  return rotations_.emplace(key, std::pair(mx::array(cos.begin(), shape), mx::array(sin.begin(), shape)))
      .first->second;
}

mx::array attention(const mx::array& qkv, const AttentionSpec& spec, const HeadVectors& vectors,
                    StepIndex& index, MlxKvStore& kv) {
  const int rows = qkv.shape(0);
  const int query_columns = spec.heads * spec.key_dim, key_columns = spec.kv_heads * spec.key_dim;
  const auto part = [&](int begin, int columns, int heads) {
    return mx::reshape(mx::slice(qkv, {0, begin}, {rows, begin + columns}), {rows, heads, columns / heads});
  };
  mx::array q = part(0, query_columns, spec.heads);
  mx::array k = part(query_columns, key_columns, spec.kv_heads);
  const mx::array v = part(query_columns + key_columns, spec.kv_heads * spec.value_dim, spec.kv_heads);
  if (vectors.query_gain) q = mx::fast::rms_norm(q, vectors.query_gain, vectors.query_epsilon);
  if (vectors.key_gain) k = mx::fast::rms_norm(k, vectors.key_gain, vectors.key_epsilon);
  if (spec.rope.dims > 0) {
    const auto& rotation = index.rotation(spec.rope);
    q = rotate(q, spec.rope, rotation);
    k = rotate(k, spec.rope, rotation);
  }
  kv.append(spec.layer, index.append_slots(), k, v);

  if (index.reordered()) q = mx::take(q, index.row_order(), 0);
  std::vector<mx::array> outputs;
  for (const StepIndex::Group& group : index.groups()) {
    const int count = group.sequences * group.rows;
    const mx::array own =
        mx::slice(q, {group.first_row, 0, 0}, {group.first_row + count, spec.heads, spec.key_dim});
    if (group.rows == 1 && has_paged_attention(spec)) {
      const mx::array lengths = mx::flatten(group.positions) + mx::array(1, mx::int32);
      outputs.push_back(mx::flatten(paged_attention(own, kv.keys(spec.layer), kv.values(spec.layer),
                                                    group.pages, lengths, vectors.sinks, spec),
                                    1, 2));
      continue;
    }
    const mx::array queries = mx::transpose(
        mx::reshape(own, {group.sequences, group.rows, spec.heads, spec.key_dim}), {0, 2, 1, 3});
    const mx::array out =
        attend(queries, gather(kv.keys(spec.layer), group, q.dtype()),
               gather(kv.values(spec.layer), group, q.dtype()), visible(group, spec), spec, vectors);
    outputs.push_back(mx::reshape(mx::transpose(out, {0, 2, 1, 3}), {count, spec.heads * spec.value_dim}));
  }
  const mx::array all = outputs.size() == 1 ? outputs.front() : mx::concatenate(outputs, 0);
  return index.reordered() ? mx::take(all, index.restore_order(), 0) : all;
}

}  // namespace mlxs::mlx_backend
