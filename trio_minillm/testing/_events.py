"""Replies with a whole answer, and the decoding of a body."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from .._protocol.decoder import ChunkDecoder
from .._protocol.ingest import Ingest
from .._types.checks import check_option
from .._types.errors import EndedEarly, MiniLLMError
from .._types.response import CompletionResponse
from .._types.usage import Usage
from ..providers import Model, Provider
from ..providers._models import compatible
from ._answer_parts import AnswerPart, Blocks, Finish, check_finish
from ._responses_answers import responses_answer, responses_body
from ._script import Reply, ReplyFunction, ServedRequest, reply
from ._wire_answers import (
    anthropic_body,
    anthropic_events,
    gemini_body,
    gemini_events,
    openai_body,
    openai_events,
    text_body,
    text_events,
)


def resumable(*events: bytes) -> ReplyFunction:
    """Return a reply function for a response in the background with these events, which it numbers.

    A request for the response gets all events, and a request that resumes it gets the remaining
    ones. Use a fault to cut the first reply: ``serve(resumable(*events) | faults.cut(-20),
    resumable(*events))``.
    """

    def choose(request: ServedRequest) -> Reply:
        after = request.resumes
        if after is None:
            return reply(*events)
        return reply(*(event for event in events if _number_of(event) > after))

    return ReplyFunction(choose)


def _number_of(event: bytes) -> int:
    data = event.rpartition(b"data: ")[2]
    number: int = msgspec.json.decode(data)["sequence_number"]
    return number


def decode(
    provider: Provider, pieces: Iterable[bytes], *, expect_usage: bool = True, choices: int = 1
) -> tuple[CompletionResponse, MiniLLMError | None]:
    """Decode a response body that arrives in these pieces, without HTTP and without waiting.

    - ``provider`` defines the wire format.
    - ``pieces`` are the bytes of the body, split anywhere.
    - ``expect_usage`` says whether the answer should wait for usage.
    - ``choices`` is the number of answers that were requested.

    Returns the response, and the error that ended it, or ``None``.
    """
    state = Ingest(
        model="?",
        expect_usage=expect_usage,
        choices=choices,
        wire=provider.replay_wire,
    )
    decoder = ChunkDecoder(provider, choices=choices)
    for piece in pieces:
        state.ingest_all(decoder.feed(piece, 0.0))
    state.ingest_all(decoder.finish(0.0))
    state.fail(decoder.error or EndedEarly("the body ended"))
    left_out = decoder.left_out
    response = state.response(unread=left_out.unread, skipped_events=left_out.skipped)
    return response, state.error


def settlement(cost: float | str | None, *, id: str = "gen-1", **fields: Any) -> Reply:
    """Return OpenRouter's reply to a cost lookup, with the cost of a generation in USD.

    ``id`` is the id of the generation, and ``fields`` are more fields of its record.
    """
    data = {"id": id, "total_cost": cost, "native_tokens_prompt": 7, "native_tokens_completion": 5}
    body = msgspec.json.encode({"data": data | fields})
    return reply(body, headers={"content-type": "application/json"})


def model(provider: Provider | None = None, **options: Any) -> Model:
    """Return a model at an address that does not exist, for use with a `ScriptedTransport`.

    ``provider`` is that of chat completions by default. ``options`` are other fields of the model.
    """
    made = compatible("test-model", base_url="http://test.invalid/v1", **options)
    return made if provider is None else msgspec.structs.replace(made, provider=provider)


def answer(
    *parts: AnswerPart, finish: Finish = "auto", usage: Usage | None = None
) -> ReplyFunction:
    """Return a reply function that gives a complete answer in the request's wire format, streamed
    or not.

    - ``parts`` are texts, `reasoning`, and `tool_call`, in order: ``answer("Sea ", "salty")``.
    - ``finish`` is the reason why the answer ends, in words that mean the same in every wire
      format. By default, it is ``tool_calls`` if there are calls, and ``stop`` otherwise.
    - ``usage`` is a `Usage`. Counts that a wire format has no name for are left out.

    You can apply faults, as to a reply: ``answer("Sea") | faults.cut(-20)``. The path of the
    request selects the wire format: Anthropic's for ``/messages`` or ``awPredict`` at its end,
    OpenAI's Responses for ``/responses`` at its end, Gemini's for ``enerateContent``, text
    completions for ``/completions`` without ``/chat``, and chat completions otherwise. A response
    in the background can be resumed.

    Raises ``TypeError`` for an invalid part, and ``ValueError`` for an unknown ``finish``. A
    request whose wire format has no such part fails with ``ValueError``.
    """
    blocks, counts = Blocks(parts), True if usage is None else usage
    check_option("usage", usage, Usage)
    check_finish(finish)

    def choose(request: ServedRequest) -> Reply:
        if request.resumes is not None:
            return resumable(*responses_answer(blocks, finish, counts))(request)
        wire = wire_of(request.path)
        if not (":stream" in request.path if wire == "gemini" else _is_streamed(request)):
            return json_reply(answer_body(wire, parts, finish, counts))
        return reply(*answer_events(wire, parts, finish, counts))

    return ReplyFunction(choose)


def answer_events(
    wire: str, parts: Iterable[AnswerPart], finish: Finish, usage: Usage | bool
) -> list[bytes]:
    """Return the events of an answer in the wire format of this name, as `wire_of` has it."""
    if wire == "responses":
        return responses_answer(Blocks(parts), finish, usage)
    if wire == "anthropic":
        return anthropic_events(*parts, stop=finish, usage=usage)
    make = {"gemini": gemini_events, "text": text_events}.get(wire, openai_events)
    return make(*parts, finish=finish, usage=usage)


def answer_body(
    wire: str, parts: Iterable[AnswerPart], finish: Finish, usage: Usage | bool
) -> dict[str, Any]:
    """Return the whole answer that is not streamed, in the wire format of this name."""
    return _BODIES[wire](Blocks(parts), finish, usage)


_BODIES = {
    "anthropic": anthropic_body,
    "gemini": gemini_body,
    "openai": openai_body,
    "responses": responses_body,
    "text": text_body,
}


def wire_of(path: str) -> str:
    """Return the name of the wire format that requests to this path speak."""
    if "enerateContent" in path:
        return "gemini"
    if path.endswith(("/messages", "awPredict")):
        return "anthropic"
    if path.endswith("/responses"):
        return "responses"
    return "text" if path.endswith("/completions") and "/chat/" not in path else "openai"


def _is_streamed(request: ServedRequest) -> bool:
    try:
        asked = request.json()
    except ValueError:
        return False
    return isinstance(asked, dict) and bool(asked.get("stream"))


def json_reply(body: Any, **options: Any) -> Reply:
    """Return a reply whose body is JSON. ``options`` are the fields of `Reply`."""
    options = {"headers": {"content-type": "application/json"}, "framing": "length", **options}
    return reply(msgspec.json.encode(body), **options)


OK = reply(*openai_events("ok"))
"""The reply of a server without a script."""
NOT_YET = json_reply(
    {"error": {"message": "Generation not found", "code": 404}}, status=404, framing="chunked"
)
"""The reply to a request for a cost if the script has none."""
