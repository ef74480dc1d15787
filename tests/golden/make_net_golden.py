"""Makes the golden files of tests/library/net_golden.rs from the modules of tools/torch_nets.py.

    python tests/golden/make_net_golden.py [--seed N] [--out FOLDER]

Each file has settings (as metadata), weights, a batch, and PyTorch's results in f64: the output, the loss (mean squared
error), its gradients with respect to the input and the weights, and the weights after three steps of Adam with gradients
clipped to norm 1. All weights are random, because layers with initial weights of zero would hide the layers before them.
`MEM2GEN_GOLDEN=FOLDER cargo test --release --test library net_golden` tests the crate with files of another seed.

`checkpoint.pth` has the layout of the authors' checkpoints (model, ema, opt, args, iterations) and the names of
score_sde.
"""

import argparse
import json
import pathlib
import struct
import sys

import numpy as np
import torch
import torch.nn.functional as F

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tools"))
import torch_nets  # noqa: E402

STEPS, RATE, CLIP = 3, 2e-4, 1.0

# Name, settings, shape of a sample, times.
CASES = {
    "unet": (
        dict(kind="unet", channels=4, multipliers=[1, 2], blocks=1, attention=[4], groups=2, dropout=0.0),
        (8, 8, 2),
        [0.0, 417.0, 999.0],
    ),
    "unet_three": (
        dict(kind="unet", channels=4, multipliers=[1, 1, 1], blocks=2, attention=[], groups=2, dropout=0.0),
        (16, 8, 1),
        [13.0, 250.0],
    ),
    "unet_prompted": (
        dict(kind="unet", channels=4, multipliers=[1, 2], blocks=1, attention=[4], groups=2, dropout=0.0)
        | dict(patch=2, condition=5),
        (8, 8, 2),
        [0.0, 417.0, 999.0],
    ),
    "mlp": (dict(kind="mlp", width=16, blocks=2, time=8, dropout=0.0), (3, 3, 1), [0.0, 1.0, 20.0, 300.0, 999.0]),
    "toy_paper": (
        dict(kind="toy", form="paper", width=16, depth=2, time=12, scale=2.0),
        (1, 1, 2),
        [1e-5, 0.1, 0.25, 0.5, 1.0],
    ),
    "toy_code": (
        dict(kind="toy", form="code", width=16, depth=4, time=12, scale=2.0),
        (1, 1, 2),
        [1e-5, 0.1, 0.25, 0.5, 1.0],
    ),
}
# To keep the files small.
WITHOUT_ADAM = {"unet_three"}


def write_safetensors(path, tensors, metadata):
    header, body = {"__metadata__": metadata}, b""
    for name, array in tensors.items():
        data = np.ascontiguousarray(array, dtype="<f4").tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(array.shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def draw(model, generator):
    """Weights of f32 of a size that keeps numbers near one; scales of normalisation near one too."""
    for name, value in model.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("frequencies"):
            value.copy_(2.0 * noise)
        elif "norm" in name and name.endswith("weight"):
            value.copy_(1.0 + 0.2 * noise)
        elif value.dim() == 1:
            value.copy_(0.2 * noise)
        else:
            value.copy_(noise / value[0].numel() ** 0.5)


def flat(x, image):
    """NHWC, a row a sample."""
    x = x.permute(0, 2, 3, 1) if image else x
    return x.detach().reshape(len(x), -1).numpy().copy()


def case(name, settings, shape, times, seed, folder):
    generator = torch.Generator().manual_seed(seed)
    height, width, channels = shape
    image = settings["kind"] == "unet"
    size = (len(times), channels, height, width) if image else (len(times), height * width * channels)
    model = torch_nets.build(settings, shape)
    draw(model, generator)
    x = torch.randn(size, generator=generator).double().requires_grad_()
    # Far enough from the output for the gradient to be clipped.
    target = 3.0 * torch.randn(size, generator=generator).double()
    t = torch.tensor(times, dtype=torch.float32).double()
    given = [t]
    if settings.get("condition"):
        given.append(torch.randn((len(times), settings["condition"]), generator=generator).double())
    model = model.double()

    tensors = {}
    for key, value in torch_nets.named(model.state_dict()).items():
        tensors[f"weights/{key}"] = value.numpy().copy()
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    losses, norms = [], []
    for step in range(STEPS):
        optimiser.zero_grad()
        output = model(x, *given)
        loss = F.mse_loss(output, target)
        loss.backward()
        if step == 0:
            grads = {key: p.grad for key, p in model.named_parameters()}
            tensors |= {f"grads/{key}": g.numpy().copy() for key, g in torch_nets.named(grads).items()}
            tensors |= {"output": flat(output, image), "dx": flat(x.grad, image)}
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        losses.append(loss.item())
        norms.append(norm.item())
    if name not in WITHOUT_ADAM:
        for key, value in torch_nets.named(model.state_dict()).items():
            tensors[f"adam/{key}"] = value.numpy()
    tensors |= {"condition": c.numpy() for c in given[1:]}
    tensors |= {"x": flat(x, image), "t": t.numpy(), "target": flat(target, image)}
    tensors |= {"losses": np.array(losses), "norms": np.array(norms)}
    metadata = {
        "arch": json.dumps(settings),
        "input": json.dumps({"height": height, "width": width, "channels": channels}),
        "adam": json.dumps({"steps": STEPS, "lr": RATE, "clip": CLIP, "betas": [0.9, 0.999], "eps": 1e-8}),
    }
    path = folder / f"{name}.safetensors"
    write_safetensors(path, tensors, metadata)
    count = sum(p.numel() for p in model.parameters())
    print(f"{path}: {count} parameters, {path.stat().st_size} bytes, norms {norms}")


# The parts of a block and of attention in score_sde, in its order, and whether it has them as [inputs, outputs].
PARTS = {
    "norm1": ("GroupNorm_0", False),
    "conv1": ("Conv_0", False),
    "time": ("Dense_0", False),
    "norm2": ("GroupNorm_1", False),
    "conv2": ("Conv_1", False),
    "shortcut": ("NIN_0", True),
}
ATTENTION = {
    "norm": ("GroupNorm_0", False),
    "q": ("NIN_0", True),
    "k": ("NIN_1", True),
    "v": ("NIN_2", True),
    "out": ("NIN_3", True),
}


def score_sde_modules(multipliers, blocks, attends):
    """Our prefix and the parts of each of score_sde's `all_modules`, in its order, written out by hand."""
    yield "time.0", None
    yield "time.1", None
    yield "input", None
    last = len(multipliers) - 1
    for level in range(last + 1):
        for i in range(blocks):
            yield f"down.{level}.block.{i}", PARTS
            if attends[level]:
                yield f"down.{level}.attention.{i}", ATTENTION
        if level < last:
            yield f"down.{level}", {"down": ("Conv_0", False)}
    yield "middle.block.0", PARTS
    yield "middle.attention", ATTENTION
    yield "middle.block.1", PARTS
    for level in range(last, -1, -1):
        for i in range(blocks + 1):
            yield f"up.{level}.block.{i}", PARTS
            if attends[level]:
                yield f"up.{level}.attention.{i}", ATTENTION
        if level > 0:
            yield f"up.{level}", {"up": ("Conv_0", False)}
    yield "output.norm", None
    yield "output.conv", None


def score_sde_state(tensors, multipliers, blocks, attends):
    """Our names as those of score_sde under DataParallel, with its buffer of noise levels."""
    state = {"module.sigmas": torch.linspace(0.01, 1.0, 10)}
    used = set()
    for n, (prefix, parts) in enumerate(score_sde_modules(multipliers, blocks, attends)):
        for part, (theirs, turned) in (parts or {None: (None, False)}).items():
            layer = f"{prefix}.{part}" if part else prefix
            for kind, short in [("weight", "W"), ("bias", "b")]:
                key = f"{layer}.{kind}"
                if key not in tensors:
                    assert part == "shortcut", key
                    continue
                used.add(key)
                value = tensors[key]
                name = f"module.all_modules.{n}." + (f"{theirs}." if theirs else "")
                if turned:
                    name += short
                    value = value.t().contiguous() if kind == "weight" else value
                else:
                    name += kind
                state[name] = value.clone()
    assert used == set(tensors), set(tensors) - used
    return state


def checkpoint(seed, folder):
    settings = dict(channels=4, multipliers=[1, 1], blocks=1, attention=[4], groups=2, dropout=0.1)
    shape = (8, 8, 1)
    model = torch_nets.Unet(shape, **settings)
    draw(model, torch.Generator().manual_seed(seed))
    ours = {key: value.clone() for key, value in torch_nets.named(model.state_dict()).items()}
    model_state = score_sde_state(ours, [1, 1], 1, [False, True])
    # Told apart from the model by one more in each number.
    ema_state = {key: value + 1.0 for key, value in model_state.items()}
    # A state of Adam as it is saved, of two tensors only.
    few = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2, 2))]
    optimiser = torch.optim.Adam(few, lr=RATE)
    sum(p.sum() for p in few).backward()
    optimiser.step()
    path = folder / "checkpoint.pth"
    torch.save(
        {
            "model": model_state,
            "ema": ema_state,
            "opt": optimiser.state_dict(),
            "args": argparse.Namespace(dataset="mnist", lr=RATE, global_seed=3407, resume=None, tf32=True),
            "iterations": 400_000,
        },
        path,
    )
    tensors = {f"model/{key}": value.numpy() for key, value in ours.items()}
    height, width, channels = shape
    write_safetensors(
        folder / "checkpoint.safetensors",
        tensors,
        {
            "arch": json.dumps({"kind": "unet"} | settings),
            "input": json.dumps({"height": height, "width": width, "channels": channels}),
        },
    )
    print(f"{path}: {path.stat().st_size} bytes")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, default=HERE)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for i, (name, (settings, shape, times)) in enumerate(CASES.items()):
        case(name, settings, shape, times, 1000 * args.seed + i, args.out)
    checkpoint(1000 * args.seed + 500, args.out)


main()
