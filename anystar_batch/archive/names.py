"""Names in a document: of channels and of multiscales; which of several multiscales is meant.

An image's group may hold several multiscales: other resolutions, other variables, a projection.
The specification has readers take the first; `--multiscale` takes another one, by its name or by
its index, 0 for the first.
"""

from __future__ import annotations

from collections.abc import Sequence

from anystar_batch.errors import ConfigError, did_you_mean


def multiscale_names(entries: object) -> tuple[str, ...]:
    """Return the names of all multiscales of a group; `#1` and so on where one has none.

    Parameters
    ----------
    entries : object
        Value of `multiscales`, as written in the file.

    Examples
    --------
    >>> multiscale_names([{"name": "raw"}, {}])
    ('raw', '#1')
    """
    return tuple(
        str(entry["name"]) if isinstance(entry, dict) and entry.get("name") else f"#{n}"
        for n, entry in enumerate(entries if isinstance(entries, list) else [])
    )


def numbered(names: Sequence[str], but: int | None = None) -> str:
    """Return names with their indices, as messages show them; one may be left out.

    Examples
    --------
    >>> numbered(("raw", "deconvolved"), but=0)
    '1 (deconvolved)'
    """
    return ", ".join(f"{n} ({name})" for n, name in enumerate(names) if n != but)


def multiscale_index(names: Sequence[str], asked: str | int | None) -> int:
    """Return the index of a multiscale given by name or index; the first if none is asked for.

    Parameters
    ----------
    names : sequence of str
        Of all multiscales of the group.
    asked : str, int or None
        A name, if one multiscale alone has it, else an index as text; a number is an index that is
        known already.

    Raises
    ------
    ConfigError
        If the group has no such multiscale, or several of that name.
    """
    if not isinstance(asked, str):
        return asked or 0
    count = names.count(asked)
    if count == 1:
        return names.index(asked)
    if count == 0 and asked.isdecimal() and int(asked) < len(names):
        return int(asked)
    found = f"{count} of that name: " if count else ""
    message = (
        f"--multiscale: got {asked!r}; the image has {found}{numbered(names) or 'none'}"
        f"{'; give an index' if count else did_you_mean(asked, names)}"
    )
    raise ConfigError(message)


def channel_names(holders: Sequence[object], count: int) -> tuple[str, ...]:
    """Return unique names of channels: `omero` labels, doubles and gaps told apart by their index.

    Parameters
    ----------
    holders : sequence of object
        Values of `omero`, wherever they are written; the first that names every channel counts.
    count : int
        Number of channels.

    Examples
    --------
    >>> channel_names([{"channels": [{"label": "DAPI"}, {"label": "DAPI"}, {}]}], 3)
    ('DAPI_0', 'DAPI_1', '2')
    """
    for omero in holders:
        channels = omero.get("channels") if isinstance(omero, dict) else None
        given = [
            str(c["label"]).strip() if isinstance(c, dict) and c.get("label") is not None else ""
            for c in (channels if isinstance(channels, list) else [])
        ]
        if len(given) == count:
            names = [
                (n if given.count(n) == 1 else f"{n}_{i}") if n else str(i)
                for i, n in enumerate(given)
            ]
            if len(set(names)) == count:
                return tuple(names)
    return tuple(map(str, range(count)))
