#!/usr/bin/env python3
"""PyTorch on the same card and the same sizes as a report of `mem2gen gpu-report`.

    gpu_peers.py REPORT.json [--out TABLE.md]

Each row of the report is computed the way a user of PyTorch writes it: distances by one matrix product for 4096 queries at
a time, then logsumexp, softmax or topk. Time is that of CUDA events, the median of seven runs after two others, in single
precision and with TF32. Only time is compared: values are checked by `gpu-report` itself.
"""

import argparse
import json
import os
import sys
from pathlib import Path

BATCH = 4096
WARM, RUNS = 2, 7


def squared(queries, memories, norms):
    """Squared distances without the queries' own norms, by one product."""
    import torch

    return torch.addmm(norms[None, :], queries, memories.T, alpha=-2.0)


def compute(operation, queries, memories, sigma):
    import torch

    norms = (memories * memories).sum(1)
    results = []
    for part in queries.split(BATCH):
        d2 = squared(part, memories, norms)
        if operation == "energy":
            results.append(torch.logsumexp(-d2 / (2 * sigma**2), 1))
        elif operation == "score":
            results.append((torch.softmax(-d2 / (2 * sigma**2), 1) @ memories - part) / sigma**2)
        elif operation == "knn":
            results.append(torch.topk(d2, 6, dim=1, largest=False))
        elif operation == "pairwise":
            results.append((d2 + (part * part).sum(1)[:, None]).clamp_min_(0))
        else:
            raise SystemExit(f"gpu_peers: the report has an operation {operation!r} that has no counterpart here")
    return results


def milliseconds(work):
    import torch

    times = []
    for run in range(WARM + RUNS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        if run >= WARM:
            times.append(start.elapsed_time(end))
    return sorted(times)[RUNS // 2]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="JSON file of `mem2gen gpu-report --json`")
    parser.add_argument("--out", type=Path, help="Markdown file for the table")
    args = parser.parse_args()
    try:
        import torch
    except ImportError:
        raise SystemExit("gpu_peers: PyTorch is not installed") from None
    if not torch.cuda.is_available():
        raise SystemExit("gpu_peers: PyTorch finds no CUDA device")
    report = json.loads(args.report.read_text(encoding="utf-8"))
    lines = [
        f"{torch.cuda.get_device_name(0)}, PyTorch {torch.__version__}. Milliseconds on the card, without copies to and from it.",
        "",
        "| operation | mem2gen | PyTorch fp32 | PyTorch TF32 | mem2gen / fp32 |",
        "|---|--:|--:|--:|--:|",
    ]
    for row in report["rows"]:
        m, k, n = (row[name] for name in ("queries", "memories", "dim"))
        sigma = row.get("sigma") or n**0.5
        torch.manual_seed(1)
        queries, memories = torch.randn(m, n, device="cuda"), torch.randn(k, n, device="cuda")
        peers = []
        for tf32 in (False, True):
            torch.backends.cuda.matmul.allow_tf32 = tf32
            peers.append(milliseconds(lambda: compute(row["operation"], queries, memories, sigma)))
        ours = 1e3 * row["kernel_seconds"]
        name = f"{row['operation']} {m} x {k} x {n}, sigma {sigma:.3g}"
        lines.append(f"| {name} | {ours:.2f} | {peers[0]:.2f} | {peers[1]:.2f} | {ours / peers[0]:.2f} |")
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if args.out:
        unfinished = args.out.with_name(f".{args.out.name}.{os.getpid()}")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(args.out)


if __name__ == "__main__":
    main()
