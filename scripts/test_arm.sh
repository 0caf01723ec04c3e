#!/usr/bin/env bash
# Builds the kernels and their tests for 64-bit Arm and runs them under qemu-user. usage: scripts/test_arm.sh [arguments of ctest]
set -euo pipefail
cd "$(dirname "$0")/.."
folder=build-arm
cmake -S tests/arm -B $folder -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_TOOLCHAIN_FILE="$PWD/tests/arm/toolchain.cmake" \
  -DCMAKE_CXX_COMPILER_LAUNCHER=ccache >/dev/null
cmake --build $folder
exec ctest --test-dir $folder --output-on-failure "$@"
