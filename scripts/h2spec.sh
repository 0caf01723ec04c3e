#!/usr/bin/env bash
# h2spec against this build, in the clear and over TLS: `make test-protocol`. Needs Go; the versions are tests/protocol/go.mod's.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build}
tool=$PWD/$build/h2spec
go=$(command -v go || echo /usr/local/go/bin/go)
(cd tests/protocol && GOFLAGS=-mod=readonly "$go" build -o "$tool" github.com/summerwind/h2spec/cmd/h2spec)

work=$(mktemp -d)
server=
finish() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

# Serves in the background; sets $server and $port.
serve() {
  mkfifo "$work/ready"
  "$build/mlx-serving" serve smollm2 --port 0 "$@" >"$work/ready" 2>"$work/log" &
  server=$!
  local line
  read -r line <"$work/ready" || { cat "$work/log" >&2; exit 1; }
  rm "$work/ready"
  port=$(sed -E 's/.* on https?:\/\/[^ ]*:([0-9]+) .*/\1/' <<<"$line")
}
stop() {
  kill "$server"
  wait "$server"
  server=
}

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
  -keyout "$work/key" -out "$work/cert" 2>/dev/null

echo "h2spec in the clear:"
serve
"$tool" --host 127.0.0.1 --port "$port" --timeout 5 --path /health
stop
echo "h2spec over TLS:"
serve --tls-cert "$work/cert" --tls-key "$work/key"
"$tool" --host 127.0.0.1 --port "$port" --timeout 5 --path /health --tls --insecure
stop
