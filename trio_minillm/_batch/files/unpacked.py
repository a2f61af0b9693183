"""Files that may be compressed, with gzip or zstd, read as what is in them."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

PIECE = 1 << 8
"""Bytes of zstd that are unpacked at a time. Four of them can stand for 128 KiB, so a piece for 8 MiB,
which its package holds twice."""
MAX_WINDOW = 128 << 20
"""Bytes of memory that reading zstd may take: what its own command grants. Only files made with
``--long=28`` or more need more."""
_GZIP = rb"\x1f\x8b"
_ZSTD = rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"
"""Beginning of a frame, or of one to be skipped. No JSON and no table begins like that."""


class DamagedError(ValueError):
    """Compressed data that can't be read on."""


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, and unpack it on the way if its first bytes say that it is compressed.

    Some 20 MiB of it at most are in memory at a time, however much it unpacks to. Reading raises
    `DamagedError`. Raises `ImportError` for zstd without the extra ``zstd``, and `OSError`.
    """
    with path.open("rb") as file:
        first = file.peek(4)
        if re.match(_GZIP, first):
            read = _gzip(file)
        elif re.match(_ZSTD, first):
            read = _zstd(file)
        else:
            yield file
            return
        with io.BufferedReader(_Unpacked(read), 1 << 16) as unpacked:
            yield unpacked


class _Unpacked(io.RawIOBase):
    """Bytes of which a function returns some more at each call, and none at the end."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(self._read())
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


def _gzip(file: BinaryIO) -> Callable[[], bytes]:
    import gzip

    unpacked = gzip.GzipFile(fileobj=file)

    def read() -> bytes:
        try:
            return unpacked.read1(1 << 16)
        except EOFError:
            raise DamagedError("the gzip data is cut off") from None
        except (gzip.BadGzipFile, zlib.error):
            raise DamagedError("the gzip data is damaged") from None

    return read


def _zstd(file: BinaryIO) -> Callable[[], bytes]:
    """Return a function that reads frame after frame. (The package's own reader takes a file that is
    cut off for a whole one.)
    """
    try:
        import zstandard
    except ImportError as exc:
        raise ImportError("zstd needs zstandard: pip install 'trio-minillm[zstd]'") from exc
    new = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj
    frame: Any = None
    packed = b""

    def read() -> bytes:
        nonlocal frame, packed
        while piece := packed or file.read(PIECE):
            frame = frame or new()
            try:
                out: bytes = frame.decompress(piece)
            except zstandard.ZstdError as exc:
                raise DamagedError(f"the data can't be decompressed: {exc}") from None
            packed = frame.unused_data if frame.eof else b""
            if frame.eof:
                frame = None
            if out:
                return out
        if frame is not None:
            raise DamagedError("the zstd data is cut off")
        return b""

    return read
