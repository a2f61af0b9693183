"""HTTP/1.1 as bytes: requests that can't be read as two, responses however their bytes are cut.

Each case is fed whole, byte by byte and at every single cut, out of one buffer that is overwritten
after every read, as the transport's is.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

import h11
import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_minillm._http.http1 import (
    MAX_HEAD,
    MAX_SILENCE,
    BadRequest,
    BadResponse,
    ResponseHead,
    ResponseParser,
    request_head,
)

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = OK + b"Content-Length: 2\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


class Seen(NamedTuple):
    """All that can be seen of a parser that was fed with a connection's bytes."""

    status: int
    version: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    complete: bool
    reusable: bool
    fault: str  # of the body; one in the head is raised


def parse(pieces: Iterable[bytes], *, no_body: bool = False, end: bool = False) -> Seen:
    """Feed pieces, taking the body after each. Raises `BadResponse` for a fault in the head."""
    parser = ResponseParser(no_body=no_body)
    buffer = bytearray(MAX_HEAD)
    body, fault = b"", ""
    try:
        for piece in pieces:
            for at in range(0, len(piece), len(buffer)):
                part = piece[at : at + len(buffer)]
                buffer[: len(part)] = part
                parser.feed(memoryview(buffer)[: len(part)])
                buffer[: len(part)] = b"\xee" * len(part)
                body += parser.take()
                if parser.head:
                    parser.check()
        if end:
            parser.feed_end()
            body += parser.take()
    except BadResponse as exc:
        if not parser.head:
            raise
        fault = str(exc)
    head = parser.take_head() if parser.head else ResponseHead(0, "1.1", b"")
    complete = parser.complete and not fault
    return Seen(
        *(head.status, head.version, tuple(head.headers), body, complete),
        reusable=complete and parser.reusable,
        fault=fault,
    )


def ways_to_cut(data: bytes) -> Iterator[list[bytes]]:
    """Whole, in single bytes, in pairs, and at every single place."""
    yield [data]
    for step in (1, 2):
        yield [data[i : i + step] for i in range(0, len(data), step)]
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]


# -- responses -----------------------------------------------------------------------------------


class Case(NamedTuple):
    """A response's bytes, and what must come of them."""

    data: bytes
    body: bytes = b""
    status: int = 200
    reusable: bool = True
    complete: bool = True
    """True if the response's own framing tells its end."""
    no_body: bool = False
    headers: int | None = None
    """Number of headers, in cases that check it."""


CHUNKS = b"3\r\nabc\r\n2\r\nde\r\n"
WHOLE = {
    "length": Case(LENGTH + b"ok", b"ok"),
    "length 0": Case(OK + b"Content-Length: 0\r\n\r\n"),
    "length with spaces": Case(OK + b"Content-Length:  \t2 \t\r\n\r\nok", b"ok"),
    "leading zeros": Case(OK + b"Content-Length: 0002\r\n\r\nok", b"ok"),
    "chunked": Case(CHUNKED + CHUNKS + END, b"abcde"),
    "no chunks": Case(CHUNKED + END),
    "chunked, any case": Case(OK + b"tRANSFER-eNCODING: Chunked\r\n\r\n" + CHUNKS + END, b"abcde"),
    "chunked with spaces": Case(OK + b"Transfer-Encoding: \tchunked  \r\n\r\n" + END),
    "upper-case size": Case(CHUNKED + b"A\r\n0123456789\r\n" + END, b"0123456789"),
    "zeros before a size": Case(CHUNKED + b"003\r\nabc\r\n000\r\n\r\n", b"abc"),
    "chunk extension": Case(CHUNKED + b"3;a=b\r\nabc\r\n0;last\r\n\r\n", b"abc"),
    "quoted extension": Case(CHUNKED + b'3;a="b; \\"c"\r\nabc\r\n' + END, b"abc"),
    "space after a size": Case(CHUNKED + b"3 \r\nabc\r\n0  \r\n\r\n", b"abc"),
    "tab after a size": Case(CHUNKED + b"3\t\r\nabc\r\n" + END, b"abc"),
    "space before an extension": Case(CHUNKED + b"3 ;a=b\r\nabc\r\n" + END, b"abc"),
    "framing in the body": Case(CHUNKED + b"5\r\n0\r\n\r\n\r\n" + END, b"0\r\n\r\n"),
    "a response in the body": Case(OK + b"Content-Length: 38\r\n\r\n" + LENGTH, LENGTH),
    "trailers": Case(CHUNKED + CHUNKS + b"0\r\nX: y\r\nZ: \r\n\r\n", b"abcde", headers=1),
    "a trailer that closes": Case(CHUNKED + b"0\r\nConnection: close\r\n\r\n", headers=1),
    "100": Case(b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH + b"ok", b"ok", headers=1),
    "several interim": Case(
        b"HTTP/1.1 102 Processing\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nLink: </c>\r\n\r\n" + LENGTH + b"ok",
        *(b"ok", 200),
        headers=1,
    ),
    "interim with a length": Case(
        b"HTTP/1.1 103 X\r\nContent-Length: 9\r\n\r\n" + CHUNKED + CHUNKS + END, b"abcde", headers=1
    ),
    "204": Case(b"HTTP/1.1 204 No Content\r\n\r\n", status=204),
    "204 with a coding": Case(
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", status=204
    ),
    "304 with a length": Case(
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", status=304
    ),
    "HEAD, length": Case(LENGTH, no_body=True, reusable=False),
    "HEAD, chunked": Case(CHUNKED, no_body=True, reusable=False),
    "HEAD, neither": Case(OK + b"\r\n", no_body=True, reusable=False),
    "HEAD, with a body": Case(LENGTH + b"ok", no_body=True, reusable=False),
    "HEAD, 404": Case(
        b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\n", status=404, no_body=True, reusable=False
    ),
    "HEAD after 103": Case(b"HTTP/1.1 103 X\r\n\r\n" + LENGTH, no_body=True, reusable=False),
    "1.0 with a length": Case(LENGTH.replace(b"1.1", b"1.0") + b"ok", b"ok", reusable=False),
    "1.0 kept alive": Case(
        b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", b"ok"
    ),
    "1.0 chunked": Case(  # RFC 9112, 6.1: the framing is not to be trusted
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nok\r\n0\r\n\r\n",
        b"ok",
        reusable=False,
    ),
    "Connection: close": Case(
        OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok", b"ok", reusable=False
    ),
    "Connection: a, CLOSE": Case(
        OK + b"Connection: a, CLOSE\r\n" + CHUNKED[len(OK) :] + END, reusable=False
    ),
    "an upgrade that is offered": Case(
        OK + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok", b"ok"
    ),
    "no reason": Case(b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    "an empty reason": Case(b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", b"ok"),
    "any bytes as reason": Case(b"HTTP/1.1 200 \xc3\xa9\xff\r\nContent-Length: 0\r\n\r\n"),
    "an unknown status": Case(b"HTTP/1.1 599 X\r\nContent-Length: 2\r\n\r\nok", b"ok", 599),
    "an empty line before": Case(b"\r\n" + LENGTH + b"ok", b"ok"),
    "headers": Case(
        OK + b"A:b\r\na: \t c d \t\r\nE:\r\nF: \xff\xc3\xa9\r\nContent-Length: 0\r\n\r\n", headers=5
    ),
    "a large head": Case(
        OK + b"X: " + b"y" * 150 + b"\r\nContent-Length: 2\r\n\r\nok", b"ok", headers=2
    ),
    "junk behind": Case(LENGTH + b"okjunk", b"ok", reusable=False),
    "a response behind": Case(LENGTH + b"ok" + LENGTH + b"no", b"ok", reusable=False),
    "half a response behind": Case(LENGTH + b"okHTTP/1", b"ok", reusable=False),
    "a response behind chunks": Case(CHUNKED + CHUNKS + END + LENGTH, b"abcde", reusable=False),
    "a body behind 204": Case(
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", status=204, reusable=False
    ),
    "a body behind 304": Case(b"HTTP/1.1 304 X\r\n\r\nok", status=304, reusable=False),
    "junk behind Connection: close": Case(
        OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nokjunk", b"ok", reusable=False
    ),
    "an empty line behind": Case(LENGTH + b"ok\r\n", b"ok"),
    "until the end": Case(OK + b"\r\nabc", b"abc", complete=False, reusable=False),
    "1.0 until the end": Case(
        b"HTTP/1.0 200 OK\r\n\r\nabc", b"abc", complete=False, reusable=False
    ),
    "1.0 until the end, kept alive": Case(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nabc",
        *(b"abc", 200),
        complete=False,
        reusable=False,
    ),
    "until the end, empty": Case(OK + b"\r\n", complete=False, reusable=False),
    "a response until the end": Case(OK + b"\r\n" + LENGTH, LENGTH, complete=False, reusable=False),
}


def cases(table: dict[str, Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [pytest.param(c, id=n) for n, c in table.items()])


@cases(WHOLE)
def test_a_response_however_its_bytes_are_cut(case: Case) -> None:
    seen = parse([case.data], no_body=case.no_body)
    assert seen.fault == ""
    assert (seen.status, seen.body, seen.complete) == (case.status, case.body, case.complete)
    assert seen.reusable is case.reusable
    if case.headers is not None:
        assert len(seen.headers) == case.headers
    for pieces in ways_to_cut(case.data):
        assert parse(pieces, no_body=case.no_body) == seen


@cases({n: c for n, c in WHOLE.items() if c.complete or c.no_body})
def test_a_framed_response_that_is_cut_short_is_no_response(case: Case) -> None:
    whole = parse([case.data], no_body=case.no_body)
    shortest = next(
        at
        for at in range(len(case.data) + 1)
        if at and _is_complete(case.data[:at], no_body=case.no_body)
    )
    for at in range(shortest):
        try:
            seen = parse([case.data[:at]], no_body=case.no_body, end=True)
        except BadResponse:
            continue
        assert seen.fault
        assert not seen.complete
        assert not seen.reusable
        assert whole.body.startswith(seen.body)
    seen = parse([case.data[:shortest]], no_body=case.no_body, end=True)
    assert (seen.body, seen.complete, seen.reusable) == (whole.body, True, False)


def _is_complete(data: bytes, *, no_body: bool) -> bool:
    try:
        return parse([data], no_body=no_body).complete
    except BadResponse:
        return False


@cases({n: c for n, c in WHOLE.items() if not c.complete})
def test_a_response_that_ends_with_its_connection(case: Case) -> None:
    for pieces in ways_to_cut(case.data):
        seen = parse(pieces, end=True)
        assert (seen.body, seen.complete, seen.reusable) == (case.body, True, False)


def test_what_was_not_taken_before_the_end_is_not_lost() -> None:
    parser = ResponseParser()
    parser.feed(OK + b"\r\nabc")
    assert parser.ends_with_connection
    parser.feed_end()
    assert parser.take() == b"abc"
    assert parser.complete
    assert not parser.ends_with_connection


def test_the_body_of_a_feed_is_one_piece() -> None:
    parser = ResponseParser()
    parser.feed(CHUNKED + b"1\r\nx\r\n" * 64)
    assert parser.take() == b"x" * 64
    assert parser.take() == b""


def test_a_parser_that_was_closed_leaves_nothing_to_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        parser = ResponseParser()
        parser.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        parser.close()
        assert parser.take_head().status == 200
        assert parser.take() == b"ok"
        del parser
        kinds = (ResponseParser, httptools.HttpResponseParser)
        assert not [one for one in gc.get_objects() if type(one) in kinds]
    finally:
        gc.enable()


def test_values_are_told_without_the_space_around_them() -> None:
    headers = parse([WHOLE["headers"].data]).headers
    assert headers == (
        (b"A", b"b"),
        (b"a", b"c d"),
        (b"E", b""),
        (b"F", b"\xff\xc3\xa9"),
        (b"Content-Length", b"0"),
    )


def test_whether_anything_came_at_all() -> None:
    parser = ResponseParser()
    assert not parser.begun
    with pytest.raises(BadResponse, match="disconnected"):
        parser.feed_end()
    parser = ResponseParser()
    parser.feed(b"H")
    assert parser.begun
    with pytest.raises(BadResponse):
        parser.feed_end()


# -- faults --------------------------------------------------------------------------------------

BAD_HEADS = {
    "nothing of HTTP": b"<html>no</html>",
    "HTTP/2 frames": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/11.1": b"HTTP/11.1 200 OK\r\n\r\n",
    "lower case": b"http/1.1 200 OK\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space before": b" HTTP/1.1 200 OK\r\n\r\n",
    "status of two digits": b"HTTP/1.1 99 X\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 X\r\n\r\n",
    "status of letters": b"HTTP/1.1 abc X\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "bare CR": OK + b"X: a\rb\r\n\r\n",
    "bare LF in a value": OK + b"X: a\nContent-Length: 0\r\n\r\n",
    "folded": OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "folded first": OK + b" X: a\r\n\r\n",
    "space before the colon": OK + b"X : a\r\n\r\n",
    "space in a name": OK + b"X Y: a\r\n\r\n",
    "no colon": OK + b"X\r\n\r\n",
    "no name": OK + b": a\r\n\r\n",
    "NUL in a value": OK + b"X: a\0b\r\n\r\n",
    "control character in a name": OK + b"X\x01: a\r\n\r\n",
    "non-ASCII name": OK + b"\xc3\xa9: a\r\n\r\n",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "one length twice": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "a list of lengths": OK + b"Content-Length: 2, 2\r\n\r\nok",
    "two numbers": OK + b"Content-Length: 2 3\r\n\r\nok",
    "negative length": OK + b"Content-Length: -2\r\n\r\nok",
    "signed length": OK + b"Content-Length: +2\r\n\r\nok",
    "hexadecimal length": OK + b"Content-Length: 0x2\r\n\r\nok",
    "length in other digits": OK + "Content-Length: ٢\r\n\r\nok".encode(),
    "empty length": OK + b"Content-Length: \r\n\r\nok",
    "length beyond 64 bits": OK + b"Content-Length: 18446744073709551618\r\n\r\nok",
    "length and coding": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n" + END,
    "coding and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n" + END,
    "chunked twice": OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + END,
    "chunked, then gzip": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + END,
    "gzip, then chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + END,
    "another coding": OK + b"Transfer-Encoding: xchunked\r\n\r\nabc",
    # httptools would take it for another coding, and read on to the connection's end.
    "chunked and a tab": OK + b"Transfer-Encoding: chunked\t\r\n\r\n2\r\nok\r\n" + END,
    "identity": OK + b"Transfer-Encoding: identity\r\n\r\nabc",
    "empty coding": OK + b"Transfer-Encoding: \r\n\r\nabc",
    "codings in two lines": OK
    + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    + END,
    "101": b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\nabc",
    "101 without an upgrade": b"HTTP/1.1 101 X\r\n\r\n" + LENGTH + b"ok",
    "101 after 100": b"HTTP/1.1 100 X\r\n\r\nHTTP/1.1 101 X\r\n\r\n",
    "junk behind 100": b"HTTP/1.1 100 X\r\n\r\njunk",
}


@pytest.mark.parametrize("no_body", [False, True])
@pytest.mark.parametrize("data", [pytest.param(d, id=n) for n, d in BAD_HEADS.items()])
def test_a_head_with_a_fault_is_refused_however_it_is_cut(data: bytes, no_body: bool) -> None:
    for pieces in ways_to_cut(data):
        with pytest.raises(BadResponse):
            parse(pieces, no_body=no_body)


def test_another_protocol_is_refused_by_name() -> None:
    with pytest.raises(BadResponse, match="switches protocols"):
        parse([BAD_HEADS["101"]])
    with pytest.raises(BadResponse, match=r"HTTP/2\.0"):
        parse([BAD_HEADS["HTTP/2.0"]])


def test_a_refused_head_stays_refused() -> None:
    parser = ResponseParser()
    with pytest.raises(BadResponse):
        parser.feed(b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
    for _ in range(2):
        with pytest.raises(BadResponse):
            parser.check()
    with pytest.raises(BadResponse):
        parser.feed_end()
    assert not parser.head
    assert not parser.complete


BAD_BODIES = {
    "no size": (b"\r\nabc", b""),
    "letters": (b"xyz\r\nabc", b""),
    "negative": (b"-3\r\nabc\r\n", b""),
    "signed": (b"+3\r\nabc\r\n", b""),
    "0x": (b"0x3\r\nabc\r\n", b""),
    "underscore": (b"1_0\r\nabc\r\n", b""),
    "beyond 64 bits": (b"fffffffffffffffff\r\nabc", b""),
    "space before": (b" 3\r\nabc\r\n", b""),
    "bare LF": (b"3\nabc\n0\n\n", b""),
    "bare LF in an extension": (b"3;a\nb\r\nabc\r\n", b""),
    "NUL in an extension": (b"3;a\0b\r\nabc\r\n", b""),
    "shorter than told": (b"5\r\nabc\r\n0\r\n\r\n", b"abc\r\n"),
    "longer than told": (b"3\r\nabcd\r\n0\r\n\r\n", b"abc"),
    "no CR behind": (b"3\r\nabc\n0\r\n\r\n", b"abc"),
    "the second": (b"3\r\nabc\r\nzz\r\n", b"abc"),
    "a bad trailer": (b"3\r\nabc\r\n0\r\nno colon\r\n\r\n", b"abc"),
    "NUL in a trailer": (b"3\r\nabc\r\n0\r\nX: a\0\r\n\r\n", b"abc"),
    "folded trailer": (b"3\r\nabc\r\n0\r\nX: a\r\n b\r\n\r\n", b"abc"),
    "a length as a trailer": (b"3\r\nabc\r\n0\r\nContent-Length: 4\r\n\r\nEVIL", b"abc"),
}


@pytest.mark.parametrize(("data", "before"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_all_body_before_a_fault_comes_out_first(data: bytes, before: bytes) -> None:
    for pieces in ways_to_cut(CHUNKED + data):
        seen = parse(pieces)
        assert seen.fault.startswith("not HTTP")
        assert (seen.body, seen.complete, seen.reusable) == (before, False, False)
        assert parse(pieces, end=True) == seen


def test_a_fault_in_the_body_is_told_by_check_and_not_by_feed() -> None:
    parser = ResponseParser()
    parser.feed(CHUNKED + b"3\r\nabc\r\nzz\r\n")
    assert parser.head
    assert parser.take() == b"abc"
    parser.feed(b"3\r\nabc\r\n")
    assert parser.take() == b""
    for _ in range(2):
        with pytest.raises(BadResponse, match="not HTTP"):
            parser.check()
    with pytest.raises(BadResponse, match="not HTTP"):
        parser.feed_end()
    assert not parser.complete


def test_the_end_behind_a_fault_waits_for_what_came_before_it() -> None:
    parser = ResponseParser()
    parser.feed(OK + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\nno size\r\n")
    parser.feed_end()
    assert parser.take() == b"abc"
    with pytest.raises(BadResponse, match="not HTTP"):
        parser.check()
    assert not parser.complete


# -- bounds --------------------------------------------------------------------------------------


def endless(data: bytes, unit: bytes, size: int) -> Iterator[bytes]:
    """``data``, then ``unit`` for ever, in pieces of about ``size`` bytes."""
    yield data
    piece = unit * max(1, size // len(unit))
    while True:
        yield piece


class Counted:
    """Pieces that are counted as they are taken."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces
        self.bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            self.bytes += len(piece)
            yield piece


@pytest.mark.parametrize("size", [31, 1000, 16 * 1024, MAX_HEAD])
@pytest.mark.parametrize(
    ("data", "unit"),
    [
        (b"HTTP/1.1 200 ", b"x"),
        (OK, b"x"),
        (OK + b"x: ", b"y"),
        (OK, b"x: y\r\n"),
        (b"", b"\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
    ],
    ids=["reason", "name", "value", "headers", "lines", "interim", "interim with headers"],
)
def test_an_endless_head_is_refused(data: bytes, unit: bytes, size: int) -> None:
    pieces = Counted(endless(data, unit, size))
    with pytest.raises(BadResponse):
        parse(pieces)
    assert pieces.bytes <= MAX_SILENCE + 2 * MAX_HEAD


@pytest.mark.parametrize("size", [31, 1000, 16 * 1024, MAX_HEAD])
@pytest.mark.parametrize(
    ("data", "unit"),
    [
        (b"3;", b"x"),
        (b"3;x=", b"y"),
        (b"3", b" "),
        (b"0", b"0"),
        (b"0\r\n", b"x"),
        (b"0\r\nx: ", b"y"),
        (b"0\r\n", b"x: y\r\n"),
    ],
    ids=["name", "value", "spaces", "zeros", "trailer name", "trailer value", "trailers"],
)
def test_endless_framing_is_refused(data: bytes, unit: bytes, size: int) -> None:
    pieces = Counted(endless(CHUNKED + b"3\r\nabc\r\n" + data, unit, size))
    seen = parse(pieces)
    assert seen.fault
    assert (seen.body, seen.complete, seen.reusable) == (b"abc", False, False)
    assert pieces.bytes <= MAX_SILENCE + 2 * MAX_HEAD


@pytest.mark.parametrize("over", [0, 100])
def test_the_bound_of_a_head_is_the_same_at_every_cut(over: int) -> None:
    start, end = OK + b"X: ", b"\r\nContent-Length: 2\r\n\r\n"
    head = start + b"y" * (MAX_HEAD - len(start) - len(end) + over) + end
    data = head + b"ok"
    steps = (1, 1000, 8 * 1024, 40_000, MAX_HEAD, len(data))
    for step in steps:
        pieces = [data[i : i + step] for i in range(0, len(data), step)]
        if over:
            with pytest.raises(BadResponse, match="head"):
                parse(pieces)
        else:
            assert parse(pieces).body == b"ok"


def test_the_bound_of_a_head_holds_in_one_read_however_large() -> None:
    data = OK + b"X: " + b"y" * MAX_HEAD + b"\r\n\r\n"
    with pytest.raises(BadResponse, match="head"):
        ResponseParser().feed(memoryview(data))


def test_a_long_body_is_no_silence() -> None:
    pieces = (b"1\r\nx\r\n" for _ in range(MAX_SILENCE // 4))
    assert len(parse([CHUNKED, *pieces]).body) == MAX_SILENCE // 4
    pieces = (p for _ in range(MAX_SILENCE // 900) for p in (b"1;" + b"x" * 1000, b"\r\nx\r\n"))
    assert len(parse([CHUNKED, *pieces]).body) == MAX_SILENCE // 900
    big = 3 * MAX_SILENCE
    data = OK + b"Content-Length: %d\r\n\r\n" % big + b"x" * big
    assert len(parse([data]).body) == big


# -- any bytes -----------------------------------------------------------------------------------


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    at = sorted(draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=8)))
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True) if data[a:b]]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A response in which a few bytes were changed, lost or added."""
    data = bytearray(draw(st.sampled_from([c.data for c in WHOLE.values()])))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["change", "lose", "add"]))
        new = draw(
            st.sampled_from([b"\r", b"\n", b"\r\n", b" ", b"\0", b":", b"0", b"f", b";", b"\xff"])
            | st.binary(min_size=1, max_size=3)
        )
        data[at : at + (0 if kind == "add" else 1)] = b"" if kind == "lose" else new
    return bytes(data)


@given(st.data(), st.binary(max_size=200) | damaged(), st.booleans(), st.booleans())
def test_any_bytes_raise_nothing_but_ours(
    draw: st.DataObject, data: bytes, no_body: bool, end: bool
) -> None:
    results = []
    for pieces in ([data], draw.draw(cuts(data))):
        try:
            results.append(parse(pieces, no_body=no_body, end=end))
        except BadResponse:
            results.append(None)
    assert results[0] == results[1]


@given(
    st.data(),
    st.lists(st.binary(min_size=1, max_size=40), max_size=10),
    st.sampled_from([b"", b";a", b" ", b';q="x y"']),
    st.sampled_from([b"", b"X: y\r\n"]),
    st.booleans(),
)
def test_any_body_however_chunked_and_cut(
    draw: st.DataObject, chunks: list[bytes], more: bytes, trailer: bytes, framed: bool
) -> None:
    body = b"".join(chunks)
    if framed:
        data = CHUNKED + b"".join(b"%X%s\r\n%s\r\n" % (len(c), more, c) for c in chunks)
        data += b"0%s\r\n%s\r\n" % (more, trailer)
    else:
        data = OK + b"Content-Length: %d\r\n\r\n" % len(body) + body
    seen = parse(draw.draw(cuts(data)))
    assert (seen.body, seen.complete, seen.reusable, seen.fault) == (body, True, True, "")


# -- against h11 ---------------------------------------------------------------------------------


class Theirs(NamedTuple):
    """Response as h11 reads it."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    complete: bool
    reusable: bool


def by_h11(data: bytes, *, no_body: bool) -> Theirs | None:
    """Return the response as h11 reads it, or None if it refuses any of it or has seen no head."""
    peer = h11.Connection(h11.CLIENT)
    method = "HEAD" if no_body else "GET"
    peer.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    peer.send(h11.EndOfMessage())
    peer.receive_data(data)
    response, body, complete = None, b"", False
    try:
        while True:
            event = peer.next_event()
            if isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                complete = True
                break
            elif not isinstance(event, h11.InformationalResponse):
                break
    except h11.RemoteProtocolError:
        return None
    if response is None:
        return None
    reusable = complete and peer.their_state is h11.DONE and not peer.trailing_data[0]
    headers = tuple((bytes(n), bytes(v)) for n, v in response.headers)
    return Theirs(response.status_code, headers, body, complete, reusable)


def compare(data: bytes, *, no_body: bool) -> bool:
    """Return whether both parsers accept a response; check that they then read the same in it."""
    theirs = by_h11(data, no_body=no_body)
    try:
        ours = parse([data], no_body=no_body)
    except BadResponse:
        return False
    if theirs is None or ours.fault or not ours.version:
        return False
    headers = tuple((n.lower(), v) for n, v in ours.headers)
    if (b"transfer-encoding", b"chunked") in theirs.headers:  # h11 writes it in lower case
        headers = tuple((n, b"chunked" if n == b"transfer-encoding" else v) for n, v in headers)
    assert (ours.status, headers, ours.body) == (theirs.status, theirs.headers, theirs.body)
    assert ours.complete == theirs.complete
    kept_1_0 = ours.version == "1.0" and re.search(b"(?i)keep-alive", data)
    trailing_lines = re.search(rb"[\r\n]\Z", data)
    if not (kept_1_0 or no_body or trailing_lines):
        assert ours.reusable == theirs.reusable
    return True


class Told:
    """A head as httptools itself cuts it into headers, a call for each."""

    def __init__(self, data: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.final: list[tuple[bytes, bytes]] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)
        with suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self.final is None and self._parser.get_status_code() >= 200:
            self.final = list(self.headers)  # trailers follow


@given(damaged())
@example(b"\r\n" + WHOLE["several interim"].data)
@example(OK + b"A:\tb \t\r\nA: b:c\r\nE:\r\nContent-Length: 0\r\n\r\n")
def test_a_head_is_cut_into_headers_as_its_checker_does_it(data: bytes) -> None:
    with suppress(BadResponse):
        assert list(parse([data]).headers) == (Told(data).final or [])


H11_REFUSES = {
    "an empty line before",
    "any bytes as reason",
    "space before an extension",
}
"""Cases skipped over or accepted here, as RFC 9112 (2.2, 4, 7.1.1) asks, and refused by h11."""


@pytest.mark.parametrize("name", WHOLE)
def test_as_h11_reads_it(name: str) -> None:
    case = WHOLE[name]
    accepted = compare(case.data, no_body=case.no_body)
    assert accepted or name in H11_REFUSES


@given(damaged(), st.booleans())
@example(b"HTTP/1.1 200 OK\r\nX: a \r\nContent-Length: 2\r\n\r\nok", False)
def test_as_h11_reads_it_where_both_do(data: bytes, no_body: bool) -> None:
    compare(data, no_body=no_body)


# -- requests ------------------------------------------------------------------------------------

HOST = (b"host", b"example.org")


def test_a_head_is_written_as_it_was_given() -> None:
    head = request_head(
        b"POST", b"/a?b=c", [HOST, (b"X-Y", b"1"), (b"x-y", b""), (b"z", b"\xc3\xa9")]
    )
    assert head.data == (
        b"POST /a?b=c HTTP/1.1\r\nhost: example.org\r\nX-Y: 1\r\nx-y: \r\nz: \xc3\xa9\r\n\r\n"
    )


@pytest.mark.parametrize("hosts", [[], [HOST, HOST], [HOST, (b"Host", b"other.org")]])
def test_a_request_has_one_host(hosts: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(BadRequest, match="Host"):
        request_head(b"GET", b"/", [*hosts, (b"x", b"y")])


@pytest.mark.parametrize("bad", [b"", b" ", b"G T", b"GET\r\n", b"GET\0", b"G:T", b"G\xc3", b"(G)"])
def test_a_method_that_would_break_the_line_is_refused(bad: bytes) -> None:
    with pytest.raises(BadRequest):
        request_head(bad, b"/", [HOST])


@pytest.mark.parametrize(
    "bad",
    [b"", b"/ ", b"/a b", b"/a\r\nX: y", b"/\n", b"/\r", b"/\0", b"/\t", b"/\x7f", b"/\xc3\xa9"],
)
def test_a_target_that_would_break_the_line_is_refused(bad: bytes) -> None:
    with pytest.raises(BadRequest):
        request_head(b"GET", bad, [HOST])
    with pytest.raises(BadRequest):
        request_head(b"GET", b"/ HTTP/1.1\r\nX: y\r\n\r\nGET " + bad, [HOST])


@pytest.mark.parametrize(
    "bad",
    [
        *(b"", b" ", b"x ", b" x", b"x y", b"x:", b"x\r\n", b"x\n", b"x\r", b"x\0", b"x\t"),
        *(b"x\r\ny: z\r\n\r\nGET / HTTP/1.1", b"\xc3\xa9", b"x\x7f", b"(x)", b"x\x0b"),
    ],
)
def test_a_name_that_would_break_the_line_is_refused(bad: bytes) -> None:
    with pytest.raises(BadRequest):
        request_head(b"GET", b"/", [HOST, (bad, b"v")])


@pytest.mark.parametrize(
    "bad",
    [
        *(b"a\r\nb: c", b"a\nb: c", b"a\rb", b"a\0b", b"\r\n\r\nGET / HTTP/1.1", b"a\r\n b"),
        *(b"a\r", b"a\n", b"\na", b" a", b"a ", b"\ta", b"a\t", b" "),
    ],
)
def test_a_value_that_would_break_the_line_is_refused(bad: bytes) -> None:
    with pytest.raises(BadRequest):
        request_head(b"GET", b"/", [HOST, (b"x", bad)])


def test_a_value_that_is_refused_is_not_shown() -> None:
    for header in ((b"authorization", b"Bearer sk-secret\n"), (b"sk-secret\n", b"x")):
        with pytest.raises(BadRequest) as caught:
            request_head(b"GET", b"/", [HOST, header])
        assert "secret" not in str(caught.value)


LINE_BYTES = st.binary(max_size=8) | st.text("aZ09-_ :/\r\n\0\t", max_size=8).map(str.encode)


@given(LINE_BYTES, LINE_BYTES, st.lists(st.tuples(LINE_BYTES, LINE_BYTES), max_size=3))
def test_what_is_sent_is_read_as_one_request(
    method: bytes, target: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    framing = {b"host", b"content-length", b"transfer-encoding"}
    headers = [(n, v) for n, v in headers if n.lower() not in framing]
    try:
        head = request_head(method, target, [HOST, *headers]).data
    except BadRequest:
        return
    assert head.count(b"\r\n\r\n") == 1
    assert head.endswith(b"\r\n\r\n")
    assert head.count(b"\n") == head.count(b"\r") == 3 + len(headers)
    server = h11.Connection(h11.SERVER)
    server.receive_data(head)
    try:
        request = server.next_event()
    except h11.RemoteProtocolError:
        # h11 takes no control characters in a value; they break no line.
        assert any(re.search(rb"[\x00-\x1f\x7f]", v) for _, v in headers)
        return
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) == (method, target)
    assert [(bytes(n), bytes(v)) for n, v in request.headers] == [
        (n.lower(), v) for n, v in [HOST, *headers]
    ]
    assert isinstance(server.next_event(), h11.EndOfMessage)
    assert server.next_event() is h11.NEED_DATA


@pytest.mark.parametrize(
    ("headers", "length"),
    [
        ([], 0),
        ([(b"Content-Length", b"0")], 0),
        ([(b"content-length", b"12"), (b"x", b"y")], 12),
        ([(b"CONTENT-LENGTH", b"5000000000")], 5_000_000_000),
        ([(b"Transfer-Encoding", b"chunked")], None),
        ([(b"transfer-encoding", b"Chunked")], None),
    ],
)
def test_the_length_that_a_request_announces(
    headers: list[tuple[bytes, bytes]], length: int | None
) -> None:
    assert request_head(b"POST", b"/", [HOST, *headers]).length == length


LEN, TE = b"Content-Length", b"Transfer-Encoding"


@pytest.mark.parametrize(
    "headers",
    [
        [(LEN, b"2"), (TE, b"chunked")],
        [(TE, b"chunked"), (LEN, b"2")],
        [(LEN, b"2"), (LEN, b"2")],
        [(LEN, b"2"), (b"content-length", b"3")],
        [(TE, b"chunked"), (b"TRANSFER-ENCODING", b"chunked")],
        [(TE, b"gzip, chunked")],
        [(TE, b"chunked, gzip")],
        [(TE, b"identity")],
        [(TE, b"xchunked")],
        [(TE, b"")],
        [(LEN, b"")],
        [(LEN, b"-1")],
        [(LEN, b"+1")],
        [(LEN, b"1, 1")],
        [(LEN, b" 1")],
        [(LEN, b"1 ")],
        [(LEN, b"1_0")],
        [(LEN, b"0x1")],
        [(LEN, b"1.0")],
        [(LEN, "٢".encode())],
        [(LEN, b"9" * 5000)],
    ],
)
def test_framing_that_could_be_read_in_two_ways_is_refused(
    headers: list[tuple[bytes, bytes]],
) -> None:
    with pytest.raises(BadRequest):
        request_head(b"POST", b"/", [HOST, *headers])
