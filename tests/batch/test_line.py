"""The line in which tasks wait for their turn."""

import trio

from trio_minillm._batch import line as _line
from trio_minillm._batch.line import Line


async def test_the_longest_waiting_go_on_first_and_who_left_has_no_turn():
    line, gone_on = Line(), []

    async def wait(name, scope):
        with scope:
            await line.wait()
            gone_on.append(name)

    async with trio.open_nursery() as nursery:
        scopes = [trio.CancelScope() for _ in range(5)]
        for name, scope in enumerate(scopes):
            nursery.start_soon(wait, name, scope)
            await trio.testing.wait_all_tasks_blocked()
        scopes[1].cancel()
        await trio.testing.wait_all_tasks_blocked()
        line.wake(2)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(gone_on) == [0, 2]  # Trio shuffles those that go on at once
        line.wake(9)
        assert not line
    assert sorted(gone_on) == [0, 2, 3, 4]


async def test_leaving_takes_no_search(monkeypatch):
    """A batch that is left cancels as many idle workers as it has, in one step of Trio's loop."""

    class Waiting:
        __hash__ = object.__hash__

        def __eq__(self, other):
            compared.append(other)
            return self is other

    async def keep(abort):
        aborts.append(abort)

    aborts, compared = [], []
    monkeypatch.setattr(_line, "current_task", Waiting)
    monkeypatch.setattr(_line, "wait_task_rescheduled", keep)
    line = Line()
    for _ in range(100):
        await line.wait()
    for abort in reversed(aborts):
        abort(None)
    assert not line
    assert compared == []
