"""Looks at the batches of a run: their states, and which of a vendor's batches a part is."""

from __future__ import annotations

from collections.abc import Set
from contextlib import aclosing

import trio

from .._types.errors import MiniLLMError, ProtocolError, RefusedError
from .calls import may_pass, wait_before
from .errors import VendorBatchError
from .parts import Running
from .vendors import BatchState

SLACK = 86_400.0
"""Seconds by which this machine's clock may have been ahead of a vendor's: a clock that was set to another
time zone's is ahead by hours, and a batch that is taken for an older one is paid for twice."""
MAX_PAGES = 100
"""Pages of a hundred batches that are looked through for one."""
PATIENCE = 3600.0
"""Seconds for which looks may fail in a row before that ends the run."""
UNNAMED = 5
"""Looks at a batch that is over and whose file of results is not named yet."""


async def look(running: Running, longest: float) -> bool:
    """Look at a batch, and return whether it is over. The next look is put off, by ``longest`` at most.

    Raises the error that says that no further look can succeed.
    """
    assert running.part.batch is not None
    call = running.vendor.look(running.model, running.part.batch)
    try:
        state = running.vendor.state(running.model, await running.caller.once(call))
    except MiniLLMError as exc:
        note_failure(running, exc, longest)
        return False
    if running.failing_since is not None or (
        running.state is not None and state.done > running.state.done
    ):
        running.failing_since, running.looks = None, 0
    running.state = state
    if state.awaited and running.looks < UNNAMED:
        running.looks += 1
        running.put_off(longest)
        return False
    if not state.over:
        running.put_off(longest)
    return state.over


def note_failure(running: Running, error: MiniLLMError, longest: float) -> None:
    """Put the next look off after one that failed, or raise the error if no look can succeed."""
    now = trio.current_time()
    if running.failing_since is None:
        running.failing_since, running.looks = now, 0
    if running.part.batch and isinstance(error, RefusedError) and error.status == 404:
        raise VendorBatchError(
            f"the vendor does not know the batch {running.part.batch} of this run: it belongs to another"
            f" key, or was deleted ({error})"
        ) from error
    passing = may_pass(error) or isinstance(error, ProtocolError)
    if not passing or now - running.failing_since > PATIENCE:
        raise error
    running.looks += 1
    running.look_at = now + max(min(running.wait, longest), wait_before(running.looks, error))


async def recognised(running: Running, claimed: Set[str]) -> tuple[BatchState | None, bool]:
    """Return the batch that a part is, and whether one that is not over yet may still be it.

    ``claimed`` are the batches of other parts. Where the vendor keeps our token, that decides. Elsewhere
    a batch of that time and size is looked into once it is over: the ids in its results have the token.
    """
    part, vendor = running.part, running.vendor
    since, after = part.at - SLACK, None
    likely: list[BatchState] = []
    asked: set[str | None] = set()
    while after not in asked and len(asked) < MAX_PAGES:
        asked.add(after)
        data = await running.caller.call(vendor.newest(running.model, after))
        states, after = vendor.listed(running.model, data)
        for state in states:
            if vendor.marks and state.token == part.token:
                return state, False
            if state.id not in claimed and _alike(running, state, since):
                likely.append(state)
        if after is None or _all_older(states, since):
            break
    else:
        raise VendorBatchError(
            "the vendor's list of batches has no end: one of this run is not found"
        )
    for state in likely:
        if state.over and await _holds(running, state):
            return state, False
    return None, any(not state.over for state in likely)


def _all_older(states: list[BatchState], since: float) -> bool:
    """Return True if what follows on a list is older, too: it shows that it has the newest first."""
    first, last = (states[place].created for place in (0, -1))
    return last is not None and last < since and (first is None or first > last)


def _alike(running: Running, state: BatchState, since: float) -> bool:
    """Return True if a batch without a token may be a part, as far as its state tells."""
    return (
        not running.vendor.marks
        and state.id not in running.strangers
        and (state.created or 0.0) >= since
        and state.total == len(running.part.items)
    )


async def _holds(running: Running, state: BatchState) -> bool:
    """Return True if the results of a batch are those of a part."""
    for url in state.results:
        async with aclosing(running.caller.lines(url)) as lines:
            async for line in lines:
                if running.part.place_of(running.vendor.item(line).id) is not None:
                    return True
                break
    running.strangers.add(state.id)
    return False
