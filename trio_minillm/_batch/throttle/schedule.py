"""The queue of a batch: lanes in turn, each with new requests and those to be retried. Pure."""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from urllib.parse import urlsplit

import msgspec

from ..._protocol.request import Messages
from ..._types.errors import MiniLLMError
from ...providers import Model
from ..types import Attempt, BatchRequest
from .controls import Control, Place, closed_control
from .own_fault import Ticket
from .rate_limits import Reason
from .throttle import Lane


class Item(msgspec.Struct, eq=False):
    """A request on its way through the batch; each of its samples is one.

    Its 17 attributes are all that the batch keeps of it, in one object for the sake of memory.
    """

    request: BatchRequest
    model: Model
    index: int
    """Place of the request in the input, from 0."""
    sample: int
    number: int = 0
    """Place of the item among all items, from 0."""
    tokens: float = 0.0
    """Estimate of its tokens, input and output together."""
    messages: Messages | None = None
    """The request's messages, and after them each invalid answer with what is wrong with it; ``None``
    while there is none."""
    asked_again: int = 0
    """Invalid answers to it that were asked again."""
    attempts: tuple[Attempt, ...] = ()
    put_off: int = 0
    """Attempts that do not count: this machine had no room for them, or they were for an earlier
    question."""
    cache_key: bytes | None = None
    """Key under which its answer is stored, if there is a cache."""
    since: float = 0.0
    """Time at which it could first have been sent, or was put off."""
    started: float | None = None
    """Time at which its first attempt began."""
    expires: float = math.inf
    """Time at which it is given up if it still waits (see `Schedule.expired`)."""
    queue: Queue = None  # type: ignore[assignment]  # until it is in one
    lane: Lane = None  # type: ignore[assignment]
    ticket: Ticket | None = None
    """The lane's record of its newest attempt."""

    @property
    def asks(self) -> Messages:
        """The messages that are sent."""
        return self.request.messages if self.messages is None else self.messages


class Queue:
    """The items that wait for one lane, and the end of it."""

    __slots__ = ("closed", "due", "fresh", "held", "lane")

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.closed: MiniLLMError | None = None
        """The error for which nothing more is sent."""
        self.held: list[tuple[Item, MiniLLMError]] = []
        """Items that were refused, while it is open whether that closes the lane."""
        self.fresh: deque[Item] = deque()
        self.due: list[tuple[float, int, Item]] = []
        """Heap of those to be sent again: when, and a number that keeps the order."""

    def __len__(self) -> int:
        return len(self.fresh) + len(self.due)

    def head(self, now: float) -> Item | None:
        """Return the next item: a retry whose time has come, else the oldest new one."""
        if self.due and self.due[0][0] <= now:
            return self.due[0][2]
        return self.fresh[0] if self.fresh else None

    def pop(self, now: float) -> None:
        if self.due and self.due[0][0] <= now:
            heapq.heappop(self.due)
        else:
            self.fresh.popleft()


class Schedule:
    """Waiting items by lane, and the order in which they are sent.

    Guarantees: no more than ``limit`` run at once; a lane sends only what it may; lanes that
    may send take turns, one request each; within a lane, retries that are due go first, then new
    requests in the order of the input.
    """

    def __init__(self, capacity: int, new_lane: Callable[[float], Lane]) -> None:
        self.capacity = self.limit = capacity
        """The most that may run at once, and the number that may now: fewer if this machine has no room
        for so many."""
        self.running = 0
        self.waiting = 0
        self.wake_at = math.inf
        """Time at which to ask again after `next` found nothing to send."""
        self._new_lane = new_lane
        self._queues: dict[Hashable, Queue] = {}
        self._newest: tuple[Model | None, Queue | None] = None, None  # the last asked for
        self._turns: deque[Queue] = deque()  # queues that are not empty
        self._number = 0
        self._room = math.inf  # for so many this machine has room
        self._ended = 0  # since the room last changed

    def change(self, capacity: int) -> None:
        """Set another capacity."""
        self.capacity = capacity
        self._fit()

    def _fit(self) -> None:
        self.limit = self.capacity if self.capacity <= self._room else int(self._room)

    def no_room(self) -> bool:
        """Note that this machine has no room for one of those that run (it has too many files open).

        No more than the others run at once from now on, and one more whenever as many as that have
        ended. Returns False if there are no others, so that sending fewer can't help.
        """
        self._room, self._ended = max(1, self.running - 1), 0
        self._fit()
        return self.running > 1

    @property
    def lanes(self) -> Iterator[Lane]:
        """All lanes so far."""
        return (queue.lane for queue in self._queues.values())

    def _queue(self, model: Model, now: float) -> Queue:
        place = (model.provider.name, model.base_url, model.account, model.name)
        queue = self._queues.get(place)
        if queue is None:
            host = urlsplit(model.base_url).netloc.rpartition("@")[2]
            queue = self._queues[place] = Queue(self._new_lane(now))
            queue.lane.place = Place(model.name, host)
        self._newest = model, queue
        return queue

    def add(self, item: Item, now: float) -> bool:
        """Add a new item. Returns False if its lane is closed."""
        known, queue = self._newest
        if queue is None or item.model is not known:
            queue = self._queue(item.model, now)
        item.queue, item.lane = queue, queue.lane
        if queue.closed is not None:
            return False
        if not (queue.fresh or queue.due):
            self._turns.append(queue)
        queue.fresh.append(item)
        item.since = now
        self.waiting += 1
        return True

    def retry(self, item: Item, now: float, wait: float) -> None:
        """Add an item again whose attempt failed, to be sent in so many seconds."""
        queue = item.queue
        if not queue:
            self._turns.append(queue)
        self._number += 1
        heapq.heappush(queue.due, (now + wait, self._number, item))
        item.since = now
        self.waiting += 1

    def next(self, now: float) -> Item | None:
        """Return the item that is sent now, which runs until `ended`. If none may be, ``wake_at`` is
        when to ask again, unless a request ends before.
        """
        self.wake_at = math.inf
        turns = self._turns
        left = len(turns) if self.running < self.limit else 0
        while left:  # almost always it is the first
            queue = turns[0]
            due, fresh, lane = queue.due, queue.fresh, queue.lane
            item = queue.head(now) if due else fresh[0]
            if item is None:
                self.wake_at = min(self.wake_at, due[0][0])
            elif (why := lane.blocked(now, item.tokens)) is not None:
                self.wake_at = min(self.wake_at, now + why[1])
            else:
                break
            turns.rotate(-1)
            left -= 1
        else:
            return None
        if due:
            queue.pop(now)
        else:
            fresh.popleft()
        if not fresh and not due:
            turns.popleft()
        elif len(turns) > 1:
            turns.rotate(-1)
        self.waiting -= 1
        self.running += 1
        item.ticket = lane.start(now, item.tokens, item.ticket)
        return item

    def ended(self) -> None:
        """Note that an item runs no more. (`Lane.ended` is called apart.)"""
        self.running -= 1
        if self._room < math.inf:
            self._ended += 1
            if self._ended > self._room:
                self._room, self._ended = self._room + 1, 0
                self._fit()

    def expired(self, now: float) -> tuple[list[Item], float]:
        """Remove and return the items that expired while they waited for a retry, and the time at
        which the next one does. (No item expires before its first attempt.)
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

    def close(self, queue: Queue, error: MiniLLMError) -> int:
        """Send nothing more in a lane, for this error, and return the number of items removed."""
        queue.closed = error
        if queue in self._turns:
            self._turns.remove(queue)
        return self._clear(queue)

    def clear(self) -> int:
        """Remove all items that wait, and return their number."""
        self._turns.clear()
        return sum(map(self._clear, self._queues.values()))

    def _clear(self, queue: Queue) -> int:
        self.waiting -= len(queue)
        gone = len(queue) + len(queue.held)
        queue.due.clear()
        queue.fresh.clear()
        queue.held.clear()
        return gone

    @property
    def queues(self) -> Iterable[Queue]:
        """The queues of all lanes so far."""
        return self._queues.values()

    def controls(self, now: float) -> list[Control]:
        """Return what holds requests back now."""
        found: list[Control] = []
        if self._room < self.capacity:
            found.append(
                Control(
                    model="",
                    host="",
                    kind="files",
                    source="machine",
                    limit=self.limit,
                    most=self.capacity,
                    in_use=self.running,
                    waiting=self.waiting,
                    reason="too many open files on this machine",
                )
            )
        for queue in self._queues.values():
            found += queue.lane.controls(now, len(queue))
            if queue.closed is not None:
                found.append(closed_control(queue.lane.place, str(queue.closed)))
        return found

    def reasons(self, now: float) -> Counter[Reason]:
        """Return how many items wait for what."""
        found: Counter[Reason] = Counter()
        for queue in self._turns:
            later = sum(at > now for at, _, _ in queue.due)
            found["retry"] += later
            head = queue.head(now)
            if head is not None:
                full = self.running >= self.limit
                why = queue.lane.blocked(now, head.tokens)
                reason = why[0] if why is not None and not full else "concurrency"
                found[reason] += len(queue) - later
        return +found
