// What a test tells the library that stands in cuBLASLt's place (fake_cublas.cpp), and what it learns from
// it.
#pragma once

namespace mlxs::cuda {

struct FakeCublas {
  int start_status = 0;           // of cublasLtCreate()
  int proposals = 3;              // algorithms that it proposes, the best of its own opinion first
  int failing = -1;               // one of them whose products fail
  float ms[8] = {};               // what a product takes
  int last = -1;                  // the algorithm of the last product
  int products = 0, handles = 0;  // products so far; descriptions and layouts that nobody freed
};
// Its symbol in the library: FakeCublas* fake_cublas().

}  // namespace mlxs::cuda
