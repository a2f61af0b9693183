"""Tools for tests of programs that stream: scripted servers, faults, recordings, contract checks.

A `ScriptedTransport` answers every request from a script, in memory and on Trio's clock, so
tests run on `trio.testing.MockClock` without a real second passing::

    transport = testing.ScriptedTransport(testing.reply(*testing.openai_events("Hi", " you")))
    async with llm.open_client(transport=transport) as client:
        response = await client.complete(testing.model(), "Hello")
    assert response.text == "Hi you"

`serve` plays the same script over a real loopback socket. `faults` break it in every known way.
`record` and `replay` store and repeat what a real server sent. `check_provider`, `check_transport`,
and `check_stream` check that an implementation keeps its contract.
"""

from typing import TYPE_CHECKING

from .._types.later import loader
from . import faults
from ._answer_parts import AnswerPart, reasoning, tool_call
from ._check_stream import check_stream
from ._events import answer, decode, json_reply, model, resumable, settlement
from ._loopback_connection import Connection
from ._loopback_server import LoopbackServer, serve
from ._replay import replay
from ._responses_answers import responses_events
from ._script import (
    Reply,
    ReplyFunction,
    ServedRequest,
    eof,
    forever,
    half_close,
    hang,
    raw,
    reply,
    reset,
    wire,
)
from ._wire_answers import (
    anthropic_events,
    gemini_events,
    openai_events,
    sse,
    text_events,
)

if TYPE_CHECKING:
    from ._check_provider import check_provider
    from ._check_transport import check_transport
    from ._recording import Recording, record
    from ._scripted_transport import ScriptedTransport
else:
    # These import httpx, which the command ``serve`` and its like have no use for.
    _LATER = {
        "Recording": "_recording",
        "ScriptedTransport": "_scripted_transport",
        "check_provider": "_check_provider",
        "check_transport": "_check_transport",
        "record": "_recording",
    }

    __getattr__, __dir__ = loader(__name__, _LATER)


__all__ = [
    "AnswerPart",
    "Connection",
    "LoopbackServer",
    "Recording",
    "Reply",
    "ReplyFunction",
    "ScriptedTransport",
    "ServedRequest",
    "answer",
    "anthropic_events",
    "check_provider",
    "check_stream",
    "check_transport",
    "decode",
    "eof",
    "faults",
    "forever",
    "gemini_events",
    "half_close",
    "hang",
    "json_reply",
    "model",
    "openai_events",
    "raw",
    "reasoning",
    "record",
    "replay",
    "reply",
    "reset",
    "responses_events",
    "resumable",
    "serve",
    "settlement",
    "sse",
    "text_events",
    "tool_call",
    "wire",
]
