"""The web example as an ASGI program, without a server or a browser (those are in `tests/web`)."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm.testing import ScriptedTransport, anthropic_events, hang, reply

from ..support.paths import REPOSITORY

PATH = REPOSITORY / "examples" / "web" / "app.py"
MODEL = llm.anthropic("claude-test", base_url="http://test.invalid", api_key="k")
QUESTION = {"messages": [{"role": "user", "content": "Why?"}], "stream": True}


def example() -> Any:
    spec = importlib.util.spec_from_file_location("web_example", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Exchange:
    """One request to an ASGI program, and what it answers."""

    def __init__(self, method: str, path: str, body: bytes = b"") -> None:
        self.scope = {"type": "http", "method": method, "path": path}
        self.left = trio.Event()
        self.status: int | None = None
        self.body = b""
        self.done = False
        self._messages = [
            {"type": "http.request", "body": body[:3], "more_body": True},
            {"type": "http.request", "body": body[3:]},
        ]

    async def receive(self) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        if self._messages:
            return self._messages.pop(0)
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")
        self.done = message["type"] == "http.response.body" and not message.get("more_body")


@asynccontextmanager
async def serving(*events: Any, **options: Any) -> AsyncIterator[Any]:
    transport = ScriptedTransport(reply(*events, **options))
    retry = llm.Retry(attempts=1)
    async with llm.open_client(transport=transport, retry=retry) as client:
        yield example().App(client, MODEL)


def question(**more: Any) -> bytes:
    return json.dumps({**QUESTION, **more}).encode()


async def test_an_answer_in_openais_format() -> None:
    async with serving(*anthropic_events("Rivers ", "carry ", "salt.")) as app:
        asked = Exchange("POST", "/v1/chat/completions", question(max_tokens=9))
        await app(asked.scope, asked.receive, asked.send)
    assert (asked.status, asked.done) == (200, True)
    response, error = testing.decode(
        llm.compatible("m", base_url="http://x").provider, [asked.body]
    )
    assert (response.content, response.finish_reason, error) == ("Rivers carry salt.", "stop", None)


async def test_the_page_is_there() -> None:
    async with serving() as app:
        asked = Exchange("GET", "/")
        await app(asked.scope, asked.receive, asked.send)
        assert asked.status == 200
        assert b"/v1/chat/completions" in asked.body
        nothing = Exchange("GET", "/live")
        await app(nothing.scope, nothing.receive, nothing.send)
        assert nothing.status == 404


async def test_who_leaves_cancels_the_upstream() -> None:
    async with serving(*anthropic_events("Rivers ")[:3], hang) as app:
        asked = Exchange("POST", "/v1/chat/completions", question())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(app, asked.scope, asked.receive, asked.send)
            await trio.testing.wait_all_tasks_blocked()
            assert b"Rivers" in asked.body
            asked.left.set()
        assert not asked.done
        (record,) = app.client.ledger.recent
        assert record.outcome is llm.Outcome.CANCELLED


async def test_a_second_page_joins_and_leaves_without_harm() -> None:
    events = anthropic_events("Rivers ", "carry ", "salt.")
    async with serving(*events[:3], 1.0, *events[3:]) as app:
        first = Exchange("POST", "/v1/chat/completions", question())
        live, gone = Exchange("GET", "/live"), Exchange("GET", "/live")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(app, first.scope, first.receive, first.send)
            await trio.testing.wait_all_tasks_blocked()
            for one in (live, gone):
                nursery.start_soon(app, one.scope, one.receive, one.send)
            await trio.testing.wait_all_tasks_blocked()
            gone.left.set()
    assert not gone.done
    for one in (first, live):
        assert one.done
        assert one.body.endswith(b"data: [DONE]\n\n")
    provider = llm.compatible("m", base_url="http://x").provider
    assert testing.decode(provider, [live.body])[0].content == "Rivers carry salt."


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"{}", 400),
        (b"[]", 400),
        (question(stream=False), 400),
        (question(messages=[{"role": "x"}]), 400),
        (question(), 502),
    ],
)
async def test_a_refusal_has_a_status(body: bytes, status: int) -> None:
    async with serving(b'{"error": {"message": "no"}}', status=401) as app:
        asked = Exchange("POST", "/v1/chat/completions", body)
        await app(asked.scope, asked.receive, asked.send)
    assert (asked.status, asked.done) == (status, True)
    assert json.loads(asked.body)["error"]["message"]


async def test_lifespan() -> None:
    told: list[str] = []
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: dict[str, Any]) -> None:
        told.append(message["type"])

    async with serving() as app:
        await app({"type": "lifespan"}, receive, send)
    assert told == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
