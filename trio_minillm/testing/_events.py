"""Bodies of responses in the known wire formats, and the decoding of a body."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Any

import msgspec

from .._protocol.decoder import ChunkDecoder
from .._protocol.ingest import Ingest
from .._types.checks import check_type
from .._types.errors import EndedEarly, MiniLLMError
from .._types.response import CompletionResponse
from ..providers import Model, Provider
from ..providers._models import compatible
from ._script import Reply, ReplyFunction, ServedRequest, reply


def sse(data: Any, event: str | None = None) -> bytes:
    """Return one server-sent event. ``data`` is sent as it is if it is text, otherwise as JSON."""
    text = data if isinstance(data, str) else msgspec.json.encode(data).decode()
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {text}\n\n".encode()


def openai_events(
    *deltas: str, finish: str | None = "stop", usage: bool = True, done: bool = True
) -> list[bytes]:
    """Return the events of an OpenAI chat-completions stream, one ``bytes`` each."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "test-model-1"}

    def choice(delta: dict[str, str], reason: str | None = None) -> bytes:
        inner = {"index": 0, "delta": delta, "finish_reason": reason}
        return sse({**head, "choices": [inner]})

    events = [choice({"role": "assistant", "content": ""})]
    events += [choice({"content": delta}) for delta in deltas]
    if finish is not None:
        events.append(choice({}, finish))
    if usage:
        events.append(sse({**head, "choices": [], "usage": _counts(len(deltas))}))
    return [*events, sse("[DONE]")] if done else events


def text_events(
    *deltas: str, finish: str | None = "stop", usage: bool = True, done: bool = True
) -> list[bytes]:
    """Return the events of a stream of text completions, one ``bytes`` each.

    The finish reason comes with an empty text, as from most servers.
    """
    head = {"id": "cmpl-1", "object": "text_completion", "created": 0, "model": "test-model-1"}

    def choice(text: str, reason: str | None = None) -> bytes:
        return sse({**head, "choices": [_continued(text, reason)]})

    events = [choice(delta) for delta in deltas]
    if finish is not None:
        events.append(choice("", finish))
    if usage:
        events.append(sse({**head, "choices": [], "usage": _counts(len(deltas))}))
    return [*events, sse("[DONE]")] if done else events


def _continued(text: str, reason: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}


def _counts(made: int) -> dict[str, int]:
    return {"prompt_tokens": 7, "completion_tokens": made, "total_tokens": 7 + made}


def anthropic_events(*deltas: str, stop: str | None = "end_turn") -> list[bytes]:
    """Return the events of an Anthropic Messages stream, one ``bytes`` each."""

    def event(kind: str, **fields: Any) -> bytes:
        return sse({"type": kind, **fields}, kind)

    message = {"id": "msg_1", "model": "claude-test", "content": [], "usage": _PROVISIONAL}
    block = {"type": "text", "text": ""}
    events = [
        event("message_start", message=message),
        event("content_block_start", index=0, content_block=block),
    ]
    for delta in deltas:
        inner = {"type": "text_delta", "text": delta}
        events.append(event("content_block_delta", index=0, delta=inner))
    events.append(event("content_block_stop", index=0))
    if stop is not None:
        usage = {"output_tokens": len(deltas)}
        events.append(event("message_delta", delta={"stop_reason": stop}, usage=usage))
        events.append(event("message_stop"))
    return events


_PROVISIONAL = {"input_tokens": 7, "output_tokens": 1}


def responses_events(*deltas: str, status: str | None = "completed") -> list[bytes]:
    """Return the events of an OpenAI Responses stream, one ``bytes`` each."""
    numbers = count()

    def event(kind: str, **fields: Any) -> bytes:
        return sse({"type": kind, "sequence_number": next(numbers), **fields}, kind)

    place = {"output_index": 0, "item_id": "msg_1"}
    part = {"type": "output_text", "text": "", "annotations": []}
    opened = {"id": "msg_1", "type": "message", "role": "assistant", "content": []}
    events = [
        event("response.created", response=_response("in_progress")),
        event("response.in_progress", response=_response("in_progress")),
        event("response.output_item.added", output_index=0, item=opened),
        event("response.content_part.added", **place, content_index=0, part=part),
    ]
    kind = "response.output_text.delta"
    events += [event(kind, **place, content_index=0, delta=delta) for delta in deltas]
    if status is not None:
        text = "".join(deltas)
        done = _response(status, *deltas)
        (item,) = done["output"]
        (whole,) = item["content"]
        events += [
            event("response.output_text.done", **place, content_index=0, text=text),
            event("response.content_part.done", **place, content_index=0, part=whole),
            event("response.output_item.done", output_index=0, item=item),
            event(f"response.{status}", response=done),
        ]
    return events


def resumable(*events: bytes) -> ReplyFunction:
    """Return a reply function for a response in the background: with these events, which are numbered.

    A request for it gets all of them, and one that takes it up again those that follow. The first is cut
    by a fault: ``serve(resumable(*events) | faults.cut(-20), resumable(*events))``.
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


def _response(status: str, *deltas: str) -> dict[str, Any]:
    """Return a response in OpenAI's Responses format; it has output only once it has ended."""
    made: dict[str, Any] = {"id": "resp_1", "object": "response", "created_at": 0}
    made |= {"model": "test-model-1", "status": status, "error": None, "output": [], "usage": None}
    if status != "in_progress":
        part = {"type": "output_text", "text": "".join(deltas), "annotations": []}
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": status}
        counts = {"input_tokens": 7, "output_tokens": len(deltas), "total_tokens": 7 + len(deltas)}
        made |= {"output": [{**item, "content": [part]}], "usage": counts}
    if status == "incomplete":
        made["incomplete_details"] = {"reason": "max_output_tokens"}
    return made


def gemini_events(*deltas: str, finish: str | None = "STOP", usage: bool = True) -> list[bytes]:
    """Return the events of a stream on Gemini's own wire, one ``bytes`` each; there is no end event.

    The finish reason comes in an event of its own, without content.
    """

    def event(number: int, text: str, **fields: Any) -> bytes:
        data: dict[str, Any] = {"candidates": [{"content": _content(text), "index": 0, **fields}]}
        if usage:
            data["usageMetadata"] = _counted(number)
        return sse({**data, "modelVersion": "gemini-test-1", "responseId": "gemini-1"})

    events = [event(number, delta) for number, delta in enumerate(deltas, 1)]
    return events if finish is None else [*events, event(len(deltas), "", finishReason=finish)]


def _content(text: str) -> dict[str, Any]:
    return {"parts": [{"text": text}], "role": "model"}


def _counted(made: int) -> dict[str, int]:
    counts = {"promptTokenCount": 7, "candidatesTokenCount": made, "totalTokenCount": 7 + made}
    return {name: count for name, count in counts.items() if count}  # as Google's JSON has them


def decode(
    provider: Provider, pieces: Iterable[bytes], *, expect_usage: bool = True, choices: int = 1
) -> tuple[CompletionResponse, MiniLLMError | None]:
    """Decode a response body that arrives in these pieces, without HTTP and without waiting.

    Returns the response, and the error that ended it if one did.
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
    """Return OpenRouter's reply with the cost of a generation, in USD.

    ``fields`` are further ones of its record.
    """
    data = {"id": id, "total_cost": cost, "native_tokens_prompt": 7, "native_tokens_completion": 5}
    body = msgspec.json.encode({"data": data | fields})
    return reply(body, headers={"content-type": "application/json"})


def model(provider: Provider | None = None, **options: Any) -> Model:
    """Return a model at an address that does not exist, for use with a `ScriptedTransport`."""
    made = compatible("test-model", base_url="http://test.invalid/v1", **options)
    return made if provider is None else msgspec.structs.replace(made, provider=provider)


def answer(*deltas: str) -> ReplyFunction:
    """Return a reply function for a whole answer in the request's wire format, streamed or not.

    It is for programs whose wire format the test does not care about, such as those with other
    SDKs: ``serve(answer("Sea ", "salty"))``. A path that ends in ``/messages`` or ``awPredict`` is
    Anthropic's, one that ends in ``/responses`` that of OpenAI's Responses, one with ``enerateContent``
    Gemini's, and ``/completions`` without ``/chat`` is that of text completions. A response in the
    background is taken up again.
    Faults are applied to it as to a reply: ``answer("Sea") | faults.cut(-20)``.
    """
    for delta in deltas:
        check_type("a delta", delta, str)

    def choose(request: ServedRequest) -> Reply:
        if "enerateContent" in request.path:
            events = gemini_events(*deltas)
            whole: dict[str, Any] = {
                "candidates": [{"content": _content("".join(deltas)), "finishReason": "STOP"}]
            }
            whole |= {"usageMetadata": _counted(len(deltas)), "modelVersion": "gemini-test-1"}
            return reply(*events) if ":stream" in request.path else json_reply(whole)
        if request.resumes is not None:
            return resumable(*responses_events(*deltas))(request)
        anthropic = request.path.endswith(("/messages", "awPredict"))
        responses = request.path.endswith("/responses")
        text = request.path.endswith("/completions") and "/chat/" not in request.path
        make = anthropic_events if anthropic else responses_events if responses else openai_events
        events = text_events(*deltas) if text else make(*deltas)
        try:
            asked = request.json()
        except ValueError:
            asked = None
        if isinstance(asked, dict) and asked.get("stream"):
            return reply(*events)
        said, made = "".join(deltas), len(deltas)
        body: dict[str, Any]
        if anthropic:
            usage = {"input_tokens": 7, "output_tokens": made}
            body = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-test"}
            body |= {"content": [{"type": "text", "text": said}], "usage": usage}
            body |= {"stop_reason": "end_turn", "stop_sequence": None}
        elif responses:
            body = _response("completed", *deltas)
        elif text:
            body = {"id": "cmpl-1", "object": "text_completion", "created": 0}
            body |= {"model": "test-model-1", "usage": _counts(made)}
            body["choices"] = [_continued(said, "stop")]
        else:
            turn = {"role": "assistant", "content": said}
            body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 0}
            body |= {"model": "test-model-1", "usage": _counts(made)}
            body |= {"choices": [{"index": 0, "message": turn, "finish_reason": "stop"}]}
        return json_reply(body)

    return ReplyFunction(choose)


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
