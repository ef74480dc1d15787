#!/usr/bin/env bash
# Runs every test, cheapest first, and stops at the first stage that fails. The last line is `N passed, 0 failed`, which
# counts Rust tests, notebooks and Python tests.
set -euo pipefail
# shellcheck source=tools/env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$MEM2GEN_ROOT"

logs="$(mktemp -d)"
trap 'rm -rf "$logs"' EXIT
passed=0

stage() { tools/stage.sh "$@"; }

# stage_counting NAME LOG COMMAND...: like stage, and keeps the output for counting.
stage_counting() {
  local name="$1" log="$logs/$2"
  shift 2
  tools/stage.sh "$name" "$@" 2>&1 | tee "$log"
}

# Sums the first number of each match.
sum() { grep -oE "$2" "$logs/$1" | grep -oE '[0-9]+' | awk '{ n += $1 } END { print n + 0 }'; }

count() {
  local number
  number="$(sum "$1" "$2")"
  [ "$number" -gt 0 ] || { echo "test: the stage $1 ran no test, expected at least one" >&2; exit 1; }
  passed=$((passed + number))
}

stage "format" cargo fmt --check
stage "set-up: packages, Python, KaTeX" tools/setup.sh system browser python katex
stage "dependency features" tools/features.sh
stage "table of figures" "$MEM2GEN_PYTHON" tools/figures_table.py --check
stage_counting "tests of the source reader" house "$MEM2GEN_PYTHON" -m unittest tests/notebooks/test_house.py tests/notebooks/test_docs.py tests/notebooks/test_torture.py
count house '^Ran [0-9]+ test'
stage "floors" "$MEM2GEN_PYTHON" tools/house.py --check
stage "stale notebooks" "$MEM2GEN_PYTHON" tools/run_notebooks.py --check
stage "set-up: CUDA compiler" tools/setup.sh cuda
stage "CUDA kernels: compiled, within their limits" "$MEM2GEN_HOME/cuda/bin/python" tools/kernels.py
stage "clippy" cargo clippy --release --locked --quiet --all-targets -- -D warnings
stage "documentation" tools/docs.sh
stage "program and library" tools/setup.sh kernel
# The archive takes its libraries from Debian packages.
if [ "$(uname -m)" = x86_64 ] && command -v dpkg-query >/dev/null; then
  stage "archive" tools/dist.sh
  stage "archive with glibc alone" tools/dist_check.sh
fi
stage "set-up: data" tools/setup.sh data
stage_counting "Rust tests" rust cargo test --release --locked
count rust 'test result: ok\. [0-9]+ passed'
stage "examples" tools/examples.sh
stage "torture for a minute" "$MEM2GEN_PYTHON" tools/torture.py --seconds 60 --seed 1
passed=$((passed + 1))
stage "set-up: notebook kernel" tools/setup.sh tools
stage_counting "notebooks in profile smoke" notebooks "$MEM2GEN_PYTHON" tools/run_notebooks.py --profile smoke
count notebooks 'profile smoke: [0-9]+ passed'
stage "gallery" "$MEM2GEN_PYTHON" tools/gallery.py --profile smoke
stage_counting "tests of pages" pages env "MEM2GEN_GALLERY=$MEM2GEN_ROOT/out/smoke/gallery" \
  "MEM2GEN_DOCS=$CARGO_TARGET_DIR/doc" "$MEM2GEN_PYTHON" -m unittest tests/notebooks/test_gallery.py tests/notebooks/test_report.py
count pages '^Ran [0-9]+ test'
stage_counting "tests of the runner" runner "$MEM2GEN_PYTHON" -m unittest tests/notebooks/test_runner.py
count runner '^Ran [0-9]+ test'

line="$passed passed, 0 failed"
if [ -n "${MEM2GEN_COUNT_FILE:-}" ]; then printf "%s\n" "$line" >"$MEM2GEN_COUNT_FILE"; else printf "%s\n" "$line"; fi
