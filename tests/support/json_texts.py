"""JSON for property tests: values, texts of them, texts that are almost JSON, and cuts."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

TEXTS = st.text(
    st.sampled_from('ab"\\/\n\té😀\u2028{}[],: 1') | st.characters(exclude_categories=["Cs"]),
    max_size=12,
)
NAMES = st.text(st.sampled_from('ab"\\é😀'), max_size=4)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=5)


@st.composite
def texts_of(draw: Any, values: Any = VALUES) -> tuple[Any, str]:
    """A value and one of its texts."""
    value = draw(values)
    ascii, indent = draw(st.booleans()), draw(st.sampled_from([None, 1]))
    text = json.dumps(value, ensure_ascii=ascii, indent=indent)
    return value, draw(st.sampled_from(["", " ", "\n"])) + text + draw(st.sampled_from(["", "\n"]))


@st.composite
def almost(draw: Any, values: Any = VALUES) -> str:
    """A text of JSON in which a character or two were changed."""
    _, text = draw(texts_of(values))
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(text)))
        new = draw(st.sampled_from(["", *'{}[]",:\\u01d8a-.e\n tfn']))
        text = text[:at] + new + text[at + draw(st.integers(0, 1)) :]
    return text


@st.composite
def cut(draw: Any, text: str) -> list[str]:
    """The text in pieces, cut at a few places or everywhere."""
    if draw(st.integers(0, 4)) == 0:
        return list(text)
    places = draw(st.lists(st.integers(0, len(text)), max_size=6))
    return [text[a:b] for a, b in pairwise([0, *sorted(places), len(text)])]
