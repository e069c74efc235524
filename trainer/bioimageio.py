"""A model folder as a package of the BioImage Model Zoo (bioimage.io, model specification 0.5).

::

    OUT.zip/rdf.yaml              what the network takes and gives, and the test
    OUT.zip/weights.keras         the network as built here, Keras 3 on TensorFlow
    OUT.zip/test_input.npy        a phantom, raw intensities
    OUT.zip/test_prob.npy, test_dist.npy
    OUT.zip/weights_best.h5, config.json, thresholds.json    what StarDist loads, as attachments
    OUT.zip/README.md

The outputs are the network's own, object probability and 96 distances, before suppression: what
comes after is this package's or StarDist's work. `bioimageio test OUT.zip` runs the test.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from anystar_batch.errors import OutputExistsError
from trainer.export import load, phantom

FORMAT = "0.5.12"
"""Version of the specification."""

PHANTOM_EDGE = 40
"""Edge of the test input, voxels."""

EPSILON = 1e-6
"""What the specification adds to the range of intensities, so that a constant one is no error."""


def write_bioimageio(folder: Path, out: Path) -> None:
    """Write the package.

    Parameters
    ----------
    folder : Path
        Model folder.
    out : Path
        Zip file, not there yet.

    Raises
    ------
    ModelError
        If a file of the model is missing.
    OutputExistsError
        If the file exists.
    """
    if out.exists():
        message = f"{out} exists already; give another name, or delete it first"
        raise OutputExistsError(message)
    model, network = load(folder)
    about = json.loads((folder / "provenance.json").read_text())
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as made:
        place = Path(made)
        step = max(network.divisor())
        raw = _test_input(float(about["diameter"]), step)
        prob, dist = model.predict(_normalised(raw, about["intensity"]), verbose=0)
        np.save(place / "test_input.npy", raw)
        np.save(place / "test_prob.npy", np.asarray(prob, np.float32))
        np.save(place / "test_dist.npy", np.asarray(dist, np.float32))
        model.save(place / "weights.keras")
        for name in ("weights_best.h5", "config.json", "thresholds.json"):
            shutil.copy(folder / name, place / name)
        (place / "README.md").write_text(_readme(about))
        document = _description(folder, about, step, network.n_rays)
        (place / "rdf.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
        whole = place / "package.zip"
        files = sorted(path for path in place.iterdir() if path != whole)
        with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as package:
            for path in files:
                package.write(path, path.name)
        whole.replace(out)


def _test_input(diameter: float, step: int) -> NDArray[np.float32]:
    """The phantom, whole steps of the network, as a camera might store it: (1, z, y, x, 1)."""
    image = phantom(diameter)[0]
    edge = min(PHANTOM_EDGE, *image.shape) // step * step
    counts = np.rint(100.0 + 4000.0 * image[:edge, :edge, :edge]).astype(np.float32)
    return np.ascontiguousarray(counts[None, ..., None])


def _normalised(raw: NDArray[np.float32], intensity: dict[str, float]) -> NDArray[np.float32]:
    """Do what `scale_range` and `clip` of the specification do."""
    low, high = np.percentile(raw, [intensity["low_percentile"], intensity["high_percentile"]])
    return np.asarray(np.clip((raw - low) / (high - low + EPSILON), 0.0, 1.0), np.float32)


def _description(folder: Path, about: dict[str, Any], step: int, n_rays: int) -> dict[str, Any]:
    """Return the content of `rdf.yaml`."""
    import keras  # noqa: PLC0415  (10 s; not for --help)
    import tensorflow as tf  # noqa: PLC0415

    config = json.loads((folder / "config.json").read_text())
    thresholds = json.loads((folder / "thresholds.json").read_text())
    grid = dict(zip("zyx", config["grid"], strict=True))
    size = {"min": 4 * step, "step": step}
    cite = "Star-convex Polyhedra for 3D Object Detection and Segmentation in Microscopy, WACV 2020"

    def output(name: str, what: str, channels: list[str]) -> dict[str, Any]:
        space = [
            {
                "type": "space",
                "id": axis,
                "scale": float(grid[axis]),
                "size": {"tensor_id": "raw", "axis_id": axis},
            }
            for axis in "zyx"
        ]
        return {
            "id": name,
            "description": what,
            "axes": [{"type": "batch"}, *space, {"type": "channel", "channel_names": channels}],
            "data": {"type": "float32"},
            "test_tensor": {"source": f"test_{name}.npy"},
        }

    space = [{"type": "space", "id": axis, "size": size} for axis in "zyx"]
    scale = {
        "axes": list("zyx"),
        "min_percentile": about["intensity"]["low_percentile"],
        "max_percentile": about["intensity"]["high_percentile"],
        "eps": EPSILON,
    }
    return {
        "format_version": FORMAT,
        "type": "model",
        "name": f"{about['name']} StarDist-3D",
        "version": f"{about['version']}.0",
        "description": "Zero-shot detection of star-convex objects in 3D images: StarDist-3D "
        "network trained on synthetic volumes alone",
        "authors": [{"name": "The anystar-batch authors"}],
        "license": "BSD-3-Clause",
        "tags": ["stardist", "3d", "nuclei", "instance-segmentation", "unet", "tensorflow"],
        "documentation": {"source": "README.md"},
        "cite": [
            {"text": cite, "doi": "10.1109/WACV45572.2020.9093435"},
            {
                "text": "AnyStar: Domain randomized universal star-convex 3D instance segmentation",
                "url": "https://arxiv.org/abs/2307.07044",
            },
        ],
        "inputs": [
            {
                "id": "raw",
                "description": "One channel, isotropic voxels, objects about "
                f"{about['diameter']:g} voxels wide",
                "axes": [
                    {"type": "batch"},
                    *space,
                    {"type": "channel", "channel_names": ["raw"]},
                ],
                "data": {"type": "float32"},
                "preprocessing": [
                    {"id": "scale_range", "kwargs": scale},
                    {"id": "clip", "kwargs": {"min": 0.0, "max": 1.0}},
                ],
                "test_tensor": {"source": "test_input.npy"},
            }
        ],
        "outputs": [
            output("prob", "Object probability", ["probability"]),
            output(
                "dist",
                "Distance to the surface along each ray, voxels of the input",
                [f"ray_{k}" for k in range(n_rays)],
            ),
        ],
        "weights": {
            "keras_v3": {
                "source": "weights.keras",
                "keras_version": keras.__version__,
                "backend": ["tensorflow", tf.__version__],
            }
        },
        "attachments": [
            {"source": name} for name in ("weights_best.h5", "config.json", "thresholds.json")
        ],
        "config": {
            "stardist": {
                "config": config,
                "thresholds": {"prob": thresholds["prob"], "nms": thresholds["nms"]},
                "weights": "weights_best.h5",
            },
            "anystar-batch": {
                key: about[key] for key in ("diameter", "diameter_range", "max_radius", "context")
            },
        },
    }


def _readme(about: dict[str, Any]) -> str:
    return (
        f"# {about['name']} {about['version']}\n\n"
        "A StarDist-3D network trained on synthetic volumes alone. Rescale the image so that "
        f"objects are about {about['diameter']:g} voxels wide, in isotropic voxels. The outputs "
        "are the network's own, on every second voxel: probability, and distances along the rays "
        "of StarDist's `Rays_GoldenSpiral`. Objects come of them by suppression: load the attached "
        "files with StarDist, or use anystar-batch, which reads OME-Zarr of any size, finds the "
        "scale, and joins blocks exactly.\n\n## Validation\n\n"
        "Scores on real and synthetic sets: `models/README.md` of anystar-batch.\n"
    )
