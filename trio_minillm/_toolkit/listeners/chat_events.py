"""The events of OpenAI's chat completions, made of the chunks of any wire's stream.

They are OpenAI's ``chat.completion.chunk`` objects, with the fields that other servers have added and
clients read: ``reasoning_content``, ``reasoning_details``, ``images``, ``extra_content``. What the wire
has no place for stays out: blocks of a server's own tools, signatures of reasoning.

A finish reason is sent at the end only, when the outcome is known: until then it may be disproved.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from ..._protocol.reasons import in_chat_words
from ..._types.chunks import StreamChunk
from ..._types.errors import (
    BudgetExceeded,
    MiniLLMError,
    ProviderError,
    RefusedError,
    RetriesExhausted,
    StreamTimeout,
    StreamTruncated,
)
from ..._types.response import FINISHED, Choice, CompletionResponse
from ..._types.usage import Usage
from .chat_calls import ChatCalls
from .history import text_field

DONE = b"data: [DONE]\n\n"
_NAMES = {"delta": "content", "reasoning": "reasoning_content", "refusal": "refusal"}


class ChatEvents:
    """The writer of one answer's events."""

    def __init__(self, created: int) -> None:
        self._created = created
        self._id = ""
        self._head = b""  # of an event, up to its choices
        self._named: tuple[str, str] | None = None
        self._calls: dict[int, ChatCalls] = {}
        self._begun: set[int] = set()

    def of(self, chunks: Iterable[StreamChunk], id: str, model: str) -> bytes:
        """Return the events of some chunks; nothing for those that say nothing here.

        ``id`` and ``model`` are those of the response, as far as they are known.
        """
        self._name(id, model)
        out: list[bytes] = []
        for chunk in chunks:
            field = text_field(chunk)
            if field and chunk.choice in self._begun:  # almost every chunk
                text = b'"%b":%b' % (_NAMES[field].encode(), _json(getattr(chunk, field)))
                out += (self._head, b'[{"index":%d,"delta":{' % chunk.choice, text, _NO_REASON)
                continue
            delta = self._delta(chunk)
            if delta or chunk.logprobs:
                logprobs = {"logprobs": chunk.logprobs} if _in_chat_shape(chunk.logprobs) else {}
                out.append(self._choice(chunk.choice, delta, logprobs))
        return b"".join(out)

    def _name(self, id: str, model: str) -> None:
        if self._named != (id, model):
            self._named, self._id = (id, model), id
            head = {"id": id, "object": "chat.completion.chunk", "created": self._created}
            self._head = b"data: %b," % _json({**head, "model": model})[:-1] + b'"choices":'

    def _choice(
        self, index: int, delta: dict[str, Any], more: dict[str, Any], reason: str | None = None
    ) -> bytes:
        if index not in self._begun:
            self._begun.add(index)
            delta = {"role": "assistant", **delta}
        inner = {"index": index, "delta": delta, **more, "finish_reason": reason}
        return b"%b%b}\n\n" % (self._head, _json([inner]))

    def _delta(self, chunk: StreamChunk) -> dict[str, Any]:
        out: dict[str, Any] = {
            name: text for field, name in _NAMES.items() if (text := getattr(chunk, field))
        }
        calls = self._calls.get(chunk.choice)
        if calls is None and (chunk.tool_calls or chunk.block is not None):
            calls = self._calls[chunk.choice] = ChatCalls()
        if calls is not None and (pieces := calls.pieces(chunk, self._id)):
            out["tool_calls"] = pieces
        for name in ("reasoning_details", "annotations", "images", "audio"):
            if value := getattr(chunk, name):
                out[name] = value
        return out

    def end(self, response: CompletionResponse, *, usage: bool) -> bytes:
        """Return the events that end a finished answer: reasons, usage, ``[DONE]``.

        For any other outcome, and for an answer of which a client would run calls that its response
        does not have, that is an error and no ``[DONE]``.
        """
        if response.outcome is not FINISHED:
            return self.error("the answer was cancelled", "cancelled")
        self._name(response.id, response.model)
        out: list[bytes] = []
        for choice in response.choices:
            reason = self._reason(choice)
            calls = self._calls.get(choice.index)
            if calls and reason in ("stop", "tool_calls") and calls.disowned(choice):
                return self.error("a tool call is doubtful and must not be run", "invalid_call")
            out.append(self._choice(choice.index, {}, {}, reason))
        if usage and response.usage is not None:
            out.append(b'%b[],"usage":%b}\n\n' % (self._head, _json(_usage(response.usage))))
        return b"".join((*out, DONE))

    @staticmethod
    def _reason(choice: Choice) -> str:
        word = in_chat_words(choice.finish_reason)
        return "tool_calls" if word == "stop" and choice.tool_calls else word

    @staticmethod
    def error(message: str, type: str, code: str | int | None = None) -> bytes:
        """Return the event that says that the answer failed."""
        told = {"message": message, "type": type, "param": None, "code": code}
        return b"data: %b\n\n" % _json({"error": told})


_NO_REASON = b'},"finish_reason":null}]}\n\n'


def type_and_code(error: BaseException) -> tuple[str, str | int | None]:
    """Return the type and the code of the error event for what ended a stream."""
    if isinstance(error, RetriesExhausted):
        error = error.last_error
    if isinstance(error, RefusedError | ProviderError):
        return error.info.type or error.kind, error.info.code or error.status
    if isinstance(error, StreamTimeout):
        return "timeout", error.clock
    if isinstance(error, StreamTruncated):
        return "truncated", None
    if isinstance(error, BudgetExceeded):
        return "budget_exceeded", error.limit
    return ("upstream_error" if isinstance(error, MiniLLMError) else "server_error"), None


def _json(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # half a surrogate pair, which a channel was fed with
        return _json(_encodable(value))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(inner) for key, inner in value.items()}
    return [_encodable(inner) for inner in value] if isinstance(value, list | tuple) else value


def _in_chat_shape(logprobs: dict[str, Any] | None) -> bool:
    return logprobs is not None and ("content" in logprobs or "refusal" in logprobs)


def _usage(usage: Usage) -> dict[str, Any]:
    """Return usage under OpenAI's names, and under those of other servers what OpenAI does not count."""
    inputs = {
        "cached_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "audio_tokens": usage.audio_input_tokens,
        "image_tokens": usage.image_input_tokens,
    }
    outputs = {
        "reasoning_tokens": usage.reasoning_tokens,
        "audio_tokens": usage.audio_output_tokens,
        "image_tokens": usage.image_output_tokens,
    }
    out = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": _known(inputs) or None,
        "completion_tokens_details": _known(outputs) or None,
        "cost": usage.cost,
    }
    return _known(out)


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
