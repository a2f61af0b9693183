"""Events of text completions: the short way from ordinary ones to chunks, and log probabilities.

Log probabilities come as four lists, one entry for each token, and leave as chat completions have
them: ``content``, a list of objects with ``token``, ``logprob`` and ``top_logprobs``. An object has
its ``text_offset`` beside these, if the server gave one. Those of a prompt (vLLM's
``prompt_logprobs``) are in a list ``prompt``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any

import msgspec

from .._types.chunks import StreamChunk
from .._types.usage import Usage
from ._openai_choices import advances, take_facts
from ._reasons import USUAL_REASONS

_ABSENT = msgspec.Raw()
_OBJECTS = ("text_completion", "text_completion.chunk", "")


class _Choice(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    text: str
    index: int = 0
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None
    reasoning: str | None = None  # OpenRouter's, as the next
    native_finish_reason: str | None = None
    stop_reason: msgspec.Raw = _ABSENT  # vLLM's, as the next three
    token_ids: msgspec.Raw = _ABSENT
    prompt_token_ids: msgspec.Raw = _ABSENT
    prompt_logprobs: None = None
    matched_stop: msgspec.Raw = _ABSENT  # SGLang's, as the next
    hidden_states: None = None


class _Event(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    choices: list[_Choice]
    id: str | None = None
    object: str = ""
    created: msgspec.Raw = _ABSENT
    model: str | None = None
    usage: dict[str, Any] | None = None
    provider: Any = None
    service_tier: Any = None
    system_fingerprint: str | None = None


_decode = msgspec.json.Decoder(_Event).decode


def ordinary_chunk(data: bytes, told: Callable[[Any], Usage | None]) -> StreamChunk | None:
    """Return the chunk of an ordinary event, or ``None`` for any other.

    ``told`` reads a usage object; it returns ``None`` for one that says nothing.
    """
    try:
        event = _decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    if len(event.choices) != 1 or event.object not in _OBJECTS:
        return None
    choice = event.choices[0]
    reason, native = choice.finish_reason, choice.native_finish_reason
    if (reason is not None and reason not in USUAL_REASONS) or choice.index < 0:
        return None
    if native and native not in USUAL_REASONS:
        return None
    out = StreamChunk(choice.text, choice.reasoning or "")
    out.finish_reason, out.choice = reason, choice.index
    out.id, out.model = event.id, event.model
    if native:
        out.metadata = {"native_finish_reason": native}
    if choice.logprobs:
        out.logprobs = choice.logprobs
        in_words_of_chat(out)
    out.progress = advances(out)
    if event.usage and (read := told(event.usage)) is not None:
        out.usage, out.progress = read, True
    edge = not out.delta or out.finish_reason is not None or out.usage is not None
    if edge and (event.provider or event.service_tier or event.system_fingerprint):
        take_facts(event, out)
    return out


# -- log probabilities -----------------------------------------------------------------------


def in_words_of_chat(out: StreamChunk) -> None:
    """Put a chunk's log probabilities into the shape of chat completions, if they are in the older one.

    What can't be read is left out, and is among the names of `StreamChunk.unread`.
    """
    found = out.logprobs
    if not found or "tokens" not in found:  # llama.cpp's have the newer shape
        return
    entries = _entries(found)
    out.logprobs = {"content": entries} if entries else None
    if entries is None:
        out.unread = (*out.unread, "choices[].logprobs")


_NUMBERS = frozenset((float, int, NoneType))
"""Types of a log probability: there is none for a prompt's first token, before which nothing comes."""


def _entries(found: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the entries of four lists; ``None`` if they don't fit together.

    Each list is checked as a whole: a prompt has thousands of tokens, whose turn is that of all tasks.
    """
    tokens: Any = found.get("tokens") or []
    own: Any = found.get("token_logprobs")
    size = len(tokens) if isinstance(tokens, list) else -1
    top: Any = found.get("top_logprobs") or [None] * size
    places: Any = found.get("text_offset") or [None] * size
    lists: list[Any] = [tokens, own, top, places]
    if not all(isinstance(one, list) and len(one) == size for one in lists):
        return None
    kinds = [set(map(type, one)) for one in lists]
    fit = kinds[0] <= {str} and kinds[1] <= _NUMBERS and kinds[2] <= {dict, NoneType}
    if not fit or not kinds[3] <= {int, NoneType}:
        return None
    if not {type(number) for one in top if one for number in one.values()} <= _NUMBERS:
        return None
    out: list[dict[str, Any]] = [
        {
            "token": token,
            "logprob": logprob,
            "top_logprobs": [{"token": k, "logprob": v} for k, v in one.items()] if one else [],
        }
        for token, logprob, one in zip(tokens, own, top, strict=True)
    ]
    for entry, place in zip(out, places, strict=True):
        if place is not None:
            entry["text_offset"] = place
    return out


class _Whole(msgspec.Struct, gc=False):
    index: int = 0
    prompt_logprobs: Any = None


class _WholeAnswer(msgspec.Struct, gc=False):
    choices: list[_Whole]


_decode_whole = msgspec.json.Decoder(_WholeAnswer).decode


def take_prompt_logprobs(body: bytes, out: Sequence[StreamChunk]) -> None:
    """Add the log probabilities of the prompt in a whole answer to the chunks of its choices.

    Each is an object of the tokens' ids, the prompt's own token first, and null for the first token.
    """
    if b'"prompt_logprobs"' not in body:
        return
    try:
        choices = _decode_whole(body).choices
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        out[-1].unread = (*out[-1].unread, "choices[].prompt_logprobs")
        return
    for choice, chunk in zip(choices, out, strict=False):
        if choice.prompt_logprobs is None:
            continue
        try:
            entries = [_of_prompt(one) for one in choice.prompt_logprobs]
        except (AttributeError, LookupError, TypeError, ValueError):
            chunk.unread = (*chunk.unread, "choices[].prompt_logprobs")
        else:
            chunk.logprobs = {**(chunk.logprobs or {}), "prompt": entries}


def _of_prompt(given: Mapping[str, Any] | None) -> dict[str, Any]:
    if given is None:
        return {"token": "", "logprob": None, "top_logprobs": []}
    # vLLM lists the token that stands in the prompt before the likeliest ones.
    found = [
        {"token": one["decoded_token"] or "", "logprob": one["logprob"], "token_id": int(number)}
        for number, one in given.items()
    ]
    return {**found[0], "top_logprobs": found}
