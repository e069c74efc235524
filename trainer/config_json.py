"""Read a config from JSON: the way back from `json.dumps(dataclasses.asdict(config))`.

A field that holds a config of its own is parsed by its type hint, so that a new config needs no
entry anywhere.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, get_type_hints

from anystar_batch.errors import ConfigError
from trainer.synthesis.config import Step, check


def parse(cls: type, text: str, subject: str) -> Any:  # noqa: ANN401  (an instance of `cls`)
    """Return a config dataclass from its JSON document; keys left out take their defaults.

    Parameters
    ----------
    cls : type
        A dataclass of numbers, strings, tuples and dataclasses.
    text : str
    subject : str
        What the messages begin with.

    Raises
    ------
    ConfigError
        If the text is no JSON object, has a key that is not known, or a value is refused.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        message = f"{subject}: the config is no JSON: {error}"
        raise ConfigError(message) from error
    check(isinstance(document, Mapping), f"{subject}: the config is no JSON object")
    return _build(cls, document)


def _build(cls: type, document: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Build a config dataclass from parsed JSON."""
    expected = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(set(document) - expected)
    check(
        not unknown,
        f"{cls.__name__}: got unknown keys {unknown}; expected some of {sorted(expected)}",
    )
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in document.items():
        if dataclasses.is_dataclass(hints[key]):
            check(
                isinstance(value, Mapping),
                f"{cls.__name__}: got {key} {value!r}; expected a JSON object",
            )
            values[key] = _build(hints[key], value)
        elif hints[key] == tuple[Step, ...]:
            values[key] = tuple(
                Step(s["name"], s.get("probability", 1.0), _tuples(s.get("ranges", [])))
                for s in value
            )
        else:
            values[key] = _tuples(value)
    return cls(**values)


def _tuples(value: Any) -> Any:  # noqa: ANN401  (parsed JSON)
    """Turn lists into tuples, all the way down."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
