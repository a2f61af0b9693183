"""OpenAI's own client reads what the server sends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from trio_minillm._serve import ServeOptions, open_timed_server
from trio_minillm._serve.words import text_of

openai = pytest.importorskip("openai", reason="openai is not installed")


@pytest.fixture
def client() -> Iterator[Any]:
    """The SDK's client of a server in a thread of its own."""
    ready, leave = threading.Event(), trio.Event()
    found: list[Any] = []

    async def main() -> None:
        options = ServeOptions(ttft=0.01, itl=0.001, tokens=6, reasoning=2)
        async with open_timed_server(options) as server:
            found.extend((server.base_url, trio.lowlevel.current_trio_token()))
            ready.set()
            await leave.wait()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    assert ready.wait(30)
    try:
        with openai.OpenAI(base_url=found[0], api_key="k", max_retries=0) as made:
            yield made
    finally:
        trio.from_thread.run_sync(leave.set, trio_token=found[1])
        thread.join()


def test_chat_completions(client: Any) -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": "one two"}]}
    chunks = [
        *client.chat.completions.create(
            **asked, stream=True, stream_options={"include_usage": True}
        )
    ]
    said = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(said) == text_of(0, 4)
    assert {chunk.model for chunk in chunks} == {"m"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].usage.completion_tokens == 6
    whole = client.chat.completions.create(**asked, max_tokens=3)
    assert whole.choices[0].message.content == "the"
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.prompt_tokens == 2


def test_text_completions(client: Any) -> None:
    parts = [*client.completions.create(model="m", prompt="one two", stream=True)]
    assert "".join(part.choices[0].text for part in parts if part.choices) == text_of(0, 6)


def test_responses(client: Any) -> None:
    with client.responses.create(model="m", input="one two", stream=True) as stream:
        events = [*stream]
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == text_of(
        0, 4
    )
    assert events[-1].response.output_text == text_of(0, 4)
    assert events[-1].response.usage.output_tokens == 6


def test_models_and_refusals(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["timed"]
    with pytest.raises(openai.BadRequestError, match="n must be 1"):
        client.chat.completions.create(model="m", messages=[], n=2)
