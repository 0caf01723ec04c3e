// dequantize_rows TYPE COLUMNS < rows > floats: first each row as the plain dequantizer reads it, then all
// rows as they come back from the packed layout.
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <string_view>
#include <vector>

#include "backend/cpu/cpu_weight.h"
#include "backend/cpu/dequantize.h"
#include "mlxs/error.h"

namespace {

using namespace mlxs;

DType type_named(std::string_view name) {
  for (int i = 0; i <= static_cast<int>(DType::kMXFP4); ++i) {
    if (dtype_info(static_cast<DType>(i)).name == name) return static_cast<DType>(i);
  }
  throw Error(ErrorCode::kInvalidArgument, "no such type: " + std::string(name));
}

std::vector<std::byte> read_all(std::FILE* file) {
  std::vector<std::byte> bytes;
  std::byte buffer[65536];
  for (std::size_t count; (count = std::fread(buffer, 1, sizeof(buffer), file)) > 0;) {
    bytes.insert(bytes.end(), buffer, buffer + count);
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: dequantize_rows TYPE COLUMNS < rows > floats\n");
    return 2;
  }
  try {
    const DType type = type_named(argv[1]);
    const std::int64_t columns = std::atoll(argv[2]);
    const std::vector<std::byte> bytes = read_all(stdin);
    const std::size_t stride = row_bytes(type, columns);
    const auto rows = static_cast<std::int64_t>(bytes.size() / stride);
    std::vector<float> row(static_cast<std::size_t>(columns));
    const auto write = [&] { std::fwrite(row.data(), sizeof(float), row.size(), stdout); };
    for (std::int64_t i = 0; i < rows; ++i) {
      cpu::dequantize_row(type, bytes.data() + static_cast<std::size_t>(i) * stride, columns, row.data());
      write();
    }
    ThreadPool pool(1);
    const RawWeight raw{"stdin", type, rows, columns, bytes};
    const cpu::CpuWeight packed(pool, {&raw, 1}, WeightUse::kMatrix, nullptr);
    for (std::int64_t i = 0; i < rows; ++i) {
      packed.read_row(i, row.data());
      write();
    }
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.full().c_str());
    return 1;
  }
}
