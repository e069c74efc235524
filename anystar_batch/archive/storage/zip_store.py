"""The zarr store of a folder in a zip file: it is read, by many at once, and never written.

Not zarr's own `ZipStore`: that knows local files only, reads one member at a time, and takes a
member whose checksum is wrong for the reader's mistake.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, NoReturn

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest

from anystar_batch.archive.storage import zip_file
from anystar_batch.archive.storage.remote import AT_ONCE

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


@lru_cache(maxsize=1)
def _pool(_process: int) -> ThreadPoolExecutor:
    """Threads that read, of this process."""
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="zip")


class ZipStore(Store):
    """Members of a zip file below a folder.

    Parameters
    ----------
    file, folder : str
        As `zip_file.split` returns them. They are all that pickling carries.
    """

    supports_writes = supports_deletes = supports_listing = False

    def __init__(self, file: str, folder: str) -> None:
        super().__init__(read_only=True)
        self.file, self.folder = file, folder

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ZipStore) and (other.file, other.folder) == (
            self.file,
            self.folder,
        )

    def __hash__(self) -> int:
        return hash((self.file, self.folder))

    def __str__(self) -> str:
        return f"{self.file}/{self.folder}".rstrip("/")

    def _member(self, key: str) -> str:
        return f"{self.folder}/{key}" if self.folder else key

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return a member or a part of it, None if it is not there.

        Raises
        ------
        OSError
            If it cannot be read.
        """
        start, stop = _bounds(byte_range)
        loop = asyncio.get_running_loop()
        data = await loop.run_in_executor(
            _pool(os.getpid()), zip_file.read_part, self.file, self._member(key), start, stop
        )
        return None if data is None else prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Return many parts."""
        return await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges))

    async def exists(self, key: str) -> bool:
        """Return whether there is a member."""
        member = self._member(key)
        return await asyncio.to_thread(zip_file.exists, self.file, member)

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse: nothing is written into a zip file."""
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        """Refuse, too."""
        raise NotImplementedError

    def list(self) -> AsyncIterator[str]:
        """Refuse: nobody asks."""
        return _refuse()

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Refuse, too."""
        return _refuse(prefix)

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Refuse, too."""
        return _refuse(prefix)


def _refuse(what: str = "") -> NoReturn:
    raise NotImplementedError(what)


def _bounds(part: ByteRequest | None) -> tuple[int, int | None]:
    """First byte and the one after the last, as `zip_file.read_part` takes them."""
    if isinstance(part, RangeByteRequest):
        return part.start, part.end
    if isinstance(part, OffsetByteRequest):
        return part.offset, None
    if isinstance(part, SuffixByteRequest):
        return -part.suffix, None
    return 0, None
