#!/usr/bin/env bash
# Type-checks the feature `cuda` where there is no CUDA toolkit. A script that writes empty files stands in for nvcc, as
# candle's kernels are compiled by a build script, whatever is checked; our own code needs no toolkit.
set -euo pipefail
# shellcheck source=tools/env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$MEM2GEN_ROOT"

# Apart from the usual one: nothing that was built with the empty files may be taken for a real build.
export CARGO_TARGET_DIR="${MEM2GEN_CHECK_CUDA_TARGET:-$MEM2GEN_HOME/check-cuda}"
stand_in="$(mktemp -d)"
trap 'rm -rf "$stand_in"' EXIT
mkdir "$stand_in/bin"
cat >"$stand_in/bin/nvcc" <<'NVCC'
#!/usr/bin/env bash
case "$1" in
  --version) echo "Cuda compilation tools, release 13.0, V13.0.0" && exit ;;
  --list-gpu-code) echo sm_80 && exit ;;
esac
folder=. out=
while [ $# -gt 0 ]; do
  case "$1" in
    -o) out="$2" && shift ;;
    --output-directory) folder="$2" && shift ;;
    *.cu) name="$(basename "$1" .cu)" ;;
  esac
  shift
done
: >"${out:-$folder/$name.ptx}"
NVCC
chmod +x "$stand_in/bin/nvcc"

PATH="$stand_in/bin:$PATH" NVCC="$stand_in/bin/nvcc" CUDA_HOME="$stand_in" CUDA_COMPUTE_CAP=80 \
  cargo check --release --locked --features cuda --lib --bins
cat <<'SAID'
check-cuda: the feature `cuda` type-checks: our code against candle's CUDA backend, with candle's kernels left empty.
check-cuda: not checked: candle's kernels, linking against the CUDA libraries, and that anything runs. That takes a
check-cuda: machine with the toolkit and a GPU.
SAID
