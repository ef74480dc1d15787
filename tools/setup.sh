#!/usr/bin/env bash
# Set-up in parts; a part that is complete takes almost no time:
#
#   tools/setup.sh [system|browser|python|cuda|tools|katex|kernel|data|peers|all]...
#
#   system    Debian packages that the build needs (only root installs them; other users get a list)
#   browser   Chromium and its driver, for the tests of pages only
#   python    .mem2gen/venv with the pinned Jupyter tools
#   cuda      .mem2gen/cuda with the pinned CUDA compiler, for the checks of kernels (500 MB; not needed for a build)
#   tools     the pinned evcxr_jupyter in .mem2gen/tools
#   katex     the pinned KaTeX in .mem2gen/katex
#   kernel    program, library and the kernelspec `mem2gen` in .mem2gen/jupyter
#   data      MNIST, Fashion-MNIST, emoji and the text encoder, in data/cache
#   peers     .mem2gen/peers with the libraries that `make bench-peers` compares with (5 GB)
#   all       all of these except browser, cuda and peers
set -euo pipefail
# shellcheck source=tools/env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$MEM2GEN_ROOT"

EVCXR_VERSION=0.22.0
# The notebook kernel spends its time in rustc and in the crate, so opt-level 1 is fast enough and halves the build time.
EVCXR_STAMP="evcxr_jupyter $EVCXR_VERSION opt-level 1"
KATEX_VERSION=0.19.1
KATEX_SHA256=24da5a599eb2fcede2e270b99a6ff48bca816beecc95feeb84e8cccbd1bb34fd

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# One set-up at a time in this checkout.
mkdir -p "$MEM2GEN_HOME"
if command -v flock >/dev/null; then
  exec 9>"$MEM2GEN_HOME/setup.lock"
  flock 9
fi

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# Installs the missing ones of the named Debian packages.
debian() {
  local missing=() package
  if ! command -v dpkg-query >/dev/null; then
    say "dpkg-query is missing, so this is not a Debian system; install the equivalents of: $*"
    return 0
  fi
  for package in "$@"; do
    installed "$package" || missing+=("$package")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  if [ "$(id -u)" -ne 0 ]; then
    say "this user is not root; run as root: apt-get install --no-install-recommends ${missing[*]}"
    return 0
  fi
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 9>&- ||
    { apt-get update -qq 9>&- && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 9>&-; }
}

part_system() {
  local wanted=(libopenblas-dev pkg-config)
  command -v cc >/dev/null || wanted+=(build-essential)
  # The kernels' tests compile them for the processor.
  command -v g++ >/dev/null || wanted+=(g++)
  command -v python3 >/dev/null || wanted+=(python3)
  python3 -c 'import ensurepip, venv' 2>/dev/null || wanted+=(python3-venv)
  command -v npm >/dev/null || wanted+=(npm)
  [ -e /etc/ssl/certs/ca-certificates.crt ] || wanted+=(ca-certificates)
  debian "${wanted[@]}"
  command -v cargo >/dev/null || fail "cargo is missing; install Rust 1.95 or later"
}

part_browser() {
  if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then return 0; fi
  debian chromium chromium-driver
  if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then
    fail "chromium or chromedriver is missing; install the packages chromium and chromium-driver"
  fi
}

# environment VENV REQUIREMENTS: a virtual environment with exactly these packages.
environment() {
  local venv="$1" requirements="$2" stamp
  stamp="$(python3 -c 'import platform; print(platform.python_version())') $(sha256sum <"$requirements")"
  if [ "$(cat "$venv/mem2gen.stamp" 2>/dev/null)" = "$stamp $venv" ] && "$venv/bin/python" -c '' 2>/dev/null; then
    return 0
  fi
  say "Python environment of $requirements"
  rm -rf "$venv"
  python3 -m venv "$venv"
  # The pins are complete, so pip resolves nothing; `pip check` fails if one is missing.
  "$venv/bin/pip" install -q --disable-pip-version-check --no-deps -r "$requirements"
  "$venv/bin/pip" check --disable-pip-version-check >/dev/null
  printf '%s' "$stamp $venv" >"$venv/mem2gen.stamp"
}

part_python() { environment "$MEM2GEN_HOME/venv" tools/requirements.txt; }

part_cuda() { environment "$MEM2GEN_HOME/cuda" tools/requirements-cuda.txt; }

part_tools() {
  local tools="$MEM2GEN_HOME/tools" build="$MEM2GEN_HOME/cache/evcxr-build"
  if [ -x "$tools/bin/evcxr_jupyter" ] && [ "$(cat "$tools/evcxr.stamp" 2>/dev/null)" = "$EVCXR_STAMP" ]; then
    return 0
  fi
  say "building evcxr_jupyter $EVCXR_VERSION (5 minutes on two cores)"
  CARGO_TARGET_DIR="$build" CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_DEBUG=0 \
    cargo install evcxr_jupyter --version "$EVCXR_VERSION" --locked --root "$build/root" --force --quiet
  mkdir -p "$tools/bin"
  cp "$build/root/bin/evcxr_jupyter" "$tools/bin/evcxr_jupyter.new"
  mv -f "$tools/bin/evcxr_jupyter.new" "$tools/bin/evcxr_jupyter"
  printf '%s' "$EVCXR_STAMP" >"$tools/evcxr.stamp"
  rm -rf "$build"
}

part_katex() {
  local katex="$MEM2GEN_HOME/katex" work
  [ "$(cat "$katex/version" 2>/dev/null)" = "$KATEX_VERSION" ] && return 0
  say "KaTeX $KATEX_VERSION"
  work="$(mktemp -d "$MEM2GEN_HOME/katex-XXXXXX")"
  (cd "$work" && npm pack --silent "katex@$KATEX_VERSION" >/dev/null)
  printf '%s  %s\n' "$KATEX_SHA256" "$work/katex-$KATEX_VERSION.tgz" | sha256sum --check --quiet -
  tar -xzf "$work/katex-$KATEX_VERSION.tgz" -C "$work"
  mkdir -p "$work/out/fonts"
  cp "$work/package/dist/katex.min.js" "$work/package/dist/contrib/auto-render.min.js" "$work/out"
  cp "$work"/package/dist/fonts/*.woff2 "$work/out/fonts"
  cp "$work/package/LICENSE" "$work/out"
  # Only the woff2 fonts are copied, so the style sheet must not name others.
  sed -E 's/,url\([^)]*\.(woff|ttf)\) format\("[a-z0-9]*"\)//g' "$work/package/dist/katex.min.css" >"$work/out/katex.min.css"
  printf '%s' "$KATEX_VERSION" >"$work/out/version"
  rm -rf "$katex"
  mv "$work/out" "$katex"
  rm -rf "$work"
}

# A second call of both commands compiles nothing.
part_kernel() {
  cargo build --release --locked --quiet
  cargo rustc --release --locked --quiet --lib --crate-type dylib -- -Cprefer-dynamic
  python3 tools/kernelspec.py
}

# A peer that cannot be installed is left out: `failed` has the reason for the table, and the next call tries again.
part_peers() {
  local venv="$MEM2GEN_HOME/peers" pins=tools/peers-requirements.txt pin said stamp
  stamp="$(python3 -c 'import platform; print(platform.python_version())') $(sha256sum <"$pins") $venv"
  if [ "$(cat "$venv/mem2gen.stamp" 2>/dev/null)" = "$stamp" ] && "$venv/bin/python" -c '' 2>/dev/null; then
    return 0
  fi
  say "peers (5 GB, minutes)"
  rm -rf "$venv"
  python3 -m venv "$venv"
  if ! "$venv/bin/pip" install -q --disable-pip-version-check --no-deps -r "$pins"; then
    grep -v '^#' "$pins" | while read -r pin; do
      said="$("$venv/bin/pip" install -q --disable-pip-version-check --no-deps "$pin" 2>&1)" ||
        printf '%s: %s\n' "$pin" "$(tail -n 1 <<<"$said")" | tee -a "$venv/failed"
    done
    return 0
  fi
  printf '%s' "$stamp" >"$venv/mem2gen.stamp"
}

part_data() {
  cargo build --release --locked --quiet
  "$CARGO_TARGET_DIR/release/mem2gen" data fetch mnist fashion-mnist emoji minilm
}

[ "$#" -gt 0 ] || set -- all
for part in "$@"; do
  case "$part" in
    system | browser | python | cuda | tools | katex | kernel | data | peers) "part_$part" ;;
    all) for each in system python tools katex kernel data; do "part_$each"; done ;;
    -h | --help) sed -n '2,16s/^# \{0,1\}//p' "$MEM2GEN_ROOT/tools/setup.sh" ;;
    *) fail "part '$part' is unknown, expected system, browser, python, cuda, tools, katex, kernel, data, peers or all" ;;
  esac
done
