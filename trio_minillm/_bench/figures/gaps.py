"""The times of all contents of a run: the gaps between them, and how many came when. Pure."""

from __future__ import annotations

from array import array

import msgspec
import numpy as np
from numpy.typing import NDArray

from .intervals import MAX_GROUPS, groups_of

MAX_GAPS = 2_000_000
"""Gaps that are kept one by one, to seven digits. Those beyond are counted in buckets."""
FLUSH = 10_000
"""Contents that are worked up at a time, in about a millisecond."""
GROWTH = 1.005
"""Width of a bucket: the upper end, as a multiple of the lower one."""
ERROR = 0.005
"""Relative error of a value out of a bucket, at most."""
LEAST, MOST = 1e-6, 1e6
"""Seconds of the first bucket's end and of the last one's."""
TICK = 0.1
"""Seconds in which contents are counted."""
MAX_TICKS = 100_000
"""Ticks that are counted (2.8 hours); in longer runs they become longer."""

_LOG = float(np.log(GROWTH))
_BUCKETS = int(np.log(MOST / LEAST) / _LOG) + 2

Floats = NDArray[np.float64]


class GapSet(msgspec.Struct, frozen=True, kw_only=True):
    """Gaps, how many values each stands for, and what is drawn together with it."""

    values: Floats
    """Seconds."""
    weights: Floats
    groups: NDArray[np.int64]
    relative_error: float
    """The values are within this share of themselves; 0 is exact."""
    most: float
    """The longest, exactly."""


class Together(msgspec.Struct, frozen=True, kw_only=True):
    """Contents that one read brought together: the server sent several at once, or the client was late to
    read. All of them have the time of the last.
    """

    contents: int
    """Contents that came with the one before."""
    answers: int
    """Answers that have such contents."""
    beginnings: int
    """Answers of which the first content is one that others came with."""


class Gaps:
    """The contents of whole answers. A gap is the time between two contents of one answer."""

    def __init__(self) -> None:
        self.chunks = 0
        """Contents."""
        self.answers = 0
        """Answers that were added."""
        self._together = np.zeros(3, dtype=np.int64)
        self.tick = TICK
        """Seconds in which contents are counted."""
        self._stamps = array("d")
        self._tokens = array("d")
        self._owners = array("l")
        self._chunk_gaps = _Kept()
        self._token_gaps = _Kept()
        self._ticks: dict[int, Floats] = {}

    def add(self, stamps: list[float], tokens: list[float]) -> None:
        """Add an answer: the times of its contents, and the output tokens of each, or nothing."""
        self._stamps.extend(stamps)
        self._tokens.extend(tokens or [0.0] * len(stamps))
        self._owners.extend([self.answers] * len(stamps))
        self.chunks += len(stamps)
        self.answers += 1
        if len(self._stamps) >= FLUSH:
            self._flush()

    def together(self) -> Together:
        """Return how many contents one read brought together with others."""
        self._flush()
        contents, answers, beginnings = map(int, self._together)
        return Together(contents=contents, answers=answers, beginnings=beginnings)

    def by_chunk(self) -> GapSet:
        """Return the gaps between contents, one for each."""
        self._flush()
        return self._chunk_gaps.all(self.answers)

    def by_token(self) -> GapSet:
        """Return the gaps between tokens: a content of n tokens stands for n gaps, each its share of the
        time since the content with tokens before it.
        """
        self._flush()
        return self._token_gaps.all(self.answers)

    def counted(self) -> tuple[Floats, Floats, Floats]:
        """Return the beginnings of ticks, in order, and the contents and tokens that came in each."""
        self._flush()
        ticks = sorted(self._ticks)
        counts = np.array([self._ticks[tick] for tick in ticks]).reshape(-1, 2)
        return np.array(ticks) * self.tick, counts[:, 0], counts[:, 1]

    def _flush(self) -> None:
        if not self._stamps:
            return
        stamps, tokens = np.array(self._stamps), np.array(self._tokens)
        owners = np.array(self._owners, dtype=np.int32)
        self._stamps, self._tokens, self._owners = array("d"), array("d"), array("l")
        self._count(stamps, tokens)
        later = np.flatnonzero(owners[1:] == owners[:-1]) + 1
        gaps = stamps[later] - stamps[later - 1]
        with_others = later[gaps <= 0]
        begin = np.append(True, owners[1:] != owners[:-1])[with_others - 1]
        found = with_others.size, np.unique(owners[with_others]).size, np.count_nonzero(begin)
        self._together += np.array(found)
        self._chunk_gaps.add(gaps, np.ones(gaps.size), owners[later])
        # A content without a token of its own adds its time to that of the next which has one.
        firsts = np.append(True, owners[1:] != owners[:-1])
        bearers = np.maximum.accumulate(np.where(firsts | (tokens > 0), np.arange(stamps.size), 0))
        later = later[tokens[later] > 0]
        each = (stamps[later] - stamps[bearers[later - 1]]) / tokens[later]
        self._token_gaps.add(each, tokens[later], owners[later])

    def _count(self, stamps: Floats, tokens: Floats) -> None:
        ticks, inverse = np.unique(np.floor(stamps / self.tick), return_inverse=True)
        chunks, sums = np.bincount(inverse), np.bincount(inverse, np.maximum(tokens, 0.0))
        for tick, *counts in zip(ticks.tolist(), chunks, sums, strict=True):
            self._ticks[int(tick)] = self._ticks.get(int(tick), 0.0) + np.array(counts, float)
        while len(self._ticks) > MAX_TICKS:
            self.tick *= 2
            wider: dict[int, Floats] = {}
            for tick, both in self._ticks.items():
                wider[tick // 2] = wider.get(tick // 2, 0.0) + both
            self._ticks = wider


class _Kept:
    """Values one by one up to `MAX_GAPS`, and the later ones in buckets, for each group."""

    def __init__(self) -> None:
        self._count = 0
        self._blocks: list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]] = []
        self._weights: Floats | None = None
        self._sums: Floats
        self._most = 0.0

    def add(self, values: Floats, weights: Floats, owners: NDArray[np.int32]) -> None:
        if not values.size:
            return
        self._count += values.size
        self._most = max(self._most, float(values.max()))
        if self._count <= MAX_GAPS:
            self._blocks.append((values.astype(np.float32), weights.astype(np.float32), owners))
            return
        if self._weights is None:
            self._weights, self._sums = np.zeros((2, MAX_GROUPS * _BUCKETS))
        buckets = (np.log(np.clip(values, LEAST, MOST) / LEAST) / _LOG).astype(np.int64)
        places = groups_of(owners, MAX_GROUPS + 1) * _BUCKETS + buckets
        np.add.at(self._weights, places, weights)
        np.add.at(self._sums, places, weights * values)

    def all(self, answers: int) -> GapSet:
        blocks = self._blocks or [
            (np.zeros(0, np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
        ]
        values, weights, owners = (np.concatenate(part) for part in zip(*blocks, strict=True))
        groups = groups_of(owners, answers)
        if self._weights is not None:
            used = np.flatnonzero(self._weights)
            weight = self._weights[used]
            values = np.append(values, self._sums[used] / weight)  # the mean of a bucket is exact
            weights, groups = np.append(weights, weight), np.append(groups, used // _BUCKETS)
        return GapSet(
            values=values.astype(np.float64),
            weights=weights.astype(np.float64),
            groups=groups,
            relative_error=0.0 if self._weights is None else ERROR,
            most=self._most,
        )
