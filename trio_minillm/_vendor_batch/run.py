"""The run of vendors' batches: requests go out in parts, and their answers come back.

========================  ==============================================================================
event                     what happens
========================  ==============================================================================
request pulled            looked up in the journal. In a part that may have its answer: wanted of that
                          one. Else added to the part that is being filled
part full                 uploaded; its intent is noted; submitted; its id is noted
submission refused        noted; the run ends with that error once the other parts are fetched
submission cut off        the vendor's list is asked for it, and so is it for a part of which a kill
                          left the intent alone. Only if it is not there `settle` later, it is submitted
                          again
batch over                its results are read, each is handed out once, and the end is noted
batch not taken: queue    submitted again when another of the run is over; alone, that is an error
batch not taken           noted; the run ends with that error once the other parts are fetched
look failed               looked at again, for an hour in a row, unless no look can succeed
========================  ==============================================================================
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing

import msgspec
import trio
from msgspec.structs import replace

from .._batch.files.key_table import KeyTable
from .._batch.files.result_format import fingerprint
from .._batch.sender import without_frames
from .._batch.source import YIELD_EVERY, Requests
from .._batch.types import BatchRequest, BatchResult
from .._http.exchange import Exchange
from .._protocol.request import Prepared
from .._types.errors import MiniLLMError, RefusedError
from ..providers import Model
from .answers import Answers
from .calls import ATTEMPTS, Caller, may_pass, wait_before, was_sent
from .errors import VendorBatchError
from .journal import Journal, Part
from .lookout import look, note_failure, recognised
from .options import VendorSettings
from .parts import (
    Group,
    Lines,
    Running,
    Unreturned,
    Wanted,
    account_of,
    headers_of,
    place_of,
    vendor_of,
)
from .reading import Reading
from .vendors import Call

FULL = "token_limit_exceeded"
"""OpenAI's code for a batch for which there is no room in the queue of its model."""
AROUND_A_LINE, AROUND_A_PART = 150, 1_000
"""Bytes around the body of a request, and around all lines of a part, at most."""
RESUBMIT = 3
"""Submissions in a row that may be cut off and leave nothing at the vendor."""


class Sums(msgspec.Struct):
    """Counts of a run."""

    submitted: int = 0
    """Requests that this run has submitted."""
    parts: int = 0
    """Batches that this run has submitted."""
    adopted: int = 0
    """Requests that were already at the vendor."""
    results: int = 0
    """Results that were yielded."""
    unsent: int = 0
    """Requests that were not submitted, because of `VendorBatch.leave` or ``submit=False``."""
    unreadable: int = 0
    """Lines of results that can't be read."""
    strange: int = 0
    """Lines of results that belong to no request of their batch."""


class VendorRun:
    """One run, from its first request to its last result. Nothing of it runs while nobody iterates."""

    def __init__(
        self,
        requests: Requests,
        model: Model | None,
        settings: VendorSettings,
        *,
        prepare: Callable[..., Prepared],
        answers: Answers,
        connect: Callable[[], Exchange],
        check_budget: Callable[[], None],
    ) -> None:
        self.sums = Sums()
        self.running: dict[str, Running] = {}
        self.unreturned: list[Unreturned] = []
        self.failure: MiniLLMError | None = None
        self._requests = requests
        self._model = model
        self._settings = settings
        self._prepare = prepare
        self._answers = answers
        self._connect = connect
        self._check_budget = check_budget
        self._groups: dict[object, Group] = {}
        self._control = Control()
        self._put_back: list[Wanted] = []

    # -- from outside ------------------------------------------------------------------------------

    @property
    def control(self) -> Control:
        """The wishes of those outside."""
        return self._control

    @property
    def failing(self) -> str:
        """Words for a call that failed, while it is not known whether the next one will."""
        callers = [group.caller for group in self._groups.values()]
        callers += [running.caller for running in self.running.values()]
        return next((caller.failing for caller in callers if caller.failing), "")

    async def results(self, journal: Journal) -> AsyncGenerator[BatchResult, None]:
        """Yield the results, as the parts are over."""
        await self._pull(journal)
        while self.running:
            running = await self._next(journal)
            if running is None:
                break
            async with aclosing(self._read(running, journal)) as results:
                async for result in results:
                    yield result
            if running.taken:  # so there is room again
                await self._send_back(journal)
        self.sums.unsent += len(self._put_back)
        if self.failure is not None:
            raise self.failure

    # -- requests in -------------------------------------------------------------------------------

    async def _pull(self, journal: Journal) -> None:
        index, seen = 0, KeyTable()
        async with aclosing(_each(self._requests)) as requests:
            async for request in requests:
                if self._control.leaving:
                    break
                for wanted in self._wanted(request, index):
                    if seen.add(f"{wanted.sample} {request.key}", index) != index:
                        raise ValueError(f"{request.key!r} is twice among the requests")
                    await self._admit(wanted, journal)
                index += 1
        for group in self._groups.values():
            await self._submit(group, journal)
        if self._control.cancelling:
            for part in journal.parts.values():
                self._adopt_other(part)

    def _wanted(self, request: BatchRequest, index: int) -> Iterable[Wanted]:
        if not isinstance(request, BatchRequest):
            raise TypeError(f"requests must be BatchRequest values, not {type(request).__name__}")
        model = request.model or self._model
        if model is None:
            raise ValueError(f"request {request.key!r} has no model, and the batch has none either")
        if request.model is None:
            request = replace(request, model=model)
        samples = range(self._settings.samples) if request.samples is None else request.samples
        mark = fingerprint(request)
        return [Wanted(request, index, sample, mark) for sample in samples]

    async def _admit(self, wanted: Wanted, journal: Journal) -> None:
        """Take a request: of a part that may have its answer, or to be submitted."""
        held = journal.holder(wanted.item)
        if held is None:
            await self._add(wanted, journal)
            return
        part, place = held
        self._adopt(part, wanted.request.model).wanted[place] = wanted
        self.sums.adopted += 1

    def _adopt(self, part: Part, model: Model | None) -> Running:
        """Return a part of the journal as one that is at its vendor."""
        if (running := self.running.get(part.token)) is not None:
            return running
        assert model is not None
        vendor = vendor_of(model)
        if place_of(vendor, model) != part.url:
            raise VendorBatchError(
                f"requests of this run were submitted at {part.url} and must not be paid for twice:"
                " continue at that address, or start with another journal"
            )
        if part.batch is None and account_of(part.token, model) != part.account:
            raise VendorBatchError(
                "a batch of this run may have been submitted with another key, and only that key can"
                " list it: continue with that key, or start with another journal"
            )
        running = Running(part, model, vendor, Caller(self._connect, model))
        # Counted from now on: the clock may have been set since the intent.
        running.absent_at = trio.current_time() + self._settings.settle
        self.running[part.token] = running
        return running

    def _adopt_other(self, part: Part) -> None:
        """Take a part of which nothing is wanted, for it to be cancelled."""
        model = self._model
        if part.under_way and model is not None and place_of(vendor_of(model), model) == part.url:
            self._adopt(part, model)

    # -- requests out ------------------------------------------------------------------------------

    async def _add(self, wanted: Wanted, journal: Journal) -> None:
        """Add a request to the part that is being filled, which is submitted first if it is full."""
        if not self._settings.submit or not self._control.sending:
            self.sums.unsent += 1
            return
        prepared = self._prepared(wanted)
        group = self._group(prepared)
        if self._is_full(group, len(prepared.body)):
            await self._submit(group, journal)
        group.add(wanted, group.make(prepared.body))

    def _is_full(self, group: Group, more: int) -> bool:
        """Return True if a request with a body of so many bytes has no room in the part."""
        settings, vendor = self._settings, group.vendor
        most = min(settings.part_requests or vendor.max_requests, vendor.max_requests)
        room = min(settings.part_bytes, vendor.max_bytes - AROUND_A_PART)
        full = len(group.lines) >= most or group.bytes + more + AROUND_A_LINE > room
        return bool(group.lines) and full

    def _prepared(self, wanted: Wanted) -> Prepared:
        request = wanted.request
        try:
            if request.params.get("background"):
                raise ValueError("background: a vendor's batch always runs in the background")
            return self._prepare(
                request.model, request.messages, extra=request.extra, **request.params
            )
        except (TypeError, ValueError) as exc:
            exc.add_note(f"in the request with the key {request.key!r}")
            raise

    def _group(self, prepared: Prepared) -> Group:
        model = prepared.model
        key = prepared.url, model.name, model.account, tuple(sorted(headers_of(prepared).items()))
        if key not in self._groups:
            self._groups[key] = Group(prepared, self._connect)
        return self._groups[key]

    async def _submit(self, group: Group, journal: Journal) -> None:
        """Submit the part that was filled. After an error that every other would meet, none is."""
        if not group.lines:
            return
        running, lines = group.taken()
        count = len(lines)
        if self._control.sending:
            try:
                self._check_budget()
                call = await self._uploaded(group, running, lines)
                del lines
                if self._control.sending:  # still
                    await self._intend(running, journal)
                    await self._create(running, call, journal)
                    self.sums.parts += 1
                    self.sums.submitted += count
                    return
            except MiniLLMError as exc:
                self.failure = self.failure or without_frames(exc)  # which hold the part
                self._control.refused = True
        self.sums.unsent += count

    async def _uploaded(self, group: Group, running: Running, lines: Lines) -> Call:
        """Upload a part, if its vendor wants that, and return the call that makes a batch of it. A file
        without a batch costs nothing.
        """
        vendor, token, file = group.vendor, running.part.token, ""
        upload = vendor.upload(group.model, token, lines)
        if upload is not None:
            data = await group.caller.call(upload, self._control.slept)
            file = vendor.uploaded(data)
        call = vendor.create(group.model, token, lines, file, group.path)
        return replace(call, headers=group.headers, once=True)

    async def _intend(self, running: Running, journal: Journal) -> None:
        """Note that a part may be at its vendor from now on."""
        await journal.intend(replace(running.part, at=time.time()))
        running.part = journal.parts[running.part.token]
        self.running[running.part.token] = running

    async def _create(self, running: Running, call: Call, journal: Journal) -> None:
        """Make the batch of a part whose intent is noted, and note its id."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                data = await running.caller.once(call)
                state = running.vendor.state(running.model, data)
            except MiniLLMError as exc:
                if was_sent(exc):  # it may be there: the list tells
                    running.absent_at = trio.current_time() + self._settings.settle
                    self._control.cut_off(exc)
                    return
                again = attempt < ATTEMPTS and may_pass(exc)
                until = trio.current_time() + wait_before(attempt, exc)
                if again and await self._control.slept(until):
                    continue
                del self.running[running.part.token]
                await journal.absent(running.part)
                raise
            else:
                await journal.found(running.part, state.id)
                self._control.went_through()
                running.state = state
                running.put_off(self._settings.look_every)
                return

    async def _send_back(self, journal: Journal) -> None:
        """Submit requests again of which nothing is at the vendor."""
        if not self._put_back:
            return
        back, self._put_back = self._put_back, []
        for wanted in back:
            await self._add(wanted, journal)
        for group in self._groups.values():
            await self._submit(group, journal)

    # -- while they are at the vendor --------------------------------------------------------------

    async def _next(self, journal: Journal) -> Running | None:
        """Wait until a batch is over, and return it; ``None`` to leave them all."""
        control, longest = self._control, self._settings.look_every
        while self.running and not control.leaving:
            if control.cancelling:
                await self._cancel_all()
            running = min(self.running.values(), key=lambda one: one.look_at)
            if not await control.slept(running.look_at):
                continue
            if running.part.batch is None:
                if await self._is_absent(running, journal):
                    await self._send_back(journal)
            elif await look(running, longest):
                return running
        return None

    async def _is_absent(self, running: Running, journal: Journal) -> bool:
        """Find out which of the vendor's batches a part is. Returns True if it is none."""
        part = running.part
        claimed = {p.batch for p in journal.parts.values() if p.batch} - {part.batch}
        try:
            state, pending = await recognised(running, claimed)
        except MiniLLMError as exc:
            note_failure(running, exc, self._settings.look_every)
            return False
        running.failing_since = None
        if state is not None:
            await journal.found(part, state.id)
            running.look_at = trio.current_time()
        elif pending or trio.current_time() < running.absent_at:
            running.put_off(self._settings.look_every)
            if not pending:
                running.look_at = min(running.look_at, running.absent_at)
        else:
            self._control.raise_after(RESUBMIT)
            await journal.absent(part)
            del self.running[part.token]
            self._put_back += running.wanted.values()
            return True
        return False

    async def _cancel_all(self) -> None:
        """Ask the vendor to cancel each batch, once."""
        for running in self.running.values():
            if running.cancelled or running.part.batch is None:
                continue
            try:
                await running.caller.call(running.vendor.cancel(running.model, running.part.batch))
            except RefusedError as exc:
                if exc.status not in (400, 404, 409):  # it is over already, which a look tells
                    raise
            running.cancelled = True
            running.look_at = trio.current_time()

    # -- results out -------------------------------------------------------------------------------

    async def _read(self, running: Running, journal: Journal) -> AsyncGenerator[BatchResult, None]:
        """Yield the results of a batch that is over, and note its end."""
        part, state = running.part, running.state
        assert state is not None
        if not running.taken:
            await self._not_taken(running, journal)
            return
        reading = Reading()
        async with aclosing(reading.ends(running)) as ends:
            async for place, end in ends:
                wanted = running.wanted.pop(place, None)
                if wanted is None:  # its line is written
                    continue
                if end.reason is not None:
                    self._give_up(wanted, end.reason)
                elif not end.answered and not self._settings.failures:
                    self._give_up(wanted, "errored")
                else:
                    self.sums.results += 1
                    yield await self._answers.result(
                        wanted.request, wanted.index, wanted.sample, end, part.at
                    )
        self.sums.unreadable += reading.unreadable
        self.sums.strange += reading.strange
        for wanted in running.wanted.values():
            self._give_up(wanted, state.reason)
        await journal.ended(part, set(range(len(part.items))) - reading.answered)
        del self.running[part.token]

    async def _not_taken(self, running: Running, journal: Journal) -> None:
        """Note that the vendor has not taken a batch; its requests cost nothing."""
        state, part = running.state, running.part
        assert state is not None
        assert state.failure is not None
        await journal.absent(part)
        del self.running[part.token]
        code, words = state.failure
        others = any(one.part.batch for one in self.running.values())
        if code == FULL and others and not self._control.leaving:
            self._put_back += running.wanted.values()
            return
        words = f"the batch {state.id} was rejected: {running.caller.redacted(words)}"
        body = msgspec.json.encode({"error": {"code": code, "message": words}})
        info = running.model.provider.parse_error(None, body)
        if code == FULL:
            info = replace(info, kind="quota")
        self.failure = self.failure or RefusedError(info)
        gone = list(running.wanted.values())
        if not self.running:  # no other will make room for those that wait for it
            gone, self._put_back = [*self._put_back, *gone], []
        for wanted in gone:
            self._give_up(wanted, "failed")

    def _give_up(self, wanted: Wanted, reason: str) -> None:
        request = replace(wanted.request, samples=(wanted.sample,))
        self.unreturned.append(Unreturned(request, reason))


class Control:
    """The wishes of those outside a run, and the luck of its submissions."""

    def __init__(self) -> None:
        self.leaving = False
        """True to wait for nothing more."""
        self.cancelling = False
        """True to cancel the batches at the vendor."""
        self.refused = False
        """True once the vendor takes no more."""
        self._woken = trio.Event()
        self._cut_off = 0
        self._newest: MiniLLMError | None = None

    @property
    def sending(self) -> bool:
        """True while parts are submitted."""
        return not (self.leaving or self.cancelling or self.refused)

    def leave(self) -> None:
        """Wait for nothing more, and leave the batches to the vendor."""
        self.leaving = True
        self._woken.set()

    def cancel(self) -> None:
        """Cancel the batches at the vendor."""
        self.cancelling = True
        self._woken.set()

    async def slept(self, until: float) -> bool:
        """Sleep until a time, and return False if something else was wished for meanwhile. A
        checkpoint.
        """
        woken = self._woken
        with trio.move_on_at(until):
            await woken.wait()
            self._woken = trio.Event()
            return False
        await trio.lowlevel.checkpoint()
        return True

    def cut_off(self, error: MiniLLMError) -> None:
        """Note that a submission ended without a word from the vendor."""
        self._cut_off += 1
        self._newest = without_frames(error)  # which hold the part

    def went_through(self) -> None:
        """Note that one was taken."""
        self._cut_off = 0

    def raise_after(self, most: int) -> None:
        """Raise the newest error if so many in a row were cut off."""
        if self._newest is not None and self._cut_off >= most:
            raise self._newest


async def _each(requests: Requests) -> AsyncGenerator[BatchRequest, None]:
    """Yield the requests of any iterable. An async generator is closed in any case."""
    if isinstance(requests, AsyncIterable):
        iterator = aiter(requests)
        try:
            async for request in iterator:
                yield request
        finally:
            if isinstance(iterator, AsyncGenerator):
                await iterator.aclose()
        return
    for number, request in enumerate(requests):
        if not number % YIELD_EVERY:
            await trio.lowlevel.checkpoint()
        yield request
