"""Where a label comes from: by what model, when, and whether it would be made the same today.

The label says by what it was made, and never when (equal results are equal bytes); the run record
beside the image says when, if it is still there. Both may be anybody's files: what is not as a run
writes it is left out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from anystar_batch.archive.label_place import KEY
from anystar_batch.archive.ngff import JSON, ImageSource, metadata_fingerprint
from anystar_batch.archive.nodes import read_object
from anystar_batch.errors import ImageError, ModelError
from anystar_batch.network.bundled import bundled_models, load_model
from anystar_batch.stages.plan import ALGORITHM, fingerprint


@dataclass(frozen=True, slots=True)
class Origin:
    """What is known of a label's making; None where it is not.

    Parameters
    ----------
    name : str
    is_ours : bool
        Whether this program made it.
    instances : int or None
        Number of labels.
    model, model_version : str or None
    diameter_um : float or None
        Diameter of the objects, given or probed, micrometres.
    channel : int or None
        Channel that was segmented.
    fingerprint : str or None
        Digest of all that decided it.
    finished : str or None
        When, as the run record says: ISO 8601.
    program : str or None
        Version of this program, as the run record says.
    is_current : bool or None
        Whether image metadata, method and model are still those that made it; None where nothing
        can be compared. Voxels are not compared.
    why : str
        Why it is not current, in words.
    """

    name: str
    is_ours: bool = False
    instances: int | None = None
    model: str | None = None
    model_version: str | None = None
    diameter_um: float | None = None
    channel: int | None = None
    fingerprint: str | None = None
    finished: str | None = None
    program: str | None = None
    is_current: bool | None = None
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return all of it in a line."""
        if not self.is_ours:
            return f"label {self.name}, not made by anystar-batch"
        parts = [f"label {self.name}"]
        parts += [f"{self.instances} instances"] if self.instances is not None else []
        if self.model is not None:
            parts.append(f"{self.model} {self.model_version or ''}".strip())
        if self.diameter_um is not None:
            parts.append(f"objects of {self.diameter_um:.3g} um")
        parts += [f"channel {self.channel}"] if self.channel is not None else []
        if self.finished is not None:
            parts.append(f"made {self.finished} by version {self.program or 'unknown'}")
        if self.is_current is not None:
            parts.append("current" if self.is_current else f"not current: {self.why}")
        parts += [f"fingerprint {self.fingerprint[:12]}"] if self.fingerprint else []
        return ", ".join(parts)


def label_origin(
    name: str, attributes: JSON, source: ImageSource | None = None, record: str | None = None
) -> Origin:
    """Read where a label comes from.

    Parameters
    ----------
    name : str
        Of the label.
    attributes : dict
        Of its group.
    source : ImageSource, optional
        The image as it is now; without it nobody can say whether the label is current.
    record : str, optional
        Path or address where the run record would lie.
    """
    ours = attributes.get(KEY)
    if not isinstance(ours, dict):
        return Origin(name)
    model, decided, digest = (
        _object(ours, "model"),
        _object(ours, "decided"),
        ours.get("fingerprint"),
    )
    run = {} if record is None else _record(record, digest)
    why = None if source is None else _why_not_current(ours, source)
    return Origin(
        name=name,
        is_ours=True,
        instances=_of(int, ours.get("instances")),
        model=_of(str, model.get("name")),
        model_version=_of(str, model.get("version")),
        diameter_um=_of(float, decided.get("diameter_um")),
        channel=_of(int, decided.get("channel")),
        fingerprint=_of(str, digest),
        finished=_of(str, run.get("finished")),
        program=_of(str, run.get("anystar_batch")),
        is_current=None if why is None else not why,
        why=why or "",
    )


def _why_not_current(ours: JSON, source: ImageSource) -> str | None:
    """Why it would be made otherwise today; empty if it would not, None if nobody can tell."""
    options = _object(ours, "options")
    if not options:
        return None
    if options.get("algorithm") != ALGORITHM:
        return f"made by method {options.get('algorithm')}, now {ALGORITHM}"
    if fingerprint({**options, "image": metadata_fingerprint(source)}) != ours.get("fingerprint"):
        return "the image's metadata has changed since"
    name = str(_object(ours, "model").get("name"))
    if name in bundled_models():
        try:
            installed = load_model(name)
        except ModelError:
            return None
        if installed.sha256 != options.get("model"):
            return f"another {name} is installed: version {installed.version or 'unknown'}"
    return ""


def _record(path: str, digest: object) -> JSON:
    """The run record that belongs to a label; empty if there is none, or it is another one's."""
    try:
        found = read_object(path) or {}
    except ImageError:
        return {}
    return found if _object(found, "summary").get("fingerprint") == digest else {}


def _object(document: JSON, key: str) -> JSON:
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def _of(kind: type, value: Any) -> Any:  # noqa: ANN401  (the kind is what is returned)
    return value if isinstance(value, kind) and not isinstance(value, bool) else None
