// Rows of a file as the kernels read them (kernels.h, Rows), for the formats that most models have: codes,
// scales and biases as pack_rows.cpp makes them for the others. A thread takes 32 columns of a row.
#include <cuda_fp16.h>

#include "backend/cuda/epilogue.cuh"
#include "backend/cuda/launch.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kColumns = 32;  // of a thread

struct Group {  // as the kernels have it
  float scale, bias;
};

__device__ float half_at(const unsigned char* at) {
  return __half2float(*reinterpret_cast<const __half*>(at));
}
__device__ float float_at(const void* values, FileFloat type, size_t i) {
  switch (type) {
    case FileFloat::kF32:
      return static_cast<const float*>(values)[i];
    case FileFloat::kF16:
      return __half2float(static_cast<const __half*>(values)[i]);
    case FileFloat::kBF16:
      break;
  }
  return __bfloat162float(static_cast<const __nv_bfloat16*>(values)[i]);
}

// A code of each of 32 bytes.
template <class Code>
__device__ void read_bytes(const unsigned char* from, unsigned (&codes)[kColumns], Code code) {
#pragma unroll
  for (int i = 0; i < kColumns; i += 2) {
    const unsigned two = *reinterpret_cast<const unsigned short*>(from + i);
    codes[i] = code(two & 255, i);
    codes[i + 1] = code(two >> 8, i + 1);
  }
}

// Sixteen bytes of nibbles: the low ones first. kEven: at an even address.
template <bool kEven = true, class Code>
__device__ void read_nibbles(const unsigned char* from, unsigned (&codes)[kColumns], Code code) {
#pragma unroll
  for (int i = 0; i < 16; i += 2) {
    const unsigned two = kEven ? *reinterpret_cast<const unsigned short*>(from + i)
                               : from[i] | static_cast<unsigned>(from[i + 1]) << 8;
    codes[i] = code(two & 15);
    codes[i + 16] = code(two >> 4 & 15);
    codes[i + 1] = code(two >> 8 & 15);
    codes[i + 17] = code(two >> 12);
  }
}
__device__ void add_fifth_bits(const unsigned char* from, unsigned (&codes)[kColumns]) {
  const auto* halves = reinterpret_cast<const unsigned short*>(from);
  const unsigned bits = halves[0] | static_cast<unsigned>(halves[1]) << 16;
#pragma unroll
  for (int i = 0; i < kColumns; ++i) codes[i] |= (bits >> i & 1) << 4;
}
// A group of Q4_K and Q5_K, whose scales have 6 bits.
__device__ Group k_group(const unsigned char* block, int group) {
  const unsigned char* packed = block + 4;
  int scale, least;
  if (group < 4) {
    scale = packed[group] & 63;
    least = packed[group + 4] & 63;
  } else {
    scale = (packed[group + 4] & 15) | packed[group - 4] >> 6 << 4;
    least = packed[group + 4] >> 4 | packed[group] >> 6 << 4;
  }
  return {half_at(block) * static_cast<float>(scale), -half_at(block + 2) * static_cast<float>(least)};
}
__device__ float to_half(float value) { return __half2float(__float2half_rn(value)); }

// GGUF's blocks of 32: codes and the group they are in; of groups of sixteen the first and the second one's.
template <FileType kType>
__device__ void split(const unsigned char* row, int index, unsigned (&codes)[kColumns], Group (&groups)[2]) {
  const auto plain = [](unsigned code) { return code; };
  if constexpr (kType == FileType::kQ4_0) {
    const unsigned char* block = row + index * 18;
    const float scale = half_at(block);
    groups[0] = {scale, -8.0f * scale};
    read_nibbles(block + 2, codes, plain);
  } else if constexpr (kType == FileType::kQ4_1) {
    const unsigned char* block = row + index * 20;
    groups[0] = {half_at(block), half_at(block + 2)};
    read_nibbles(block + 4, codes, plain);
  } else if constexpr (kType == FileType::kQ5_0) {
    const unsigned char* block = row + index * 22;
    const float scale = half_at(block);
    groups[0] = {scale, -16.0f * scale};
    read_nibbles(block + 6, codes, plain);
    add_fifth_bits(block + 2, codes);
  } else if constexpr (kType == FileType::kQ5_1) {
    const unsigned char* block = row + index * 24;
    groups[0] = {half_at(block), half_at(block + 2)};
    read_nibbles(block + 8, codes, plain);
    add_fifth_bits(block + 4, codes);
  } else if constexpr (kType == FileType::kQ8_0) {
    const unsigned char* block = row + index * 34;
    const float scale = half_at(block);
    groups[0] = {scale, -128.0f * scale};
    read_bytes(block + 2, codes, [](unsigned byte, int) { return byte ^ 128; });
  } else if constexpr (kType == FileType::kIq4Nl) {
    const unsigned char* block = row + index * 18;
    const float scale = half_at(block);
    groups[0] = {scale, -128.0f * scale};
    read_nibbles(block + 2, codes, [](unsigned code) {  // 1 24 45 63 79 93 106 118, 129 141 153 166 …
      constexpr unsigned long long kLow = 0x766a5d4f3f2d1801ull, kHigh = 0xf1d9c5b5a6998d81ull;
      return static_cast<unsigned>((code < 8 ? kLow : kHigh) >> (code % 8 * 8) & 255);
    });
  } else if constexpr (kType == FileType::kMxFp4) {
    const unsigned char* block = row + index * 17;
    const unsigned power = block[0];  // of the scale, half of which is left to the levels
    const float scale = __uint_as_float(power < 2 ? 0x00200000u << power : (power - 1) << 23);
    groups[0] = {scale, -128.0f * scale};
    read_nibbles<false>(block + 1, codes, [](unsigned code) {  // ±(0 1 2 3 4 6 8 12)
      const unsigned size = 0xc8643210u >> (code % 8 * 4) & 15;
      return code < 8 ? 128 + size : 128 - size;
    });
  } else if constexpr (kType == FileType::kQ2_K) {
    const unsigned char* block = row + index / 8 * 84;
    const float d = half_at(block + 80), least = half_at(block + 82);
#pragma unroll
    for (int g = 0; g < 2; ++g) {
      const int scales = block[index % 8 * 2 + g];
      groups[g] = {d * static_cast<float>(scales & 15), -least * static_cast<float>(scales >> 4)};
    }
    const int shift = index % 4 * 2;
    read_bytes(block + 16 + index % 8 / 4 * 32, codes, [=](unsigned byte, int) { return byte >> shift & 3; });
  } else if constexpr (kType == FileType::kQ3_K) {
    const unsigned char* block = row + index / 8 * 110;
    const unsigned char* packed = block + 96;
    const float d = half_at(block + 108);
#pragma unroll
    for (int g = 0; g < 2; ++g) {
      const int group = index % 8 * 2 + g;
      const int low = group < 8 ? packed[group] & 15 : packed[group - 8] >> 4,
                high = packed[8 + group % 4] >> (group / 4 * 2) & 3;
      const float scale = to_half(d * static_cast<float>((low | high << 4) - 32));
      groups[g] = {scale, -4.0f * scale};
    }
    const int shift = index % 4 * 2, bit = index % 8;
    read_bytes(block + 32 + index % 8 / 4 * 32, codes,
               [=](unsigned byte, int i) { return (byte >> shift & 3) | (block[i] >> bit & 1u) << 2; });
  } else if constexpr (kType == FileType::kQ4_K) {
    const unsigned char* block = row + index / 8 * 144;
    const int group = index % 8, shift = group % 2 * 4;
    groups[0] = k_group(block, group);
    read_bytes(block + 16 + group / 2 * 32, codes, [=](unsigned byte, int) { return byte >> shift & 15; });
  } else if constexpr (kType == FileType::kQ5_K) {
    const unsigned char* block = row + index / 8 * 176;
    const int group = index % 8, shift = group % 2 * 4;
    groups[0] = k_group(block, group);
    read_bytes(block + 48 + group / 2 * 32, codes, [=](unsigned byte, int i) {
      return (byte >> shift & 15) | (block[16 + i] >> group & 1u) << 4;
    });
  } else {
    static_assert(kType == FileType::kQ6_K);
    const unsigned char* block = row + index / 8 * 210;
    const int half = index % 8 / 4, part = index % 4;
    const float d = half_at(block + 208);
#pragma unroll
    for (int g = 0; g < 2; ++g) {
      const float scale =
          to_half(d * static_cast<float>(static_cast<signed char>(block[192 + index % 8 * 2 + g])));
      groups[g] = {scale, -32.0f * scale};
    }
    const unsigned char* high = block + 128 + half * 32;
    read_bytes(block + half * 64 + part % 2 * 32, codes, [=](unsigned byte, int i) {
      return (byte >> (part / 2 * 4) & 15) | (high[i] >> (2 * part) & 3u) << 4;
    });
  }
}

template <FileType kType>
constexpr bool kHasSixteens =
    kType == FileType::kQ2_K || kType == FileType::kQ3_K || kType == FileType::kQ6_K;
template <FileType kType>
constexpr Codes kCodesOf =
    kType == FileType::kFloats ? Codes::kBF16
    : kType == FileType::kQ4_0 || kType == FileType::kQ4_1 || kType == FileType::kQ2_K ||
            kType == FileType::kQ3_K || kType == FileType::kQ4_K || kType == FileType::kMlx4
        ? Codes::k4
        : Codes::k8;

// first: the segment's row that the file's first one is.
template <FileType kType>
__global__ __launch_bounds__(256) void pack_kernel(const __grid_constant__ FileRows from, int first, int rows,
                                                   const __grid_constant__ Rows to) {
  const int own = static_cast<int>(blockIdx.x * 16 + threadIdx.x % 16),
            block = static_cast<int>(blockIdx.y * 16 + threadIdx.x / 16);
  if (own >= rows || block >= to.padded / kColumns) return;
  const int row = first + own, place = row % 16, g = place % 8, h = place / 8, piece = block % 2;
  const size_t unit = static_cast<size_t>(row / 16) * (to.padded / 64) + block / 2;
  const auto* bytes = static_cast<const unsigned char*>(from.codes) + own * from.row_bytes;
  const bool inside = block * kColumns < to.columns;
  if constexpr (kType == FileType::kFloats) {
    const size_t at = static_cast<size_t>(own) * to.columns;
    char* const out = static_cast<char*>(const_cast<void*>(to.codes)) + unit * 2048 + piece * 1024 + h * 4;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int low = block * kColumns + e * 8 + i;
        const float a = low < to.columns ? float_at(from.codes, from.floats, at + low) : 0.0f,
                    b = low + 4 < to.columns ? float_at(from.codes, from.floats, at + low + 4) : 0.0f;
        const __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
        *reinterpret_cast<__nv_bfloat162*>(out + i / 2 * 512 + (g * 4 + e) * 16 + i % 2 * 8) = pair;
      }
    }
    return;
  } else {
    unsigned codes[kColumns] = {};
    Group groups[2] = {};
    if (inside) {
      if constexpr (kType == FileType::kMlx4 || kType == FileType::kMlx8) {
        constexpr int kEach = kType == FileType::kMlx4 ? 2 : 1;  // codes of a byte
        const unsigned char* own_codes = bytes + block * (kColumns / kEach);
#pragma unroll
        for (int i = 0; i < kColumns; i += 2 * kEach) {
          const unsigned two = *reinterpret_cast<const unsigned short*>(own_codes + i / kEach);
#pragma unroll
          for (int j = 0; j < 2 * kEach; ++j)
            codes[i + j] = two >> (j * 8 / kEach) & (kEach == 2 ? 15u : 255u);
        }
        const size_t group =
            static_cast<size_t>(own) * (to.columns / from.group) + block * kColumns / from.group;
        groups[0] = {float_at(from.scales, from.floats, group),
                     from.biases != nullptr ? float_at(from.biases, from.floats, group) : 0.0f};
      } else {
        split<kType>(bytes, block, codes, groups);
      }
    }
    constexpr bool k4 = kCodesOf<kType> == Codes::k4;
    char* const out = static_cast<char*>(const_cast<void*>(to.codes)) + unit * (k4 ? 512 : 1024);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      unsigned words[2] = {};
#pragma unroll
      for (int i = 0; i < 8; ++i) words[k4 ? 0 : i / 4] |= codes[e * 8 + i] << (k4 ? i * 4 : i % 4 * 8);
      const int lane = g * 4 + e;
      if (k4) {
        *reinterpret_cast<unsigned*>(out + lane * 16 + h * 8 + piece * 4) = words[0];
      } else {
        *reinterpret_cast<uint2*>(out + h * 512 + lane * 16 + piece * 8) = {words[0], words[1]};
      }
    }
    auto* const scales = static_cast<__half2*>(const_cast<void*>(to.scales));
    const auto put = [&](size_t at, const Group& group) {
      scales[at] = __halves2half2(__float2half_rn(group.scale), __float2half_rn(group.bias));
    };
    if constexpr (kHasSixteens<kType>) {
#pragma unroll
      for (int i = 0; i < 2; ++i) put(unit * 64 + g * 8 + i * 4 + piece * 2 + h, groups[i]);
    } else if (to.group_shift == 5) {
      put(unit * 32 + g * 4 + piece * 2 + h, groups[0]);
    } else if (piece == 0) {
      put(unit * 16 + g * 2 + h, groups[0]);
    }
  }
}

}  // namespace

void pack(cudaStream_t stream, const FileRows& from, int first, int rows, const Rows& to) {
  const dim3 grid((rows + 15) / 16, (to.padded / kColumns + 15) / 16);
  const auto run = [&](auto kernel) { launch_after(kernel, grid, 256, 0, stream, from, first, rows, to); };
  switch (from.type) {
    case FileType::kNone:
      return;
    case FileType::kFloats:
      return run(pack_kernel<FileType::kFloats>);
    case FileType::kQ4_0:
      return run(pack_kernel<FileType::kQ4_0>);
    case FileType::kQ4_1:
      return run(pack_kernel<FileType::kQ4_1>);
    case FileType::kQ5_0:
      return run(pack_kernel<FileType::kQ5_0>);
    case FileType::kQ5_1:
      return run(pack_kernel<FileType::kQ5_1>);
    case FileType::kQ8_0:
      return run(pack_kernel<FileType::kQ8_0>);
    case FileType::kQ2_K:
      return run(pack_kernel<FileType::kQ2_K>);
    case FileType::kQ3_K:
      return run(pack_kernel<FileType::kQ3_K>);
    case FileType::kQ4_K:
      return run(pack_kernel<FileType::kQ4_K>);
    case FileType::kQ5_K:
      return run(pack_kernel<FileType::kQ5_K>);
    case FileType::kQ6_K:
      return run(pack_kernel<FileType::kQ6_K>);
    case FileType::kIq4Nl:
      return run(pack_kernel<FileType::kIq4Nl>);
    case FileType::kMxFp4:
      return run(pack_kernel<FileType::kMxFp4>);
    case FileType::kMlx4:
      return run(pack_kernel<FileType::kMlx4>);
    case FileType::kMlx8:
      return run(pack_kernel<FileType::kMlx8>);
  }
}

}  // namespace mlxs::cuda
