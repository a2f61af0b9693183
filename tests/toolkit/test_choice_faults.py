"""Every fault of docs/proof/reliability.md against a choice of models: alone in it, as the first, as the second.

What an ordinary stream makes of the fault is the measure. A choice of one model must not differ from it
at all. With a second model, that is asked exactly if nothing of an answer had come.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import pytest
import trio

import trio_minillm as llm
from trio_minillm._types.chunks import has_content
from trio_minillm.testing import Reply, ScriptedTransport, ServedRequest, reply

from ..support.promises import WHOLE, Promise, Wire, wire_named
from ..support.promises_endings import ENDINGS
from ..support.promises_events import EVENTS
from ..support.promises_newer import NEWER
from ..support.runs import IN_MEMORY, run

PROMISES = (*ENDINGS, *EVENTS, *NEWER)
WIRES = {name: wire_named(name) for name in ("openai", "anthropic", "openai_responses", "gemini")}
LATE = 3.0
"""Seconds after which the slower of two models answers."""
RETRY = llm.Retry(base_delay=0.0)
ABSENT = (404, 405, 410)


def cells() -> list[Any]:
    """Every promise once: on the first wire that has it, in one of its ways."""
    out = []
    for number, promise in enumerate(PROMISES):
        names = [name for name, wire in WIRES.items() if promise.replies(wire) is not None]
        for name in names[:1]:
            way = promise.ways[number % len(promise.ways)]
            out.append(pytest.param(promise, name, way, id=f"{number}-{name}-{way}"))
    return out


CELLS = cells()
WATCHED = [cell for cell in CELLS if "iterate" in cell.values[0].ways]


class Seen(NamedTuple):
    response: llm.CompletionResponse
    error: str
    kind: str
    text: str
    records: list[tuple[Any, ...]]
    first: float | None
    """Seconds until the first content, from the call on."""
    seconds: float

    @property
    def began(self) -> bool:
        """Part of an answer had come."""
        return any(choice.parts for choice in self.response.choices)

    @property
    def lawful(self) -> bool:
        """The failure is the request's own, so that no other model is asked."""
        return self.kind == "invalid"


def scripted(**replies: list[Reply]) -> ScriptedTransport:
    """A transport that answers each model with replies of its own, in turn; the last again."""
    asked = dict.fromkeys(replies, 0)

    def answer(request: ServedRequest) -> Reply:
        name = request.path.split("/")[1]
        mine = replies[name]
        asked[name] += 1
        return mine[min(asked[name], len(mine)) - 1]

    return ScriptedTransport(answer)


def model_named(wire: Wire, name: str) -> llm.Model:
    return msgspec.structs.replace(wire.model(f"http://test.invalid/{name}/v1"), name=name)


async def taken(client: llm.Client, model: Any, promise: Promise, way: str) -> Seen:
    options: dict[str, Any] = {"max_tokens": 99, **promise.options}
    options["timeouts"] = msgspec.structs.replace(promise.timeouts, settlement=None)
    start, text, error, first = trio.current_time(), "", None, None
    before = client.ledger.attempts
    if way == "complete":
        try:
            response: Any = await client.complete(model, "Hi", **options)
        except llm.MiniLLMError as exc:
            error, response = exc, exc.partial
        text = response.content
    else:
        async with client.stream(model, "Hi", **options) as stream:
            try:
                async for chunk in stream:
                    if first is None and has_content(chunk):
                        first = trio.current_time() - start
                    text += chunk.delta if chunk.choice == 0 else ""
            except llm.MiniLLMError as exc:
                error = exc
            assert await stream.next_chunk() is None
            assert stream.error is error
            response = stream.response
            assert sorted(text) == sorted(stream.accumulated) == sorted(response.content)
            assert stream.outcome is response.outcome
            if error is not None:
                with pytest.raises(type(error)):
                    await stream.collect()
    seconds = trio.current_time() - start
    made = client.ledger.attempts - before
    records = [r for r in client.ledger.recent[-made:] if made]
    last = error.last_error if isinstance(error, llm.RetriesExhausted) else error
    kind = getattr(last, "kind", "")
    if getattr(last, "status", None) in ABSENT:
        kind = "not_found"
    return Seen(
        msgspec.structs.replace(response, timings=plain(response.timings)),
        f"{type(error).__name__}: {error}",
        kind,
        text,
        [(r.model, r.outcome, r.error, r.attempt, r.usage, r.booked) for r in records],
        first,
        seconds,
    )


def plain(timings: llm.Timings) -> llm.Timings:
    """Without what depends on how far ahead was read, and on which task did it."""
    return msgspec.structs.replace(timings, headers=None, total=None, bytes=0)


def outcome_of(promise: Promise, model: Any, way: str, **replies: list[Reply]) -> Seen:
    transport = scripted(**replies)

    async def main() -> Seen:
        async with llm.open_client(transport=transport, retry=RETRY) as client:
            found = await taken(client, model, promise, way)
            assert len({record.key for record in client.ledger.recent}) == client.ledger.attempts
            return found

    found: Seen = run(main, IN_MEMORY)
    assert transport.open_bodies == 0
    return found


def tries_of(promise: Promise, wire: Wire) -> list[Reply]:
    """The replies to the attempts of one call, as in the table."""
    replies, wanted = promise.replies(wire), promise.sees(wire)
    assert replies is not None
    requests = max(wanted.tries + wanted.resumes, len(replies))
    return [replies[min(n, len(replies) - 1)] for n in range(requests)]


def without(seen: Seen) -> tuple[Any, ...]:
    """All that must be the same for another model of the same wire."""
    timings = msgspec.structs.replace(seen.response.timings, attempts=0)
    return (msgspec.structs.replace(seen.response, timings=timings), seen.error, seen.text)


@pytest.mark.parametrize(("promise", "name", "way"), CELLS)
def test_alone_in_a_choice(promise: Promise, name: str, way: str) -> None:
    wire = WIRES[name]
    a = model_named(wire, "m")
    tries = tries_of(promise, wire)
    ordinary = outcome_of(promise, a, way, m=tries)
    chosen = outcome_of(promise, llm.fallback(a), way, m=tries)
    assert chosen == ordinary


@pytest.mark.parametrize(("promise", "name", "way"), CELLS)
def test_before_a_second_model(promise: Promise, name: str, way: str) -> None:
    wire = WIRES[name]
    a, b = model_named(wire, "m"), model_named(wire, "b")
    tries = tries_of(promise, wire)
    ordinary = outcome_of(promise, a, way, m=tries)
    chosen = outcome_of(promise, llm.fallback(a, b), way, m=tries, b=[reply(*wire.whole)])
    finished = ordinary.response.outcome is llm.Outcome.FINISHED
    if finished or ordinary.began or ordinary.lawful:
        assert chosen == ordinary
        return
    assert chosen.response.outcome is llm.Outcome.FINISHED
    assert chosen.text == WHOLE
    assert chosen.records[:-1] == ordinary.records
    assert chosen.records[-1][:4] == ("b", "finished", None, len(chosen.records))


@pytest.mark.parametrize(("promise", "name", "way"), WATCHED)
def test_as_the_second_beside_one_that_is_late(promise: Promise, name: str, way: str) -> None:
    wire = WIRES[name]
    a, b = model_named(wire, "a"), model_named(wire, "m")
    tries = tries_of(promise, wire)
    limits = [promise.timeouts.first_chunk, promise.timeouts.total]
    if any(isinstance(limit, int | float) and limit <= LATE + 1 for limit in limits):
        pytest.skip("the clocks of this one leave the first no time")
    ordinary = outcome_of(promise, b, "iterate", m=tries)
    chosen = outcome_of(
        promise,
        llm.first_of(a, b, after=1.0),
        "iterate",
        m=tries,
        a=[reply(LATE, *wire.whole)],
    )
    finished = ordinary.response.outcome is llm.Outcome.FINISHED
    begins = ordinary.first if ordinary.first is not None else ordinary.seconds
    if (ordinary.began or finished) and begins + 1 < LATE:
        assert without(chosen) == without(ordinary)
        assert ("a", "cancelled") in [record[:2] for record in chosen.records]
    else:
        assert chosen.text == WHOLE
        assert ("a", "finished") in [record[:2] for record in chosen.records]
