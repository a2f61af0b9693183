"""Build the JSON body of a request for text completions, OpenAI's older format, from neutral types.

A prompt is continued as it is, without a chat template. The fields are those of OpenAI's reference;
where a server differs from it, that is by the same table as in chat (`Dialect`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .._types.messages import Message, TextPart, TokensPart
from .._types.params import stops_in
from ._base import Request, refuse_others, take
from ._openai_request import Dialect

COMPLETIONS: Final = "/completions"
"""The endpoint below the base URL."""

_SAME = (
    *("max_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty", "logit_bias"),
    *("n", "user", "suffix", "echo", "prompt_logprobs", "best_of"),
)
_SHAPED = {"seed", "stop", "logprobs", "top_logprobs", "stream_options"}
_FIELDS = {*_SAME, "model", "prompt", "stop", "logprobs", "stream_options"}

NO_CHAT: Final = (
    "text completions continue one prompt, given as text or as token ids;"
    " for a conversation use a chat format (llm.openai, llm.compatible), where the server applies"
    " the model's template"
)


def typed_fields(dialect: Dialect) -> frozenset[str]:
    """Return the fields of the body that typed parameters decide."""
    return frozenset(_FIELDS) | frozenset(_table(dialect).values())


def _table(dialect: Dialect) -> Mapping[str, str]:
    """Return the typed parameters that are sent unchanged, each with its name in the body."""
    names = (*_SAME, *dialect.extra_params)
    return {name: name for name in names if name not in dialect.without} | {"seed": dialect.seed}


def text_body(request: Request, dialect: Dialect) -> dict[str, Any]:
    """Return the body of a request.

    Raises ``ValueError`` for a conversation, and for a parameter that the wire format does not have.
    """
    table, params = _table(dialect), request.params
    if params:
        refuse_others(request, (set(table) | _SHAPED) - set(dialect.without))
    streamed = not comes_whole(params)
    body: dict[str, Any] = {
        "model": request.model.name,
        "prompt": prompt_of(request.messages),
        "stream": streamed,
        **take(request, table),
    }
    options: dict[str, Any] = {}
    if request.expect_usage and dialect.stream_usage:
        options["include_usage"] = True
    options |= params.get("stream_options", {})
    if options and streamed:  # servers refuse them without a stream
        body["stream_options"] = options
    if stops := stops_in(params):  # servers refuse an empty list
        body["stop"] = stops
    if (count := _logprobs(params)) is not None:
        body["logprobs"] = count
    return body


def comes_whole(params: Mapping[str, Any]) -> bool:
    """Return whether an answer is asked for whole, because servers don't stream it.

    OpenAI refuses a stream with ``best_of``, and vLLM one with ``prompt_logprobs``; llama-cpp-python
    leaves out the echo. An echo with at most one token behind it has nothing to stream anyway.
    """
    short = 0 <= params.get("max_tokens", -1) <= 1
    return "prompt_logprobs" in params or "best_of" in params or bool(short and params.get("echo"))


def _logprobs(params: Mapping[str, Any]) -> int | None:
    """Return the number of alternatives whose log probabilities are asked for; ``None`` for none.

    ``logprobs=True`` alone asks for one: for none, llama.cpp gives no log probabilities at all.
    """
    if not params.get("logprobs"):
        if params.get("top_logprobs"):
            raise ValueError("top_logprobs needs logprobs=True")
        return None
    return int(params.get("top_logprobs", 1))


def prompt_of(messages: Sequence[Message]) -> str | list[int]:
    """Return the prompt as it is sent: text, or the ids of tokens.

    A string that is given for messages is one user's message by the time it is here, so that one such
    message, of text alone, is the prompt. Raises ``ValueError`` for anything else.
    """
    message = messages[0] if len(messages) == 1 else None
    if message is None or message.role != "user" or message.name is not None:
        raise ValueError(NO_CHAT)
    parts = message.parts
    if len(parts) == 1 and isinstance(parts[0], TokensPart):
        return list(parts[0].ids)
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    if len(texts) < len(parts):
        other = next(part for part in parts if not isinstance(part, TextPart))
        raise ValueError(f"a {type(other).__name__} can't be in this prompt: {NO_CHAT}")
    return "".join(texts)
