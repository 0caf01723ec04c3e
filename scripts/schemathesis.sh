#!/usr/bin/env bash
# schemathesis against the real binary: requests made from GET /openapi.json, valid and not, to every route but those that fetch
# models. Fails on a 5xx, on an answer that the document does not describe, and on a wrong request that is taken.
# usage: scripts/schemathesis.sh [arguments of `schemathesis run`]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/protocol_venv.sh
work=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
build/mlx-serving pull smollm2 >/dev/null
build/mlx-serving pull minilm >/dev/null
# A short context: where nothing else bounds an answer, it does.
build/mlx-serving serve smollm2 minilm --port 0 --context 512 >"$work/ready" 2>"$work/log" &
server=$!
for _ in $(seq 600); do
  grep -q ' on http' "$work/ready" && break
  kill -0 $server || { cat "$work/log" >&2; exit 1; }
  sleep 0.5
done
url=$(grep -o 'http://[^ ]*' "$work/ready" | head -1)
export MLXS_TEST_MODEL=smollm2 MLXS_TEST_ENCODER=minilm SCHEMATHESIS_HOOKS=$PWD/tests/protocol/schemathesis_hooks.py
.venv-protocol/bin/schemathesis run "$url/openapi.json" --exclude-path /api/pull --exclude-path /v1/ws \
  --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,negative_data_rejection \
  --phases examples,coverage,fuzzing --max-examples "${SCHEMATHESIS_EXAMPLES:-20}" --seed 1 --request-timeout 120 "$@"
kill -0 $server # it is still there
