#!/usr/bin/env python3
"""Writes the three image sets of README's example of `mem2gen classify` to a folder: train.npy, samples.npy, test.npy.

    python3 tools/classify_demo.py FOLDER

train.npy has 2000 MNIST digits from data/cache/mnist (`mem2gen data fetch mnist`), samples.npy 60 noisy copies of them, 40
noisy copies of 8 blends of three digits each, and 100 new digits, and test.npy 3000 held-out digits.
"""

import random
import struct
import sys
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent / "data/cache/mnist"


def images(path: Path) -> list[bytes]:
    data = path.read_bytes()
    count, height, width = struct.unpack(">III", data[4:16])
    return [data[16 + i * height * width : 16 + (i + 1) * height * width] for i in range(count)]


def write(path: Path, rows: list[bytes]) -> None:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({len(rows)}, 28, 28), }}"
    text = text.ljust(64 * 2 - 10 - 1) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + b"".join(rows))


def noisy(image: bytes, scale: float) -> bytes:
    return bytes(max(0, min(255, round(v + random.gauss(0, scale)))) for v in image)


def blend(group: list[bytes]) -> bytes:
    return bytes(sum(values) // len(group) for values in zip(*group))


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    if not CACHE.is_dir():
        print("classify_demo: data/cache/mnist is missing; run `mem2gen data fetch mnist`", file=sys.stderr)
        return 1
    train, test = images(CACHE / "train-images-idx3-ubyte"), images(CACHE / "t10k-images-idx3-ubyte")
    random.seed(1)
    samples = [noisy(train[i], 6) for i in range(60)]
    samples += [noisy(blend([train[100 + 8 * j + k] for k in range(3)]), 3) for j in range(8) for _ in range(5)]
    samples += test[:100]
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train[:2000]), ("samples", samples), ("test", test[1000:4000])):
        write(folder / f"{name}.npy", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
