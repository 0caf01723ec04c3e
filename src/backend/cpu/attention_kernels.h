// What an instruction-set path of attention provides, as plain functions over plain structs. attention.cpp
// cuts the step into tasks and calls these; each attention_<isa>.cpp instantiates them. One call works on one
// sequence and one KV head. No allocation, no exceptions, no locks: any pool thread may call.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cpu/kv_store.h"
#include "base/types.h"

namespace mlxs::cpu {

inline constexpr int kBlockPages = 8;                           // KV pages handled between two softmax passes
inline constexpr int kBlockTokens = kBlockPages * kPageTokens;  // 128
inline constexpr int kPagesAhead = 8;                           // that are on their way from memory
inline constexpr int kQueryRows = 128;  // (token, head) rows of one task, at least one token's heads
inline constexpr int kRowPad = 32;      // row buffers are padded to this (two AMX tiles)

// The KV of one sequence in one (layer, head).
struct KvView {
  const KvLayout* layout = nullptr;
  std::byte* base = nullptr;      // CpuKvStore::blocks(layer, head)
  const PageId* pages = nullptr;  // of the sequence, in token order
  std::size_t page_bytes = 0;
};

// Per-head work on q and k before attention: RMS norm, rotation, scale.
struct HeadTransform {
  const float* gain = nullptr;  // [dim]; null: no norm
  float epsilon = 0.0f;
  bool unit_offset = false;  // the gain is stored as (gain - 1)
  int dim = 0;
  int padded = 0;            // the output's tail [dim, padded) becomes zero
  int half = 0;              // rotated dims / 2
  int columns = 0;           // of cos and sin, see RopeTable
  bool interleaved = false;  // pairs (2i, 2i+1), else (i, i + half)
  float scale = 1.0f;
};

struct AppendArgs {
  KvView kv;
  const float* key = nullptr;  // the first row's K of this head; rows are `stride` floats apart
  const float* value = nullptr;
  std::size_t stride = 0;
  int rows = 0;
  int first_token = 0;      // index in the sequence of the first row
  bool clear_tail = false;  // these are the sequence's last rows: zero the last page's V behind them
  HeadTransform transform;
  const float* cos = nullptr;  // [rows][columns]
  const float* sin = nullptr;
};

// q rows are (token, head of the group) pairs, heads fastest: row m is token first_token + m / group.
struct AttendArgs {
  KvView kv;
  const float* query =
      nullptr;  // [rows padded to kRowPad][key_padded], scaled to base-2 logits (or to tanh's argument)
  int rows = 0;
  int group = 1;
  int first_token = 0;
  int begin = 0, end = 0;  // tokens to attend to; begin is a multiple of kPageTokens
  // One block a page of [begin, end), to be fetched while that page is worked on; null: nothing. Few rows
  // wait for memory, many do not and may leave it.
  const std::byte* const* ahead = nullptr;
  bool causal = true;
  int window = 0;            // > 0: only the last `window` tokens up to the row's own
  float tanh_factor = 0.0f;  // > 0: logits become factor · tanh(q·k)
  // Results. out is not yet divided by sum; a row that saw nothing has max = kNoScore and sum = 0.
  float* max = nullptr;            // [rows padded]
  float* sum = nullptr;            // [rows padded]
  float* out = nullptr;            // [rows padded][value_padded]
  std::byte* workspace = nullptr;  // attend_workspace_bytes(), 64-byte aligned
};

inline constexpr float kNoScore = -1e30f;  // finite, so that exp2(-inf - kNoScore) is 0 and not NaN

struct AttentionKernels {
  const char* name;
  void (*transform)(const HeadTransform&, const float* in, const float* cos, const float* sin, float* out);
  void (*append)(const AppendArgs&);
  void (*attend)(const AttendArgs&);
  void (*scale)(const float* in, float factor, int count, float* out);
};

// Bytes of AttendArgs::workspace for `rows` rows, on any path.
std::size_t attend_workspace_bytes(const KvLayout& layout, int rows);

const AttentionKernels& attention_portable();
#if defined(__x86_64__)
const AttentionKernels& attention_avx2();
const AttentionKernels& attention_avx512();
const AttentionKernels& attention_amx();
#endif

}  // namespace mlxs::cpu
