"""Answers out of files: recordings, and scripts in JSON lines.

A script is a file of JSON lines. The first is ``{"script": 1}``, with the version of the format; each of
the others is an answer, with any of the fields of `ScriptedAnswer`::

    {"script": 1}
    {"text": "The sea is salty.", "ttft": 0.5, "itl": 0.1}
    {"text": ["Sal", "ty"], "reasoning": "Rivers carry salt.", "finish": "length"}
    {"tool_calls": [{"name": "weather", "arguments": {"city": "Paris"}}]}
    {"error": {"status": 429, "message": "slow down", "retry_after": 2}}
    {"text": "Yes.", "when": {"model": "small", "metadata.case": 7}}

Answers with ``when`` are for the requests that it describes; the others come in order, over and over.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import msgspec

from .._types.messages import ToolCall
from .._types.usage import Usage
from ..testing._answer_parts import AnswerPart, Block, Finish
from ..testing._events import answer_events, json_reply
from ..testing._replay import MAX_LINE, replay
from ..testing._script import Reply
from .distributions import distribution
from .fault_texts import SharedFault, error_body, fault_from
from .forms import renamed, whole_body
from .options import UsageMode
from .programs import EVENTS
from .requests import Asked, RefusedRequestError, prompt_texts

MAX_ANSWERS: Final = 100_000
"""Answers of all files together, so that memory is bounded."""
Names: TypeAlias = tuple[str, str, int]


class ScriptedCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call of a tool."""

    name: str
    arguments: dict[str, Any] | str = {}
    """The arguments, or the text that the model writes."""
    id: str = ""


class ScriptedError(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A refusal in place of an answer."""

    status: int
    message: str = "refused by the script"
    type: str = "server_error"
    retry_after: float | None = None


class ScriptedUsage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tokens that the usage says, where the words of prompt and answer are not to be counted."""

    prompt: int | None = None
    completion: int | None = None


class ScriptedAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of a script."""

    text: str | list[str] = ""
    """The text, of which each word is a token; or the pieces, each of which is sent as one content."""
    reasoning: str | list[str] = ""
    """Reasoning before the text, in the same way."""
    tool_calls: list[ScriptedCall] = []
    """Calls behind the text."""
    finish: Finish = "auto"
    """The reason why the answer ends; ``auto`` is ``tool_calls`` with calls, else ``stop``."""
    usage: ScriptedUsage = ScriptedUsage()
    ttft: float | str | None = None
    """Seconds to the first content, in place of the server's."""
    itl: float | str | None = None
    """Seconds between contents, in place of the server's."""
    faults: list[str] = []
    """Faults, as for ``--fault``."""
    error: ScriptedError | None = None
    """A refusal in place of the answer."""
    when: dict[str, Any] = {}
    """Values that a request must have, by the names of its fields (``metadata.case`` is a field in a
    field); ``prompt_sha256`` is the hash of the texts of its prompt, joined by newlines."""

    def struck_by(self) -> list[SharedFault]:
        """Return its faults."""
        return [fault_from(text) for text in self.faults]

    def reply(
        self, asked: Asked, names: Names, mode: UsageMode, per_chunk: int
    ) -> tuple[Reply, Usage]:
        """Return the answer without any pauses, and its usage."""
        if self.error is not None:
            return _refusal(self.error, asked.wire), Usage()
        blocks = [*self._blocks(per_chunk)]
        parts = cast("list[AnswerPart]", blocks)
        thought = _words(self.reasoning)
        made = thought + _words(self.text) + sum(_words(_text(c)) for c in self.tool_calls)
        prompt, stated = self.usage.prompt, self.usage.completion
        usage = Usage(
            uncached_input_tokens=asked.prompt_tokens if prompt is None else prompt,
            completion_tokens=made if stated is None else stated,
            reasoning_tokens=thought or None,
        )
        told = usage if asked.usage_by(mode)[0] else False
        if not asked.stream:
            return json_reply(whole_body(asked.wire, parts, self.finish, told, names)), usage
        events = answer_events(asked.wire, parts, self.finish, told)
        events = [renamed(event, asked.wire, names) for event in events]
        return Reply(steps=tuple(events), headers=dict(EVENTS)), usage

    def _blocks(self, per_chunk: int) -> Iterator[Block]:
        if self.reasoning:
            yield Block("reasoning", _pieces(self.reasoning, per_chunk))
        if self.text or not self.tool_calls:
            yield Block("text", _pieces(self.text, per_chunk))
        for number, call in enumerate(self.tool_calls):
            text = _text(call)
            made = ToolCall(id=call.id or f"call_{number + 1}", name=call.name, arguments=text)
            yield Block("call", [text], made, number)


def _text(call: ScriptedCall) -> str:
    arguments = call.arguments
    if isinstance(arguments, str):
        return arguments
    return msgspec.json.encode(arguments).decode()


def _words(text: str | list[str]) -> int:
    return len("".join(text).split())


def _pieces(text: str | list[str], per_chunk: int) -> list[str]:
    if not isinstance(text, str):
        return text
    words = iter(re.findall(r"\s*\S+(?:\s+$)?", text))
    return ["".join(some) for some in iter(lambda: list(islice(words, per_chunk)), [])]


def _refusal(error: ScriptedError, wire: str) -> Reply:
    reply = json_reply(
        error_body(wire, error.status, error.message, error.type), status=error.status
    )
    if error.retry_after is None:
        return reply
    headers = {**reply.headers, "retry-after": f"{error.retry_after:g}"}
    return msgspec.structs.replace(reply, headers=headers)


_decode = msgspec.json.Decoder(ScriptedAnswer).decode
Answer: TypeAlias = ScriptedAnswer | Reply
"""An answer of a script, or a recorded one."""


class Answers:
    """The answers of files: for certain requests, and in order."""

    def __init__(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        """Raise ``ValueError``, with the place, for a file that is neither, or if files have no answer;
        and ``OSError``.
        """
        self._keyed: list[ScriptedAnswer] = []
        self._ordered: list[Answer] = []
        self._next = 0
        for path in paths:
            for answer in _read(Path(path)):
                if isinstance(answer, ScriptedAnswer) and answer.when:
                    self._keyed.append(answer)
                else:
                    self._ordered.append(answer)
                if len(self._keyed) + len(self._ordered) > MAX_ANSWERS:
                    raise ValueError(f"more than {MAX_ANSWERS:,} answers")
        if paths and not self:
            raise ValueError(f"no answers in {', '.join(os.fspath(path) for path in paths)}")

    def __bool__(self) -> bool:
        return bool(self._keyed or self._ordered)

    def reset(self) -> None:
        """Begin with the first answer again."""
        self._next = 0

    def choose(self, asked: Asked, body: dict[str, Any]) -> Answer:
        """Return the answer to a request. Raises `RefusedRequestError` if there is none for it."""
        known = {"model": asked.model}

        def value_of(name: str) -> Any:
            if name == "prompt_sha256" and name not in known:
                texts = "\n".join(prompt_texts(body)).encode("utf-8", "replace")
                known[name] = hashlib.sha256(texts).hexdigest()
            return known[name] if name in known else _field(body, name)

        for answer in self._keyed:
            if all(value_of(name) == value for name, value in answer.when.items()):
                return answer
        if not self._ordered:
            raise RefusedRequestError(404, "no answer in the script matches this request")
        self._next += 1
        return self._ordered[(self._next - 1) % len(self._ordered)]


def _field(body: Any, name: str) -> Any:
    for part in name.split("."):
        body = body.get(part) if isinstance(body, dict) else None
    return body


def _read(path: Path) -> Iterator[Answer]:
    with path.open("rb") as file:
        first = file.readline(MAX_LINE)
        if not _is_script(first, path):
            try:
                yield from replay(path)
            except ValueError as exc:
                raise ValueError(f"{path}: neither a script nor a recording: {exc}") from exc
            return
        number = 1
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if line.strip():
                yield _answer(line, f"{path}, line {number}")


def _is_script(line: bytes, path: Path) -> bool:
    try:
        data = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    if not isinstance(data, dict) or "script" not in data:
        return False
    if data["script"] != 1:
        raise ValueError(f"{path}: unknown version of a script")
    return True


def _answer(line: bytes, place: str) -> ScriptedAnswer:
    if len(line) > MAX_LINE:
        raise ValueError(f"{place}: longer than {MAX_LINE:,} bytes")
    try:
        answer = _decode(line)
        answer.struck_by()
        for name in ("ttft", "itl"):
            if (given := getattr(answer, name)) is not None:
                distribution(given, name)
    except (ValueError, UnicodeDecodeError) as exc:  # msgspec's errors are ValueErrors
        raise ValueError(f"{place}: {exc}") from exc
    return answer
