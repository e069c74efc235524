"""The zarr store of object stores and web servers: arrays, and errors that say what went wrong.

What zarr's own `FsspecStore` lacks: it takes a server that ignores `Range` at its word, lets the
errors of a dozen libraries through, and does not try a web server twice. A missing chunk reads as
the fill value, so only what is surely absent may count as missing.
"""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

from zarr.abc.store import RangeByteRequest, SuffixByteRequest
from zarr.storage import FsspecStore

from anystar_batch.address import is_read_only
from anystar_batch.archive.storage import remote, remote_errors
from anystar_batch.archive.storage.filesystems import filesystem

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


def object_store(path: str, *, read_only: bool) -> ObjectStore:
    """Return a store whose root is an address; each process opens its own.

    Parameters
    ----------
    path : str
        A checked address.
    read_only : bool
        Whether nothing may be written.
    """
    fs, key = filesystem(path, asynchronous=True)
    return ObjectStore(fs, read_only=read_only, path=key)


class ObjectStore(FsspecStore):
    """Objects below one address."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return an object or a part of it, None if it is not there.

        Raises
        ------
        OSError
            If the store does not give it, or gives more than it was asked for.
        """
        address = str(self.fs.unstrip_protocol(self.path))
        pauses = remote.PAUSES if is_read_only(address) else ()
        for pause in (*pauses, None):
            try:
                buffer = await super().get(key, prototype, byte_range)
            except Exception as error:
                failure = remote_errors.os_error(error)
                if isinstance(failure, PermissionError) and not isinstance(
                    failure, remote_errors.CredentialsError
                ):
                    if await asyncio.to_thread(remote.hides_missing, address):
                        return None
                elif pause is not None and remote_errors.is_passing(failure):
                    await asyncio.sleep(pause)
                    continue
                raise failure from error
            _check_length(buffer, byte_range)
            return buffer
        raise AssertionError  # the last pause is None

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        """Write an object.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        try:
            await super().set(key, value, byte_range)
        except Exception as error:
            raise remote_errors.os_error(error) from error

    async def delete(self, key: str) -> None:
        """Delete an object; without one, do nothing.

        Raises
        ------
        OSError
            If it cannot be deleted.
        """
        try:
            # One request; `FsspecStore` lists what is below first.
            await self.fs._rm_file(f"{self.path}/{key}")  # noqa: SLF001
        except FileNotFoundError:
            return
        except Exception as error:
            raise remote_errors.os_error(error) from error


def _check_length(buffer: Buffer | None, byte_range: ByteRequest | None) -> None:
    """Refuse the answer of a server that ignores `Range`: it would be taken for the part."""
    if buffer is None:
        return
    most = None
    if isinstance(byte_range, RangeByteRequest):
        most = byte_range.end - byte_range.start
    elif isinstance(byte_range, SuffixByteRequest):
        most = byte_range.suffix
    if most is not None and len(buffer) > most:
        message = (
            f"the server sends {len(buffer)} bytes where {most} were asked for: it ignores byte "
            "ranges, which sharded arrays need"
        )
        raise OSError(errno.EPROTO, message)
