#!/usr/bin/env bash
# Runs every libFuzzer target of a build folder for some seconds each. usage: scripts/fuzz.sh BUILD_DIR SECONDS
# Seeds come from tests/fuzz/corpus/NAME; what the run finds stays in BUILD_DIR/fuzz. The first crash ends the run with exit 1.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1/fuzz
seconds=$2

count=0
for target in "$folder"/*; do
  if [ ! -f "$target" ] || [ ! -x "$target" ]; then continue; fi
  name=$(basename "$target")
  mkdir -p "$folder/corpus/$name"
  seeds=()
  if [ -d "tests/fuzz/corpus/$name" ]; then seeds=("tests/fuzz/corpus/$name"); fi
  echo "fuzz: $name for ${seconds} s" >&2
  "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 -verbosity=0 \
    -print_funcs=0 -artifact_prefix="$folder/$name-" "$folder/corpus/$name" "${seeds[@]+"${seeds[@]}"}"
  count=$((count + 1))
done
[ "$count" -gt 0 ] || { echo "fuzz: no target in $folder" >&2; exit 1; }
echo "fuzz: $count targets, no crash" >&2
