"""Tests of reading bodies with a ``content-encoding``, whatever servers name and really send."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm._http.decompression import JUDGED_BYTES, MAX_CODINGS, Decompressor

EVENTS = b'data: {"a": "\xc3\xa9"}\n\ndata: [DONE]\n\n'
PLAIN = [
    EVENTS,
    b"\xef\xbb\xbf" + EVENTS,
    b": ping\n\n" + EVENTS,
    b":\n\n",
    b"\r\n\nevent: message_start\r\ndata: {}\r\n\r\n",
    b"id: 1\ndata: {}\n\n",
    b'{"id": "x"}',
    b"[]",
    b"{}",
    b'{\n  "id": 1}',
    b"<!doctype html><html>",
    b"",
]
NOT_CODINGS = [
    "none",
    "utf-8",
    "UTF-8",
    "identity, identity",
    "",
    "null",
    "text",
    "none, utf-8",
    "x",
]


def bare_deflate(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(data) + deflate.flush()


CODED = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZip": gzip.compress,
    "deflate": zlib.compress,
    " deflate ": bare_deflate,
    "gzip, identity": gzip.compress,
    "identity,gzip": gzip.compress,
    "deflate, gzip": lambda data: gzip.compress(zlib.compress(data)),
    "gzip, gzip": lambda data: gzip.compress(gzip.compress(data)),
}


def read(encoding: str, data: bytes, cuts: list[int] | None = None) -> tuple[bytes, bool]:
    """The body as it is read of these bytes, and whether it is read directly at its end."""
    ends = sorted({min(max(cut, 0), len(data)) for cut in cuts or []} | {len(data)})
    pieces = iter([data[a:b] for a, b in zip([0, *ends], ends, strict=False) if a < b])

    async def source() -> bytes:
        await trio.lowlevel.checkpoint()
        return next(pieces, b"")

    async def main() -> tuple[bytes, bool]:
        decompressor = Decompressor.of(encoding, source)
        out = b""
        while data := await (source() if decompressor is None else decompressor.receive()):
            out += data
            if decompressor is not None and decompressor.plain:
                decompressor = None
        return out, decompressor is None or decompressor.plain

    return trio.run(main)


@pytest.mark.parametrize("encoding", NOT_CODINGS)
@pytest.mark.parametrize("data", [*PLAIN, b"Bad Gateway\n", "überall Text, der so kommt".encode()])
def test_a_word_that_names_no_coding_changes_nothing(encoding: str, data: bytes) -> None:
    assert read(encoding, data) == (data, True)
    assert read(encoding, data, [1, 2, 3, 5, 8, 13]) == (data, True)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, br"])
@pytest.mark.parametrize("data", PLAIN)
def test_a_body_that_is_as_it_is_in_spite_of_its_coding(encoding: str, data: bytes) -> None:
    assert read(encoding, data) == (data, True)


@example(" deflate ", b"\xa9", [])  # its data begin like a list of JSON
@given(
    st.sampled_from(sorted(CODED)),
    st.sampled_from(PLAIN) | st.binary(max_size=300),
    st.lists(st.integers(0, 400), max_size=6),
)
def test_what_is_compressed_is_undone_however_it_is_cut(
    encoding: str, data: bytes, cuts: list[int]
) -> None:
    assert read(encoding, CODED[encoding](data), cuts)[0] == data


@pytest.mark.parametrize(
    ("encoding", "data", "named"),
    [
        ("br", b"\x0b\x02\x80hello\x03", "'br'"),
        ("zstd", b"\x28\xb5\x2f\xfd\x04\x00abc", "'zstd'"),
        ("gzip, br", b"\x8b\x02\x80" + b"x" * 20, "'br'"),
        ("none", b"\x8b\x02\x80" + b"x" * 20, "'none'"),
        ("sk-0123456789abcdef", b"\x00" * 20, "an unknown content-encoding"),
        ("gzip", b"x" * 20, "compression is broken"),
        ("gzip, " * (MAX_CODINGS + 1), b"\x1f\x8b" + b"x" * 20, "too many content-encodings"),
    ],
)
def test_a_body_that_can_not_be_read_is_an_error_that_names_the_coding(
    encoding: str, data: bytes, named: str
) -> None:
    with pytest.raises(llm.ProtocolError, match=named):
        read(encoding, data)


def test_a_comment_is_not_held_back_for_more() -> None:
    """A server may be silent for long behind it."""
    given = iter([b":", b" ping\n\n", b"never"])

    async def source() -> bytes:
        return next(given)

    async def main() -> None:
        decompressor = Decompressor.of("none", source)
        assert decompressor is not None
        assert await decompressor.receive() == b": ping\n\n"
        assert next(given) == b"never"

    trio.run(main)


def test_text_is_judged_by_its_first_bytes() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * (JUDGED_BYTES - 1)
        yield b"y"
        raise AssertionError("that was enough")

    async def main() -> None:
        source = pieces()
        decompressor = Decompressor.of("none", lambda: anext(source))  # type: ignore[arg-type]
        assert decompressor is not None
        assert await decompressor.receive() == b"x" * (JUDGED_BYTES - 1) + b"y"
        await source.aclose()  # type: ignore[attr-defined]

    trio.run(main)
