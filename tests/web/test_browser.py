"""The page in a real browser: words appear one after another, and a closed tab ends the upstream."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import pytest

from ..support.paths import doc
from .conftest import Server

BROWSER = os.environ.get("TRIO_MINILLM_BROWSER", "")
pytestmark = pytest.mark.skipif(not BROWSER, reason="TRIO_MINILLM_BROWSER names no browser")
MOST = 0.1
"""Seconds from the closing of a tab until the model's server sees its connection closed, in the median: a
browser that shares two cores with other tests takes longer for one tab or another."""
TABS = 10


@pytest.fixture
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as run:
        # The tests may run as root, in a container with a small /dev/shm.
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        opened = run.chromium.launch(executable_path=BROWSER, args=options)
        yield opened
        opened.close()


def ask(browser: Any, server: Server, question: str = "Why is the sea salty?") -> Any:
    page = browser.new_page(viewport={"width": 640, "height": 420})
    page.goto(server.url)
    page.fill("#question", question)
    page.click("form button")
    page.wait_for_function("document.getElementById('answer').textContent.includes('word 3')")
    return page


def test_words_appear_one_after_another(browser: Any, server: Server) -> None:
    page = ask(browser, server)
    lengths = []
    for _ in range(20):
        lengths.append(len(page.text_content("#answer")))
        time.sleep(0.05)
    assert lengths == sorted(lengths)
    assert len(set(lengths)) > 10  # it grew all the time
    if os.environ.get("TRIO_MINILLM_WRITE"):
        page.screenshot(path=str(doc("web.png")))
    page.wait_for_function("document.getElementById('state').textContent.includes('finished')")
    words = "".join(f"word {n} of the answer, " for n in range(40))
    assert page.text_content("#answer") == words
    assert page.text_content("#state") == "40 pieces, 47 tokens, finished"


def test_a_second_page_joins_from_the_beginning(browser: Any, server: Server) -> None:
    first = ask(browser, server)
    second = browser.new_page()
    second.goto(f"{server.url}/#live")
    for page in (second, first):
        page.wait_for_function("document.getElementById('state').textContent.includes('finished')")
    assert second.text_content("#answer") == first.text_content("#answer")


@pytest.mark.parametrize("question", ["Why is the sea salty?", "Fall silent."])
@pytest.mark.parametrize("how", ["close", "stop", "leave"])
def test_the_upstream_is_cancelled_with_the_tab(
    browser: Any, server: Server, how: str, question: str
) -> None:
    """Check that it is, also while the model says nothing, so that no sending can fail."""
    seconds = []
    for _ in range(TABS):
        page = ask(browser, server, question)
        server.told("asked")
        begun = time.monotonic()
        if how == "close":
            page.close()
        elif how == "stop":
            page.evaluate("document.getElementById('stop').click()")
        else:
            page.goto("about:blank")
        seconds.append(server.told("closed")["at"] - begun)
    print(
        f"{question} {how}: median {median(seconds) * 1e3:.0f} ms, most {max(seconds) * 1e3:.0f} ms"
    )
    assert median(seconds) < MOST
