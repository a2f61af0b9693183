"""The openai SDK as a client of the web example, whose model speaks Anthropic's format."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Server

openai = pytest.importorskip("openai", reason="openai is not installed")
QUESTION: Any = [{"role": "user", "content": "Why?"}]
WORDS = [f"word {n} of the answer, " for n in range(40)]


def client_of(server: Server) -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_an_answer_of_another_wire(server: Server) -> None:
    with client_of(server) as client:
        chunks = list(client.chat.completions.create(model="any", messages=QUESTION, stream=True))
    deltas = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert list(filter(None, deltas)) == WORDS
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (7, 40)
    assert {(chunk.id, chunk.model) for chunk in chunks} == {("msg_1", "claude-test")}


def test_the_sdks_own_accumulation(server: Server) -> None:
    with client_of(server) as client:
        with client.chat.completions.stream(model="any", messages=QUESTION) as stream:
            whole = stream.get_final_completion()
    assert whole.choices[0].message.content == "".join(WORDS)
    assert whole.choices[0].finish_reason == "stop"


def test_leaving_early_cancels_the_upstream(server: Server) -> None:
    with client_of(server) as client:
        with client.chat.completions.create(model="any", messages=QUESTION, stream=True) as stream:
            next(iter(stream))
            asked = server.told("asked")["at"]
    assert server.told("closed")["at"] - asked < 1


def test_a_refusal_is_an_error(server: Server) -> None:
    with client_of(server) as client, pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="any", messages=[{"role": "x"}], stream=True)
