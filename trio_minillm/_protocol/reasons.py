"""Finish reasons in the words of all wires: the answer was cut, or filtered, or the model ended it.

Reasons that name a failure are not among them: a provider's parser turns those into errors.
"""

from __future__ import annotations

import re
from functools import lru_cache

CUT_REASONS = frozenset(
    {
        *("length", "max_tokens", "max_output_tokens", "max_length", "incomplete"),
        *("model_length", "model_context_window_exceeded"),  # Mistral; Anthropic and GLM
        *("token_limit", "time_limit"),  # watsonx
        # The model was in a loop: MiMo, vLLM, Moonshot.
        *("repetition_truncation", "repetition", "repeat"),
    }
)
"""Finish reasons of answers that were cut at a limit, in the words of all wires."""
FILTERED_REASONS = frozenset(
    {
        *("content_filter", "content_filtered", "refusal", "sensitive"),  # sensitive: GLM
        "guardrail_intervened",  # Bedrock
        # Gemini's, which its relays hand on
        *("safety", "recitation", "language", "blocklist", "prohibited_content", "spii"),
        *("model_armor", "image_safety", "image_prohibited_content", "image_recitation"),
    }
)
"""Finish reasons of answers that a filter ended, or that the model declined to give."""
ENDED_REASONS = frozenset(
    {
        *(
            "stop",
            "end_turn",
            "stop_sequence",
            "eos",
            "eos_token",
            "end_of_turn",
            "complete",
            "completed",
        ),
        *("tool_calls", "tool_use", "tool_call", "function_call", "done"),
    }
)
"""Finish reasons of answers that the model ended. A call without any arguments is not run under
a reason that nobody knows: it may have been cut before them."""
PAUSED = "pauseturn"
"""Anthropic's reason for a turn in which the server runs tools and has stopped for now, as a bare word."""
CALL_REASONS = frozenset({"tool_calls", "tool_use", "tool_call", "function_call"})
"""Finish reasons that promise a call."""


_once = lru_cache(maxsize=256)
"""Answers a question once: few servers have more than one or two reasons."""


@_once
def forbids_calls(reasons: tuple[str, ...]) -> bool:
    """Return whether one of these reasons says that the answer was cut or filtered."""
    return any(w in _UNUSABLE or re.search(_TELLING, w) for w in _words(reasons))


@_once
def ended_by_model(reasons: tuple[str, ...]) -> bool:
    """Return whether there is a reason, and each is one of those that a model gives at its end."""
    words = _words(reasons)
    return bool(words) and words <= _ENDED


@_once
def asks_for_calls(reason: str | None) -> bool:
    """Return whether a reason promises a tool call."""
    return bool(_words((reason or "",)) & _CALL)


@_once
def pauses(reason: str | None) -> bool:
    """Return whether a reason says that the turn continues once it is sent back."""
    return PAUSED in _words((reason or "",))


@_once
def in_chat_words(reason: str | None) -> str:
    """Return the word of OpenAI's chat completions for a reason of any wire for which an answer ended.

    ``content_filter`` or ``length`` where `forbids_calls` holds, else ``tool_calls`` or ``stop``.
    """
    words = _words((reason or "",))
    if any(w in _FILTERED or re.search(_TELLING_FILTERED, w) for w in words):
        return "content_filter"
    if any(w in _CUT or re.search(_TELLING_CUT, w) for w in words):
        return "length"
    return "tool_calls" if words & _CALL else "stop"


def _bare_word(word: str) -> str:
    return re.sub("[^a-z0-9]", "", word.lower()).removeprefix("finishreason")


def _words(reasons: tuple[str, ...]) -> frozenset[str]:
    """Return the words of reasons, without what relays change: case, hyphens, a prefix.

    Gemini's OpenAI-style endpoint puts two in one: ``content_filter: SAFETY``.
    """
    found = (_bare_word(w) for reason in reasons for w in re.split(r"[\s:;,./]+", reason))
    return frozenset(w for w in found if w)


_CUT, _FILTERED, _ENDED, _CALL = map(
    _words, map(tuple, (CUT_REASONS, FILTERED_REASONS, ENDED_REASONS, CALL_REASONS))
)
_UNUSABLE = _CUT | _FILTERED
_TELLING_CUT = (
    "^max|length|limit|trunc|exceeded|overflow|context"
    "|repeat|repetit|loop|partial|cutoff|outof|interrupt|abnormal|incomplete|timedout|stalled"
    "|budget|too(?:long|large|many)"
)
_TELLING_FILTERED = (
    "block|moderat|policy|safety|guardrail|filter"
    "|refus|reject|denied|deny|risk|violat|unsafe|censor|harm|prohibit"
    "|toxic|abus|malicious|nsfw|sexual|violen|hate(?:ful|speech)|profan"
    "|copyright|restricted|allowed|jailbreak"
)
_TELLING = f"{_TELLING_CUT}|{_TELLING_FILTERED}"
"""Words, within longer ones, of reasons that nobody has listed: the answer was cut or filtered."""
