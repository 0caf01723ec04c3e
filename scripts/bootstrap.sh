#!/usr/bin/env bash
# Installs the packages that this project needs and that are missing: Debian 12, Ubuntu 24.04 (apt) or macOS (Homebrew).
# usage: scripts/bootstrap.sh [build|test|protocol|lint|fuzz|bench]...   (default: build)
# A machine that has everything is left alone: no root, no network, well under 0.2 s. Needs bash 3.2 only.
set -euo pipefail

readonly kMinRust=87 # cargo 1.87: what the locked crates need

say() { printf '%s\n' "bootstrap: $*" >&2; }
die() {
  say "error: $1"
  [ $# -lt 2 ] || say "       $2"
  exit 1
}

# ---- what each step needs -----------------------------------------------------------------------------------------
# Names are apt's; "boost" is replaced by the distribution's newest suitable version.
apt_packages() {
  case "$1" in
    build) echo "g++ make cmake ninja-build ccache pkg-config ca-certificates python3 python3-venv python3-pip" \
      "$boost libssl-dev libnghttp2-dev nlohmann-json3-dev libcli11-dev libspdlog-dev" \
      "prometheus-cpp-dev libhiredis-dev libarchive-dev libedit-dev libcurl4-openssl-dev libyaml-cpp-dev zlib1g-dev" ;;
    # redis-tools carries the server's program without starting a service on the machine.
    test) echo "libgtest-dev libgmock-dev redis-tools curl git$(node_packages)" ;;
    # A Go of the machine's own will do.
    protocol)
      command -v go >/dev/null || [ -x /usr/local/go/bin/go ] || echo "golang-go"
      # Ubuntu has Chromium as a snap only: scripts/test_page.sh says what to do there.
      if command -v chromium chromium-browser google-chrome >/dev/null || grep -qs '^ID=ubuntu' /etc/os-release; then :; else echo "chromium"; fi
      ;;
    lint) echo "clang-16 clang-format-16 clang-tidy-16 git" ;;
    fuzz) echo "clang-16 libclang-rt-16-dev" ;;
    bench) echo "clang-16 git nghttp2-client" ;;
    arm) echo "g++-aarch64-linux-gnu qemu-user googletest" ;;
    *) die "unknown step '$1'" "one of: build test protocol lint fuzz bench arm" ;;
  esac
}
# For the tests with the clients for Node, wherever it came from.
node_packages() {
  if ! command -v node >/dev/null || ! command -v npm >/dev/null; then echo " nodejs npm"; fi
}
brew_packages() {
  case "$1" in
    build) echo "cmake ninja ccache pkgconf boost openssl@3 libnghttp2 nlohmann-json cli11 spdlog prometheus-cpp hiredis" \
      "libarchive libedit yaml-cpp mlx" ;;
    test) echo "googletest redis prometheus node" ;;
    protocol) command -v go >/dev/null || echo "go" ;;
    lint | fuzz) echo "llvm" ;;
    bench) echo "nghttp2" ;;
    *) die "unknown step '$1'" "one of: build test protocol lint fuzz bench" ;;
  esac
}

# ---- cargo --------------------------------------------------------------------------------------------------------
new_enough_rust() { # $1: a cargo program
  local version
  version=$("$1" --version 2>/dev/null | sed -n 's/^cargo 1\.\([0-9]*\)\..*/\1/p')
  [ -n "$version" ] && [ "$version" -ge "$kMinRust" ]
}
# The same places, in the same order, as cmake/rust.cmake. The first in PATH may be rustup's, without a toolchain in this HOME.
have_rust() {
  local cargo
  for cargo in "$HOME/.cargo/bin/cargo" "$(command -v cargo || true)" /usr/bin/cargo /usr/lib/rust-1.*/bin/cargo; do
    if [ -x "$cargo" ] && new_enough_rust "$cargo"; then return 0; fi
  done
  return 1
}
readonly kRustHelp="install Rust 1.$kMinRust or newer with rustup (https://rustup.rs), then run this again"

# Packages that would bring a cargo that is new enough, from the package lists as they are now.
apt_rust_packages() {
  local version newest
  version=$(apt-cache policy cargo-web 2>/dev/null | sed -n 's/^ *Candidate: 1\.\([0-9]*\)\..*/\1/p')
  if [ -n "$version" ] && [ "$version" -ge "$kMinRust" ]; then
    echo "cargo-web rustc-web"
    return
  fi
  version=$(apt-cache policy cargo 2>/dev/null | sed -n 's/^ *Candidate: 1\.\([0-9]*\)\..*/\1/p')
  if [ -n "$version" ] && [ "$version" -ge "$kMinRust" ]; then
    echo "cargo rustc"
    return
  fi
  newest=$(apt-cache pkgnames cargo-1. 2>/dev/null | sed -n 's/^cargo-1\.\([0-9]*\)$/\1/p' | sort -n | tail -n 1)
  if [ -n "$newest" ] && [ "$newest" -ge "$kMinRust" ]; then echo "cargo-1.$newest rustc-1.$newest"; fi
}

# rustfmt and clippy come with rustup's toolchains; Debian has them beside its own cargo.
apt_rust_lint_packages() {
  local cargo
  cargo=$(command -v cargo || true)
  if [ -n "$cargo" ] && "$cargo" fmt --version >/dev/null 2>&1 && "$cargo" clippy --version >/dev/null 2>&1; then return; fi
  if [ -x "$HOME/.cargo/bin/rustup" ]; then die "rustfmt or clippy is missing" "rustup component add rustfmt clippy"; fi
  if apt-cache show rustfmt-web >/dev/null 2>&1; then echo "rustfmt-web rust-web-clippy"; else echo "rustfmt rust-clippy"; fi
}

# ---- Debian and Ubuntu --------------------------------------------------------------------------------------------
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "packages are missing and this is neither root nor a machine with sudo" "as root: apt-get install -y ${missing# }"
  fi
}

bootstrap_apt() {
  . /etc/os-release
  case "$ID $VERSION_ID" in
    "debian 12") boost=libboost1.81-dev ;;
    "ubuntu 24.04") boost=libboost1.83-dev ;;
    *)
      say "warning: ${PRETTY_NAME:-$ID} is not tried; Debian 12 and Ubuntu 24.04 are. Going on as if it were one."
      boost=libboost-dev
      ;;
  esac

  local wanted="" step package
  for step in "$@"; do wanted="$wanted $(apt_packages "$step")"; done
  missing=""
  # One dpkg-query for all: it prints only what it knows, so what it does not print as installed is missing.
  local installed
  # shellcheck disable=SC2016,SC2086
  installed=" $(dpkg-query -W -f '${db:Status-Status}=${Package} ' $wanted 2>/dev/null || true) "
  for package in $wanted; do
    case "$installed" in *" installed=$package "*) ;; *) case " $missing " in *" $package "*) ;; *) missing="$missing $package" ;; esac ;; esac
  done
  case " $* " in *" lint "*) missing="$missing $(apt_rust_lint_packages)" && missing=${missing% } ;; esac
  local rust=yes
  have_rust || rust=no
  if [ -z "$missing" ] && [ "$rust" = yes ]; then return; fi

  if [ "$rust" = no ]; then missing="$missing cargo"; fi
  say "installing:$missing"
  as_root apt-get update -qq || die "apt-get update failed" "check the network and /etc/apt/sources.list.d"
  if [ "$rust" = no ]; then
    missing="${missing% cargo}"
    local packages
    packages=$(apt_rust_packages)
    [ -n "$packages" ] || die "no package brings cargo 1.$kMinRust or newer here" "$kRustHelp"
    missing="$missing $packages"
  fi
  # shellcheck disable=SC2086
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2 ||
    die "apt-get install failed (its messages are above)" "apt-get install -y ${missing# }"
  have_rust || die "cargo is installed but still older than 1.$kMinRust" "$kRustHelp"
}

# ---- macOS --------------------------------------------------------------------------------------------------------
bootstrap_brew() {
  command -v brew >/dev/null || die "Homebrew is missing" "install it from https://brew.sh, then run this again"
  xcode-select -p >/dev/null 2>&1 || die "the Xcode command line tools are missing" "run: xcode-select --install"
  local cellar missing="" step package
  cellar="$(dirname "$(dirname "$(command -v brew)")")/opt" # brew itself takes a second to answer; its folder does not
  for step in "$@"; do
    for package in $(brew_packages "$step"); do [ -d "$cellar/$package" ] || missing="$missing $package"; done
  done
  have_rust || missing="$missing rust"
  [ -n "$missing" ] || return 0
  say "installing:$missing"
  # shellcheck disable=SC2086
  brew install --quiet $missing >&2 || die "brew install failed (its messages are above)" "brew install$missing"
  have_rust || die "cargo is older than 1.$kMinRust" "$kRustHelp"
}

[ $# -gt 0 ] || set -- build
case "$(uname -s)" in
  Darwin) bootstrap_brew "$@" ;;
  Linux)
    command -v apt-get >/dev/null || die "this Linux has no apt-get" "install these yourself: $(boost=libboost-dev apt_packages build)"
    bootstrap_apt "$@"
    ;;
  *) die "$(uname -s) is not supported" "Debian 12, Ubuntu 24.04 or macOS" ;;
esac
