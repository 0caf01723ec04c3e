#!/usr/bin/env bash
# Beside a real OpenTelemetry collector, built from Go modules, a real Prometheus, unpacked from its package, and Grafana's own types
# of a dashboard, a Go module (Grafana itself comes in no package of these registries): `make test-protocol`.
# The versions are tests/otel/go.mod's. usage: scripts/test_telemetry.sh BUILD [arguments of pytest]
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build}
shift || true
MLXS_OTELCOL=$PWD/$build/otelcol
go=$(command -v go || echo /usr/local/go/bin/go)
MLXS_DASHBOARDS=$PWD/$build/dashboards
(cd tests/otel && GOFLAGS=-mod=readonly "$go" build -o "$MLXS_OTELCOL" . && GOFLAGS=-mod=readonly "$go" build -o "$MLXS_DASHBOARDS" ./dashboards)
scripts/promtool.sh
MLXS_PROMETHEUS=$(PATH=$PATH:$PWD/build/promtool/usr/bin command -v prometheus)
scripts/venv.sh
MLXS_BIN=$PWD/$build/mlx-serving
MLXS_TEST_MODEL=$("$MLXS_BIN" pull smollm2 --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["path"])')
export MLXS_OTELCOL MLXS_DASHBOARDS MLXS_PROMETHEUS MLXS_BIN MLXS_TEST_MODEL
exec .venv-test/bin/python -m pytest -q tests/otel "$@"
