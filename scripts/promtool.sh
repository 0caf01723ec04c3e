#!/usr/bin/env bash
# Prometheus' promtool, the oracle of GET /metrics, in build/promtool/. On Debian and Ubuntu its package is unpacked, not
# installed: installing would start a Prometheus on the machine. On a Mac it comes with the brew formula.
set -euo pipefail
cd "$(dirname "$0")/.."

program=build/promtool/usr/bin/promtool
if [ -x $program ] || command -v promtool >/dev/null; then exit 0; fi
if ! command -v apt-get >/dev/null; then
  echo "promtool: not here and no apt-get; the tests that use it are skipped" >&2
  exit 0
fi
echo "promtool: unpacking the prometheus package into build/promtool" >&2
mkdir -p build/promtool
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder" # apt fetches as a user of its own
(cd "$folder" && apt-get download -qq prometheus 2>&1 | grep -v unsandboxed >&2 || true)
dpkg-deb -x "$folder"/prometheus_*.deb build/promtool
