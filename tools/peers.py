#!/usr/bin/env python3
"""Times the fused operations and other libraries that do the same work, on arrays of the same shapes.

    make bench-peers            prints the table, writes out/bench-peers.md and out/bench-peers.json
    make bench-peers UPDATE=1   writes docs/peers.md too

Every measurement is a process of its own: `timings operation` for mem2gen, this file with `worker` for a peer. They
take turns, and a ratio is the median over the rounds of the peer's time divided by that of mem2gen. A peer runs at the
fastest of the settings listed for it; one run of each finds it. Before anything is timed, mem2gen and every peer compute
a small case, and the results are compared with numpy in double precision. This process uses the standard library only.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARY = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "mem2gen"
TIMINGS = BINARY.with_name("timings")
THREADS = 2
K = 6


@dataclass(frozen=True)
class Sizes:
    queries: int
    memories: int
    dim: int

    def __str__(self) -> str:
        return f"{self.queries} x {self.memories} x {self.dim}"


@dataclass(frozen=True)
class Operation:
    name: str
    sizes: Sizes
    # Sizes of the small case, which numpy computes in double precision.
    check: Sizes
    # Largest allowed error against numpy in double precision, of mem2gen and of a peer.
    tolerance: tuple[float, float]


OPERATIONS = {
    o.name: o
    for o in (
        Operation("knn", Sizes(4096, 60000, 784), Sizes(64, 3000, 784), (1e-12, 1e-3)),
        Operation("score", Sizes(1024, 60000, 784), Sizes(64, 3000, 784), (1e-5, 1e-3)),
        Operation("energy", Sizes(100000, 1000, 2), Sizes(500, 700, 2), (1e-5, 1e-3)),
    )
}

# OpenBLAS ignores a name that it does not know and a core type whose instructions the processor lacks.
CORES = ("", "Haswell", "SkylakeX", "Cooperlake", "SapphireRapids", "Zen")


@dataclass(frozen=True)
class Setting:
    """One way to run a peer: a word for the worker and environment variables."""

    way: str
    env: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return " ".join([self.way, *(f"{k}={v}" for k, v in self.env if v)])


def with_cores(*ways: str) -> tuple[Setting, ...]:
    # The default, each of the core types, and the one that the environment names.
    set_already = () if "OPENBLAS_CORETYPE" not in os.environ else (os.environ["OPENBLAS_CORETYPE"],)
    cores = dict.fromkeys([*CORES, *set_already])
    return tuple(Setting(way, (("OPENBLAS_CORETYPE", core),)) for way in ways for core in cores)


@dataclass(frozen=True)
class Peer:
    name: str
    package: str
    operation: str
    settings: tuple[Setting, ...]
    # Target for the ratio of times, and for the share of the peer's extra memory.
    bar: float
    memory_bar: float | None = None


PEERS = (
    # Blocks of 1024 memories are faiss's default.
    Peer("faiss IndexFlatL2", "faiss-cpu", "knn", with_cores("block-1024", "block-8192"), 1.5),
    Peer("scikit-learn brute", "scikit-learn", "knn", with_cores("brute"), 3.0),
    Peer("PyTorch", "torch", "score", (Setting("cdist"), Setting("expansion")), 1.4, 0.1),
    Peer("PyTorch", "torch", "energy", (Setting("cdist"), Setting("cdist-direct"), Setting("expansion")), 3.0),
    Peer("KeOps", "pykeops", "energy", (Setting("default"), Setting("native")), 1.5),
)


# The worker.


def draw(sizes: Sizes):
    import numpy as np

    rng = np.random.default_rng(1)
    normal = lambda rows: rng.standard_normal((rows, sizes.dim), dtype=np.float32)
    return normal(sizes.memories), normal(sizes.queries)


def beta_of(dim: int) -> float:
    """As in `timings operation`."""
    return 0.5 / dim


def faiss_knn(memories, queries, way):
    import faiss

    faiss.omp_set_num_threads(THREADS)
    faiss.cvar.distance_compute_blas_database_bs = int(way.removeprefix("block-"))
    index = faiss.IndexFlatL2(memories.shape[1])
    index.add(memories)
    return lambda: index.search(queries, K)[1]


def sklearn_knn(memories, queries, way):
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=K, algorithm=way).fit(memories)
    return lambda: index.kneighbors(queries)[1]


def torch_logits(memories, queries, way):
    """-beta ||x - xi||^2, up to a term that is the same for all memories of a query."""
    import torch

    torch.set_num_threads(THREADS)
    y, x = torch.from_numpy(memories), torch.from_numpy(queries)
    beta = beta_of(y.shape[1])
    mode = "donot_use_mm_for_euclid_dist" if way == "cdist-direct" else "use_mm_for_euclid_dist_if_necessary"

    def logits():
        if way == "expansion":
            return torch.addmm((-beta * y.square().sum(1))[None, :], x, y.T, alpha=2 * beta)
        return torch.cdist(x, y, compute_mode=mode).square_().mul_(-beta)

    return torch, x, y, beta, logits


def torch_score(memories, queries, way):
    torch, x, y, beta, logits = torch_logits(memories, queries, way)
    return lambda: ((torch.softmax(logits(), 1) @ y - x) * (2 * beta)).numpy()


def torch_energy(memories, queries, way):
    torch, x, _, beta, logits = torch_logits(memories, queries, way)

    def run():
        energy = torch.logsumexp(logits(), 1) / -beta
        return (energy + x.square().sum(1) if way == "expansion" else energy).numpy()

    return run


def keops_energy(memories, queries, way):
    # KeOps compiles a formula on its first use and keeps it in this folder.
    folder = ROOT / ".mem2gen" / "cache" / f"keops-{way}"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["KEOPS_CACHE_FOLDER"] = str(folder)
    if way == "native":
        os.environ["CXXFLAGS"] = "-march=native -ffast-math"
    import pykeops
    from pykeops.numpy import LazyTensor

    pykeops.set_verbose(False)
    beta = beta_of(memories.shape[1])
    x, y = LazyTensor(queries[:, None, :]), LazyTensor(memories[None, :, :])
    return lambda: (-beta * ((x - y) ** 2).sum(-1)).logsumexp(1).ravel() / -beta


WORK = {
    ("faiss-cpu", "knn"): faiss_knn,
    ("scikit-learn", "knn"): sklearn_knn,
    ("torch", "score"): torch_score,
    ("torch", "energy"): torch_energy,
    ("pykeops", "energy"): keops_energy,
}


def peak_memory() -> int:
    """Peak memory of the process so far, in bytes."""
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


def worker_time(package: str, operation: str, way: str, repeat: int, sizes: Sizes) -> dict:
    """The same protocol as `timings operation`: one run before the timed ones; memory of preparation and one run."""
    memories, queries = draw(sizes)
    # A tiny case first: imports, compilation and warm-up do not count.
    WORK[package, operation](memories[:64], queries[:8], way)()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass
    before, began = peak_memory(), time.perf_counter()
    run = WORK[package, operation](memories, queries, way)
    prepare = time.perf_counter() - began
    run()
    peak = peak_memory() - before
    seconds = []
    for _ in range(repeat):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return {"prepare_seconds": prepare, "median_seconds": statistics.median(seconds), "peak_bytes": peak}


def worker_data(folder: Path, operation: str) -> dict:
    """The small case, as files."""
    import numpy as np

    memories, queries = draw(OPERATIONS[operation].check)
    np.save(folder / "M.npy", memories)
    np.save(folder / "X.npy", queries)
    return {}


def worker_check(package: str, operation: str, way: str, folder: Path) -> dict:
    """The error of a peer's small case, or of that of mem2gen (package "mem2gen"), which is computed before."""
    import numpy as np

    memories, queries = np.load(folder / "M.npy"), np.load(folder / "X.npy")
    y, x = memories.astype(np.float64), queries.astype(np.float64)
    beta = beta_of(y.shape[1])
    squared = np.stack([((row - y) ** 2).sum(1) for row in x])
    if package != "mem2gen":
        got = WORK[package, operation](memories, queries, way)()
    elif operation == "knn":
        import pyarrow.parquet

        got = pyarrow.parquet.read_table(folder / "out")["index"].to_numpy().reshape(len(x), K)
    else:
        got = np.load(folder / "out")
    if operation == "knn":
        # Relative difference between the distances of the r-th neighbour found and of the true r-th neighbour.
        found = np.sqrt(np.take_along_axis(squared, got, 1))
        exact = np.sqrt(np.sort(squared, 1)[:, :K])
        return {"error": float((np.abs(found - exact) / exact).max())}
    weights = np.exp(-beta * (squared - squared.min(1, keepdims=True)))
    if operation == "energy":
        exact = squared.min(1) - np.log(weights.sum(1)) / beta
    else:
        exact = (weights @ y / weights.sum(1, keepdims=True) - x) * (2 * beta)
    if got.shape != exact.shape:
        return {"error": math.inf}
    return {"error": float(np.abs(got - exact).max() / np.abs(exact).max())}


def worker(words: list[str]) -> dict:
    match words:
        case ["time", package, operation, way, repeat, *sizes]:
            return worker_time(package, operation, way, int(repeat), Sizes(*map(int, sizes)))
        case ["data", folder, operation]:
            return worker_data(Path(folder), operation)
        case ["check", package, operation, way, folder]:
            return worker_check(package, operation, way, Path(folder))
    raise SystemExit(f"peers.py worker: unknown arguments {words}, expected time, data or check and theirs")


# The main process.


class Failed(Exception):
    """The reason why a measurement failed, in one line."""


def call(command: list, env: tuple[tuple[str, str], ...] = ()) -> str:
    threads = {n: str(THREADS) for n in ("RAYON", "OMP", "OPENBLAS", "MKL", "NUMEXPR")}
    full = os.environ | {f"{n}_NUM_THREADS": count for n, count in threads.items()} | dict(env)
    # An empty value unsets the variable.
    full = {name: value for name, value in full.items() if value != ""}
    try:
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=full, timeout=900)
    except subprocess.TimeoutExpired:
        raise Failed("took more than 15 minutes") from None
    if done.returncode != 0:
        lines = [l.strip() for l in done.stderr.splitlines() if l.strip()]
        raise Failed(lines[-1] if lines else f"status {done.returncode}")
    return done.stdout


def ask(words: list, env: tuple[tuple[str, str], ...] = ()) -> dict:
    # Libraries may print before the answer.
    return json.loads(call([sys.executable, __file__, "worker", *words], env).splitlines()[-1])


def ours(operation: str, sizes: Sizes, repeat: int) -> dict:
    size = ["--queries", sizes.queries, "--memories", sizes.memories, "--dim", sizes.dim, "-k", K]
    return json.loads(call([TIMINGS, "operation", operation, *size, "--repeat", repeat]))


def time_peer(peer: Peer, setting: Setting, repeat: int) -> dict:
    sizes = OPERATIONS[peer.operation].sizes
    words = ["time", peer.package, peer.operation, setting.way, repeat, sizes.queries, sizes.memories, sizes.dim]
    return ask(words, setting.env)


def compute_ours(operation: str, folder: Path) -> None:
    dim = OPERATIONS[operation].check.dim
    rows = "--reference" if operation == "knn" else "--memories"
    option, value = {
        "knn": ("-k", K),
        "score": ("--sigma", math.sqrt(dim)),
        "energy": ("--beta", beta_of(dim)),
    }[operation]
    files = [rows, folder / "M.npy", "--queries", folder / "X.npy"]
    call([BINARY, operation, *files, option, value, "--out", folder / "out"])


def check(peers: dict[Peer, Setting]) -> dict[str, float]:
    """The largest errors of the small cases; raises where one is too large."""
    errors = {}
    for operation in OPERATIONS.values():
        with tempfile.TemporaryDirectory(prefix="mem2gen-peers-") as scratch:
            folder = Path(scratch)
            ask(["data", folder, operation.name])
            compute_ours(operation.name, folder)
            asked = [("mem2gen", "-", "mem2gen", (), operation.tolerance[0])]
            for peer, setting in peers.items():
                if peer.operation == operation.name:
                    asked.append((peer.package, setting.way, peer.name, setting.env, operation.tolerance[1]))
            for package, way, name, env, tolerance in asked:
                error = ask(["check", package, operation.name, way, folder], env)["error"]
                errors[f"{operation.name}, {name}"] = error
                if not error <= tolerance:
                    raise Failed(f"{operation.name} by {name} has an error of {error:.1e}, expected at most {tolerance:g}")
    return errors


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def best_setting(peer: Peer, missing: dict[str, str]) -> tuple[Setting, dict[str, float]] | None:
    """The fastest setting and the seconds of all settings; None, with the reason in `missing`, when no setting works."""
    try:
        importlib.metadata.version(peer.package)
    except importlib.metadata.PackageNotFoundError:
        missing[peer.package] = missing.get(peer.package, "not installed")
        return None
    seconds: dict[Setting, float] = {}
    reason = ""
    for setting in peer.settings:
        try:
            seconds[setting] = time_peer(peer, setting, 1)["median_seconds"]
            say(f"  {peer.operation}, {peer.name}, {setting}: {seconds[setting]:.3f} s")
        except Failed as e:
            reason = str(e)
            say(f"  {peer.operation}, {peer.name}, {setting}: {reason}")
    if not seconds:
        missing[peer.package] = reason
        return None
    return min(seconds, key=seconds.get), {str(s): t for s, t in seconds.items()}


def limits() -> dict[str, float]:
    """Measured peak rates of the processor: operations, exponentials and bytes per second."""
    products = [ours("gemm", s, 5)["gflops"] for s in (Sizes(1024, 60000, 784), Sizes(2048, 2048, 2048))]
    return {
        "flops": 1e9 * max(products),
        "exps": 1e9 * ours("exp", Sizes(100000, 1000, 1), 5)["gexps"],
        # Larger than every cache.
        "bytes": 1e9 * ours("sum", Sizes(1, 600000, 784), 5)["gbytes_per_second"],
    }


def least_seconds(operation: Operation, most: dict[str, float]) -> tuple[str, float]:
    """The resource that limits the operation, and the least seconds that it allows."""
    s = operation.sizes
    pairs = s.queries * s.memories
    numbers = (s.queries + s.memories) * s.dim + s.queries * (s.dim if operation.name == "score" else 1)
    seconds = {
        "matrix products": 2 * pairs * s.dim * (2 if operation.name == "score" else 1) / most["flops"],
        "exponentials": (0 if operation.name == "knn" else pairs) / most["exps"],
        "memory, everything touched once": 4 * numbers / most["bytes"],
    }
    # The engine does not use a matrix product in few dimensions, but the operations count the same.
    name = max(seconds, key=seconds.get)
    return name, seconds[name]


def rounds(count: int, repeat: int, peers: dict[Peer, Setting]) -> tuple[dict[str, list[dict]], dict[Peer, list[dict]]]:
    """Times of mem2gen and the peers in turns, and of two plain matrix products of the score's size."""
    own: dict[str, list[dict]] = {name: [] for name in [*OPERATIONS, "gemm"]}
    theirs: dict[Peer, list[dict]] = {peer: [] for peer in peers}
    for turn in range(count):
        for operation in OPERATIONS.values():
            say(f"  round {turn + 1} of {count}, {operation.name}")
            own[operation.name].append(ours(operation.name, operation.sizes, repeat))
            if operation.name == "score":
                own["gemm"].append(ours("gemm", operation.sizes, repeat))
            for peer, setting in peers.items():
                if peer.operation == operation.name:
                    theirs[peer].append(time_peer(peer, setting, repeat))
    return own, theirs


def median(measured: list[dict], *keys: str) -> float:
    return statistics.median(sum(one[key] for key in keys) for one in measured)


def ratio(ours: list[dict], theirs: list[dict], *keys: str) -> float:
    return statistics.median(
        sum(b[key] for key in keys) / sum(a[key] for key in keys) for a, b in zip(ours, theirs, strict=True)
    )


def verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def megabytes(measured: list[dict]) -> str:
    return f"{median(measured, 'peak_bytes') / 1e6:.0f} MB"


def table(result: dict) -> str:
    lines = [
        "# Operations compared with other libraries",
        "",
        "Written by `make bench-peers UPDATE=1`; `tools/peers.py` describes the method. Single precision, random "
        "Gaussian data,",
        f"{THREADS} threads for all. Times are medians of {result['rounds']} rounds in which mem2gen and its peers "
        "take turns.",
        "",
        f"{result['machine']}; load average before the start {result['load']:.2f}.",
        "",
        "| operation | queries x memories x dimensions | mem2gen | peer | fastest setting | peer's time | ratio "
        "| with preparation | target | largest possible ratio | extra memory, mem2gen and peer |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["peers"]:
        head = f"| {row['operation']} | {row['sizes']} | {row['ours_seconds']:.3f} s | {row['peer']} "
        if "missing" in row:
            lines.append(f"{head}| not measured: {row['missing']} | | | | {row['bar']:g} | | |")
            continue
        bar = f"{row['bar']:g}: {verdict(row['met'])}"
        memory = f"{row['ours_memory']}, {row['peer_memory']}"
        if row["memory_bar"] is not None:
            memory += f"; share {row['memory_share']:.2f}, target {row['memory_bar']:g}: {verdict(row['memory_met'])}"
        lines.append(
            f"{head}| {row['setting']} | {row['peer_seconds']:.3f} s | {row['ratio']:.2f} | {row['whole_ratio']:.2f} "
            f"| {bar} | {row['most']:.2f} | {memory} |"
        )
    lines += [
        "",
        "A ratio is the peer's time divided by the time of mem2gen. \"With preparation\" includes the work before the "
        "first query",
        "(checks and norms of the memories, an index). The smaller of the two ratios must reach the target. Extra memory "
        "is what",
        "preparation and one run need beyond the inputs, including the result. The largest possible ratio is the peer's "
        "time",
        "divided by the least time of the next table: no program in this precision could exceed it on this machine.",
        "",
        "## Limits of the processor",
        "",
        f"Measured in the same session: {result['limits']['flops'] / 1e9:.0f} GFLOP/s in matrix products, "
        f"{result['limits']['exps'] / 1e9:.2f} billion exponentials per second,",
        f"{result['limits']['bytes'] / 1e9:.1f} GB/s read from memory.",
        "",
        "| operation | mem2gen | limited by | least time | share of the limit |",
        "|---|---|---|---|---|",
    ]
    for row in result["reached"]:
        lines.append(
            f"| {row['operation']} | {row['seconds']:.3f} s | {row['binds']} | {row['least_seconds']:.3f} s "
            f"| {row['share']:.0%} |"
        )
    gemm = result["gemm"]
    lines += [
        "",
        f"Two plain matrix products of the score's size take {gemm['seconds']:.3f} s with the same gemm. The score "
        f"reaches {gemm['share']:.0%} of",
        f"their speed (target 80%: {verdict(gemm['share'] >= 0.8)}).",
        "",
        "## Settings tried",
        "",
        *(
            f"- {row['operation']}, {row['peer']}: " + ", ".join(f"{s} {t:.3f} s" for s, t in row["tried"].items())
            for row in result["peers"]
            if "tried" in row
        ),
        "",
        "## Agreement",
        "",
        "Largest relative error of a small case against numpy in double precision: "
        + ", ".join(f"{name} {error:.1e}" for name, error in result["errors"].items())
        + ".",
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in result["versions"].items()) + ".",
        "",
    ]
    return "\n".join(lines)


def machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(l.split(":", 1)[1].strip() for l in lines if l.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores"


def measure(count: int, repeat: int, failed: Path) -> dict:
    load = os.getloadavg()[0]
    if load > 0.3:
        say(f"bench-peers: load average {load:.1f}: other programs are running, so the times below are not reliable")
    # Packages that set-up could not install, one line each: `package: reason`.
    refused = failed.read_text(encoding="utf-8").splitlines() if failed.exists() else []
    missing = {line.split("==")[0]: line.split(": ", 1)[1] for line in refused if ": " in line}
    say("bench-peers: settings")
    found = {peer: best_setting(peer, missing) for peer in PEERS}
    peers = {peer: best[0] for peer, best in found.items() if best}
    say("bench-peers: agreement")
    errors = check(peers)
    say("bench-peers: limits")
    most = limits()
    say("bench-peers: timing")
    own, theirs = rounds(count, repeat, peers)
    rows = []
    for peer in PEERS:
        mine = own[peer.operation]
        row = {
            "operation": peer.operation,
            "sizes": str(OPERATIONS[peer.operation].sizes),
            "ours_seconds": median(mine, "median_seconds"),
            "peer": peer.name,
            "bar": peer.bar,
        }
        if peer not in peers:
            rows.append(row | {"missing": missing[peer.package]})
            continue
        plain = ratio(mine, theirs[peer], "median_seconds")
        whole = ratio(mine, theirs[peer], "prepare_seconds", "median_seconds")
        share = 1 / ratio(mine, theirs[peer], "peak_bytes")
        rows.append(
            row
            | {
                "setting": str(peers[peer]),
                "peer_seconds": median(theirs[peer], "median_seconds"),
                "ratio": plain,
                "whole_ratio": whole,
                "most": median(theirs[peer], "median_seconds") / least_seconds(OPERATIONS[peer.operation], most)[1],
                "met": min(plain, whole) >= peer.bar,
                "ours_memory": megabytes(mine),
                "peer_memory": megabytes(theirs[peer]),
                "memory_share": share,
                "memory_bar": peer.memory_bar,
                "memory_met": peer.memory_bar is None or share < peer.memory_bar,
                "tried": found[peer][1],
                "measured": theirs[peer],
            }
        )
    reached = []
    for operation in OPERATIONS.values():
        binds, least = least_seconds(operation, most)
        seconds = median(own[operation.name], "median_seconds")
        reached.append(
            {
                "operation": operation.name,
                "seconds": seconds,
                "binds": binds,
                "least_seconds": least,
                "share": least / seconds,
            }
        )
    packages = {peer.package for peer in peers} | {"numpy"}
    return {
        "machine": machine(),
        "load": load,
        "threads": THREADS,
        "rounds": count,
        "repeat": repeat,
        "peers": rows,
        "limits": most,
        "reached": reached,
        "gemm": {
            "seconds": median(own["gemm"], "median_seconds"),
            "share": ratio(own["score"], own["gemm"], "median_seconds"),
        },
        "errors": errors,
        "versions": {package: importlib.metadata.version(package) for package in sorted(packages)},
        "ours": own,
    }


def report(name: str, measured: Callable[[], dict], table: Callable[[dict], str], page: str | bool) -> int:
    """Measures, prints the table, and writes out/NAME.json, out/NAME.md and, if a page is named, docs/PAGE."""
    try:
        result = measured()
    except Failed as e:
        print(f"{name}: {e}", file=sys.stderr)
        return 1
    text = table(result)
    print(text)
    out = ROOT / "out"
    out.mkdir(exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (out / f"{name}.md").write_text(text, encoding="utf-8")
    if page:
        (ROOT / "docs" / page).write_text(text, encoding="utf-8")
    return 0


def main() -> int:
    if sys.argv[1:2] == ["worker"]:
        print(json.dumps(worker(sys.argv[2:])))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds")
    parser.add_argument("--repeat", type=int, default=3, help="timed runs in a round, of which the median counts")
    parser.add_argument("--failed", type=Path, default=Path(sys.prefix) / "failed", help="packages that set-up could not install")
    parser.add_argument("--update", action="store_true", help="write docs/peers.md too")
    args = parser.parse_args()
    return report("bench-peers", lambda: measure(args.rounds, args.repeat, args.failed), table, args.update and "peers.md")


if __name__ == "__main__":
    sys.exit(main())
