"""Programs that bring nothing of httpx and have no proxy: it is never imported, come what may."""

from __future__ import annotations

import sys
from typing import Any

import httpx
import pytest
import trio

import trio_minillm as llm
from trio_minillm._http import transport_errors
from trio_minillm._http.failures import safe_cause
from trio_minillm._http.status_phrases import phrase_of
from trio_minillm._http.transport_errors import TransportError, in_httpx

from ..support.certificates import certified
from ..support.command import environment
from ..support.paths import TLS_FILES
from ..support.peers import Peer, saying, serving

HEAVY = "{'httpx', 'httpcore', 'h11', 'anyio', 'click', 'rich', 'urllib.request', 'email.message'}"
"""What comes with httpx, and what is as slow to import."""

PROGRAM = f"""if True:
    import logging, sys, trio, trio_minillm as llm

    async def main():
        model = llm.compatible("m", base_url=sys.argv[1], api_key="k")
        async with llm.open_client(retry=llm.Retry(attempts=1)) as client:
            try:
                print((await client.complete(model, "Hi")).text)
            except llm.MiniLLMError as exc:
                cause = type(exc.__cause__)
                print(type(exc).__name__, cause.__name__)
                assert not cause.__module__.startswith("httpx")

    logging.basicConfig(level=logging.INFO)
    trio.run(main)
    print(*sys.modules.keys() & {HEAVY}, ".")
"""

ANSWER = (
    b'HTTP/1.1 200 OK\r\n\r\ndata: {"choices":[{"index":0,"delta":{"content":"Hello"},'
    b'"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
CUT = b'HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\ndata: {"choices":[]}\n\n'


async def resetting(peer: Peer) -> None:
    await peer.request()
    peer.reset()


async def told(url: str, **settings: str) -> list[str]:
    """Return what the program prints that asks there."""
    command = [sys.executable, "-P", "-W", "error", "-c", PROGRAM, f"{url.rstrip('/')}/v1"]
    ran = await trio.run_process(
        command, capture_stdout=True, capture_stderr=True, env=environment(**settings)
    )
    return ran.stdout.decode().splitlines()


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
async def test_an_answer(tls: bool) -> None:
    async with serving(saying(ANSWER), tls=certified() if tls else None) as server:
        authorities = {"SSL_CERT_FILE": str(TLS_FILES / "ca.pem")} if tls else {}
        assert await told(server.url, **authorities) == ["Hello", "."]


@pytest.mark.parametrize(
    ("script", "line"),
    [
        (saying(b"HTTP/1.1 200 OK\r\nx y: z\r\n\r\n"), "ProtocolError NoneType"),
        (saying(CUT), "ConnectionCut NoneType"),
        (saying(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"), "RefusedError NoneType"),
        (resetting, "SendError ReadError"),
    ],
    ids=["no HTTP", "cut", "refused", "reset"],
)
async def test_a_failure(script: Any, line: str) -> None:
    async with serving(script) as server:
        assert await told(server.url) == [line, "."]


async def test_a_stranger_and_nobody() -> None:
    """The first is asked for its certificate, with certifi's authorities."""
    async with serving(saying(ANSWER), tls=certified()) as server:
        assert await told(server.url) == ["SendError ConnectError", "."]
    assert await told(server.url) == ["SendError ConnectError", "."]


async def test_an_address_that_httpx_must_parse_brings_it() -> None:
    async with serving(saying(ANSWER)) as server:
        text, loaded = await told(server.url.replace("127.0.0.1", "LOCALHOST"))
    assert (text, "httpx" in loaded) == ("Hello", True)


# -- errors and words ----------------------------------------------------------------------------

KINDS = TransportError.__subclasses__()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_error_has_its_like_in_httpx(kind: type[TransportError]) -> None:
    error, cause = kind("so it was"), OSError(5, "x")
    error.__cause__ = cause
    theirs = in_httpx(error)
    assert type(theirs) is getattr(httpx, kind.__name__)
    assert isinstance(theirs, httpx.TransportError)
    assert (str(theirs), theirs.__cause__) == ("so it was", cause)
    assert getattr(transport_errors, kind.__name__) is kind


@pytest.mark.parametrize("loaded", [True, False, "barred"])
def test_a_cause_is_httpxs_where_a_program_can_look_for_it(
    loaded: bool | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = transport_errors.ReadError("broken")
    error.__cause__ = OSError(5, "x")
    if loaded == "barred":  # as a program says that it must not be imported
        monkeypatch.setitem(sys.modules, "httpx", None)
    elif not loaded:
        monkeypatch.delitem(sys.modules, "httpx")
    cause = safe_cause(error)
    assert type(cause) is (httpx.ReadError if loaded is True else transport_errors.ReadError)
    assert (str(cause), cause and cause.__cause__) == ("broken", error.__cause__)
    assert safe_cause(transport_errors.RemoteProtocolError("b'a quote'")) is None
    own = OSError(5, "x")
    assert safe_cause(own) is own


def test_the_phrases_are_those_of_httpx() -> None:
    for status in range(1000):
        assert phrase_of(status) == httpx.codes.get_reason_phrase(status)


def test_the_transport_is_loaded_with_its_name() -> None:
    assert issubclass(llm.TrioTransport, httpx.AsyncBaseTransport)
