"""Scripts of a server: steps, replies, and their form on the wire. No I/O.

A `Reply` has the same effect in memory and over a socket. Details that exist only on a connection
(heads, framing, lengths) are turned into its bytes by `wire`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Literal, Self, TypeAlias, get_args
from urllib.parse import parse_qs

import msgspec

from .._types.checks import check_type, wrong_type


class _Mark:
    """A step that is not data."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


hang: Final = _Mark("hang")
"""A step that never ends: the connection stays open and silent."""
reset: Final = _Mark("reset")
"""A step that breaks the connection; over a socket, with a TCP reset."""
eof: Final = _Mark("eof")
"""A step that closes the connection cleanly, whatever the head announced."""
half_close: Final = _Mark("half_close")
"""A step like `eof`, except that the server continues to read until the client hangs up."""

ENDS: Final = (hang, reset, eof, half_close)
"""Steps that nothing can follow."""


class Forever(msgspec.Struct, frozen=True):
    """A step that repeats others until the client hangs up; made by `forever`."""

    steps: tuple[bytes | float, ...]


Step: TypeAlias = bytes | float | int | BaseException | _Mark | Forever
"""Bytes, sent as one write and read as one in memory; a number, which is a pause in seconds; an
exception, which breaks the connection and is what a client in memory gets; `hang`, `reset`, `eof`,
`half_close`; or a step made by `forever`.
"""

Framing: TypeAlias = Literal["chunked", "length", "close"]


def forever(*steps: bytes | float) -> Forever:
    """Return a step that repeats ``steps`` (bytes and pauses) until the client hangs up.

    Raises ``ValueError`` if there are no bytes to repeat.
    """
    if not any(isinstance(s, bytes) and s for s in steps):
        raise ValueError("forever needs bytes to repeat")
    return Forever(steps)


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One scripted response. ``reply | fault`` applies one of the `faults` to it.

    Raises ``TypeError`` for a step or an option of the wrong type.
    """

    steps: tuple[Step, ...] = ()
    """The data, pauses, and marks of the body, in order."""
    status: int = 200
    """The HTTP status."""
    headers: dict[str, str] = msgspec.field(
        default_factory=lambda: {"content-type": "text/event-stream"}
    )
    """The headers, sent unchanged. The framing adds its own unless they are present."""
    wait: float | _Mark = 0.0
    """The seconds before the headers are sent, or `hang` to never send them."""
    error: BaseException | None = None
    """An exception instead of a response, for a connection that failed. Over a socket, the
    connection is reset."""
    framing: Framing = "chunked"
    """The way in which the client finds the end of the body; ``close`` means the end of the
    connection."""
    length: int | None = None
    """A wrong value for ``content-length`` (with the framing ``length``)."""
    http: Literal["1.0", "1.1"] = "1.1"
    """The HTTP version in the head."""
    keep_alive: bool = True
    """False to close the connection after the response, and to say so in the head."""
    raw: bool = False
    """True if the steps are everything that is sent, including head and framing."""

    def __post_init__(self) -> None:
        if isinstance(self.steps, str | bytes):
            raise wrong_type("steps", self.steps, "a tuple of steps")
        known = isinstance(self.steps, tuple | list)  # or they are made as they are sent
        for step in self.steps if known else ():
            if not isinstance(step, Step) or isinstance(step, bool):
                hint = ": encode it" if isinstance(step, str) else ""
                hint = ": give its items, as in reply(*events)" if isinstance(step, list) else hint
                raise TypeError(
                    f"a step is bytes, a pause or a mark, not {type(step).__name__}{hint}"
                )
        check_type("status", self.status, int)
        check_type("headers", self.headers, Mapping)
        check_type("wait", self.wait, float | int | _Mark)
        if self.framing not in get_args(Framing):
            raise ValueError(f"framing must be one of {', '.join(get_args(Framing))}")

    def __or__(self, fault: Fault) -> Reply:
        return _faulty(self, fault)


Fault: TypeAlias = Callable[[Reply], Reply]
"""A function from a reply to a changed one, as each of `faults` returns it."""


def _faulty(reply: Reply, fault: Fault) -> Reply:
    made = fault(reply) if callable(fault) else None
    if not isinstance(made, Reply):  # faults.cut without its arguments, say
        raise TypeError("the value after | must be a fault, as in reply | faults.cut(-20)")
    return made


def reply(*steps: Step, **options: Any) -> Reply:
    """Return a `Reply` with these steps as its body. ``options`` are its other fields."""
    return Reply(steps=steps, **options)


def raw(*steps: Step, **options: Any) -> Reply:
    """Return a `Reply` that consists of exactly these bytes on the connection, and then its end.

    ``options`` are its other fields. With ``keep_alive=True``, the connection stays open.
    """
    return Reply(**{"steps": steps, "raw": True, "keep_alive": False, **options})


class ServedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request as a scripted server received it. Its ``repr`` shows neither headers nor body."""

    method: str
    """The HTTP method."""
    target: str
    """The path and query, as they were sent."""
    headers: dict[str, str]
    """Values by lower-case name. Several values of one name are joined with ``", "``."""
    body: bytes
    """The body."""
    connection: int = 0
    """The number of the connection that it arrived on, from 0 (always 0 in memory)."""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def asks_about(self) -> bool:
        """True if it is about an earlier response: its cost, its resumption, or its
        cancellation.
        """
        return self.method == "GET" or self._cancels

    @property
    def is_question(self) -> bool:
        """True if ``settlements`` answer it: it is about an earlier response, and does not ask for
        its events.
        """
        return self._cancels or (self.method == "GET" and not self._is_below_responses)

    @property
    def resumes(self) -> int | None:
        """The number of the event after which a response in the background should continue, if
        any.
        """
        asked = parse_qs(self.target.partition("?")[2])
        number = asked.get("starting_after", [""])[0]
        return int(number) if self.method == "GET" and number.isdecimal() else None

    @property
    def _is_below_responses(self) -> bool:
        return "/responses/" in self.path

    @property
    def _cancels(self) -> bool:
        return self._is_below_responses and self.path.endswith("/cancel")

    def json(self) -> Any:
        """Return the decoded body. Raises ``ValueError`` if it is not JSON."""
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"<ServedRequest {self.method} {self.path} of {len(self.body)} bytes>"


class ReplyFunction:
    """A function of the request that returns a reply. You can apply faults to it, as to a
    `Reply`.
    """

    def __init__(self, choose: Callable[[ServedRequest], Reply]) -> None:
        self._choose = choose

    def __call__(self, request: ServedRequest) -> Reply:
        return self._choose(request)

    def __or__(self, fault: Fault) -> Self:
        return type(self)(lambda request: _faulty(self(request), fault))


Answer: TypeAlias = Reply | Callable[[ServedRequest], "Reply | ReplyFunction"]
"""A reply, or a function that chooses one for a request."""


class Script:
    """The order of answers: the n-th for the n-th request, and the last for all later ones.

    GET requests, which ask for a cost, and those that cancel a response have a sequence of their own;
    a GET request that takes up a response in the background is one like any other.
    """

    def __init__(self, replies: Sequence[Answer], settlements: Sequence[Answer]) -> None:
        self.replies: Answers = Answers(replies)
        self.settlements: Answers = Answers(settlements)

    def next(self, request: ServedRequest) -> Reply:
        """Return the answer to the next request.

        Raises ``TypeError`` if a function returns something else.
        """
        answers = self.settlements if request.is_question else self.replies
        chosen = answers.next()
        made = chosen if isinstance(chosen, Reply) else chosen(request)
        made = made(request) if isinstance(made, ReplyFunction) else made
        check_type("the reply of a function", made, Reply)
        return made


class Scripted:
    """A server whose script can be changed while it runs."""

    script: Script

    @property
    def replies(self) -> tuple[Answer, ...]:
        """The answers to all but ``settlements``. After setting them, the first is the next answer."""
        return self.script.replies.all

    @replies.setter
    def replies(self, replies: Sequence[Answer]) -> None:
        self.script.replies = Answers(replies)

    @property
    def settlements(self) -> tuple[Answer, ...]:
        """The answers to requests for a cost, and to those that cancel a response.

        After setting them, the first is the next answer.
        """
        return self.script.settlements.all

    @settlements.setter
    def settlements(self, settlements: Sequence[Answer]) -> None:
        self.script.settlements = Answers(settlements)


class Answers:
    """A sequence of answers, of which the last is repeated."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        if not isinstance(answers, Iterable) or isinstance(answers, str | bytes):
            raise wrong_type("replies", answers, "a list")
        self.all: tuple[Answer, ...] = tuple(answers)
        for one in self.all:
            if not isinstance(one, Reply) and not callable(one):
                raise wrong_type("a reply", one, Reply, "a function of the request")
        if not self.all:
            raise ValueError("a script needs a reply")
        self._given = 0

    def next(self) -> Answer:
        self._given += 1
        return self.all[min(self._given, len(self.all)) - 1]


# -- on the wire ---------------------------------------------------------------------------------


def wire(reply: Reply) -> Reply:
    """Return the same reply as the bytes of its connection, including head and framing.

    Faults that you apply afterwards change these bytes: ``reply | testing.wire | faults.cut(10)``
    ends the connection in the middle of the head.
    """
    if reply.raw:
        return reply
    return msgspec.structs.replace(reply, steps=tuple(_wire_steps(reply)), raw=True)


def is_plain(reply: Reply) -> bool:
    """Return True if the steps alone are what a client sees: head and framing are ordinary."""
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
    """Return a response's head. Raises ``ValueError`` for headers that would break its lines."""
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Scripted"
    lines = [f"HTTP/{http} {status} {reason}", *(f"{n}: {v}" for n, v in headers.items())]
    if any(set("\r\n\0") & set(line) for line in lines):
        raise ValueError("a header would break its line; use testing.raw to send anything but HTTP")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def failure_of(step: Step) -> Exception | BaseException | None:
    """Return the error of a client if the step ends the connection inside a body, or None."""
    import httpx

    if step is reset:
        return httpx.ReadError("connection reset by the script")
    if step is eof or step is half_close:
        return httpx.RemoteProtocolError(
            "peer closed connection without sending complete message body"
        )
    return step if isinstance(step, BaseException) else None
