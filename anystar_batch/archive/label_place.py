"""Where a label goes, and the hidden names beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from anystar_batch.archive.storage.files import is_zipped
from anystar_batch.errors import OutputError

KEY = "anystar-batch"
"""Attribute that holds the provenance of a label."""

_USED = {"lock", "old", "publish", "trash"}
"""Ends of other hidden names."""

TOKEN_DIGITS = 12
"""Digits of a fingerprint that tell hidden labels apart."""


@dataclass(frozen=True, slots=True)
class LabelPlace:
    """Where a label goes: into an image, or into a directory as a root group of its own.

    Use `in_image` and `standalone`.

    Parameters
    ----------
    parent : str
        Directory that holds the label's group.
    name : str
        Name of that group once published.
    label_name : str
        Name of the label.
    image : str
        The image it belongs to.
    is_standalone : bool
        Whether the group is a root of its own.
    """

    parent: str
    name: str
    label_name: str
    image: str
    is_standalone: bool

    @property
    def path(self) -> str:
        """The group once published."""
        return f"{self.parent}/{self.name}"

    @property
    def lock(self) -> str:
        """The lock of whoever makes the label; it lies with it, however the image was named."""
        if self.is_standalone:
            return f"{self.parent}/{self.name.removesuffix('.ome.zarr')}.lock"
        return f"{self.parent}/.{self.name}.lock"

    def hidden_path(self, digest: str) -> str:
        """Return the group while it is being made.

        Parameters
        ----------
        digest : str
            Fingerprint of the result, whose first digits tell hidden labels apart; letters, digits,
            `_` and `-`. A run that continues uses its own again.

        Raises
        ------
        OutputError
            If the digits are none of these, or a name that is used otherwise.
        """
        token = digest[:TOKEN_DIGITS]
        if not re.fullmatch(r"[A-Za-z0-9_-]+", token) or token in _USED:
            message = f"{token!r} cannot name a hidden label; expected letters and digits"
            raise OutputError(message)
        return f"{self.parent}/.{self.name}.{token}"


def in_image(image: str, label: str) -> LabelPlace:
    """Return the place `IMAGE/labels/LABEL`.

    Parameters
    ----------
    image : str
        Absolute path or address of the image, as `address.absolute` writes it.
    label : str
        Name of the label.

    Raises
    ------
    OutputError
        If the name cannot be that of a Zarr group.
    """
    _check_name(label)
    return LabelPlace(f"{image}/labels", label, label, image, is_standalone=False)


def standalone(directory: str, stem: str, label: str, image: str) -> LabelPlace:
    """Return the place `DIRECTORY/STEM.LABEL.ome.zarr`.

    Parameters
    ----------
    directory : str
        Directory or address of results, written alike.
    stem : str
        What tells the images of a run apart.
    label : str
        Name of the label.
    image : str
        Absolute path or address of the image, as `address.absolute` writes it.

    Raises
    ------
    OutputError
        If the name cannot be that of a Zarr group.
    """
    _check_name(label)
    name = f"{stem}.{label}.ome.zarr"
    _check_name(name)
    return LabelPlace(directory, name, label, image, is_standalone=True)


def label_place(image: str, label: str, *, home: str, stem: str, output: str | None) -> LabelPlace:
    """Return where a label goes: into its image, or apart from it.

    Parameters
    ----------
    image : str
        Absolute path or address of the image.
    label : str
        Name of the label.
    home : str
        Directory that holds the image, which results lie in.
    stem : str
        What tells the images of a run apart.
    output : str or None
        Directory or address of results, where the image is to be left alone; None is `home`: the
        label goes into the image, or beside it, if it is in a zip file, which takes none.

    Raises
    ------
    OutputError
        If the name cannot be that of a Zarr group.
    """
    if output is None and not is_zipped(image):
        return in_image(image, label)
    return standalone(home if output is None else output, stem, label, image)


def _check_name(name: str) -> None:
    if not name or name.startswith((".", "__")) or re.search(r"[/\\\x00-\x1f]", name):
        message = (
            f"{name!r} cannot name a label; expected a name without slashes that does not begin "
            "with a dot or two underscores"
        )
        raise OutputError(message)
