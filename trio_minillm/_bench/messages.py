"""The words between a benchmark and its worker processes.

Each is a frame: its length in four bytes, then its body. To a worker the body is a pickled value, as
models and prompts hold what has no other form; from a worker it is msgpack, of which the parent makes
nothing but the classes below.
"""

from __future__ import annotations

import pickle
from typing import Any, TypeAlias

import msgspec

from .._accounting.record import CostRecord
from .hedge import Hedge
from .plan import Plan
from .record import Record

MAX_FRAME = 2**32 - 1
"""Bytes of the longest frame: what its head can count."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The first word to a worker: what all its plans have in common."""

    worker: int = 0
    """Its number, which its records get."""
    model: Any
    secret: str
    """The keys that must not show, a line each."""
    hedge: Hedge | None
    max_cost: bool


class Begin(msgspec.Struct, frozen=True):
    """The order to send what counts from an instant on, which is on the clock that all processes share."""

    at: float


class Stop(msgspec.Struct, frozen=True):
    """The order to send no more requests, for a reason."""

    why: str


class Cancel(msgspec.Struct, frozen=True):
    """The order to cancel the running streams."""


class End(msgspec.Struct, frozen=True):
    """The order to exit once all is booked. Where it does not come, the end of the input is one to exit at
    once.
    """


Order: TypeAlias = Job | Plan | Begin | Stop | Cancel | End


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The warm-up is over."""


class Kept(msgspec.Struct, frozen=True, tag=True):
    """A request has ended."""

    record: Record


class Booked(msgspec.Struct, frozen=True, tag=True):
    """An attempt is to be put into the ledger."""

    record: CostRecord


class Status(msgspec.Struct, frozen=True, tag=True):
    """The progress of the current phase."""

    running: int = 0
    chunks: int = 0
    tokens: int = 0


class Over(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A plan's part has been carried out: no stream is left."""

    status: Status
    stopped: str
    gave_up: bool
    unsent: int
    error: str | None
    refused: str | None
    """The reason that the wire format can't send such a request."""
    errors: list[bytes]
    """An error of each kind of failure, pickled, with its key."""
    audit: bytes
    """The `Audit` of the process during what counted, pickled: to decode one takes what figures need."""


class Done(msgspec.Struct, frozen=True, tag=True):
    """All is booked: the process exits."""


Report: TypeAlias = Ready | Kept | Booked | Status | Over | Done
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Report).decode


def order_frame(order: Order) -> bytes:
    """Return an order as a frame."""
    return _framed(pickle.dumps(order))


def report_frame(report: Report) -> bytes:
    """Return a report as a frame."""
    return _framed(_encode(report))


def read_order(body: bytes) -> Order:
    """Return the order in a frame's body, which only the parent can have written."""
    order: Order = pickle.loads(body)  # noqa: S301 - from our own parent
    return order


class Frames:
    """A splitter of a worker's output into reports."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[Report]:
        """Return the reports that are complete with these bytes."""
        self._data += data
        found, at = [], 0
        while len(self._data) >= at + 4:
            end = at + 4 + int.from_bytes(self._data[at : at + 4])
            if len(self._data) < end:
                break
            found.append(_decode(self._data[at + 4 : end]))
            at = end
        del self._data[:at]
        return found


def _framed(body: bytes) -> bytes:
    if len(body) > MAX_FRAME:
        raise ValueError("the prompts are too long to hand to a process of the benchmark")
    return len(body).to_bytes(4) + body
