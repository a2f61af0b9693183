"""Soak: ``python benchmarks/soak.py [--seconds 300] [--streams 200]``.

So many streams at once, each against one random fault of a server in a process of its own. Which
outcome a stream must have follows from its number alone, on both sides. It ends with a report, and
with status 1 if an outcome was another, memory grew, or a descriptor, a task, a connection or a
slot was left.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import trio

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm.testing import Reply, ServedRequest, faults, hang

WARM = 0.2
"""Part of the time after which memory is measured first: pools, caches and the ledger's newest
records have grown by then."""
GROWTH_MB = 8.0
"""How much more memory the end may have than the first measure, in MiB; a leak of one stream's
state, 5 KiB, would take more within a minute."""
LONG = 60.0
"""Seconds from which on memory is judged: before that, caches still grow."""
CLOCKS = llm.Timeouts(connect=60.0, first_chunk=60.0, idle=8.0, byte_idle=60.0, usage_grace=0.3)
"""Generous where a slow machine must not be taken for a fault; ``idle`` is one of the faults."""
WRITES = 300
"""In how many writes a body goes out at most."""
SHOWN = 20
"""Wrong outcomes that are listed."""
WORDS = ("a ", "b", "Wort ", "\n", '"quoted" ', "日本 ", "😀", "{}", "x" * 40)


class Scene(NamedTuple):
    """One stream: what the server does, what the caller does, and how it must end."""

    name: str
    wire: str
    reply: Reply
    text: str
    """The whole answer; what arrives is this or a beginning of it."""
    expected: tuple[str, ...]
    """An outcome, or the error's class; more than one where the network decides."""
    whole: bool
    leave: str = ""
    """What the caller does in the middle: "cancel", "leave", "reject", "scope"."""
    slow: float = 0.0
    """Seconds that the caller takes for each chunk."""


def scene(number: int) -> Scene:
    """The same scene for the same number, in both processes."""
    rng = random.Random(number)
    wire = rng.choice(("openai", "anthropic"))
    deltas = [rng.choice(WORDS) for _ in range(rng.randrange(4, 60))]
    make = testing.openai_events if wire == "openai" else testing.anthropic_events
    reply = testing.reply(*make(*deltas))
    text = "".join(deltas)
    name = rng.choice(list(_SCENES))
    changed, expected, whole = _SCENES[name](reply, rng)
    if rng.random() < 0.5:
        size = sum(len(step) for step in reply.steps if isinstance(step, bytes))
        # Not in too many writes: the server is one process, and a slow one is another fault.
        changed = changed | faults.split(every=max(rng.choice((1, 7, 50, 333)), size // WRITES))
    leave = ""
    if name == "hang" or (name == "slowly" and rng.random() < 0.5):
        leave = rng.choice(("cancel", "leave", "reject", "scope"))
        # What had come by then counts, and that can be the end.
        expected, whole = ("cancelled",) if name == "hang" else ("cancelled", "finished"), False
    slow = 0.002 if rng.random() < 0.1 else 0.0
    return Scene(name, wire, changed, text, expected, whole, leave, slow)


Result = tuple[Reply, tuple[str, ...], bool]
_FINISHED = ("finished",)
_CUT = ("ConnectionCut",)


def _middle(reply: Reply, rng: random.Random) -> int:
    """A place in the body behind some of the text and well before its end."""
    steps = [s for s in reply.steps if isinstance(s, bytes)]
    return sum(map(len, steps[:3])) + rng.randrange(1, len(steps[3]))


def _plain(reply: Reply, rng: random.Random) -> Result:
    return reply, _FINISHED, True


def _slowly(reply: Reply, rng: random.Random) -> Result:
    steps = [s for step in reply.steps for s in (step, rng.choice((0.0, 0.01, 0.05)))]
    return testing.reply(*steps), _FINISHED, True


def _framed(reply: Reply, rng: random.Random) -> Result:
    how = rng.choice((faults.framing("length"), faults.framing("close"), faults.closing()))
    return reply | how, _FINISHED, True


def _no_usage(reply: Reply, rng: random.Random) -> Result:
    """What comes behind the reason is missing, and the connection stays open."""
    end = next(i for i, s in enumerate(reply.steps) if isinstance(s, bytes) and _REASON(s))
    return testing.reply(*reply.steps[: end + 1], hang), _FINISHED, True


def _REASON(event: bytes) -> bool:  # noqa: N802
    return b'"finish_reason":"stop"' in event or b'"stop_reason":"end_turn"' in event


def _cut(reply: Reply, rng: random.Random) -> Result:
    return reply | faults.cut(_middle(reply, rng)), _CUT, False


def _early(reply: Reply, rng: random.Random) -> Result:
    return testing.reply(*reply.steps[:3]), ("EndedEarly",), False


def _reset(reply: Reply, rng: random.Random) -> Result:
    # A reset destroys what the peer has not read, up to all of it.
    return reply | faults.cut(_middle(reply, rng), "reset"), ("ConnectionCut", "SendError"), False


def _silent(reply: Reply, rng: random.Random) -> Result:
    return reply | faults.stall(_middle(reply, rng)), ("StreamTimeout",), False


def _drip(reply: Reply, rng: random.Random) -> Result:
    """Keep-alives without end must not keep it alive."""
    return (
        testing.reply(*reply.steps[:3], testing.forever(b": ping\n\n", 0.5)),
        ("StreamTimeout",),
        False,
    )


def _error(reply: Reply, rng: random.Random) -> Result:
    data = {"type": "error", "error": {"type": "api_error", "message": "no", "code": 500}}
    return testing.reply(*reply.steps[:3], testing.sse(data, "error")), ("ProviderError",), False


def _malformed(reply: Reply, rng: random.Random) -> Result:
    bad = rng.choice((b"data: {\n\n", b"data: [1]\n\n", b"data: \xff\n\n", b'data: {"id":\n\n'))
    return testing.reply(*reply.steps[:3], bad, *reply.steps[3:]), ("ProtocolError",), False


def _refused(reply: Reply, rng: random.Random) -> Result:
    return (
        reply | faults.status(rng.choice((400, 401, 404, 429, 500, 503))),
        ("RefusedError",),
        False,
    )


def _gone(reply: Reply, rng: random.Random) -> Result:
    return testing.reply(error=OSError("gone")), ("SendError",), False


def _hang(reply: Reply, rng: random.Random) -> Result:
    return testing.reply(*reply.steps[:3], hang), ("cancelled",), False


_SCENES: dict[str, Callable[[Reply, random.Random], Result]] = {
    **{f"plain {i}": _plain for i in range(4)},
    "slowly": _slowly,
    "framed": _framed,
    "no usage": _no_usage,
    "cut": _cut,
    "early": _early,
    "reset": _reset,
    "silent": _silent,
    "drip": _drip,
    "error": _error,
    "malformed": _malformed,
    "refused": _refused,
    "gone": _gone,
    "hang": _hang,
}


# -- the server ----------------------------------------------------------------------------------


def serve() -> None:
    """The server's process: it says its port, and ends with its standard input."""

    def answer(request: ServedRequest) -> Reply:
        content = request.json()["messages"][0]["content"]
        return scene(int(content if isinstance(content, str) else content[0]["text"])).reply

    async def main() -> None:
        async with testing.serve(answer) as server:
            print(server.port, flush=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(forget, server)
                await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
                nursery.cancel_scope.cancel()

    async def forget(server: testing.LoopbackServer) -> None:
        while True:
            await trio.sleep(1.0)
            server.requests.clear()

    trio.run(main)


# -- the client ----------------------------------------------------------------------------------


class Soak:
    """Streams without end, and what became of them."""

    def __init__(self, base_url: str, seed: int) -> None:
        self.models = {
            "openai": llm.compatible("m", base_url=base_url),
            "anthropic": llm.anthropic("m", base_url=base_url.removesuffix("/v1"), api_key="k"),
        }
        self.numbers = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.count = 0

    async def worker(self, client: llm.Client, until: float) -> None:
        while trio.current_time() < until:
            number = self.numbers.randrange(2**40)
            planned = scene(number)
            try:
                got, text = await self.one(client, number, planned)
            except Exception as exc:
                got, text = f"foreign {type(exc).__name__}: {exc}", ""
            self.count += 1
            self.done[f"{planned.name.split()[0]}: {got}"] += 1
            fits = text == planned.text if planned.whole else planned.text.startswith(text)
            if got not in planned.expected or not fits:
                self.wrong.append(f"{number} {planned.name} ({planned.wire}): {got}, text {fits}")

    async def one(self, client: llm.Client, number: int, planned: Scene) -> tuple[str, str]:
        """The outcome, or the class of the error, and the text."""
        model = self.models[planned.wire]
        scope = trio.CancelScope()
        stream = client.stream(model, str(number), timeouts=CLOCKS, retry=llm.Retry(attempts=1))
        try:
            with scope:
                async with stream:
                    async for _ in stream:
                        if planned.slow:
                            await trio.sleep(planned.slow)
                        if planned.leave and stream.accumulated:
                            if planned.leave == "leave":
                                break
                            if planned.leave == "cancel":
                                await stream.cancel()
                            elif planned.leave == "reject":
                                stream.reject()
                            else:
                                scope.cancel()
        except llm.MiniLLMError as exc:
            assert exc.partial is not None  # noqa: PT017
            return type(exc).__name__, exc.partial.content
        assert stream.outcome is not None
        return stream.outcome.value, stream.response.content


class Measure(NamedTuple):
    """What the process holds."""

    rss_mb: float
    fds: int
    tasks: int

    @classmethod
    def now(cls) -> Measure:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        rss = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        fds = len(list(Path("/proc/self/fd").iterdir()))
        return cls(rss, fds, trio.lowlevel.current_statistics().tasks_living)


async def soak(base_url: str, seconds: float, streams: int, seed: int) -> int:
    work = Soak(base_url, seed)
    before = Measure.now()
    transport = llm.TrioTransport()
    measures: list[Measure] = []
    began = trio.current_time()
    async with llm.open_client(transport=transport) as client, trio.open_nursery() as nursery:
        for _ in range(streams):
            nursery.start_soon(work.worker, client, began + seconds)
        await trio.sleep(seconds * WARM)
        measures.append(Measure.now())
        await trio.sleep(seconds * (1 - WARM))
        measures.append(Measure.now())
    pool = transport.statistics()
    await transport.aclose()
    client = None  # type: ignore[assignment]
    after = Measure.now()
    problems = _problems(work, seconds, before, measures, after, pool)
    _report(work, seconds, measures, after, pool)
    for problem in problems:
        print("PROBLEM:", problem)
    return 1 if problems else 0


def _problems(
    work: Soak, seconds: float, before: Measure, measures: list[Measure], after: Measure, pool: Any
) -> list[str]:
    found = [f"wrong outcome: {one}" for one in work.wrong[:SHOWN]]
    grown = measures[1].rss_mb - measures[0].rss_mb
    if grown > GROWTH_MB and seconds >= LONG:
        found.append(f"memory grew by {grown:.1f} MiB")
    if after.fds > before.fds:
        found.append(f"{after.fds - before.fds} descriptors are left")
    if after.tasks > before.tasks:
        found.append(f"{after.tasks - before.tasks} tasks are left")
    if pool.active or pool.waiting:
        found.append(f"the pool still counts {pool.active} in use and {pool.waiting} waiting")
    if not work.count:
        found.append("no stream came to its end")
    return found


def _report(work: Soak, seconds: float, measures: list[Measure], after: Measure, pool: Any) -> None:
    for name, count in sorted(work.done.items()):
        print(f"  {count:8,}  {name}")
    print(f"{work.count:,} streams in {seconds:g} s, {len(work.wrong)} with another outcome")
    warm, end = measures
    print(f"memory: {warm.rss_mb:.1f} MiB at {WARM:.0%}, {end.rss_mb:.1f} at the end")
    print(
        f"connections: {pool.opened:,} opened, {pool.reused:,} times reused, {pool.active} in use"
    )
    print(f"left after the end: {after.fds} descriptors, {after.tasks} tasks (Trio's own)")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="to see a run's streams again")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve()
        return 0
    seed = given.seed if given.seed is not None else int(time.time())
    command = [sys.executable, __file__, "--serve"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        print(f"{given.streams} streams at once for {given.seconds:g} s, seed {seed}", flush=True)
        base_url = f"http://127.0.0.1:{port}/v1"
        return trio.run(soak, base_url, given.seconds, given.streams, seed)
    finally:
        server.communicate("")


if __name__ == "__main__":
    sys.exit(main())
