"""The site in a real browser, from files: it reads at both widths, searches, and asks for nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support.paths import REPOSITORY

BROWSER = os.environ.get("TRIO_MINILLM_BROWSER", "")
pytestmark = pytest.mark.skipif(not BROWSER, reason="TRIO_MINILLM_BROWSER names no browser")
WIDTHS = {"desk": (1280, 900), "phone": (390, 844)}
PAGES = (
    "index",
    "start/quickstart",
    "streaming/stopping",
    "batches/batches",
    "proof/reliability",
    "servers/servers",
    "reference/api",
)
QUESTIONS = {
    "stop after 10 seconds": "streaming/stopping",
    "cut answer": "concepts/endings",
    "resume a batch": "batches/batches",
    "private model": "money/prices",
    "without a network": "testing/testing",
    "proxy": "deploying/transport",
}
"""What people look for, and the page that must be among the first that the search finds."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("zensical", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("zensical is not installed")
    folder = tmp_path_factory.mktemp("site")
    for name in ("zensical.toml", "CHANGELOG.md"):
        shutil.copy(REPOSITORY / name, folder)
    for name in ("docs", "examples", "trio_minillm"):
        shutil.copytree(REPOSITORY / name, folder / name)
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--strict"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as run:
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        opened = run.chromium.launch(executable_path=BROWSER, args=options)
        yield opened
        opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_read_without_a_network(
    site: Path, browser: Any, page: str, width: str, scheme: str
) -> None:
    across, down = WIDTHS[width]
    tab = browser.new_page(viewport={"width": across, "height": down}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    tab.on(
        "console", lambda message: said.append(message.text) if message.type == "error" else None
    )
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto((site / f"{page}.html").as_uri())
    assert tab.locator("h1").first.is_visible()
    assert tab.evaluate("document.documentElement.scrollWidth") <= across
    shade = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, shade.strip("rgba()").split(",")[:3])) < 128) == (scheme == "dark")
    if folder := os.environ.get("TRIO_MINILLM_SCREENSHOTS"):
        tab.screenshot(path=str(Path(folder, f"{page.replace('/', '-')}-{width}-{scheme}.png")))
    tab.close()
    assert not said
    assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_search_finds_what_people_look_for(site: Path, browser: Any, question: str) -> None:
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.goto((site / "index.html").as_uri())
    tab.keyboard.press("Control+k")
    tab.keyboard.type(question)
    results = tab.locator("a[href*='?h=']:visible")
    results.first.wait_for()
    links = [link.get_attribute("href") or "" for link in results.all()[:5]]
    tab.close()
    assert any(QUESTIONS[question] in link for link in links), links
