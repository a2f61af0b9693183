"""The scenes of the soak: one per stream, each with a fault and the outcome that it must have."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm.testing import Reply, faults, hang

WRITES = 300
"""Most writes in which a body is sent."""
WORDS = ("a ", "b", "Wort ", "\n", '"quoted" ', "日本 ", "😀", "{}", "x" * 40)


class Wire(NamedTuple):
    """A wire format: its models, its events, and where they and its requests have what."""

    model: Callable[[str], llm.Model]
    """Function from the server's address to a model."""
    events: Callable[..., list[bytes]]
    begun: int
    """Number of events with which some text has come, of the shortest answer."""
    prompt: Callable[[Any], str]
    """Function from the body of a request to the prompt in it."""


def _said(turn: Any) -> str:
    content = turn["content"]
    return content if isinstance(content, str) else content[0]["text"]


def _first(body: Any) -> str:
    return _said(body["messages"][0])


WIRES = {
    "openai": Wire(
        lambda url: llm.compatible("m", base_url=f"{url}/v1"), testing.openai_events, 3, _first
    ),
    "anthropic": Wire(
        lambda url: llm.anthropic("m", base_url=url, api_key="k"),
        testing.anthropic_events,
        3,
        _first,
    ),
    "openai-responses": Wire(
        lambda url: llm.openai_responses("m", base_url=f"{url}/v1", api_key="k"),
        testing.responses_events,
        5,
        lambda body: _said(body["input"][0]),
    ),
    "gemini": Wire(
        lambda url: llm.gemini("m", base_url=url, api_key="k"),
        testing.gemini_events,
        2,
        lambda body: body["contents"][0]["parts"][0]["text"],
    ),
    "text": Wire(
        lambda url: llm.text_completions("m", base_url=f"{url}/v1", api_key="k"),
        testing.text_events,
        2,
        lambda body: body["prompt"],
    ),
}


def prompt_of(body: Any) -> str:
    """Return the prompt of a request on any wire: a field that it has tells which it is."""
    kinds = {"input": "openai-responses", "contents": "gemini", "prompt": "text"}
    kind = next((kind for field, kind in kinds.items() if field in body), "openai")
    return WIRES[kind].prompt(body)


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
    wire = rng.choice(list(WIRES))
    deltas = [rng.choice(WORDS) for _ in range(rng.randrange(4, 60))]
    reply = testing.reply(*WIRES[wire].events(*deltas))
    text = "".join(deltas)
    name = rng.choice(list(_SCENES))
    changed, expected, whole = _SCENES[name](reply, WIRES[wire].begun, rng)
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


def _middle(reply: Reply, begun: int, rng: random.Random) -> int:
    """Return a position in the body after some of the text and well before its end."""
    steps = [s for s in reply.steps if isinstance(s, bytes)]
    return sum(map(len, steps[:begun])) + rng.randrange(1, len(steps[begun]))


def _plain(reply: Reply, begun: int, rng: random.Random) -> Result:
    return reply, _FINISHED, True


def _slowly(reply: Reply, begun: int, rng: random.Random) -> Result:
    steps = [s for step in reply.steps for s in (step, rng.choice((0.0, 0.01, 0.05)))]
    return testing.reply(*steps), _FINISHED, True


def _framed(reply: Reply, begun: int, rng: random.Random) -> Result:
    how = rng.choice((faults.framing("length"), faults.framing("close"), faults.closing()))
    return reply | how, _FINISHED, True


def _no_usage(reply: Reply, begun: int, rng: random.Random) -> Result:
    """Leave out everything after the finish reason, and keep the connection open."""
    end = next(i for i, s in enumerate(reply.steps) if isinstance(s, bytes) and _has_reason(s))
    return testing.reply(*reply.steps[: end + 1], hang), _FINISHED, True


def _has_reason(event: bytes) -> bool:
    return any(reason in event for reason in _REASONS)


_REASONS = (
    b'"finish_reason":"stop"',
    b'"stop_reason":"end_turn"',
    b'"type":"response.completed"',
    b'"finishReason":"STOP"',
)


def _cut(reply: Reply, begun: int, rng: random.Random) -> Result:
    return reply | faults.cut(_middle(reply, begun, rng)), _CUT, False


def _early(reply: Reply, begun: int, rng: random.Random) -> Result:
    return testing.reply(*reply.steps[:begun]), ("EndedEarly",), False


def _reset(reply: Reply, begun: int, rng: random.Random) -> Result:
    # A reset destroys what the peer has not read yet, which may be everything.
    return (
        reply | faults.cut(_middle(reply, begun, rng), "reset"),
        ("ConnectionCut", "SendError"),
        False,
    )


def _silent(reply: Reply, begun: int, rng: random.Random) -> Result:
    return reply | faults.stall(_middle(reply, begun, rng)), ("StreamTimeout",), False


def _drip(reply: Reply, begun: int, rng: random.Random) -> Result:
    """Send keep-alives without end, which must not keep the stream alive."""
    return (
        testing.reply(*reply.steps[:begun], testing.forever(b": ping\n\n", 0.5)),
        ("StreamTimeout",),
        False,
    )


def _error(reply: Reply, begun: int, rng: random.Random) -> Result:
    data = {"type": "error", "error": {"type": "api_error", "message": "no", "code": 500}}
    return (
        testing.reply(*reply.steps[:begun], testing.sse(data, "error")),
        ("ProviderError",),
        False,
    )


def _malformed(reply: Reply, begun: int, rng: random.Random) -> Result:
    bad = rng.choice((b"data: {\n\n", b"data: [{]\n\n", b"data: {\xff\n\n", b'data: {"id":\n\n'))
    return testing.reply(*reply.steps[:begun], bad, *reply.steps[begun:]), ("ProtocolError",), False


def _refused(reply: Reply, begun: int, rng: random.Random) -> Result:
    return (
        reply | faults.status(rng.choice((400, 401, 404, 429, 500, 503))),
        ("RefusedError",),
        False,
    )


def _gone(reply: Reply, begun: int, rng: random.Random) -> Result:
    return testing.reply(error=OSError("gone")), ("SendError",), False


def _hang(reply: Reply, begun: int, rng: random.Random) -> Result:
    return testing.reply(*reply.steps[:begun], hang), ("cancelled",), False


_SCENES: dict[str, Callable[[Reply, int, random.Random], Result]] = {
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
