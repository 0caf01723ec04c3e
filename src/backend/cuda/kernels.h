// The CUDA kernels as plain functions: pointers are device memory unless a name says otherwise, every launch
// goes to `stream` and returns at once. Included by nvcc and by the host compiler; no other header of the
// project is needed. Shapes are checked by the callers.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace mlxs::cuda {

// ---------------------------------------------------------------- weights

enum class Codes : std::uint8_t { k4, k8, kF8, kBF16 };

// Rows of a weight, w = scale · code + bias, packed in the order in which the tensor cores' registers take
// them: tiles of sixteen rows, one after the other, each in units of 64 columns, the last of both padded with
// zeros. In a unit a lane of a warp (4 · (row % 8) + column / 8 % 4) has the eights of columns of two rows (h
// = row / 8 % 2) in two pieces (column / 32 % 2):
//   k4, codes of 4 bits, 512 bytes: [lane][h][piece][4], low nibble first
//   k8, unsigned bytes, 1,024: [h][lane][piece][8]
//   kF8, numbers of 8 bits (e4m3), alike
//   kBF16, the values themselves, 2,048: [piece][i / 2 % 2][lane][i % 2][h][i / 4], i: column % 8
// A scale and its bias lie together, both f16 (kF8: f32 scales alone, groups of 64); a group has 1 <<
// group_shift columns (16, 32 or 64). Those of a unit are, for groups of 64, [row % 8][h]; of 32, [row %
// 8][group][h]; of 16, [row % 8][group % 2][group / 2][h].
struct Rows {
  const void* codes = nullptr;
  const void* scales = nullptr;  // half2
  int rows = 0;
  int columns = 0;
  int padded = 0;  // columns, to whole units
  int group_shift = 5;
  Codes type = Codes::kBF16;
};

// Rows as they lie in a file, on the GPU.
enum class FileType : std::uint8_t {
  kNone,
  kFloats,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIq4Nl,
  kMxFp4,
  kMlx4,
  kMlx8,
};
enum class FileFloat : std::uint8_t { kF32, kF16, kBF16 };
struct FileRows {
  FileType type = FileType::kNone;
  FileFloat floats = FileFloat::kF32;  // kFloats: the values; MLX: scales and biases
  const void* codes = nullptr;
  const void* scales = nullptr;  // MLX: [rows][columns / group]
  const void* biases = nullptr;  // alike, or null
  int group = 0;
  std::size_t row_bytes = 0;
};
// Rows `first` … of `to`, which lies on the GPU, are these.
void pack(cudaStream_t stream, const FileRows& from, int first, int rows, const Rows& to);

// ---------------------------------------------------------------- linear

// Activations as the tensor cores take them: bf16 [rows][stride], columns padded to 64 with zeros. Each eight
// columns stand in the order 0 4 1 5 2 6 3 7: a word of eight 4-bit codes, masked and shifted, gives them in
// these pairs.
//
// Wide operands (of wide()) order each 64 columns as the steps of wgmma take them: column 32 p + 8 t + i,
// whose pair is (i % 4), stands in step 2 p + i % 4 / 2, at 8 · (i % 2) + 2 t, the pair's second half (i ≥ 4)
// behind its first.
// Behind the last row there are kOperandSlack bytes that may be read.
struct Operand {
  void* data = nullptr;
  int stride = 0;
  bool wide = false;
};
inline int operand_stride(int columns) { return (columns + 63) / 64 * 64; }
inline constexpr std::size_t kOperandSlack = 256;

// Where a product leaves the sums of the squares of the rows that it makes, a part for each of some outputs:
// [rows][stride], a multiple of four. Which are how many of a row, squares_of() says.
struct Squares {
  float* parts = nullptr;
  int stride = 0;
};
// What an operand's rows still lack: each is to be multiplied by 1 / √(Σ squares / columns + epsilon), which
// may as well be done to its products.
struct RootMeans {
  const float* squares = nullptr;  // [rows][stride], of which `count` are there; null: they lack nothing
  int stride = 0, count = 0;
  int columns = 0;
  float epsilon = 0;
  float* factors = nullptr;  // [rows], or null: thin() leaves them here for products behind it
};

enum class Act : std::uint8_t { kNone, kSilu, kGeluTanh, kGelu, kSwigluClamped };

// What happens to the sums of a product. In this order: bias, gate or activation, soft cap, residual.
struct Finish {
  const float* bias = nullptr;
  const float* residual = nullptr;  // [rows][columns], may be y
  float* y = nullptr;               // [rows][columns]; may be null if operand is wanted only
  Operand operand{};                // the same values; its padding is the caller's
  // Or not the same: each column times gain + gain_offset, with the squares of y beside it, for RootMeans.
  const float* gain = nullptr;
  float gain_offset = 0;
  Squares squares{};
  int columns = 0;  // of y
  float soft_cap = 0;
  Act act = Act::kNone;
  bool gated = false;  // the sums have 2 · columns columns, gate first
};

// The rows of a step in the order of the experts that they go to (route()), for products that read the
// weights of each chosen expert once.
struct ExpertWeight {
  const void* codes = nullptr;
  const void* scales = nullptr;
  const float* bias = nullptr;
};
inline constexpr int kTurnRows = 8;
struct ExpertRows {
  const ExpertWeight* table = nullptr;  // [count]; of one shape and packing
  const int* first = nullptr;           // [count + 1]: places of an expert's rows
  const int* active = nullptr;          // [count]: experts that have rows, behind them -1
  const int* turns = nullptr;           // [count + 1]: of up to kTurnRows of an expert's rows, as first
  const int* alive = nullptr;           // [count + 1]: experts that have rows, before each
  const int* rows = nullptr;            // of a place: the row of x; null: x is in that order already
  const int* leading = nullptr;    // [count][kTurnRows]: of each expert's first places, if there are rows
  const float* factors = nullptr;  // of rows of x: RootMeans' that a product left; null: 1
  int count = 0;
  int places = 0;      // rows of the step times experts a row, at most
  bool older = false;  // all this was there before the kernel before began
};

struct Norm {
  const float* gain = nullptr;
  const float* bias = nullptr;
  float epsilon = 0;
  float offset = 0;  // added to the gain
  bool layer = false;
};

enum class RouteGate : std::uint8_t { kSoftmax, kSoftmaxOfChosen, kSigmoid };
struct Route {
  int experts = 0, used = 0;
  int groups = 1, groups_used = 1;
  RouteGate gate = RouteGate::kSoftmax;
  bool normalize = false;
  float scale = 1;
  const float* router_bias = nullptr;     // [experts], or null
  const float* selection_bias = nullptr;  // [experts], or null
};

// For long sums of at most eight rows, whose columns several blocks share: partial: splits · pairs of tiles
// of outputs · kSplitFloats, or null: none do. counters: kAttentionCounters zeros, which are zeros again
// afterwards.
struct ThinSplits {
  int splits = 1;
  float* partial = nullptr;
  int* counters = nullptr;
};
inline constexpr int kSplitFloats = 2 * 16 * 8;  // of two tiles
// How many pay, so that all multiprocessors have as much to do; 0: the usual way, without ThinSplits.
int thin_splits(const Rows& w, int rows, bool gated, int multiprocessors);

// The inputs of thin(): an operand, or f32 rows that it normalizes itself.
struct ThinInput {
  Operand operand{};  // raw given: its stride, and if data is given too, the normalized rows go there
  const float* raw = nullptr;  // [rows][columns]
  int columns = 0;
  Norm norm{};
  RootMeans means{};  // of the operand, if that is given
};
// Whether it pays that thin() normalizes, and whether it can.
bool thin_normalizes(const Rows& w, int rows, bool gated, const Norm& norm, int multiprocessors);

// A few rows whose experts are chosen without being ordered, in three products: the router's, whose last
// block chooses; the experts' gated one, y in the order [row][used]; and the one that reads that, weighs each
// row's experts and sums them: y has as many rows as the step.
struct FewRows {
  enum class Part : std::uint8_t { kNone, kRouter, kGated, kMixed } part = Part::kNone;
  const ExpertWeight* table = nullptr;  // of the experts
  const float* logits = nullptr;        // [rows][experts], the router's y
  const int* positions = nullptr;       // [rows], below 0 for padding
  int* counter = nullptr;               // of the router's blocks, zero between launches
  Route route{};
  const float* factors = nullptr;  // of rows, as ExpertRows
  int* chosen = nullptr;           // [rows][used]; -1: padding
  float* weights = nullptr;        // [rows][used]
};
inline constexpr int kFewRows = 2, kMostFewUsed = 8, kMostFewExperts = 512;

// What follows thin() in its kernel, if norm.gain is given (norm_behind.cuh): its rows normed, then `finish`.
struct NormBehind {
  Norm norm{};
  Finish finish{};
  int* counter = nullptr;  // zero between launches
};
bool norms_behind(const Rows& w, int rows, const Norm& norm, int multiprocessors);

// y[row][first_column + i] = epilogue(Σ_k x[row][k] · w[i][k]) for few rows, whose weights are read once; or
// for each expert's rows, with w the shape of every table entry and y in the order of places. Gated products
// have a multiple of sixteen gates. Returns how many parts of a row's squares it leaves.
int thin(cudaStream_t stream, const Rows& w, const ThinInput& x, int rows, int first_column,
         const Finish& finish, const ExpertRows& experts, const FewRows& few, int multiprocessors,
         const ThinSplits& splits = {}, const NormBehind& behind = {});
inline constexpr int kThinRows = 32;

// The same for experts of few rows each, all in equal pieces, where the weights are such that it can. With
// experts.rows, no kernel behind it starts before the order is there.
bool takes_experts(const Rows& w, const Finish& finish, int places, int count);
void expert_rows(cudaStream_t stream, const Rows& w, const Operand& x, const Finish& finish,
                 const ExpertRows& experts, int multiprocessors);

// Many rows on Hopper (compute capability 9.0). splits > 1: sums only, apart by split_floats, for finish();
// or split_floats = 0, where they are joined: the whole of it. Returns what thin() does.
int wide(cudaStream_t stream, const Rows& w, const Operand& x, const RootMeans& means, int rows,
         int first_column, int splits, std::size_t split_floats, const Finish& finish,
         const ExpertRows& experts);
struct WideSplits {
  int splits = 1;
  bool joined = true;  // by the product itself
};
WideSplits wide_splits(const Rows& w, int rows, int multiprocessors);

// Many rows on other GPUs: sums[split][row][first_column + i], f32, with `stride` columns; the shares of the
// splits are summed by finish().
void matmul(cudaStream_t stream, const Rows& w, const Operand& x, int rows, int first_column, int splits,
            float* sums, int stride);
int matmul_splits(int outputs, int inputs, int rows, int multiprocessors);

// Of `columns` columns of y from first_column on, of which sums holds those alone; 0: of all.
void finish(cudaStream_t stream, const float* sums, int splits, int rows, const Finish& finish,
            int first_column = 0, int columns = 0);
// The same of gates and ups in bf16, where gates_rows() says that it can.
bool gates_rows(const Finish& finish, int first_column, int columns);
void gate_rows(cudaStream_t stream, const void* sums, int rows, const Finish& finish, int first_column,
               int columns);
inline constexpr int kManyRows = 256;  // from which kernels pay that take several rows a block

// Tiles of sixteen rows of a weight as bf16 [16 · tiles][padded], columns ordered as a wide operand's.
void unpack_tiles(cudaStream_t stream, const Rows& w, int first_tile, int tiles, void* to);

// ---------------------------------------------------------------- rows

// y = the tokens' rows · scale, or y plus them.
void embed(cudaStream_t stream, const Rows* segments, const int* first_rows, int num_segments,
           const int* tokens, int rows, float scale, bool add, float* y);
// y = norm(x), plus residual if given (may be y).
void normalize(cudaStream_t stream, const float* x, int rows, int columns, const Norm& norm,
               const float* residual, float* y);
// The same to an operand, padding included; norm: nullptr copies.
void normalize_operand(cudaStream_t stream, const float* x, int rows, int columns, const Norm* norm,
                       const Operand& y);
// y = x, which is an operand.
void widen_operand(cudaStream_t stream, const Operand& x, int rows, int columns, float* y);
// y[i] = x[index[i]]
void gather_rows(cudaStream_t stream, const float* x, const int* index, int rows, int columns, float* y);
// y[row · y_columns + i · y_step + j] = x[row · x_columns + i · x_step + j] for `runs` runs of `columns`.
void copy_columns(cudaStream_t stream, const float* x, int x_columns, int x_step, float* y, int y_columns,
                  int y_step, int rows, int runs, int columns);
// Σ_j weights[row][j] · x[places[row][j]], finished; places below 0 are left out. older: places and weights
// were there before the kernel before began. Returns what thin() does.
int mix_rows(cudaStream_t stream, const float* x, const int* places, const float* weights, int used, int rows,
             bool older, const Finish& finish);
// The same of a wide operand's rows, of whole pieces of 32 columns.
void mix_operand_rows(cudaStream_t stream, const Operand& x, const int* places, const float* weights,
                      int used, int rows, int columns, const float* residual, float* y);
// y = residual + norm(x) (y may be the residual), and norm(y) to an operand, where it can.
bool adds_to_operand(int columns, const Norm& norm, const Norm& next);
void add_to_operand(cudaStream_t stream, const float* x, int rows, int columns, const Norm& norm,
                    const float* residual, float* y, const Norm& next, const Operand& operand);

// ---------------------------------------------------------------- mixture of experts

struct Routed {
  float* weights = nullptr;  // [rows][used]
  int* places = nullptr;     // [rows][used]: in the order of experts; -1: the row is padding
  int* rows = nullptr;       // [rows · used]: the row of a place
  int* first = nullptr;      // [experts + 1]
  int* turns = nullptr;      // [experts + 1]: of kTurnRows rows each, before each expert's
  int* alive = nullptr;      // [experts + 1]: experts with rows, before each
  int* leading = nullptr;    // [experts][kTurnRows]: the rows of each one's first places
  int* active = nullptr;     // [experts]: those with rows, those with many of them first; behind them -1
};
// What route() leaves where each of `heads` heads has all rows of the step: places by head, then by row; rows
// of x by row, then by head.
void route_heads(cudaStream_t stream, int heads, int rows, int* first, int* turns, int* alive, int* active,
                 int* leading, int* rows_of_places);
// As backend/moe_routing.h, on the GPU. positions: of the rows, below 0 for padding.
void route(cudaStream_t stream, const float* logits, const int* positions, int rows, const Route& spec,
           const Routed& to);

// ---------------------------------------------------------------- attention

// A model's KV of one layer: K [page][kv_head][16][key_dim], V alike; bf16, or codes of 8 bits (kv_codes.cuh)
// with scales [page][kv_head][16].
struct KvLayer {
  void* keys = nullptr;
  void* values = nullptr;
  float* key_scales = nullptr;  // null: bf16
  float* value_scales = nullptr;
  int kv_heads = 0, key_dim = 0, value_dim = 0;
  int pages = 0;  // that there are
};

// Per row of the step: its position, and where the pages of its sequence begin and how long it is.
struct StepRows {
  const int* positions = nullptr;   // [rows]; -1: padding, which writes no key and sees none
  const int* first_page = nullptr;  // [rows] into pages
  const int* lengths = nullptr;     // [rows] of the sequence after this step
  const int* pages = nullptr;
  // Rows of one sequence side by side, at most kTileRows: first row and number, those furthest on first; each
  // row of padding has one of none.
  const int* tiles = nullptr;  // [num_tiles][2]
  int num_tiles = 0;
  int rows = 0;
  int longest = 0;
};
inline constexpr int kTileRows = 128;

struct Rotation {
  const void* table = nullptr;  // float2 (cos, sin) [rows][dims / 2]
  int dims = 0;
  bool interleaved = false;
};

struct Attention {
  int heads = 0;
  float scale = 0;
  bool causal = true;
  int window = 0;
  float soft_cap = 0;
  const float* sinks = nullptr;
  bool norm_query = false, norm_key = false;
  Norm query_norm{}, key_norm{};
  Rotation rotation{};
};

void make_rotation(cudaStream_t stream, const int* positions, const float* frequencies, int rows, int dims,
                   float magnitude, void* table);
// What a product left for append(): rows of queries, keys and values.
struct Qkv {
  const void* data = nullptr;   // f32, or bf16
  const float* bias = nullptr;  // that is still to be added, or null
  bool bf16 = false;
};
// Rotated queries to q [rows][heads · key_dim]; keys and values to their pages.
void append(cudaStream_t stream, const Qkv& qkv, const StepRows& step, const Attention& spec,
            const KvLayer& kv, float* q);
// partial: attention_splits() · rows · heads · (value_dim + 2) floats, unused with one split. counters:
// kAttentionCounters zeros, which are zeros again afterwards. q: nullptr: every row of the step is the only
// one of its sequence, and what append() does is done here, from qkv.
inline constexpr int kAttentionCounters = 8192;
int attention_splits(const StepRows& step, int heads, const KvLayer& kv, int multiprocessors);
void attend(cudaStream_t stream, const float* q, const float* qkv, const StepRows& step,
            const Attention& spec, const KvLayer& kv, int splits, float* partial, int* counters, float* y,
            const Operand& operand);

// The same of rows that are alone in their sequence, for heads that it takes; does what append() does.
bool attends_in_groups(const KvLayer& kv);
int group_splits(const StepRows& step, int heads, const KvLayer& kv, int multiprocessors);
void attend_groups(cudaStream_t stream, const float* qkv, const StepRows& step, const Attention& spec,
                   const KvLayer& kv, int splits, float* partial, int* counters, float* y,
                   const Operand& operand, int multiprocessors);

// The same behind append(), for heads of more than 256 dims: up to 576 of a key, 512 of a value.
bool attends_latents(const KvLayer& kv);
int latent_splits(const StepRows& step, int heads, const KvLayer& kv, int multiprocessors);
void attend_latents(cudaStream_t stream, const float* q, const StepRows& step, const Attention& spec,
                    const KvLayer& kv, int splits, float* partial, int* counters, float* y,
                    const Operand& operand);

// The same for heads that it takes, where a tile has several rows or the rows are many: it does not split the
// keys. y: null: the operand alone.
bool attends_in_tiles(const StepRows& step, int heads, const KvLayer& kv, int multiprocessors, bool hopper);
void attend_tiles(cudaStream_t stream, const float* q, const StepRows& step, const Attention& spec,
                  const KvLayer& kv, float* y, const Operand& operand);
// The same on Hopper, where both say so.
bool attends_wide(const KvLayer& kv);
void attend_wide(cudaStream_t stream, const float* q, const StepRows& step, const Attention& spec,
                 const KvLayer& kv, float* y, const Operand& operand, int multiprocessors);

// ---------------------------------------------------------------- measuring

// Reads `bytes` (a multiple of 16) once, by every multiprocessor; sink: one word, written only if the memory
// is not all zeros.
void read_all(cudaStream_t stream, const void* memory, std::size_t bytes, int multiprocessors,
              unsigned* sink);

}  // namespace mlxs::cuda
