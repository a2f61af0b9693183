"""Connections, proxies and HTTP of known servers."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio

import trio_minillm as llm
from trio_minillm.testing import openai_events

from ..peers import Peer, Script, serving
from . import Difference

EVENTS = b"".join(openai_events("an answer"))
WHOLE = b'{"choices": [{"message": {"content": "an answer"}, "finish_reason": "stop"}]}'
MUCH = "x" * 8_000_000
"""A prompt that the sockets of both sides do not hold."""

ONCE = llm.Retry(attempts=1)


def _asked(script: Script, prompt: str = "Hi") -> llm.CompletionResponse | llm.MiniLLMError:
    """What comes of a prompt to a server that follows the script."""

    async def main() -> llm.CompletionResponse | llm.MiniLLMError:
        async with serving(script) as server, llm.open_client(retry=ONCE) as client:
            model = llm.compatible("m", base_url=f"{server.url}v1", api_key="none")
            try:
                return await client.complete(model, prompt)
            except llm.MiniLLMError as exc:
                return exc

    return trio.run(main)


def _gives_the_answer(script: Script, prompt: str = "Hi") -> None:
    found = _asked(script, prompt)
    assert isinstance(found, llm.CompletionResponse), found
    assert (found.content, found.outcome) == ("an answer", llm.Outcome.FINISHED)


def _coded(coding: bytes, kind: bytes, body: bytes) -> Callable[[], None]:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.reply(body, b"content-type: " + kind, b"content-encoding: " + coding)

    return partial(_gives_the_answer, script)


async def _early_comments(peer: Peer) -> None:
    request = await peer.head()
    assert request is not None
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    await peer.send(head, b": keep-alive\n\n")
    await peer.body_of(request)
    await peer.send(EVENTS)


async def _too_large(peer: Peer) -> None:
    await peer.head()
    page = b"<html><title>413 Request Entity Too Large</title></html>"
    await peer.reply(page, b"content-type: text/html", status=b"413 Request Entity Too Large")


def _refuses_early() -> None:
    found = _asked(_too_large, MUCH)
    assert isinstance(found, llm.RefusedError), found
    assert found.status == 413


def _in_one_run(main: Callable[[str], Awaitable[None]]) -> Callable[[], None]:
    def check() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        trio.run(main, f"http://localhost:{port}/v1")

    return check


async def _not_started(url: str) -> None:
    async with llm.open_client(retry=ONCE) as client:
        with pytest.raises(llm.SendError, match=r"localhost.*connection refused") as caught:
            await client.complete(llm.compatible("m", base_url=url, api_key="none"), "Hi")
    assert caught.value.reason == "refused"


TRANSPORT: list[Difference] = [
    Difference(
        "relays made with the AI SDK",
        "`content-encoding: none` on a plain stream of events, so that nothing on the way compresses it",
        "the body is read as it is",
        "ai-sdk.dev, troubleshooting: streaming not working when proxied",
        _coded(b"none", b"text/event-stream", EVENTS),
    ),
    Difference(
        "servers behind some gateways",
        "`content-encoding: UTF-8`, which names a character set",
        "the body is read as it is",
        "encode/httpx#195",
        _coded(b"UTF-8", b"text/event-stream", EVENTS),
    ),
    Difference(
        "agentgateway",
        "`content-encoding: br` over JSON that was decompressed on the way",
        "the body is read as it is",
        "agentgateway/agentgateway#3040",
        _coded(b"br", b"application/json", WHOLE),
    ),
    Difference(
        "relays on Node.js",
        "the `content-encoding: gzip` of the answer that `fetch` has decompressed",
        "the body is read as it is",
        "freelensapp/freelens-ai-extension PR 273",
        _coded(b"gzip", b"text/event-stream", EVENTS),
    ),
    Difference(
        "servers with early keep-alives",
        "the status 200 and comments while the request is still coming",
        "the request is sent to its end, and the answer read meanwhile",
        "RFC 9112, 9.5",
        partial(_gives_the_answer, _early_comments, MUCH),
    ),
    Difference(
        "nginx",
        "413 in HTML to a request above `client_max_body_size`, and hangs up before it has all",
        "`RefusedError` with the status 413; nothing more is sent",
        "nginx.org, ngx_http_core_module: client_max_body_size",
        _refuses_early,
    ),
    Difference(
        "Ollama",
        "listens on 127.0.0.1 alone, while `localhost` is ::1 as well; not started, neither answers",
        "both addresses are tried; then `SendError`: connection refused, with the address",
        "docs.ollama.com, FAQ: how can I expose Ollama on my network",
        _in_one_run(_not_started),
    ),
]
