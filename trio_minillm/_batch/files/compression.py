"""Files that were compressed with gzip or zstd, read as what they hold."""

from __future__ import annotations

import errno
import gzip
import importlib
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from .tables import pyarrow_or_error

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
"""Beginnings of such files. Names don't tell: a file may have been renamed."""


@contextmanager
def unpacked(file: io.BufferedReader) -> Iterator[BinaryIO]:
    """Give the file, or what it holds if it is compressed.

    Raises `OSError` for a compressed file that is cut off or damaged, `ImportError` if nothing is
    there to read zstd with: Python 3.14 has it, and so does pyarrow.
    """
    head = file.peek(4)[:4]
    try:
        if head.startswith(_GZIP):
            with gzip.GzipFile(fileobj=file) as unzipped:
                yield io.BufferedReader(unzipped)
        elif head == _ZSTD:
            with _zstd(file) as unzipped:
                yield io.BufferedReader(unzipped)
        else:
            yield file
    except (EOFError, zlib.error) as exc:
        what = "the compressed file is cut off or damaged"
        raise OSError(errno.EINVAL, what, getattr(file, "name", None)) from exc


def _zstd(file: BinaryIO) -> Any:
    if sys.version_info >= (3, 14):
        return importlib.import_module("compression.zstd").ZstdFile(file)
    return pyarrow_or_error().CompressedInputStream(file, "zstd")
