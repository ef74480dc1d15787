#!/usr/bin/env bash
# Fails when the test dependencies change the features of a package of the program: cargo would then compile this package,
# and all packages that depend on it, once for the tests and once for the program.
set -euo pipefail
# shellcheck source=tools/env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$MEM2GEN_ROOT"

# packages KINDS: one line for each package, with its version and features.
packages() {
  cargo tree --locked --edges "$1" --prefix none --format '{p} {f}' | sed 's/ (\*)$//' | LC_ALL=C sort -u
}

# Not inside `comm`, so that a failure of cargo ends this script.
program="$(packages normal,build)"
tests="$(packages normal,build,dev)"
only="$(LC_ALL=C comm -23 <(printf '%s\n' "$program") <(printf '%s\n' "$tests"))"
if [ -n "$only" ]; then
  echo "features: the test dependencies change the features of these, so they would be compiled twice:" >&2
  printf '%s\n' "$only" >&2
  echo "features: add the missing features in [dependencies]; cargo tree -e features -i NAME shows which package needs them" >&2
  exit 1
fi
