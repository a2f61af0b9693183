"""Bytes to events: the standard, its extensions, its bounds, and any way to cut the bytes."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import httpx
import httpx_sse
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trio_minillm import LimitExceeded, SSEDecoder
from trio_minillm._protocol.sse import LONG_LINE
from trio_minillm._types.options import BOUNDS

from ..support.recorded import Case, conformance_cases

BOM = b"\xef\xbb\xbf"
KIB = 1024
MIB = 1024 * KIB


class Seen(NamedTuple):
    """All that can be seen of a decoder that was fed with a body."""

    events: list[tuple[str, str, str]]  # name, data, last event id
    retry_ms: int | None = None
    last_event_id: str = ""
    comments: int = 0
    failure: tuple[str, int] | None = None


def decode(
    pieces: Iterable[bytes],
    *,
    flush: bool = False,
    max_line: int = BOUNDS.event,
    max_event: int = BOUNDS.event,
) -> Seen:
    decoder = SSEDecoder(max_line=max_line, max_event=max_event)
    found = [event for piece in pieces for event in decoder.feed(piece)]
    if flush:
        found += decoder.flush()
    failure = decoder.failure
    return Seen(
        [(e.event, e.data.decode("utf-8", "replace"), e.id) for e in found],
        decoder.retry_ms,
        decoder.last_event_id,
        decoder.comments,
        None if failure is None else (failure.bound, failure.limit),
    )


def bytewise(body: bytes, step: int = 1) -> list[bytes]:
    return [body[i : i + step] for i in range(0, len(body), step)]


def ways_to_cut(body: bytes) -> Iterator[list[bytes]]:
    """Whole, in single bytes, in pairs, and at every single place."""
    yield [body]
    yield bytewise(body)
    yield bytewise(body, 2)
    for at in range(1, len(body)):
        yield [body[:at], body[at:]]


def with_empty_feeds(pieces: list[bytes]) -> list[bytes]:
    return [b"", *(x for piece in pieces for x in (piece, b"", b""))]


# -- the standard ------------------------------------------------------------------------------


@pytest.mark.parametrize("case", conformance_cases())
def test_conformance_however_the_bytes_are_cut(case: Case) -> None:
    ways = [*ways_to_cut(case.body)]
    if case.chunks:
        assert b"".join(case.chunks) == case.body
        ways.append(case.chunks)
    for pieces in ways:
        for fed in (pieces, with_empty_feeds(pieces)):
            seen = decode(fed)
            assert seen.events == case.events
            assert seen.failure is None
            if case.retry_ms is not None:
                assert seen.retry_ms == case.retry_ms
            if case.comments is not None:
                assert seen.comments == case.comments


@pytest.mark.parametrize(
    ("body", "retry_ms"),
    [
        (b"data: x\n\n", None),
        (b"retry: 1500\n", 1500),  # takes effect without an event
        (b"retry:0\n\n", 0),
        (b"retry: 7\nretry: 8\n", 8),
        (b"retry: 7\nretry: -5\nretry: 1_000\nretry: 1.5\nretry: 9 \nretry:  9\nretry:\n", 7),
        ("retry: 7\nretry: ١٢\n".encode(), 7),
        (b"retry: 7\nretry: " + b"9" * 5000 + b"\n", 7),  # no number that anyone could wait for
        (b"retry: 7", None),  # no line yet
    ],
)
def test_retry_takes_ascii_digits_only(body: bytes, retry_ms: int | None) -> None:
    for pieces in ([body], bytewise(body)):
        assert decode(pieces).retry_ms == retry_ms


@pytest.mark.parametrize(
    ("body", "comments"),
    [
        (b": keep-alive\n\n", 1),
        (b":\n", 1),
        (b":\r\n:\r:\n\n", 3),
        (b"data: x\n: between\ndata: y\n\n: after\n\n", 2),
        (b"\n\n\r\n", 0),
        (b" : a field with a strange name\n\n", 0),
        (b": unfinished", 0),
    ],
)
def test_comments_are_counted(body: bytes, comments: int) -> None:
    for pieces in ways_to_cut(body):
        assert decode(pieces).comments == comments


def test_an_id_with_a_nul_is_none() -> None:
    body = b"id: 1\ndata: x\n\nid: 2\0\ndata: y\n\nid\ndata: z\n\n"
    for pieces in ways_to_cut(body):
        assert [(data, last) for _, data, last in decode(pieces).events] == [
            ("x", "1"),
            ("y", "1"),
            ("z", ""),
        ]


def test_a_carriage_return_ends_its_line_at_once() -> None:
    decoder = SSEDecoder()
    assert len(decoder.feed(b"data: x\r\r")) == 1
    assert decoder.feed(b"\n") == []
    assert len(decoder.feed(b"data: y\r\n\r")) == 1
    assert decoder.feed(b"\ndata: z\n") == []
    assert [e.data for e in decoder.feed(b"\n")] == [b"z"]


def test_data_stays_bytes() -> None:
    assert [e.data for e in SSEDecoder().feed(b"data: \xff\xc3\n\n")] == [b"\xff\xc3"]


# -- beyond the standard: the end of the body, and `error:` --------------------------------------


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"", []),
        (BOM, []),
        (BOM[:1], []),
        (BOM[:2], []),
        (BOM + b"data: x", [("message", "x", "")]),
        (b"data: [DONE]", [("message", "[DONE]", "")]),
        (b"data: a\n\ndata: [DONE]", [("message", "a", ""), ("message", "[DONE]", "")]),
        (b"data: [DONE]\n", [("message", "[DONE]", "")]),
        (b"data: [DONE]\r", [("message", "[DONE]", "")]),
        (b"data: a\ndata: b", [("message", "a\nb", "")]),
        (b"event: e\nid: 1\ndata: a\n", [("e", "a", "1")]),
        (b"data: a\n\nevent: e", [("message", "a", "")]),  # still: no data, no event
        (b"data: a\n\nda", [("message", "a", "")]),
        (b"data", [("message", "", "")]),
        (b"data: a\nevent: e", [("e", "a", "")]),
        (b"data: a\n\n", [("message", "a", "")]),
        (b"data: \xe2\x9c", [("message", "�", "")]),
        (b'error: {"a": 1}', [("error", '{"a": 1}', "")]),
    ],
)
def test_flush_hands_out_an_event_without_its_blank_line(
    body: bytes, events: list[tuple[str, str, str]]
) -> None:
    for pieces in ways_to_cut(body):
        assert decode(pieces, flush=True).events == events
    decoder = SSEDecoder()
    decoder.feed(body)
    decoder.flush()
    assert decoder.flush() == []


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_an_error_field_is_an_event_named_error(end: bytes) -> None:
    body = b"data: 1" + end + end + b'error: {"code":500}' + end + end + b"data: 2" + end + end
    for pieces in ways_to_cut(body):
        assert decode(pieces).events == [
            ("message", "1", ""),
            ("error", '{"code":500}', ""),
            ("message", "2", ""),
        ]


# -- bounds ------------------------------------------------------------------------------------

LINE = ("bytes in one line", 20)
EVENT = ("bytes in one event", 20)


@pytest.mark.parametrize("start", [b"", BOM, b"data: before\n\n", b": c\r\n\r\n"])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r\n"])
@pytest.mark.parametrize("field", [b"data: ", b"event: ", b": ", b"unknown: "])
def test_the_line_limit_is_exact(start: bytes, end: bytes, field: bytes) -> None:
    line = field.ljust(20, b"x")
    for pieces in ways_to_cut(start + line + end):
        assert decode(pieces, max_line=20).failure is None
    for pieces in ways_to_cut(start + line + b"x" + end):
        seen = decode(pieces, max_line=20)
        assert seen.failure == LINE
        assert len(seen.events) == start.count(b"data")


def test_an_unfinished_line_is_bounded_too() -> None:
    assert decode([b"x" * 20], max_line=20, flush=True).failure is None
    for pieces in ways_to_cut(b"x" * 21):
        assert decode(pieces, max_line=20).failure == LINE


@pytest.mark.parametrize("start", [b"", BOM, b"data: before\n\n", b"data: before\r\n\r\n"])
@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
@pytest.mark.parametrize(
    "lines",
    [
        [b"data: " + b"x" * 20],
        [b"data: " + b"x" * 10, b"data: " + b"y" * 9],  # with the LF between them: 20
        [b"data"] * 21,  # 20 LFs
        [b"error: " + b"x" * 12, b": comment", b"event: e", b"data: 1234567"],
    ],
)
def test_the_event_limit_is_exact(start: bytes, end: bytes, lines: list[bytes]) -> None:
    before = start.count(b"before")
    for pieces in ways_to_cut(start + end.join(lines) + end + end):
        seen = decode(pieces, max_event=20)
        assert seen.failure is None
        assert len(seen.events) == before + 1
        assert len(seen.events[-1][1]) == 20
    lines = [*lines[:-1], lines[-1] + (b"z" if b":" in lines[-1] else b":z")]
    for pieces in ways_to_cut(start + end.join(lines) + end + end):
        seen = decode(pieces, max_event=20)
        assert seen.failure == EVENT
        assert len(seen.events) == before


def test_the_default_limits_are_exact() -> None:
    fits = b"data: ".ljust(BOUNDS.event, b"x")
    assert len(decode([fits, b"\n\n"]).events) == 1
    assert decode([fits, b"x\n\n"]).failure == ("bytes in one line", BOUNDS.event)
    half = b"data: " + b"x" * (BOUNDS.event // 2 - 1) + b"\n"
    assert decode([half, half, b"data\n\n"]).failure is None  # 2 x half, 2 LFs between 3 lines
    assert decode([half, half, b"data\ndata\n\n"]).failure == ("bytes in one event", BOUNDS.event)


@pytest.mark.parametrize("too_much", [b"data: " + b"x" * 21, b"data: 0123456789\n" * 2])
def test_what_was_complete_before_a_bound_is_handed_out_and_nothing_after(too_much: bytes) -> None:
    body = b"id: 1\ndata: a\n\ndata: b\n\n" + too_much + b"\n\n"
    later = b": comment\nid: 2\nretry: 5\ndata: c\n\n"
    for pieces in (*ways_to_cut(body + later), [body, later]):
        seen = decode(pieces, max_line=26, max_event=20, flush=True)
        assert seen.failure is not None
        assert seen._replace(failure=None) == Seen(
            [("message", "a", "1"), ("message", "b", "1")], last_event_id="1"
        )


def test_the_first_bound_that_was_crossed_is_the_failure() -> None:
    body = b"data: 0123456789\n" * 3 + b"\n" + b"x" * 40 + b"\n\n"
    for pieces in ways_to_cut(body):
        assert decode(pieces, max_line=30, max_event=20).failure == EVENT


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(b"data: " + b"x" * 4090, id="endless line"),
        pytest.param(b"data: 0123456789\n" * 240, id="endless event"),
        pytest.param(b": 0123456789\n" * 300, id="endless comments"),
        pytest.param(b"event: 0123456789\nid: 0123456789\n" * 120, id="endless names and ids"),
        pytest.param(b"data: 0123456789\n\n" * 240, id="endless stream"),
    ],
)
def test_memory_stays_within_the_bound(piece: bytes) -> None:
    decoder = SSEDecoder(max_line=64 * KIB, max_event=64 * KIB)
    decoder.feed(b"\n")
    tracemalloc.start()
    try:
        for _ in range(2 * MIB // len(piece)):
            decoder.feed(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MIB // 2  # 2 MiB went in; small data lines cost about six times their size


def test_a_crossed_bound_lets_go_of_what_was_held() -> None:
    tracemalloc.start()
    try:
        decoder = SSEDecoder(max_line=128 * KIB)
        for _ in range(40):
            decoder.feed(b"x" * 4 * KIB)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoder.failure is not None
    assert held < 16 * KIB


def test_a_long_line_in_single_bytes_is_linear_work() -> None:
    # Copying the line for every byte of it would move 128 GiB: this would not come to an end.
    decoder = SSEDecoder()
    size = MIB // 2
    feed, byte = decoder.feed, b"x"
    assert feed(b"data: ") == []
    for _ in range(size):
        feed(byte)
    (event,) = feed(b"\n\n")
    assert event.data == byte * size


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_many_events_in_one_feed_are_linear_work(end: bytes) -> None:
    count = 5 * MIB // 8  # more than a bound's worth, so the careful path is taken
    assert len(SSEDecoder().feed((b"data: x" + end + end) * count)) == count


# -- any bytes, any cut --------------------------------------------------------------------------


def reference(
    body: bytes,
    *,
    flush: bool = False,
    max_line: int = BOUNDS.event,
    max_event: int = BOUNDS.event,
) -> Seen:
    """The standard's text, step by step (html.spec.whatwg.org, 9.2.6), with our extensions."""
    events: list[tuple[str, str, str]] = []
    data, name, ident, last, retry, comments = b"", "", "", "", None, 0
    *lines, rest = re.split(b"\r\n|\n|\r", body.removeprefix(BOM))
    if flush:
        lines += [rest, b""] if rest else [b""]
        rest = b""

    def seen(failure: tuple[str, int] | None) -> Seen:
        return Seen(events, retry, last, comments, failure)

    for line in lines:
        if len(line) > max_line:  # ours
            return seen(("bytes in one line", max_line))
        if not line:
            last = ident
            if data:
                text = data.removesuffix(b"\n").decode("utf-8", "replace")
                events.append((name or "message", text, last))
            data, name = b"", ""
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not field:
            comments += 1
        elif field == b"event":
            name = value.decode("utf-8", "replace")
        elif field in (b"data", b"error"):
            name = "error" if field == b"error" else name  # ours
            data += value + b"\n"
            if len(data) - 1 > max_event:  # ours
                return seen(("bytes in one event", max_event))
        elif field == b"id" and b"\0" not in value:
            ident = value.decode("utf-8", "replace")
        elif field == b"retry" and re.fullmatch(rb"[0-9]{1,18}", value):
            retry = int(value)
    return seen(("bytes in one line", max_line) if len(rest) > max_line else None)


TOKENS = [
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b":", b" ", b": ", b"\0", b"x"),
    *(
        b"data",
        b"data:",
        b"data: ",
        b"data: x\n\n",
        b"id",
        b"id:",
        b"id: 1",
        b"event:",
        b"event: e",
    ),
    *(b"retry:", b"retry: 5", b"7", b"-", b"_", b"\xff", b"\xe2\x82", b"\xac", b"\x85"),
    *(b"\xe2\x80\xa8", b"\x0b", b"\x1c", b"[DONE]", b'{"a":1}', b"Data: y", b"unknown: z"),
    *(BOM, BOM[:1], BOM[1:]),
]


def bodies(*more: bytes) -> st.SearchStrategy[bytes]:
    """Mostly what framing is made of, sometimes anything."""
    tokens = st.lists(st.sampled_from([*TOKENS, *more]), max_size=40).map(b"".join)
    return st.one_of(
        tokens, tokens.map(BOM.__add__), st.tuples(tokens, st.binary(max_size=30)).map(b"".join)
    )


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    """The body in pieces; empty ones where a place comes twice."""
    at = [0, *sorted(p % (len(body) + 1) for p in places), len(body)]
    return [body[a:b] for a, b in pairwise(at)]


PLACES = st.lists(st.integers(0, 10_000), max_size=8)
# From 2: one or two bytes may yet be a byte-order mark, and are no line until that is known.
LIMITS = st.one_of(st.integers(2, 30), st.just(BOUNDS.event))


@settings(max_examples=400, deadline=None)
@given(body=bodies(b"error: e"), places=PLACES, max_line=LIMITS, max_event=LIMITS, flush=...)
@example(
    body=b"data: aa\ndata: aa\n\nxxxxxxxxx\n\n", places=[], max_line=8, max_event=4, flush=False
)
@example(body=b"data: aa\n\n:\n\n", places=[], max_line=8, max_event=1, flush=False)
def test_any_cut_of_any_bytes_is_what_the_standard_says(
    body: bytes, places: list[int], max_line: int, max_event: int, flush: bool
) -> None:
    wanted = reference(body, flush=flush, max_line=max_line, max_event=max_event)
    for pieces in ([body], bytewise(body), cut(body, places)):
        assert decode(pieces, flush=flush, max_line=max_line, max_event=max_event) == wanted


# -- httpx-sse -----------------------------------------------------------------------------------


def by_httpx_sse(pieces: list[bytes]) -> list[httpx_sse.ServerSentEvent]:
    # A wrong charset would be trusted there (ours reads UTF-8, as the standard says): none here.
    headers = {"content-type": "text/event-stream"}
    response = httpx.Response(200, headers=headers, content=iter(pieces))
    return list(httpx_sse.EventSource(response).iter_sse())


@settings(max_examples=400, deadline=None)
@given(body=bodies(), places=PLACES)
def test_httpx_sse_agrees_but_for_its_known_differences(body: bytes, places: list[int]) -> None:
    # An unterminated event is never handed out there, and one that ends in CR is held back.
    body += b"\n\n"
    ours = decode(cut(body, places))
    # It keeps a byte-order mark and so loses the first event behind it.
    theirs = by_httpx_sse(cut(body.removeprefix(BOM), places))
    # It dispatches events without data, and once an id was seen, one for every blank line.
    assert [e for e in ours.events if e[1]] == [(t.event, t.data, t.id) for t in theirs if t.data]
    # It reads `-5`, `1_000`, and digits of other scripts as a retry time.
    retries = re.findall(
        rb"(?:^|[\r\n])retry(?::[ ]?([^\r\n]*))?(?=[\r\n])", body.removeprefix(BOM)
    )
    if all(value.isdigit() for value in retries):
        assert ours.retry_ms == next((t.retry for t in theirs[::-1] if t.retry is not None), None)
    # `error:` is our extension and not in the alphabet. Its missing bounds don't show here.


@pytest.mark.parametrize("before", [b"", b": keep-alive\n\n", b"data: a\n\n"])
def test_a_line_that_is_an_object_is_data_if_that_is_forgiven(before):
    body = before + b'{"error": {"message": "boom"}}\n\n'
    events = SSEDecoder(forgiving=True).feed(body)
    assert bytes(events[-1].data) == b'{"error": {"message": "boom"}}'
    strict = SSEDecoder().feed(body)
    assert [bytes(e.data) for e in strict] == [b"a"] * before.count(b"data")


UNPARTED = b'event: a\ndata: {"n":1}\nevent: b\ndata: {"n":2}\ndata: {"n":3}\ndata: [DONE]\n'


def test_data_that_begin_an_event_of_their_own_end_the_one_before():
    decoder = SSEDecoder(forgiving=True)
    events = decoder.feed(UNPARTED)  # without waiting for a blank line
    assert [(e.event, bytes(e.data)) for e in events + decoder.flush()] == [
        ("a", b'{"n":1}'),
        ("b", b'{"n":2}'),
        ("message", b'{"n":3}'),
        ("message", b"[DONE]"),
    ]
    assert len(events) == 3


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16])
def test_events_without_blank_lines_do_not_depend_on_the_split(size):
    for body in (UNPARTED, UNPARTED.replace(b"\n", b"\r\n"), UNPARTED + b"\n" + UNPARTED):
        whole, cut = SSEDecoder(forgiving=True), SSEDecoder(forgiving=True)
        pieces = [body[i : i + size] for i in range(0, len(body), size)]
        events = [e for piece in pieces for e in cut.feed(piece)] + cut.flush()
        assert events == whole.feed(body) + whole.flush()


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"a":\ndata: {"b":1}}\n\n',
        b'data: [{"a":1},\ndata: {"b":1}]\n\n',
        b"data: a\ndata: b\n\n",
    ],
)
def test_data_of_several_lines_stay_one_event(body):
    assert SSEDecoder(forgiving=True).feed(body) == SSEDecoder().feed(body)


def test_a_name_behind_its_data_counts():
    (event,) = SSEDecoder(forgiving=True).feed(b'data: {"a":1}\nevent: error\n\n')
    assert event.event == "error"


@pytest.mark.parametrize(
    ("first", "second"), [('{"a":1}', '{ "b":2}'), ('[{"a":1}]', '[{"b":2}]'), ("[]", "{}")]
)
def test_no_json_goes_on_behind_its_end(first: str, second: str) -> None:
    body = f"data: {first}\ndata: {second}\n\n".encode()
    found = SSEDecoder(forgiving=True).feed(body)
    assert [bytes(e.data).decode() for e in found] == [first, second]
    (joined,) = SSEDecoder().feed(body)
    assert bytes(joined.data).decode() == f"{first}\n{second}"


def test_a_long_line_behind_other_data_of_its_event() -> None:
    line = b"x" * (2 * LONG_LINE)
    decoder = SSEDecoder()
    events = decoder.feed(b"data: a\ndata: " + line[:LONG_LINE])
    events += decoder.feed(line[LONG_LINE:] + b"\n\n")
    assert [bytes(e.data) for e in events] == [b"a\n" + line]


def test_a_long_line_in_pieces_keeps_to_the_bound_of_its_event() -> None:
    decoder = SSEDecoder(max_line=4 * LONG_LINE, max_event=LONG_LINE)
    for piece in (b"data: ", b"x" * LONG_LINE, b"x", b"\n\n"):
        assert decoder.feed(piece) == []
    assert isinstance(decoder.failure, LimitExceeded)
    assert (decoder.failure.bound, decoder.failure.limit) == ("bytes in one event", LONG_LINE)
