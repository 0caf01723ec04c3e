#!/usr/bin/env bash
# Configures (only if that was not done) and builds one preset. usage: scripts/build.sh PRESET [TARGET...]
# Without a target everything is built, tests included; with one, the tests' own packages need not be there.
set -euo pipefail
cd "$(dirname "$0")/.."

preset=$1
shift
case "$preset" in
  release) folder=build ;;
  *) folder=build-$preset ;;
esac

# Where MLX is not part of the program, tests that use it have it from their Python packages.
mlx=
if [ $# -eq 0 ] && [ "$preset" = release ] && [ "$(uname -s)" != Darwin ] && compgen -G '.venv-test/lib/python3*/site-packages/mlx/share/cmake/MLX' >/dev/null; then
  mlx=-DMLXS_MLX=TESTS
fi

# Where NVIDIA GPUs are, the program is built for them, too: asked once, as the folder is configured.
cuda=()
if [ "$preset" = release ] && [ ! -f "$folder/build.ninja" ]; then
  arguments=$(scripts/cuda_args.sh) || { echo "build: CUDA=off builds for the processor alone" >&2; exit 1; }
  while IFS= read -r argument; do [ -z "$argument" ] || cuda+=("$argument"); done <<<"$arguments"
fi

configured_with() { grep -qs "^$1\$" "$folder/CMakeCache.txt"; }
if [ ! -f "$folder/build.ninja" ]; then
  tests=OFF
  if [ $# -eq 0 ] && [ "$preset" != fuzz ]; then tests=ON; fi
  cmake --preset "$preset" -DMLXS_TESTS=$tests $mlx ${cuda[@]+"${cuda[@]}"} >&2
elif [ $# -eq 0 ] && [ "$preset" != fuzz ] && { ! configured_with 'MLXS_TESTS:BOOL=ON' || { [ -n "$mlx" ] && ! configured_with 'MLXS_MLX:STRING=TESTS'; }; }; then
  cmake --preset "$preset" -DMLXS_TESTS=ON $mlx >&2
fi

# Everything to stderr: stdout is for the program that runs next. One job a core: the heaviest files take over 1 GB each.
build() { ninja -C "$folder" -j "$(getconf _NPROCESSORS_ONLN)" "$@" >&2; }
# With nothing newer than the program ninja still decides, but without a word.
if [ $# -eq 1 ] && [ -x "$folder/$1" ] && [ -z "$(find CMakeLists.txt cmake include rust src -newer "$folder/$1" -print -quit)" ]; then
  build --quiet "$1" 2>&1 | sed '/^ninja: no work to do\.$/d' >&2
else
  build "$@"
fi
