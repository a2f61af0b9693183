"""Conversations in the form of ShareGPT's, as prompts with turns. Pure.

``{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}, …]}``. The model's
recorded words are never sent: each turn follows the answer that the model gives here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..._types.messages import system, user
from .prompt import Prompt

FIELDS = ("conversations", "conversation")
"""Fields one of which says that a row is one: ShareGPT's, and that of LMSYS-Chat and WildChat."""
_ROLES = {
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bing", "bard", "model"), "assistant"),
    "system": "system",
}


def conversation_of(
    row: Mapping[str, Any], turns: int, count: Callable[[str], int] | None
) -> Prompt | None:
    """Return a conversation as a prompt of at most so many turns, ``None`` if no user speaks in it.

    ``count`` counts the tokens of a text: each answer may then be as long as the recorded one. Turns
    without a recorded answer are left out then.

    Raises ``ValueError`` for another form.
    """
    field = next(name for name in FIELDS if name in row)
    said = _said(field, row[field])
    words = [text for role, text in said if role == "system"]
    asked: list[str] = []
    answers: list[str] = []
    for role, text in said:
        if role == "user" and len(asked) == len(answers):
            asked.append(text)
        elif role == "user":  # the user went on: it is one turn
            asked[-1] = f"{asked[-1]}\n{text}"
        elif role == "assistant" and len(answers) < len(asked):
            answers.append(text)
    if count is not None:
        asked = asked[: len(answers)]
    asked = asked[:turns]
    if not asked:
        return None
    lengths = [] if count is None else [max(1, count(text)) for text in answers[: len(asked)]]
    first = asked[0]
    return Prompt(
        messages=(system("\n".join(words)), user(first)) if words else first,
        params={"max_tokens": lengths[0]} if lengths else {},
        turns=tuple(asked[1:]),
        lengths=tuple(lengths[1:]),
    )


def _said(field: str, given: Any) -> list[tuple[str, str]]:
    """Return the role and the text of each part of a conversation that has one."""
    if not isinstance(given, list):
        raise ValueError(f"{field} is not a list")
    said = []
    for number, part in enumerate(given):
        if not isinstance(part, dict):
            raise ValueError(f"{field}[{number}] is not an object")
        name, text = part.get("from", part.get("role")), part.get("value", part.get("content"))
        role = _ROLES.get(name) if isinstance(name, str) else None
        if not isinstance(text, str):
            raise ValueError(f"{field}[{number}] has no text")
        if role is not None and text.strip():  # others are tools and the like
            said.append((role, text))
    return said
