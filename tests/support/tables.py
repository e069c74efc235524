"""Tables made by hand, and what a page needs beside them."""

from __future__ import annotations

import csv

import numpy as np

from anystar_batch.report.digest import Frame, digest_table

FRAME = Frame((40, 80, 100), (2.0, 1.0, 0.5), "0", 0.5)


def random_rows(count, seed=0, *, shape=FRAME.shape, times=None, radius=(3, 6)):
    """Boxes anywhere in a volume, cut at its border; sizes and probabilities at random."""
    rng = np.random.default_rng(seed)
    rows = []
    for label in range(1, count + 1):
        centre, r = rng.uniform(0, shape), rng.uniform(*radius)
        low = np.maximum(np.floor(centre - r), 0).astype(int)
        high = np.minimum(np.ceil(centre + r), shape).astype(int)
        row = {"label": label} | ({} if times is None else {"t": int(rng.integers(times))})
        row |= {f"centroid_{a}": c for a, c in zip("zyx", centre, strict=True)}
        row |= {f"centroid_{a}_um": c for a, c in zip("zyx", centre, strict=True)}
        for a, lo, hi in zip("zyx", low, high, strict=True):
            row |= {f"bbox_{a}_min": lo, f"bbox_{a}_max": hi}
        touches = bool((low == 0).any() or (high == shape).any())
        row |= {
            "num_voxels": max(1, round(4.19 * r**3)),
            "volume_um3": 4.19 * r**3,
            "equivalent_diameter_um": 2 * r,
            "prob": rng.uniform(0.5, 0.9),
            "touches_border": int(touches),
            "intensity_mean_0": rng.uniform(100, 200),
            "intensity_max_0": float(rng.integers(300, 4000)),
        }
        rows.append(row)
    return rows


def write_table(path, rows):
    """Write rows as the command does: a header, numbers, line ends of Unix."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def digest_of(folder, rows, frame=FRAME):
    return digest_table(write_table(folder / "t.csv", rows), frame)
