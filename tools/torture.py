#!/usr/bin/env python3
"""Attacks the built program from outside: kills, full disks, closed outputs, memory limits, damaged files, odd arguments.

    make torture SECONDS=600 SEED=1            prints the table and each bad case with its command
    make torture SECONDS=600 UPDATE=1          writes the table in docs/reliability.md too
    torture.py --groups damage,counts          only these groups

A case is bad when the call panics, is ended by a signal, hangs, refuses in anything but one clear line, leaves a temporary
file or a torn result, or succeeds with another result than an undisturbed call. The files of a bad case are kept in
out/torture, and its command can be pasted into a shell. The seed decides every case; how many are reached depends on time.
This process uses the standard library and NumPy, and PyArrow to look for values in tables where it is installed.
"""

from __future__ import annotations

import argparse
import array
import gzip
import io
import json
import math
import os
import pickle
import random
import re
import resource
import shlex
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy

try:
    import pyarrow.compute
    import pyarrow.parquet
except ImportError:
    pyarrow = None

ROOT = Path(__file__).resolve().parent.parent
BINARY = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "mem2gen"
FIXTURES = ROOT / "tests" / "fixtures" / "torture"
CHECKPOINT = ROOT / "tests" / "golden" / "checkpoint.pth"
KEPT = ROOT / "out" / "torture"
PAGE, BEGIN, END = ROOT / "docs" / "reliability.md", "<!-- torture:begin -->", "<!-- torture:end -->"

# Seconds after which a call hangs. The machine may be busy.
HANG = 60
# Characters of an error, without the arguments that it repeats.
LONGEST = 600
TEMPORARY = re.compile(r"\.mem2gen-|\.fetch-")
PANIC = re.compile(rb"panicked at|RUST_BACKTRACE|stack backtrace|memory allocation of \d+ bytes failed|stack overflow")
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")
# Lines of progress, and what a command says beside an error.
NOTE = re.compile(r"\d+/\d+|^[\w-]+: ")
# Times, and the checksum of metrics, which hold times: these differ between equal calls.
TIMES = re.compile(rb'("\w*seconds"|"metrics\.parquet")\s*:\s*("\w+"|[-+.\deE]+)')
# Results in a folder of work. A sweep does not read the raw weights; other commands verify them.
RESULT = re.compile(r"(\.npy|\.parquet|ema\.safetensors|cell\.json)$")
# Commands that write into the damaged folder.
WRITES = ("train", "sweep --plan", "sample --run {w}", "curvature --run {w}")
REFUSED = (1, 2)
SUCCESS = (0, 3, 4)

PLAN = """datasets = ["lsun-church"]
size = 4
sizes = [2, 5]
control = true

[[network]]
name = "mlp8"
arch = { kind = "mlp", width = 8, blocks = 1, time = 8, dropout = 0.0 }

[training]
prediction = "x0"
steps = 300
batch = 8
repeat = true
adam = { learning_rate = 1e-2, decay = "cosine" }
ema = { decay = 0.9, warm_up = true }
checkpoint_every = 10
log_every = 20

[sampling]
sampler = "ddim"
steps = 20
multiples = [2, 4]
least = 200

[detection]
delta_m = 1.5
delta_s = 0.5
resamples = 50
"""


# Files of the formats that the program reads, made without other packages.


def npy(kind: str, shape: tuple[int, ...], values: bytes) -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + values


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, pixels: bytes) -> bytes:
    rows = b"".join(b"\x00" + pixels[3 * width * y : 3 * width * (y + 1)] for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def zipped(entries: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, body in entries:
            archive.writestr(zipfile.ZipInfo(name), body)
    return buffer.getvalue()


def safetensors(shape: tuple[int, ...], values: bytes) -> bytes:
    head = json.dumps({"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, len(values)]}}).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + values


def torch_file(rows: int, columns: int, values: bytes) -> bytes:
    """A tensor of float32 as PyTorch saves it: a pickle and the storage in a zip archive."""
    text = lambda word: b"X" + struct.pack("<I", len(word)) + word
    storage = b"(" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"0") + text(b"cpu")
    storage += b"M" + struct.pack("<H", rows * columns) + b"tQ"
    shape = b"K\x00" + bytes([75, rows, 75, columns]) + b"\x86" + bytes([75, columns, 75, 1]) + b"\x86"
    pickled = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + shape + b"\x89ccollections\nOrderedDict\n)RtR."
    entries = [("D/data.pkl", pickled), ("D/byteorder", b"little"), ("D/data/0", values), ("D/version", b"3\n")]
    return zipped(entries)


# Damage.


def damaged(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """One to three mutations of the bytes of a file, half of them inside its container, with checksums made right."""
    if rng.random() < 0.5:
        inside = within(data, other, rng)
        if inside is not None:
            return inside
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = mutated(data, other, rng)
    return data


def within(data: bytes, other: bytes, rng: random.Random) -> bytes | None:
    """Damage to the content of a zip archive, a gzip file or a PNG; None for other files."""
    if data.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [(name, archive.read(name)) for name in archive.namelist()]
        at = rng.choice([0, rng.randrange(len(entries))])
        name, body = entries[at]
        entries[at] = (name, damaged(body, other, rng))
        return zipped(entries)
    if data.startswith(b"\x1f\x8b"):
        return gzip.compress(mutated(gzip.decompress(data), other, rng), mtime=0)
    if data.startswith(b"\x89PNG"):
        chunks, at = [], 8
        while at < len(data):
            size = struct.unpack(">I", data[at : at + 4])[0]
            chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
            at += 12 + size
        chosen = rng.randrange(len(chunks))
        kind, body = chunks[chosen]
        if kind == b"IDAT" and rng.random() < 0.7:
            body = zlib.compress(mutated(zlib.decompress(body), other, rng))
        else:
            body = mutated(body, other, rng)
        chunks[chosen] = (kind, body)
        return data[:8] + b"".join(chunk(*c) for c in chunks)
    return None


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    if not data:
        return rng.randbytes(rng.randrange(64))
    # Headers and footers hold the lengths.
    at = rng.choice([rng.randrange(len(data)), rng.randrange(min(len(data), 160)), -1 - rng.randrange(min(len(data), 160))])
    at %= len(data)
    end = min(len(data), at + rng.choice((1, 8, 64, 4096)))
    match rng.choice("bits bytes truncate extend duplicate zero remove splice field field number number".split()):
        case "bits":
            return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        case "bytes":
            return data[:at] + rng.randbytes(end - at) + data[end:]
        case "truncate":
            return data[:at]
        case "extend":
            return data + rng.choice((b"\0" * 64, rng.randbytes(rng.randrange(1, 64)), data))
        case "duplicate":
            return data[:end] + data[at:end] + data[end:]
        case "zero":
            return data[:at] + bytes(end - at) + data[end:]
        case "remove":
            return data[:at] + data[end:]
        case "splice":
            return data[:at] + other[rng.randrange(len(other) + 1) :]
        case "field":
            size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
            size = min(size, len(data) - at)
            most = 256**size - 1
            old = int.from_bytes(data[at : at + size], order)
            new = rng.choice((0, 1, most, most // 2, most // 2 + 1, (old + 1) & most, (old - 1) & most, (old * 2) & most))
            return data[:at] + new.to_bytes(size, order) + data[at + size :]
        case _:
            numbers = list(re.finditer(rb"-?\d+(?:\.\d+)?(?:e-?\d+)?", data[:20000]))
            if not numbers:
                return data[:at] + b"-1" + data[at:]
            found = rng.choice(numbers)
            return data[: found.start()] + rng.choice(EXTREMES).encode() + data[found.end() :]


EXTREMES = "0 -1 1 2 60001 4294967296 18446744073709551615 99999999999999999999 1e308 1e999 -0.0 NaN inf null [] \"x\"".split()


def damaged_plan(data: bytes, rng: random.Random) -> bytes:
    """A TOML file with one or two values, lines or tables that are wrong."""
    lines = data.decode().splitlines()
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(lines))
        name = lines[at].partition("=")[0]
        match rng.randrange(6):
            case 0:
                lines.pop(at)
            case 1:
                lines.insert(rng.randrange(len(lines)), lines[at])
            case 2:
                lines[at] = f"{name}= {rng.choice([*EXTREMES, '[1, 2]', '{ kind = 1 }', 'true', chr(39) * 2])}"
            case 3:
                lines[at] = "sizes = [" + ", ".join(str(i + 1) for i in range(rng.choice((0, 13, 60000)))) + "]"
            case 4:
                lines[at] = mutated(lines[at].encode(), b"x = 1", rng).decode("utf-8", "replace")
            case _:
                lines.insert(at, rng.choice(("[training]", "[x]", "y = 1", "[[network]]", "\0", "size = 4")))
    return "\n".join(lines).encode()


# Calls.


@dataclass
class Said:
    """How a call ended. `code` is None after a hang, and negative where a signal ended the process."""

    code: int | None
    out: bytes
    err: bytes
    seconds: float


@dataclass(frozen=True)
class Call:
    """A small valid call of a command. `{o}` stands for the folder of its results, `{w}` for that of its inputs."""

    name: str
    words: str
    # Results, relative to the folder `{o}`.
    results: tuple[str, ...] = ()
    # A second or more of work, which finished parts shorten when it is called again.
    long: bool = False


MODEL = ROOT / "tests/golden/diffusers/tiny"
NET = "train --dataset lsun-church --k 8 --size 4 --arch mlp --width 8 --process vp --batch 4 --profile smoke"
NETWORK = "--dataset mnist --size 8 --multipliers 1,1 --blocks 1 --attention 4 --groups 2"
BASIN = "--class training --delta 0.5 --stride 200 --attractors {o}/A.parquet --draws 64 --draw-steps 5 --out {o}/T.parquet"
EXACT = "curvature --run {w}/church --class training --exact --rows 60 --batch 8 --out {o}/T.parquet"
CALLS = (
    Call("energy", "energy --memories {w}/D.npy --queries {w}/X.npy --beta 1 --out {o}/E.npy", ("E.npy",)),
    Call("score", "score --memories {w}/D.npy --queries {w}/X.npy --sigma 1 --out {o}/S.npy", ("S.npy",)),
    Call("knn", "knn --reference {w}/D.npy --queries {w}/X.npy -k 3 --out {o}/T.parquet", ("T.parquet",)),
    Call("minima", "minima --memories {w}/D.npy --beta 2 --random-starts 50 --out {o}/T.parquet", ("T.parquet",)),
    Call("classify", "classify --train {w}/D.npy --synthetic {w}/X.npy --any-range --out {o}/C", ("C",)),
    Call("classify", "classify --train {w}/pictures --synthetic {w}/set.zip --size 8 --out {o}/C", ("C",)),
    Call("classify", "classify --run {w}/toy --samples 300 --delta-m 0.1 --delta-s 0.1 --out {o}/C", ("C",)),
    Call("toy", "toy --points 50 --out {o}/P.npy", ("P.npy",)),
    Call("arch", "arch --arch mlp --size 4"),
    Call("train", f"{NET} --steps 60 --checkpoint-every 7 --run {{o}}/R", ("R",)),
    Call("import", f"import {{w}}/net.pth {NETWORK} --out {{o}}/R", ("R",)),
    Call("sample", "sample --run {w}/toy -n 40 --steps 50 --batch 8 --out {o}/S.npy", ("S.npy",)),
    Call("sample", "sample --run {w}/church -n 9 --sampler ddim --steps 5 --out {o}/P/", ("P",)),
    Call("sample", "sample --run {w}/church -n 9 --sampler ode --out {o}/P.png", ("P.png",)),
    Call("likelihood", "likelihood --run {w}/toy --queries {w}/P.npy --out {o}/T.parquet", ("T.parquet",)),
    Call("sweep", "sweep --plan {w}/tiny.toml --runs {o}/cells --threads 1", ("cells",)),
    Call("sweep", "sweep status --plan {w}/tiny.toml --runs {w}/cells"),
    Call("sweep", "sweep --plan {w}/tiny.toml --runs {w}/cells --dry-run"),
    Call("sweep", "sweep collect --plan {w}/tiny.toml --runs {w}/cells --out {o}/tables", ("tables",)),
    Call("sweep", "sweep publish --plan {w}/tiny.toml --runs {w}/cells --out {o}/nets", ("nets",)),
    Call("sweep", "sweep plan --plan {w}/tiny.toml --slurm --out {o}/job.sh", ("job.sh",)),
    Call(
        "attractors",
        "attractors --run {w}/church --delta 0.5 --starts 6 --plain 5 --most-steps 9 --positions {o}/X.npy --flows {o}/F.parquet "
        "--out {o}/A.parquet",
        ("A.parquet", "X.npy", "F.parquet"),
    ),
    Call("basin", f"basin --run {{w}}/church {BASIN}", ("T.parquet", "A.parquet")),
    Call(
        "curvature",
        "curvature --run {w}/church --class training --points {o}/P.parquet --out {o}/T.parquet",
        ("T.parquet", "P.parquet"),
    ),
    Call(
        "potential",
        "potential --run {w}/church --points 5 --loops 2 --loop-points 5 --gaps {o}/G.parquet --curves {o}/V.parquet "
        "--circuits {o}/L.parquet --out {o}/T.parquet",
        ("T.parquet", "G.parquet", "V.parquet", "L.parquet"),
    ),
    Call("prompts", f"prompts --weights {MODEL} --prompts {{w}}/list.jsonl --seeds 2 --steps 3 --rows 8 --out {{o}}/M", ("M",)),
    Call("claims", "claims --table {w}/claims.parquet"),
    Call("claims", "claims --table {w}/claims.parquet --json"),
    Call("data", "data list"),
    Call("data", "data verify lsun-church"),
    Call("data", "data export lsun-church --k 4 --size 8 --out {o}/D.npy", ("D.npy",)),
    Call("data", "data export lsun-church --k 4 --size 8 --out {o}/D/", ("D",)),
    Call("doctor", "doctor"),
    Call("doctor", f"doctor --weights {MODEL}"),
    Call("help", "help"),
    # Work of about a second, in many parts.
    Call("train", f"{NET} --steps 1200 --checkpoint-every 30 --run {{o}}/R", ("R",), long=True),
    Call("sample", "sample --run {w}/church -n 120 --steps 200 --batch 8 --out {o}/S.npy", ("S.npy",), long=True),
    Call("sweep", "sweep --plan {w}/tiny.toml --runs {o}/cells", ("cells",), long=True),
    Call(
        "basin",
        "basin --run {w}/church --class training --delta 0.5 --stride 4 --perturbations 40 --batch 16 --out {o}/T.parquet",
        ("T.parquet",),
        long=True,
    ),
    Call("curvature", EXACT, ("T.parquet",), long=True),
    Call(
        "potential",
        "potential --run {w}/church --references 8 --points 41 --loops 40 --batch 8 --out {o}/T.parquet",
        ("T.parquet",),
        long=True,
    ),
    Call("classify", "classify --run {w}/church --samples 60 --delta-m 1 --delta-s 1 --out {o}/C", ("C",), long=True),
)


IDX = "set-images-idx3-ubyte"
# Work that is stopped after some of its parts.
PARTS = ("sample --run {w}/church -n 120 --steps 200 --batch 8 --out {o}/S.npy", EXACT)


def below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from below(path)


def content(path: Path, base: Path) -> dict[str, bytes]:
    """The files of a result, without times. Locks, metrics and checkpoints of training depend on when it was stopped."""
    files = [path] if path.is_file() else below(path) if path.is_dir() else []
    found = {}
    for file in files:
        name = str(file.relative_to(base))
        if file.is_file() and not re.search(r"(^|/)lock$|\.lock$|checkpoints/|metrics\.parquet", name):
            body = file.read_bytes()
            if name.endswith(".json"):
                body = TIMES.sub(rb"\1: 0", body)
            found[name] = body.replace(str(base).encode(), b"{o}")
    return found


def without(text: str, words: list[str]) -> str:
    """A message without the arguments that it repeats, and the folders that contain them."""
    for word in sorted(words, key=len, reverse=True):
        # Other encodings are printed with a replacement.
        for form in (word, word.encode(errors="surrogateescape").decode(errors="replace")):
            while len(form) > 8:
                text = text.replace(form, "PATH")
                form = form.rpartition("/")[0]
    return text


def not_finite(path: Path) -> str | None:
    """A value of a result that is not finite."""
    for file in [path] if path.is_file() else below(path) if path.is_dir() else []:
        if file.suffix == ".npy":
            body = file.read_bytes()
            kind = re.search(rb"'descr': '<f([48])'", body[:128])
            start = 10 + struct.unpack("<H", body[8:10])[0]
            if kind and not all(map(math.isfinite, array.array("f" if kind[1] == b"4" else "d", body[start:]))):
                return f"{file.name} has values that are not finite"
        elif file.suffix == ".json" and re.search(r"(?<![\w\"])(NaN|-?Infinity)", file.read_text(errors="replace")):
            return f"{file.name} has values that are not finite"
        elif file.suffix == ".parquet" and pyarrow:
            table = pyarrow.parquet.read_table(file)
            for name in (f.name for f in table.schema if pyarrow.types.is_floating(f.type)):
                finite = pyarrow.compute.all(pyarrow.compute.is_finite(table[name])).as_py()
                # None where every value is null.
                if finite is False:
                    return f"{file.name}, column {name} has values that are not finite"
    return None


@dataclass
class Group:
    tried: int = 0
    accepted: int = 0
    refused: int = 0
    bad: int = 0
    note: str = ""


@dataclass
class Torture:
    program: Path
    seed: int
    place: Path
    groups: dict[str, Group] = field(default_factory=dict)
    current: str = ""
    deadline: float = 0.0
    reported: Counter = field(default_factory=Counter)
    reference: dict[Call, dict[str, bytes]] = field(default_factory=dict)
    seconds: dict[Call, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.world, self.case = self.place / "w", self.place / "o"
        self.rng = random.Random(self.seed)
        # Messages quote the environment of the caller otherwise.
        keep = {n: v for n, v in os.environ.items() if not n.startswith(("MEM2GEN", "RUST", "RAYON"))}
        self.env = keep | {"MEM2GEN_ROOT": str(self.world / "root"), "COLUMNS": "100", "MEM2GEN_PROFILE": "smoke"}

    # Calls.

    def words(self, text: str | list[str], out: Path | None = None) -> list[str]:
        words = text.split() if isinstance(text, str) else text
        return [str(self.program)] + [w.replace("{w}", str(self.world)).replace("{o}", str(out or self.case)) for w in words]

    def start(self, words: list, **more) -> subprocess.Popen:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(words, start_new_session=True, **(streams | {"env": self.env, "cwd": self.place} | more))

    def end(self, process: subprocess.Popen, began: float, timeout: float = HANG, stop: bool = False) -> Said:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            if stop:
                # Work that may well take long: it only has to stop when it is told to.
                process.send_signal(signal.SIGINT)
                said = self.end(process, began, 20)
                return Said(0 if said.code in (130, 0) else said.code, said.out, b"", said.seconds)
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            return Said(None, out, err, time.monotonic() - began)
        return Said(process.returncode, out or b"", err or b"", time.monotonic() - began)

    def run(self, words: list, timeout: float = HANG, stop: bool = False, **more) -> Said:
        return self.end(self.start(words, **more), time.monotonic(), timeout, stop)

    def fresh(self) -> Path:
        shutil.rmtree(self.case, ignore_errors=True)
        self.case.mkdir()
        return self.case

    # Judgement.

    def faults(self, said: Said, words: list[str], allowed: tuple[int, ...] = ()) -> list[str]:
        """What is wrong with how a call ended, whatever it was meant to do."""
        if said.code is None:
            return [f"hangs: not finished after {said.seconds:.0f} s"]
        wrong = []
        panic = PANIC.search(said.err + said.out)
        if panic:
            line = next(l for l in (said.err + said.out).splitlines() if PANIC.search(l))
            wrong.append(f"says {line.decode(errors='replace')[:200]!r}")
        if said.code not in (*SUCCESS, *REFUSED, *allowed):
            wrong.append(f"status {said.code}")
        # What the user gave is printed as it is.
        text = without(said.err.decode("utf-8", "surrogateescape"), words)
        if CONTROL.search(text):
            wrong.append(f"control characters in the message {text[:200]!r}")
        if TEMPORARY.search(text + said.out.decode("utf-8", "replace")):
            wrong.append(f"the message names a temporary file: {text.strip()[:300]!r}")
        if said.code in REFUSED:
            lines = text.splitlines()
            errors = [l for l in lines if l.startswith("mem2gen")]
            more = [l for l in lines if not l.startswith("mem2gen") and not NOTE.search(l)]
            if not errors and not panic:
                wrong.append(f"status {said.code} without a message: {text[:200]!r}")
            if more and not panic:
                wrong.append(f"an error of several lines: {text[:300]!r}")
            long = [l for l in errors if len(l) > LONGEST]
            if long:
                wrong.append(f"an error of {len(long[0])} characters: {long[0][:200]!r}...")
        return wrong

    def leftovers(self, folder: Path) -> list[str]:
        cache = self.world / "root" / "data" / "cache"
        places = [p for p in (folder, cache) if p.is_dir()]
        found = [str(p.relative_to(at)) for at in places for p in below(at) if TEMPORARY.match(p.name)]
        return [f"temporary files are left: {', '.join(found[:3])}"] if found else []

    def compared(self, call: Call, folder: Path, complete: bool) -> list[str]:
        """Differences from an undisturbed call. Without `complete`, results may be missing but not be torn."""
        wrong = []
        expected = self.reference[call]
        for result in call.results:
            got = content(folder / result, folder)
            want = {n: b for n, b in expected.items() if n == result or n.startswith(result + "/")}
            # These folders fill while the work goes on.
            grows = not complete and ((folder / result / "lock").exists() or result in ("cells", "tables", "nets"))
            if not got and not complete:
                continue
            missing, differ = sorted(want.keys() - got.keys()), sorted(n for n in want.keys() & got.keys() if want[n] != got[n])
            if missing and not grows:
                wrong.append(f"{missing[0]} is missing")
            if differ:
                sizes = f"{len(got[differ[0]])} and {len(want[differ[0]])} bytes"
                wrong.append(f"{differ[0]} is not what an undisturbed call writes ({sizes})")
            if complete:
                bad = not_finite(folder / result)
                if bad:
                    wrong.append(bad)
        return wrong

    def count(self, said: Said, wrong: list[str], command: str, keep: Callable[[Path], str] | None = None) -> None:
        """Counts a case, and reports a bad one. `keep` writes its files to a folder and gives the command there."""
        group = self.groups[self.current]
        group.tried += 1
        if not wrong:
            accepted = said.code in SUCCESS
            group.accepted += accepted
            group.refused += not accepted
            return
        group.bad += 1
        # The same fault of the same command again: counted, with its files kept no more than three times.
        name = next((c.name for c in CALLS if f" {c.name} " in command), "")
        kind = (self.current, name, re.sub(r"\d+|/\S+", "", wrong[0])[:60])
        self.reported[kind] += 1
        if self.reported[kind] <= 3:
            world = KEPT / f"{self.seed}-inputs"
            if not world.exists():
                (KEPT / "o").mkdir(parents=True, exist_ok=True)
                subprocess.run(["cp", "-a", self.world, world], check=True)
            if keep:
                folder = KEPT / f"{self.seed}-{self.current}-{group.bad}"
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                command = keep(folder)
            command = command.replace(str(self.world), str(world)).replace(str(self.case), str(KEPT / "o"))
            print(f"BAD {self.current}: {command}\n    {'; '.join(wrong)}", flush=True)

    def text(self, words: list[str]) -> str:
        names = ("MEM2GEN_ROOT", "MEM2GEN_PROFILE")
        return shlex.join(["env", *(f"{n}={self.env[n]}" for n in names), *map(str, words)])

    def left(self) -> bool:
        # One case at least: the groups before may have used all the time.
        return time.monotonic() < self.deadline or not self.groups[self.current].tried

    # The inputs.

    def prepare(self) -> None:
        rng = random.Random(7)
        w = self.world
        root = w / "root"
        (root / "data" / "plans").mkdir(parents=True)
        shutil.copytree(ROOT / "data" / "profiles", root / "data" / "profiles")
        (root / "data" / "results").mkdir()
        for kind in ("parquet", "json"):
            shutil.copy(ROOT / "data" / "results" / f"claims.{kind}", w)
        (w / "tiny.toml").write_text(PLAN)
        (w / "list.jsonl").write_text('{"caption": "a pear", "index": 1}\n')
        shutil.copy(CHECKPOINT, w / "net.pth")
        for file in FIXTURES.glob("picture*"):
            shutil.copy(file, w)
        numbers = lambda n: array.array("f", (rng.gauss(0, 1) for _ in range(n))).tobytes()
        rows = numbers(40 * 6)
        (w / "D.npy").write_bytes(npy("<f4", (40, 6), rows))
        (w / "X.npy").write_bytes(npy("<f4", (30, 6), rows[: 24 * 10] + numbers(6 * 20)))
        (w / "D.npz").write_bytes(zipped([("D.npy", npy("<f4", (40, 6), rows))]))
        (w / "D.safetensors").write_bytes(safetensors((40, 6), rows))
        (w / "D.pt").write_bytes(torch_file(40, 6, rows))
        square = array.array("f", (rng.random() for _ in range(9 * 64))).tobytes()
        (w / "I.npy").write_bytes(npy("<f4", (9, 8, 8), square))
        (w / "I.npz").write_bytes(zipped([("I.npy", npy("<f4", (9, 8, 8), square))]))
        (w / "I.safetensors").write_bytes(safetensors((9, 8, 8), square))
        batch = numpy.frombuffer(rng.randbytes(4 * 3072), dtype=numpy.uint8).reshape(4, 3072)
        cifar = pickle.dumps({"data": batch, "labels": [1, 2, 3, 4]}, protocol=3)
        (w / "data_batch.pkl").write_bytes(cifar)
        pixels = lambda i: bytes((x * (i + 3) * 7 + rng.randrange(9)) % 256 for x in range(192))
        pictures = [(f"{i:02}.png", png(8, 8, pixels(i))) for i in range(30)]
        (w / "pictures").mkdir()
        for name, body in pictures[:24]:
            (w / "pictures" / name).write_bytes(body)
        (w / "set.zip").write_bytes(zipped(pictures[14:]))
        idx = struct.pack(">IIII", 0x803, 9, 8, 8) + rng.randbytes(9 * 64)
        (w / IDX).write_bytes(idx)
        (w / f"{IDX}.gz").write_bytes(gzip.compress(idx, mtime=0))
        binary = b"".join(bytes([i % 10]) + rng.randbytes(3072) for i in range(4))
        (w / "data_batch_1.bin").write_bytes(binary)
        # Too few images for the data sets, which are refused in any case.
        labels = struct.pack(">II", 0x801, 9) + bytes(9)
        for folder, suffix, body in (("cifar", ".bin", binary), ("cifar-py", "", cifar)):
            (w / folder).mkdir()
            for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
                (w / folder / (name + suffix)).write_bytes(body)
        (w / "idx").mkdir()
        for name in ("train", "t10k"):
            (w / "idx" / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx, mtime=0))
            (w / "idx" / f"{name}-labels-idx1-ubyte").write_bytes(labels)
        large = w / "large"
        large.mkdir()
        for i in range(12):
            pixels = bytes((3 * x + 40 * i + i * i * (x % 64)) % 256 for x in range(12288))
            (large / f"{i:02}.png").write_bytes(png(64, 64, pixels))
        for words in (
            "data fetch lsun-church --from {w}/large",
            "train --dataset toy --k 9 --process vp --profile smoke --run {w}/toy",
            f"{NET} --steps 300 --checkpoint-every 100 --run {{w}}/church",
            "toy --points 12 --out {w}/P.npy",
            "sweep --plan {w}/tiny.toml --runs {w}/cells",
        ):
            said = self.run(self.words(words))
            if said.code != 0:
                raise SystemExit(f"torture: the valid call {self.text(self.words(words))} failed: {said.err.decode()}")
        settings = json.loads((w / "church" / "config.json").read_text())["settings"]
        (w / "train.json").write_text(json.dumps(settings | {"steps": 20}))
        (w / "parts").mkdir()
        for words in PARTS:
            self.interrupt(words, w / "parts")

    def interrupt(self, text: str, folder: Path) -> None:
        """Kills a call when some of its parts are finished."""
        process = self.start(self.words(text, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and sum(p.is_file() for p in below(folder) if ".partial" in str(p.parent)) < 4:
            time.sleep(0.001)
        process.kill()
        process.wait()
        for path in [p for p in below(folder) if TEMPORARY.match(p.name)]:
            path.unlink()

    def undisturbed(self, call: Call) -> None:
        """Records the results and the seconds of a call; twice, because files that differ are not promised to be equal."""
        if call in self.reference:
            return
        found = []
        for _ in range(2):
            folder = self.fresh()
            words = self.words(call.words)
            said = self.run(words)
            if said.code not in SUCCESS and call.name != "doctor":
                raise SystemExit(f"torture: the valid call {self.text(words)} failed: {said.err.decode()}")
            files: dict[str, bytes] = {}
            for result in call.results:
                files |= content(folder / result, folder)
            found.append(files)
        vary = [n for n in found[0] if found[0][n] != found[1].get(n)]
        if vary:
            print(f"torture: {call.name} does not write the same {', '.join(vary)} twice", flush=True)
        self.reference[call] = {n: b for n, b in found[0].items() if n not in vary}
        self.seconds[call] = said.seconds

    # Groups.

    def kill(self) -> None:
        """kill -9 at random moments, once or several times, then to the end: the results of an undisturbed call."""
        calls = [c for c in CALLS if c.long]
        while self.left():
            call = self.rng.choice(calls)
            self.undisturbed(call)
            folder, words = self.fresh(), self.words(call.words)
            delays = []
            for _ in range(self.rng.randint(1, 4)):
                process = self.start(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                delays.append(self.rng.uniform(0, 1.1 * self.seconds[call]))
                time.sleep(delays[-1])
                process.kill()
                process.wait()
            said = self.run(words)
            wrong = self.faults(said, words) + self.finished(call, folder, said, "after the kills")
            command = "; ".join(f"timeout -s KILL {d:.3f} {shlex.join(words)}" for d in delays) + "; " + self.text(words)
            self.count(said, wrong, command, self.copy_case(words))

    def finished(self, call: Call, folder: Path, said: Said, when: str) -> list[str]:
        """What is wrong with the last call, which had all it needs."""
        wrong = self.compared(call, folder, complete=True)
        # `classify` refuses a folder that an earlier call finished.
        if wrong and said.code not in SUCCESS:
            wrong = [f"the call {when} fails: {said.err.decode(errors='replace')[:300]!r}"]
        return wrong

    def copy_case(self, words: list[str]) -> Callable[[Path], str]:
        def keep(folder: Path) -> str:
            subprocess.run(["cp", "-a", self.case, folder / "o"], check=True)
            return self.text(words).replace(str(self.case), str(folder / "o"))

        return keep

    def signals(self) -> None:
        """SIGINT or SIGTERM at a random moment: 130 or 143, one line, no temporary files; the same call then finishes."""
        calls = [c for c in CALLS if c.long]
        while self.left():
            call = self.rng.choice(calls)
            self.undisturbed(call)
            folder, words = self.fresh(), self.words(call.words)
            name = self.rng.choice((signal.SIGINT, signal.SIGTERM))
            delay = self.rng.uniform(0, 1.1 * self.seconds[call])
            began = time.monotonic()
            process = self.start(words)
            time.sleep(delay)
            process.send_signal(name)
            said = self.end(process, began)
            # Before the handler is installed, the system ends the process; nothing is written by then.
            early = said.code == -name and not any(folder.iterdir())
            wrong = self.faults(said, words, (128 + name, -name) if early else (128 + name,)) + self.leftovers(folder)
            lines = [l for l in said.err.decode(errors="replace").splitlines() if not NOTE.search(l)]
            if said.code == 128 + name and len(lines) != 1:
                wrong.append(f"says {len(lines)} lines instead of one: {lines[:3]}")
            wrong += self.compared(call, folder, complete=said.code in SUCCESS)
            if not wrong:
                wrong = self.finished(call, folder, self.run(words), "after the signal")
            self.count(said, wrong, f"timeout -s {name.name} {delay:.3f} {self.text(words)}", self.copy_case(words))

    def disks(self) -> None:
        """A file system that is too small, and a largest file size: one line, nothing torn, and room heals it."""
        calls = [c for c in CALLS if c.results]
        own = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", self.place]
        mount = os.geteuid() == 0 and subprocess.run(own, capture_output=True).returncode == 0
        if not mount:
            self.groups[self.current].note = "file systems skipped: not root"
        while self.left():
            call = self.rng.choice(calls)
            self.undisturbed(call)
            need = sum(map(len, self.reference[call].values()))
            folder = self.fresh()
            if mount and self.rng.random() < 0.6:
                words = self.words(call.words)
                copy = self.place / "copy"
                size = self.rng.choice((4, need // 4096 * 2, 256)) * self.rng.uniform(0.3, 1.2) // 1
                nodes = self.rng.choice((0, 0, self.rng.randint(3, 12)))
                script = (
                    f"mount -t tmpfs -o size={max(4, int(size))}k,nr_inodes={nodes} tmpfs {folder} && "
                    f"{shlex.join(words)}; code=$?; cp -a {folder} {copy}; exit $code"
                )
                full = ["unshare", "-m", "sh", "-c", script]
            else:
                words = self.words(call.words)
                full = ["prlimit", f"--fsize={int(self.rng.choice((0, 512, 4096, need)) * self.rng.uniform(0.1, 1.2))}", *words]
            said = self.run(full)
            if full[0] == "unshare":
                folder.rmdir()
                copy.rename(folder)
            wrong = self.faults(said, words) + self.leftovers(folder) + self.compared(call, folder, complete=said.code in SUCCESS)
            if said.code in REFUSED and not wrong:
                wrong = self.finished(call, folder, self.run(words), "with room again")
            self.count(said, wrong, self.text(full))

    def closed(self) -> None:
        """Closed and full outputs, and a reader that ends early: no panic, and results are written all the same."""
        listed = re.findall(r"^  ([a-z]+)  ", self.run(self.words("--help")).out.decode(), re.M)
        for name in sorted(set(listed) - {c.name for c in CALLS}):
            self.count(Said(0, b"", b"", 0), [f"no case calls the command {name}"], f"mem2gen {name}")
        shut = ("1>&-", "2>&-", "1>&- 2>&-", "<&- 1>&- 2>&-", "1>/dev/full", "2>/dev/full", "1>/dev/full 2>/dev/full")
        ways = (*shut, "| head -1", "2>&1 | head -1", "| true", "2>&1 | true")
        for call, way in self.shuffled([(c, w) for c in CALLS if not c.long for w in ways]):
            self.undisturbed(call)
            folder, words = self.fresh(), self.words(call.words)
            full = ["bash", "-c", f"{shlex.join(words)} {way}; exit ${{PIPESTATUS[0]}}"]
            said = self.run(full)
            # Nobody may be there to read the message.
            wrong = [w for w in self.faults(said, words) if not w.endswith("without a message: ''")] + self.leftovers(folder)
            wrong += self.compared(call, folder, complete=True)
            if said.code in REFUSED and call.name != "doctor" and "full" not in way:
                wrong.append(f"fails: {said.err.decode(errors='replace')[:200]!r}")
            self.count(said, wrong, self.text(full))

    def shuffled(self, items: list) -> Iterator:
        self.rng.shuffle(items)
        for item in items:
            if not self.left():
                return
            yield item

    def memory(self) -> None:
        """An address space that is too small: one line, or the right result."""
        heavy = [
            Call("sample", "sample --run {w}/church -n 3000000 --sampler ddim --steps 1 --out {o}/S.npy"),
            Call("classify", "classify --run {w}/toy --samples 3000000 --out {o}/C"),
            Call("basin", "basin --run {w}/church --class training --delta 0.5 --perturbations 300000 --out {o}/T.parquet"),
            Call("curvature", "curvature --run {w}/church --class training --rows 100000 --out {o}/T.parquet"),
            Call("train", "train --dataset lsun-church --k 12 --arch unet --batch 12 --steps 1 --profile paper --run {o}/R"),
            Call("train", "train --dataset toy --k 1000 --width 20000 --steps 1 --profile smoke --run {o}/R"),
            Call("minima", "minima --memories {w}/D.npy --beta 2 --random-starts 30000000 --out {o}/T.parquet"),
            Call(
                "likelihood",
                "likelihood --run {w}/toy --queries {w}/P.npy --divergence hutchinson --probes 30000000 --out {o}/T.parquet",
            ),
        ]
        small = [c for c in CALLS if not c.long]
        while self.left():
            call = self.rng.choice(heavy if self.rng.random() < 0.35 else small)
            if call in small:
                self.undisturbed(call)
            # The loader needs half of the least to map the libraries.
            size = int(math.exp(self.rng.uniform(math.log(200), math.log(2000)))) << 20
            folder, words = self.fresh(), self.words(call.words)
            full = ["prlimit", f"--as={size}", *words]
            said = self.run(full, timeout=20 if call in heavy else HANG, stop=call in heavy)
            wrong = self.faults(said, words) + self.leftovers(folder)
            wrong += self.compared(call, folder, complete=said.code in SUCCESS) if call in small else []
            self.count(said, wrong, self.text(full))

    def damage(self) -> None:
        """Files with flipped, missing, moved and added bytes, wrong lengths and wrong values: refused in one line, or read."""
        read = "data export {f} --out {o}/D.npy"
        near = "knn --reference {f} --queries {f} -k 1 --out {o}/T.parquet"
        copies = "classify --train {f} --synthetic {w}/X.npy --any-range --out {o}/C"
        arrays = [
            near,
            copies,
            "energy --memories {f} --queries {w}/X.npy --beta 1 --out {o}/E.npy",
            "score --memories {w}/D.npy --queries {f} --sigma 1 --out {o}/S.npy",
        ]
        images = [
            read,
            near,
            "train --dataset {f} --arch mlp --width 4 --batch 1 --steps 2 --run {o}/R",
        ]
        pictures = [
            read,
            f"{read} --allow-skipped",
            near,
            "classify --train {w}/pictures --synthetic {f} --size 8 --out {o}/C",
            "train --dataset {f} --size 4 --arch mlp --width 4 --batch 1 --steps 2 --run {o}/R",
        ]
        plain = [
            *((f"D.{kind}", arrays) for kind in ("npy", "npz", "safetensors", "pt")),
            ("D.npy", ["minima --memories {f} --beta 1 --random-starts 9 --out {o}/T.parquet"]),
            *((f"I.{kind}", images) for kind in ("npy", "npz", "safetensors")),
            *((file.name, pictures) for file in sorted(FIXTURES.glob("picture*"))),
            *((file, pictures) for file in ("pictures/00.png", "set.zip")),
            *((file, [read, near]) for file in ("data_batch.pkl", "data_batch_1.bin", IDX, f"{IDX}.gz")),
            ("net.pth", [f"import {{f}} {NETWORK} --out {{o}}/R"]),
            ("claims.parquet", ["claims --table {f}"]),
            ("tiny.toml", [
                "sweep --plan {f} --dry-run",
                "sweep status --plan {f}",
                "sweep --plan {f} --runs {o}/cells",
                "sweep plan --plan {f} --slurm --out {o}/job.sh",
            ]),
            ("root/data/profiles/smoke.toml", ["train --dataset toy --k 9 --profile smoke --run {o}/R"]),
            ("train.json", ["train --config {f} --run {o}/R"]),
            ("pictures/00.png", ["data fetch lsun-church --from {d}"]),
        ]
        folders = [
            ("toy", ["sample --run {f} -n 40 --steps 50 --batch 8 --out {o}/S.npy"]),
            ("church", [
                f"basin --run {{f}} {BASIN}",
                "curvature --run {f} --class training --points {o}/P.parquet --out {o}/T.parquet",
                "classify --run {f} --samples 60 --delta-m 1 --delta-s 1 --out {o}/C",
                f"{NET} --steps 300 --checkpoint-every 100 --run {{f}}",
            ]),
            ("cells", [
                "sweep --plan {w}/tiny.toml --runs {f}",
                "sweep collect --plan {w}/tiny.toml --runs {f} --out {o}/tables",
                "sweep status --plan {w}/tiny.toml --runs {f}",
                "potential --run {f}/CELL --out {o}/T.parquet",
            ]),
            ("idx", ["data fetch mnist --from {f}"]),
            ("cifar", ["data fetch cifar10 --from {f}"]),
            ("cifar-py", ["data fetch cifar10 --from {f}"]),
            ("parts", [words.replace("{o}", "{f}") for words in PARTS]),
        ]
        others = [p for p in below(self.world) if p.is_file() and p.stat().st_size < 1 << 20]
        bodies = {p: p.read_bytes() for p in others}
        whole: dict[str, dict[str, bytes]] = {}
        cell = next(p.name for p in sorted((self.world / "cells").iterdir()) if (p / "train").is_dir())
        while self.left():
            rng = random.Random(self.rng.getrandbits(64))
            name, templates = rng.choice(folders if rng.random() < 0.4 else plain)
            template = rng.choice(templates).replace("CELL", cell)
            state = rng.getstate()

            def make(place: Path) -> Path:
                """The damaged file or folder at a place; the same damage each time."""
                rng.setstate(state)
                origin = self.world / name
                plan = origin.suffix == ".toml"
                target = place / name.removeprefix("root/")
                target.parent.mkdir(parents=True, exist_ok=True)
                other = bodies[rng.choice(others)]
                if origin.is_file():
                    body = bodies[origin]
                    target.write_bytes(damaged_plan(body, rng) if plan else damaged(body, other, rng))
                    if origin.suffix == ".parquet" and (self.world / (origin.stem + ".json")).exists():
                        shutil.copy(self.world / (origin.stem + ".json"), place)
                    return target
                shutil.copytree(origin, target)
                files = [p for p in below(target) if p.is_file() and p.name != "lock"]
                chosen = rng.choice(files)
                if rng.random() < 0.1:
                    chosen.unlink()
                else:
                    chosen.write_bytes(damaged(chosen.read_bytes(), other, rng))
                return target

            def call(place: Path, make: Callable[[Path], Path]) -> list[str]:
                """Makes the input at a place and gives the call that reads it and writes beside it."""
                (place / "out").mkdir(parents=True)
                target = make(place / "in")
                root = ["env", f"MEM2GEN_ROOT={place / 'in'}"] if name.startswith("root/") else []
                text = template.replace("{f}", str(target)).replace("{d}", str(target.parent))
                return root + self.words(text, place / "out")

            def intact(place: Path) -> Path:
                return Path(shutil.copytree(self.world / name, place / name))

            plan = name.endswith(".toml")
            folder = self.fresh()
            words = call(folder, make)
            # A changed plan may be a valid one of years.
            said = self.run(words, timeout=20 if plan else HANG, stop=plan)
            wrong = self.faults(said, words) + self.leftovers(folder)
            if said.code in SUCCESS:
                bad = not_finite(folder / "out")
                wrong += [bad] if bad else []
            if said.code in SUCCESS and (self.world / name).is_dir():
                # What is recorded is verified: the damage was healed, or it is in nothing that the call reads.
                if template not in whole:
                    place = self.place / "whole"
                    shutil.rmtree(place, ignore_errors=True)
                    self.run(call(place, intact))
                    whole[template] = content(place, place)
                got, want = content(folder, folder), whole[template]
                # The records of a finished step are read by the steps that need them.
                wrote = [n for n in want if n.startswith("out/")]
                if template.startswith(WRITES):
                    wrote += [n for n in want if RESULT.search(n) and ".partial/" not in n]
                wrong += [f"succeeds with another {n} than from intact files" for n in sorted(wrote) if got.get(n) != want[n]][:1]
            if said.code in SUCCESS and "--from" in template:
                # The set that was accepted took the place of the good one.
                shutil.rmtree(self.world / "root" / "data" / "cache")
                self.run(self.words("data fetch lsun-church --from {w}/large"))
            self.count(said, wrong, self.text(words), lambda place: self.text(call(place, make)))

    def together(self) -> None:
        """Two to four processes on one folder: the results of one, or clear refusals."""
        calls = [c for c in CALLS if c.results]
        while self.left():
            call = self.rng.choice(calls)
            self.undisturbed(call)
            folder, words = self.fresh(), self.words(call.words)
            began = time.monotonic()
            processes = []
            for _ in range(self.rng.randint(2, 4)):
                processes.append(self.start(words))
                time.sleep(self.rng.choice((0, 0, self.rng.uniform(0, self.seconds[call]))))
            said = [self.end(p, began, 2 * HANG) for p in processes]
            wrong = [w for s in said for w in self.faults(s, words)] + self.leftovers(folder)
            done = any(s.code in SUCCESS for s in said)
            if not done:
                wrong.append(f"no process finished: {said[0].err.decode(errors='replace')[:200]!r}")
            wrong += self.compared(call, folder, complete=done)
            command = " & ".join([self.text(words)] * len(processes)) + " & wait"
            self.count(next((s for s in said if s.code in REFUSED), said[0]), wrong, command)

    def options(self, name: list[str]) -> list[str]:
        """The options of a command that take a value which is not a path."""
        text = self.run(self.words([*name, "--help"])).out.decode()
        found = re.findall(r"^\s+(?:(-\w), )?(--[\w-]+|-\w) <([^>]+)>", text, re.M)
        path = re.compile(r"npy|parquet|DIR|FILE|PATH|IMAGES|png")
        return [long for _, long, value in found if not path.search(value)]

    def counts(self) -> None:
        """Extreme values of every option with a value: one line that names the option, or success."""
        values = ("0", "-1", "1", "18446744073709551615", "1e12", "1e308", "nan", "inf", "", "x")
        bases: dict[tuple[str, ...], Call] = {}
        for call in CALLS:
            words = call.words.split()
            head = tuple(words[: 2 if words[0] in ("data", "sweep") and not words[1].startswith("-") else 1])
            if not call.long:
                bases.setdefault(head, call)
        bases.pop(("help",))
        options = [(call, option) for head, call in bases.items() for option in self.options(list(head))]
        for call, option, value in self.shuffled([(*o, value) for o in options for value in values]):
            folder = self.fresh()
            words = call.words.split()
            if option in words:
                del words[words.index(option) : words.index(option) + 2]
            words = self.words([*words, f"{option}={value}" if option.startswith("--") else option + value])
            full = ["prlimit", f"--as={4 << 30}", *words]
            said = self.run(full, timeout=20, stop=True)
            wrong = self.faults(said, words) + self.leftovers(folder)
            name = option.lstrip("-")
            text = said.err.decode(errors="replace")
            # The option, its value, data that the option needs, or another option that it needs.
            given = re.escape(value or "''")
            named = rf"{name.replace('-', '[ _-]')}|(?<!\w){given}(?!\w)|diverged|data/cache|arguments were not provided: --"
            # With 1 it is a setting that does not fit the others.
            if said.code in REFUSED and not wrong and value != "1" and not re.search(named, text):
                wrong.append(f"the message does not name {option}: {text.strip()[:200]!r}")
            if said.code in SUCCESS:
                for result in call.results:
                    bad = not_finite(folder / result)
                    wrong += [bad] if bad else []
            self.count(said, wrong, self.text(full))

    def paths(self) -> None:
        """Results written to folders, links, devices, pipes, places without rights, and under odd names."""
        def link(to: str) -> Callable[[Path], None]:
            return lambda at: at.symlink_to(to)

        def device(name: str, minor: int) -> Callable[[Path], None]:
            def make(at: Path) -> None:
                # Root could replace a device of the system.
                if os.geteuid() == 0:
                    os.mknod(at.parent / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
                at.symlink_to(name if os.geteuid() == 0 else f"/dev/{name}")

            return make

        def chain(at: Path) -> None:
            (at.parent / "there").mkdir()
            (at.parent / "second").symlink_to("there/third")
            at.symlink_to("second")

        def denied(at: Path) -> None:
            at.parent.chmod(0o555)

        def full(at: Path) -> None:
            at.mkdir()
            (at / "mine").write_text("mine")

        ways: dict[str, Callable[[Path], None]] = {
            "a folder": lambda at: at.mkdir(),
            "a folder with a file": full,
            "a file": lambda at: at.write_text("mine"),
            "a relative link": link("there"),
            "a dangling link": link("no/where"),
            "a link to itself": link("at"),
            "a chain": chain,
            "a device": device("null", 3),
            "a full device": device("full", 7),
            "a pipe": lambda at: os.mkfifo(at),
            "a folder without rights": denied,
        }
        names = {
            "spaces": "a b  c",
            "a newline": "a\nb",
            "an escape": "a\x1b[31mb",
            "bytes that are not UTF-8": os.fsdecode(b"a\xff\xfeb"),
            "255 bytes": "n" * 255,
            "256 bytes": "n" * 256,
            "a long path": "/".join(["d" * 200] * 30),
            "a dash": "-",
            "nothing": "",
            "a dot": ".",
            "two dots": "..",
            "a slash": "x/",
            "a missing folder": "x/y/z",
            "below a file": "file/x",
        }
        calls = [c for c in CALLS if c.results and not c.long]
        cases = [(c, w, None) for c in calls for w in ways] + [(c, "named", n) for c in calls for n in names]
        for call, way, name in self.shuffled(cases):
            folder = self.fresh()
            inside = folder / "in"
            inside.mkdir()
            (inside / "file").write_text("mine")
            result = "{o}/" + call.results[0]
            text = call.words.split()
            at = inside / "at"
            given = str(at)
            if name is not None:
                given = names[name] if names[name] in ("", "-", ".", "..") else f"{inside}/{names[name]}"
            else:
                ways[way](at)
            before = self.tree(inside)
            words = self.words([given if w.rstrip("/") == result else w for w in text])
            said = self.run(words, cwd=inside)
            wrong = self.faults(said, words) + self.leftovers(folder)
            after = self.tree(inside)
            inside.chmod(0o755)
            if said.code in REFUSED and way != "a folder":
                lost = [n for n in before if after.get(n) != before[n]]
                if lost:
                    wrong.append(f"refused, but {lost[0]} changed from {before[lost[0]]} to {after.get(lost[0])}")
                files = [n for n in after.keys() - before.keys() if after[n][0] == "file"]
                new = sorted(n for n in files if ".partial/" not in n and not n.endswith("lock"))
                if new and call.name not in ("train", "sweep"):
                    wrong.append(f"refused, but {new[0]!r} was written")
            if said.code in SUCCESS:
                gone = [n for n in before if before[n][0] in ("link", "pipe", "device") and after.get(n, ("",))[0] != before[n][0]]
                if gone:
                    wrong.append(f"{gone[0]} was a {before[gone[0]][0]} and is one no more")
            where = f"cd {shlex.quote(str(inside))}; "
            self.count(said, [f"{w} (--out is {name or way})" for w in wrong], where + self.text(words), self.copy_case(words))

    @staticmethod
    def tree(folder: Path) -> dict[str, tuple]:
        found = {}
        for path in below(folder):
            mode = path.lstat().st_mode
            name = str(path.relative_to(folder))
            if stat.S_ISLNK(mode):
                found[name] = ("link", os.readlink(path))
            elif stat.S_ISFIFO(mode):
                found[name] = ("pipe",)
            elif stat.S_ISREG(mode):
                found[name] = ("file", path.read_bytes()[:64])
            else:
                found[name] = ("folder" if stat.S_ISDIR(mode) else "device",)
        return found


# Group, its share of the time. Groups with a list of cases leave what they do not need to the others, so these come last.
GROUPS = dict(closed=10, counts=15, paths=8, memory=10, signals=8, disks=10, together=8, kill=11, damage=20)


def table(torture: Torture) -> str:
    lines = ["| group | tried | accepted | refused | bad |", "|---|---|---|---|---|"]
    for name, g in torture.groups.items():
        note = f" ({g.note})" if g.note else ""
        lines.append(f"| {name}{note} | {g.tried} | {g.accepted} | {g.refused} | {g.bad} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=Path, default=BINARY, help="program that is attacked")
    parser.add_argument("--seconds", type=float, default=300, help="time of all groups together")
    parser.add_argument("--seed", type=int, default=None, help="seed of the cases; a random one without it")
    parser.add_argument("--groups", default=",".join(GROUPS), help="groups that are run, separated by commas")
    parser.add_argument("--update", action="store_true", help="write the table in docs/reliability.md too")
    args = parser.parse_args()
    chosen = args.groups.split(",")
    unknown = [name for name in chosen if name not in GROUPS]
    if unknown:
        parser.error(f"--groups: {unknown[0]} is not a group, expected some of {','.join(GROUPS)}")
    if not args.program.is_file():
        parser.error(f"--program: {args.program} is not a file; run make build")
    seed = random.SystemRandom().randrange(1 << 32) if args.seed is None else args.seed
    print(f"torture: seed {seed}, {args.seconds:g} seconds, {args.program}", flush=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture-", ignore_cleanup_errors=True) as name:
        torture = Torture(args.program.resolve(), seed, Path(name))
        torture.prepare()
        for i, group in enumerate(chosen):
            left = args.seconds - (time.monotonic() - began)
            share = GROUPS[group] / sum(GROUPS[g] for g in chosen[i:])
            torture.current, torture.groups[group] = group, Group()
            # The cases of a group do not depend on how many the groups before it reached.
            torture.rng = random.Random(f"{seed} {group}")
            torture.deadline = time.monotonic() + max(0.0, left) * share
            getattr(torture, group)()
            g = torture.groups[group]
            print(f"torture: {group}: {g.tried} tried, {g.accepted} accepted, {g.refused} refused, {g.bad} bad", flush=True)
    text = table(torture)
    print(text)
    for (group, name, fault), times in torture.reported.most_common():
        print(f"{times} x {group}, {name}: {fault}")
    if args.update:
        about = f"Seed {seed}, {(time.monotonic() - began) / 60:.0f} minutes on {os.cpu_count()} cores."
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{about}\n\n{text}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")
    return int(any(g.bad for g in torture.groups.values()))


if __name__ == "__main__":
    sys.exit(main())
