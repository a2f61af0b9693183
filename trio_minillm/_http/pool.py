"""The connections of one transport: idle ones by origin, those in use, and slots to bound them.

A connection is given to one request at a time. Whoever takes one gives it back with
`ConnectionPool.release`, and a slot with `ConnectionPool.release_slot`. Every change is synchronous,
so that a cancellation never finds one half made, and takes the same time however many there are.

A connection is used again only if nothing forbids it (`ConnectionPool.reusable`):

================================================  ================================================
cause for which it is closed                      told by
================================================  ================================================
the request was not sent to its end, or said      `Connection.sending`, `Connection.spent`
that no other follows
the response was not read to its end              `ResponseParser.complete`
the response forbids it, by its framing, version  `ResponseParser.reusable`
or headers, or has bytes behind it
it was idle for too long, or too many are         `IdleConnections`
the server has closed it, or sent something       `Connection.usable`, when it is taken
this machine has too many files open              `ConnectionPool.open`
the transport was closed                          `ConnectionPool.release`
================================================  ================================================

Each client has a pool of its own, and none if its requests go another way (``connector.py``).
"""

from __future__ import annotations

import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable

import msgspec
import trio

from .._types.checks import check_count, check_seconds, check_type
from .connection import READ_BYTES, Connection, Origin
from .dialing import Tell, dial
from .failures import NO_AUTHORITIES, explain
from .gate import Gate
from .http1 import ResponseParser
from .lookup import Resolver
from .tls import create_context
from .transport_errors import ConnectError

MAX_IDLE = 256
"""Connections kept for later requests, to all origins together; the oldest are closed first."""
KEEPALIVE_EXPIRY = 15.0
"""Seconds after which an idle connection is not used again. Servers close theirs after 5 (Node),
60 (load balancers) or 75 s (nginx); one that was closed is noticed in any case."""

MAX_SESSIONS = 64
"""TLS sessions that are kept for later connections, one for each host: no certificate is sent or checked
in a handshake that goes on with one."""
FILES_PATIENCE = 5.0
"""Seconds that a request waits for another's connection to end where no more files can be opened.
Most answers take less; then the error says it, so that a batch runs fewer at once."""


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a transport's connections and requests."""

    active: int
    """Connections that a request is using now."""
    idle: int
    """Connections that are kept for later requests."""
    waiting: int
    """Requests that wait for a slot (only with ``max_connections``)."""
    opened: int
    """Connections opened so far."""
    reused: int
    """Requests that were sent on an existing connection."""
    retried: int
    """Requests that were sent again because their connection had died while idle."""


class ConnectionPool:
    """A pool of HTTP/1.1 connections, with as many slots for requests as connections are allowed.

    ``verify`` is that of `create_context`. There is one buffer for the reads
    of all connections: parsers copy what they keep.

    Its 17 attributes are options, what it holds, and its counts.
    """

    def __init__(
        self,
        *,
        verify: ssl.SSLContext | bool = True,
        max_connections: int | None = None,
        max_idle_connections: int = MAX_IDLE,
        keepalive_expiry: float = KEEPALIVE_EXPIRY,
    ) -> None:
        check_type("verify", verify, ssl.SSLContext | bool)
        if max_connections is not None:
            check_count("max_connections", max_connections)
        if type(max_idle_connections) is not int or max_idle_connections < 0:
            raise ValueError("max_idle_connections must be a whole number, 0 or more")
        check_seconds("keepalive_expiry", keepalive_expiry)
        self.wrap: Callable[[socket.socket], socket.socket] | None = None
        """Makes the socket of each new connection another one, below TLS, for whoever watches them."""
        self._verify = verify
        self._context: ssl.SSLContext | None = None  # made when needed: it reads all certificates
        self._max = max_connections
        self._slots = None if max_connections is None else trio.CapacityLimiter(max_connections)
        self._idle = IdleConnections(max_idle_connections, keepalive_expiry)
        self._resolver = Resolver()
        self._sessions: dict[tuple[Origin, str], ssl.SSLSession] = {}
        self._active: set[Connection] = set()
        self._gates: dict[Origin, Gate] = {}  # to where connections are being made
        self._dialing = 0
        self._freed = trio.lowlevel.ParkingLot()
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._closed = False
        self._opened = self._reused = self._retried = 0

    def statistics(self) -> Statistics:
        """Return the counts of this moment."""
        waiting = self._slots.statistics().tasks_waiting if self._slots is not None else 0
        return Statistics(
            active=len(self._active),
            idle=len(self._idle),
            waiting=waiting,
            opened=self._opened,
            reused=self._reused,
            retried=self._retried,
        )

    def check_open(self) -> None:
        """Raise ``RuntimeError`` if the pool was closed."""
        if self._closed:
            raise RuntimeError("the transport is closed")

    def close(self) -> None:
        """Close every connection, also those in use, and open no more."""
        self._closed = True
        self._idle.shrink(0)
        while self._active:
            self._active.pop().close()
        self._freed.unpark_all()

    # -- slots -----------------------------------------------------------------------------

    def take_slot(self, request: object) -> bool:
        """Take a slot for a request, if one is free. Requests that wait go first."""
        if self._slots is not None:
            try:
                self._slots.acquire_on_behalf_of_nowait(request)
            except trio.WouldBlock:
                return False
        return True

    async def wait_for_slot(self, request: object) -> None:
        """Take a slot for a request, first come, first served. Cancelled, it has taken none."""
        if self._slots is not None:
            await self._slots.acquire_on_behalf_of(request)

    def release_slot(self, request: object) -> None:
        """Give back the slot of a request that has one."""
        if self._slots is not None:
            self._slots.release_on_behalf_of(request)

    # -- connections -----------------------------------------------------------------------

    def take(self, origin: Origin) -> Connection | None:
        """Take an idle connection to the origin, if there is one."""
        connection = self._idle.take(origin)
        if connection is not None:
            self._reused += 1
            self._active.add(connection)
        return connection

    async def open(self, origin: Origin, server_name: str | None, tell: Tell) -> Connection:
        """Make a new connection. ``server_name`` is the certificate's, if not the origin's host;
        ``tell`` is told when it waits in line, for other connections or for a look-up of the name.

        Raises `ConnectError`. Cancelled, it leaves no connection behind.
        """
        gate = self._gates.get(origin)
        if gate is None:
            gate = self._gates[origin] = Gate()
        made = False
        try:
            await gate.enter(tell)
            try:
                connection = await self._open(origin, server_name, tell)
                made = True
            finally:
                gate.leave(made=made)
        finally:
            if gate.unused:
                self._gates.pop(origin, None)
        return connection

    async def _open(self, origin: Origin, server_name: str | None, tell: Tell) -> Connection:
        scheme, host, _ = origin
        if self._max is not None:  # idle connections count as well, and give way
            self._idle.shrink(self._max - len(self._active) - 1)
        try:
            context = self._tls_context() if scheme == "https" else None
            sock = await self._dial(origin, tell)
            if self.wrap is not None:
                sock = self.wrap(sock)
        except (OSError, UnicodeError) as exc:  # UnicodeError: no name that DNS could have
            raise ConnectError(str(exc)) from exc
        connection = Connection(origin, sock, self._buffer)
        self._opened += 1
        self._active.add(connection)
        try:
            self.check_open()  # it may have been closed meanwhile
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if context is not None:
                name = server_name or host
                await connection.start_tls(context, name, self._sessions.get((origin, name)))
                connection.server_name = name
        except BaseException as exc:
            # If the session is what the handshake failed for, the next must not fail for it, too.
            self._sessions.pop((origin, server_name or host), None)
            self.release(connection, keep=False)
            if isinstance(exc, OSError | ValueError):
                raise ConnectError(str(exc)) from exc
            raise
        return connection

    async def _dial(self, origin: Origin, tell: Tell) -> socket.socket:
        """Connect. Out of files, wait until there may be room for one more."""
        _, host, port = origin
        until = trio.current_time() + FILES_PATIENCE
        try:
            while True:
                try:
                    return await self._dial_once(host, port, tell)
                except OSError as exc:
                    if explain(exc)[0] != "open_files" or not await self._make_room(until, tell):
                        raise
                self.check_open()
        except BaseException:
            self._freed.unpark()  # another may have the file that was for this one
            raise

    async def _dial_once(self, host: str, port: int, tell: Tell) -> socket.socket:
        self._dialing += 1
        try:
            return await dial(self._resolver, host, port, tell)
        finally:
            self._dialing -= 1

    async def _make_room(self, until: float, tell: Tell) -> bool:
        """Close the idle connections, or else wait for one in use to be given back.

        Returns whether a file may be free now. The wait is one for the pool: no other clock runs.
        """
        if self._idle:
            self._idle.shrink(0)
            return True
        if not (self._active or self._dialing) or trio.current_time() >= until:
            return False
        await tell("connection_pool.wait.started")
        with trio.move_on_at(until):
            await self._freed.park()
        await tell("connection_pool.wait.complete")
        return True

    def _tls_context(self) -> ssl.SSLContext:
        if self._context is None:
            try:
                self._context = create_context(self._verify)
            except OSError as exc:
                if explain(exc)[0] == "open_files":
                    raise
                raise ConnectError(NO_AUTHORITIES) from exc
            if not isinstance(self._verify, ssl.SSLContext):  # else it is the caller's
                self._context.set_alpn_protocols(["http/1.1"])
        return self._context

    @staticmethod
    def reusable(connection: Connection, response: ResponseParser) -> bool:
        """Return True if another request may go out on the connection, after this response."""
        whole = response.complete and not connection.sending
        return whole and response.reusable and not connection.spent

    def release(self, connection: Connection, *, keep: bool) -> None:
        """Give a connection back: to be kept for another request, or to be closed."""
        self._active.discard(connection)
        if keep and connection.server_name and (session := self._session_of(connection)):
            self._sessions[connection.origin, connection.server_name] = session
            if len(self._sessions) > MAX_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
        if keep and not self._closed:
            self._idle.put(connection)
        else:
            connection.close()
        if self._freed:
            self._freed.unpark()

    def _session_of(self, connection: Connection) -> ssl.SSLSession | None:
        """Return a session for later connections; none with a context of the caller's, which may look
        at certificates in its own way: none come in a handshake that goes on with a session.
        """
        own = not isinstance(self._verify, ssl.SSLContext)
        return connection.take_session() if own else None

    def drop_dead(self, connection: Connection) -> None:
        """Close a connection that had died idle; its request is sent again on another."""
        self._retried += 1
        self.release(connection, keep=False)


class IdleConnections:
    """Idle connections by origin, the last used first; every operation is O(1)."""

    def __init__(self, limit: int, expiry: float) -> None:
        self._limit = limit
        self._expiry = expiry
        self._all: OrderedDict[Connection, None] = OrderedDict()  # oldest first
        self._by_origin: dict[Origin, dict[Connection, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def take(self, origin: Origin) -> Connection | None:
        """Remove and return the connection that was used last and is still alive."""
        if not self._all:
            return None
        now = self._expire()
        while there := self._by_origin.get(origin):
            connection, _ = there.popitem()
            connection.taken_at = now
            del self._all[connection]
            if not there:
                del self._by_origin[origin]
            if connection.usable():
                return connection
            connection.close()
        return None

    def put(self, connection: Connection) -> None:
        """Add a connection that has become idle."""
        connection.idle_since = trio.current_time()
        self._all[connection] = None
        self._by_origin.setdefault(connection.origin, {})[connection] = None
        if len(self._all) > self._limit:
            self.shrink(self._limit)
        if not self._expiry:
            self._expire()

    def shrink(self, limit: int) -> None:
        """Close the oldest, until no more than so many are left."""
        while len(self._all) > max(limit, 0):
            oldest = next(iter(self._all))
            self._remove(oldest)
            oldest.close()

    def _expire(self) -> float:
        """Close what was idle for too long, and return the time."""
        now = trio.current_time()
        before = now - self._expiry
        while self._all and (oldest := next(iter(self._all))).idle_since <= before:
            self._remove(oldest)
            oldest.close()
        return now

    def _remove(self, connection: Connection) -> None:
        del self._all[connection]
        there = self._by_origin[connection.origin]
        del there[connection]
        if not there:
            del self._by_origin[connection.origin]
