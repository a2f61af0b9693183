"""The documentation is readable: short pages, plain sentences, and the field's own words."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import pytest

from .support.paths import DOCS
from .support.paths import REPOSITORY as ROOT
from .support.wording import HARDEST, INSTEAD, MOST_WORDS, USUAL, grade, plain

ABOUT_WORDS = "style.md"
"""The page that quotes what others must not say."""
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")),
    *sorted(DOCS.rglob("*.md")),
]
page = pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)


@page
def test_a_page_is_not_long(path: Path) -> None:
    if path.name != "CHANGELOG.md":
        assert len(plain(path.read_text(encoding="utf-8")).split()) <= MOST_WORDS


@page
def test_a_page_says_it_in_the_fields_words(path: Path) -> None:
    if path.name == ABOUT_WORDS:
        return
    text = plain(path.read_text(encoding="utf-8"))
    found = {
        found[0]: instead
        for pattern, instead in INSTEAD.items()
        if (found := re.search(rf"(?i)[^.\n]{{0,40}}{pattern}", text))
    }
    assert not found


def grades() -> dict[str, float]:
    pytest.importorskip("pyphen")
    texts = {path.name: plain(path.read_text(encoding="utf-8")) for path in PAGES}
    return {name: grade(text) for name, text in texts.items() if len(text.split()) > 30}


def test_no_page_is_hard_to_read() -> None:
    found = grades()
    assert not {name: hard for name, hard in found.items() if hard > HARDEST}
    assert statistics.median(found.values()) <= USUAL


def test_the_grade_tells_long_sentences_and_long_words() -> None:
    pytest.importorskip("pyphen")
    easy = "The client reads the stream. It stops when you leave the block."
    hard = (
        "Notwithstanding considerable heterogeneity, organisational interoperability requirements "
        "necessitate comprehensive implementation considerations throughout."
    )
    assert grade(easy) < 5
    assert grade(hard) > 15


def test_words_in_code_and_tables_do_not_count() -> None:
    text = "# Head\n\n| a | b |\n| --- | --- |\n\n```python\nx = 1\n```\n\n- One [link](a.md).\n- `two` things"
    assert plain(text) == "One link.\ncode things."
