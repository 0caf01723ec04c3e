#!/usr/bin/env bash
# What CMake must be told to build for this machine's NVIDIA GPUs, an argument a line; nothing where there are none. Fetches
# the compiler if no toolkit has one (scripts/cuda_toolkit.sh). CUDA=off: nothing, whatever is here. usage: scripts/cuda_args.sh
set -euo pipefail
cd "$(dirname "$0")/.."

readonly kLeastToolkit=1208 # 12.8
say() { echo "cuda: $*" >&2; }

[ "${CUDA:-auto}" != off ] && command -v nvidia-smi >/dev/null || exit 0
capabilities=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sort -u) || exit 0

# "9.0" → 90a-real: machine code alone, of this GPU alone; Hopper's wgmma is in 90a only.
architectures=
for capability in $capabilities; do
  case "$capability" in
    9.0) one=90a-real ;;
    8.* | 1[0-9].*) one=${capability/./}-real ;;
    *)
      say "a GPU of compute capability $capability is left out: the kernels need 8.0 or newer"
      continue
      ;;
  esac
  architectures=${architectures:+$architectures;}$one
done
[ -n "$architectures" ] || exit 0

release_of() { sed -n "s/.*$1 *\([0-9]*\)\.\([0-9]*\).*/\1 \2/p" | head -1; }
number() { if [ $# -eq 2 ]; then echo $(($1 * 100 + $2)); else echo 0; fi; }
compiler=
for nvcc in "${CUDACXX:-}" /usr/local/cuda/bin/nvcc "$(command -v nvcc || true)"; do
  # shellcheck disable=SC2046 # two words
  if [ -x "$nvcc" ] && [ "$(number $("$nvcc" --version | release_of 'release'))" -ge "$kLeastToolkit" ]; then
    compiler=$nvcc
    break
  fi
done
if [ -z "$compiler" ]; then
  # shellcheck disable=SC2046
  driver=$(number $(nvidia-smi | release_of 'CUDA Version:'))
  if [ "$driver" -lt 1300 ]; then
    say "the driver is too old for the compiler that pip brings (CUDA 13, driver 580): the program is built for the processor alone."
    say "update the driver, or install a CUDA toolkit from 12.8 on, then: make clean run"
    exit 0
  fi
  # Hopper's prompts are faster with cuBLASLt.
  case "$architectures" in *90a*) scripts/cuda_toolkit.sh cublas >&2 ;; *) scripts/cuda_toolkit.sh >&2 ;; esac
  compiler=$(echo .venv-cuda/lib/python3*/site-packages/nvidia/cu*/bin/nvcc)
  compiler=$PWD/${compiler%% *}
fi
say "building for $(nvidia-smi --query-gpu=name --format=csv,noheader | sort -u | paste -sd, -), too (CUDA=off leaves it out)"
printf '%s\n' -DMLXS_CUDA=ON "-DMLXS_CUDA_ARCHITECTURES=$architectures" "-DCMAKE_CUDA_COMPILER=$compiler"
