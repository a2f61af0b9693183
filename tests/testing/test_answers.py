"""Answers with reasoning, calls and usage: built in neutral terms, sent on every wire, and read again."""

import json
from typing import Any

import msgspec
import pytest

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm.testing import ScriptedTransport, ServedRequest, faults

from ..support.wires import KINDS

USAGE = llm.Usage(
    uncached_input_tokens=100,
    cache_read_tokens=50,
    completion_tokens=30,
    reasoning_tokens=10,
)
PARTS = (
    testing.reasoning("Let me see. "),
    "The weather ",
    "is this:",
    testing.tool_call("weather", {"city": "Paris"}),
    testing.tool_call("weather", '{"city": "Rome"}', id="mine"),
)
SPOKEN = sorted(set(KINDS) - {"text"})
CALLS = [("weather", '{"city":"Paris"}'), ("weather", '{"city":"Rome"}')]
HOST = "https://h.invalid"


def model_of(kind: str) -> llm.Model:
    made = KINDS[kind]
    return made.make(made.priced, base_url=f"{HOST}{made.base}", api_key="k")


def whole(answer: testing.ReplyFunction) -> Any:
    """The same answer to a request that is not streamed."""

    def choose(request: ServedRequest) -> testing.Reply:
        body = json.dumps({**request.json(), "stream": False}).encode()
        target = request.target.replace(":streamGenerateContent", ":generateContent")
        return answer(msgspec.structs.replace(request, body=body, target=target))

    return choose


def streamed(answer: testing.ReplyFunction) -> Any:
    return answer


async def asked(kind: str, answer: Any, **params: Any) -> llm.CompletionResponse:
    transport = ScriptedTransport(answer)
    async with llm.open_client(transport=transport) as client:
        response = await client.complete(model_of(kind), "Hi", **params)
    assert len(transport.requests) == 1
    return response


def calls_of(response: llm.CompletionResponse) -> list[tuple[str, str]]:
    return [(c.name, c.arguments.replace(": ", ":")) for c in response.tool_calls]


@pytest.mark.parametrize("as_sent", [streamed, whole])
@pytest.mark.parametrize("kind", SPOKEN)
async def test_an_answer_is_read_as_it_was_built(
    kind: str, as_sent: Any, autojump_clock: Any
) -> None:
    response = await asked(kind, as_sent(testing.answer(*PARTS, usage=USAGE)))
    assert response.outcome is llm.Outcome.FINISHED
    assert (response.reasoning, response.text) == ("Let me see. ", "The weather is this:")
    assert calls_of(response) == CALLS
    assert response.invalid_tool_calls == ()
    assert response.notes == ()
    ids = [call.id for call in response.tool_calls]
    assert ids == ["call_1", "mine"]
    usage = response.usage
    assert usage is not None
    assert (usage.uncached_input_tokens, usage.cache_read_tokens) == (100, 50)
    assert (usage.completion_tokens, usage.reasoning_tokens) == (30, 10)
    assert usage.final
    assert not usage.doubts


@pytest.mark.parametrize("as_sent", [streamed, whole])
@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("finish", ["stop", "length", "content_filter"])
async def test_a_finish_reason_means_the_same_everywhere(
    kind: str, finish: Any, as_sent: Any, autojump_clock: Any
) -> None:
    response = await asked(kind, as_sent(testing.answer("Hel", "lo", finish=finish)))
    assert response.text == "Hello"
    assert response.outcome is llm.Outcome.FINISHED
    assert response.finish_reason is not None
    called = testing.answer("a", testing.tool_call("f"), finish=finish)
    if kind != "text":
        cut = await asked(kind, as_sent(called))
        assert bool(cut.tool_calls) is (finish == "stop")


@pytest.mark.parametrize("as_sent", [streamed, whole])
@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_text_alone_is_as_ever(kind: str, as_sent: Any, autojump_clock: Any) -> None:
    response = await asked(kind, as_sent(testing.answer("Sea ", "salty")))
    assert response.text == "Sea salty"
    assert response.usage is not None
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (7, 2)


@pytest.mark.parametrize("kind", SPOKEN)
async def test_an_answer_can_be_that_of_another(kind: str, autojump_clock: Any) -> None:
    first = await asked("openai", testing.answer(*PARTS))
    again = await asked(kind, testing.answer(*first.parts))
    assert (again.text, again.reasoning, calls_of(again)) == (first.text, first.reasoning, CALLS)


@pytest.mark.parametrize("kind", SPOKEN)
async def test_faults_are_applied_to_any_answer(kind: str, autojump_clock: Any) -> None:
    with pytest.raises(llm.StreamTruncated) as caught:
        broken = testing.answer(*PARTS) | faults.drip(16, 0.1) | faults.cut(-700, "reset")
        await asked(kind, broken, retry=llm.Retry(attempts=1))
    assert caught.value.partial is not None
    assert caught.value.partial.tool_calls == ()


@pytest.mark.parametrize("kind", ["openai", "anthropic", "openai-responses"])
async def test_a_call_need_not_be_json(kind: str, autojump_clock: Any) -> None:
    response = await asked(kind, testing.answer(testing.tool_call("f", '{"a": ')))
    assert response.tool_calls == ()
    assert [call.arguments for call in response.invalid_tool_calls] == ['{"a": ']


async def test_what_a_wire_can_not_say_is_an_error(autojump_clock: Any) -> None:
    for part in (testing.reasoning("x"), testing.tool_call("f")):
        with pytest.raises(ValueError, match="text completions have neither reasoning nor calls"):
            testing.text_events(part)
    with pytest.raises(ValueError, match=r"the arguments of f: this wire format sends no text"):
        testing.gemini_events(testing.tool_call("f", "{"))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: testing.answer(b"x"), TypeError, "a part of an answer must be str or"),
        (
            lambda: testing.answer("x", finish="end_turn"),
            ValueError,
            "finish must be one of 'auto'",
        ),
        (lambda: testing.answer("x", usage=3), TypeError, "usage must be Usage or None, not int"),
        (
            lambda: testing.openai_events("x", usage={"a": 1}),
            TypeError,
            "usage must be bool, not dict",
        ),
        (lambda: testing.tool_call("f", 3), TypeError, "arguments must be Mapping, not int"),
        (lambda: testing.tool_call(3), TypeError, "name must be str, not int"),
        (lambda: testing.reasoning(3), TypeError, "text must be str, not int"),
    ],
)
def test_misuse_is_told(make: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("kind", SPOKEN)
def test_the_events_of_a_stream_have_the_same_parts(kind: str) -> None:
    made = KINDS[kind]
    provider = model_of(kind).provider
    response, error = testing.decode(provider, made.events(*PARTS, usage=USAGE))
    assert error is None
    assert (response.text, response.reasoning) == ("The weather is this:", "Let me see. ")
    assert calls_of(response) == CALLS
    assert response.usage is not None
    assert response.usage.total_tokens == 180
    response, error = testing.decode(provider, made.events(*PARTS, usage=False), expect_usage=False)
    assert error is None
    assert response.usage is None or not response.usage.total_tokens


def test_a_signature_comes_back() -> None:
    part = testing.reasoning("Hm.", signature="c2ln")
    for kind in ("anthropic", "gemini"):
        response, _ = testing.decode(model_of(kind).provider, KINDS[kind].events(part, "Yes."))
        (found,) = (p for p in response.parts if isinstance(p, llm.ReasoningPart))
        assert found.signature == "c2ln", kind
