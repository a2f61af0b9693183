"""Words and causes of requests that could not be sent: the same on every transport."""

from __future__ import annotations

import errno
import socket
import ssl
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

import trio_minillm as llm
from trio_minillm._http import transport_errors
from trio_minillm._http.exchange import Exchange
from trio_minillm._http.failures import MAX_CAUSES, explain, map_error, never_sent
from trio_minillm._http.httpx_exchange import HttpxExchange, send_by_transport
from trio_minillm._http.pool import ConnectionPool
from trio_minillm._http.trio_exchange import TrioExchange
from trio_minillm._types.options import retryable

from ..support.certificates import certified, expired, trusting
from ..support.peers import Peer, answering, serving


async def refusal(exchange: Exchange, url: str) -> llm.SendError:
    """The error with which a request is not sent."""
    with pytest.raises(llm.SendError) as caught:
        await exchange.start(url, {}, b"{}")
    await exchange.close()
    return caught.value


async def on_each_transport(url: str, verify: ssl.SSLContext) -> list[llm.SendError]:
    """The errors on our own transport and on httpx's."""
    pool = ConnectionPool(verify=verify)
    found = [await refusal(TrioExchange(pool), url)]
    pool.close()
    async with httpx.AsyncHTTPTransport(verify=verify, trust_env=False) as transport:
        found.append(await refusal(HttpxExchange(partial(send_by_transport, transport)), url))
    return found


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_nobody_listens(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for error in await on_each_transport(f"http://{host}:{port}/v1", trusting()):
        assert f"to {host}:{port}: connection refused" in str(error)
        assert (error.reason, error.permanent) == ("refused", False)
        assert retryable(error)


async def test_no_such_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(host: str, *args: object, **more: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for error in await on_each_transport("http://model.invalid/v1", trusting()):
        assert str(error).endswith("sent to model.invalid: no such host")
        assert error.reason == "no_such_host"


async def test_certificates_that_are_not_accepted() -> None:
    stranger = ssl.create_default_context()
    cases = [
        (certified(), trusting(), "example.test", "wrong host name"),
        (certified(), stranger, "localhost", "unknown authority"),
        (expired(), expired(trusted=True), "localhost", "expired certificate"),
    ]
    for served, trusted, host, words in cases:
        async with serving(answering, tls=served) as server:
            there = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(socket, "getaddrinfo", lambda *_, **__: there)  # noqa: B023
                errors = await on_each_transport(f"https://{host}:{server.port}/", trusted)
        for error in errors:
            assert f"{words}: " in str(error)
            assert (error.reason, error.permanent) == ("certificate", True)
            assert not retryable(error)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"\x15\x03\x03\x00\x02\x02\x46", "the TLS handshake failed: "),  # alert 70: the version
        (b"\x15\x03\x03\x00\x02\x02\x28", "the TLS handshake failed: "),  # 40: handshake failure
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak TLS there"),
    ],
)
async def test_a_handshake_on_which_the_two_do_not_agree(answer: bytes, words: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(answer)

    async with serving(script) as server:
        url = server.url.replace("http:", "https:")
        for error in await on_each_transport(url, trusting()):
            assert words in str(error)
            assert (error.reason, error.permanent) == ("tls", True)


async def test_a_handshake_that_is_cut_may_be_tried_again() -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()

    async with serving(script) as server:
        url = server.url.replace("http:", "https:")
        for error in await on_each_transport(url, trusting()):
            assert retryable(error)


@pytest.mark.parametrize(
    ("cause", "reason", "words"),
    [
        (OSError(errno.EMFILE, "x"), "open_files", "too many open files in this process"),
        (OSError(errno.ENFILE, "x"), "open_files", "too many open files on this machine"),
        (OSError(errno.ECONNREFUSED, "x"), "refused", "connection refused"),
        (OSError(errno.EHOSTUNREACH, "x"), "unreachable", "no route"),
        (OSError(errno.ETIMEDOUT, "x"), "unreachable", "does not answer"),
        (OSError(errno.EPERM, "x"), None, ""),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "unreachable", "no name server answers"),
        (socket.gaierror(socket.EAI_FAIL, "for good"), None, "for good"),
        (UnicodeError("label too long"), "address", "no such host"),
        (ssl.SSLEOFError(8, "EOF"), None, ""),
        (ssl.SSLError("no reason"), None, ""),
        (ssl.SSLCertVerificationError("in pure Python"), "certificate", "rejected"),
    ],
    ids=repr,
)
def test_the_cause_is_found_wherever_it_stands(
    cause: Exception, reason: str | None, words: str
) -> None:
    """Right there, as cause, as context, in a group, and in a group of a cause."""
    outer = [cause]
    for name in ("__cause__", "__context__"):
        for inner in (cause, ExceptionGroup("all", [OSError(errno.EPERM, "y"), cause])):
            error = httpx.ConnectError("all attempts failed")
            setattr(error, name, inner)
            outer.append(error)
    for error in outer:
        found = explain(error)
        assert found[0] == reason
        assert (words in found[1]) if words else not found[1]


def test_of_several_causes_the_one_that_can_be_mended_is_told() -> None:
    refused, unreachable = OSError(errno.ECONNREFUSED, ""), OSError(errno.ENETUNREACH, "")
    files = OSError(errno.EMFILE, "")
    assert explain(ExceptionGroup("all", [unreachable, refused]))[0] == "refused"
    assert explain(ExceptionGroup("all", [refused, files]))[0] == "open_files"


def test_a_circle_of_causes_has_an_end() -> None:
    first, second = OSError("a"), OSError("b")
    first.__cause__, second.__cause__ = second, first
    assert explain(first) == (None, "")
    many = ExceptionGroup("all", [OSError(n, "") for n in range(2000, 2000 + 2 * MAX_CAUSES)])
    assert explain(many) == (None, "")


@pytest.mark.parametrize("family", [httpx, transport_errors], ids=["httpx", "ours"])
def test_an_error_without_words_keeps_its_own(family: Any) -> None:
    error = map_error(family.ConnectError("strange"), begun=False, host="h:1")
    assert str(error) == "the request could not be sent to h:1: ConnectError: strange"
    assert str(map_error(family.ReadError(""), begun=True)) == "the connection broke: ReadError"
    wrong = map_error(family.UnsupportedProtocol("no transport for ftp://"), begun=False)
    assert isinstance(wrong, llm.SendError)
    assert wrong.permanent


@pytest.mark.parametrize("content", [None, b"no certificate"])
async def test_trusted_certificates_that_cant_be_read_are_said_once(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    model = llm.compatible("m", base_url="https://127.0.0.1:1/v1", api_key="none")
    async with httpx.AsyncClient(transport=llm.TrioTransport(), trust_env=False) as brought:
        for http in (None, brought):
            async with llm.open_client(http_client=http) as client:
                with pytest.raises(llm.SendError, match="trusted certificates can't be") as caught:
                    await client.complete(model, "Hi")
            assert caught.value.reason == "certificate"


async def test_what_was_never_sent_is_known() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    errors = await on_each_transport(f"http://127.0.0.1:{port}/", trusting())
    errors += await on_each_transport("ftp://127.0.0.1/", trusting())
    errors += [llm.CredentialsError("no key"), llm.ConnectTimeout(1.0)]
    assert [never_sent(error) for error in errors] == [True] * len(errors)


@pytest.mark.parametrize(
    "kind",
    [
        *(httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadTimeout),
        *(transport_errors.ReadError, transport_errors.RemoteProtocolError),
    ],
)
def test_a_reason_behind_a_connection_says_nothing_of_what_was_sent(kind: type[Exception]) -> None:
    for number in (0, errno.EHOSTUNREACH, errno.ECONNRESET):
        failure = kind("Server disconnected")
        failure.__cause__ = OSError(number, "")
        error = map_error(failure, begun=False)
        error.__cause__ = failure
        assert not never_sent(error)
    assert not never_sent(llm.ConnectionCut("x"))
