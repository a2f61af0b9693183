"""The scenes of the soak: one per stream, each with a fault and the outcome that it must have."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from trio_minillm import testing
from trio_minillm.testing import Reply, faults, hang

WRITES = 300
"""Most writes in which a body is sent."""
WORDS = ("a ", "b", "Wort ", "\n", '"quoted" ', "日本 ", "😀", "{}", "x" * 40)


class Scene(NamedTuple):
    """The script of one stream: the server's part, the caller's part, and how it must end."""

    name: str
    wire: str
    reply: Reply
    text: str
    """The whole answer; the text that arrives must be a beginning of it."""
    expected: tuple[str, ...]
    """Outcomes and classes of errors that are right; several where timing decides."""
    whole: bool
    """True if all of the text must arrive."""
    leave: str = ""
    """The caller's way of leaving in the middle: "cancel", "leave", "reject", "scope", or none."""
    slow: float = 0.0
    """Seconds that the caller takes for each chunk."""


def scene(number: int) -> Scene:
    """Return the scene of a number: the same in both processes."""
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
        # Not in too many writes: the server is one process, and a slow server is another fault.
        changed = changed | faults.split(every=max(rng.choice((1, 7, 50, 333)), size // WRITES))
    leave = ""
    if name == "hang" or (name == "slowly" and rng.random() < 0.5):
        leave = rng.choice(("cancel", "leave", "reject", "scope"))
        # What had arrived by then counts, and that can include the end.
        expected, whole = ("cancelled",) if name == "hang" else ("cancelled", "finished"), False
    slow = 0.002 if rng.random() < 0.1 else 0.0
    return Scene(name, wire, changed, text, expected, whole, leave, slow)


Result = tuple[Reply, tuple[str, ...], bool]
_FINISHED = ("finished",)
_CUT = ("ConnectionCut",)


def _middle(reply: Reply, rng: random.Random) -> int:
    """Return a position in the body after some of the text and well before its end."""
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
    """Leave out everything after the finish reason, and keep the connection open."""
    end = next(i for i, s in enumerate(reply.steps) if isinstance(s, bytes) and _has_reason(s))
    return testing.reply(*reply.steps[: end + 1], hang), _FINISHED, True


def _has_reason(event: bytes) -> bool:
    return b'"finish_reason":"stop"' in event or b'"stop_reason":"end_turn"' in event


def _cut(reply: Reply, rng: random.Random) -> Result:
    return reply | faults.cut(_middle(reply, rng)), _CUT, False


def _early(reply: Reply, rng: random.Random) -> Result:
    return testing.reply(*reply.steps[:3]), ("EndedEarly",), False


def _reset(reply: Reply, rng: random.Random) -> Result:
    # A reset destroys what the peer has not read yet, which may be everything.
    return reply | faults.cut(_middle(reply, rng), "reset"), ("ConnectionCut", "SendError"), False


def _silent(reply: Reply, rng: random.Random) -> Result:
    return reply | faults.stall(_middle(reply, rng)), ("StreamTimeout",), False


def _drip(reply: Reply, rng: random.Random) -> Result:
    """Send keep-alives without end, which must not keep the stream alive."""
    return (
        testing.reply(*reply.steps[:3], testing.forever(b": ping\n\n", 0.5)),
        ("StreamTimeout",),
        False,
    )


def _error(reply: Reply, rng: random.Random) -> Result:
    data = {"type": "error", "error": {"type": "api_error", "message": "no", "code": 500}}
    return testing.reply(*reply.steps[:3], testing.sse(data, "error")), ("ProviderError",), False


def _malformed(reply: Reply, rng: random.Random) -> Result:
    bad = rng.choice((b"data: {\n\n", b"data: [{]\n\n", b"data: {\xff\n\n", b'data: {"id":\n\n'))
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
