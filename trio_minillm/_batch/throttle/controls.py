"""The limits that hold requests back, in values and in plain words. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

import msgspec

ControlKind: TypeAlias = Literal["concurrency", "rate", "tokens", "pause", "files", "closed"]
"""The thing that is held back: requests at once, requests per second, tokens per minute, all for a time;
requests at once because this machine has no more open files or memory for them; all for good."""

ControlSource: TypeAlias = Literal[
    "found", "learned", "stated", "set", "asked", "failures", "machine"
]
"""The origin of a limit: found by trying, learned from refusals, stated in the server's headers, set by
you; or of a pause: the server asked for it, or its failures are the reason; or this machine."""

RECENT = 100.0
"""Answers over which the share of refusals is a moving average."""
LEAST_SHARE = 0.005
"""Share of refusals from which on it is worth a word."""


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """One limit that is in force for an endpoint, key, and model.

    Its ``str`` is a sentence without the names: ``holding 20 of 200 at once: 12 % refused``.
    """

    model: str
    """The name of the model; empty for a limit of all models."""
    host: str
    """The host of its address, or the name of the provider."""
    kind: ControlKind
    """The kind of limit."""
    source: ControlSource
    """The origin of the limit."""
    limit: float
    """Requests at the same time, requests per second, tokens per minute, or the remaining seconds
    of a pause."""
    most: float | None = None
    """The limit without this control, if it is known."""
    in_use: int = 0
    """Requests that are running."""
    waiting: int = 0
    """Requests that wait for this endpoint, key, and model, for any reason."""
    refused: float = 0.0
    """The share of the newest hundred or so attempts that were refused for rate or load."""
    reason: str
    """The cause, as text."""

    @property
    def held_down(self) -> bool:
        """True if the server or this machine is the reason, and not a search or your own setting."""
        if self.kind == "concurrency":
            return self.source != "set" and self.refused >= LEAST_SHARE
        return self.source != "set"

    def __str__(self) -> str:
        limit = f"{self.limit:,.0f}"
        if self.kind in ("concurrency", "files"):
            most = "" if self.most is None else f" of {self.most:,.0f}"
            return f"holding {limit}{most} at once: {self.reason}"
        if self.kind == "rate":
            rate = self.limit
            often = f"{rate:,.1f} requests/s" if rate >= 1 else f"{60 * rate:,.1f} requests/min"
            return f"{often} {self.reason}"
        if self.kind == "tokens":
            return f"{limit} tokens/min {self.reason}"
        if self.kind == "pause":
            seconds = duration(self.limit)
            return f"{'trying again' if seconds == '0 s' else f'paused {seconds}'}: {self.reason}"
        return f"nothing more is sent: {self.reason}"


class Place(msgspec.Struct, frozen=True):
    """The names of a lane, without its key."""

    model: str
    host: str


def closed_control(place: Place, why: str) -> Control:
    """Return the control for a place to which nothing more is sent."""
    return Control(
        model=place.model, host=place.host, kind="closed", source="failures", limit=0, reason=why
    )


class Tally:
    """Counts of how the requests of a lane were received."""

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0
        """Failures that speak of rate or load."""
        self.share = 0.0
        """Share of them, lately."""
        self.newest = ""
        """The newest failure in words, and what it stands for."""
        self._answers = 0.0

    @property
    def settled(self) -> bool:
        """True if another accepted request leaves the share at 0."""
        return not self.share and self._answers >= RECENT

    def add_accepted(self) -> None:
        self.accepted += 1
        if not self.settled:
            self._count(0.0)

    def add_refused(self) -> None:
        self.refused += 1
        self._count(1.0)

    def _count(self, refused: float) -> None:
        if self._answers < RECENT:
            self._answers += 1.0
        self.share += (refused - self.share) / self._answers

    @property
    def share_text(self) -> str:
        """The share in words, empty if it is next to nothing."""
        return f"{100 * self.share:.0f} % refused" if self.share >= LEAST_SHARE else ""


def shown(controls: tuple[Control, ...], most: int = 2) -> Iterator[str]:
    """Yield the sentences of those that are held down, the first few, with the model's name if there
    are several models.
    """
    pressing = [c for c in controls if c.held_down and (c.waiting or c.kind in ("pause", "closed"))]
    names = len({control.model for control in controls}) > 1
    for control in pressing[:most]:
        yield f"{control.model}: {control}" if names and control.model else str(control)
    if len(pressing) > most:
        yield f"and {len(pressing) - most:,} more"


def duration(seconds: float) -> str:
    """Return a time such as ``42 s``, ``3 min`` or ``2 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
