"""Prompts out of a file or a folder, in whatever form: what ``batch`` reads, conversations, text, or only
their lengths.

The form is told by the name (``.csv``, ``.tsv``, ``.parquet``; ``.gz`` and ``.zst`` don't count) and
then by the beginning: JSON is never sent as lines of text, whatever the file is called.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from ..._accounting.record import CostRecord
from ..._batch.files.columns import Columns
from ..._batch.files.request_format import JSON_FIELDS, RequestReader
from ..._batch.files.rows import MAX_LINE, Row, format_of, rows_of
from ..._batch.files.unpacked import DamagedError, opened
from ..._batch.types import BatchRequest
from ..._types.messages import Message, TextPart
from ..._types.openai_messages import messages_of
from ..._types.response import Outcome
from ...providers import Model
from .collected import MAX_TOKENS, Collected, PromptError, Shape
from .conversations import FIELDS, conversation_of
from .prompt import OWN_WORDS, Prompt

Form = Literal["jsonl", "json", "csv", "tsv", "parquet", "text"]
"""Form of a file: JSON lines, one JSON array, a table, or a prompt on each line."""
FORMS: tuple[str, ...] = get_args(Form)

MAX_ARRAY = 1 << 30
"""Bytes of the largest JSON array, unpacked: it is read whole. The largest of ShareGPT's has 700 MB."""
_BEGINNING = 1 << 16
"""Bytes of a file's beginning by which its form is told."""
_LENGTH = "input_length"
"""Field of a row that says that it tells a request's lengths, as in Mooncake's traces."""
_OURS = ("prompt", "messages", "body", "params", "request")
"""Fields of which a line that was made for this reader has one."""
_LEDGER = {"key", "at", "outcome", "booked"}
"""Fields of a line of a ledger."""
_OBJECT, _ARRAY = re.compile(rb'\s*\{\s*"'), re.compile(rb"\s*\[\s*[{\]]")
_RECORDING = re.compile(rb'\s*\{\s*"recording"\s*:')


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The way in which prompts are read."""

    model: Model
    """A model on the wire format to which all of them go. Those that the lines name are passed over."""
    params: Mapping[str, Any] = {}
    """Parameters of all requests; those of a line come before them."""
    prompt: str | None = None
    """Column that holds the prompt."""
    system: str | None = None
    """Column that holds a system message."""
    form: Form | None = None
    """Form of the file, if it is not to be told by itself."""
    turns: int = 1
    """Most turns of a conversation."""
    count: Callable[[str], int] | None = None
    """A function that counts tokens, if answers are to be as long as those of recorded conversations."""
    unique: bool = False
    """True if each request gets a beginning of its own."""
    most: int | None = None
    """Prompts that will be sent: no more are read."""


def read_prompts(path: Path, reading: Reading) -> Collected:
    """Return the prompts of a file, or of all files of a folder in the order of their names.

    Raises `PromptError`, which says where the fault is, `OSError`, and `ImportError` for an extra that
    is missing.
    """
    found = Collected(reading.most)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    else:
        files = [path]
        if not path.is_file():
            path.stat()  # raises if there is no such file
            raise PromptError(f"{path}: not a regular file; prompts can't come from a pipe")
    reader = _Reader(reading)
    for file in files:
        if found.full:
            break
        try:
            reader.read(file, found)
        except (PromptError, DamagedError) as exc:
            raise PromptError(f"{file}: {exc}") from None
    try:
        found.check()
    except PromptError as exc:
        raise PromptError(f"{path}: {exc}") from None
    return found


def form_of(path: Path) -> Form | Literal["recording"]:
    """Return the form of a file, by its name and its beginning."""
    named = format_of(path)
    if named != "jsonl":
        return named
    with opened(path) as file:
        beginning = file.read(_BEGINNING).removeprefix(b"\xef\xbb\xbf")
    if _RECORDING.match(beginning):
        return "recording"
    if _OBJECT.match(beginning):
        return "jsonl"
    if _ARRAY.match(beginning):
        return "json"
    suffixes = {suffix.lower() for suffix in path.suffixes}
    if suffixes & {".jsonl", ".ndjson", ".json"}:
        return "json" if ".json" in suffixes else "jsonl"
    return "text"


class _Reader:
    """Reads files one after the other, each row as ``batch`` does."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._requests = RequestReader(
            model_of=lambda name: reading.model, params=dict(reading.params)
        )
        self._columns: Columns | None = None
        if (reading.prompt, reading.system) != (None, None):
            self._columns = Columns(
                key=None, prompt=reading.prompt, system=reading.system, strict=False
            )

    def read(self, path: Path, found: Collected) -> None:
        form = self._reading.form or form_of(path)
        if form == "recording":
            found.recordings.append(path)
            return
        if form == "text":
            if self._columns is not None:
                raise PromptError("a text file has no columns")
            for text in _lines(path):
                self._keep(Prompt(messages=text), found)
                if found.full:
                    return
            return
        columns = self._columns
        json = JSON_FIELDS if columns is None else columns.json
        rows = _items(path) if form == "json" else rows_of(path, form, json)
        for number, row in rows:
            try:
                self._take(number, row, found)
            except ValueError as exc:
                place = "item" if form == "json" else "line"
                raise PromptError(f"{place} {number:,}: {exc}{self._hint(row)}") from None
            if found.full:
                return
        if columns is not None and (what := columns.missing()) is not None:
            raise PromptError(what)

    def _hint(self, row: dict[str, Any] | str) -> str:
        """Return what a dataset whose columns were not named needs, for the end of an error."""
        if self._columns is not None or isinstance(row, str) or not row.keys().isdisjoint(_OURS):
            return ""
        return "; name the column with the prompt with --prompt-column"

    def _take(self, number: int, row: dict[str, Any] | str, found: Collected) -> None:
        """Keep what a row stands for. Raises ``ValueError``."""
        if isinstance(row, str):
            raise PromptError(row)
        shape: Shape | None
        if self._columns is None and _LENGTH in row:
            found.add_shape(_shape_of(row))
        elif self._columns is None and row.keys() >= _LEDGER:
            if (shape := _booked_shape(row)) is not None:
                found.add_shape(shape)
        elif (prompt := self._prompt(number, row)) is not None:
            self._keep(prompt, found)

    def _keep(self, prompt: Prompt, found: Collected) -> None:
        if self._reading.unique:
            prompt = msgspec.structs.replace(prompt, own=(0, OWN_WORDS))
        found.add(prompt)

    def _prompt(self, number: int, row: dict[str, Any]) -> Prompt | None:
        """Return the prompt of a row, which needs no key here. Raises ``ValueError``."""
        reading = self._reading
        if self._columns is None and not row.keys().isdisjoint(FIELDS):
            return conversation_of(row, reading.turns, reading.count)
        line = row if self._columns is None else self._columns.line(number, row)
        line = {name: value for name, value in line.items() if name != "key"}
        request, shape = self._requests.read({**line, "custom_id": str(number)})
        self._requests.check(request, shape)
        return _prompt_of(request, reading)


def _shape_of(row: Mapping[str, Any]) -> Shape:
    """Return the lengths in a row of a trace."""
    tokens, output, ids = row[_LENGTH], row.get("output_length"), row.get("hash_ids") or []
    numbers = [tokens, *([] if output is None else [output])]
    if not all(type(n) is int and 0 < n <= MAX_TOKENS for n in numbers):
        raise ValueError(f"lengths must be whole numbers of tokens, from 1 to {MAX_TOKENS:,}")
    if not isinstance(ids, list) or not all(type(n) is int for n in ids):
        raise ValueError("hash_ids must be a list of whole numbers")
    return Shape(tokens=tokens, output=output, blocks=tuple(ids))


def _booked_shape(row: Mapping[str, Any]) -> Shape | None:
    """Return the lengths of an attempt in a ledger, ``None`` if its answer was not whole or has no usage."""
    try:
        record = msgspec.convert(row, CostRecord, strict=False)
    except msgspec.ValidationError:
        raise ValueError("not a line of a ledger") from None
    usage = record.usage
    if record.outcome != Outcome.FINISHED or usage is None:
        return None
    if not usage.prompt_tokens or not usage.completion_tokens:
        return None
    return Shape(tokens=usage.prompt_tokens, output=usage.completion_tokens)


def _prompt_of(request: BatchRequest, reading: Reading) -> Prompt:
    """Return a request as a prompt, with the parameters that are its own."""
    given = reading.params
    messages = messages_of(request.messages)
    own = {k: v for k, v in request.params.items() if k not in given or given[k] != v}
    if request.extra:
        own["extra"] = dict(request.extra)
    if reading.unique and not any(isinstance(part, TextPart) for part in messages[0].parts):
        raise ValueError("--unique needs a first message with text")
    return Prompt(messages=_as_text(messages) or messages, params=own)


def _as_text(messages: tuple[Message, ...]) -> str:
    """Return the text of a prompt that is nothing else, or an empty text."""
    only = messages[0]
    if len(messages) > 1 or only.role != "user" or only.name is not None or len(only.parts) != 1:
        return ""
    (part,) = only.parts
    return part.text if isinstance(part, TextPart) and part == TextPart(part.text) else ""


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file of text that are not blank."""
    with opened(path) as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise PromptError(f"line {number:,}: longer than {MAX_LINE:,} bytes")
            try:
                text = line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").decode().strip()
            except UnicodeDecodeError:
                raise PromptError(f"line {number:,}: not UTF-8") from None
            if text:
                yield text


def _items(path: Path) -> Iterator[Row]:
    """Yield the objects of a JSON array: the number of each, and its fields or the words for a fault."""
    with opened(path) as file:
        pieces = bytearray()
        while piece := file.read(1 << 20):
            pieces += piece
            if len(pieces) > MAX_ARRAY:
                raise PromptError(
                    f"longer than {MAX_ARRAY >> 20:,} MiB; use JSON lines, which have no limit"
                )
    text = bytes(pieces).removeprefix(b"\xef\xbb\xbf")
    try:
        items = msgspec.json.decode(text, type=list[msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise PromptError("neither JSON lines nor a JSON array") from None
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    for number, item in enumerate(items, 1):
        try:
            yield number, decode(item)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            yield number, "not a JSON object"
