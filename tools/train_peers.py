#!/usr/bin/env python3
"""Times training steps and sampling of mem2gen and PyTorch: same networks, batches and precision, two threads for both.

    make bench-train            prints the table, writes out/bench-train.md and out/bench-train.json
    make bench-train UPDATE=1   writes docs/training.md too

Every measurement is a process of its own: `timings network` for mem2gen, this file with `worker` for PyTorch. They take
turns, and a ratio is the median over the rounds of PyTorch's time divided by that of mem2gen. PyTorch runs at the
fastest of its settings; one run of each finds it. A step is one pass of the training loop: draw a batch, times and
noise, forward, loss, backward, clipping, Adam and the moving average of the weights. Sampling is one DDIM step: the
network's call and the update of the sample.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from peers import ROOT, THREADS, TIMINGS, Failed, Setting, Sizes, call, machine, report, say, verdict
from peers import ours as bench

# Images in the training set. Their values do not affect the time.
IMAGES = 512


@dataclass(frozen=True)
class Work:
    """What is timed: a network of `timings network`, and the target for the ratio of times."""

    network: str
    phase: str
    bar: float
    repeat: int
    note: str


WORK = (
    Work("unet-desk", "step", 1.2, 5, "U-Net, 14x14, 32 channels, batch 128"),
    Work("mlp-desk", "step", 1.2, 50, "residual MLP, 7x7, 0.9 M parameters, batch 64"),
    Work("unet-paper", "step", 1.0, 2, "the paper's U-Net for MNIST, 28x28, 24.5 M parameters, batch 16"),
    Work("unet-desk", "sample", 1.2, 5, "the same U-Net, one DDIM step of 256 samples"),
    Work("mlp-desk", "sample", 1.2, 50, "the same MLP, one DDIM step of 1024 samples"),
    Work("unet-paper", "sample", 1.2, 2, "the same U-Net, one DDIM step of 16 samples"),
)

SETTINGS = (Setting("contiguous"), Setting("channels-last"), Setting("compiled"))


def draw_schedule(torch):
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    return torch.cumprod(1 - betas, 0).float()


def worker(network: dict, phase: str, way: str, repeat: int) -> dict:
    """Seconds of a step, without the first two, which warm up."""
    import torch
    import torch.nn.functional as F
    import torch_nets

    torch.manual_seed(1)
    torch.set_num_threads(THREADS)
    height, width, channels = network["input"]
    batch = network["batch"]
    image = network["arch"]["kind"] == "unet"
    shape = (channels, height, width) if image else (channels * height * width,)
    model = torch_nets.build(network["arch"], (height, width, channels))
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if count != network["parameters"]:
        raise SystemExit(f"PyTorch's network has {count} parameters, that of mem2gen {network['parameters']}")
    layout = torch.channels_last if way == "channels-last" and image else torch.contiguous_format
    model = model.to(memory_format=layout)
    run = torch.compile(model) if way == "compiled" else model
    alpha_bar = draw_schedule(torch)
    spread = (-1, *[1] * len(shape))

    if phase == "step":
        model.train()
        data = torch.rand(IMAGES, *shape) * 2 - 1
        adam = torch.optim.Adam(model.parameters(), lr=2e-4, fused=True)
        weights = [p for p in model.parameters() if p.requires_grad]
        average = [p.detach().clone() for p in weights]

        def once():
            x0 = data[torch.randperm(IMAGES)[:batch]]
            t = torch.randint(0, 1000, (batch,))
            noise = torch.randn_like(x0)
            level = alpha_bar[t].view(spread)
            x = (level.sqrt() * x0 + (1 - level).sqrt() * noise).contiguous(memory_format=layout)
            loss = F.mse_loss(run(x, t.float()), noise)
            adam.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            adam.step()
            with torch.no_grad():
                torch._foreach_lerp_(average, weights, 1e-4)
            return loss

    else:
        model.eval()
        state = {"x": torch.randn(batch, *shape).contiguous(memory_format=layout)}

        def once():
            with torch.inference_mode():
                t, s = 500, 490
                x = state["x"]
                epsilon = run(x, torch.full((batch,), float(t)))
                x0 = ((x - (1 - alpha_bar[t]).sqrt() * epsilon) / alpha_bar[t].sqrt()).clamp(-1, 1)
                epsilon = (x - alpha_bar[t].sqrt() * x0) / (1 - alpha_bar[t]).sqrt()
                state["x"] = alpha_bar[s].sqrt() * x0 + (1 - alpha_bar[s]).sqrt() * epsilon
            return state["x"]

    for _ in range(2):
        once()
    seconds = []
    for _ in range(repeat):
        began = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - began)
    return {"median_seconds": statistics.median(seconds)}


def ours(work: Work) -> dict:
    return json.loads(call([TIMINGS, "network", work.network, "--phase", work.phase, "--repeat", work.repeat]))


def theirs(work: Work, network: dict, setting: Setting) -> dict:
    described = json.dumps({key: network[key] for key in ("arch", "input", "batch", "parameters")})
    words = ["worker", described, work.phase, setting.way, work.repeat]
    return json.loads(call([sys.executable, __file__, *words], setting.env).splitlines()[-1])


def measure(count: int, compiled: bool) -> dict:
    load = os.getloadavg()[0]
    if load > 0.3:
        say(f"bench-train: load average {load:.1f}: other programs are running, so the times below are not reliable")
    sizes = Sizes(2048, 2048, 2048)
    peak = bench("gemm", sizes, 5)["gflops"]
    rows = []
    for work in WORK:
        say(f"bench-train: {work.network}, {work.phase}")
        network = ours(work)
        tried = {}
        for setting in SETTINGS:
            if setting.way == "compiled" and not compiled:
                continue
            try:
                tried[setting] = theirs(work, network, setting)["median_seconds"]
                say(f"  {setting}: {tried[setting]:.4f} s")
            except Failed as e:
                say(f"  {setting}: {e}")
        if not tried:
            raise Failed(f"PyTorch failed on {work.network} at every setting")
        best = min(tried, key=tried.get)
        pairs = [(ours(work), theirs(work, network, best)) for _ in range(count)]
        seconds = statistics.median(a["median_seconds"] for a, _ in pairs)
        ratio = statistics.median(b["median_seconds"] / a["median_seconds"] for a, b in pairs)
        rows.append(
            {
                "network": work.network,
                "phase": work.phase,
                "note": work.note,
                "seconds": seconds,
                "peer_seconds": statistics.median(b["median_seconds"] for _, b in pairs),
                "setting": str(best),
                "ratio": ratio,
                "bar": work.bar,
                "met": ratio >= work.bar,
                "gflops": network["gflop"] / seconds,
                "of_peak": network["gflop"] / seconds / peak,
                "profile": pairs[-1][0]["profile"],
                "tried": {str(s): t for s, t in tried.items()},
            }
        )
        row = rows[-1]
        say(f"  {row['seconds']:.4f} s, {row['peer_seconds']:.4f} s, ratio {ratio:.2f}, target {work.bar}")
    return {
        "machine": machine(),
        "load": load,
        "threads": THREADS,
        "rounds": count,
        "peak_gflops": peak,
        "rows": rows,
        "versions": {p: importlib.metadata.version(p) for p in ("numpy", "torch")},
    }


def table(result: dict) -> str:
    lines = [
        "# Training and sampling compared with PyTorch",
        "",
        "Written by `make bench-train UPDATE=1`; `tools/train_peers.py` describes the method. Single precision, "
        f"{THREADS} threads for both.",
        f"Times are medians of {result['rounds']} rounds in which the two take turns.",
        "",
        f"{result['machine']}; load average before the start {result['load']:.2f}.",
        "",
        "| work | mem2gen | PyTorch | fastest setting | ratio | target | GFLOP/s of mem2gen | share of the peak |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['phase']}: {row['note']} | {1e3 * row['seconds']:.2f} ms | {1e3 * row['peer_seconds']:.2f} ms "
            f"| {row['setting']} | {row['ratio']:.2f} | {row['bar']:g}: {verdict(row['met'])} | {row['gflops']:.0f} "
            f"| {row['of_peak']:.0%} |"
        )
    lines += [
        "",
        f"The peak is a plain matrix product of 2048 x 2048 x 2048, {result['peak_gflops']:.0f} GFLOP/s in the same "
        "session. The count of operations",
        "includes convolutions, dense layers and attention; a backward pass counts as two forward passes.",
        "",
        "## Where the time goes",
        "",
        "Share of a step by kind of operation, measured inside the engine.",
        "",
    ]
    for row in result["rows"]:
        whole = sum(row["profile"].values())
        shares = sorted(row["profile"].items(), key=lambda p: -p[1])
        told = ", ".join(f"{name} {seconds / whole:.0%}" for name, seconds in shares if seconds / whole >= 0.01)
        lines.append(f"- {row['network']}, {row['phase']}: {told}")
    lines += ["", "## Settings of PyTorch tried", ""]
    for row in result["rows"]:
        tried = ", ".join(f"{s} {1e3 * t:.2f} ms" for s, t in row["tried"].items())
        lines.append(f"- {row['network']}, {row['phase']}: {tried}")
    lines += ["", "Versions: " + ", ".join(f"{n} {v}" for n, v in result["versions"].items()) + ".", ""]
    return "\n".join(lines)


def main() -> int:
    if sys.argv[1:2] == ["worker"]:
        network, phase, way, repeat = sys.argv[2:]
        print(json.dumps(worker(json.loads(network), phase, way, int(repeat))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds")
    parser.add_argument("--no-compile", action="store_true", help="skip torch.compile, which takes minutes")
    parser.add_argument("--update", action="store_true", help="write docs/training.md too")
    args = parser.parse_args()
    return report("bench-train", lambda: measure(args.rounds, not args.no_compile), table, args.update and "training.md")


if __name__ == "__main__":
    sys.exit(main())
