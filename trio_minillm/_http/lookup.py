"""Look-ups of host names: in threads of their own, shared, and kept for a short time.

The system's look-up blocks a thread, for as long as a name server is silent: up to half a minute.
Trio's own pool of 40 threads belongs to the application, which a server of names that hangs must not
stop. So these run in at most `MAX_THREADS` others, one for a host however many requests ask for it.
"""

from __future__ import annotations

import copy
import socket
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

import trio

from .failures import OUT_OF_FILES

NUMBERS = socket.AI_NUMERICHOST
"""Flag with which only an address in numbers is found, at once."""
MAX_THREADS = 8
"""Look-ups at a time. A client asks few hosts; more than these wait in line."""
KEEP_SECONDS = 10.0
"""Seconds that the addresses of a host are kept: long enough for one look-up to serve the burst of
connections with which a batch begins, and shorter than the 30 to 300 s for which the records of large
providers are valid, so that no address is used that has been withdrawn."""
MAX_KEPT = 256
"""Hosts whose addresses are kept; the oldest are dropped first."""

Target: TypeAlias = tuple[int, tuple[Any, ...]]
"""Family of a socket, and the address that it is to connect to, as the socket module has it."""


class _Lookup:
    """A look-up of one host: in line for a thread, or under way."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.waiting = 0
        """Requests that wait for it."""
        self.begun = trio.Event()
        self.done = trio.Event()
        self.targets: list[Target] = []
        self.failure: OSError | UnicodeError | None = None

    def ask(self) -> None:
        """Ask the system. Blocks; in a thread."""
        try:
            self.targets = targets_of(socket.getaddrinfo(self.host, 0, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as exc:
            # Where no file can be opened, the system finds no server to ask, and says that there is
            # no such host.
            self.failure = out_of_files() or exc


class _Kept:
    """Addresses of hosts, for `KEEP_SECONDS`."""

    def __init__(self) -> None:
        self._until: dict[str, tuple[float, list[Target]]] = {}  # the oldest first

    def get(self, host: str) -> list[Target] | None:
        until, targets = self._until.get(host, (0.0, None))
        return targets if targets and trio.current_time() < until else None

    def put(self, host: str, targets: list[Target]) -> None:
        self.forget(host)
        self._until[host] = trio.current_time() + KEEP_SECONDS, targets
        if len(self._until) > MAX_KEPT:
            del self._until[next(iter(self._until))]

    def forget(self, host: str) -> None:
        self._until.pop(host, None)

    def clear(self) -> None:
        self._until.clear()


class Resolver:
    """The look-ups of one pool of connections.

    Guarantees: a request that is cancelled leaves its look-up to the others that wait for it, and
    waits for no thread. No task runs here; a thread that nobody waits for any more ends by itself.
    A failure is told to all that wait for it, and not kept.
    """

    def __init__(self) -> None:
        self._token: trio.lowlevel.TrioToken | None = None  # of the run that all this belongs to
        # To ask for an address in numbers as well takes as long as ten system calls.
        self._numbers, self._names = _Kept(), _Kept()
        self._open: dict[str, _Lookup] = {}
        self._line: deque[_Lookup] = deque()
        self._threads = 0

    def in_numbers(self, host: str) -> list[Target] | None:
        """Return where an address in numbers leads; None for a name, which must be looked up."""
        if self.known(host) is not None:
            return None
        targets = self._numbers.get(host)
        if targets is None:
            with suppress(OSError, UnicodeError):
                found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=NUMBERS)
                targets = targets_of(found)
                self._numbers.put(host, targets)
        return targets

    def known(self, host: str) -> list[Target] | None:
        """Return the addresses of a name without asking anybody; None if they are not known."""
        token = trio.lowlevel.current_trio_token()
        if token is not self._token:  # times and look-ups of another run mean nothing here
            self._token, self._threads = token, 0
            for held in (self._numbers, self._names, self._open, self._line):
                held.clear()
        return self._names.get(host)

    def forget(self, host: str) -> None:
        """Keep the addresses of a host no longer: none of them could be reached."""
        self._numbers.forget(host)
        self._names.forget(host)

    def begin(self, host: str) -> Wait:
        """Begin a look-up, or join the one that is in line or under way."""
        lookup = self._open.get(host)
        if lookup is None:
            lookup = self._open[host] = _Lookup(host)
            self._line.append(lookup)
            self._start_next()
        return Wait(self, lookup)

    def left(self, lookup: _Lookup) -> None:
        """Take a look-up out of the line if nobody waits for it any more."""
        if not lookup.waiting and lookup in self._line:
            self._line.remove(lookup)
            del self._open[lookup.host]

    def _start_next(self) -> None:
        while self._line and self._threads < MAX_THREADS:
            lookup = self._line.popleft()
            deliver = partial(self._deliver, trio.lowlevel.current_trio_token(), lookup)
            trio.lowlevel.start_thread_soon(lookup.ask, deliver, "trio_minillm look-up")
            self._threads += 1
            lookup.begun.set()

    def _deliver(self, token: trio.lowlevel.TrioToken, lookup: _Lookup, _: object) -> None:
        """Hand a result over to Trio's thread, unless the run has ended meanwhile."""
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(self._finish, token, lookup)

    def _finish(self, token: trio.lowlevel.TrioToken, lookup: _Lookup) -> None:
        lookup.done.set()
        if token is not self._token:
            return
        self._threads -= 1
        del self._open[lookup.host]
        if lookup.failure is None:
            self._names.put(lookup.host, lookup.targets)
        self._start_next()


class Wait:
    """One request's wait for a look-up."""

    def __init__(self, resolver: Resolver, lookup: _Lookup) -> None:
        self._resolver = resolver
        self._lookup = lookup

    @property
    def in_line(self) -> bool:
        """True if other hosts' look-ups have all the threads."""
        return not self._lookup.begun.is_set()

    async def for_thread(self) -> None:
        """Wait until it is under way. A checkpoint."""
        await self._wait(self._lookup.begun)

    async def for_targets(self) -> list[Target]:
        """Wait for the addresses. Raises ``OSError`` or ``UnicodeError``. A checkpoint."""
        await self._wait(self._lookup.done)
        if self._lookup.failure is not None:
            raise copy.copy(self._lookup.failure)  # each that waits raises one of its own
        return self._lookup.targets

    async def _wait(self, event: trio.Event) -> None:
        self._lookup.waiting += 1
        try:
            await event.wait()
        finally:
            self._lookup.waiting -= 1
            self._resolver.left(self._lookup)


def targets_of(found: Iterable[tuple[Any, ...]]) -> list[Target]:
    """Return the targets in what ``getaddrinfo`` found, each once."""
    return list(dict.fromkeys((entry[0], entry[4]) for entry in found))


def out_of_files() -> OSError | None:
    """Return the error with which the system opens no more files now, if it does not."""
    try:
        socket.socket().close()
    except OSError as exc:
        return exc if exc.errno in OUT_OF_FILES else None
    return None


def custom_resolver() -> trio.abc.HostnameResolver | None:
    """Return what `trio.socket.set_custom_hostname_resolver` has set, which then is asked instead."""
    there = trio.socket.set_custom_hostname_resolver(None)  # there is no other way to ask
    if there is not None:
        trio.socket.set_custom_hostname_resolver(there)
    return there
