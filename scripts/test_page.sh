#!/usr/bin/env bash
# The built-in page in a headless Chromium, on the real model. usage: scripts/test_page.sh [arguments of pytest]
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null && ! command -v google-chrome >/dev/null; then
  echo "page: no Chromium here (Debian: apt-get install chromium; Ubuntu: snap install chromium)" >&2
  exit 1
fi
. scripts/protocol_venv.sh
build/mlx-serving pull smollm2 >/dev/null
MLXS_BIN=$PWD/build/mlx-serving
MLXS_TEST_MODEL=smollm2
export MLXS_BIN MLXS_TEST_MODEL
exec .venv-protocol/bin/python -m pytest -q tests/protocol "$@"
