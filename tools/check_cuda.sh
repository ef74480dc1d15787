#!/usr/bin/env bash
# Type-checks the features `cuda` and `cudnn` without a CUDA toolkit. candle's build script compiles its kernels with nvcc even for a
# check, so a script that writes empty files replaces nvcc. The code of mem2gen needs no toolkit.
set -euo pipefail
# shellcheck source=tools/env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$MEM2GEN_ROOT"

# A separate folder, so that results with empty kernels are never used by a real build.
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
  cargo check --release --locked --features cudnn --lib --bins
cat <<'END'
check-cuda: the features `cuda` and `cudnn` type-check: the code of mem2gen with candle's CUDA backend and cuDNN, without
check-cuda: candle's kernels.
check-cuda: not checked: candle's kernels, linking with the CUDA libraries, and any run. These need a machine with the
check-cuda: toolkit and a GPU.
END
