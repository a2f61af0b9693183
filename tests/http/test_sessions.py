"""TLS sessions: later connections to a host go on with what the first has agreed."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from trio_minillm._http import pool as module
from trio_minillm._http.pool import ConnectionPool
from trio_minillm._http.trio_exchange import TrioExchange
from trio_minillm._types.errors import SendError

from ..support.certificates import TLS_FILES, certified, trusting
from ..support.peers import Peer, answering, serving


async def resumed(pool: ConnectionPool, times: int = 3, **options: Any) -> list[bool | None]:
    """Return whether each of so many connections went on with an earlier session."""
    found: list[bool | None] = []

    async def script(peer: Peer) -> None:
        assert peer.tls is not None
        found.append(peer.tls.session_reused)
        await answering(peer)

    async with serving(script, tls=certified(**options)) as server:
        for _ in range(times):
            exchange = TrioExchange(pool)
            await exchange.start(server.url, {}, b"{}")
            while await exchange.receive():
                pass
            await exchange.close()
    pool.close()
    return found


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS_FILES / "ca.pem"))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_later_connection_goes_on_with_the_session(
    trusted: None, version: ssl.TLSVersion
) -> None:
    pool = ConnectionPool(keepalive_expiry=0)
    assert await resumed(pool, version=version) == [False, True, True]


async def test_with_a_context_of_the_callers_each_handshake_is_whole() -> None:
    pool = ConnectionPool(verify=trusting(), keepalive_expiry=0)
    assert await resumed(pool) == [False, False, False]


async def test_a_kept_connection_needs_no_session(trusted: None) -> None:
    assert await resumed(ConnectionPool()) == [False]


async def test_a_session_that_a_handshake_failed_with_is_dropped(trusted: None) -> None:
    ends = iter((True, False, True))

    async def script(peer: Peer) -> None:
        if next(ends):
            await peer.shake_hands(certified())
            assert peer.tls is not None
            found.append(peer.tls.session_reused)
            await answering(peer)

    found: list[bool | None] = []
    pool = ConnectionPool(keepalive_expiry=0)
    async with serving(script) as server:
        for fails in (False, True, False):
            exchange = TrioExchange(pool)
            if fails:
                with pytest.raises(SendError, match=r"reset|TLS|ended"):
                    await exchange.start(server.url.replace("http:", "https:"), {}, b"{}")
            else:
                await exchange.start(server.url.replace("http:", "https:"), {}, b"{}")
                while await exchange.receive():
                    pass
            await exchange.close()
    pool.close()
    assert found == [False, False]


async def test_only_so_many_sessions_are_kept(
    trusted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SESSIONS", 2)
    pool = ConnectionPool(keepalive_expiry=0)
    for _ in range(4):
        async with serving(answering, tls=True) as server:  # each at another port
            exchange = TrioExchange(pool)
            await exchange.start(server.url, {}, b"{}")
            while await exchange.receive():
                pass
            await exchange.close()
    assert len(pool._sessions) == 2
    pool.close()
