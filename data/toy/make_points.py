#!/usr/bin/env python3
"""The first 1000 training points of the toy model, as the paper's public code draws them.

60,000 angles from numpy's legacy generator with seed 9, on the unit circle; a training set of size K is
the first K of torch's random_split permutation under a generator of seed 42, so the sets are nested.

Needs numpy and torch; run once. Writes points.npy (float64, [1000, 2]) to its own folder.
"""

from pathlib import Path

import numpy as np
import torch

TOTAL, KEPT = 60_000, 1_000

rng = np.random.RandomState(9)
angles = rng.uniform(0.0, 2.0 * np.pi, TOTAL)
split, _ = torch.utils.data.random_split(
    range(TOTAL), [KEPT, TOTAL - KEPT], generator=torch.Generator().manual_seed(42)
)
chosen = angles[np.asarray(split.indices)]
points = np.stack([np.cos(chosen), np.sin(chosen)], axis=1)

print("indices", split.indices[:9])
print("angles in degrees", np.degrees(chosen[:9]).round(2))
np.save(Path(__file__).with_name("points.npy"), points)
