#!/usr/bin/env bash
# `cargo doc` with warnings as errors, and equations rendered by a local KaTeX.
set -euo pipefail
# shellcheck source=tools/env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$MEM2GEN_ROOT"

RUSTDOCFLAGS="-D warnings --html-in-header $MEM2GEN_ROOT/tools/katex-header.html" \
  cargo doc --release --locked --no-deps --lib --quiet
mkdir -p "$CARGO_TARGET_DIR/doc/katex"
cp -r "$MEM2GEN_HOME/katex/." "$CARGO_TARGET_DIR/doc/katex"
# Copy the files that README.md shows or links to.
grep -oE '\]\([^):#]+\)|src="[^":]+"' README.md | sed -E 's/^(\]\(|src=")//; s/[)"]$//' | sort -u | while read -r path; do
  if [ -e "$path" ]; then cp -r --parents "$path" "$CARGO_TARGET_DIR/doc/mem2gen"; fi
done
printf 'docs: %s\n' "$CARGO_TARGET_DIR/doc/mem2gen/index.html"
