"""Compiles kernels/*.cu with the pinned CUDA compiler and holds what comes out against kernels/limits.toml.

    kernels.py            checks; one line for each violation, and out/kernels/report.md in any case
    kernels.py --write    makes kernels/ptx and kernels/report.md, which the check compares

Run by the Python of .mem2gen/cuda. No device is needed, so nothing here is a measurement: registers, spills and
instructions are the compiler's, occupancy and bank conflicts are worked out from them.
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
# Warnings are errors. The same language as NVRTC is told at run time.
FLAGS = ["-std=c++17", "-Werror=all-warnings"]
LIMITS = {"threads", "shared", "registers", "blocks", "bank_ways", "scattered", "inner"}
# The oldest PTX that knows sm_80: every driver since CUDA 11.0 takes it, and ptxas makes the same code of it.
PTX_VERSION = "7.0"
ARITHMETIC = ("FFMA", "FADD", "FMUL", "MUFU", "DFMA", "DADD", "DMUL")


def unit(path):
    """The source with what it includes put in, as the crate hands it to NVRTC."""
    include = re.compile(r'^#include "([^"]+)"\n', re.M)
    return include.sub(lambda m: (KERNELS / m[1]).read_text(), path.read_text())


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def nvrtc(source, name, architecture):
    """The log of NVRTC for a translation unit, empty where it has nothing to say."""
    # The builtins are opened by bare name from within, so they have to be there already.
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
    """SASS of each kernel: its instructions as opcode and target, with labels between."""
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
    """One source: what each kernel is on each architecture, its PTX, and complaints."""
    path, limits = job
    wrong, kernels = [], {}
    source = unit(path)
    for architecture in ARCHITECTURES:
        virtual = architecture.replace("sm", "compute")
        if log := nvrtc(source, path.name, virtual):
            wrong.append(f"{path.name}: NVRTC for {virtual} says: {log}")
        cubin = OUT / f"{path.stem}.{architecture}.cubin"
        log = run([CUDA / "bin" / "nvcc", *FLAGS, f"-arch={architecture}", "-cubin", "-Xptxas", "-v",
                   path, "-o", cubin])
        found = listings(cubin)
        for name, values in resources(log).items():
            loop = count(inner_loop(found[name]))
            kernels[name, architecture] = values | {"loop": loop, "all": count(
                [n for n, _ in found[name] if not n.startswith(".")])}
            if name in limits:
                kernels[name, architecture] |= accesses(cubin, name, limits[name])
    ptx = OUT / f"{path.stem}.ptx"
    run([CUDA / "bin" / "nvcc", *FLAGS, "-arch=compute_80", "-ptx", path, "-o", ptx])
    text = re.sub(r"^\.version \S+$", f".version {PTX_VERSION}", ptx.read_text(), count=1, flags=re.M)
    ptx.write_text(f"// Source unit SHA-256 {hashlib.sha256(source.encode()).hexdigest()}\n{text}")
    run([CUDA / "bin" / "ptxas", "-arch=sm_80", ptx, "-o", "/dev/null"])
    return path.stem, kernels, wrong


def accesses(cubin, kernel, limit):
    """Occupancy, bank conflicts and scattered accesses at the launch that the limits name."""
    # pylint: disable=import-outside-toplevel
    from cuxray.report import build_report
    from cuxray.toolchain import resolve

    report = build_report(str(cubin), resolve(allow_fetch=False), threads=str(limit["threads"]), smem_dynamic=limit["shared"],
                          kernel_re=f"^{kernel}$", fast=True, use_cache=False)
    found = report["units"][0]["kernels"][0]
    access = found["access"]
    return {
        "blocks": found["occupancy"]["blocks_per_sm"],
        "occupancy": found["occupancy"]["occupancy_pct"],
        "bank_ways": access["worst_bank_conflict_ways"],
        "scattered": access["uncoalesced_global_accesses"],
        "known": access["analyzed_count"],
        "unknown": access["unanalyzed_count"],
    }


def violations(kernels, limits):
    for name in sorted(limits.keys() - {name for name, _ in kernels}):
        yield f"{name}: in limits.toml, but no kernel"
    for (name, architecture), is_ in kernels.items():
        at = f"{name} on {architecture}"
        if name not in limits:
            yield f"{at}: not in limits.toml"
            continue
        limit = limits[name]
        if limit.keys() != LIMITS:
            yield f"{name}: limits.toml has to give {' '.join(sorted(LIMITS))}"
            continue
        for what in ("spill", "stack", "static"):
            if is_[what]:
                yield f"{at}: {is_[what]} bytes of {what}, none allowed"
        for what in ("registers", "bank_ways", "scattered"):
            if is_[what] > limit[what]:
                yield f"{at}: {what} {is_[what]}, at most {limit[what]} allowed"
        if is_["blocks"] < limit["blocks"]:
            yield f"{at}: {is_['blocks']} blocks a multiprocessor, at least {limit['blocks']} wanted"
        total = sum(is_["loop"].values())
        for kind, share in limit["inner"].items():
            has = is_["loop"].get(kind, 0) / max(total, 1)
            if has < share:
                yield f"{at}: {has:.2f} of the inner loop is {kind}, at least {share} wanted"


def report(kernels, limits):
    """The table of all kernels, as markdown."""
    lines = [
        "# What the kernels compile to",
        "",
        "Made by `make kernels-ptx` with CUDA 13.0; `make kernels-check` compares. Blocks are those that fit a",
        "multiprocessor at once at the launch given, by registers, threads and shared memory. Bank conflicts (ways)",
        "and scattered accesses are those of the accesses whose addresses could be worked out (known). The inner",
        "loop is the one with the most arithmetic among loops without a loop in them; loads and stores carry their",
        "width in bits. Nothing here was measured on a device.",
        "",
        "| kernel | arch | threads | shared | registers | blocks | warps % | bank ways | scattered | known | inner loop |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (name, architecture), k in kernels.items():
        limit = limits.get(name, {})
        loop = sorted(k["loop"].items(), key=lambda kind: -kind[1])
        total = sum(k["loop"].values())
        mix = ", ".join(f"{n} {kind}" for kind, n in loop[:8])
        known = f"{k['known']} of {k['known'] + k['unknown']}" if "known" in k else "?"
        lines.append(
            f"| {name} | {architecture} | {limit.get('threads', '?')} | {limit.get('shared', '?')} | {k['registers']} "
            f"| {k.get('blocks', '?')} | {k.get('occupancy', '?')} | {k.get('bank_ways', '?')} "
            f"| {k.get('scattered', '?')} | {known} | {total}: {mix} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="make kernels/ptx and kernels/report.md")
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
            wrong.append(f"{old.relative_to(ROOT)}: of no source")
    for made, kept in committed.items():
        if write:
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(made.read_text())
        elif not kept.exists() or kept.read_text() != made.read_text():
            wrong.append(f"{kept.relative_to(ROOT)}: stale; make kernels-ptx makes it")
    for line in wrong:
        print(f"kernels: {line}", file=sys.stderr)
    if wrong:
        sys.exit(1)
    names = {name for name, _ in kernels}
    print(f"kernels: {len(names)} kernels of {len(sources)} sources within their limits on {', '.join(ARCHITECTURES)}")


if __name__ == "__main__":
    main()
