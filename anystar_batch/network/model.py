"""Find a model's folder and read what the pipeline must know of it, without TensorFlow.

A model is a StarDist-3D folder: `config.json`, `thresholds.json`, `weights_best.h5`, and, for our
own models, `provenance.json` with the object size the network was made for. A foreign StarDist-3D
folder has no provenance; then objects keep their size in voxels unless the user gives a diameter.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anystar_batch.errors import AnyStarBatchError, ModelError, did_you_mean
from anystar_batch.geometry import ZYX
from anystar_batch.network.intensity import HIGH_PERCENTILE, LOW_PERCENTILE
from anystar_batch.network.unet import UNetConfig

DEFAULT_MODEL = "anystar-mix"
WEIGHTS = "weights_best.h5"
_ROOTS = (
    Path(__file__).parent.parent / "_models",  # inside the wheel
    Path(__file__).parent.parent.parent / "models",  # a checkout
)


@dataclass(frozen=True, slots=True)
class RefinerInfo:
    """What the pipeline knows of a refiner before it is loaded.

    Parameters
    ----------
    folder : str
        Where its files are.
    sha256 : str
        Digest of its arrays: its identity.
    quality_cut : float
        Quality below which a find is texture.
    """

    folder: str
    sha256: str
    quality_cut: float


@dataclass(frozen=True, slots=True)
class Model:
    """What the pipeline knows of a model.

    Parameters
    ----------
    name, version : str
        Name and version; the folder's name and an empty version for a foreign model.
    folder : str
        Where its files are.
    sha256 : str
        Digest of configuration and weights: the model's identity.
    unet : UNetConfig
        Shape of the network.
    rays_json : str
        StarDist's description of the rays, as JSON text.
    prob_thresh, nms_thresh : float
        Default thresholds.
    diameter : float or None
        Diameter of the objects the network is made for, working voxels; None: unknown.
    max_radius : float
        Longest ray of a believable candidate, working voxels.
    tile, context : int
        Default core edge and context of a tile, working voxels.
    low_percentile, high_percentile : float
        Percentiles of the image that become 0 and 1.
    refiner : RefinerInfo or None
        Of the second look; None where the folder has none.
    """

    name: str
    version: str
    folder: str
    sha256: str
    unet: UNetConfig
    rays_json: str
    prob_thresh: float
    nms_thresh: float
    diameter: float | None
    max_radius: float
    tile: int
    context: int
    low_percentile: float
    high_percentile: float
    refiner: RefinerInfo | None = None

    @property
    def divisor(self) -> ZYX:
        """What the network's input shape must be a multiple of, voxels."""
        return self.unet.divisor()

    @property
    def grid(self) -> ZYX:
        """Working voxels per voxel of output."""
        return self.unet.grid


def bundled_models() -> dict[str, Path]:
    """Return the folder of every model that came with this installation, by name."""
    folders: dict[str, Path] = {}
    for root in _ROOTS:
        for weights in sorted(root.glob(f"*/{WEIGHTS}")):
            folders.setdefault(weights.parent.name, weights.parent)
    return folders


def load_model(name: str) -> Model:
    """Read a model's description.

    Parameters
    ----------
    name : str
        Name of a bundled model, or path of a StarDist-3D model folder.

    Returns
    -------
    Model

    Raises
    ------
    ModelError
        If there is no such model, a file is missing or damaged, the weights are not those the
        provenance speaks of, or the network is not a StarDist-3D network with one channel.
    """
    bundled = bundled_models()
    folder = bundled.get(name, Path(name))
    if not folder.is_dir():
        names = ", ".join(bundled) or "none"
        message = (
            f"model: no bundled model and no folder {name!r}; bundled here: {names}; expected one "
            f"of these names or the path of a StarDist-3D model folder{did_you_mean(name, bundled)}"
        )
        raise ModelError(message)
    weights = folder / WEIGHTS
    for path in (folder / "config.json", weights):
        if not path.is_file():
            message = (
                f"model: {path} is missing; a StarDist-3D folder holds config.json and {WEIGHTS}"
            )
            raise ModelError(message)
    config = _read_json(folder / "config.json")
    thresholds = _read_json(folder / "thresholds.json")
    provenance = _read_json(folder / "provenance.json")
    _check_digests(folder, provenance.get("sha256"))
    try:
        unet = UNetConfig.from_stardist(config)
        intensity = provenance.get("intensity", {})
        step = max(unet.divisor())
        return Model(
            name=str(provenance.get("name", folder.resolve().name)),
            version=str(provenance.get("version", "")),
            folder=str(folder.resolve()),
            sha256=_digest(folder / "config.json", weights),
            unet=unet,
            rays_json=json.dumps(config["rays_json"]),
            prob_thresh=float(thresholds.get("prob", 0.5)),
            nms_thresh=float(thresholds.get("nms", 0.3)),
            diameter=_optional_float(provenance.get("diameter")),
            max_radius=float(provenance.get("max_radius", 64.0)),
            tile=int(provenance.get("tile", -(-96 // step) * step)),
            context=int(provenance.get("context", -(-32 // step) * step)),
            low_percentile=float(intensity.get("low_percentile", LOW_PERCENTILE)),
            high_percentile=float(intensity.get("high_percentile", HIGH_PERCENTILE)),
            refiner=refiner_info(folder),
        )
    except AnyStarBatchError as error:
        message = f"model: {folder}: {error}"
        raise ModelError(message) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        message = (
            f"model: {folder} cannot be understood ({type(error).__name__}: {error}); expected the "
            "files of a StarDist-3D model"
        )
        raise ModelError(message) from error


def refiner_info(folder: Path) -> RefinerInfo | None:
    """Read the description of the refiner in a model folder; None if it has none.

    Raises
    ------
    ModelError
        If it cannot be understood; `refiner.load_refiner` compares the arrays with it.
    """
    if not (folder / "refiner.npz").is_file():
        return None
    document = _read_json(folder / "refiner.json")
    try:
        cut, digest = float(document["quality_cut"]), str(document["arrays_sha256"])
    except (KeyError, TypeError, ValueError) as error:
        message = (
            f"model: {folder / 'refiner.json'} cannot be understood ({type(error).__name__}: "
            f"{error}); expected what `python -m trainer refine export` writes"
        )
        raise ModelError(message) from error
    return RefinerInfo(str(folder.resolve()), digest, cut)


def _check_digests(folder: Path, digests: object) -> None:
    """Raise if a file is not the one the provenance speaks of."""
    if not isinstance(digests, Mapping):
        return
    for name, expected in digests.items():
        path = folder / Path(str(name)).name
        actual = _digest(path) if path.is_file() else "missing"
        if actual != expected:
            message = (
                f"model: {path} has SHA-256 {actual[:12]}, provenance.json says "
                f"{str(expected)[:12]}; the model is damaged or was changed: install it again"
            )
            raise ModelError(message)


def _digest(*paths: Path) -> str:
    """The SHA-256 of some files, one after the other; read again where one has changed."""
    states = (path.stat() for path in paths)
    return _digest_of(tuple(
        (str(path), state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        for path, state in zip(paths, states, strict=True)
    ))  # fmt: skip


@functools.lru_cache(maxsize=64)
def _digest_of(files: tuple[tuple[str, int, int, int, int, int], ...]) -> str:
    """The SHA-256 of some files, by path and what `stat` says of them."""
    digest = hashlib.sha256()
    for path, *_ in files:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    """The document, empty if there is none."""
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        message = f"model: {path} is no JSON: {error}"
        raise ModelError(message) from error
    if not isinstance(document, dict):
        message = f"model: {path} holds {type(document).__name__}; expected a JSON object"
        raise ModelError(message)
    return document


def _optional_float(value: object) -> float | None:
    return None if value is None else float(str(value))
