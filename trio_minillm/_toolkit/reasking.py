"""The second question after an answer that is not valid, for one request and for those of a batch."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from .._protocol.request import Messages
from .._stream.tracked import TrackedStream
from .._types.messages import Message, assistant, user
from .._types.openai_messages import messages_of
from .._types.response import CompletionResponse, InvalidAnswer

MAX_WORDS = 500
"""Characters of what is said of an answer: a checker's message may quote all of it, and the model pays
for each word."""


def asked_again(messages: Messages, answer: CompletionResponse, words: str) -> tuple[Message, ...]:
    """Return the messages with the answer and what is wrong with it (in `words_of`'s words).

    Only the answer's text is shown to the model again: calls of tools would need results. Some models'
    templates want the roles to alternate, so an empty answer has a turn of its own, too.
    """
    said = answer.text.strip() or answer.refusal or "(no text)"
    wanted = "Give the whole answer again, corrected, and nothing else."
    return (
        *messages_of(messages),
        assistant(said),
        user(f"This answer can't be used: {words}\n{wanted}"),
    )


def words_of(error: Exception) -> str:
    """Return what an error says of an answer, on one line of `MAX_WORDS` at most."""
    if isinstance(error, ValueError | msgspec.MsgspecError) and not isinstance(error, UnicodeError):
        # The model may see its own words; they are not in the message.
        said = error.reason if isinstance(error, InvalidAnswer) else str(error)
        line = " ".join(said.split())
        if line:
            return line if len(line) <= MAX_WORDS else f"{line[: MAX_WORDS - 1]}…"
    return "it can't be read"


def check_reasking(retries: object, wanted: object) -> None:
    """Raise ``ValueError`` unless invalid answers can be asked again so often: ``wanted`` is the
    request's ``response_format``.
    """
    if type(retries) is not int or retries < 0:
        raise ValueError("retries_invalid must be a whole number, 0 or more")
    if wanted is None or wanted == "text":
        raise ValueError("retries_invalid needs a response_format: any text is a valid answer")


class Asking:
    """A request that is asked again while its answer is invalid. Its ``repr`` shows no prompt.

    ``ask`` returns the stream of a question with these messages; each is an attempt of its own, with
    the clocks of its own.
    """

    def __init__(
        self, ask: Callable[[Messages], TrackedStream], messages: Messages, retries: int
    ) -> None:
        self._ask = ask
        self._messages = messages
        self._left = retries
        self._made = 0

    async def complete(self) -> CompletionResponse:
        """Return the first valid answer. Raises the `InvalidAnswer` of the last one if none is."""
        while True:
            stream = self._ask(self._messages)
            stream.made_before = self._made
            answer = await stream.complete()
            self._made += answer.timings.attempts
            try:
                answer.value  # noqa: B018 - decoded here, and kept
            except InvalidAnswer as error:
                if not self._left:
                    raise
                self._left -= 1
                self._messages = asked_again(self._messages, answer, words_of(error))
            else:
                return answer
