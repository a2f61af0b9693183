"""The making of a TCP connection to a host that may have several addresses.

Trio's `trio.open_tcp_stream` does the same ("happy eyeballs", RFC 8305), but looks names up in the
application's threads.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeAlias

import trio

from .lookup import Resolver, Target, custom_resolver, targets_of

Tell: TypeAlias = Callable[[str], Awaitable[None]]
"""Async function that is told trace events."""

UNSENT_BYTES = 16 * 1024
"""Bytes of a request that the system takes ahead of the network, as with Trio's own streams: what waits
there can't be cancelled."""
_SHORT_QUEUE: int | None = getattr(trio.socket, "TCP_NOTSENT_LOWAT", None)

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
    if (numbers := resolver.in_numbers(host)) is not None:
        return numbers
    if custom_resolver() is not None:  # as Trio's own look-ups, it is asked for names alone
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
    """Connect as `trio.SocketStream` and its socket do, without making either: see `connection`."""
    family, address = target
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if _SHORT_QUEUE is not None:
            with suppress(OSError):  # not every system that names it has it
                sock.setsockopt(socket.IPPROTO_TCP, _SHORT_QUEUE, UNSENT_BYTES)
        await _connected(sock, (address[0], port, *address[2:]))
    except BaseException:
        sock.close()
        raise
    return sock


async def _connected(sock: socket.socket, address: tuple[Any, ...]) -> None:
    await trio.lowlevel.checkpoint_if_cancelled()  # what is over already connects to nobody
    with suppress(BlockingIOError):
        sock.connect(address)
    if _is_connected(sock):
        await trio.lowlevel.cancel_shielded_checkpoint()
        return
    await trio.lowlevel.wait_writable(sock)
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, f"Error connecting to {address!r}: {os.strerror(number)}")


def _is_connected(sock: socket.socket) -> bool:
    """Return whether a connection stands already, as one to a server of this machine does, though the
    system says that it is under way. To ask spares a wait.
    """
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
