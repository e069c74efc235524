"""What the shell offers after TAB: values of options, from the program and from the image named.

Nothing may go wrong here: what cannot be read offers nothing. What does not begin as the word does,
Typer drops.
"""

from __future__ import annotations

from collections.abc import Callable

import typer

from anystar_batch.errors import AnyStarBatchError


def precisions() -> list[str]:
    """Return the precisions of the network."""
    from anystar_batch.config import PRECISIONS

    return list(PRECISIONS)


def backends() -> list[str]:
    """Return what the network may run under."""
    from anystar_batch.config import BACKENDS

    return list(BACKENDS)


def refine() -> list[str]:
    """Return when there may be a second look."""
    from anystar_batch.config import REFINE

    return list(REFINE)


def limits() -> list[str]:
    """Return how far intensity limits may reach."""
    from anystar_batch.config import LIMITS

    return list(LIMITS)


def measures(incomplete: str) -> list[str]:
    """Return measures that go on with a list of them."""
    from anystar_batch.parsing import MEASURES

    before, comma, _ = incomplete.rpartition(",")
    return [f"{before}{comma}{one}" for one in MEASURES if one not in before.split(",")]


def models() -> list[str]:
    """Return the bundled models."""
    from anystar_batch.network.model import bundled_models

    return list(bundled_models())


def channels(context: typer.Context) -> list[str]:
    """Return the channels of the first image that is named."""
    from anystar_batch.archive.discovery import find_images
    from anystar_batch.archive.images import read_image

    return _of_image(
        context,
        lambda path: [n for image in find_images(path)[:1] for n in read_image(image).channels],
    )


def multiscales(context: typer.Context) -> list[str]:
    """Return the multiscales of the first image that is named, where it has several."""
    from anystar_batch.archive.discovery import find_images
    from anystar_batch.archive.images import read_image

    def names(path: str) -> list[str]:
        known = [n for image in find_images(path)[:1] for n in read_image(image).multiscale_names]
        return known if len(known) > 1 else []

    return _of_image(context, names)


def formats() -> list[str]:
    """Return the formats of `export`."""
    from anystar_batch.pipeline.export import FORMATS

    return list(FORMATS)


def labels(context: typer.Context) -> list[str]:
    """Return the labels of the image that is named."""
    from anystar_batch.archive.label_lookup import image_labels

    return _of_image(context, lambda path: list(image_labels(path)))


def _of_image(context: typer.Context, names: Callable[[str], list[str]]) -> list[str]:
    """Names that the metadata of a local image hold; none of a remote one, which takes its time."""
    from anystar_batch.address import is_remote, normal

    # While the line is not whole, the images of `segment` are still among what was not parsed.
    named = context.params.get("images") or [context.params.get("image")]
    path = next((path for path in (*named, *context.args) if path), None)
    if path is None or is_remote(path):
        return []
    try:
        return names(normal(path))
    except (AnyStarBatchError, OSError):
        return []
