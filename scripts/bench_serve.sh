#!/usr/bin/env bash
# Our server beside llama.cpp's (bench/serve.py). Builds its llama-server from the sources that PyPI's llama-cpp-python carries, by
# clang with everything this processor has, as scripts/bench.sh builds the library. usage: scripts/bench_serve.sh [arguments of serve.py]
set -euo pipefail
cd "$(dirname "$0")/.."

peer="llama-cpp-python==0.3.36"
work=build/llama-server
stamp=$work/peer
if [ ! -f $stamp ] || [ "$(cat $stamp)" != "$peer" ]; then
  echo "bench: building llama-server from $peer in $work (some minutes)" >&2
  rm -rf $work
  mkdir -p $work/source
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: -d $work "$peer" >&2
  tar xzf $work/llama_cpp_python-*.tar.gz -C $work/source --strip-components=1
  if command -v clang++-16 >/dev/null; then export CC=clang-16 CXX=clang++-16; fi
  amx=""
  if grep -qs amx_int8 /proc/cpuinfo; then amx="-DGGML_AMX_TILE=ON -DGGML_AMX_INT8=ON -DGGML_AMX_BF16=ON"; fi
  # shellcheck disable=SC2086
  cmake -S $work/source/vendor/llama.cpp -B $work/build -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
    -DGGML_NATIVE=ON -DGGML_OPENMP=OFF $amx -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=ON \
    -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF >&2
  ninja -C $work/build llama-server >&2
  echo "$peer" >$stamp
fi

model=$(build/mlx-serving pull smollm2 --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["path"])')
exec python3 bench/serve.py build/mlx-serving $work/build/bin/llama-server "$model" "$@"
