#!/usr/bin/env python3
"""Agglomerative clusters of scikit-learn, by Ward's linkage and a distance threshold.

Needs numpy and scikit-learn; run once. Writes ward.json to its own folder: points, and for several thresholds the label of
each point, numbered in the order of first appearance, because scikit-learn's own numbers are arbitrary. Each threshold is
in the middle between two merges, so that rounding has no effect.
"""

import json
from pathlib import Path

import numpy as np
from sklearn.cluster import AgglomerativeClustering


def renamed(labels):
    seen = {}
    return [seen.setdefault(int(label), len(seen)) for label in labels]


rng = np.random.RandomState(11)
angle = rng.uniform(0.0, 2.0 * np.pi, 90)
ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.05 * rng.normal(size=(90, 2))
cloud = rng.normal(size=(60, 5))
cases = []
for points in (ring.round(6), cloud.round(6)):
    tree = AgglomerativeClustering(n_clusters=None, distance_threshold=0.0).fit(points)
    merges = np.sort(tree.distances_)
    cuts = []
    for clusters in (40, 12, 5, 2, 1):
        at = len(points) - clusters
        above = merges[at] if at < len(merges) else merges[-1] + 2.0
        threshold = float(0.5 * (merges[at - 1] + above))
        fit = AgglomerativeClustering(n_clusters=None, distance_threshold=threshold).fit(points)
        assert fit.n_clusters_ == clusters
        cuts.append({"threshold": threshold, "label": renamed(fit.labels_)})
    cases.append({"points": points.tolist(), "cuts": cuts})
Path(__file__).with_name("ward.json").write_text(json.dumps(cases) + "\n")
