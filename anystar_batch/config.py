"""What a user asks of a run: checked once, here, and trusted below.

`ResultConfig` holds what changes the result and enters the fingerprint; `RunConfig` holds how the
work is done, and never changes a byte of it.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field, fields

from anystar_batch.address import absolute, image_stem, parent
from anystar_batch.errors import ConfigError, did_you_mean
from anystar_batch.geometry import ZYX, ZYXFloat
from anystar_batch.parsing import Quantity, parse_times

_LABEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

MAX_SCALE, ELONGATIONS = 4, (0.25, 4.0)
"""Coarsest scale beside the working voxel, in working voxels; least and most elongation."""

PRECISIONS, BACKENDS = ("auto", "float32", "bfloat16"), ("tensorflow", "jax")
"""Precisions of the network that a user may ask for, and what it may run under."""

REFINE, LIMITS = ("auto", "on", "off"), ("global", "local")
"""When there is a second look; whether one pair of limits holds, or they follow the image."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What an object must have to be kept: size, certainty, contrast, shape; None asks for nothing.

    A filter acts on survivors: it only removes, and what it removes has suppressed its rivals
    before. How each value is measured: `stars/measures.py`; what each is for: `docs/filters.md`.

    Parameters
    ----------
    min_volume, max_volume : Quantity or None
        Least and largest volume of the star itself.
    min_prob : float or None
        Least object probability, 0 to 1.
    min_quality : float or None
        Least IoU that the second look expects of the outline, 0 to 1. None is the model's cut.
    min_contrast : float or None
        Least contrast to the surroundings, see `stars.measures.contrasts`. 0 removes nothing, and
        has the contrast written to the table.
    min_regularity : float or None
        Least share of its convex hull that the star fills, 0 to 1. 0 as above.
    """

    min_volume: Quantity | None = None
    max_volume: Quantity | None = None
    min_prob: float | None = None
    min_contrast: float | None = None
    min_regularity: float | None = None
    min_quality: float | None = None

    def __post_init__(self) -> None:
        for name, share in (
            ("min-prob", self.min_prob),
            ("min-regularity", self.min_regularity),
            ("min-quality", self.min_quality),
        ):
            if share is not None and not 0.0 <= share <= 1.0:
                message = f"--{name}: got {share:g}; expected 0 to 1"
                raise ConfigError(message)
        if self.min_contrast is not None and not 0.0 <= self.min_contrast < math.inf:
            message = (
                f"--min-contrast: got {self.min_contrast:g}; expected 0 or more, in standard "
                "deviations (dark objects have a positive contrast too)"
            )
            raise ConfigError(message)
        if self.min_volume and self.max_volume and self.min_volume.unit == self.max_volume.unit:
            self.volume_range((1.0, 1.0, 1.0))

    def volume_range(self, scale_um: ZYXFloat) -> tuple[float, float]:
        """Return the least and the largest volume, level-0 voxels.

        Parameters
        ----------
        scale_um : (z, y, x)
            Level-0 voxel size, micrometres.

        Raises
        ------
        ConfigError
            If no volume lies between them.
        """
        least = 0.0 if self.min_volume is None else self.min_volume.in_voxels(scale_um)
        most = math.inf if self.max_volume is None else self.max_volume.in_voxels(scale_um)
        if least > most:
            message = (
                f"--min-volume: got {self.min_volume}, more than --max-volume {self.max_volume}; "
                "expected at most that: no object would be left"
            )
            raise ConfigError(message)
        return least, most

    def __str__(self) -> str:
        """Return the filters that were given as the options that give them."""
        given = ((f.name.replace("_", "-"), getattr(self, f.name)) for f in fields(self))
        return " ".join(f"--{name} {value}" for name, value in given if value is not None)

    def to_json(self) -> dict[str, object]:
        """Return the filters that were given as plain JSON values; none give an empty one."""
        volumes = {"min_volume": self.min_volume, "max_volume": self.max_volume}
        numbers = ("min_prob", "min_quality", "min_contrast", "min_regularity")
        found: dict[str, object] = {k: [v.value, v.unit] for k, v in volumes.items() if v}
        return found | {k: v for k in numbers if (v := getattr(self, k)) is not None}


@dataclass(frozen=True, slots=True)
class Inside:
    """Where to segment: in the regions of a label or mask.

    Parameters
    ----------
    name : str
        A label of the image, or a path: what has a slash or ends in `.zarr`.
    ids : tuple of (first, last)
        Ranges of the regions' numbers that count; none: every number but 0.
    """

    name: str
    ids: tuple[tuple[int, int], ...] = ()

    @property
    def is_path(self) -> bool:
        """Whether it names a place, and not a label of the image."""
        return "/" in self.name or self.name.endswith(".zarr")

    def __str__(self) -> str:
        """Return it as the option takes it."""
        parts = ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in self.ids)
        return f"{self.name}:{parts}" if parts else self.name


@dataclass(frozen=True, slots=True)
class ResultConfig:
    """Options that change the result.

    Parameters
    ----------
    channel : str
        Index or name of the channel to segment.
    time : str
        Time points to segment, see `parse_times`; with a reference time, those to measure.
    reference_time : int or None
        The one time point to segment; the intensities of what is found there are measured at every
        `time`. None segments every `time`.
    diameter : Quantity or None
        None lets the probe propose it.
    elongation : float or None
        Length of the objects along z over that across; None: as probed, 1 with a diameter.
    voxel_size : (z, y, x) or None
        Level-0 voxel size, micrometres, instead of the image's own.
    prob_thresh, nms_thresh : float or None
        None takes the model's.
    tile : int or None
        Core edge of a tile, working voxels; None takes the model's.
    filters : Filters
        Which survivors to keep.
    scales : tuple of int
        Scales the network looks at, as multiples of the working voxel, the first 1; objects found
        at one are suppressed by those found at another.
    precision : {"auto", "float32", "bfloat16"}
        Of the network; `auto` takes what the machine computes fastest, and goes on with what an
        unfinished or published result was begun with.
    backend : {"tensorflow", "jax"}
        What the network runs under.
    measure : tuple of str
        Further columns of the table, out of `MEASURES`.
    multiscale : str or None
        Name or index of one of several multiscales of the image's group; None is the first.
    refine : {"auto", "on", "off"}
        The second look: `auto` where the model has a refiner; `on` with the bundled refiner where
        the model has none.
    outline : float or None
        Share of the fall of an object's mean profile at which its surface is put, 0 to 1; None is
        the visible surface.
    expand : Quantity or None
        How far surfaces are moved outward, or inward if negative.
    level : int or None
        Level that the network reads; None chooses among those that show what level 0 shows.
    limits : {"global", "local"}
        Intensity limits: one pair for a volume, or following it, where parts are very dim.
    inside : Inside or None
        Regions in which an object's point must lie; None is all of the image.
    """

    channel: str = "0"
    time: str = "all"
    diameter: Quantity | None = None
    voxel_size: ZYXFloat | None = None
    prob_thresh: float | None = None
    nms_thresh: float | None = None
    tile: int | None = None
    filters: Filters = field(default_factory=Filters)
    scales: tuple[int, ...] = (1,)
    precision: str = "auto"
    backend: str = "tensorflow"
    reference_time: int | None = None
    measure: tuple[str, ...] = ()
    refine: str = "auto"
    outline: float | None = None
    expand: Quantity | None = None
    multiscale: str | None = None
    level: int | None = None
    limits: str = "global"
    inside: Inside | None = None
    elongation: float | None = None

    def segmented_times(self, count: int) -> tuple[int, ...]:
        """Return the time points to segment, of an image that has so many.

        Raises
        ------
        ConfigError
            If the image has no such time.
        """
        if self.reference_time is None:
            return parse_times(self.time, count)
        if self.reference_time >= count:
            message = (
                f"--reference-time: got {self.reference_time}; the image has times 0 to {count - 1}"
            )
            raise ConfigError(message)
        return (self.reference_time,)

    def course(self, count: int) -> tuple[int, ...]:
        """Return the times at which what was found at the reference time is measured."""
        return () if self.reference_time is None else parse_times(self.time, count)

    def __post_init__(self) -> None:
        for name, value in (
            ("prob-thresh", self.prob_thresh),
            ("nms-thresh", self.nms_thresh),
            ("outline", self.outline),
        ):
            if value is not None and not 0.0 < value < 1.0:
                message = f"--{name}: got {value:g}; expected more than 0 and less than 1"
                raise ConfigError(message)
        if self.voxel_size is not None and not all(0 < v < math.inf for v in self.voxel_size):
            message = f"--voxel-size: got {self.voxel_size}; expected three positive micrometres"
            raise ConfigError(message)
        if list(self.scales) != sorted({1, *self.scales} - {0}) or self.scales[-1] > MAX_SCALE:
            message = (
                f"--scales: got {','.join(map(str, self.scales))}; expected 1 and multiples of it "
                f"up to {MAX_SCALE}, such as 1,2"
            )
            raise ConfigError(message)
        for name, choice, known in (
            ("precision", self.precision, PRECISIONS),
            ("backend", self.backend, BACKENDS),
            ("refine", self.refine, REFINE),
            ("limits", self.limits, LIMITS),
        ):
            if choice not in known:
                near = did_you_mean(choice, known)
                message = f"--{name}: got {choice!r}; expected {' or '.join(known)}{near}"
                raise ConfigError(message)
        for name, number, least, what in (
            ("level", self.level, 0, "0 (full resolution) or more"),
            ("reference-time", self.reference_time, 0, "0 or more"),
            ("tile", self.tile, 1, "a positive number of voxels"),
        ):
            if number is not None and number < least:
                raise ConfigError(f"--{name}: got {number}; expected {what}")
        low, high = ELONGATIONS
        if self.elongation is not None and not low <= self.elongation <= high:
            message = f"--elongation: got {self.elongation:g}; expected {low:g} to {high:g}"
            raise ConfigError(message)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Options that change how the work is done, and never the result.

    Parameters
    ----------
    block_shape : (z, y, x) or None
        Level-0 voxels of a block, rounded up to whole tiles or whole shards; None chooses.
    memory : int or None
        Bytes that all processes together may take; None takes 80 % of what is free.
    workers : int or None
        Processes; 1 works in this one, None chooses by cores, memory and GPUs.
    scheduler : str or None
        Running Dask cluster that does the work instead: an address, or a scheduler file.
    work_dir : str or None
        Place of ledger and intermediate files, made absolute; None is beside the output.
    overwrite, restart : bool
        Replace a published label of the same name; throw away what an unfinished run left.
    keep_work : bool
        Leave the work directory after success.
    table, report, stars : bool
        Put the table into the image too, as ngio and Fractal read it; write a page that shows the
        result; publish the stars within the label.
    keep_candidates, keep_above : bool, float or None
        Leave raw candidates beside the image; also those above a lower probability.
    part : (index, count) or None
        Do only one part of the network's work, counted from 1, and publish nothing.
    """

    block_shape: ZYX | None = None
    memory: int | None = None
    workers: int | None = None
    scheduler: str | None = None
    work_dir: str | None = None
    overwrite: bool = False
    restart: bool = False
    keep_work: bool = False
    table: bool = False
    report: bool = True
    stars: bool = False
    keep_candidates: bool = False
    keep_above: float | None = None
    part: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.part is not None and not 1 <= self.part[0] <= self.part[1]:
            message = (
                f"--part: got {self.part[0]}/{self.part[1]}; expected I/N with I from 1 to N, such "
                "as 3/8 (job arrays that count from 0: add 1)"
            )
            raise ConfigError(message)
        if self.keep_above is not None and not 0.0 < self.keep_above < 1.0:
            message = f"--keep-above: got {self.keep_above:g}; expected more than 0, less than 1"
            raise ConfigError(message)
        if self.work_dir is not None:
            object.__setattr__(self, "work_dir", absolute(self.work_dir))
        if self.workers is not None and self.workers < 1:
            message = f"--workers: got {self.workers}; expected at least 1"
            raise ConfigError(message)
        if self.scheduler is not None and self.workers is not None:
            message = "--workers and --scheduler contradict each other: the cluster has its workers"
            raise ConfigError(message)
        if self.block_shape is not None and any(n < 1 for n in self.block_shape):
            message = f"--block-shape: got {self.block_shape}; expected three positive numbers"
            raise ConfigError(message)

    def kept_above(self, prob_thresh: float) -> float | None:
        """Return above which probability candidates of a run are kept; None keeps none."""
        if self.keep_above is None:
            return prob_thresh if self.keep_candidates else None
        return min(self.keep_above, prob_thresh)


@dataclass(frozen=True, slots=True)
class SegmentConfig:
    """One run over one image; its paths become absolute, and are trusted below.

    Parameters
    ----------
    image : str
        Path or address of one OME-Zarr image (a series, not a container).
    label : str
        Name of the label.
    output : str or None
        Directory or address for everything the run writes; None writes into and beside the image.
    home : str
        Directory beside which results lie without `output`; empty is the image's parent.
    stem : str
        Name of the image in the names of files, without extension; empty is taken from `image`.
    stats : str or None
        CSV file; None is `<stem>.<label>.csv` beside the image or in `output`.
    model : str
        Name of a bundled model, or a StarDist-3D model folder.
    result : ResultConfig
    run : RunConfig
    """

    image: str
    label: str = "anystar"
    output: str | None = None
    home: str = ""
    stem: str = ""
    stats: str | None = None
    model: str = "anystar-mix"
    result: ResultConfig = field(default_factory=ResultConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        if not _LABEL_NAME.fullmatch(self.label):
            message = (
                f"--label: got {self.label!r}; expected letters, digits, '.', '_' or '-', "
                "starting with a letter or a digit"
            )
            raise ConfigError(message)
        object.__setattr__(self, "image", absolute(self.image))
        if self.output is not None:
            object.__setattr__(self, "output", absolute(self.output))
        if not self.stem:
            object.__setattr__(self, "stem", image_stem(self.image))
        if not self.home:
            object.__setattr__(self, "home", parent(self.image))

    def to_json(self) -> dict[str, object]:
        """Return every option as plain JSON values."""
        return asdict(self)
