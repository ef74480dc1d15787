#!/usr/bin/env python3
"""Measures waiting times in a notebook: the kernel's start, the first cell, later cells, and cells that show a table or
a figure. Prints each time with its target.

    make latency                                           the built-in cells
    latency.py --notebook notebooks/01_toy_energy.ipynb    the cells of a notebook instead
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

import index as ix

BARS = {"kernel ready": 5.0, "first cell": 3.0, "later cell, median": 0.5, "cell that shows something, median": 1.0}
FIRST = 'let run: Run = begin("latency");'
LATER = [
    "let x: Vec<f64> = (0..100_000).map(f64::from).collect();",
    'println!("{}", x.iter().sum::<f64>());',
    "let y: Vec<f64> = x.iter().map(|v| v.sqrt()).collect();",
    "let (small, large): (f64, f64) = (y[0], y[y.len() - 1]);",
    'println!("{small} {large} in {}", run.profile().name());',
    "let ends: [f64; 2] = [small, large];",
    "let steps: Box<dyn ProgressSink> = run.progress(\"steps\", 3);\nfor _ in 0..3 { steps.advance(1); }",
    'println!("{ends:?}");',
    "let z: f64 = y.iter().zip(&x).map(|(a, b)| a * b).sum();",
    'println!("{z}");',
]
# A table of 60 rows and a figure.
SHOWS = [
    'Table::new("roots", vec![frame::floats("x", x[..60].to_vec()), frame::floats("root", y[..60].to_vec())]).or_stop()',
    'plot::curves(&plot::CurvePanel::new("roots", "x", "root").curve(plot::Curve::new('
    '"root", x[..500].to_vec(), y[..500].to_vec()))).or_stop()',
]
# The fused score in a cell, on the data of `timings operation score`.
FUSED = """{
    let draw = |name: &str, rows: usize| {
        let mut stream = mem2gen::random::Stream::new(mem2gen::random::SEED, name);
        Array2::from_shape_fn((rows, 784), |_| stream.normal() as f32)
    };
    let (rows, queries) = (draw("bench: memories", 60_000), draw("bench: queries", 1024));
    let memories = Memories::new(rows).or_stop();
    let mut seconds: Vec<f64> = (0..7)
        .map(|_| {
            let clock = std::time::Instant::now();
            memories.score(queries.view(), 28.0).or_stop();
            clock.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    println!("seconds {}", seconds[3]);
}"""


def shows(cell) -> bool:
    return any("image/png" in o.get("data", {}) or "text/html" in o.get("data", {}) for o in cell.outputs)


def fused(rounds: int) -> tuple[float, float]:
    """Median seconds of the score in `timings` and in a notebook cell, measured in turns."""
    program, cell = [], []
    binary = Path(os.environ.get("CARGO_TARGET_DIR", ix.ROOT / "target")) / "release" / "timings"
    for _ in range(rounds):
        line = subprocess.run([binary, "operation", "score", "--repeat", "7"], capture_output=True, text=True, check=True)
        program.append(json.loads(line.stdout)["median_seconds"])
        notebook = new_notebook(cells=[new_code_cell(FUSED)])
        env = os.environ | {"MEM2GEN_PROFILE": "smoke", "MEM2GEN_ROOT": str(ix.ROOT)}
        client = NotebookClient(notebook, kernel_name="mem2gen", timeout=300)
        client.execute(env=env)
        text = "".join(o.get("text", "") for o in notebook.cells[0].outputs)
        cell.append(float(text.split("seconds ")[1].split()[0]))
    return statistics.median(program), statistics.median(cell)


async def measure(sources: list[str], folder: Path) -> dict[str, list[float]]:
    notebook = new_notebook(cells=[new_code_cell(s) for s in sources])
    client = NotebookClient(notebook, kernel_name="mem2gen", timeout=300, resources={"metadata": {"path": str(folder)}})
    client.create_kernel_manager()
    times: dict[str, list[float]] = {name: [] for name in BARS}
    with tempfile.TemporaryDirectory(prefix="mem2gen-latency-", ignore_cleanup_errors=True) as scratch:
        try:
            began = time.perf_counter()
            env = os.environ | {"TMPDIR": scratch, "MEM2GEN_PROFILE": "smoke", "MEM2GEN_ROOT": str(ix.ROOT)}
            await client.async_start_new_kernel(env=env, stdout=subprocess.DEVNULL)
            await client.async_start_new_kernel_client()
            times["kernel ready"].append(time.perf_counter() - began)
            for i, cell in enumerate(notebook.cells):
                began = time.perf_counter()
                await client.async_execute_cell(cell, i)
                took = time.perf_counter() - began
                name = "first cell" if i == 0 else "cell that shows something, median" if shows(cell) else "later cell, median"
                times[name].append(took)
        finally:
            if client.kc is not None:
                client.kc.stop_channels()
            await client.km.shutdown_kernel(now=True)
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notebook", type=Path, help="measure the cells of this notebook, in profile smoke")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fused", action="store_true", help="also time the fused score in a cell and in the program")
    parser.add_argument("--strict", action="store_true", help="exit with status 1 when a target is missed")
    parser.add_argument("--json", type=Path, help="write all times to this file")
    args = parser.parse_args()
    sources, folder = [FIRST, *LATER, *SHOWS], ix.ROOT / "notebooks"
    if args.notebook:
        cells = nbformat.read(args.notebook, as_version=4).cells
        sources = [c.source for c in cells if c.cell_type == "code"]
        folder = args.notebook.resolve().parent
    total: dict[str, list[float]] = {name: [] for name in BARS}
    for _ in range(args.rounds):
        for name, values in asyncio.run(measure(sources, folder)).items():
            total[name] += values
    print(f"{args.rounds} kernels, load average now {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    missed = 0
    for name, bar in BARS.items():
        values = total[name]
        if not values:
            continue
        middle = statistics.median(values)
        missed += middle >= bar
        note = "" if middle < bar else "   MISSED"
        print(f"{name:36} {middle:6.2f} s  (min {min(values):.2f}, max {max(values):.2f}, n {len(values)})  target {bar:g} s{note}")
    if args.fused:
        program, cell = fused(args.rounds)
        print(f"fused score, 1024 x 60000 x 784: program {program:.3f} s, cell {cell:.3f} s, ratio {cell / program:.3f}")
        missed += cell > 1.05 * program
    if args.json:
        args.json.write_text(json.dumps(total, indent=1) + "\n", encoding="utf-8")
    return 1 if args.strict and missed else 0


if __name__ == "__main__":
    sys.exit(main())
