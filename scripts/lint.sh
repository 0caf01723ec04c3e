#!/usr/bin/env bash
# Every style and static check; --fix rewrites instead (formatters only). All checks run; the exit status is 1 if one failed.
set -uo pipefail
cd "$(dirname "$0")/.."

tool() { # the versioned name (apt), else the plain one, else Homebrew's llvm
  local name
  for name in "$1-16" "$1" "$(brew --prefix llvm 2>/dev/null)/bin/$1"; do
    if command -v "$name" >/dev/null; then echo "$name" && return; fi
  done
  echo "lint: $1 is missing: scripts/bootstrap.sh lint" >&2
  exit 1
}
format=$(tool clang-format) || exit 1
tidy=$(tool clang-tidy) || exit 1
ruff=.venv-test/bin/ruff
manifest=rust/Cargo.toml
cpp() { git ls-files --cached --others --exclude-standard '*.cpp' '*.h' | while read -r file; do [ -f "$file" ] && echo "$file"; done; }

if [ "${1:-}" = --fix ]; then
  cpp | xargs "$format" -i
  cargo fmt --manifest-path $manifest
  $ruff format --quiet .
  $ruff check --quiet --fix .
  exit
fi

failed=()
check() {
  local name=$1
  shift
  "$@" || failed+=("$name")
}
check clang-format bash -c "xargs '$format' --dry-run -Werror" < <(cpp)
check includes python3 scripts/check_includes.py
check rustfmt cargo fmt --check --manifest-path $manifest
check clippy env CARGO_TARGET_DIR=build/rust-clippy cargo clippy --quiet --locked --all-targets --manifest-path $manifest -- -D warnings
check ruff-format $ruff format --quiet --check .
check ruff $ruff check --quiet .

# clang-tidy takes seconds a file: only what differs from the branch this one left, else from the last commit.
base=$(git merge-base HEAD origin/main 2>/dev/null || echo HEAD)
changed=$({ git diff --name-only --diff-filter=d "$base" -- '*.cpp'; git ls-files --others --exclude-standard '*.cpp'; } | sort -u)
if [ -n "${LINT_ALL:-}" ]; then changed=$(git ls-files '*.cpp'); fi
built=$(for file in $changed; do grep -qs "\"file\": \".*/$file\"" build/compile_commands.json && echo "$file"; done)
if [ -n "$built" ]; then
  # shellcheck disable=SC2086
  check clang-tidy bash -c "echo '$built' | xargs -n 1 -P $(getconf _NPROCESSORS_ONLN) '$tidy' -p build --quiet --extra-arg=-Wno-unknown-warning-option"
fi

if [ ${#failed[@]} -gt 0 ]; then
  echo "lint: failed: ${failed[*]}" >&2
  exit 1
fi
echo "lint: clean" >&2
