"""Tests of fields that servers put in other places, or under other names, than the references say."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm.providers import Anthropic, Gemini, OpenAIChat, Provider

USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
DONE = testing.sse("[DONE]")


def chunk(delta: Any = None, reason: Any = None, **choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason, **choice}]}


STOP, TOOLS = chunk({}, "stop"), chunk({}, "tool_calls")
TEXT = chunk({"content": "x"})


def call(function: Any = None, **more: Any) -> dict[str, Any]:
    given = {"function": function} if function is not None else {}
    return chunk({"tool_calls": [{"index": 0, "id": "c1", "type": "function", **given, **more}]})


def pieces(*arguments: str) -> list[dict[str, Any]]:
    first, *others = arguments
    later = [{"index": 0, "function": {"arguments": a}} for a in others]
    return [
        call({"name": "f", "arguments": first}),
        *(chunk({"tool_calls": [one]}) for one in later),
        TOOLS,
    ]


def read(provider: Provider, *events: Any) -> tuple[llm.CompletionResponse, Any]:
    return testing.decode(provider, [e if isinstance(e, bytes) else testing.sse(e) for e in events])


def runnable(response: llm.CompletionResponse) -> list[tuple[str, str]]:
    return [(one.name, one.arguments) for one in response.tool_calls]


A = ("f", '{"a":1}')


# -- calls -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "events",
    [
        [call({"name": "f", "parameters": {"a": 1}}), TOOLS],
        [call({"name": "f", "args": '{"a":1}'}), TOOLS],
        [call({"name": "f", "input": {"a": 1}}), TOOLS],
        [call(name="f", input={"a": 1}), TOOLS],
        [call(name="f", parameters='{"a":1}'), TOOLS],
        [call({"name": "f"}, arguments='{"a":1}'), TOOLS],
        [call({"name": "f", "index": "odd", "parameters": {"a": 1}}, index="0"), TOOLS],
        [chunk({"tool_calls": {"0": {"index": 0, "function": {"name": "f", "arguments": '{"a":1}'}}}}),
         TOOLS],
        [chunk({"content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}]}), TOOLS],
        [chunk({"content": [{"type": "tool_call", "name": "f", "arguments": '{"a":1}'}]}), TOOLS],
        [TEXT, chunk({}, "tool_calls", message={"content": "x", "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]})],
        pieces('{"a":1}', "{}"),
        pieces('{"a":1}', "null"),
        pieces('{}{"a":1}'),
        pieces('{"a":1}{"a":1}'),
        pieces('{"a":1} {"a": 1}', "{}"),
    ],
)  # fmt: skip
def test_a_call_is_whole_wherever_its_arguments_stand(events: list[Any]) -> None:
    response, error = read(OpenAIChat(), *events, USAGE, DONE)
    assert error is None
    assert [(name, msgspec.json.decode(a)) for name, a in runnable(response)] == [("f", {"a": 1})]


@pytest.mark.parametrize(
    "arguments",
    [
        '{"a":"' + "x" * 2**20 + '"}{}{}',
        '{"a":1}{"a":2}',
        '{"a":1}[',
        '{"a":1}7',
        "null null",
        '{"a":1}' * 20,
    ],
)
def test_arguments_that_say_two_things_are_not_run(arguments: str) -> None:
    response, _ = read(OpenAIChat(), *pieces(arguments), USAGE, DONE)
    assert runnable(response) == []


@pytest.mark.parametrize("reason", ["refused", "request_rejected", "risk", "context_overflow"])
def test_a_call_is_not_run_under_a_reason_that_speaks_of_a_filter_or_a_limit(reason: str) -> None:
    whole = call({"name": "f", "arguments": '{"a":1}'})
    response, error = read(OpenAIChat(), whole, chunk({}, reason), USAGE, DONE)
    assert (error, runnable(response)) == (None, [])
    assert len(response.invalid_tool_calls) == 1


def test_two_choices_that_were_not_asked_for_are_one_answer() -> None:
    one = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    body = {
        "choices": [
            {"message": {"content": "I'll look."}, "finish_reason": "tool_calls"},
            {"message": {"tool_calls": [one]}, "finish_reason": "tool_calls"},
        ],
        "usage": USAGE["usage"],
    }
    response, error = read(OpenAIChat(), msgspec.json.encode(body))
    assert (error, response.content, runnable(response)) == (None, "I'll look.", [A])
    body["choices"][1]["message"] = {"content": "another"}  # type: ignore[index]
    response, _ = read(OpenAIChat(), msgspec.json.encode(body))
    assert [c.content for c in response.choices] == ["I'll look.", "another"]
    body["choices"][1]["message"] = {"tool_calls": [one]}  # type: ignore[index]
    whole = [msgspec.json.encode(body)]
    response, _ = testing.decode(OpenAIChat(), whole, choices=2)
    assert [len(c.tool_calls) for c in response.choices] == [0, 1], "two were asked for"


# -- text ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "text", "reasoning"),
    [
        ([chunk(None, "null", message={"content": "Hel"}), chunk(None, "", message={"content": "lo"}),
          STOP], "Hello", ""),
        ([chunk({}, message={"content": 5}), STOP], "5", ""),
        ([chunk({"role": "assistant"}, text="a"), STOP], "a", ""),
        ([chunk({"reasoning_content": "hm"}), chunk(None, "stop", message={
            "content": "a", "reasoning_content": "hm"})], "a", "hm"),
        ([chunk({"content": [
            {"type": "markdown", "content": "a"}, {"type": "paragraph", "text": {"value": "b"}},
            {"type": 5, "text": "c"}, {"type": "text", "data": "d"}, {"type": "text_delta", "delta": "e"},
            {"type": "json", "value": {"x": 1}}]}), STOP], "abcde", ""),
        ([{"choices": {"0": {"index": 0, "delta": {"content": "a"}}}}, STOP], "a", ""),
        ([chunk({"content": {"content": None}}), chunk({"content": True}), STOP], "true", ""),
        ([chunk({"thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "s"},
                                     {"type": "redacted_thinking", "data": "x"}]}), TEXT, STOP], "x", "hm"),
        ([chunk({"reasoning": [{"type": "reasoning.encrypted", "data": "x"}]}), TEXT, STOP], "x", ""),
        ([chunk({"reasoning_content": "hm", "thinking_blocks": [{"thinking": "hm"}]}),
          chunk({"thinking_blocks": [{"thinking": "hm", "signature": "s"}]}), TEXT, STOP], "x", "hm"),
    ],
)  # fmt: skip
def test_text_of_openais_wire(events: list[Any], text: str, reasoning: str) -> None:
    response, error = read(OpenAIChat(), *events, USAGE, DONE)
    assert (error, response.outcome) == (None, llm.Outcome.FINISHED)
    assert (response.content, response.reasoning) == (text, reasoning)


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"content": "a"}, "a"),
        ({"message": {"text": "a"}}, "a"),
        ({"messages": [{"content": "a"}, {"content": "b"}]}, "ab"),
        ({"text": "a"}, "a"),
        ({"message": {"content": "", "output_text": [{"text": "a"}]}}, "a"),
    ],
)
def test_text_of_a_whole_answer(choice: Any, text: str) -> None:
    body = {"choices": [{"index": 0, "finish_reason": "stop", **choice}], "usage": USAGE["usage"]}
    response, error = read(OpenAIChat(), msgspec.json.encode(body))
    assert (error, response.content) == (None, text)


@pytest.mark.parametrize(
    "again",
    [
        chunk({}, message={"content": "x"}),
        chunk({"content": "", "text": "x"}),
        chunk({}, text="x"),
        chunk({"content": "", "message": "done"}),
    ],
)
def test_text_elsewhere_counts_only_if_none_came_where_it_belongs(again: Any) -> None:
    response, error = read(OpenAIChat(), TEXT, again, STOP, USAGE, DONE)
    assert (error, response.content) == (None, "x")
    assert "another place" in " ".join(response.notes)


def test_an_error_by_name_counts_behind_the_answer_too() -> None:
    for name in ("error", "server_error"):
        event = testing.sse({"message": "engine crashed"}, name)
        _, error = read(OpenAIChat(), TEXT, STOP, event, DONE)
        assert isinstance(error, llm.ProviderError)
    for name in ("status", "info"):
        event = testing.sse({"message": "searching"}, name)
        _, error = read(OpenAIChat(), TEXT, event, STOP, USAGE, DONE)
        assert error is None
    _, error = read(OpenAIChat(), TEXT, testing.sse({"message": "gone"}, "bye"), STOP, USAGE, DONE)
    assert isinstance(error, llm.ProviderError)


@pytest.mark.parametrize("end", [[USAGE, DONE], [DONE], []])
def test_words_of_a_failure_count_if_nothing_of_the_answer_follows(end: list[Any]) -> None:
    words = b"data: Error: engine dead\n\n"
    _, error = read(OpenAIChat(), TEXT, words, chunk({}), *end)
    assert isinstance(error, llm.ProviderError)
    assert "engine dead" in str(error)
    for more in ([STOP], [TEXT, TEXT, TEXT, TEXT, TEXT, STOP]):
        response, error = read(OpenAIChat(), TEXT, words, *more, *end)
        assert (error, response.outcome) == (None, llm.Outcome.FINISHED)
        assert response.skipped_events == 1


def test_text_in_an_event_without_choices_is_noted() -> None:
    response, _ = read(OpenAIChat(), {"choices": [], "content": "lost"}, STOP, USAGE, DONE)
    assert "left out because it could not be read: content" in response.notes


def test_what_is_too_long_to_be_read_again_is_left() -> None:
    long = {"choices": [{"delta": {"odd": ["x" * 100] * 1000}}]}
    response, error = read(OpenAIChat(), TEXT, long, STOP, USAGE, DONE)
    assert (error, response.content, response.notes) == (None, "x", ())
    for event in (
        {"choices": [], "content": ["x"] * 5000},
        [{"choices": [], "content": 7}],
        {"choices": [], "filler": ["x" * 100] * 1000},
    ):
        response, error = read(OpenAIChat(), TEXT, event, STOP, USAGE, DONE)
        assert (error, response.content) == (None, "x")


def test_a_reason_in_the_delta_is_one() -> None:
    response, error = read(OpenAIChat(), TEXT, chunk({"finish_reason": "length"}), DONE)
    assert (error, response.finish_reason) == (None, "length")
    response, _ = read(OpenAIChat(), TEXT, chunk({}, finishReason="STOP"), DONE)
    assert response.finish_reason == "STOP"
    _, error = read(OpenAIChat(), TEXT, chunk({"finish_reason": "abort"}), DONE)
    assert isinstance(error, llm.ProviderError)


# -- failures --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        {**TEXT, "code": 10013, "message": "boom"},
        {**TEXT, "code": -1, "message": "boom"},
        {**TEXT, "header": {"code": 10013, "message": "boom"}},
        {"choices": [], "code": "InternalError", "message": "boom"},
        {**chunk({}), "error": "The model x has been deprecated: boom"},
        {"choices": [], "ErrorMsg": {"Msg": "boom", "Code": 4001}},
        chunk({}, "error", error_message="boom"),
        {**chunk({}, "error"), "error_message": "boom"},
        {**chunk({}, "abort"), "errmsg": "boom"},
        testing.sse("boom", "server_error"),
        testing.sse("boom", "ERROR"),
        {"choices": [{"index": 0, "message": {"error": {"message": "boom"}}}]},
        chunk({}, code=500, message="boom"),
        chunk({}, status="error", message="boom"),
        {"type": "overloaded_error", "message": "boom"},
        {"status": "overloaded", "message": "boom"},
        {"event": "tool_timeout", "message": "boom"},
        {"code": ["odd"], "message": "boom"},
        {"error": {**{f"field{n}": None for n in range(99)}, "message": "boom"}},
        b' {"error":{"message":"boom"}}\n\n',
        b'{\n  "error": {\n    "message": "boom",\n    "code": 503\n  }\n}\n\n',
        b'[\n{"error": {"message": "boom"}}\n]\n\n',
    ],
)
def test_a_failure_in_the_middle_counts(event: Any) -> None:
    response, error = read(OpenAIChat(), TEXT, event, STOP, USAGE, DONE)
    assert isinstance(error, llm.ProviderError)
    assert "boom" in str(error)
    assert response.content.startswith("x")


@pytest.mark.parametrize(
    "event",
    [
        {"type": "ping", "message": "hi"},
        {"event": "heartbeat", "message": "hi"},
        {"status": "loading_model", "message": "hi"},
        {"progress": 0.5, "message": "hi"},
        {"type": "tool_progress", "message": "hi"},
        {"status": "thinking", "message": "hi"},
        {"code": "1000", "message": "操作成功"},
        {"code": 202, "message": "wait"},
        {"code": "Success", "message": "hi"},
        {**TEXT, "error": "Warning: slow"},
        {**TEXT, "error": "no error"},
        {**TEXT, "error": " "},
        {**TEXT, "error": {"code": 0, "message": "success", "request_id": "x"}},
        {**TEXT, "code": 0, "message": "boom"},
        {**TEXT, "code": 10013},
        {**chunk({}), "errmsg": "no error", "errcode": 0, "errors": [{}], "__type": "Chunk"},
    ],
)
def test_what_says_that_all_is_well_is_no_failure(event: Any) -> None:
    for events in ([TEXT, event, STOP], [TEXT, {**event, **STOP}]):
        response, error = read(OpenAIChat(), *events, USAGE, DONE)
        assert (error, response.outcome) == (None, llm.Outcome.FINISHED)


@pytest.mark.parametrize(
    "event",
    [
        {"error": {"code": 429, "message": "too many"}, "tool": "router"},
        {"type": "error", "error": "boom", "tool_name": "f"},
        {"type": "response.failed", "tool": "f", "error": "boom"},
    ],
)
def test_a_failure_of_the_answer_may_name_a_tool(event: Any) -> None:
    _, error = read(OpenAIChat(), TEXT, event)
    assert isinstance(error, llm.ProviderError)


@pytest.mark.parametrize(
    "event",
    [
        testing.sse({"tool": "f", "toolCallId": "c1", "status": "failed"}, "hermes.tool.progress"),
        testing.sse({"name": "f", "call_id": "c1", "error": "boom"}, "nanobot.tool.progress"),
        testing.sse({"tool_name": "f", "error": "boom"}, "tool.failed"),
        testing.sse({"name": "f", "error": "boom"}, "tool_error"),
        {"type": "tool_result", "tool_name": "f", "success": False},
        {"event": "tool.completed", "tool": "f", "error": True},
    ],
)
def test_the_failure_of_a_tool_is_not_that_of_the_answer(event: Any) -> None:
    gemini = [{"candidates": [{"content": {"parts": [{"text": "x"}]}}]},
              {"candidates": [{"content": {"parts": []}, "finishReason": "STOP"}]}]  # fmt: skip
    anthropic = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}},
    ]
    for provider, (text, end) in (
        (OpenAIChat(), (TEXT, STOP)),
        (Gemini(), gemini),
        (Anthropic(), anthropic),
    ):
        response, error = read(provider, text, event, end)
        assert (error, response.outcome) == (None, llm.Outcome.FINISHED)
        assert response.content == "x"
    response, error = read(OpenAIChat(), TEXT, event, DONE)
    assert response.skipped_events == 1
    assert any("the failure of a tool" in note for note in response.notes)
    assert isinstance(error, llm.EndedEarly)


@pytest.mark.parametrize(
    "event",
    [
        testing.sse({"tool": "f", "message": "boom"}, "error"),
        testing.sse({"message": "boom"}, "tool_error"),
        b"event: tool_error\ndata: boom\n\n",
        b'event: tool_error\ndata: ["boom"]\n\n',
        {"type": "error", "tool": "f", "message": "boom"},
        {"tool": "", "error": "boom"},
        {"error": {"message": "boom", "code": "tool_use_failed"}},
        {**chunk({}, "error"), "tool": "f", "error": "boom"},
    ],
)
def test_a_failure_that_names_no_tool_is_that_of_the_answer(event: Any) -> None:
    _, error = read(OpenAIChat(), TEXT, event, STOP, USAGE, DONE)
    assert isinstance(error, llm.ProviderError)
    assert "boom" in str(error)


def test_words_behind_the_answer_are_none_of_its_failures() -> None:
    for events in ([STOP, USAGE], [STOP]):
        ends = [{"detail": "all done"}, {"event": "closing", "message": "bye"}]
        response, error = read(OpenAIChat(), TEXT, *events, *ends, DONE)
        assert (error, response.outcome, response.skipped_events) == (None, "finished", 2)
    _, error = read(OpenAIChat(), TEXT, STOP, {"error": {"message": "boom"}}, DONE)
    assert isinstance(error, llm.ProviderError)


def test_a_whole_answer_that_is_printed_over_several_lines() -> None:
    body = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], **USAGE}
    body["choices"] = [{"message": {"content": "hi"}, "finish_reason": "stop"}]
    printed = msgspec.json.format(msgspec.json.encode(body), indent=2)
    response, error = read(OpenAIChat(), b": comment\n\n", printed + b"\n\n")
    assert (error, response.content) == (None, "hi")


# -- Anthropic's wire ------------------------------------------------------------------------

START = {
    "type": "message_start",
    "message": {"id": "m", "content": [], "usage": {"input_tokens": 3, "output_tokens": 1}},
}
END = {"type": "message_stop"}
USE = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}


def ends(reason: str) -> dict[str, Any]:
    delta = {"stop_reason": reason}
    return {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 5}}


def opens(block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": 0, "content_block": block}


def change(**delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": delta}


def stops(**more: Any) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": 0, **more}


@pytest.mark.parametrize(
    "events",
    [
        [opens(USE), change(type="input_json_delta", input='{"a":1}')],
        [opens(USE), change(type="input_json_delta", json={"a": 1})],
        [opens(USE), change(type="tool_use_delta", input='{"a":1}')],
        [opens({**USE, "input": None, "arguments": '{"a":1}'})],
        [opens({**USE, "input": None, "parameters": {"a": 1}})],
        [opens(USE), stops(content_block={**USE, "input": {"a": 1}})],
        [opens(USE), change(type="input_json_delta", partial_json='{"a":1}'),
         stops(content_block={**USE, "input": {"a": 1}})],
        [opens({"type": "function", "id": "t1", "name": "f", "input": {"a": 1}})],
    ],
)  # fmt: skip
def test_a_call_of_anthropics_wire_is_whole_wherever_its_input_stands(events: list[Any]) -> None:
    response, error = read(Anthropic(), START, *events, stops(), ends("tool_use"), END)
    assert (error, runnable(response)) == (None, [A])


def test_text_in_the_block_of_a_call_makes_the_call_doubtful() -> None:
    text = change(type="text_delta", text='{"a":1}')
    response, _ = read(Anthropic(), START, opens(USE), text, stops(), ends("tool_use"), END)
    assert (runnable(response), response.content) == ([], '{"a":1}')


@pytest.mark.parametrize("kind", ["text_delta", "thinking_delta"])
def test_text_beside_the_input_in_the_block_of_a_call_is_text(kind: str) -> None:
    given = change(type="input_json_delta", partial_json='{"a":1}')
    field = "text" if kind == "text_delta" else "thinking"
    said = [change(type=kind, **{field: "so"}), change(type=kind, **{field: "\n"})]
    events = [START, opens(USE), given, *said, stops(), ends("tool_use"), END]
    response, error = read(Anthropic(), *events)
    assert (error, runnable(response), response.invalid_tool_calls) == (None, [A], ())
    assert (response.content or response.reasoning) == "so\n"


def test_blanks_in_the_block_of_a_call_without_input_say_nothing() -> None:
    blank = change(type="text_delta", text="\n")
    response, _ = read(Anthropic(), START, opens(USE), blank, stops(), ends("tool_use"), END)
    assert [c.name for c in response.tool_calls] == ["f"]


@pytest.mark.parametrize(
    "end",
    [
        [{"type": "message_delta", "delta": {"finish_reason": "max_tokens"}}, END],
        [{"type": "message_delta", "message": {"stop_reason": "max_tokens"}}, END],
        [{**END, "stop_reason": "max_tokens"}],
        [{**END, "message": {"stop_reason": "max_tokens"}}],
    ],
)
def test_a_reason_of_anthropics_wire_counts_wherever_it_stands(end: list[Any]) -> None:
    response, error = read(Anthropic(), START, opens(USE), stops(), *end)
    assert (error, response.finish_reason, runnable(response)) == (None, "max_tokens", [])
    _, error = read(Anthropic(), START, opens(USE), {**END, "stop_reason": "abort"})
    assert isinstance(error, llm.ProviderError)


@pytest.mark.parametrize(
    ("events", "text", "reasoning"),
    [
        ([opens({"type": "text"}), change(type="text_delta", content="a")], "a", ""),
        ([opens({"type": "text"}), change(type="text_delta", delta={"text": "a"})], "a", ""),
        ([opens({"type": "text", "content": "a"})], "a", ""),
        ([opens({"type": "text", "text": {"value": "a"}})], "a", ""),
        ([opens({"type": "output_text", "text": "a"})], "a", ""),
        ([{"type": "content_block_delta", "index": 0, "text": "a"}], "a", ""),
        ([change(content="a")], "a", ""),
        ([change(type="thinking_delta", text="a")], "", "a"),
        ([change(type="reasoning_delta", reasoning="a")], "", "a"),
        ([change(type="reasoning_content_delta", reasoning_content="a")], "", "a"),
        ([opens({"type": "thinking", "thinking": [{"text": "a"}]})], "", "a"),
    ],
)
def test_text_of_anthropics_wire(events: list[Any], text: str, reasoning: str) -> None:
    response, error = read(Anthropic(), START, *events, stops(), ends("end_turn"), END)
    assert (error, response.outcome) == (None, llm.Outcome.FINISHED)
    assert (response.content, response.reasoning) == (text, reasoning)


def test_a_relays_overload_on_anthropics_wire_counts() -> None:
    event = {"type": "overloaded_error", "message": "boom"}
    _, error = read(Anthropic(), START, event, END)
    assert isinstance(error, llm.ProviderError)


def test_of_two_choices_each_is_read_again() -> None:
    event = {
        "choices": [
            {"index": 0, "delta": {}},
            {"index": 1, "delta": {"thoughts": "hm"}},
        ]
    }
    first, second = OpenAIChat().parse_chunk(msgspec.json.encode(event))
    assert (first.reasoning, second.reasoning) == ("", "hm")


# -- in another object ---------------------------------------------------------------------------


def wrapped(field: str, inner: Any) -> bytes:
    return json.dumps({field: inner, "success": True}).encode()


@pytest.mark.parametrize("field", ["result", "data", "provider"])
def test_an_event_or_answer_in_another_object_is_read(field: str) -> None:
    piece = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}
    whole = {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}
    chunk = OpenAIChat().parse_chunk(wrapped(field, piece))
    assert isinstance(chunk, llm.StreamChunk)
    assert (chunk.delta, chunk.finish_reason) == ("Hi", "stop")
    chunks = OpenAIChat().parse_response(wrapped(field, whole))
    assert "".join(c.delta for c in chunks) == "Hi"


@pytest.mark.parametrize("inside", [None, {"prompt_tokens": 3, "completion_tokens": 2}])
def test_usage_beside_a_wrapping_counts_if_there_is_none_inside(inside: Any) -> None:
    for texts in (["Hel", "lo"], ["Hel", "Hello"]):  # pieces, or all so far
        events = [
            {"output": {"choices": [{"message": {"content": text}, "finish_reason": reason}]},
             "usage": {"input_tokens": 5, "output_tokens": 7}}
            for text, reason in zip(texts, ("null", "stop"), strict=True)
        ]  # fmt: skip
        events[-1]["output"]["usage"] = inside
        response, error = read(OpenAIChat(), *events)
        assert (error, response.content) == (None, "Hello")
        response, error = read(OpenAIChat(), msgspec.json.encode(events[-1]))
        assert (error, response.content) == (None, texts[-1])
        assert response.usage is not None
        assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (
            (3, 2) if inside else (5, 7)
        )


@pytest.mark.parametrize("inner", [None, {}, {"choices": []}, {"choices": {"a": 1}}, "choices"])
def test_what_holds_no_choices_is_no_answer(inner: Any) -> None:
    chunk = OpenAIChat().parse_chunk(wrapped("result", inner))
    assert isinstance(chunk, llm.StreamChunk)
    assert not chunk.answer
    with pytest.raises(llm.ProviderError):
        OpenAIChat().parse_response(wrapped("result", inner))
    with pytest.raises(llm.ProviderError):
        OpenAIChat().parse_response(b'{"message":"no","x":NaN}')


def test_the_words_beside_a_reason_say_what_failed() -> None:
    words = {"error_message": "Rate limit exceeded, try again in 3 seconds"}
    for event in (chunk({}, "error", **words), {**chunk({}, "error"), **words}):
        _, error = read(OpenAIChat(), TEXT, event, DONE)
        assert isinstance(error, llm.ProviderError)
        assert (error.kind, error.info.retry_after) == ("rate_limit", 3.0)
    _, error = read(OpenAIChat(), TEXT, chunk({}, "insufficient_system_resource", err="boom"), DONE)
    assert isinstance(error, llm.ProviderError)
    assert (error.kind, error.info.code) == ("overloaded", "insufficient_system_resource")
    assert "boom" in str(error)
    for usual in ({}, {"error_message": ""}, {"error_message": None}):
        _, error = read(OpenAIChat(), TEXT, chunk({}, "error", **usual), DONE)
        assert str(error).endswith("the finish reason is 'error'")
