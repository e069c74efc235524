"""What the training of the second look is told: frozen, checked once, JSON there and back."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from anystar_batch.network.refiner_kernel import WIDTHS
from trainer.config_json import parse
from trainer.synthesis.config import Range, check


@dataclass(frozen=True, slots=True)
class SceneConfig:
    """Scenes: samples of the released recipe, seen by a microscope of their own.

    Parameters
    ----------
    edge : int
        Voxels of a scene per axis, before planes are left out.
    radius : Range
        Mean radius of a scene's objects, voxels.
    surface : Range
        Amplitude of the surfaces' noise over the radius.
    sparse : float
        Probability that almost all objects may be left out: what is found then is texture.
    clutter : float
        Probability of specks, fibres or sheets in the background.
    textured : float
        Probability of a background with structure of the objects' size (`negatives`).
    unequal : float
        Probability that objects differ in brightness up to `unequal_by`, dim beside bright.
    unequal_by : float
        Brightest over dimmest.
    stacked : float
        Probability of an anisotropic stack.
    blur : Range
        Spread of the optics over the mean radius; below 0 is none.
    axial_blur : Range
        The same along the stack's axis, on top.
    planes : Range
        Voxels from plane to plane.
    seen : float
        Share of its light at which a blurred object ends: its visible surface.
    """

    edge: int = 64
    radius: Range = (5.0, 15.0)
    surface: Range = (0.1, 0.8)
    sparse: float = 0.3
    clutter: float = 0.5
    textured: float = 0.35
    unequal: float = 0.25
    unequal_by: float = 6.0
    stacked: float = 0.5
    blur: Range = (0.0, 0.0)
    axial_blur: Range = (0.0, 0.25)
    planes: Range = (1.0, 4.0)
    seen: float = 0.35

    def __post_init__(self) -> None:
        check(self.edge >= 32, f"scene: got an edge of {self.edge} voxels; expected 32 or more")
        check(
            2.0 <= self.radius[0] <= self.radius[1],
            f"scene: got radius {self.radius}; expected 2 or more, smallest first",
        )


@dataclass(frozen=True, slots=True)
class SmallScenes:
    """Further scenes, of objects that the image shows as small as the first look sees them.

    Parameters
    ----------
    scene : SceneConfig
    seed, held_out_seed : int
        As of `RefineConfig`.
    scenes, held_out : int
        How many; 0: none.
    """

    scene: SceneConfig = dataclasses.field(
        default_factory=lambda: SceneConfig(edge=48, radius=(2.5, 5.5))
    )
    seed: int = 61
    held_out_seed: int = 1_000_061
    scenes: int = 0
    held_out: int = 0


@dataclass(frozen=True, slots=True)
class RefineConfig:
    """One training of the second look.

    Parameters
    ----------
    scene : SceneConfig
    small : SmallScenes
        Their shards come after the others.
    model : str
        First look: name of a bundled model, or a model folder.
    seed, held_out_seed : int
        Of the scenes that are trained on, and of those that are only scored.
    scenes, held_out : int
        How many.
    working : Range
        Working diameter of a scene, drawn uniformly, working voxels.
    squeezed : float
        Probability that a scene is looked at squeezed along axis 0, by as much as its objects are
        longer there than across: as the command looks at an image.
    prob_thresh, nms_thresh : float
        Of the first look: low, so that there is something to tell apart.
    shard : int
        Scenes in a file.
    widths : six int
        Channels of the network's layers, see `network.build`.
    sizes : Range
        Mean length of a find's rays, voxels of the image, between which finds are trained on and
        scored.
    batch, steps : int
        Finds a step, steps in all.
    rate : float
        Learning rate; falls by a half cosine to 0.
    false_share : float
        Share of a batch that are finds without an object.
    fed_back : float
        Share of a batch that starts from the network's own answer instead of the first look's.
    jitter : float
        Spread of a random factor on the distances that go in, the same for all rays.
    error_weight : float
        Weight of the mean absolute error of the logarithm, beside minus the log of the IoU.
    quality_weight : float
        Weight of the cross-entropy of the quality.
    start : str
        SHA-256 of the refiner from which training begins. Empty: from nothing, or from the first
        teacher.
    teachers : tuple of str
        SHA-256 of the refiners whose mean answer is learnt instead of the truth. Empty: the truth.
    taught_weight : float
        Weight of the mean distance from the teachers' logarithm, all rays and finds.
    taught_from : float
        Mean length of a find's rays, voxels of the image, from which the teachers are asked.
        Smaller ones learn the truth: what is known of large objects is kept, that of small ones is
        new (learning without forgetting, Li and Hoiem, arXiv 1606.09282).
    checkpoint_steps : int
        Steps between checkpoints.
    """

    scene: SceneConfig = dataclasses.field(default_factory=SceneConfig)
    small: SmallScenes = dataclasses.field(default_factory=SmallScenes)
    model: str = "anystar-mix"
    seed: int = 17
    held_out_seed: int = 1_000_017
    scenes: int = 580
    held_out: int = 60
    working: Range = (5.0, 9.0)
    squeezed: float = 0.0
    prob_thresh: float = 0.3
    nms_thresh: float = 0.3
    shard: int = 20
    widths: tuple[int, int, int, int, int, int] = WIDTHS
    sizes: Range = (0.0, 1e6)
    batch: int = 128
    steps: int = 5000
    rate: float = 2e-3
    false_share: float = 0.3
    fed_back: float = 0.25
    jitter: float = 0.1
    error_weight: float = 0.5
    quality_weight: float = 0.5
    start: str = ""
    teachers: tuple[str, ...] = ()
    taught_weight: float = 3.0
    taught_from: float = 0.0
    checkpoint_steps: int = 500

    def __post_init__(self) -> None:
        check(
            self.seed != self.held_out_seed,
            f"refine: got seed {self.seed} for training and scores; expected two",
        )
        for name in ("scenes", "held_out", "shard", "batch", "steps", "checkpoint_steps"):
            value = getattr(self, name)
            check(value >= 1, f"refine: got {name} {value}; expected 1 or more")
        check(
            0.0 <= self.squeezed <= 1.0,
            f"refine: got squeezed {self.squeezed}; expected 0 to 1",
        )
        for name in ("false_share", "fed_back"):
            value = getattr(self, name)
            check(0.0 <= value < 1.0, f"refine: got {name} {value}; expected 0 to less than 1")

    def to_json(self) -> str:
        """Return the config as a JSON document."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> RefineConfig:
        """Parse what `to_json` wrote; keys left out take their defaults.

        Raises
        ------
        ConfigError
            If the text is no JSON object, or has a key that is not known.
        """
        parsed: RefineConfig = parse(cls, text, "refine")
        return parsed
