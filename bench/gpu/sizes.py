"""What is measured: in full, for ten minutes of a data-centre GPU, or small, to try the script."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scene:
    """An image to segment.

    Parameters
    ----------
    kind : str
        `dense` or `sparse`, phantoms; `synthetic`, or a set of `bench.mosaic.SETS`, mosaics.
    size : int
        Voxels along each axis.
    radius : float
        Of a phantom's objects, voxels. The network works at 3.5; of larger ones the image shows
        more than it sees, and they are looked at twice; its own are not, to show what that costs.
    """

    kind: str
    size: int
    radius: float = 3.5

    @property
    def name(self) -> str:
        """What tables call it."""
        of = f" r{self.radius:g}" if self.kind in ("dense", "sparse") else " mosaic"
        return f"{self.kind} {self.size}^3{of}"

    @property
    def refine(self) -> str:
        """With a second look, or without: phantoms of the network's own size are without."""
        is_own_size = self.kind in ("dense", "sparse") and self.radius <= 3.5
        return "off" if is_own_size else "auto"


@dataclass(frozen=True, slots=True)
class Case:
    """Training steps to time.

    Parameters
    ----------
    precision : str
    base : int
        Channels of the network's first layer; all else as released.
    edge : int
        Voxels of a sample along each axis.
    batch : int
        Samples a step.
    """

    precision: str
    base: int
    edge: int
    batch: int

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"base {self.base}, {self.edge}^3, batch {self.batch}, {self.precision}"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Everything that is measured, in order of worth.

    Parameters
    ----------
    windows : tuple of int
        Edges of windows, voxels, ascending; the last one is what the command runs most.
    bytes_edge, bytes_tile : int
        Phantom and tile with which block shapes are compared, voxels.
    scenes : tuple of Scene
        A mosaic is of real images where these are at hand, else of synthetic samples.
    shell : Scene
        What the command of the shell segments.
    networks : tuple of (base, edge)
        Of training: channels of the first layer, and voxels of a sample along each axis.
    batches : tuple of int
        Samples a step, ascending.
    seconds : float
        How long one thing is repeated.
    repeats : int
        Runs of the command after the first.
    """

    windows: tuple[int, ...]
    bytes_edge: int
    bytes_tile: int
    scenes: tuple[Scene, ...]
    shell: Scene
    networks: tuple[tuple[int, int], ...]
    batches: tuple[int, ...]
    seconds: float
    repeats: int

    def cases(self, precision: str) -> list[Case]:
        """Return the training steps of a precision."""
        return [Case(precision, *some, batch) for some in self.networks for batch in self.batches]


FULL = Sizes(
    windows=(64, 96, 128, 160, 256, 304),
    bytes_edge=128,
    bytes_tile=64,
    scenes=(
        Scene("dense", 256),
        Scene("dense", 256, 7.0),
        Scene("sparse", 256),
        Scene("mosaic", 256),
        Scene("dense", 512),
        Scene("sparse", 512),
        Scene("mosaic", 512),
        Scene("dense", 512, 7.0),
    ),
    shell=Scene("dense", 512),
    networks=((16, 48), (32, 48), (16, 32), (32, 32)),
    batches=(16, 32, 64, 128),
    seconds=2.0,
    repeats=2,
)

QUICK = Sizes(
    windows=(32, 48),
    bytes_edge=64,
    bytes_tile=32,
    scenes=(Scene("dense", 48), Scene("sparse", 48, 7.0), Scene("mosaic", 48)),
    shell=Scene("dense", 48),
    networks=((4, 32),),
    batches=(1, 2),
    seconds=0.2,
    repeats=1,
)
