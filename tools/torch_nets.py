"""The networks of src/net as plain PyTorch modules, with which values and speed are compared.

`build(settings, shape)` takes the settings that `mem2gen` writes (`{"kind": "unet", ...}`) and the shape of a sample as
(height, width, channels). A module maps x (U-Net: [m, channels, height, width]; the others: [m, values]), times t [m] and,
if the settings have one, a condition [m, values] to an output with the shape of x. `named(tensors)` gives tensors the names and shapes of mem2gen's files.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


def sinusoid(t, channels, period=10_000.0):
    half = channels // 2
    steps = torch.arange(half, dtype=t.dtype, device=t.device)
    phases = t[:, None] * torch.exp(-math.log(period) / (half - 1) * steps)[None]
    return torch.cat([phases.sin(), phases.cos()], dim=1)


class Time(nn.ModuleList):
    """DDPM's embedding of time and two linear maps."""

    def __init__(self, channels, wide):
        super().__init__([nn.Linear(channels, wide), nn.Linear(wide, wide)])
        self.channels = channels

    def forward(self, t):
        return self[1](F.silu(self[0](sinusoid(t, self.channels))))


class Condition(nn.ModuleList):
    """Two linear maps of a condition."""

    def __init__(self, length, wide):
        super().__init__([nn.Linear(length, wide), nn.Linear(wide, wide)])

    def forward(self, c):
        return self[1](F.silu(self[0](c)))


class Block(nn.Module):
    def __init__(self, inputs, outputs, wide, groups, dropout):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps=1e-6)
        self.time = nn.Linear(wide, outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, outputs, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x, time):
        h = self.conv1(F.silu(self.norm1(x))) + self.time(time)[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return self.shortcut(x) + h


class Attention(nn.Module):
    def __init__(self, channels, groups):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        m, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(m, 3, c, h * w).transpose(2, 3).unbind(1)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(1, 2).reshape(m, c, h, w))


class Level(nn.Module):
    """Blocks of one size, attention after each block if the level has attention, and the change to the next size."""

    def __init__(self, blocks, attention, **way):
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.attention = nn.ModuleList(attention)
        for name, module in way.items():
            self.add_module(name, module)

    def step(self, i, h, time):
        h = self.block[i](h, time)
        return self.attention[i](h) if len(self.attention) else h


class Middle(nn.Module):
    def __init__(self, channels, block, groups):
        super().__init__()
        self.block = nn.ModuleList([block(channels, channels), block(channels, channels)])
        self.attention = Attention(channels, groups)

    def forward(self, h, time):
        return self.block[1](self.attention(self.block[0](h, time)), time)


class Unet(nn.Module):
    """The U-Net of DDPM in score_sde's layout: SiLU, GroupNorm, strided convolutions, nearest upsampling."""

    def __init__(
        self, shape, channels, multipliers, blocks, attention, groups=None, dropout=0.0, patch=1, condition=0
    ):
        super().__init__()
        side, pixel = shape[0] // patch, shape[2] * patch**2
        groups = groups or (32 if channels >= 64 else max(channels // 4, 1))
        wide = 4 * channels

        def block(inputs, outputs):
            return Block(inputs, outputs, wide, groups, dropout)

        self.patch = patch
        self.time = Time(channels, wide)
        if condition:
            self.condition = Condition(condition, wide)
        self.input = nn.Conv2d(pixel, channels, 3, padding=1)
        kept, now, last = [channels], channels, len(multipliers) - 1
        down = []
        for level, multiplier in enumerate(multipliers):
            outputs, parts, attend = multiplier * channels, [], []
            for _ in range(blocks):
                parts.append(block(now, outputs))
                now = outputs
                kept.append(now)
                if side in attention:
                    attend.append(Attention(now, groups))
            way = {}
            if level < last:
                way["down"] = nn.Conv2d(now, now, 3, stride=2)
                kept.append(now)
                side //= 2
            down.append(Level(parts, attend, **way))
        self.down = nn.ModuleList(down)
        self.middle = Middle(now, block, groups)
        up = []
        for level, multiplier in reversed(list(enumerate(multipliers))):
            outputs, parts, attend = multiplier * channels, [], []
            for _ in range(blocks + 1):
                parts.append(block(now + kept.pop(), outputs))
                now = outputs
                if side in attention:
                    attend.append(Attention(now, groups))
            way = {}
            if level > 0:
                way["up"] = nn.Conv2d(now, now, 3, padding=1)
                side *= 2
            up.append(Level(parts, attend, **way))
        self.up = nn.ModuleList(reversed(up))
        self.output = nn.ModuleDict(
            {"norm": nn.GroupNorm(groups, now, eps=1e-6), "conv": nn.Conv2d(now, pixel, 3, padding=1)}
        )

    def forward(self, x, t, c=None):
        time = self.time(t)
        if c is not None:
            time = time + self.condition(c)
        # Every block begins with SiLU of the embedding.
        time = F.silu(time)
        h = self.input(F.pixel_unshuffle(x, self.patch))
        kept = [h]
        for level in self.down:
            for i in range(len(level.block)):
                h = level.step(i, h, time)
                kept.append(h)
            if hasattr(level, "down"):
                h = level.down(F.pad(h, (0, 1, 0, 1)))
                kept.append(h)
        h = self.middle(h, time)
        for level in reversed(self.up):
            for i in range(len(level.block)):
                h = level.step(i, torch.cat([h, kept.pop()], dim=1), time)
            if hasattr(level, "up"):
                h = level.up(F.interpolate(h, scale_factor=2, mode="nearest"))
        return F.pixel_shuffle(self.output["conv"](F.silu(self.output["norm"](h))), self.patch)


class MlpBlock(nn.Module):
    def __init__(self, width, dropout):
        super().__init__()
        self.time = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.linear1 = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(width, width)

    def forward(self, x, time):
        h = self.linear1(F.silu(self.norm1(x))) + self.time(time)
        return x + self.linear2(self.dropout(F.silu(self.norm2(h))))


class Mlp(nn.Module):
    def __init__(self, shape, width, blocks, time, dropout=0.0):
        super().__init__()
        numbers = math.prod(shape)
        self.time = Time(time, width)
        self.input = nn.Linear(numbers, width)
        self.block = nn.ModuleList([MlpBlock(width, dropout) for _ in range(blocks)])
        self.output = nn.ModuleDict(
            {"norm": nn.LayerNorm(width, eps=1e-6), "linear": nn.Linear(width, numbers)}
        )

    def forward(self, x, t):
        time = F.silu(self.time(t))
        h = self.input(x)
        for block in self.block:
            h = block(h, time)
        return self.output["linear"](F.silu(self.output["norm"](h)))


class Features(nn.Module):
    def __init__(self, channels, scale):
        super().__init__()
        self.register_buffer("frequencies", scale * torch.randn(channels // 2))

    def forward(self, t):
        phases = 2 * math.pi * t[:, None] * self.frequencies[None]
        return torch.cat([phases.sin(), phases.cos()], dim=1)


class ToyBlock(nn.Module):
    def __init__(self, width, time):
        super().__init__()
        self.time = nn.Linear(time, width)
        self.linear1 = nn.Linear(width, width)
        self.linear2 = nn.Linear(width, width)

    def forward(self, x, time):
        h = self.linear1(F.silu(x)) + self.time(time)
        return x + self.linear2(F.silu(h))


class ToyPaper(nn.Module):
    def __init__(self, shape, width, depth, time, scale):
        super().__init__()
        numbers = math.prod(shape)
        self.time = nn.ModuleDict({"features": Features(time, scale), "linear": nn.Linear(time, time)})
        self.input = nn.Linear(numbers, width)
        self.encoder = nn.ModuleList([ToyBlock(width, time) for _ in range(depth)])
        self.decoder = nn.ModuleList([ToyBlock(width, time) for _ in range(depth)])
        self.output = nn.ModuleDict({"linear": nn.Linear(width, numbers)})

    def forward(self, x, t):
        time = F.silu(self.time["linear"](self.time["features"](t)))
        h = self.input(x)
        for block in [*self.encoder, *self.decoder]:
            h = block(h, time)
        return self.output["linear"](F.silu(h))


class ToyCode(nn.Module):
    def __init__(self, shape, width, depth, time, scale):
        super().__init__()
        numbers = math.prod(shape)
        self.time = nn.ModuleDict(
            {"features": Features(time, scale), "0": nn.Linear(time, time), "1": nn.Linear(time, time)}
        )
        sizes = [numbers + time, *[width] * (depth - 1), numbers]
        self.linear = nn.ModuleList([nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])])

    def forward(self, x, t):
        t = F.silu(self.time["1"](F.silu(self.time["0"](self.time["features"](t)))))
        h = torch.cat([x, t], dim=1)
        for linear in self.linear[:-1]:
            h = F.silu(linear(h))
        return self.linear[-1](h)


def build(settings, shape):
    settings = dict(settings)
    kind = settings.pop("kind")
    if kind == "toy":
        kind = settings.pop("form")
    return {"unet": Unet, "mlp": Mlp, "paper": ToyPaper, "code": ToyCode}[kind](shape, **settings)


def named(tensors):
    """Renames and reshapes the tensors of a module's state to those of mem2gen's files: q, k and v are separate tensors,
    and 1x1 convolutions are matrices."""
    out = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach()
        if tensor.dim() == 4 and tensor.shape[2:] == (1, 1):
            tensor = tensor[:, :, 0, 0]
        if ".qkv." in name:
            for letter, part in zip("qkv", tensor.chunk(3)):
                out[name.replace(".qkv.", f".{letter}.")] = part
        else:
            out[name] = tensor
    return out
