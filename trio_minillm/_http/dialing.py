"""The making of a TCP connection to a host that may have several addresses.

Trio's `trio.open_tcp_stream` does the same ("happy eyeballs", RFC 8305), but looks names up in the
application's threads.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio

from .lookup import Resolver, Target, custom_resolver, targets_of

Tell: TypeAlias = Callable[[str], Awaitable[None]]
"""Async function that is told trace events."""

STAGGER_SECONDS = 0.25
"""Seconds that one address has before the next is tried beside it (RFC 8305, section 5)."""


async def dial(resolver: Resolver, host: str, port: int, tell: Tell) -> socket.socket:
    """Return a connected socket. Raises ``OSError`` or ``UnicodeError``.

    Several failures come as the cause of one, in a group. Cancelled, it leaves no socket behind.
    """
    targets = await _look_up(resolver, host, tell)
    try:
        return await _connect_any(_in_turn(targets), port)
    except OSError:
        resolver.forget(host)
        raise


async def _look_up(resolver: Resolver, host: str, tell: Tell) -> list[Target]:
    if custom_resolver() is not None:
        found = targets_of(await trio.socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM))
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        return found
    if (known := resolver.known(host)) is not None:
        return known
    wait = resolver.begin(host)
    if wait.in_line:
        await tell("connection_pool.wait.started")
        await wait.for_thread()
        await tell("connection_pool.wait.complete")
    return await wait.for_targets()


def _in_turn(targets: list[Target]) -> list[Target]:
    """Return the targets with one of another family, if there is one, in second place."""
    first = targets[0][0]
    other = next((t for t in targets if t[0] != first), targets[0])
    return list(dict.fromkeys([targets[0], other, *targets]))


async def _connect_any(targets: list[Target], port: int) -> socket.socket:
    """Connect to the first that answers; each has `STAGGER_SECONDS` before the next is tried, too."""
    if len(targets) == 1:
        return await _connect(targets[0], port)
    failures: list[OSError] = []
    connected: list[socket.socket] = []

    async def attempt(target: Target, failed: trio.Event) -> None:
        try:
            connected.append(await _connect(target, port))
            nursery.cancel_scope.cancel()
        except OSError as exc:
            failures.append(exc)
            failed.set()

    try:
        async with trio.open_nursery() as nursery:
            for target in targets:
                failed = trio.Event()
                nursery.start_soon(attempt, target, failed)
                with trio.move_on_after(STAGGER_SECONDS):
                    await failed.wait()
    except BaseException:
        for sock in connected:
            sock.close()
        raise
    for spare in connected[1:]:  # two answered in the same moment
        spare.close()
    if connected:
        return connected[0]
    raise OSError("no address of the host accepts a connection") from ExceptionGroup(
        "all attempts", failures
    )


async def _connect(target: Target, port: int) -> socket.socket:
    family, address = target
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        await sock.connect((address[0], port, *address[2:]))
        stream = trio.SocketStream(sock)  # TCP_NODELAY, and a short queue of what is not sent yet
    except BaseException:
        sock.close()
        raise
    # From here on without Trio's wrapper: see `connection`.
    plain = socket.socket(fileno=stream.socket.detach())
    plain.setblocking(False)
    return plain
