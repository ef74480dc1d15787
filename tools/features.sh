#!/usr/bin/env bash
# Fails where the test dependencies give a package of the program other features than the program alone does:
# cargo would then compile that package, and all that stands on it, once for the tests and once for the program.
set -euo pipefail
# shellcheck source=tools/env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$MEM2GEN_ROOT"

# packages KINDS: a line a package, with its version and features.
packages() {
  cargo tree --locked --edges "$1" --prefix none --format '{p} {f}' | sed 's/ (\*)$//' | LC_ALL=C sort -u
}

# Apart from `comm`, so that a failure of cargo is one of this script.
program="$(packages normal,build)"
tests="$(packages normal,build,dev)"
only="$(LC_ALL=C comm -23 <(printf '%s\n' "$program") <(printf '%s\n' "$tests"))"
if [ -n "$only" ]; then
  echo "features: the test dependencies change the features of these, so they would be compiled twice:" >&2
  printf '%s\n' "$only" >&2
  echo "features: ask for the missing features in [dependencies]; cargo tree -e features -i NAME says who wants them" >&2
  exit 1
fi
