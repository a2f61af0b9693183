"""The vendors' SDKs before servers that fail: what the pages for those who come from them say of both.

Each scene is a body as a server sends it, played to an SDK under asyncio and under Trio, and to this
library. The README and ``docs/start/from-*.md`` name the results.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import trio

import trio_minillm as llm
from trio_minillm import testing

from ..support.paths import doc

openai = pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
TEXT = "Rivers carry salt to the sea."
LIMIT = 0.5
"""Seconds for which each client waits: the SDKs' ``timeout``, and this library's clock `idle`."""
PINGS = 3 * LIMIT
"""Seconds for which a server sends nothing but keep-alives."""


def http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def events(wire: str) -> tuple[list[bytes], list[bytes]]:
    """An answer's events up to the end of its text, and the finish reason with all that follows it."""
    if wire == "openai":
        whole = testing.openai_events(TEXT)
        return whole[:2], whole[2:]
    whole = testing.anthropic_events(TEXT)
    return whole[:3], whole[3:]


def is_whole(request: bytes) -> bool:
    """Return whether all of a request is there: a socket that closes unread data resets the connection."""
    head, _, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    return length is not None and len(body) >= int(length[1])


class Server:
    """Plays one scene to each connection, from a thread."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.scene = "ends"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                threading.Thread(target=self._play, args=(connection,), daemon=True).start()

    def _play(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            request = connection.recv(65536)
            while not is_whole(request):
                request += connection.recv(65536)
            wire = "anthropic" if b"/messages" in request.partition(b"\r\n")[0] else "openai"
            begun, rest = events(wire)
            connection.sendall(HEAD + b"".join(map(http_chunk, begun)))
            if self.scene == "whole":
                connection.sendall(b"".join(map(http_chunk, rest)) + b"0\r\n\r\n")
                time.sleep(LIMIT)
            elif self.scene == "ends":
                connection.sendall(b"0\r\n\r\n")
                time.sleep(LIMIT)
            elif self.scene == "keep-alives":
                ping = b": keep-alive\n\n" if wire == "openai" else b"event: ping\ndata: {}\n\n"
                for _ in range(int(PINGS / 0.1)):
                    connection.sendall(http_chunk(ping))
                    time.sleep(0.1)
                connection.sendall(b"0\r\n\r\n")
                time.sleep(LIMIT)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.socket.close()


async def by_openai(url: str) -> str:
    async with openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", timeout=LIMIT) as client:
        messages: Any = [{"role": "user", "content": "Hi"}]
        stream = await client.chat.completions.create(model="m", messages=messages, stream=True)
        async with stream:
            return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])


async def by_anthropic(url: str) -> str:
    async with anthropic.AsyncAnthropic(api_key="k", base_url=url, timeout=LIMIT) as client:
        messages: Any = [{"role": "user", "content": "Hi"}]
        async with client.messages.stream(model="m", max_tokens=9, messages=messages) as stream:
            text = "".join([text async for text in stream.text_stream])
            assert (await stream.get_final_message()).stop_reason is None
            return text


SDKS = {"openai": by_openai, "anthropic": by_anthropic}
sdk = pytest.mark.parametrize("sdk", SDKS)


def under_asyncio(call: Callable[[str], Awaitable[str]], url: str) -> str:
    return asyncio.run(call(url))  # type: ignore[arg-type]


LOOPS: dict[str, Callable[[Callable[[str], Awaitable[str]], str], str]] = {
    "asyncio": under_asyncio,
    "trio": trio.run,
}
loop = pytest.mark.parametrize("loop", LOOPS)


def by_us(sdk: str, url: str) -> llm.StreamError:
    """Return the error that this library raises of the same body."""
    model = (
        llm.anthropic("m", api_key="k", base_url=url)
        if sdk == "anthropic"
        else llm.compatible("m", base_url=f"{url}/v1")
    )

    async def ask() -> None:
        async with llm.open_client(timeouts=llm.Timeouts(idle=LIMIT)) as client:
            await client.complete(model, "Hi")

    with pytest.raises(llm.StreamError) as raised:
        trio.run(ask)
    assert raised.value.partial.text == TEXT
    return raised.value


@sdk
@loop
def test_a_body_that_ends_before_the_answer_passes_for_one(
    server: Server, sdk: str, loop: str
) -> None:
    server.scene = "ends"
    assert LOOPS[loop](SDKS[sdk], server.url) == TEXT
    assert isinstance(by_us(sdk, server.url), llm.EndedEarly)


@sdk
@loop
def test_keep_alives_start_the_wait_anew(server: Server, sdk: str, loop: str) -> None:
    server.scene = "keep-alives"
    began = time.monotonic()
    assert LOOPS[loop](SDKS[sdk], server.url) == TEXT
    assert time.monotonic() - began > 2 * LIMIT, "the SDK has waited for longer than its limit"
    error = by_us(sdk, server.url)
    assert isinstance(error, llm.StreamTimeout)
    assert error.clock == "idle"


@sdk
@loop
def test_a_connection_that_breaks_inside_an_answer_is_an_error(
    server: Server, sdk: str, loop: str
) -> None:
    """The openai SDK's own class; the anthropic SDK hands its HTTP client's on."""
    server.scene = "breaks"
    wanted: Any = openai.APIConnectionError
    if sdk == "anthropic":
        wanted = pytest.importorskip("httpx2").RemoteProtocolError
    with pytest.raises(wanted):
        LOOPS[loop](SDKS[sdk], server.url)
    assert isinstance(by_us(sdk, server.url), llm.ConnectionCut)


@sdk
def test_the_program_of_the_page_runs(server: Server, sdk: str) -> None:
    """The first one on ``from-openai.md`` and ``from-anthropic.md``, which is the SDK's."""
    server.scene = "whole"
    program = doc(f"from-{sdk}.md").read_text().partition("```text\n")[2].partition("```")[0]
    name, url = sdk.upper(), f"{server.url}/v1" if sdk == "openai" else server.url
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, f"{name}_API_KEY": "k", f"{name}_BASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{TEXT}\n")
