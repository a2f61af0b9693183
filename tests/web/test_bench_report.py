"""The report of a benchmark in a real browser: it draws, asks for nothing, and runs no one's words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numpy", reason="needs the extra [cli]")
pytest.importorskip("plotly", reason="needs the extra [report]")

from trio_minillm._bench.figures.objective import Objective
from trio_minillm._bench.output.curves import CurveMaker
from trio_minillm._bench.output.html import Page, html_of
from trio_minillm._bench.output.table import result_table, rows_of
from trio_minillm._bench.plan import Closed
from trio_minillm._bench.record import Record
from trio_minillm._bench.run import Result

from ..support.bench_results import failed, many, point, result

BROWSER = os.environ.get("TRIO_MINILLM_BROWSER", "")
pytestmark = pytest.mark.skipif(not BROWSER, reason="TRIO_MINILLM_BROWSER names no browser")
EVIL = "</script><script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as run:
        # The tests may run as root, in a container with a small /dev/shm.
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        opened = run.chromium.launch(executable_path=BROWSER, args=options)
        yield opened
        opened.close()


def page_of(tmp_path: Path, loads: list[list[Record]], found: dict[str, Any] | None = None) -> Path:
    maker, points = CurveMaker(), []
    objective = Objective(share=0.9, limits={"ttft": 0.4})
    for number, records in enumerate(loads):
        for record in records:
            maker.add(number, record)
        load = Closed(concurrency=2**number)
        points.append(point(records, load, objective=objective, notes=(EVIL,)))
    maker.finish()
    made = result(*points, model=EVIL)
    made = Result(version="1", at=made.at, config=made.config, points=made.points, found=found)
    rows = [*rows_of(points[0]), ("note", EVIL)]
    page = Page(table=result_table(made), rows=rows, verdict=[EVIL])
    path = tmp_path / "report.html"
    path.write_text(html_of(made, maker.made, page), "utf-8")
    return path


class Opened:
    """A report in a tab, with all that it said and asked for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.tab = browser.new_page(viewport={"width": 900, "height": 700}, **options)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.tab.on("console", lambda message: self.said.append(message.text))
        self.tab.on("pageerror", lambda error: self.said.append(str(error)))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(path.as_uri())
        self.wait(len(self.visible()))

    def visible(self) -> list[Any]:
        return [p for p in self.tab.query_selector_all(".plot") if p.is_visible()]

    def wait(self, drawn: int) -> None:
        # The policy of the page forbids what Playwright's functions are made of.
        self.tab.wait_for_selector(f'html[data-drawn="{drawn}"]')

    def traces(self) -> list[int]:
        """The numbers of lines and clouds that each visible plot has drawn."""
        count = "p => p.querySelectorAll('.scatterlayer .trace').length"
        return [place.evaluate(count) for place in self.visible()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_plots_of_one_load(browser: Any, tmp_path: Path, scheme: str) -> None:
    path = page_of(tmp_path, [[*many(80), failed(80, EVIL)]])
    opened = Opened(browser, path, color_scheme=scheme)
    assert opened.traces() == [1, 1, 1, 5, 1 + 2, 3]
    assert (opened.said, opened.asked) == ([], [path.as_uri()])
    assert opened.tab.title() != "run"
    assert opened.tab.query_selector("img") is None
    assert EVIL in opened.tab.inner_text("h1")
    text = opened.tab.evaluate("getComputedStyle(document.querySelector('.xtick text')).fill")
    assert text == {"light": "rgb(26, 29, 33)", "dark": "rgb(232, 234, 237)"}[scheme]


def test_the_plots_of_several_loads(browser: Any, tmp_path: Path) -> None:
    loads = [many(60, slower=slower) for slower in (0.7, 1.0, 1.6)]
    opened = Opened(browser, page_of(tmp_path, loads, {"over": "concurrency", "load": 2.0}))
    # TTFT, speed and goodput by load, three distributions, and the newest load's own plots.
    assert opened.traces()[:6] == [2, 1, 1, 3, 3, 3]
    assert "found: 2" in opened.tab.inner_text("main")
    before = len(opened.visible())
    opened.tab.query_selector("details:not([open]) summary").click()
    opened.wait(before + 3)
    assert (opened.said, len(opened.asked)) == ([], 1)


def test_it_prints_all_its_plots_in_dark_on_light(browser: Any, tmp_path: Path) -> None:
    loads = [many(30), many(30, slower=2.0)]
    opened = Opened(browser, page_of(tmp_path, loads), color_scheme="dark")
    every = len(opened.tab.query_selector_all(".plot"))
    assert len(opened.visible()) < every
    data = opened.tab.pdf()
    assert data.startswith(b"%PDF")
    assert opened.tab.evaluate("document.documentElement.dataset.drawn") == str(every)
    assert len(opened.visible()) < every


def test_no_script_of_others_and_no_request_is_allowed(browser: Any, tmp_path: Path) -> None:
    path = page_of(tmp_path, [many(10)])
    planted = "<script>document.title='run'</script><img src='http://127.0.0.1:1/x.png'>"
    path.write_text(path.read_text("utf-8").replace("</main>", f"{planted}</main>"), "utf-8")
    opened = Opened(browser, path)
    opened.tab.evaluate("fetch('http://127.0.0.1:1/').catch(() => 0)")
    assert opened.tab.title() != "run"
    assert len([text for text in opened.said if "Content Security Policy" in text]) >= 3
