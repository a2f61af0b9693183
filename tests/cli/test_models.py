"""``trio-minillm models``, run as a user runs it, against a server of each wire format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("typer", reason="needs the extra [cli]")
pytest.importorskip("rich", reason="needs the extra [cli]")

from trio_minillm.local._named import KEYS, variable_of

from ..support.command import COMMAND, KEY, Ran, on_terminal, posix, run
from ..support.endpoint import ThreadedServer, begin

PAGES: dict[str, list[dict[str, Any]]] = {
    "openai": [{"object": "list", "data": [{"id": "b"}, {"id": "a-mini", "max_model_len": 4096}]}],
    "anthropic": [
        {"data": [{"id": "b", "max_input_tokens": 200000}], "has_more": True, "last_id": "b"},
        {"data": [{"id": "a-mini", "max_tokens": 8}], "has_more": False, "last_id": "a-mini"},
    ],
    "gemini": [
        {"models": [{"name": "models/b", "inputTokenLimit": 1000}], "nextPageToken": "t2"},
        {"models": [{"name": "models/a-mini", "outputTokenLimit": 7}]},
    ],
}
MARKS = {"anthropic": ("after_id", "b"), "gemini": ("pageToken", "t2")}
"""The field of a query that asks for the second page, and its value."""
HEADERS = {"anthropic": "x-api-key", "gemini": "x-goog-api-key"}


class Lists(ThreadedServer):
    """Answers with pages of a list, one after the other."""

    def __init__(self) -> None:
        self.pages: list[Any] = []
        self.status = 200
        self.asked: list[tuple[str, dict[str, list[str]]]] = []
        self.headers: list[dict[str, str]] = []
        super().__init__()

    def get(self, request: BaseHTTPRequestHandler) -> None:
        where = urlsplit(request.path)
        self.asked.append((where.path, parse_qs(where.query)))
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        begin(request, self.status)
        request.wfile.write(json.dumps(self.pages[len(self.asked) - 1]).encode())


@pytest.fixture
def lists() -> Iterator[Lists]:
    with Lists() as made:
        yield made


def models(kind: str, lists: Lists, *args: str, base: str | None = None) -> Ran:
    base_url = lists.url.removesuffix("/api/v1") + "/v1" if base is None else base
    key = {variable_of(kind, base_url) or "": KEY}
    return run([*COMMAND, "models", kind, *args, "--base-url", base_url], **key)


@pytest.mark.parametrize("kind", KEYS)
def test_the_list_of_each_kind(lists: Lists, kind: str) -> None:
    wire = kind if kind in PAGES else "openai"
    lists.pages = PAGES[wire]
    ran = models(kind, lists)
    assert (ran.code, ran.err) == (0, "")
    first, *rows = ran.out.splitlines()
    assert first.split()[0] == "model"
    assert [row.split()[0] for row in rows] == [f"{kind}:a-mini", f"{kind}:b"]
    assert {path for path, _ in lists.asked} == {"/v1/models"}
    assert KEY in lists.headers[0][HEADERS.get(kind, "authorization")]
    if kind in MARKS:
        name, value = MARKS[kind]
        assert [query.get(name) for _, query in lists.asked] == [None, [value]]


def test_context_and_price_are_told_where_the_list_has_them(lists: Lists) -> None:
    pricing = {"prompt": "0.00000025", "completion": "0.000002"}
    listed = {"id": "a/b", "context_length": 400000, "pricing": pricing}
    lists.pages = [{"data": [listed, {"id": "a/c", "context_length": 8192}]}] * 2
    lines = models("openrouter", lists).out.splitlines()
    assert lines == [
        "model           context  USD/M in  USD/M out",
        "openrouter:a/b  400,000      0.25          2",
        "openrouter:a/c    8,192",
    ]
    found = json.loads(models("openrouter", lists, "--json").out)
    assert found["models"][0] == {
        "model": "openrouter:a/b",
        "id": "a/b",
        "context": 400000,
        "output": None,
        "price": {"input": "0.25", "output": "2"},
    }
    assert (found["models"][1]["price"], found["error"], found["exit_code"]) == (None, None, 0)


def test_a_word_filters(lists: Lists) -> None:
    lists.pages = PAGES["openai"] * 2
    assert models("compatible", lists, "MINI").out.splitlines()[1:] == [
        "compatible:a-mini    4,096"
    ]
    ran = models("compatible", lists, "nothing")
    assert (ran.code, ran.err) == (0, "no model with 'nothing' in its name\n")


def test_a_server_that_repeats_its_pages_is_asked_once_for_each(lists: Lists) -> None:
    again = {"data": [{"id": "a"}], "has_more": True, "last_id": "a"}
    lists.pages = [again] * 9
    ran = models("anthropic", lists)
    assert (ran.code, ran.out.count("anthropic:a"), len(lists.asked)) == (0, 1, 2)
    assert ran.err == "note: the server repeats a page of its list, so models may be missing\n"


def test_a_list_without_an_end_is_read_to_the_hundredth_page(lists: Lists) -> None:
    lists.pages = [
        {"data": [{"id": f"a{n}"}], "has_more": True, "last_id": f"a{n}"} for n in range(101)
    ]
    ran = models("anthropic", lists, "--json")
    found = json.loads(ran.out)
    assert (ran.code, len(found["models"]), len(lists.asked)) == (0, 100, 100)
    assert found["doubt"] == "the list has more than 100 pages, and the others were not read"


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (401, {"error": {"message": f"no: {KEY}"}}, 4, "check the key in TRIO_MINILLM_API_KEY"),
        (404, {"error": {"message": "no"}}, 4, "/v1/models: no list of models here"),
        (503, {}, 5, "wait, then try again"),
        (200, {"hello": 1}, 6, "the answer is not a list of models (check the address"),
    ],
)
@pytest.mark.parametrize("json_too", [[], ["--json"]])
def test_failures_are_one_line(
    lists: Lists, status: int, body: Any, code: int, words: str, json_too: list[str]
) -> None:
    lists.status, lists.pages = status, [body]
    ran = models("compatible", lists, *json_too)
    assert (ran.code, ran.err.count("\n")) == (code, 1)
    assert ran.err.startswith("error: ")
    assert words in ran.err
    if json_too:
        assert json.loads(ran.out)["exit_code"] == code
    else:
        assert ran.out == ""


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["openai"], 2, "set OPENAI_API_KEY in the environment"),
        (["compatible"], 2, "compatible needs --base-url"),
        (["opnai"], 2, "did you mean openai?"),
        (["mistral"], 2, "PROVIDER is openrouter, openai,"),
        (["local", "--base-url", "http://127.0.0.1/v1"], 2, "can't be combined with --base-url"),
        (["compatible", "--base-url", "127.0.0.1"], 2, "base_url must begin with http"),
        (["compatible", "--base-url", "http://127.0.0.1:1/v1"], 3, "check the address"),
        ([], 2, "missing argument 'PROVIDER'"),
    ],
)
def test_misuse(args: list[str], code: int, words: str) -> None:
    ran = run([*COMMAND, "models", *args])
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1)
    assert words in ran.err


def test_a_proxy_that_cannot_be_used_is_told() -> None:
    args = ["models", "compatible", "--base-url", "http://models.invalid/v1"]
    ran = run([*COMMAND, *args], HTTP_PROXY="ftp://127.0.0.1:1")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "proxy" in ran.err.lower()


def test_local_models_are_the_files_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xllamacpp", reason="needs the extra [local]")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.gguf").write_bytes(b"")
    (tmp_path / "folder.gguf").mkdir()
    ran = run([*COMMAND, "models", "local"])
    assert ran.code == 0
    names = ran.out.splitlines()[1:]
    assert names[-1] == "local:small.gguf"
    assert names[:-1] in ([], ["local"])


@posix
def test_a_narrow_terminal_shows_whole_names(lists: Lists) -> None:
    name = "vendor/" + "long-" * 20 + "1"
    lists.pages = [{"data": [{"id": name, "context_length": 1000000}]}]
    code, shown = on_terminal([*COMMAND, "models", "compatible", "--base-url", lists.url])
    rows = [line.split() for line in shown.splitlines()[1:] if line.strip()]
    assert (code, rows[0][1]) == (0, "1,000,000")
    assert "".join(row[0] for row in rows) == f"compatible:{name}"


def test_half_a_character_is_no_bug(lists: Lists) -> None:
    lists.pages = [{"data": [{"id": "a\ud800b"}, {"name": "models/"}]}]
    ran = models("compatible", lists, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert [one["id"] for one in json.loads(ran.out)["models"]] == ["a?b"]


def test_a_mark_that_can_not_be_sent_back(lists: Lists) -> None:
    lists.pages = [{"data": [{"id": "a"}], "has_more": True, "last_id": "\ud800"}]
    ran = models("anthropic", lists)
    assert (ran.code, ran.err.count("\n")) == (6, 1)
    assert "names its next page by what is not Unicode" in ran.err


def test_an_untrusted_name_is_shown_on_one_line(lists: Lists) -> None:
    lists.pages = [{"data": [{"id": "a\x1b[2J\nb"}]}]
    out = models("compatible", lists).out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 2
