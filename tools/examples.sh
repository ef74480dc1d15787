#!/usr/bin/env bash
# Runs every program of examples/. The data sets must have been fetched.
set -euo pipefail
# shellcheck source=tools/env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$MEM2GEN_ROOT"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
for example in energy copies landscape; do
  cargo run --release --locked --quiet --example "$example" >"$scratch/said"
  [ -s "$scratch/said" ] || { echo "examples: $example printed nothing" >&2; exit 1; }
done
cargo run --release --locked --quiet --example train_sample_label -- "$scratch/run"
