"""HTTP/2 through httpx: refused before anything is sent, since httpx can't stop an answer over it."""

from __future__ import annotations

import ssl

import h2.config
import h2.connection
import h2.events
import httpx
import pytest
import trio

import trio_minillm as llm

from ..support.paths import TLS_FILES
from ..support.peers import Peer, Server, serving
from ..support.wires import KEY

ONCE = llm.Retry(attempts=1)


def fresh() -> ssl.SSLContext:
    """Return a context of its own: httpcore makes the one that it is given offer HTTP/2."""
    return ssl.create_default_context(cafile=TLS_FILES / "ca.pem")


async def http2(peer: Peer) -> None:
    """Answers each request with nothing but a status."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    connection.initiate_connection()
    await peer.send(connection.data_to_send())
    while data := await peer.receive():
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                peer.server.requests.append(dict(event.headers))  # type: ignore[arg-type]
                connection.send_headers(event.stream_id, [(":status", "204")], end_stream=True)
        if out := connection.data_to_send():
            await peer.send(out)


def speaking_http2() -> httpx.AsyncClient:
    return httpx.AsyncClient(http2=True, verify=fresh(), trust_env=False)


async def refused(client: llm.Client, server: Server) -> None:
    model = llm.compatible("m", base_url=f"{server.url}v1", api_key=KEY)
    with pytest.raises(llm.SendError, match="without http2=True"):
        await client.complete(model, "Hi")


async def test_nothing_is_sent_over_it() -> None:
    async with serving(http2, tls=True) as server:
        async with (
            speaking_http2() as http,
            llm.open_client(http_client=http, retry=ONCE) as client,
        ):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(refused, client, server)
        await server.left_with(0)
    assert server.requests == []


async def test_a_transport_is_asked_as_little() -> None:
    async with serving(http2, tls=True) as server:
        transport = httpx.AsyncHTTPTransport(http2=True, verify=fresh())
        async with transport, llm.open_client(transport=transport, retry=ONCE) as client:
            await refused(client, server)
    assert server.requests == []


async def test_the_program_s_own_requests_over_it_go_on() -> None:
    async with serving(http2, tls=True) as server:
        async with (
            speaking_http2() as http,
            llm.open_client(http_client=http, retry=ONCE) as client,
        ):
            assert (await http.get(server.url)).http_version == "HTTP/2"
            await refused(client, server)
            assert (await http.get(server.url)).status_code == 204
    assert (len(server.requests), server.connections) == (2, 1)
