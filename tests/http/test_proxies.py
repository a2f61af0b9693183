"""Proxies of the environment: which addresses are asked through one, and what fails how.

The proxies are scripts on loopback sockets; no name is looked up but by a resolver of the tests.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm._http.connector import open_connector
from trio_minillm._http.proxies import Proxies
from trio_minillm._types.hosts import IPAddress
from trio_minillm.testing import openai_events

from ..support.paths import TLS_FILES
from ..support.peers import Peer, serving
from ..support.streams import take
from ..support.wires import KEY

pytestmark = pytest.mark.usefixtures("no_proxies")

ONCE = llm.Retry(attempts=1)
SECRET = "s3cret-of-the-proxy"
PROXY = f"http://me:{SECRET}@proxy.invalid:3128"


def model_at(url: str) -> llm.Model:
    return llm.compatible("m", base_url=f"{url.rstrip('/')}/v1", api_key=KEY)


class EverythingIsHere(trio.abc.HostnameResolver):
    """Finds every name at loopback."""

    async def getaddrinfo(self, host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


async def saying_hello(peer: Peer) -> None:
    """Answers every request with ``ab``."""
    while await peer.request():
        await peer.reply(b"".join(openai_events("a", "b")), b"content-type: text/event-stream")


# -- the choice ----------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_the_systems_own_settings_are_asked_for_where_there_are_some(
    platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"https": "http://proxy.invalid:3128"}
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr("urllib.request.getproxies", lambda: found)
    assert bool(Proxies()) is (platform != "linux")
    monkeypatch.setenv("Https_Proxy", "http://other.invalid:3128")
    assert Proxies()


def chosen(monkeypatch: pytest.MonkeyPatch, address: str, **environment: str) -> str | None:
    """The address of the proxy for an address, in this environment."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    proxy = Proxies().proxy_for(address)
    return None if proxy is None else str(proxy.url)


@pytest.mark.parametrize(
    ("environment", "address", "proxy"),
    [
        ({}, "http://a.invalid", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://a.invalid/v1", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, "https://a.invalid/v1", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https://a.invalid/v1", "http://p:1"),
        ({"ALL_PROXY": "http://p:1"}, "https://a.invalid", "http://p:1"),
        (
            {"ALL_PROXY": "http://p:1", "HTTPS_PROXY": "http://q:2"},
            "https://a.invalid",
            "http://q:2",
        ),
        (
            {"https_proxy": "http://p:1", "HTTPS_PROXY": "http://q:2"},
            "https://a.invalid",
            "http://p:1",
        ),
        ({"HTTP_PROXY": ""}, "http://a.invalid", None),
        ({"HTTP_PROXY": " p.invalid:3128\n"}, "http://a.invalid", "http://p.invalid:3128"),
        ({"HTTP_PROXY": "https://p.invalid"}, "http://a.invalid", "https://p.invalid"),
        # one that can't be used matters only where it is to be used
        (
            {"ALL_PROXY": "socks://p:1", "HTTPS_PROXY": "http://q:2"},
            "https://a.invalid",
            "http://q:2",
        ),
        ({"ALL_PROXY": "socks://p:1"}, "http://localhost:8080", None),
        ({"ALL_PROXY": "socks://p:1", "NO_PROXY": "a.invalid"}, "http://a.invalid", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://a:port", None),
    ],
)
def test_the_variable_of_the_scheme_counts(
    environment: dict[str, str], address: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(monkeypatch, address, **environment) == proxy


@pytest.mark.parametrize(
    ("exceptions", "address", "excepted"),
    [
        ("*", "http://a.invalid", True),
        ("b.invalid, *", "http://a.invalid", True),
        ("a.invalid", "http://a.invalid", True),
        ("A.Invalid.", "http://a.invalid:8080", True),
        ("a.invalid", "http://A.INVALID./v1", True),
        ("a.invalid", "http://x.y.a.invalid", True),
        ("a.invalid", "http://xa.invalid", False),
        ("a.invalid", "http://a.invalid.org", False),
        (".a.invalid", "http://x.a.invalid", True),
        (".a.invalid", "http://a.invalid", False),
        ("*.a.invalid", "http://x.a.invalid", True),
        ("*.a.invalid", "http://a.invalid", False),
        ("b.invalid,a.invalid", "http://a.invalid", True),
        ("b.invalid a.invalid", "http://a.invalid", True),
        (" b.invalid ,\n a.invalid ,", "http://a.invalid", True),
        ("a.invalid:8080", "http://a.invalid:8080", True),
        ("a.invalid:8080", "http://a.invalid", False),
        ("a.invalid:80", "http://a.invalid", True),
        ("a.invalid:*", "http://a.invalid:81", True),
        ("b.invalid;a.invalid", "http://a.invalid", True),
        ("<local>", "http://a:8080", True),
        ("<local>", "http://a.invalid", False),
        ("<local>", "http://[2001:db8::1]", False),
        ("a.invalid:443", "https://a.invalid", True),
        ("http://a.invalid", "http://a.invalid", True),
        ("http://a.invalid/", "https://a.invalid", False),
        ("all://a.invalid", "https://a.invalid", True),
        ("https://a.invalid:8443", "https://a.invalid:8443", True),
        ("bücher.invalid", "http://bücher.invalid", True),
        ("my_host", "http://my_host:1", True),
        ("10.1.2.3", "http://10.1.2.3", True),
        ("10.1.2.3", "http://10.1.2.4", False),
        ("10.1.2.3:81", "http://10.1.2.3:81", True),
        ("10.1.2.3:81", "http://10.1.2.3", False),
        ("10.0.0.0/8", "http://10.1.2.3", True),
        ("10.1.2.3/8", "http://10.9.9.9", True),
        ("10.0.0.0/8", "http://11.1.2.3", False),
        ("10.0.0.0/8", "http://ten.invalid", False),
        ("192.168.*", "http://192.168.7.7", True),
        ("192.168.*", "http://192.16.8.1", False),
        ("0.0.0.0/0", "http://[2001:db8::1]", False),
        ("2001:db8::1", "http://[2001:db8::1]", True),
        ("[2001:db8::1]", "http://[2001:db8:0::1]", True),
        ("[2001:db8::1]:81", "http://[2001:db8::1]:81", True),
        ("[2001:db8::1]:81", "http://[2001:db8::1]:82", False),
        ("2001:db8::/32", "http://[2001:db8:7::1]", True),
        ("[2001:db8::]/32", "http://[2001:db8:7::1]", True),
        ("2001:db8::/32", "http://[2001:db9::1]", False),
        ("10.0.0.0/8", "http://[::ffff:10.1.2.3]", True),
    ],
)
def test_no_proxy_excepts(
    exceptions: str, address: str, excepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = chosen(monkeypatch, address, ALL_PROXY="http://p:1", NO_PROXY=exceptions)
    assert proxy == (None if excepted else "http://p:1")


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST", "localhost.", "a.localhost", "127.0.0.1", "127.9.9.9", "127.1"),
        *("0x7f000001", "2130706433", "0.0.0.0", "0", "[::1]", "[::]", "[::ffff:127.0.0.1]"),
    ],
)
def test_this_machine_is_asked_without_a_proxy(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://p:1")
    for scheme in ("http", "https"):
        assert Proxies().proxy_for(f"{scheme}://{host}:8080/v1") is None


ADDRESSES = st.ip_addresses(network="10.0.0.0/28") | st.ip_addresses(network="2001:db8::/124")


@given(ADDRESSES, ADDRESSES, st.integers(24, 32), st.booleans())
def test_a_network_excepts_the_addresses_in_it(
    number: IPAddress, other: IPAddress, prefix: int, bracketed: bool
) -> None:
    prefix = prefix if other.version == 4 else prefix + 96
    host, network = [f"[{n}]" if n.version == 6 else str(n) for n in (number, other)]
    entry = network if bracketed else str(other)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ALL_PROXY", "http://p:1")
        environment.setenv("NO_PROXY", f"{entry}/{prefix}")
        excepted = Proxies().proxy_for(f"http://{host}/") is None
    assert excepted == (number in ipaddress.ip_network(f"{other}/{prefix}", strict=False))


# -- what can't be used --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"HTTP_PROXY": f"http://me:{SECRET}@"}, "HTTP_PROXY does not name a proxy"),
        (
            {"HTTP_PROXY": f"http://me:{SECRET}@proxy.invalid:port"},
            "HTTP_PROXY does not name a proxy",
        ),
        ({"http_proxy": f"http://me:{SECRET}/@proxy.invalid"}, "http_proxy does not name a proxy"),
        ({"ALL_PROXY": f"me:{SECRET}@proxy test:3128"}, "ALL_PROXY does not name a proxy"),
        ({"ALL_PROXY": "://"}, "ALL_PROXY does not name a proxy"),
        # "@" and what ends a host in a URL, in a password that is not encoded
        ({"HTTP_PROXY": f"http://me:x@{SECRET}#y@proxy.invalid"}, "HTTP_PROXY does not name"),
        ({"HTTP_PROXY": f"http://me:x@{SECRET}?y@proxy.invalid"}, "HTTP_PROXY does not name"),
        ({"HTTP_PROXY": f"http://me:x@{SECRET}/y@proxy.invalid"}, "HTTP_PROXY does not name"),
        ({"ALL_PROXY": "http://proxy.invalid:99999"}, "with a port from 1 to 65535"),
        ({"ALL_PROXY": "http://proxy.invalid:0"}, "with a port from 1 to 65535"),
        ({"ALL_PROXY": f"socks://me:{SECRET}@proxy.invalid"}, "the kind socks://"),
        (
            {"ALL_PROXY": f"socks4://me:{SECRET}@proxy.invalid"},
            "ALL_PROXY names a proxy of the kind",
        ),
        (
            {"HTTP_PROXY": PROXY, "NO_PROXY": "b.invalid,c.invalid:port"},
            "NO_PROXY has .* 'c.invalid:port'",
        ),
        ({"HTTP_PROXY": PROXY, "no_proxy": "10.0.0.0/99"}, "no_proxy has .* '10.0.0.0/99'"),
        (
            {"HTTP_PROXY": PROXY, "no_proxy": "b.invalid|c.invalid"},
            r"no_proxy has .* 'b.invalid\|c.invalid'",
        ),
        ({"HTTP_PROXY": PROXY, "no_proxy": "."}, "no_proxy has"),
        ({"HTTP_PROXY": PROXY, "no_proxy": "[::1"}, "no_proxy has"),
        ({"HTTP_PROXY": PROXY, "no_proxy": "ftp://b.invalid"}, "no_proxy has"),
        ({"HTTP_PROXY": PROXY, "no_proxy": "-ü\u200b.invalid"}, "no_proxy has"),
        ({"HTTP_PROXY": PROXY, "no_proxy": f"http://me:{SECRET}@b.invalid"}, "no_proxy has"),
    ],
)
async def test_what_the_environment_says_wrongly_is_one_line_at_the_call(
    environment: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    async with llm.open_client() as client:
        with pytest.raises(ValueError, match=said) as caught:
            client.stream(model_at("http://a.invalid"), "Hi")
        with pytest.raises(ValueError, match=said):
            await client.complete(model_at("http://a.invalid"), "Hi")
        client.stream(model_at("http://127.0.0.1:1"), "Hi")  # is asked without
    assert "\n" not in str(caught.value)
    assert SECRET not in repr(caught.value)


async def test_a_socks_proxy_without_its_package_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("ALL_PROXY", f"socks5h://me:{SECRET}@proxy.invalid:1080")
    async with llm.open_client() as client:
        with pytest.raises(ValueError, match=r"ALL_PROXY names a SOCKS proxy.*pip") as caught:
            client.stream(model_at("https://a.invalid"), "Hi")
    assert SECRET not in str(caught.value)


async def test_a_batch_says_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks4://proxy.invalid")
    from trio_minillm.batch import BatchRequest

    requests = [BatchRequest(messages="Hi", key=str(n)) for n in range(3)]
    async with llm.open_client() as client:
        with pytest.raises(ValueError, match="socks4"):
            async with client.batch(requests, model=model_at("http://a.invalid")) as results:
                async for _ in results:
                    pass


def test_a_proxy_is_shown_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:{SECRET}@[2001:db8::1]:3128")
    proxy = Proxies().proxy_for("http://a.invalid")
    assert repr(proxy) == "<Proxy http://[2001:db8::1]:3128 (from http_proxy)>"
    monkeypatch.setenv("http_proxy", f"http://me:{SECRET}@proxy.invalid")
    assert str(Proxies().proxy_for("http://a.invalid")) == "http://proxy.invalid (from http_proxy)"


# -- on the wire ---------------------------------------------------------------------------------


async def test_each_address_of_one_client_has_its_own_route(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trio.socket.set_custom_hostname_resolver(EverythingIsHere())
    async with serving(saying_hello) as proxy, serving(saying_hello) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "inside.invalid")
        direct = [f"http://{host}:{server.port}" for host in ("127.0.0.1", "inside.invalid")]
        async with llm.open_client() as client:
            for url in (*direct, "http://outside.invalid", *direct, "http://outside.invalid"):
                assert (await client.complete(model_at(url), "Hi")).content == "ab"
        assert [r.line.split()[1] for r in proxy.requests] == [
            b"http://outside.invalid/v1/chat/completions"
        ] * 2
        assert len(server.requests) == 4
        assert (proxy.connections, server.connections) == (1, 2)  # each is kept
        await proxy.left_with(0)
        await server.left_with(0)


async def test_what_has_no_proxy_is_read_without_httpx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with serving(saying_hello) as server, open_connector() as connect:
        exchange = connect()
        await exchange.start(f"{server.url}v1", {}, b"{}")
        assert (exchange.direct, exchange.resumable) == (True, True)
        await exchange.close()


async def test_the_proxy_sees_what_a_server_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own credentials besides; no cookie, and no header of httpx's."""
    async with serving(saying_hello) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//me:pass@"))
        async with llm.open_client() as client:
            await client.complete(model_at("http://a.invalid"), "Hi")
    (request,) = proxy.requests
    names = [line.partition(b":")[0].lower() for line in request.head.split(b"\r\n")[1:-2]]
    assert sorted(names) == [
        *(b"accept", b"accept-encoding", b"authorization", b"connection", b"content-length"),
        *(b"content-type", b"host", b"proxy-authorization", b"user-agent"),
    ]
    assert request.header("host") == b"a.invalid"
    assert request.header("user-agent") == f"trio-minillm/{llm.__version__}".encode()


async def tunnel(peer: Peer) -> None:
    """Connects to itself: what follows is TLS, and a server's."""
    from ..support.certificates import certified

    await peer.head()
    await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
    await peer.shake_hands(certified())
    await saying_hello(peer)


@pytest.fixture
def tunnelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name in the certificate of the tests goes through a proxy, too."""
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS_FILES / "ca.pem"))
    monkeypatch.setattr("trio_minillm._http.proxies.is_this_machine", lambda host: False)


async def test_an_https_address_is_asked_through_a_tunnel(
    tunnelled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tunnel) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        async with llm.open_client() as client:
            for _ in range(2):
                answer = await client.complete(model_at("https://localhost:8443"), "Hi")
                assert answer.content == "ab"
        assert [r.line for r in proxy.requests] == [
            b"CONNECT localhost:8443 HTTP/1.1",
            *[b"POST /v1/chat/completions HTTP/1.1"] * 2,
        ]
        await proxy.left_with(0)


async def test_the_request_is_sent_when_the_server_has_it_not_the_proxy(
    tunnelled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the clock of connecting would not see a tunnel that never begins."""
    told: list[str] = []
    async with serving(tunnel) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        async with open_connector() as connect:
            for _ in range(2):
                exchange = connect()
                url = "https://localhost:8443/v1"
                await exchange.start(url, {}, b"{}", on_progress=told.append)
                while await exchange.receive():
                    pass
                await exchange.close()
    assert [event for event in told if event.endswith("send_request_body.complete")] == [
        "http11.send_request_body.complete"
    ] * 2
    assert told.index("http11.send_request_body.complete") > told.index("proxy.start_tls.complete")


async def test_the_proxy_itself_may_speak_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS_FILES / "ca.pem"))
    async with serving(saying_hello, tls=True) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        async with llm.open_client() as client:
            assert (await client.complete(model_at("http://a.invalid"), "Hi")).content == "ab"
    assert proxy.requests[0].line.startswith(b"POST http://a.invalid/v1/")


async def test_a_socks_proxy_is_told_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    async def socks(peer: Peer) -> None:
        await peer.exactly(3)
        await peer.send(b"\x05\x00")
        asked.append(await peer.exactly(4 + 1 + len("a.invalid") + 2))
        await peer.send(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50")
        await saying_hello(peer)

    async with serving(socks) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url.replace("http", "socks5h"))
        async with llm.open_client() as client:
            assert (await client.complete(model_at("http://a.invalid"), "Hi")).content == "ab"
    assert asked == [b"\x05\x01\x00\x03\x09a.invalid\x00\x50"]


async def test_leaving_a_stream_through_a_proxy_closes_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def endless(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        await peer.send(openai_events("ab")[0], openai_events("ab")[1])
        while await peer.receive():
            pass

    async with serving(endless) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        async with llm.open_client() as client:
            async with client.stream(model_at("http://a.invalid"), "Hi") as stream:
                await take(stream, "ab")
            await proxy.left_with(0)


# -- what fails on the way -----------------------------------------------------------------------


def refusing(status: bytes) -> Any:
    async def proxy(peer: Peer) -> None:
        while await peer.head():
            await peer.send(b"HTTP/1.1 %s\r\ncontent-length: 0\r\n\r\n" % status)

    return proxy


@pytest.mark.parametrize(
    ("status", "kind", "attempts"),
    [
        (b"407 me:s3cret-of-the-proxy is wrong", "auth", 1),
        (b"403 Forbidden", "auth", 1),
        (b"404 Not Found", "invalid", 1),
        (b"302 Found", "invalid", 1),
        (b"429 Too Many Requests", "rate_limit", 2),
        (b"502 Bad Gateway", "server", 2),
        (b"503 Service Unavailable", "overloaded", 2),
        (b"504 Gateway Timeout", "timeout", 2),
    ],
)
async def test_a_proxy_that_does_not_connect_refuses(
    status: bytes, kind: str, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(refusing(status)) as proxy:
        shown = proxy.url.rstrip("/")
        monkeypatch.setenv("HTTPS_PROXY", shown.replace("//", f"//me:{SECRET}@"))
        retry = llm.Retry(attempts=2, base_delay=0)
        async with llm.open_client(retry=retry) as client:
            with pytest.raises(llm.MiniLLMError) as caught:
                await client.complete(model_at("https://a.invalid"), "Hi")
        error = getattr(caught.value, "last_error", caught.value)
    assert isinstance(error, llm.RefusedError)
    assert (error.status, error.kind, len(proxy.requests)) == (int(status[:3]), kind, attempts)
    assert f"{shown} (from HTTPS_PROXY)" in str(error)
    assert SECRET not in str(error)
    assert all(b"Proxy-Authorization: Basic" in request.head for request in proxy.requests)


async def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("ALL_PROXY", f"http://me:{SECRET}@127.0.0.1:{port}")
    async with llm.open_client(retry=ONCE) as client:
        for url in ("http://a.invalid", "https://a.invalid"):
            with pytest.raises(llm.SendError) as caught:
                await client.complete(model_at(url), "Hi")
            assert str(caught.value) == (
                f"the proxy http://127.0.0.1:{port} (from ALL_PROXY) can't be reached: connection"
                " refused: nothing listens there; the request could not be sent to a.invalid"
            )
            assert SECRET not in str(caught.value)
            one: BaseException | None = caught.value
            while one is not None:
                assert SECRET not in str(one)
                one = one.__cause__


async def test_a_proxy_that_hangs_up_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(peer: Peer) -> None:
        await peer.head()

    async with serving(silent) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        async with llm.open_client(retry=ONCE) as client:
            for url in ("http://a.invalid", "https://a.invalid"):
                with pytest.raises(llm.SendError, match=r"through the proxy .*ALL_PROXY"):
                    await client.complete(model_at(url), "Hi")


async def test_a_client_that_was_brought_keeps_its_own_proxies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(saying_hello) as proxy, serving(saying_hello) as server:
        monkeypatch.setenv("HTTP_PROXY", "socks4://nowhere.invalid")
        async with httpx.AsyncClient(proxy=proxy.url, trust_env=False, timeout=None) as http:
            async with llm.open_client(http_client=http) as client:
                assert (await client.complete(model_at(server.url), "Hi")).content == "ab"
    assert (len(proxy.requests), len(server.requests)) == (1, 0)
