"""JSON of another shape than a wire format declares, read as far as it can be.

Servers differ from the reference in fields that nobody needs, and a strict decoder would lose an
answer to each. So an event that the strict decoder refuses is decoded as plain JSON and read here,
field by field:

- A field of the answer itself (text, calls, reasons) is read where its meaning is plain: a number
  where text belongs is its digits, an object where a list belongs is a list of one. Anything else
  raises `ProtocolError`, which names the place.
- A field beside the answer is read alike, or else left out, and its name is put on a list.

The digits of numbers are kept as they were sent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NoReturn, TypeAlias, TypeVar

import msgspec

from .._types.errors import ProtocolError

Reader: TypeAlias = Callable[[Any, str, list[str]], Any]
"""Reads a value: takes it, its place in words, and the list of what was left out."""

_Struct = TypeVar("_Struct", bound=msgspec.Struct)


LONGEST_NUMBER = 400
"""Digits from which on a whole number is kept as digits: a float could not hold it, and making one
of 4,300 takes Python too long for its own taste."""

MOST_VALUES = 2**17
"""Commas, colons and opening brackets in JSON that is read here: 131,072. Making Python objects of
it field by field takes up to half a microsecond for each, in which no other task has its turn."""


class Digits(str):
    """A number that is not whole, or too long, or ``NaN``, as it was sent."""

    __slots__ = ()


_decode = msgspec.json.Decoder(float_hook=Digits).decode


def loose_object(data: bytes, left_out: list[str]) -> Mapping[str, Any]:
    """Decode a JSON object as `loose_json` does; a list of one object is that object.

    Raises `ProtocolError` for any other JSON, and for more than `MOST_VALUES`.
    """
    if len(data) > MOST_VALUES and sum(map(data.count, b",:{[")) > MOST_VALUES:
        raise ProtocolError(f"JSON of an unusual shape has more than {MOST_VALUES:,} values")
    found = loose_json(data)
    if not _is_utf8(data):
        left_out.append("bytes that are not UTF-8")
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, Mapping):
        raise ProtocolError("the event is not an object")
    return found


def loose_json(data: bytes) -> Any:
    """Decode JSON, also with what strict decoders refuse and servers send all the same.

    That is ``NaN`` and ``Infinity``, control characters and half a surrogate pair in
    strings, and bytes that are not UTF-8 (replaced by U+FFFD). Raises `msgspec.DecodeError` for
    anything else.
    """
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeError):
        text = data.decode("utf-8", "replace")
        try:
            return _loads(text, strict=False)
        except ValueError as exc:
            raise msgspec.DecodeError("JSON is malformed") from exc


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _whole_number(digits: str) -> int | Digits:
    return int(digits) if len(digits) <= LONGEST_NUMBER else Digits(digits)


_loads = partial(json.loads, parse_int=_whole_number, parse_float=Digits, parse_constant=Digits)


def fields(into: type[_Struct], readers: Mapping[str, Reader]) -> Reader:
    """Return a reader of objects: each field that has a reader, as the struct ``into``."""
    names = dict(zip(into.__struct_encode_fields__, into.__struct_fields__, strict=True))

    def read(value: Any, where: str, left_out: list[str]) -> Any:
        if value is None:
            return None
        if value in ([], [None], "", False):  # PHP's empty object, and others'
            return into()
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if not isinstance(value, Mapping):
            _refuse(where, "an object")
        prefix = f"{where}." if where else ""
        found = {k: v for k in readers if (v := value.get(k)) is not None}
        return into(**{names[k]: readers[k](v, f"{prefix}{k}", left_out) for k, v in found.items()})

    return read


def each(reader: Reader, most: int) -> Reader:
    """Return a reader of lists; an object in place of a list is a list of one.

    Raises `ProtocolError` for more than ``most`` entries.
    """

    def read(value: Any, where: str, left_out: list[str]) -> Any:
        if isinstance(value, Mapping):
            numbered = bool(value) and all(key.isdecimal() for key in value)  # PHP's list
            value = list(value.values()) if numbered else [value]
        if value in ("", False):
            return []
        if not isinstance(value, list):
            _refuse(where, "a list")
        if len(value) > most:
            raise ProtocolError(f"{where} has more than {most:,} entries")
        found = [reader(entry, f"{where}[]", left_out) for entry in value]
        return [entry for entry in found if entry is not None]

    return read


_EMPTY: tuple[Any, ...] = (None, [], {})
"""Values that stand for no text, of another type or not."""


def piece(value: Any, where: str, left_out: list[str]) -> str | None:
    """Read a piece of the answer's text; a number is its digits.

    It may begin or end with half of a surrogate pair, whose other half is in another piece.
    """
    found = _scalar(value)
    if found is None and value not in _EMPTY:
        _refuse(where, "text")
    return found


def side_piece(value: Any, where: str, left_out: list[str]) -> str | None:
    """Read a piece of text beside the answer, such as reasoning."""
    found = _scalar(value)
    if found is None and value not in _EMPTY:
        left_out.append(where)
    return found


def text(value: Any, where: str, left_out: list[str]) -> str | None:
    """Read a whole text of the answer, such as a name."""
    found = piece(value, where, left_out)
    return None if found is None else _without_halves(found)


def side_text(value: Any, where: str, left_out: list[str]) -> str | None:
    """Read a whole text beside the answer."""
    found = side_piece(value, where, left_out)
    return None if found is None else _without_halves(found)


def word(value: Any, where: str, left_out: list[str]) -> Any:
    """Read a word that is text or nothing, such as a type."""
    if isinstance(value, str) and not isinstance(value, Digits):
        return _without_halves(value)
    left_out.append(where)
    return ""


def side_object(value: Any, where: str, left_out: list[str]) -> dict[str, Any] | None:
    """Read an object beside the answer."""
    if isinstance(value, dict):
        return dict(clean(value))
    if value not in (None, [], "", False):
        left_out.append(where)
    return None


def side_objects(value: Any, where: str, left_out: list[str]) -> list[dict[str, Any]]:
    """Read a list of objects beside the answer; entries that are none are left out."""
    entries = value if isinstance(value, list) else [value]
    found = [clean(entry) for entry in entries if isinstance(entry, dict)]
    if len(found) < len(entries) and value not in (None, "", False):
        left_out.append(where)
    return found


def number(value: Any, where: str, left_out: list[str]) -> int | None:
    """Read a position in a list; what is none counts as absent."""
    if isinstance(value, str) and value.removesuffix(".0").isdecimal() and len(value) < 12:
        return int(value.removesuffix(".0"))
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return value
    left_out.append(where)
    return None


def anything(value: Any, where: str, left_out: list[str]) -> Any:
    """Take a value as it is."""
    return clean(value)


def said(value: Any, where: str, left_out: list[str]) -> Any:
    """Take a piece of the answer's text as `piece` does, and whatever holds text as it is."""
    found = _scalar(value)
    return clean(value) if found is None else found


def raw(value: Any, where: str, left_out: list[str]) -> msgspec.Raw:
    """Take a value as its JSON."""
    return msgspec.Raw(msgspec.json.encode(clean(value)))


def clean(value: Any) -> Any:
    """Return a value as a strict decoder would have made it: numbers as numbers, ``NaN`` as null, and
    no half of a surrogate pair, which could not be encoded.
    """
    if isinstance(value, Digits):
        number = float(value)
        return number if math.isfinite(number) else None
    if isinstance(value, str):
        return _without_halves(value)
    if isinstance(value, Mapping):
        return {_without_halves(k): clean(v) for k, v in value.items()}
    return [clean(entry) for entry in value] if isinstance(value, list) else value


def _without_halves(text: str) -> str:
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _scalar(value: Any) -> str | None:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else None


def _refuse(where: str, wanted: str) -> NoReturn:
    raise ProtocolError(f"{where or 'the event'} is not {wanted}")
