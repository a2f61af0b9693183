"""Connections, proxies and HTTP of known servers."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import trio

import trio_minillm as llm
from trio_minillm.testing import anthropic_events, openai_events

from ..peers import Peer, Script, serving
from . import Difference

EVENTS = b"".join(openai_events("an answer"))
WHOLE = b'{"choices": [{"message": {"content": "an answer"}, "finish_reason": "stop"}]}'
MUCH = "x" * 8_000_000
"""A prompt that the sockets of both sides do not hold."""

ONCE = llm.Retry(attempts=1)


def _asked(script: Script, prompt: str = "Hi") -> llm.CompletionResponse | llm.MiniLLMError:
    """Send a prompt to a server that follows the script, and return the response or the error."""

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


URL = "https://api.invalid/v1"


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """An environment whose only words about proxies are these."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


async def _answering(peer: Peer) -> None:
    while await peer.request():
        await peer.reply(b"".join(openai_events("ok")), b"content-type: text/event-stream")


async def _answers_itself(url: str) -> None:
    async with serving(_answering) as server, llm.open_client() as client:
        model = llm.compatible("m", base_url=url.format(server.port))
        assert (await client.complete(model, "Hi")).content == "ok"
        assert server.requests[0].line.startswith(b"POST /v1/")


def _local_server() -> None:
    with environment(HTTP_PROXY="http://127.0.0.1:1", ALL_PROXY="http://127.0.0.1:1"):
        for host in ("127.0.0.1", "localhost", "0.0.0.0"):
            trio.run(_answers_itself, f"http://{host}:{{}}/v1")


async def _told_at_the_call(words: str) -> None:
    async with llm.open_client() as client:
        with pytest.raises(ValueError, match=words):
            client.stream(llm.compatible("m", base_url=URL), "Hi")


def _desktop_proxy() -> None:
    with environment(ALL_PROXY="socks://127.0.0.1:7891"):
        trio.run(_answers_itself, "http://127.0.0.1:{}/v1")
        trio.run(_told_at_the_call, "ALL_PROXY names a proxy of the kind socks://")


async def _prepares(client_of: str) -> None:
    async with llm.open_client() as client:
        client.stream(llm.compatible("m", base_url=client_of), "Hi")


def _ipv6_exceptions() -> None:
    entries = "localhost,127.0.0.1,[::1],fd07:b51a:cc66:f0::/64,::/0"
    with environment(HTTPS_PROXY="http://127.0.0.1:1", NO_PROXY=entries):
        trio.run(_prepares, URL)


async def _refusing(status: bytes, peer: Peer) -> None:
    while await peer.head():
        await peer.send(b"HTTP/1.1 %s\r\ncontent-length: 0\r\n\r\n" % status)


async def _told_by_the_proxy(status: bytes, attempts: int) -> None:
    async with serving(partial(_refusing, status)) as proxy:
        with environment(HTTPS_PROXY=proxy.url):
            retry = llm.Retry(attempts=2, base_delay=0)
            async with llm.open_client(retry=retry) as client:
                with pytest.raises(llm.MiniLLMError, match="from HTTPS_PROXY") as caught:
                    await client.complete(llm.compatible("m", base_url=URL), "Hi")
        error = getattr(caught.value, "last_error", caught.value)
        assert isinstance(error, llm.RefusedError)
        assert (error.status, len(proxy.requests)) == (int(status[:3]), attempts)


def _squid() -> None:
    trio.run(_told_by_the_proxy, b"407 Proxy Authentication Required", 1)
    trio.run(_told_by_the_proxy, b"503 Service Unavailable", 2)


async def _made_up_by_litellm() -> None:
    body = b"".join(openai_events("cut in the mid"))
    async with serving(_replying(body)) as server, llm.open_client() as client:
        model = llm.compatible("m", base_url=f"{server.url}v1")
        answer = await client.complete(model, "Hi")
    assert (answer.outcome, answer.finish_reason) == (llm.Outcome.FINISHED, "stop")


async def _left_in_the_middle() -> None:
    left = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        await peer.send(head, *anthropic_events("an ", "answer", stop=None)[:3])
        while await peer.receive():
            pass
        left.set()

    async with serving(script) as server, llm.open_client() as client:
        model = llm.anthropic("m", base_url=server.url, api_key="k")
        async with client.stream(model, "Hi") as stream:
            assert await stream.next_chunk() is not None
        assert stream.outcome is llm.Outcome.CANCELLED
        await left.wait()


def _replying(body: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.reply(body, b"content-type: text/event-stream")

    return script


TRANSPORT: list[Difference] = [
    Difference(
        "relays built with the AI SDK",
        "send `content-encoding: none` with a plain event stream, so that nothing on the way compresses it",
        "the body is read unchanged",
        "ai-sdk.dev, troubleshooting: streaming not working when proxied",
        _coded(b"none", b"text/event-stream", EVENTS),
    ),
    Difference(
        "servers behind some gateways",
        "send `content-encoding: UTF-8`, which is a character set",
        "the body is read unchanged",
        "encode/httpx#195",
        _coded(b"UTF-8", b"text/event-stream", EVENTS),
    ),
    Difference(
        "agentgateway",
        "sends `content-encoding: br` with JSON that is already decompressed",
        "the body is read unchanged",
        "agentgateway/agentgateway#3040",
        _coded(b"br", b"application/json", WHOLE),
    ),
    Difference(
        "relays on Node.js",
        "send `content-encoding: gzip` with a body that `fetch` has already decompressed",
        "the body is read unchanged",
        "freelensapp/freelens-ai-extension PR 273",
        _coded(b"gzip", b"text/event-stream", EVENTS),
    ),
    Difference(
        "servers that send early keep-alives",
        "send status 200 and comments before the request is complete",
        "the request is sent to the end, while the answer is read",
        "RFC 9112, 9.5",
        partial(_gives_the_answer, _early_comments, MUCH),
    ),
    Difference(
        "nginx",
        "answers 413 in HTML to a request above `client_max_body_size`, and closes the connection early",
        "`RefusedError` with status 413; nothing more is sent",
        "nginx.org, ngx_http_core_module: client_max_body_size",
        _refuses_early,
    ),
    Difference(
        "Ollama",
        "listens only on 127.0.0.1, although `localhost` is also ::1",
        "both addresses are tried; if neither answers, `SendError`: connection refused, with the address",
        "docs.ollama.com, FAQ: how can I expose Ollama on my network",
        _in_one_run(_not_started),
    ),
    Difference(
        server="litellm",
        does="ends an answer with `stop` although the model died in the middle, and counts the tokens itself",
        handled="`finished`, because nothing distinguishes it from a complete answer",
        source="seen with litellm 1.82.6 in front of llama.cpp (`nox -s servers`)",
        check=partial(trio.run, _made_up_by_litellm),
    ),
    Difference(
        server="litellm",
        does="in Messages and Responses, reads the answer to the end although the client has left; in chat completions, hangs up",
        handled="the stream ends at once, but the model keeps working, up to `max_tokens`",
        source="seen with litellm 1.82.6 in front of llama.cpp (`nox -s servers`)",
        check=partial(trio.run, _left_in_the_middle),
    ),
    Difference(
        server="local servers: Ollama, LM Studio, vLLM, and others",
        does="are called through `HTTP_PROXY` by most Python clients, and the proxy answers 502 or 503",
        handled="this machine is never called through a proxy from the environment",
        source="ollama/ollama#4674, NousResearch/hermes-agent#5834",
        check=_local_server,
    ),
    Difference(
        server="Clash, v2ray, GNOME (desktop proxies)",
        does="set `ALL_PROXY=socks://…`, for which httpx cannot make a client",
        handled="a `ValueError` from a call that needs this proxy, and only from such a call",
        source="danielgatis/rembg#855, AUTOMATIC1111/stable-diffusion-webui#16474",
        check=_desktop_proxy,
    ),
    Difference(
        server="OrbStack, VPN clients",
        does="put IPv6 networks and `[::1]` into `NO_PROXY`, for which httpx cannot make a client",
        handled="these entries work",
        source="orbstack/orbstack#2456, MoonshotAI/kimi-cli#1959, MoonshotAI/kimi-cli#996",
        check=_ipv6_exceptions,
    ),
    Difference(
        server="squid",
        does="refuses a tunnel to an `https://` address: 407 for its password, 503 for an unreachable server",
        handled="`RefusedError` with that status, which names the proxy; 407 is not retried",
        source="RFC 9110, 9.3.6; squid 5.7",
        check=_squid,
    ),
]
