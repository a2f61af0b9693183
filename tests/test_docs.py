"""The documentation is true: every example runs, every table agrees with the code.

A block marked ``python`` is executed as it stands, with ``await`` allowed at its top level.
The blocks of a page run in order and share their names; `trio`, `llm`, `model` and an open
`client` are there from the start. `llm.open_client` without a transport reaches `Server`, which
answers on all wires; a comment before a block, ``<!-- server: cut -->``, makes it fail that
way. Blocks that open a local model get the real one. What a line prints stands behind it, as
``#> 42``, with ``…`` for anything. Blocks marked ``text`` are not run. Blocks that need a package
which is not installed are left out, and the page counts as skipped.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import inspect
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partialmethod
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import trio
import trio.testing

import trio_minillm as llm
from trio_minillm import batch, local, providers, testing
from trio_minillm._protocol.state import TABLE, Event, State
from trio_minillm._types.cost import WIDER
from trio_minillm._types.params import PARAM_NAMES
from trio_minillm.testing import Reply, ScriptedTransport, hang, reply, settlement, sse

from .support import local_model
from .support.local_model import needs_local_model
from .support.paths import DOCS, doc
from .support.paths import REPOSITORY as ROOT
from .support.vendor_batches import StandIn, StandInTransport

PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")),
    *sorted(DOCS.rglob("*.md")),
]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

page = pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)


def what_is_missing(text: str) -> str:
    """Return the reason why a block can't be run here, or an empty string if it can."""
    if "open_local" in text:
        return local_model.missing()
    if "known_price" in text and importlib.util.find_spec("genai_prices") is None:
        return "genai-prices is not installed (extra: prices)"
    if re.search(r"(?m)^(?:import|from) (?:google|azure|botocore)\b", text):
        return "the ways to the clouds are run in tests/http/test_clouds.py"
    if "from opentelemetry.sdk" in text and importlib.util.find_spec("opentelemetry.sdk") is None:
        return "opentelemetry-sdk is not installed"
    for name in ("pandas", "polars", "pyarrow"):
        needed = f"import {name}" in text or (name == "pyarrow" and "write_table" in text)
        if needed and importlib.util.find_spec(name) is None:
            return f"{name} is not installed"
    return ""


# -- the server behind the examples ------------------------------------------------------------

TEXT = ("Rivers carry salt ", "to the sea, ", "and it stays there.")
CALLS = {"weather": '{"city": "Paris"}', "Search": '{"words": ["trio"]}'}
"""The arguments of the call that is made of each tool."""
ANSWERS = {
    "City": '{"name": "Paris", "people": 2100000}',
    "list": '{"answer": [{"name": "Paris", "people": 2100000}]}',
}
"""The answer in each schema, by its name or title."""


class Server(httpx.AsyncBaseTransport):
    """Answers like a model: a call where tools are offered, JSON where a schema is given.

    As OpenRouter it names each generation in a header, and what it cost when it is asked for
    the third time.
    """

    def __init__(self, mood: str = "") -> None:
        assert mood in ("", "cut", "once", "refused", "silent", "slow", "uncounted", "unsettled"), (
            mood
        )
        self.mood = mood
        self.requests = 0
        self.questions = Counter[str]()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        if request.method == "GET":
            assert url.path.endswith("/generation"), url
            answer = self._settlement(url.params["id"])
            return await ScriptedTransport(settlements=[answer]).handle_async_request(request)
        self.requests += 1
        asked, id = json.loads(request.content), f"gen-{self.requests}"
        headers = {"content-type": "text/event-stream"}
        if url.path.endswith("/messages"):
            events = anthropic_events(asked)
        elif "prompt" in asked:
            events = testing.text_events(*TEXT)
        else:
            events = openai_events(asked, id, url.host)
        if url.host == "openrouter.ai":
            headers["x-generation-id"] = id
        transport = ScriptedTransport(self._reply(events, headers))
        return await transport.handle_async_request(request)

    def _reply(self, events: list[bytes], headers: dict[str, str]) -> Reply:
        if self.mood == "refused" or (self.mood == "once" and self.requests == 1):
            status, kind = (401, "authentication_error") if self.mood == "refused" else (503, "")
            error = {"error": {"message": "not now", "type": kind}}
            return reply(json.dumps(error).encode(), status=status)
        steps: list[Any] = events
        if self.mood == "cut":
            steps = [*events[:3], httpx.ReadError("peer closed the connection")]
        elif self.mood == "silent":
            steps = [*events[:3], hang]
        elif self.mood == "uncounted":
            steps = [event for event in events if b'"usage"' not in event]
        elif self.mood in ("slow", "unsettled"):
            steps = [step for event in events for step in (1.0, event)]
        return reply(*steps, headers=headers)

    def _settlement(self, id: str) -> Reply:
        self.questions[id] += 1
        if self.mood == "unsettled" or self.questions[id] < 3:
            return reply(b'{"error": {"message": "not found", "code": 404}}', status=404)
        return settlement(0.000045, id=id)


def served_by(mood: str) -> httpx.AsyncBaseTransport:
    if mood != "batches":
        return Server(mood)
    return StandInTransport(StandIn(key="dummy-key"))


def wanted(asked: dict[str, Any]) -> tuple[str, str, tuple[str, ...]]:
    """Return what to answer: a tool's name and its arguments, or else the pieces of a text."""
    last = asked["messages"][-1]
    answered = last["role"] == "tool" or any(
        isinstance(part, dict) and part["type"] == "tool_result" for part in last["content"]
    )
    if asked.get("tools") and not answered:
        tool = asked["tools"][0]
        name = tool.get("function", tool)["name"]
        return name, CALLS[name], ()
    schema = asked.get("response_format") or asked.get("output_config", {}).get("format")
    if schema:
        schema = schema.get("json_schema", schema)
        return "", "", (ANSWERS[schema.get("name") or schema["schema"]["title"]],)
    return "", "", TEXT


def openai_events(asked: dict[str, Any], id: str, host: str) -> list[bytes]:
    name, arguments, text = wanted(asked)
    head = {"id": id, "model": asked["model"]}
    deltas: list[dict[str, Any]] = [{"content": piece} for piece in text]
    if name:
        function = {"name": name, "arguments": arguments}
        deltas = [{"tool_calls": [{"index": 0, "id": "call_1", "function": function}]}]
    deltas.insert(0, {"role": "assistant", "content": ""})
    choices = [{"index": 0, "delta": delta} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "tool_calls" if name else "stop"})
    usage = {"prompt_tokens": 12, "completion_tokens": 30, "total_tokens": 42}
    usage |= {"prompt_tokens_details": {"cached_tokens": 8}}
    if host == "openrouter.ai":
        usage["cost"] = 0.000123
    events = [sse({**head, "choices": [choice]}) for choice in choices]
    return [*events, sse({**head, "choices": [], "usage": usage}), sse("[DONE]")]


def anthropic_events(asked: dict[str, Any]) -> list[bytes]:
    name, arguments, text = wanted(asked)
    events = testing.anthropic_events(*text, stop="tool_use" if name else "end_turn")
    if name:
        block = {"type": "tool_use", "id": "toolu_1", "name": name, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": arguments}
        events[1:3] = [
            sse({"type": "content_block_start", "index": 0, "content_block": block}),
            sse({"type": "content_block_delta", "index": 0, "delta": delta}),
            sse({"type": "content_block_stop", "index": 0}),
        ]
    return events


# -- blocks ------------------------------------------------------------------------------------


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str
    line: int
    mood: str


FENCE = re.compile(
    r"^(?:<!-- server: (?P<mood>\w+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def blocks(path: Path, language: str = "") -> list[Block]:
    page = path.read_text()
    found = [
        Block(m["language"], m["text"], page[: m.start("text")].count("\n"), m["mood"] or "")
        for m in FENCE.finditer(page)
    ]
    assert page.count("\n```") == 2 * len(found), "a fence is not closed"
    return [b for b in found if not language or b.language == language]


def prose(path: Path) -> str:
    """The page without its blocks."""
    return FENCE.sub("", path.read_text())


def on_one_core(opened: Any) -> Any:
    """By default llama.cpp takes all cores, and crawls when it has to share one."""

    def open_local_server(**options: Any) -> Any:
        return opened(**{**options, "threads": options.get("threads") or 1})

    return open_local_server


async def run_block(code: Any, names: dict[str, Any]) -> None:
    async with llm.open_client() as client:
        names["client"] = client
        await eval(code, names)


def run(path: Path, block: Block, names: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
    """Execute a block. A traceback shows its line in the page."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile("\n" * block.line + block.text, str(path), "exec", flags, dont_inherit=True)
    clock = None
    patch.setattr(local, "open_local_server", on_one_core(local.open_local_server))
    if "open_local" not in block.text:
        clock = trio.testing.MockClock(autojump_threshold=0)
        opened = llm.open_client

        def open_client(**options: Any) -> Any:
            if options.keys().isdisjoint({"transport", "http_client"}):
                options["transport"] = served_by(block.mood)
            return opened(**options)

        patch.setattr(llm, "open_client", open_client)
        if "from_event_source" in block.text:
            served = partialmethod(httpx.AsyncClient.__init__, transport=Server(block.mood))
            patch.setattr(httpx.AsyncClient, "__init__", served)
    if code.co_flags & inspect.CO_COROUTINE:
        trio.run(run_block, code, names, clock=clock)
    else:
        eval(code, names)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with the files that examples name, and an environment with keys.

    An example sets the log's level, which is then set back.
    """
    monkeypatch.chdir(tmp_path)
    Path("photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    Path("report.pdf").write_bytes(b"%PDF-1.7")
    Path("question.wav").write_bytes(b"RIFF\x00\x00\x00\x00WAVE")
    for provider in ("OPENAI", "OPENROUTER", "ANTHROPIC", "GEMINI", "GATEWAY"):
        monkeypatch.setenv(f"{provider}_API_KEY", "dummy-key")
    logger = logging.getLogger("trio_minillm")
    level = logger.level
    yield
    logger.setLevel(level)


def check_output(block: Block, printed: str) -> None:
    """Check that the block printed what it says that it prints, in that order."""
    claims = re.findall(r"#> (.+)$", block.text, re.MULTILINE)
    pattern = "(?s:.*)".join(f"^{re.escape(c).replace('…', '.*')} *$" for c in claims)
    assert re.search(pattern, printed, re.MULTILINE), f"line {block.line}: {printed}"


@page
@pytest.mark.usefixtures("place")
def test_the_examples_of_a_page_run(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "__main__", "trio": trio, "llm": llm}
    names["model"] = llm.openrouter("anthropic/claude-haiku-4.5")
    skipped = ""
    for block in blocks(path, "python"):
        if missing := what_is_missing(block.text):
            skipped = missing
            continue
        with pytest.MonkeyPatch.context() as patch:
            run(path, block, names, patch)
        check_output(block, capsys.readouterr().out)
    if skipped:
        pytest.skip(skipped)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("mood", ["", "uncounted", "cut"])
def test_the_first_program_runs_whatever_comes(
    mood: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a server counts no tokens. A broken stream ends it with that error alone."""
    block = blocks(ROOT / "README.md", "python")[0]._replace(mood=mood)
    broken = pytest.raises(llm.StreamTruncated) if mood == "cut" else nullcontext()
    with broken:
        run(ROOT / "README.md", block, {"__name__": "__main__"}, monkeypatch)
    last = {
        "": "\nfinished, tokens: 42, cost: 0.000123\n",
        "uncounted": "\nfinished, tokens: unknown, cost: None\n",
        "cut": "Rivers carry salt to the sea, ",
    }
    assert capsys.readouterr().out.endswith(last[mood])


@page
def test_every_block_says_what_it_is(path: Path) -> None:
    languages = {"python", "console", "text"}
    assert {b.language for b in blocks(path)} <= languages


ON_ONE_CORE = f"""
import runpy, sys
from typing import Any
from trio_minillm import local
{inspect.getsource(on_one_core)}
local.open_local_server = on_one_core(local.open_local_server)
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


@needs_local_model
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_the_example_scripts_run(path: Path) -> None:
    keyless = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
    done = subprocess.run(
        [sys.executable, "-c", ON_ONE_CORE, str(path)],
        env={**keyless, "PYTHONWARNINGS": "error::ResourceWarning"},
        capture_output=True,
        timeout=120,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert not done.stderr


def test_the_example_scripts_are_short_and_listed() -> None:
    listed = set(re.findall(r"examples/(\w+\.py)", doc("examples.md").read_text()))
    assert {path.name for path in EXAMPLES} == listed
    for path in EXAMPLES:
        assert len(path.read_text().splitlines()) < 50, path.name


# -- commands ----------------------------------------------------------------------------------


def commands(path: Path) -> Iterator[list[str]]:
    """The words of each command in the console blocks of a page."""
    for block in blocks(path, "console"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for between, part in groupby(words, key=lambda word: word in ("|", "&&")):
                if not between:
                    yield list(part)


CLI = [sys.executable, "-m", "trio_minillm.cli"]


def cli_options(command: str) -> set[str]:
    """The options that ``--help`` shows."""
    shown = subprocess.run(
        [*CLI, command, "--help"],
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        check=True,
        text=True,
    )
    listed = re.findall(r"^  (?:(-\w), )?(--[a-z-]+)", shown.stdout, re.MULTILINE)
    return {name for names in listed for name in names if name} - {"-h", "--help"}


needs_cli = pytest.mark.skipif(
    importlib.util.find_spec("typer") is None, reason="needs the extra cli"
)
COMMANDS = {"chat": "option"} | {
    name: f"option of `{name}`"
    for name in ("costs", "bench", "report", "compare", "batch", "serve")
}
"""Each command, and how its table of options begins."""


@needs_cli
def test_the_commands_and_options_of_the_pages_exist() -> None:
    known = {command: cli_options(command) for command in COMMANDS}
    words = [w for path in PAGES for w in commands(path) if w and w[0] == "trio-minillm"]
    assert {command for _, command, *_ in words} == {*COMMANDS}
    for _, command, *given in words:
        assert {w.partition("=")[0] for w in given if re.match(r"--?[a-z]", w)} <= known[command]
    for command, first in COMMANDS.items():
        names = [code(cell) for cell, _ in table("cli.md", first)]
        shown = {name.partition(" ")[0] for cell in names for name in cell}
        assert shown == known[command]


@needs_cli
def test_the_commands_on_a_ledger_run(tmp_path: Path) -> None:
    """Those of the pages, on a file with a cancelled attempt that was settled and a torn line."""
    trio.run(keep_books, tmp_path / "costs.jsonl", clock=trio.testing.MockClock(0, 0))
    done = Counter[str]()
    for words in (w for path in PAGES for w in commands(path) if "costs.jsonl" in w):
        if words[0] == "trio-minillm":
            if {"chat", "--settle"} & {*words}:
                continue  # there is no provider
            words[:1] = CLI
        elif shutil.which(words[0]) is None:
            continue
        shown = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (shown.returncode, shown.stderr.partition(":")[0]) in {(0, ""), (0, "torn lines")}
        if words[0] == "jq":
            assert float(shown.stdout) == pytest.approx(0.000168, rel=1e-12), words
        else:
            assert "0.000168" in shown.stdout, words
        done[words[0]] += 1
    assert done[sys.executable] > 1


async def keep_books(path: Path) -> None:
    model = llm.openrouter("anthropic/claude-haiku-4.5", api_key="k")
    for mood in ("", "slow"):
        ledger = llm.JSONLLedger(path)
        async with llm.open_client(transport=Server(mood), ledger=ledger) as client:
            async with client.stream(model, "Hi", meta={"user": "ann"}) as stream:
                if mood:
                    await stream.next_chunk()
                else:
                    await stream.collect()
    with path.open("ab") as file:
        file.write(b'{"v":1,"key":"torn')


def test_the_nox_sessions_and_extras_of_the_pages_exist() -> None:
    found = re.findall(r"@nox\.session.*\n(?:@.*\n)*def (\w+)", (ROOT / "noxfile.py").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pythons = re.findall(r":: (3\.\d+)", " ".join(project["classifiers"]))
    sessions = {*found, *(f"tests-{python}" for python in pythons)}
    extras = set(project["optional-dependencies"])
    named, installed = set(), set()
    for path in PAGES:
        for words in commands(path):
            if "nox" in words and "-s" in words:
                rest = words[words.index("-s") + 1 :]
                named |= set(takewhile(lambda word: not word.startswith("-"), rest))
            for word in words:
                if found := re.fullmatch(r"trio-minillm\[([\w,]+)\]", word):
                    installed |= set(found[1].split(","))
    assert {"demo", "tests"} <= named <= sessions
    assert installed <= extras


def test_the_readme_has_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    for session in ("demo", "tests"):
        assert f"\npython -m pip install nox && python -m nox -s {session}\n" in text


# -- links and names ---------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The headings of a page as the fragments that a link can name."""
    heads = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}


@page
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(path)):
        assert "://" not in target, "pages link to each other only"
        name, _, fragment = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), target
        if fragment:
            assert fragment in anchors(there), target


@page
def test_files_that_a_page_names_are_there(path: Path) -> None:
    folders = "benchmarks|docs|examples|tests|trio_minillm"
    for name in re.findall(rf"`((?:{folders})/[\w./*-]*)", prose(path)):
        assert list(ROOT.glob(name)), name


@page
def test_pages_say_nothing_of_this_machine(path: Path) -> None:
    assert not re.search(r"/(home|root|tmp|Users)/", path.read_text())


def test_the_site_has_every_page_once() -> None:
    def pages_of(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for part in entry.values() if isinstance(entry, dict) else entry:
                yield from pages_of(part)

    site = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    assert sorted(pages_of(site["nav"])) == sorted(
        path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")
    )


def test_names_of_ours_in_the_prose_exist() -> None:
    for path in PAGES:
        for code in re.findall(r"`(llm(?:\.\w+)+)", prose(path)):
            found: Any = llm
            for name in code.split(".")[1:]:
                found = getattr(found, name)


@pytest.mark.parametrize(
    "module", [llm, testing, local, providers, batch], ids=lambda m: m.__name__
)
def test_the_reference_lists_every_public_name_once(module: Any) -> None:
    page = doc("api.md").read_text()
    section = page.partition(f"\n## {module.__name__}\n")[2].partition("\n## ")[0]
    assert section, "there is no section for it"
    listed = re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (.+?) \|", section, re.MULTILINE)))
    assert sorted(listed) == sorted(module.__all__)


# -- tables ------------------------------------------------------------------------------------


def table(name: str, first: str) -> list[list[str]]:
    """The rows of the table on a page whose first column is called ``first``."""
    lines = prose(doc(name)).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[at + 2 :]:
        if not line.startswith("|"):
            break
        cells = re.split(r"(?<!\\)\|", line)[1:-1]  # a pipe in a cell is written \|
        rows.append([cell.strip() for cell in cells])
    return rows


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_table_of_endings_is_the_code_s() -> None:
    shown = {}
    columns = (State.OPEN, State.ENDING, State.WHOLE)
    for event, *states, _ in table("endings.md", "event"):
        shown[Event(event.lower())] = [State(state.lower()) for state in states]
    assert shown == {e: [TABLE[column][e] for column in columns] for e in Event}
    for state in (State.FINISHED, State.TRUNCATED, State.ERRORED, State.CANCELLED):
        assert set(TABLE[state].values()) == {state}, "final, as the page says"


def test_the_tree_of_errors_is_the_code_s() -> None:
    (tree,) = (b.text for b in blocks(doc("endings.md"), "text") if "MiniLLMError" in b.text)
    parents: list[tuple[int, str]] = []
    shown = set()
    for line in tree.splitlines():
        found = re.match(r"([ │├└─]*)(\w+)", line)
        assert found
        while parents and parents[-1][0] >= len(found[1]):
            parents.pop()
        shown.add((found[2], parents[-1][1] if parents else "Exception"))
        parents.append((len(found[1]), found[2]))
    errors = [getattr(llm, n) for n in llm.__all__ if isinstance(getattr(llm, n), type)]
    errors = [e for e in errors if issubclass(e, llm.MiniLLMError)] + [local.LocalModelError]
    assert shown == {(e.__name__, e.__base__.__name__) for e in errors}


@pytest.mark.parametrize(
    ("page", "first", "options"),
    [("clocks.md", "clock", llm.Timeouts), ("retries.md", "field", llm.Retry)],
)
def test_the_defaults_of_clocks_and_retries_are_the_code_s(
    page: str, first: str, options: Any
) -> None:
    shown = {code(name)[0]: default.split()[0] for name, default, *_ in table(page, first)}
    defaults = dict(zip(options.__struct_fields__, options.__struct_defaults__, strict=True))
    assert defaults.pop("total", None) in (None, llm.Timeouts().total)
    shown_total = shown.pop("total", "none")
    assert shown_total == "none"
    assert shown == {name: f"{default:g}" for name, default in defaults.items()}


def test_the_options_of_calls_and_local_models_are_the_code_s() -> None:
    def keywords(function: Any) -> set[str]:
        found = inspect.signature(function).parameters.values()
        return {p.name for p in found if p.kind is p.KEYWORD_ONLY}

    shown = {
        name.partition("=")[0] for cell, _ in table("streams.md", "option") for name in code(cell)
    }
    assert shown == keywords(llm.Client.stream) - PARAM_NAMES
    rows = table("local-models.md", "option")
    assert {code(name)[0] for name, *_ in rows} == keywords(llm.open_local_model)
    for name, default, _ in rows:
        given = inspect.signature(llm.open_local_model).parameters[code(name)[0]].default
        if given is not None:
            assert ast.literal_eval(default.strip("`")) == given, name


def test_the_counts_of_usage_are_the_code_s() -> None:
    rows = [*table("usage.md", "field"), *table("usage.md", "part")]
    shown = [name for cell, _ in rows for name in code(cell)]
    assert sorted(shown) == sorted({*llm.Usage.__struct_fields__, "prompt_tokens", "total_tokens"})


def test_the_rates_of_a_price_are_the_code_s() -> None:
    shown = {}
    for names, _, wider in table("prices.md", "rate"):
        for name in code(names):
            shown[name] = "".join(code(wider))
    assert shown == {"input": "", "output": "", "web_search": "", **WIDER}
    others = {"tiers", "as_of", "source", "service_tier", "variants"}
    assert shown.keys() == {*llm.TokenPrice.__struct_fields__} - others


def test_the_sums_of_a_ledger_are_the_code_s() -> None:
    shown = [name for cell, _ in table("ledger.md", "property") for name in code(cell)]
    properties = {n for n, member in vars(llm.Ledger).items() if isinstance(member, property)}
    assert sorted(shown) == sorted({*properties, "by_meta(key)"})


HOW_ATTEMPTS_END: dict[str, list[Any]] = {
    "finished": [],
    "cancelled": [hang],
    "rejected": [hang],
    "truncated": [httpx.ReadError("cut")],
    "errored": [sse({"type": "error", "error": {"type": "api_error", "message": "no"}}, "error")],
    "refused": [],
}
"""Steps of a reply after the first text, or in its place if there is no answer, for each ending."""


@pytest.mark.parametrize("how", HOW_ATTEMPTS_END)
@pytest.mark.parametrize("usage", ["no usage", "provisional usage"])
@pytest.mark.parametrize("priced", [True, False], ids=["priced", "unpriced"])
async def test_the_table_of_what_is_counted_is_the_code_s(
    how: str, usage: str, priced: bool, autojump_clock: trio.testing.MockClock
) -> None:
    (row,) = (r for r in table("costs.md", "attempt") if re.match(rf"{how}\b", r[0]))
    _, outcome, told, place, resolutions = row
    # Anthropic's wire begins with provisional usage, OpenAI's has none before the end.
    begun = usage == "provisional usage"
    whole = testing.anthropic_events("Hi") if begun else testing.openai_events("Hi", usage=False)
    steps = whole if how == "finished" else [*whole[: 3 if begun else 2], *HOW_ATTEMPTS_END[how]]
    if how == "errored" and not begun:
        steps[-1] = sse({"error": {"message": "no", "code": 500}})
    refused = reply(b"{}", status=400)
    price = llm.TokenPrice(input=1, output=1) if priced else None
    provider = providers.Anthropic() if begun else None
    model = testing.model(provider, price=price)
    records: list[llm.CostRecord] = []

    async def on_cost(record: llm.CostRecord) -> None:
        records.append(record)

    transport = ScriptedTransport(refused if how == "refused" else reply(*steps))
    async with llm.open_client(transport=transport, on_cost=on_cost) as client:
        async with client.stream(model, "Hi") as stream:
            try:
                async for chunk in stream:
                    if chunk.delta and how == "cancelled":
                        await stream.cancel()
                    elif chunk.delta and how == "rejected":
                        stream.reject()
            except llm.MiniLLMError:
                assert how not in ("finished", "cancelled", "rejected")
    (record,) = client.ledger.recent
    assert str(stream.outcome) == str(record.outcome) == code(outcome)[0]
    assert record.booked == bool(records) == (told == "yes")
    assert str(record.resolution) in code(resolutions)
    sums = {"total": client.ledger.total, "unbooked": client.ledger.unbooked}
    assert {name for name, amount in sums.items() if amount} <= set(code(place))
    assert sums[code(place)[0]] == (record.amount or 0)


def test_the_exit_codes_are_the_code_s() -> None:
    report = pytest.importorskip("trio_minillm.cli._output")
    shown = {int(code(c)[0]): meaning.replace("\\|", "|") for c, meaning in table("cli.md", "code")}
    assert shown == report.EXIT_CODES


WIRES = {
    "OpenAI": llm.openai("m", api_key="k"),
    "Responses": llm.openai_responses("m", api_key="k"),
    "OpenRouter": llm.openrouter("m", api_key="k"),
    "Anthropic": llm.anthropic("m", api_key="k"),
    "Gemini": llm.gemini("m", api_key="k"),
    "compatible": llm.compatible("m", base_url="http://server.invalid/v1"),
    "text": llm.text_completions("m", base_url="http://server.invalid/v1"),
}


def test_the_parameters_of_each_wire_are_the_code_s() -> None:
    shown = {}
    for names, *cells in table("providers.md", "parameter"):
        for name in code(names):
            shown[name] = dict(zip(WIRES, cells, strict=True))
    assert shown.keys() == PARAM_NAMES
    for name, cells in shown.items():
        for wire, cell in cells.items():
            assert cell in ("yes", "no")
            assert takes(WIRES[wire], name) == (cell == "yes"), f"{wire} {name}"


def takes(model: llm.Model, parameter: str) -> bool:
    params = {parameter: "x"}
    request = llm.Request(model=model, messages=(llm.user("x"),), params=params, extra={})
    try:
        model.provider.build_request(request)
    except ValueError as exc:
        return "not a parameter of" not in str(exc)
    except (TypeError, AttributeError):
        pass  # "x" is not a value of it
    return True


def test_the_servers_are_the_code_s() -> None:
    generic = {p for p in PARAM_NAMES if takes(llm.compatible("m", base_url="http://x.invalid"), p)}
    shown = set()
    for name, hosts, bound, replay, refused in table("providers.md", "server"):
        (server,) = code(name)
        shown.add(server)
        model = llm.compatible("m", base_url="http://x.invalid", server=server)
        assert {p for p in generic if not takes(model, p)} == set(code(refused)), server
        dialect = providers.SERVERS[server]
        assert code(bound) == [dialect.max_tokens]
        thought = [llm.ReasoningPart(text="hm")]
        assert code(replay) == list(dialect.replay(thought, True) if dialect.replay else ())
        for host in code(hosts):
            where = f"https://{host.replace('*', 'me')}/v1"
            found = llm.compatible("m", base_url=where).provider
            assert isinstance(found, providers.Compatible)
            assert found.server == server
    assert shown == providers.SERVERS.keys()


def test_the_media_of_each_wire_are_the_code_s() -> None:
    makers = {"image": llm.image, "audio": llm.audio, "document": llm.document}
    for name, *cells in table("messages.md", "part"):
        make: Any = makers[code(name)[0].removeprefix("llm.")]
        for model, cell in zip(WIRES.values(), cells, strict=True):
            forms = {"bytes": make(b"%PDF", media_type="x/y"), "URL": make("https://x.invalid/a")}
            good = {form for form, part in forms.items() if sendable(model, part)}
            assert good == set(cell.split(", ")) - {"–"}, (name, model)


def sendable(model: llm.Model, part: Any) -> bool:
    request = llm.Request(model=model, messages=(llm.user(part),), params={}, extra={})
    try:
        model.provider.build_request(request)
    except ValueError:
        return False
    return True
