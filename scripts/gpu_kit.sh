#!/usr/bin/env bash
# For a GPU machine that builds nothing: the program and the kernel tests with the libraries that they want, the model shapes of
# bench/configs, and scripts/gpu_check.sh, in one folder. Compiles like `make cuda`, so it needs no GPU here.
# usage: scripts/gpu_kit.sh [ARCHITECTURES, 90a-real] [FOLDER, build-cuda/kit]
set -euo pipefail
cd "$(dirname "$0")/.."

architectures=${1:-90a-real}
kit=${2:-build-cuda/kit}
scripts/cuda_toolkit.sh
cmake --preset release -B build-cuda -DMLXS_CUDA=ON -DMLXS_TESTS=ON "-DMLXS_CUDA_ARCHITECTURES=$architectures" >&2
ninja -C build-cuda -j "$(getconf _NPROCESSORS_ONLN)" mlx-serving test_backend >&2

rm -rf "$kit"
mkdir -p "$kit/bin" "$kit/lib" "$kit/scripts" "$kit/bench/configs"
for program in mlx-serving test_backend; do
  strip -o "$kit/bin/$program" build-cuda/$program
  # Not the C library: that is of the machine's own loader.
  ldd build-cuda/$program | awk '$2 == "=>" { print $3 }' | grep -Ev '/(libc|libm|libdl|librt|libpthread|libresolv)\.so' |
    xargs -I{} cp -Lu {} "$kit/lib/"
done
find "$kit/lib" -name '*.so*' -exec strip --strip-unneeded {} +
cp scripts/gpu_check.sh "$kit/scripts/"
cp bench/gpu_figures.py bench/random_load.py bench/synthetic_gguf.py "$kit/bench/"
cp bench/configs/*.json "$kit/bench/configs/"
echo "$kit: $(du -sh "$kit" | cut -f1); on the GPU machine: scripts/gpu_check.sh there" >&2
