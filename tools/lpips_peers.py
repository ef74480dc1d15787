#!/usr/bin/env python3
"""Times LPIPS between all pairs of two sets of images, of mem2gen and of the `lpips` package: same weights, two threads.

    make bench-lpips            prints the table
    make bench-lpips UPDATE=1   writes docs/lpips.md too

mem2gen is timed as `mem2gen classify --metric lpips-alex`, from reading the files to the labels. It computes the
features of each image once and searches the nearest neighbours of every sample in the training set and in the samples.
The package computes the features of both images of a pair in every call. All pairs of two large sets would take days, so
it is timed on some thousands of pairs at the fastest of several batch sizes, and that time is multiplied. The distances
that mem2gen finds are compared with the package's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import lpips
import numpy as np
import pyarrow.parquet
import torch
from peers import BINARY, ROOT, THREADS, machine

SIZES = (1000, 10000)
BATCHES = (32, 128, 512)
PAIRS = 2048
CHECKED = 64
TOLERANCE = 1e-4

warnings.filterwarnings("ignore")


def tensors(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a safetensors file of float32: a length, a header in JSON, the values."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    body = memoryview(data)[8 + length :]
    return {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], np.float32).reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def package() -> lpips.LPIPS:
    """The package's network with the weights from `mem2gen data fetch lpips-weights`."""
    own = lpips.LPIPS(net="alex", pretrained=True, pnet_rand=True, verbose=False).eval()
    weights = tensors(ROOT / "data" / "cache" / "lpips-weights" / "alexnet.safetensors")
    slices = [own.net.slice1, own.net.slice2, own.net.slice3, own.net.slice4, own.net.slice5]
    convs = [m for s in slices for m in s if isinstance(m, torch.nn.Conv2d)]
    with torch.no_grad():
        for i, conv in enumerate(convs):
            conv.weight.copy_(torch.tensor(weights[f"AlexNet_0.Conv_{i}.kernel"]).permute(3, 2, 0, 1))
            conv.bias.copy_(torch.tensor(weights[f"AlexNet_0.Conv_{i}.bias"]))
        for i, lin in enumerate(own.lins):
            lin.model[1].weight.copy_(torch.tensor(weights[f"NetLinLayer_{i}.Conv_0.kernel"]).reshape(1, -1, 1, 1))
    return own


def images(n: int, seed: int) -> np.ndarray:
    """Bytes [n, 32, 32, 3]: coarse noise, so that distances differ."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def ready(values: np.ndarray) -> torch.Tensor:
    return torch.tensor(values).permute(0, 3, 1, 2).float() / 255


def ours(folder: Path, n: int) -> tuple[float, Path]:
    """Seconds of one call for n training images and n samples, and the path of its labels."""
    train, synthetic, out = folder / f"D{n}.npy", folder / f"S{n}.npy", folder / f"out{n}"
    np.save(train, images(n, 1))
    np.save(synthetic, images(n, 2))
    env = dict(os.environ, RAYON_NUM_THREADS=str(THREADS))
    command = [BINARY, "classify", "--train", train, "--synthetic", synthetic, "--metric", "lpips-alex"]
    command += ["--delta-m", "0.1", "--delta-s", "0.1", "--out", out]
    start = time.perf_counter()
    subprocess.run(command, check=True, env=env, cwd=ROOT, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start, out / "labels.parquet"


def seconds_a_pair(own: lpips.LPIPS) -> tuple[float, int]:
    """Seconds per pair at the fastest batch size, and that size."""
    a, b = ready(images(PAIRS, 1)), ready(images(PAIRS, 2))
    best = (float("inf"), 0)
    for batch in BATCHES:
        times = []
        for _ in range(3):
            start = time.perf_counter()
            with torch.no_grad():
                for i in range(0, PAIRS, batch):
                    own(a[i : i + batch], b[i : i + batch], normalize=True)
            times.append(time.perf_counter() - start)
        best = min(best, (statistics.median(times) / PAIRS, batch))
    return best


def check(own: lpips.LPIPS, labels: Path, n: int) -> float:
    """Largest difference between the nearest distances of mem2gen and the package's for the same pairs."""
    table = pyarrow.parquet.read_table(labels).slice(0, CHECKED).to_pydict()
    train, synthetic = ready(images(n, 1)), ready(images(n, 2))
    worst = 0.0
    for other, nearest, distance in (
        (train, "nearest_train", "d_train"),
        (synthetic, "nearest_synthetic", "d_synthetic"),
    ):
        with torch.no_grad():
            found = own(synthetic[table["sample"]], other[table[nearest]], normalize=True).flatten()
        worst = max(worst, float((found - torch.tensor(table[distance])).abs().max()))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description="LPIPS of all pairs compared with the lpips package")
    parser.add_argument("--update", action="store_true", help="write docs/lpips.md")
    update = parser.parse_args().update
    torch.set_num_threads(THREADS)
    about = f"{machine()}; load average before the start {os.getloadavg()[0]:.2f}"
    own = package()
    pair, batch = seconds_a_pair(own)
    lines = [
        "# LPIPS of all pairs compared with the `lpips` package",
        "",
        "Written by `make bench-lpips UPDATE=1`; `tools/lpips_peers.py` describes the method. AlexNet, 32x32x3,",
        f"{THREADS} threads for both.",
        "",
        f"{about}.",
        "",
        f"The package takes {1e3 * pair:.3f} ms per pair at its fastest batch size, {batch}.",
        "",
        "| training images x samples | mem2gen, up to the labels | the package, all pairs (extrapolated) | ratio |",
        "|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for n in SIZES:
            seconds, labels = ours(Path(folder), n)
            if n == SIZES[0]:
                worst = check(own, labels, n)
                if worst > TOLERANCE:
                    raise SystemExit(f"bench-lpips: distances differ by {worst:.2e}, expected at most {TOLERANCE:.0e}")
            # Each sample to each training image, and each pair of samples once.
            pairs = n * n + n * (n - 1) // 2
            row = f"| {n} x {n} | {seconds:.1f} s | {pair * pairs:.3g} s | {pair * pairs / seconds:.3g} |"
            lines.append(row)
            print(row, flush=True)
    lines += ["", f"Distances of {2 * CHECKED} pairs differ by at most {worst:.1e}."]
    text = "\n".join(lines) + "\n"
    print(text)
    if update:
        (ROOT / "docs" / "lpips.md").write_text(text)


if __name__ == "__main__":
    main()
