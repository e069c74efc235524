"""Zip files of images, as people and programs make them."""

from __future__ import annotations

import zipfile
from pathlib import Path


def pack(folder, target, *, how=zipfile.ZIP_STORED, top=""):
    """Zip what is below a folder, stored or deflated, below a folder `top`; return the zip file.

    Metadata come first and a comment last, as RFC-9 recommends.
    """
    files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    files.sort(key=lambda path: (path.name != "zarr.json", len(path.parts)))
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", how) as file:
        for path in files:
            file.write(path, f"{top}{path.relative_to(folder)}")
        file.comment = b'{"ome": {"version": "0.5"}}\0'
    return Path(target)


def change_byte(path, at):
    """Change one byte of a file."""
    data = bytearray(Path(path).read_bytes())
    data[at] ^= 0xFF
    Path(path).write_bytes(bytes(data))


def data_of(path, name):
    """Where the stored bytes of a member begin."""
    with zipfile.ZipFile(path) as file:
        info = file.getinfo(name)
    return info.header_offset + 30 + len(name)
