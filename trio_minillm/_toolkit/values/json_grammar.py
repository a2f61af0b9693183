"""The expressions of JSON by which text is read while it arrives.

All are possessive: nothing in them goes back, and each takes time in proportion to its text.
"""

from __future__ import annotations

import re
from functools import cache
from json import JSONDecoder
from typing import Final, NamedTuple

_SPACE = r"[ \t\n\r]*+"
_ESCAPE = (
    r'\\(?:["\\/bfnrt]|u(?:(?![dD][89a-fA-F])[0-9a-fA-F]{4}'
    r"|[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}))"
)
"""An escape; half of a surrogate pair alone is none, as in msgspec."""
_BODY = rf'(?:[^"\\\x00-\x1f]++|{_ESCAPE})*+'
_LOOSE_BODY = rf'(?:[^"\\]++|{_ESCAPE})*+'
CUT_ESCAPE: Final = re.compile(
    r"\\(?:u(?:[0-9a-fA-F]{0,3}"
    r"|[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?)?)?"
)
"""An escape whose end has not come: at most 11 characters."""
_NUMBER = r"-?+(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][-+]?+[0-9]++)?+"
is_number: Final = re.compile(_NUMBER).fullmatch
digits: Final = re.compile(r"[-+.0-9eE]*+").match
space: Final = re.compile(_SPACE).match
_decode: Final = JSONDecoder(strict=False).raw_decode


def unescaped(body: str) -> str:
    """Return the text of what stands between the quotation marks of a string, whose escapes are right."""
    text: str = _decode(f'"{body}"')[0] if "\\" in body else body
    return text


class Grammar(NamedTuple):
    """The expressions for strings, and for what needs no look at each of its parts."""

    body: re.Pattern[str]
    """The text of a string, as far as it has come."""
    whole: re.Pattern[str]
    """An object or a list that is whole, and in which not more than two levels are nested."""
    members: re.Pattern[str]
    """Members of an object that are no objects or lists, each with the comma behind it."""
    items: re.Pattern[str]
    """The same in a list."""


@cache
def grammar(*, loose: bool) -> Grammar:
    """Return the expressions; loose ones let control characters stand in strings."""
    body = _LOOSE_BODY if loose else _BODY
    name = rf'"{body}"{_SPACE}:{_SPACE}'
    scalar = rf'(?:"{body}"|{_NUMBER}|true|false|null)'

    def holding(value: str) -> str:
        fields = rf'{name}{value}{_SPACE}(?:,{_SPACE}(?=")|(?=\}}))'
        items = rf"{value}{_SPACE}(?:,{_SPACE}(?!\])|(?=\]))"
        return rf"(?:\{{{_SPACE}(?:{fields})*+\}}|\[{_SPACE}(?:{items})*+\])"

    return Grammar(
        re.compile(body),
        re.compile(holding(rf"(?:{scalar}|{holding(scalar)})")),
        re.compile(rf"(?:{_SPACE}{name}{scalar}{_SPACE},)*+"),
        re.compile(rf"(?:{_SPACE}{scalar}{_SPACE},)*+"),
    )
