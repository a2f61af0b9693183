"""The second question after an answer that is not valid. Pure."""

from __future__ import annotations

import msgspec

from .._protocol.request import Messages
from .._types.messages import Message, assistant, user
from .._types.openai_messages import messages_of
from .._types.response import CompletionResponse

MAX_WORDS = 500
"""Characters of what is said of an answer: a checker's message may quote all of it, and the model pays
for each word."""


def asked_again(messages: Messages, answer: CompletionResponse, words: str) -> tuple[Message, ...]:
    """Return the messages with the answer and what is wrong with it (in `words_of`'s words).

    Only the answer's text is shown to the model again: calls of tools would need results. Some models'
    templates want the roles to alternate, so an empty answer has a turn of its own, too.
    """
    said = answer.content.strip() or answer.refusal or "(no text)"
    wanted = "Give the whole answer again, corrected, and nothing else."
    return (
        *messages_of(messages),
        assistant(said),
        user(f"This answer can't be used: {words}\n{wanted}"),
    )


def words_of(error: Exception) -> str:
    """Return what an error says of an answer, on one line of `MAX_WORDS` at most."""
    if isinstance(error, ValueError | msgspec.MsgspecError) and not isinstance(error, UnicodeError):
        line = " ".join(str(error).split())
        if line:
            return line if len(line) <= MAX_WORDS else f"{line[: MAX_WORDS - 1]}…"
    return "it can't be read"
