"""The headers of a response, read when somebody asks for them.

A provider sends some 25. A stream asks for three of them, and is then held for as long as the model
writes: cut into a dictionary, they would take as much memory as all that the stream holds else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar, overload

_T = TypeVar("_T")


class ResponseHeaders(Mapping[str, str]):
    """Header lines by their names in lower case, decoded and joined as httpx does it."""

    __slots__ = ("_by_name", "_lines")

    def __init__(self, lines: bytes) -> None:
        self._lines = b"\r\n%s\r\n" % lines  # each stands between two line ends
        self._by_name: dict[str, str] | None = None  # in their place, once all were asked for

    def __repr__(self) -> str:
        return "<headers>"  # a server may repeat a key in them

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: str | _T) -> str | _T: ...
    def get(self, name: str, /, default: object = None) -> object:
        """Return the value of a header, without reading the others."""
        if self._by_name is None:
            lines, begin = self._lines, b"\r\n%s:" % name.encode()
            lower = lines.lower()
            start = lower.find(begin) + len(begin)
            if start < len(begin):
                return default
            if lower.find(begin, start) < 0 and lines.isascii():
                return lines[start : lines.find(b"\r\n", start)].decode().strip(" \t")
        return self._all().get(name, default)

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[str, str]:
        if self._by_name is None:
            self._by_name, self._lines = _by_name(self._lines[2:-2]), b""
        return self._by_name


def _by_name(lines: bytes) -> dict[str, str]:
    try:
        text = lines.decode()
    except UnicodeDecodeError:
        text = lines.decode("latin-1")
    joined: dict[str, str] = {}
    for line in text.split("\r\n") if text else ():
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined
