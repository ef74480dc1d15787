"""Compiles kernels/*.cu with the pinned CUDA compiler and compares the result with kernels/limits.toml.

    kernels.py            checks; prints one line for each violation, and always writes out/kernels/report.md
    kernels.py --write    writes kernels/ptx and kernels/report.md, which the check compares

The Python of .mem2gen/cuda runs it. It needs no GPU and measures nothing: the compiler reports registers, spills and
instructions, from which occupancy and bank conflicts are computed.
"""

import argparse
import ctypes
import hashlib
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "kernels"
OUT = ROOT / "out" / "kernels"
CUDA = Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cu13"
os.environ["CUDA_HOME"] = str(CUDA)
ARCHITECTURES = ("sm_80", "sm_90")
# Warnings are errors. NVRTC compiles the same language version at run time.
FLAGS = ["-std=c++17", "-Werror=all-warnings"]
LIMITS = {"threads", "shared", "registers", "blocks", "bank_ways", "banks", "sectors", "loop", "inner"}
# The oldest PTX version with sm_80: every driver since CUDA 11.0 accepts it, and ptxas makes the same code from it.
PTX_VERSION = "7.0"
ARITHMETIC = ("FFMA", "FADD", "FMUL", "MUFU", "DFMA", "DADD", "DMUL")


def unit(path):
    """The source with its includes expanded, as the crate passes it to NVRTC."""
    include = re.compile(r'^#include "([^"]+)"\n', re.M)
    return include.sub(lambda m: (KERNELS / m[1]).read_text(), path.read_text())


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def nvrtc(source, name, architecture):
    """The log of NVRTC for a translation unit; empty without warnings and errors."""
    # NVRTC opens the builtins by bare name, so they must be loaded before.
    ctypes.CDLL(str(CUDA / "lib" / "libnvrtc-builtins.so.13.0"), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(CUDA / "lib" / "libnvrtc.so.13"), mode=ctypes.RTLD_GLOBAL)
    program = ctypes.c_void_p()
    options = [b"--std=c++17", f"--gpu-architecture={architecture}".encode()]
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), 0, None, None)
    failed = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return log.value.decode().strip() or ("NVRTC failed" if failed else "")


def resources(log):
    """Registers, spilled bytes, stack and static shared memory of each kernel, from `ptxas -v`."""
    out, name = {}, None
    for line in log.splitlines():
        if found := re.search(r"Compiling entry function '(\w+)'", line):
            name = found[1]
            out[name] = {"static": 0}
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            out[name].update(stack=int(found[1]), spill=int(found[2]) + int(found[3]))
        elif found := re.search(r"Used (\d+) registers", line):
            out[name]["registers"] = int(found[1])
            if shared := re.search(r"(\d+) bytes smem", line):
                out[name]["static"] = int(shared[1])
    return out


def listings(cubin):
    """SASS of each kernel: instructions as opcode and target, and labels between them."""
    out, current = {}, None
    for line in run([CUDA / "bin" / "nvdisasm", "-c", cubin]).splitlines():
        if found := re.match(r"\.text\.(\w+):", line):
            current = out.setdefault(found[1], [])
        elif current is None:
            continue
        elif found := re.match(r"(\.L_\w+):", line):
            current.append((found[1], None))
        elif found := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+ )?\s*([A-Z][\w.]*)(.*)", line):
            target = re.search(r"`\((\.L_\w+)\)", found[2])
            current.append((found[1], target[1] if target else None))
    return out


def inner_loop(listing):
    """Instructions of the loop with the most arithmetic among those that hold no other loop."""
    labels = {name: at for at, (name, _) in enumerate(listing) if name.startswith(".L_")}
    loops = [(labels[to], at) for at, (name, to) in enumerate(listing)
             if name.startswith("BRA") and to in labels and labels[to] < at]
    # A branch to itself pads the end of a kernel.
    loops = [(a, b) for a, b in loops if b - a > 1]
    innermost = [(a, b) for a, b in loops if not any(a <= c and d < b for c, d in loops)]
    bodies = [[name for name, _ in listing[a:b + 1] if not name.startswith(".")] for a, b in innermost]
    return max(bodies, key=lambda body: sum(name.split(".")[0] in ARITHMETIC for name in body), default=[])


def count(body):
    """Instructions by kind; loads and stores with their width in bits."""
    out = {}
    for name in body:
        kind, *rest = name.split(".")
        if kind in ("LDG", "STG", "LDS", "STS", "LDL", "STL", "LD", "ST"):
            kind += next((f".{w}" for w in ("128", "64", "U8", "U16") if w in rest), ".32")
        out[kind] = out.get(kind, 0) + 1
    return out


def analyse(job):
    """One source: the properties of each kernel on each architecture, its PTX, and complaints of NVRTC."""
    path, limits = job
    wrong, kernels = [], {}
    source = unit(path)
    for architecture in ARCHITECTURES:
        virtual = architecture.replace("sm", "compute")
        if log := nvrtc(source, path.name, virtual):
            wrong.append(f"{path.name}: NVRTC for {virtual} reports: {log}")
        cubin = OUT / f"{path.stem}.{architecture}.cubin"
        log = run([CUDA / "bin" / "nvcc", *FLAGS, f"-arch={architecture}", "-cubin", "-Xptxas", "-v",
                   path, "-o", cubin])
        found = listings(cubin)
        for name, values in resources(log).items():
            loop = count(inner_loop(found[name]))
            kernels[name, architecture] = values | {"loop": loop, "all": count(
                [n for n, _ in found[name] if not n.startswith(".")])}
            if name in limits:
                kernels[name, architecture] |= held(cubin, architecture, name, values, limits[name])
    ptx = OUT / f"{path.stem}.ptx"
    run([CUDA / "bin" / "nvcc", *FLAGS, "-arch=compute_80", "-ptx", path, "-o", ptx])
    text = re.sub(r"^\.version \S+$", f".version {PTX_VERSION}", ptx.read_text(), count=1, flags=re.M)
    ptx.write_text(f"// Source unit SHA-256 {hashlib.sha256(source.encode()).hexdigest()}\n{text}")
    run([CUDA / "bin" / "ptxas", "-arch=sm_80", ptx, "-o", "/dev/null"])
    return path.stem, kernels, wrong


def held(cubin, architecture, kernel, values, limit):
    """Occupancy at the launch that the limits name, and bank conflicts, which are the same on both architectures."""
    # pylint: disable=import-outside-toplevel
    from cuxray.archspec import lookup
    from cuxray.occupancy import compute
    from cuxray.report import build_report
    from cuxray.toolchain import resolve

    occupancy = compute(lookup(architecture), values["registers"], limit["threads"], values["static"], limit["shared"])
    out = {"blocks": occupancy.blocks_per_sm, "occupancy": occupancy.occupancy_pct}
    if architecture == ARCHITECTURES[-1]:
        report = build_report(str(cubin), resolve(allow_fetch=False), threads=str(limit["threads"]),
                              smem_dynamic=limit["shared"], kernel_re=f"^{kernel}$", fast=True, use_cache=False)
        access = report["units"][0]["kernels"][0]["access"]
        out["bank_ways"] = access["worst_bank_conflict_ways"]
        out["known"] = access["analyzed_count"]
        out["unknown"] = access["unanalyzed_count"]
    return out


def violations(kernels, limits):
    for name in sorted(limits.keys() - {name for name, _ in kernels}):
        yield f"{name}: limits.toml lists it, but no source has a kernel of this name"
    for (name, architecture), is_ in kernels.items():
        at = f"{name} on {architecture}"
        if name not in limits:
            yield f"{at}: limits.toml does not list it"
            continue
        limit = limits[name]
        if limit.keys() != LIMITS:
            yield f"{name}: limits.toml must give exactly {' '.join(sorted(LIMITS))}"
            continue
        for what in ("spill", "stack", "static"):
            if is_[what]:
                yield f"{at}: {is_[what]} bytes of {what}, expected 0"
        for what in ("registers", "bank_ways"):
            if is_.get(what, 0) > limit[what]:
                yield f"{at}: {what} {is_[what]}, expected at most {limit[what]}"
        if is_["blocks"] < limit["blocks"]:
            yield f"{at}: {is_['blocks']} blocks per multiprocessor, expected at least {limit['blocks']}"
        total = sum(is_["loop"].values())
        if total > limit["loop"]:
            yield f"{at}: {total} instructions in the inner loop, expected at most {limit['loop']}"
        for kind, share in limit["inner"].items():
            has = is_["loop"].get(kind, 0) / max(total, 1)
            if has < share:
                yield f"{at}: {has:.2f} of the inner loop is {kind}, expected at least {share}"


def report(kernels, limits):
    """The table of all kernels, as markdown."""
    lines = [
        "# The compiled kernels",
        "",
        "Written by `make kernels-ptx` with CUDA 13.0; `make kernels-check` compares. Nothing here was measured on a device.",
        "",
        "Threads are those of a block, shared memory is in bytes per block, registers are per thread. Blocks are the",
        "number that fits on a multiprocessor at once, and warps their share of the largest possible number. Banks and",
        "sectors are limits that the tests check when they run the PTX: passes over the banks of shared memory and sectors",
        "of global memory, as multiples of the least possible number. The inner loop is the loop with the most arithmetic",
        "among the loops without an inner loop; loads and stores have their width in bits.",
        "",
        "| kernel | machine | threads | shared | registers | blocks | warps | banks | sectors | inner loop |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, limit in limits.items():
        for architecture in ARCHITECTURES:
            k = kernels.get((name, architecture), {})
            if "blocks" not in k:
                continue
            loop = sorted(k["loop"].items(), key=lambda kind: (-kind[1], kind[0]))
            total = sum(k["loop"].values())
            mix = f"{total}: " + ", ".join(f"{n} {kind}" for kind, n in loop[:8]) if total else "none"
            lines.append(
                f"| {name} | {architecture} | {limit['threads']} | {limit['shared']} | {k['registers']} | {k['blocks']} "
                f"| {k['occupancy']:.0f} % | {limit['banks']} | {limit['sectors']} | {mix} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write kernels/ptx and kernels/report.md")
    write = parser.parse_args().write
    OUT.mkdir(parents=True, exist_ok=True)
    limits = tomllib.loads((KERNELS / "limits.toml").read_text())
    sources = sorted(KERNELS.glob("*.cu"))
    kernels, wrong = {}, []
    with ProcessPoolExecutor(max_workers=2) as pool:
        for _, found, complaints in pool.map(analyse, [(path, limits) for path in sources]):
            kernels |= found
            wrong += complaints
    wrong += violations(kernels, limits)
    (OUT / "report.md").write_text(report(kernels, limits))
    committed = {OUT / "report.md": KERNELS / "report.md"}
    committed |= {OUT / f"{path.stem}.ptx": KERNELS / "ptx" / f"{path.stem}.ptx" for path in sources}
    for old in (KERNELS / "ptx").glob("*.ptx"):
        if old not in committed.values():
            wrong.append(f"{old.relative_to(ROOT)}: no source of this name exists; remove the file")
    for made, kept in committed.items():
        if write:
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(made.read_text())
        elif not kept.exists() or kept.read_text() != made.read_text():
            wrong.append(f"{kept.relative_to(ROOT)}: is out of date; run make kernels-ptx")
    for line in wrong:
        print(f"kernels: {line}", file=sys.stderr)
    if wrong:
        sys.exit(1)
    names = {name for name, _ in kernels}
    print(f"kernels: {len(names)} kernels of {len(sources)} sources within their limits on {', '.join(ARCHITECTURES)}")


if __name__ == "__main__":
    main()
