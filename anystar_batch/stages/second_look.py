"""Whether survivors are looked at once more, with which refiner, and in which voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from anystar_batch.archive.images import ImageReader
from anystar_batch.archive.ngff import channel_index
from anystar_batch.config import ResultConfig
from anystar_batch.errors import ConfigError
from anystar_batch.geometry import ZYXFloat, as_triple
from anystar_batch.network.model import (
    DEFAULT_MODEL,
    Model,
    RefinerInfo,
    bundled_models,
    refiner_info,
)
from anystar_batch.network.refiner import level_to_read
from anystar_batch.network.scale import LevelMap, WorkingScale
from anystar_batch.stages.sampling import level_position


@dataclass(frozen=True, slots=True)
class SecondLook:
    """What survivors are looked at with once more, and in which voxels.

    Parameters
    ----------
    refiner : RefinerInfo
    level : int
        Level that is read.
    scale, offset : (z, y, x)
        Level coordinate = working coordinate * `scale` + `offset`, voxels.
    one_network : bool
        Whether the network for large objects looks at small ones too.
    """

    refiner: RefinerInfo
    level: int
    scale: ZYXFloat
    offset: ZYXFloat
    one_network: bool = False


def wanted_refiner(model: Model, config: ResultConfig) -> RefinerInfo | None:
    """Return the refiner that options and model ask for; None for none.

    Raises
    ------
    ConfigError
        If `--refine on` is asked for and there is none, or `--min-quality` or `--outline` without
        one.
    """
    refiner = None if config.refine == "off" else model.refiner
    if refiner is None and config.refine == "on":
        folder = bundled_models().get(DEFAULT_MODEL)
        refiner = None if folder is None else refiner_info(folder)
        if refiner is None:
            message = (
                f"--refine: got on, but neither {model.name} nor {DEFAULT_MODEL} has a refiner"
            )
            raise ConfigError(message)
    for name, value in (("min-quality", config.filters.min_quality), ("outline", config.outline)):
        if refiner is None and value is not None:
            message = (
                f"--{name}: got {value:g}, but there is no second look (model {model.name}, "
                f"--refine {config.refine}); give --refine on, or leave it out"
            )
            raise ConfigError(message)
    return refiner


def refiner_json(model: Model, config: ResultConfig) -> dict[str, object]:
    """Return what a second look adds to the parts of the fingerprint."""
    refiner = wanted_refiner(model, config)
    if refiner is None:
        return {}
    return {"refiner": refiner.sha256, "quality_cut": refiner.quality_cut}


def plan_look(  # noqa: PLR0913
    reader: ImageReader,
    model: Model,
    config: ResultConfig,
    working: WorkingScale,
    level: LevelMap,
    scales: Sequence[ZYXFloat],
    diameter_um: float | None,
    reference: int,
) -> SecondLook | None:
    """Return where to look once more at all survivors; None without a refiner.

    At any size: objects that the network saw as large as the image shows them gain as others do
    (docs/second-look.md).

    Parameters
    ----------
    reader : ImageReader
        The image.
    model : Model
    config : ResultConfig
    working : WorkingScale
    level : LevelMap
        Where the voxels of the working level lie in level 0.
    scales : sequence of (z, y, x)
        Voxel size of every level, micrometres.
    diameter_um : float or None
        Of the objects; None: native scale.
    reference : int
        Time where to look for texture.

    Returns
    -------
    SecondLook or None

    Raises
    ------
    ConfigError
        As `wanted_refiner`.
    """
    refiner = wanted_refiner(model, config)
    scale0, offset0 = working.to_level0(level)
    if refiner is None:
        return None
    readable = reader.source.readable
    chosen = 0
    if diameter_um is not None:
        chosen = readable[level_to_read(diameter_um, [scales[k] for k in readable])]
    channel = channel_index(reader.source, config.channel)
    at = level_position(reader, chosen, reference, channel)
    scale = as_triple(s / step for s, step in zip(scale0, at.step, strict=True))
    offset = as_triple(
        (o - first) / step for o, first, step in zip(offset0, at.offset, at.step, strict=True)
    )
    return SecondLook(refiner, chosen, scale, offset)
