"""Bytes to chunks: bodies of the wrong kind, bounds, and what errors may show."""

import json

import pytest

import trio_minillm as llm
from trio_minillm import providers, testing
from trio_minillm._protocol.decoder import ChunkDecoder
from trio_minillm._protocol.json_limits import MAX_OBJECTS
from trio_minillm._protocol.left_out import MAX_UNREAD, LeftOut
from trio_minillm._protocol.redaction import THOROUGH
from trio_minillm.testing import anthropic_events, openai_events, sse

BOM = b"\xef\xbb\xbf"


def decode(*pieces, provider=None, **options):
    decoder = ChunkDecoder(provider or providers.OpenAIChat(), **options)
    chunks = [c for piece in pieces for c in decoder.feed(piece, 1.5)]
    return decoder, chunks + decoder.finish(2.5)


def test_chunks_carry_their_event_and_time():
    _, chunks = decode(b"".join(openai_events("a", "b")))
    assert [c.event for c in chunks] == [1, 2, 3, 4, 5, 6]
    assert {c.received_at for c in chunks} == {1.5}
    assert all(c.raw is None for c in chunks)


def test_an_event_with_several_choices_is_several_chunks():
    both = sse({"choices": [{"index": i, "delta": {"content": str(i)}} for i in (0, 1)]})
    decoder, chunks = decode(both, raw=True)
    assert [(c.choice, c.delta, c.event, c.received_at) for c in chunks] == [
        (0, "0", 1, 1.5),
        (1, "1", 1, 1.5),
    ]
    assert all(c.raw for c in chunks)
    assert decoder.error is None


@pytest.mark.parametrize("body", [b'{"choices":[{"message":{"content":"x"}}]}', sse("[DONE]")])
def test_a_byte_order_mark_may_be_cut_anywhere(body):
    expected = [c.delta for c in decode(body)[1]]
    for cut in range(1, 6):
        whole = BOM + body
        _, chunks = decode(whole[:cut], whole[cut:])
        assert [c.delta for c in chunks] == expected


@pytest.mark.parametrize("body", [b"", BOM[:1], BOM[:2], BOM, b" \n"])
def test_a_body_without_an_event_gives_nothing(body):
    decoder, chunks = decode(body)
    assert chunks == []
    assert decoder.error is None


def test_a_body_that_is_a_list_of_events_is_a_stream():
    choices = {"index": 0, "delta": {"content": "Hi"}}, {"delta": {}, "finish_reason": "stop"}
    body = json.dumps([{"id": "g", "choices": [choice]} for choice in choices]).encode()
    for cut in (1, 30, len(body)):
        decoder, chunks = decode(body[:cut], body[cut:])
        assert [(c.delta, c.finish_reason, c.event) for c in chunks] == [
            ("Hi", None, 1),
            ("", "stop", 2),
        ]
        assert decoder.error is None


def test_a_body_that_is_no_stream_is_bounded():
    piece = b" " * (1 << 20)
    decoder = ChunkDecoder(providers.OpenAIChat(), max_event=4 << 20)
    decoder.feed(b"[", 0.0)
    for _ in range(4):
        decoder.feed(piece, 0.0)
    assert isinstance(decoder.error, llm.LimitExceeded)
    assert decoder.feed(piece, 0.0) == []
    assert decoder.finish(0.0) == []


@pytest.mark.parametrize("body", [b"<html>no</html>", b" \n<?xml?>", BOM + b"<p>"])
def test_a_body_of_markup_is_malformed(body):
    decoder, chunks = decode(body)
    assert (chunks, type(decoder.error)) == ([], llm.ProtocolError)
    assert "HTML or XML" in str(decoder.error)


def test_a_body_of_very_many_objects_is_refused_before_it_is_read():
    answer = b'{"choices":[{"message":{"content":[' + b"{}," * MAX_OBJECTS + b'"x"]}}]}'
    decoder, chunks = decode(answer)
    assert (chunks, str(decoder.error)) == (
        [],
        f"more than {MAX_OBJECTS:,} opening braces and brackets in one body",
    )


def test_an_event_of_very_many_objects_is_refused_before_it_is_read():
    first, second = openai_events("a", "b")[1:3]
    many = b'data: {"choices":[{"delta":{"content":[' + b"{}," * MAX_OBJECTS + b'"x"]}}]}\n\n'
    decoder, chunks = decode(first, many, second)
    assert [chunk.delta for chunk in chunks] == ["a"]
    assert isinstance(decoder.error, llm.LimitExceeded)
    assert (decoder.error.event, decoder.events) == (2, 2)


@pytest.mark.parametrize("form", ["event", "body"])
@pytest.mark.parametrize(
    "place",
    [
        '{"choices":[{"index":0,%s,"message":{"content":"x"},"finish_reason":"stop"}]}',
        '{"choices":[{"index":0,"message":{%s,"content":"x"},"finish_reason":"stop"}]}',
        '{%s,"choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}]}',
        '{"choices":{"index":0,%s,"message":{"content":"x"},"finish_reason":"stop"}}',
    ],
)
def test_a_field_beside_the_answer_that_is_too_much_costs_only_itself(form, place):
    many = '"logprobs":{"content":[' + '{"token":"a"},' * MAX_OBJECTS + "0]}"
    body = (place % many).encode()
    decoder, chunks = decode(body if form == "body" else b"data: " + body + b"\n\n")
    assert decoder.error is None
    assert "".join(chunk.delta for chunk in chunks) == "x"
    assert any(chunk.finish_reason == "stop" for chunk in chunks)
    assert decoder.left_out.unread == {f"logprobs beyond the limits of one {form}": 1}


def test_a_strange_name_of_such_a_field_is_not_told():
    many = b'{"my secret":[' + b"{}," * MAX_OBJECTS + b'0],"choices":[{"message":{"content":"x"}}]}'
    decoder, _ = decode(many)
    assert list(decoder.left_out.unread) == ["a field beyond the limits of one body"]


@pytest.mark.parametrize(
    "data", [b"[" * (MAX_OBJECTS + 1), b'{"choices":[1],"a":' + b"[" * 200_000]
)
def test_what_is_too_much_and_no_object_is_refused_as_it_is(data):
    decoder, chunks = decode(b"data: " + data + b"\n\n")
    assert chunks == []
    assert isinstance(decoder.error, llm.LimitExceeded)


def test_too_much_behind_the_finish_reason_is_passed_over():
    first, *_ = openai_events("a")[1:]
    stop = sse('{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}')
    many = b'data: {"choices":[{"delta":{"content":[' + b"{}," * MAX_OBJECTS + b'"x"]}}]}\n\n'
    decoder, chunks = decode(first, stop, many)
    assert decoder.error is None
    assert decoder.left_out.skipped == 1
    assert [chunk.delta for chunk in chunks if chunk.delta] == ["a"]


def test_nothing_comes_out_behind_an_error():
    decoder = ChunkDecoder(providers.OpenAIChat())
    first = decoder.feed(openai_events("a")[1] + sse("{"), 0.0)
    assert [c.delta for c in first] == ["a"]
    assert decoder.error.event == 2
    assert decoder.feed(b"".join(openai_events("b")), 0.0) == []
    assert decoder.finish(0.0) == []


def test_a_line_beyond_its_bound_in_the_unfinished_rest_is_an_error():
    decoder = ChunkDecoder(providers.OpenAIChat())
    decoder._sse.max_line = 10
    decoder.feed(b"data: 0123456789 and more\ndata", 0.0)
    assert isinstance(decoder.error, llm.LimitExceeded)


@pytest.mark.parametrize("start", [b"data: ", b": ", b"data: {}\n\ndata: ", b"data: a\ndata: "])
@pytest.mark.parametrize("endless", [b"a" * 65_536, (b"data: " + b"a" * 1_000 + b"\n") * 65])
def test_an_endless_line_or_event_is_an_error(start, endless):
    decoder = ChunkDecoder(Odd(), lenient=True, max_event=1 << 20)
    decoder.feed(start, 0.0)
    for _ in range(25):
        decoder.feed(endless, 0.0)
    assert isinstance(decoder.error, llm.LimitExceeded)
    assert "bytes in one" in str(decoder.error)


def test_a_bound_that_the_unfinished_last_event_crosses_is_an_error():
    decoder = ChunkDecoder(providers.OpenAIChat())
    decoder._sse.max_event = 10
    decoder.feed(b"data: 01234\ndata: 56789", 0.0)
    decoder.finish(0.0)
    assert isinstance(decoder.error, llm.LimitExceeded)


class Odd(providers.OpenAIChat):
    """A provider that reports an error from data that its error parser does not know."""

    def parse_chunk(self, data):
        if b"boom" in data:
            raise llm.ProviderError(llm.ErrorInfo(message=data.decode(), kind="server"))
        return

    def parse_event(self, event, data):
        return llm.StreamChunk()


@pytest.mark.parametrize("provider", [Odd(), providers.OpenAIChat()])
def test_a_secret_that_is_echoed_is_blanked_out(provider):
    data = sse({"error": {"message": "boom sk-secret"}})
    decoder, _ = decode(data, provider=provider, secrets=[b"sk-secret"])
    assert str(decoder.error) == "the server reported an error (server): boom [hidden]"
    assert decoder.error.__context__ is None


def test_a_secret_in_an_error_behind_a_byte_order_mark_leaves_it_the_error_it_is():
    body = BOM + b'{"error":{"message":"boom sk-secret","code":"x"}}'
    decoder, _ = decode(body, secrets=[b"sk-secret"])
    assert (decoder.error.info.message, decoder.error.code) == ("boom [hidden]", "x")


@pytest.mark.parametrize("spelled", ["sk-secret-0123", "sk%2Dsecret%2D0123"])
def test_a_secret_in_a_long_error_is_blanked_out_in_what_is_shown(spelled):
    error = {"message": f"boom {spelled}", "code": spelled, "metadata": {"x": "x" * THOROUGH}}
    decoder, _ = decode(sse({"error": error}), secrets=[b"sk-secret-0123"])
    info = decoder.error.info
    assert (info.message, info.code) == ("boom [hidden]", "[hidden]")
    assert "secret" not in f"{decoder.error} {decoder.error!r} {info!r}"


class Half(Odd):
    """A provider that knows an error only where it stands."""

    def parse_event(self, event, data):
        raise ValueError("this is no error")


def test_what_its_parser_makes_nothing_of_is_blanked_out_all_the_same():
    data = sse({"error": {"message": "boom sk-secret"}})
    decoder, _ = decode(data, provider=Half(), secrets=[b"sk-secret"])
    assert decoder.error.info.message == "boom [hidden]"


def test_a_malformed_event_that_holds_a_secret_is_still_a_malformed_event():
    decoder, _ = decode(sse({"choices": "sk-secret", "type": 5}), secrets=[b"sk-secret"])
    assert isinstance(decoder.error, llm.ProtocolError)
    assert "sk-secret" not in str(decoder.error)


class Foreign(providers.OpenAIChat):
    def parse_chunk(self, data):
        raise KeyError("what the event said")


def test_foreign_errors_of_a_parser_are_malformed_events_and_not_quoted():
    decoder, _ = decode(sse("x"), provider=Foreign())
    assert str(decoder.error) == "event 1: KeyError"
    assert isinstance(decoder.error.__cause__, KeyError)


@pytest.mark.parametrize(
    ("provider", "events"),
    [
        (providers.OpenAIChat(), openai_events("Hel", "lo wörld ✓", "!")),
        (providers.Anthropic(), anthropic_events("Hel", "lo wörld ✓", "!")),
    ],
    ids=["openai", "anthropic"],
)
def test_a_body_that_is_cut_anywhere_is_truncated_or_whole_and_never_malformed(provider, events):
    body = b"".join(events)
    whole, _ = testing.decode(provider, [body])
    finished = 0
    for cut in range(len(body)):
        response, error = testing.decode(provider, [body[:cut]])
        assert whole.content.startswith(response.content)
        if response.outcome is llm.Outcome.FINISHED:
            finished += 1
            assert response.content == whole.content
            assert error is None
        else:
            assert response.outcome is llm.Outcome.TRUNCATED
            assert isinstance(error, llm.EndedEarly)
    assert 0 < finished < len(body)


def test_a_long_answer_without_blank_lines_is_read_as_it_comes() -> None:
    event = sse({"choices": [{"index": 0, "delta": {"content": "a", "role": "assistant"}}]})[:-1]
    decoder = ChunkDecoder(providers.OpenAIChat())
    body = event * 30_000  # more quotation marks than one event may have
    chunks = [c for i in range(0, len(body), 65536) for c in decoder.feed(body[i : i + 65536], 0.0)]
    assert decoder.error is None
    assert len(chunks) == 30_000 - 1  # the last one may go on
    assert len(decoder.finish(0.0)) == 1


TEXT = {"choices": [{"index": 0, "delta": {"content": "a"}}]}
REASON = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def test_what_can_not_be_read_behind_the_reason_is_passed_over_and_noted() -> None:
    decoder, chunks = decode(sse(TEXT) + sse(REASON) + sse('{"choices": 5}'))
    assert [c.delta for c in chunks] == ["a", ""]
    assert decoder.error is None
    assert decoder.left_out.unread == {"an event after the finish reason": 1}
    assert decoder.left_out.skipped == 1


@pytest.mark.parametrize(
    "body",
    [
        b"upstream is gone sk-secret",
        b"upstream: gone sk-secret\n\n",
        b": alive\n\n: alive\n\nupstream is gone sk-secret",
    ],
)
def test_a_body_that_is_no_answer_is_an_error_in_the_servers_words(body: bytes) -> None:
    decoder, chunks = decode(body, secrets=[b"sk-secret"])
    assert (chunks, decoder.error) == ([], None)
    error = decoder.other_words()
    assert isinstance(error, llm.ProviderError)
    said = body.removeprefix(b": alive\n\n: alive\n\n").strip().decode()
    assert error.info.message == said.replace("sk-secret", "[hidden]")


@pytest.mark.parametrize("body", [b"", b"dat", b"event", b"data: [DONE]\n\n", b": alive\n\nda"])
def test_a_body_that_may_be_the_beginning_of_events_says_nothing(body: bytes) -> None:
    assert decode(body)[0].other_words() is None


def test_names_of_what_was_left_out_are_bounded() -> None:
    left_out = LeftOut()
    for number in range(MAX_UNREAD + 5):
        left_out.note(f"field{number}")
    left_out.note("field0")
    assert len(left_out.unread) == MAX_UNREAD
    assert left_out.unread["field0"] == 2


def test_a_secret_in_an_error_of_many_fields_is_blanked_out() -> None:
    more = {f"field {number}": "x" for number in range(THOROUGH // 8)}
    error = {"message": "boom sk-secret-0123", "code": "sk-secret-0123", "metadata": more}
    decoder, _ = decode(
        sse({"error": error, "usage": {"completion_tokens": 3}}), secrets=[b"sk-secret-0123"]
    )
    assert isinstance(decoder.error, llm.ProviderError)
    info = decoder.error.info
    assert (info.message, info.code, info.metadata) == ("boom [hidden]", "[hidden]", None)
    assert decoder.error.usage is not None
    assert decoder.error.usage.completion_tokens == 3


DEEP = "[" * 3000 + "]" * 3000


def test_what_nests_too_deep_costs_itself_and_not_the_answer():
    event = b'data: {"choices":[{"delta":{"content":"a"},"logprobs":{"content":%b}}]}\n\n'
    decoder, chunks = decode(event % DEEP.encode(), provider=providers.OpenAIChat())
    assert (decoder.error, [c.delta for c in chunks]) == (None, ["a"])
    assert decoder.left_out.unread == {"values nested too deep": 1}
    body = b'{"odd":%b,"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}'
    decoder, chunks = decode(body % DEEP.encode(), provider=providers.OpenAIChat())
    assert (decoder.error, [c.delta for c in chunks if c.delta]) == (None, ["a"])
    assert decoder.left_out.unread == {"values nested too deep": 1}


@pytest.mark.parametrize(
    ("said", "failed"),
    [
        ("Error: engine dead", True),
        ("[ERROR] engine dead", True),
        ("Internal Server Error", True),
        ("upstream connect error or disconnect", True),
        ("Traceback (most recent call last):", True),
        ("no error so far", False),
        ("still working", False),
        ("{keepalive}", False),
        ("{'type': 'ping'}", False),
        ('{"event":"heartbeat", ', False),
    ],
)
def test_data_that_are_no_json_are_a_failure_if_they_say_so(said, failed):
    event = f"data: {said}\n\n".encode()
    for pieces in ([event], [event, sse("[DONE]")], [event + sse("[DONE]")]):
        decoder, chunks = decode(*pieces)
        assert isinstance(decoder.error, llm.ProviderError) is failed
        assert decoder.left_out.skipped == 1
        if failed:  # an end that is handed out would end the answer before the error is seen
            assert not any(c.end for c in chunks)


HALF_EVENT = b'data: {"choices":[{"delta":{"content":"a\n'


@pytest.mark.parametrize("name", [b"", b"event: error\n"])
def test_a_failure_that_is_reported_inside_a_broken_event_is_one(name):
    decoder, _ = decode(HALF_EVENT + name + b'data: {"error":{"message":"upstream is gone"}}\n\n')
    assert isinstance(decoder.error, llm.ProviderError)
    assert decoder.error.info.message == "upstream is gone"


@pytest.mark.parametrize("line", [b'data: {"choices":[]}', b"data: {", b'data: {"choices":7}'])
def test_anything_else_inside_a_broken_event_makes_it_malformed(line):
    decoder, _ = decode(HALF_EVENT + line + b"\n\n")
    assert isinstance(decoder.error, llm.ProtocolError)


def test_events_that_stand_in_a_row_without_anything_between_are_a_stream():
    text, end = {"index": 0, "delta": {"content": "Hi"}}, {"delta": {}, "finish_reason": "stop"}
    body = b"".join(json.dumps({"choices": [choice]}).encode() for choice in (text, end))
    response, error = testing.decode(providers.OpenAIChat(), [body[:9], body[9:]])
    assert error is None
    assert (response.content, response.finish_reason) == ("Hi", "stop")
    assert isinstance(decode(body[:-1])[0].error, llm.ProtocolError)
