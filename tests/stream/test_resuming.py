"""Responses in the background: cut, taken up again, and called off."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

import trio_minillm as llm
from trio_minillm.testing import ScriptedTransport, faults, reply, responses_events, resumable

from ..support.runs import IN_MEMORY, run

URL = "http://test.invalid/v1"
KEY = "sk-secret-000"
EVENTS = responses_events("Sea ", "water ", "is ", "salty.")
SIZE = sum(map(len, EVENTS))
QUICK = llm.Retry(base_delay=0.0)


def model(url: str = URL, **options: Any) -> llm.Model:
    return llm.openai_responses("m", base_url=url, **{"api_key": KEY, **options})


def said(response: llm.CompletionResponse) -> dict[str, Any]:
    """What an answer says, without when and how it came."""
    fields = msgspec.structs.asdict(response)
    return {k: v for k, v in fields.items() if k not in ("timings", "request_id")}


async def asked(
    transport: ScriptedTransport, way: str = "complete", retry: llm.Retry = QUICK, **options: Any
) -> llm.CompletionResponse:
    async with llm.open_client(transport=transport, retry=retry) as client:
        options = {"background": True, "timeouts": llm.Timeouts(total=1000), **options}
        made = options.pop("model", None) or model()
        if way == "complete":
            return await client.complete(made, "Hi", **options)
        text = ""
        async with client.stream(made, "Hi", **options) as stream:
            async for chunk in stream:
                text += chunk.delta
        assert stream.response.content == text
        return stream.response


def whole() -> llm.CompletionResponse:
    response: llm.CompletionResponse = run(
        lambda: asked(ScriptedTransport(reply(*EVENTS))), IN_MEMORY
    )
    return response


WAYS = ("complete", "iterate")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", ["eof", "reset"])
def test_an_answer_that_is_cut_goes_on(way: str, how: Any) -> None:
    for at in range(len(EVENTS[0]), SIZE, 37):
        transport = ScriptedTransport(resumable(*EVENTS) | faults.cut(at, how), resumable(*EVENTS))
        response = run(lambda t=transport: asked(t, way), IN_MEMORY)
        assert said(response) == said(whole())
        assert len(transport.requests) == 1
        assert response.timings.attempts == 1
        assert transport.open_bodies == 0
        assert response.timings.resumes == len(transport.questions)
