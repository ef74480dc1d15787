#!/usr/bin/env python3
"""Share of time that basin, curvature and potential spend in the network, on networks of the desk sweeps.

    make bench-landscape            prints the table
    make bench-landscape UPDATE=1   writes docs/landscape.md too

Each command is called as a user would call it and prints the share itself: the time in calls of the score, divided by
the time from the first call to the last. The cells come from the published weights, which are sampled and labelled again.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from peers import BINARY, ROOT, machine

IMAGES, REPEATS, BAR = 256, 3, 85
NETWORKS = [
    # K is in the middle of the transition of each network.
    ("mnist-mlp", "mnist-7-mlp128-k128-", "MLP, 0.24 million parameters, K = 128"),
    ("mnist-unet", "mnist-7-unet16-k48-", "U-Net, 0.04 million parameters, K = 48"),
]
COMMANDS = [
    ("basin", ["--delta", "0.2", "--stride", "5"]),
    ("basin, with noise draws", ["--delta", "0.2", "--stride", "5", "--attractors", "A.parquet"]),
    ("curvature", []),
    ("curvature, one-sided", ["--variant", "plain"]),
    ("curvature, Gaussian", ["--variant", "gaussian"]),
    ("curvature, with the exact Jacobian", ["--exact"]),
    ("potential", ["--references", "4", "--tolerance", "1e-3"]),
]


def cell(plan: str, name: str, folder: Path) -> Path:
    runs = folder / plan
    networks = ROOT / "data" / "results" / "networks"
    call = [BINARY, "sweep", "--plan", plan, "--only", name, "--runs", runs, "--networks", networks]
    subprocess.run(call, check=True, cwd=ROOT, capture_output=True)
    return next(runs.glob(f"{name}*"))


def share(command: str, run: Path, folder: Path) -> tuple[float, float]:
    """Percentage of time in the score, and seconds of the whole call: medians of `REPEATS` calls."""
    name, more = command.split(",")[0], dict(COMMANDS)[command]
    more = [str(folder / word) if word.endswith(".parquet") else word for word in more]
    kind = [] if name == "potential" else ["--class", "spurious"]
    out = folder / "T.parquet"
    call = [BINARY, name, "--run", run, *kind, "--max", str(IMAGES), "--pick", "random", *more, "--out", out]
    shares, seconds = [], []
    for _ in range(REPEATS):
        start = time.perf_counter()
        done = subprocess.run(call, check=True, cwd=ROOT, capture_output=True, text=True)
        shares.append(float(re.search(r"(\d+) percent of the time in the score", done.stdout)[1]))
        seconds.append(time.perf_counter() - start)
    return statistics.median(shares), statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description="shares of time in the network")
    parser.add_argument("--update", action="store_true", help="write the table in docs/landscape.md too")
    update = parser.parse_args().update
    about = f"{machine()}; load average before the start {os.getloadavg()[0]:.2f}."
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cells = [cell(plan, prefix, folder) for plan, prefix, _ in NETWORKS]
        for command in dict(COMMANDS):
            found = [share(command, run, folder) for run in cells]
            rows.append([command, *(f"{s:.0f} %, {t:.1f} s{'' if s >= BAR else ' (below)'}" for s, t in found)])
            print(*rows[-1], sep=" | ", flush=True)
    head = ["command", *(title for *_, title in NETWORKS)]
    table = [head, ["---"] * len(head), *rows]
    text = "\n".join([about, "", *("| " + " | ".join(row) + " |" for row in table)])
    print(text)
    if update:
        path = ROOT / "docs" / "landscape.md"
        before, rest = path.read_text().split("<!-- shares:begin -->")
        after = rest.split("<!-- shares:end -->")[1]
        path.write_text(f"{before}<!-- shares:begin -->\n\n{text}\n\n<!-- shares:end -->{after}")


if __name__ == "__main__":
    main()
