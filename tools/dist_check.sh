#!/usr/bin/env bash
# Runs the packed program in a root folder that contains glibc and the unpacked archive, and nothing else. Its results
# must equal those of the program of this checkout to the byte. Needs an archive (`make dist`), and root or user namespaces.
set -euo pipefail
# shellcheck source=tools/env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$MEM2GEN_ROOT"
export LC_ALL=C
unset LD_LIBRARY_PATH LD_PRELOAD
umask 022

fail() { printf 'dist-check: %s\n' "$*" >&2; exit 1; }

version="$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)"
name="mem2gen-$version-x86_64-linux"
archive="${ARCHIVE:-out/dist/$name.tar.xz}"
[ -f "$archive" ] || fail "$archive is missing; run \`make dist\`"
program="$CARGO_TARGET_DIR/release/mem2gen"
cargo build --release --locked --quiet --bin mem2gen

# Root may change the root folder; another user may do so in a user namespace.
enter=(unshare)
[ "$(id -u)" -eq 0 ] || enter+=(--map-root-user)
"${enter[@]}" --root=/ true 2>/dev/null ||
  fail "nothing was checked: this user may neither change the root folder nor create user namespaces; run as root"

root="$(mktemp -d)"
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
# An unusual path: the archive must work at any.
mkdir -p "$root/opt/some where" "$root/tmp/work" "$root/lib64" "$root/dev" "$root/proc/self" "$root/expected"
tar -xJf "$archive" -C "$root/opt/some where"
[ "$(ls -A "$root/opt/some where")" = "$name" ] || fail "$archive contains more than the folder $name"
folder="/opt/some where/$name"
for part in mem2gen README.md lib/libopenblas.so.0 data/plans/mnist-mlp.toml data/prompts/stable-diffusion.jsonl licences/README.md; do
  [ -f "$root$folder/$part" ] || fail "$part is missing in $archive"
done
while read -r path; do
  mkdir -p "$root$(dirname "$path")"
  cp -L "$path" "$root$path"
done < <(ldd "$root$folder/mem2gen" | sed -nE 's/ \(0x[0-9a-f]+\)$//; s/^\t(\S+ => )?(\/.*)$/\2/p' | grep -vF "$root/")
[ -e "$root/lib64/ld-linux-x86-64.so.2" ] || fail "the program does not use the loader /lib64/ld-linux-x86-64.so.2"
foreign="$(find "$root" -name '*.so*' -not -path "$root$folder/*" -printf '%f\n' |
  grep -vE '^(ld-linux-x86-64|lib(c|m|dl|pthread|rt))\.so\.[0-9]+$' | paste -sd ' ')" || true
[ -z "$foreign" ] || fail "libraries are neither of glibc nor in the archive: $foreign"
# The loader and the program read from /proc where the program lies. A mounted /proc needs rights that containers lack.
ln -s "$folder/mem2gen" "$root/proc/self/exe"
: >"$root/dev/null"

# inside FOLDER ARGUMENTS...: runs the packed program in the new root, in a working folder, without an environment.
unshare="$(command -v "${enter[0]}")"
inside() {
  local where="$1"
  shift
  env -i "$unshare" "${enter[@]:1}" --root="$root" --wd="$where" "$folder/mem2gen" "$@"
}
# outside ARGUMENTS...: runs the program of this checkout with the libraries of this system.
outside() { (cd "$root/expected" && env -i MEM2GEN_ROOT="$MEM2GEN_ROOT" "$program" "$@"); }
# same WHAT FILE FILE
same() { cmp -s "$2" "$3" || fail "$1: the archive and this checkout give different bytes"; }

outside --version >"$root/expected/version"
inside / --version >"$root/tmp/version"
same --version "$root/expected/version" "$root/tmp/version"
inside / --help >/dev/null
inside /tmp/work doctor >"$root/tmp/doctor" || fail "doctor fails in the archive"
grep -qE '^BLAS and LAPACK +ok ' "$root/tmp/doctor" || fail "doctor says: $(grep BLAS "$root/tmp/doctor")"

# Random points in 64 dimensions, so that LAPACK uses blocks and threads for the eigenvalues of Hessians.
python3 - "$root/expected/random.npy" "$root/tmp/work/random.npy" <<'END'
import random
import struct
import sys

rows, columns, draw = 12, 64, random.Random(3407)
header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({rows}, {columns}), }}".ljust(117) + "\n"
values = [draw.gauss(0, 1) for _ in range(rows * columns)]
for path in sys.argv[1:]:
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        file.write(struct.pack(f"<{len(values)}d", *values))
END

compute() {
  "$@" toy --points 9 --out nine.npy
  "$@" toy --points 1000 --out all.npy
  "$@" minima --memories nine.npy --beta 20 --out few.parquet
  "$@" minima --memories random.npy --beta 0.05 --random-starts 100 --out minima.parquet
  "$@" knn --reference nine.npy --queries all.npy -k 6 --out knn.parquet
  "$@" classify --train nine.npy --synthetic all.npy --delta-m 0.05 --delta-s 0.01 --out classes
}
compute inside /tmp/work >/dev/null
compute outside >/dev/null
for file in nine.npy all.npy few.parquet minima.parquet knn.parquet; do
  same "$file" "$root/expected/$file" "$root/tmp/work/$file"
done
diff -r "$root/expected/classes" "$root/tmp/work/classes" >/dev/null || fail "classify: the archive and this checkout differ"

# The program finds the plans of the archive from every working folder.
cells=(sweep --plan mnist-mlp --runs /tmp/none --dry-run)
outside "${cells[@]}" >"$root/expected/cells"
for where in / /tmp/work "$folder"; do
  inside "$where" "${cells[@]}" >"$root/tmp/cells"
  same "sweep --dry-run" "$root/expected/cells" "$root/tmp/cells"
done
# The same with a real /proc and through a symbolic link.
ln -s "$root$folder/mem2gen" "$root/tmp/linked"
(cd / && env -i "$root/tmp/linked" "${cells[@]}") >"$root/tmp/cells"
same "sweep --dry-run" "$root/expected/cells" "$root/tmp/cells"

if inside / gpu-report >/dev/null 2>"$root/tmp/said"; then fail "gpu-report finds a GPU without a driver"; fi
if [ "$(wc -l <"$root/tmp/said")" -ne 1 ] || ! grep -q '^mem2gen gpu-report: .*no CUDA' "$root/tmp/said"; then
  fail "gpu-report without a driver says: $(cat "$root/tmp/said")"
fi

printf 'dist-check: %s runs with glibc alone, and minima, knn and classify give the bytes of this checkout\n' "$name"
