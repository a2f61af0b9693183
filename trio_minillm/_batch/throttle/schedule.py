"""Which request is sent next: lanes in turn, each with what is new and what is to be retried. Pure."""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator

from ...providers import Model
from ..types import Attempt, BatchRequest
from .lanes import Lane, Reason, Ticket


class Item:
    """A request on its way through the batch."""

    __slots__ = (
        "attempts", "cache_key", "expires", "index", "lane", "model", "number", "request", "sample", "since", "started",
        "ticket", "tokens",
    )  # fmt: skip

    def __init__(self, request: BatchRequest, model: Model, index: int, sample: int) -> None:
        self.request = request
        self.model = model
        self.index = index
        self.sample = sample
        self.attempts: tuple[Attempt, ...] = ()
        self.cache_key: bytes | None = None
        """Under which its answer is to be stored."""
        self.tokens = 0.0
        """About how many tokens it will come to."""
        self.since = 0.0
        """When it could first have been sent, or was put off."""
        self.started: float | None = None
        """When its first attempt began."""
        self.expires = math.inf
        """When it has taken as long as it may, and is given up if it still waits (see `expired`)."""
        self.number = index
        """Its place among all items."""
        self.lane: _Queue
        self.ticket: Ticket


class _Queue:
    """A lane and those who wait for it."""

    __slots__ = ("due", "fresh", "lane")

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.fresh: deque[Item] = deque()
        self.due: list[tuple[float, int, Item]] = []
        """To be sent again: when, and a number that keeps the order."""

    def __len__(self) -> int:
        return len(self.fresh) + len(self.due)

    def head(self, now: float) -> Item | None:
        """Who is next: one that was tried before, if its time has come."""
        if self.due and self.due[0][0] <= now:
            return self.due[0][2]
        return self.fresh[0] if self.fresh else None

    def pop(self, now: float) -> None:
        if self.due and self.due[0][0] <= now:
            heapq.heappop(self.due)
        else:
            self.fresh.popleft()


class Schedule:
    """Items that wait, by lane, and who goes next.

    Guarantees: no more than ``capacity`` run at once; a lane sends only what it may; lanes that
    may send take turns, one request each; within a lane, those whose retry is due go first, then
    in the order of the input.
    """

    def __init__(self, capacity: int, lane: Callable[[float], Lane]) -> None:
        self.capacity = capacity
        self.running = 0
        self.waiting = 0
        self.wake_at = math.inf
        """See `ready`."""
        self._lane = lane
        self._queues: dict[Hashable, _Queue] = {}
        self._turns: deque[_Queue] = deque()  # those with anybody waiting
        self._number = 0

    @property
    def lanes(self) -> Iterator[Lane]:
        """All lanes that there are."""
        return (queue.lane for queue in self._queues.values())

    def lane_of(self, model: Model, now: float) -> Lane:
        """The lane of a model; a new one if it is the first time."""
        return self._queue(model, now).lane

    def _queue(self, model: Model, now: float) -> _Queue:
        place = (model.provider.name, model.base_url, model.api_key, model.name)
        queue = self._queues.get(place)
        if queue is None:
            queue = self._queues[place] = _Queue(self._lane(now))
        return queue

    def add(self, item: Item, now: float) -> None:
        """Somebody new."""
        queue = item.lane = self._queue(item.model, now)
        if not queue:
            self._turns.append(queue)
        queue.fresh.append(item)
        item.since = now
        self.waiting += 1

    def retry(self, item: Item, now: float, wait: float) -> None:
        """Somebody whose attempt failed, to be sent again in so many seconds."""
        queue = item.lane
        if not queue:
            self._turns.append(queue)
        self._number += 1
        heapq.heappush(queue.due, (now + wait, self._number, item))
        item.since = now
        self.waiting += 1

    def ready(self, now: float) -> bool:
        """Whether anybody may be sent now. If not, ``wake_at`` says when to ask again, unless
        something ends before.
        """
        return self._find(now) is not None

    def next(self, now: float) -> Item | None:
        """Who is sent now; ``None`` if nobody may be (see `ready`). Whoever is returned runs,
        until `ended`.
        """
        item = self._find(now)
        if item is None:
            return None
        queue = self._turns.popleft()
        queue.pop(now)
        if queue:
            self._turns.append(queue)
        self.waiting -= 1
        self.running += 1
        item.ticket = queue.lane.start(now, item.tokens)
        return item

    def _find(self, now: float) -> Item | None:
        """Bring the lane whose turn it is to the front."""
        self.wake_at = math.inf
        if self.running >= self.capacity:
            return None
        for _ in range(len(self._turns)):
            queue = self._turns[0]
            item = queue.head(now)
            if item is None:
                self.wake_at = min(self.wake_at, queue.due[0][0])
            elif (why := queue.lane.blocked(now, item.tokens)) is not None:
                self.wake_at = min(self.wake_at, now + why[1])
            else:
                return item
            self._turns.rotate(-1)
        return None

    def ended(self, item: Item) -> None:
        """It does not run any more. (Its lane was told apart.)"""
        self.running -= 1

    def expired(self, now: float) -> tuple[list[Item], float]:
        """Forget those whose time is over while they wait to be sent again, and return them; and
        when that will be so of the next one. (Nobody's time runs before the first attempt.)
        """
        gone: list[Item] = []
        following = math.inf
        for queue in tuple(self._turns):
            late = [item for _, _, item in queue.due if item.expires <= now]
            if late:
                gone += late
                queue.due = [entry for entry in queue.due if entry[2].expires > now]
                heapq.heapify(queue.due)
                if not queue:
                    self._turns.remove(queue)
            following = min([following, *(item.expires for _, _, item in queue.due)])
        self.waiting -= len(gone)
        return gone, following

    def clear(self) -> list[Item]:
        """Forget all who wait, and return them."""
        left = [
            item
            for queue in self._turns
            for item in (*(entry[2] for entry in queue.due), *queue.fresh)
        ]
        for queue in self._turns:
            queue.due.clear()
            queue.fresh.clear()
        self._turns.clear()
        self.waiting = 0
        return left

    def reasons(self, now: float) -> Counter[Reason]:
        """How many wait for what."""
        found: Counter[Reason] = Counter()
        for queue in self._turns:
            later = sum(at > now for at, _, _ in queue.due)
            found["retry"] += later
            head = queue.head(now)
            if head is not None:
                full = self.running >= self.capacity
                why = queue.lane.blocked(now, head.tokens)
                reason = why[0] if why is not None and not full else "concurrency"
                found[reason] += len(queue) - later
        return +found
