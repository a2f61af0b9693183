"""Answers that go on in another body: nothing twice, nothing lost, wherever they were cut."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm._protocol.ingest import Ingest
from trio_minillm._protocol.left_out import LeftOut
from trio_minillm._protocol.resuming import ResumableDecoder
from trio_minillm._types.errors import EndedEarly
from trio_minillm.providers import OpenAIResponses, Request
from trio_minillm.testing import responses_events, sse

from ..support.recorded import Recording, recordings

PROVIDER = OpenAIResponses()
MODEL = llm.openai_responses("m", base_url="http://test.invalid/v1", api_key="k")
ASKED = Request(model=MODEL, messages=(llm.user("Hi"),), params={"background": True}, extra={})
WAY = PROVIDER.continuation(ASKED)
assert WAY is not None

Body = Iterable[bytes]


def read(*bodies: Body) -> tuple[llm.CompletionResponse, ResumableDecoder]:
    """What an answer in these bodies says. Each body but the last is cut at its end."""
    assert WAY is not None
    ingest = Ingest(model="m", expect_usage=True, choices=1, wire="openai-responses")
    decoder = ResumableDecoder(PROVIDER, WAY)
    for number, body in enumerate(bodies):
        if number:
            decoder.resume()
        for data in body:
            ingest.ingest_all(decoder.feed(data, 0.0))
        ingest.ingest_all(decoder.finish(0.0))
    ingest.fail(decoder.error or EndedEarly("the body ended"))
    left_out = decoder.left_out
    return ingest.response(unread=left_out.unread, skipped_events=left_out.skipped), decoder


def fields(response: llm.CompletionResponse) -> dict[str, Any]:
    return msgspec.structs.asdict(response)


def events_in(body: bytes) -> list[bytes]:
    body = body.replace(b"\r\n", b"\n").strip(b"\n") + b"\n\n"
    return [event + b"\n\n" for event in body.split(b"\n\n") if event]


def behind(events: list[bytes], position: int | None) -> list[bytes]:
    """What a server sends that is asked for the events that follow."""
    assert WAY is not None
    assert position is not None
    out = []
    for event in events:
        data = re.search(rb"(?m)^data: ?(.*)$", event)
        number = None if data is None else WAY.position_in(data[1])
        if number is not None and number > position:
            out.append(event)
    return out


def is_numbered(recording: Recording) -> bool:
    numbers = [event.get("sequence_number") for event in recording.data]
    return len(numbers) > 1 and None not in numbers


@pytest.mark.parametrize("recording", recordings("openai_responses"))
def test_a_recorded_stream_cut_at_its_events(recording: Recording) -> None:
    if not is_numbered(recording):
        pytest.skip("its events have no numbers")
    events = events_in(recording.body)
    wanted, _ = read([recording.body])
    step = max(1, len(events) // 24)
    for cut in [*range(1, len(events), step), len(events) - 1]:
        for left in (b"", events[cut][:-2], events[cut][: len(events[cut]) // 2]):
            first = [*events[:cut], left]
            _, decoder = read(first)
            if decoder.position is None or not decoder.response_id or decoder.error is not None:
                continue
            found, _ = read(first, behind(events, decoder.position))
            assert fields(found) == fields(wanted), (cut, left)
            if left:
                continue
            found, _ = read(first, events)  # a server that sends everything again
            assert fields(found) == fields(wanted), cut


SMILE = "\\ud83d", "\\ude00"
"""One character in two events, as servers send it that count in UTF-16."""


def smiling() -> list[bytes]:
    events = responses_events("Sea ", "first", "second", " salt", status="completed")
    return [
        event.replace(b'"delta":"first"', b'"delta":"%s"' % SMILE[0].encode()).replace(
            b'"delta":"second"', b'"delta":"%s"' % SMILE[1].encode()
        )
        for event in events
    ]


@pytest.mark.parametrize("cut", [1, 4, 6, 9])
def test_events_that_come_again_count_once(cut: int) -> None:
    events = responses_events("Sea ", "is ", "salty.")
    whole, _ = read(events)
    again, decoder = read(events[:cut], events)
    assert fields(again) == fields(whole)
    assert decoder.error is None


def test_half_of_a_character_waits_for_the_other_body() -> None:
    events = smiling()
    whole, _ = read(events)
    assert whole.content == "Sea \N{GRINNING FACE} salt"
    for cut in range(1, len(events)):
        found, _ = read(events[:cut], behind(events, cut - 1))
        assert fields(found) == fields(whole)


WORDS = st.lists(
    st.sampled_from(("a", "Sea ", "é\n", "{", "\N{GRINNING FACE}")), min_size=1, max_size=6
)


@given(words=WORDS, data=st.data())
def test_any_cuts_and_any_split(words: list[str], data: st.DataObject) -> None:
    events = responses_events(*words)
    whole, _ = read(events)
    bodies: list[list[bytes]] = []
    left = events
    for _ in range(data.draw(st.integers(0, 4), "cuts")):
        stream = b"".join(left)
        at = data.draw(st.integers(0 if bodies else len(events[0]), len(stream)), "at")
        bodies.append(split(stream[:at], data))
        _, decoder = read(*bodies)
        if decoder.position == len(events) - 1:
            break
        again = data.draw(st.integers(0, 2), "repeated")
        left = behind(events, (decoder.position or 0) - again)
    else:
        bodies.append(split(b"".join(left), data))
    found, _ = read(*bodies)
    assert fields(found) == fields(whole)


def split(body: bytes, data: st.DataObject) -> list[bytes]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=4)))
    return [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]


EVENTS = responses_events("a", "b", "c")


@pytest.mark.parametrize("missing", [1, 2])
def test_events_that_are_missing_are_no_answer(missing: int) -> None:
    found, decoder = read(EVENTS[:5], EVENTS[5 + missing :])
    assert isinstance(decoder.error, llm.ProtocolError)
    assert (found.outcome, found.content) == (llm.Outcome.ERRORED, "a")
    assert f"event {5 + missing} arrived instead of event 5" in str(decoder.error)


def without_number(event: bytes) -> bytes:
    return re.sub(rb'"sequence_number":\d+,', b"", event)


def test_an_event_without_a_number_may_be_any() -> None:
    found, decoder = read(EVENTS[:5], [without_number(EVENTS[5]), *EVENTS[6:]])
    assert isinstance(decoder.error, llm.ProtocolError)
    assert found.content == "a"


def test_what_says_nothing_needs_no_number() -> None:
    more = [sse({"type": "keepalive"}, "keepalive"), b": ping\n\n", *EVENTS[5:], sse("[DONE]")]
    found, _ = read(EVENTS[:5], more)
    assert fields(found) == fields(read(EVENTS)[0])


@pytest.mark.parametrize(
    "body", [b'{"object":"response","status":"completed","output":[]}', b"<p>"]
)
def test_a_document_is_not_the_rest(body: bytes) -> None:
    found, decoder = read(EVENTS[:5], [body])
    assert isinstance(decoder.error, llm.ProtocolError)
    assert found.content == "a"


def test_a_document_is_an_answer_if_nothing_came_before() -> None:
    output = [{"type": "message", "content": [{"type": "output_text", "text": "abc"}]}]
    body = {"object": "response", "id": "resp_1", "status": "completed", "output": output}
    found, _ = read([msgspec.json.encode(body)])
    assert (found.outcome, found.content) == (llm.Outcome.FINISHED, "abc")


def test_notes_that_are_taken_back() -> None:
    left_out = LeftOut()
    left_out.note("a")
    left_out.note("a")
    left_out.found_again("a")
    assert left_out.unread == {"a": 1}
    left_out.found_again("a")
    left_out.found_again("a")
    assert left_out.unread == {}


def test_numbers_in_no_order_are_none() -> None:
    _, decoder = read([EVENTS[0], EVENTS[1], EVENTS[4], EVENTS[5]])
    assert decoder.position is None
    _, decoder = read([without_number(event) for event in EVENTS])
    assert decoder.position is None
    assert decoder.response_id == "resp_1"


@pytest.mark.parametrize("number", [b"-1", b"1.5", b'"x"', b"null", b"9" * 30, b"true", b"[]"])
def test_numbers_that_are_none(number: bytes) -> None:
    assert WAY is not None
    assert WAY.position_in(b'{"sequence_number":%s}' % number) is None


def test_failures_of_the_answer_itself() -> None:
    failed = sse({"type": "error", "sequence_number": 5, "code": "server_error", "message": "no"})
    _, decoder = read(EVENTS[:5], [failed])
    assert isinstance(decoder.error, llm.ProviderError)
    assert decoder.position == 5


@pytest.mark.parametrize("at", range(4, 7))
def test_content_without_a_number_leaves_no_place_to_go_on_from(at: int) -> None:
    """The server may count it as one of those that follow, and would send it again."""
    _, decoder = read([*EVENTS[:at], without_number(EVENTS[at])])
    assert decoder.position is None
    joined = (
        re.sub(rb"^event: .*\n", b"", EVENTS[at]).strip() + b"\n" + EVENTS[at + 1].split(b"\n")[1]
    )
    _, decoder = read([*EVENTS[:at], joined + b"\n\n"])
    assert decoder.position == at + 1
