"""What a scripted server says: steps, replies, and their form on the wire. No I/O here.

A `Reply` means the same in memory and over a socket. What a memory transport cannot show by
itself (heads, framing, lengths) is turned into the bytes of the connection by `wire`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Literal, TypeAlias

import httpx
import msgspec


class _Mark:
    """A step that is no data; it stands for itself."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


hang: Final = _Mark("hang")
"""A step that never ends: the connection stays open and silent."""
reset: Final = _Mark("reset")
"""A step that breaks the connection: over a socket with a TCP reset."""
eof: Final = _Mark("eof")
"""A step that closes the connection in good order, whatever was announced."""
half_close: Final = _Mark("half_close")
"""As `eof`, but the server goes on listening until the client hangs up."""

ENDS: Final = (hang, reset, eof, half_close)
"""Steps behind which nothing can follow."""


class Forever(msgspec.Struct, frozen=True):
    """A step that repeats others until the client goes away; made by `forever`."""

    steps: tuple[bytes | float, ...]


Step: TypeAlias = bytes | float | int | BaseException | _Mark | Forever
"""Bytes are sent as one write and, in memory, are one read; a number is a pause in seconds; an
exception breaks the connection, in memory with itself; `hang`, `reset`, `eof`, `half_close` and
`forever` say what they do.
"""

Framing: TypeAlias = Literal["chunked", "length", "close"]


def forever(*steps: bytes | float) -> Forever:
    """A step that repeats ``steps`` (bytes and pauses) until the client goes away."""
    if not any(isinstance(s, bytes) and s for s in steps):
        raise ValueError("forever needs bytes to repeat")
    return Forever(steps)


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One scripted response. ``reply | fault`` is the reply with a fault of `faults` in it.

    ``wait`` (seconds) is how long even the headers take.
    """

    steps: tuple[Step, ...] = ()
    status: int = 200
    headers: dict[str, str] = msgspec.field(
        default_factory=lambda: {"content-type": "text/event-stream"}
    )
    """Sent as they are; the framing adds its own where they are not among them."""
    wait: float | _Mark = 0.0
    error: BaseException | None = None
    """Raised in place of a response: the connection failed. Over a socket it is reset."""
    framing: Framing = "chunked"
    """How the client learns where the body ends; ``close`` is by the connection's end."""
    length: int | None = None
    """What ``content-length`` says, where that is not the truth (with framing ``length``)."""
    http: Literal["1.0", "1.1"] = "1.1"
    keep_alive: bool = True
    """Whether the connection takes another request after this; if not, the head says so."""
    raw: bool = False
    """The steps are all that is sent, head and framing as well; nothing is added."""

    def __or__(self, fault: Callable[[Reply], Reply]) -> Reply:
        return fault(self)


def reply(*steps: Step, **options: Any) -> Reply:
    """A `Reply` whose body is these steps; ``options`` are its other fields."""
    return Reply(steps=steps, **options)


def raw(*steps: Step, **options: Any) -> Reply:
    """A `Reply` that is these bytes on the connection, head and all, and then its end.

    With ``keep_alive=True`` the connection stays open behind them.
    """
    return Reply(**{"steps": steps, "raw": True, "keep_alive": False, **options})


class ServedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request as a scripted server got it. The ``repr`` shows neither headers nor body."""

    method: str
    target: str
    """Path and query, as sent."""
    headers: dict[str, str]
    """By their names in lower case; values of one name are joined with ``", "``."""
    body: bytes
    connection: int = 0
    """Which connection it came on, from 0 (always 0 in memory)."""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def json(self) -> Any:
        """The body, decoded. Raises ``ValueError`` if it is not JSON."""
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"<ServedRequest {self.method} {self.path} of {len(self.body)} bytes>"


Answer: TypeAlias = Reply | Callable[[ServedRequest], Reply]
"""A reply, or a function that chooses one for a request."""


class Script:
    """Which answer comes next: the n-th for the n-th request, then the last again.

    GET requests, the questions after the fact, have a line of their own.
    """

    def __init__(self, replies: Sequence[Answer], settlements: Sequence[Answer]) -> None:
        self._replies = _Line(replies)
        self._settlements = _Line(settlements)

    @property
    def replies(self) -> tuple[Answer, ...]:
        """The answers to all but GET requests. Setting them begins with the first."""
        return self._replies.answers

    @replies.setter
    def replies(self, replies: Sequence[Answer]) -> None:
        self._replies = _Line(replies)

    @property
    def settlements(self) -> tuple[Answer, ...]:
        """The answers to GET requests. Setting them begins with the first."""
        return self._settlements.answers

    @settlements.setter
    def settlements(self, settlements: Sequence[Answer]) -> None:
        self._settlements = _Line(settlements)

    def next(self, request: ServedRequest) -> Reply:
        """The answer to the next request."""
        line = self._settlements if request.method == "GET" else self._replies
        chosen = line.next()
        return chosen(request) if callable(chosen) else chosen


class Scripted:
    """Who answers by a script that can be changed while it runs."""

    script: Script

    @property
    def replies(self) -> tuple[Answer, ...]:
        """The script. Setting it begins a new one: its first is the next answer."""
        return self.script.replies

    @replies.setter
    def replies(self, replies: Sequence[Answer]) -> None:
        self.script.replies = tuple(replies)

    @property
    def settlements(self) -> tuple[Answer, ...]:
        """The same for questions after the fact."""
        return self.script.settlements

    @settlements.setter
    def settlements(self, settlements: Sequence[Answer]) -> None:
        self.script.settlements = tuple(settlements)


class _Line:
    def __init__(self, answers: Sequence[Answer]) -> None:
        self.answers = tuple(answers)
        if not self.answers:
            raise ValueError("a script needs a reply")
        self._given = 0

    def next(self) -> Answer:
        self._given += 1
        return self.answers[min(self._given, len(self.answers)) - 1]


# -- on the wire ---------------------------------------------------------------------------------


def wire(reply: Reply) -> Reply:
    """The same reply as the bytes of its connection, head and framing included.

    Faults behind it work on those: ``reply | testing.wire | faults.cut(10)`` ends the
    connection inside the head.
    """
    if reply.raw:
        return reply
    return msgspec.structs.replace(reply, steps=tuple(_wire_steps(reply)), raw=True)


def is_plain(reply: Reply) -> bool:
    """Whether its steps alone say what a client sees: no head or framing is out of order."""
    plain = reply.framing == "chunked" and reply.length is None and reply.http == "1.1"
    return plain and not reply.raw and not (_FRAMED & {name.lower() for name in reply.headers})


_FRAMED = {"content-length", "transfer-encoding"}


def _wire_steps(reply: Reply) -> Iterator[Step]:
    bodiless = reply.status in (204, 304) or reply.status < 200
    names = {name.lower() for name in reply.headers}
    chunked = reply.framing == "chunked" and not names & _FRAMED and not bodiless
    yield _head(reply, names, bodiless)
    for step in reply.steps:
        if isinstance(step, Forever) and chunked:
            yield Forever(tuple(_chunk(s) if isinstance(s, bytes) else s for s in step.steps))
        elif isinstance(step, bytes):
            if step:
                yield _chunk(step) if chunked else step
        else:
            yield step
        if step in ENDS or isinstance(step, BaseException | Forever):
            return
    if chunked:
        yield b"0\r\n\r\n"
    if reply.framing == "close":
        yield eof


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _head(reply: Reply, names: set[str], bodiless: bool) -> bytes:
    headers: dict[str, str] = dict(reply.headers)
    if not names & _FRAMED and not bodiless:
        if reply.framing == "chunked":
            headers["transfer-encoding"] = "chunked"
        elif reply.framing == "length":
            size = sum(len(step) for step in reply.steps if isinstance(step, bytes))
            headers["content-length"] = str(size if reply.length is None else reply.length)
    if not (reply.keep_alive and reply.framing != "close") and "connection" not in names:
        headers["connection"] = "close"
    return head_bytes(reply.http, reply.status, headers)


def head_bytes(http: str, status: int, headers: Mapping[str, str]) -> bytes:
    """A response's head. Raises ``ValueError`` for headers that would break its lines."""
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Scripted"
    lines = [f"HTTP/{http} {status} {reason}", *(f"{n}: {v}" for n, v in headers.items())]
    if any(set("\r\n\0") & set(line) for line in lines):
        raise ValueError("a header would break its line; use testing.raw to send what is no HTTP")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def failure_of(step: Step) -> Exception | BaseException | None:
    """What a client sees when a step ends the connection inside a body; None if it does not."""
    if step is reset:
        return httpx.ReadError("connection reset by the script")
    if step is eof or step is half_close:
        return httpx.RemoteProtocolError(
            "peer closed connection without sending complete message body"
        )
    return step if isinstance(step, BaseException) else None
