"""Options of ``chat`` for one prompt: files, formats of the answer, further fields."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="needs the extra [cli]")
pytest.importorskip("rich", reason="needs the extra [cli]")

import trio_minillm as llm
from trio_minillm.cli import _chat_files
from trio_minillm.cli._chat_files import MAX_FILE, file_line, file_part, mentioned
from trio_minillm.cli._chat_lines import Typed
from trio_minillm.cli._output import Misuse
from trio_minillm.cli._shared import format_from

from ..support.command import COMMAND, Ran, run
from ..support.endpoint import END, Endpoint, text

PNG = b"\x89PNG\r\n\x1a\n0000"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
MODULE = """
import msgspec

class Salt(msgspec.Struct):
    a: int

SCHEMA = {"type": "object", "title": "In a module"}
several = list[int]
wrong = 3

def broken():
    pass
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("salty.py").write_text(MODULE)
    Path("schema.json").write_text(json.dumps(SCHEMA))
    Path("photo.png").write_bytes(PNG)


def chat(endpoint: Endpoint, *args: str) -> Ran:
    where = ["--model", "compatible:m", "--base-url", endpoint.url, "--attempts", "1"]
    return run([*COMMAND, "chat", *where, *args])


def answers(endpoint: Endpoint, *pieces: str) -> None:
    endpoint.script = lambda n: (200, [text(*pieces) + END])


# -- --schema --------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["schema.json", json.dumps(SCHEMA), "salty:Salt"])
def test_an_answer_as_the_schema_asks(endpoint: Endpoint, given: str) -> None:
    answers(endpoint, '{"a":', " 1}")
    ran = chat(endpoint, "x", "--schema", given)
    assert (ran.code, ran.out) == (0, '{"a": 1}\n')
    asked = endpoint.requests[0]["response_format"]["json_schema"]["schema"]
    assert asked["properties"] == {"a": {"type": "integer"}}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("schema.json", "error: 'x' is not of type 'integer' - at `$.a`"),
        ("salty:Salt", "error: Expected `int`, got `str` - at `$.a`"),
    ],
)
def test_an_answer_that_is_not_as_the_schema_asks(
    endpoint: Endpoint, given: str, words: str
) -> None:
    answers(endpoint, '{"a": "x"}')
    ran = chat(endpoint, "x", "--schema", given)
    assert (ran.code, ran.out) == (6, '{"a": "x"}\n')
    assert ran.err.startswith("finished: stop")
    last = ran.err.splitlines()[-1]
    assert last.startswith(words)
    assert "the answer is not as --schema asks" in last
    found = json.loads(chat(endpoint, "x", "--schema", given, "--json").out)
    assert (found["outcome"], found["exit_code"]) == ("finished", 6)
    assert found["error"]["type"] == "MismatchedAnswer"


def test_an_answer_that_is_no_json(endpoint: Endpoint) -> None:
    answers(endpoint, "I can't.")
    ran = chat(endpoint, "x", "--schema", "schema.json", "-q")
    assert (ran.code, ran.out) == (6, "I can't.\n")
    assert ran.err.count("\n") == 1


def test_a_list_is_taken_out_of_its_object(endpoint: Endpoint) -> None:
    answers(endpoint, '{"answer": [1, 2]}')
    assert chat(endpoint, "x", "--schema", "salty:several").code == 0
    answers(endpoint, '{"answer": [1, "x"]}')
    assert chat(endpoint, "x", "--schema", "salty:several").code == 6


def test_a_broken_answer_is_that_and_not_an_invalid_one(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [text('{"a": ')])
    ran = chat(endpoint, "x", "--schema", "schema.json")
    assert ran.code == 6
    assert ran.err.startswith("truncated")
    assert "--schema" not in ran.err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("none.json", "--schema none.json: No such file or directory"),
        ("photo.png", "--schema photo.png: not a JSON object"),
        ("{", "--schema is not a JSON object"),
        (f"[{'1' * 5000}]", "--schema [1111"),
        ('{"type": 3}', "--schema: "),
        ("salty:none", "--schema salty:none: AttributeError"),
        ("nowhere:none", "--schema nowhere:none: ModuleNotFoundError"),
        ("salty:wrong", "--schema salty:wrong: neither a type"),
    ],
)
def test_what_is_no_schema(endpoint: Endpoint, given: str, words: str) -> None:
    ran = chat(endpoint, "x", "--schema", given)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert words in ran.err
    assert endpoint.requests == []


def test_a_mapping_of_a_module_is_a_schema() -> None:
    assert format_from("salty:SCHEMA").name == "In_a_module"
    Path("salty:SCHEMA").write_text(json.dumps({"title": "file"}))
    assert format_from("salty:SCHEMA").name == "file"


# -- --extra ---------------------------------------------------------------------------------

TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


def test_further_fields_are_sent(endpoint: Endpoint) -> None:
    Path("extra.json").write_text('{"mirostat": 2}')
    assert chat(endpoint, "x", "--extra", '{"mirostat": 1}').code == 0
    assert chat(endpoint, "x", "--extra", "@extra.json").code == 0
    assert [request["mirostat"] for request in endpoint.requests] == [1, 2]


def test_extra_sets_what_has_no_option_of_its_own(endpoint: Endpoint) -> None:
    given = {"top_p": 0.9, "seed": 7, "stop": ["END"], "tools": [TOOL], "mirostat": 1}
    assert chat(endpoint, "x", "--extra", json.dumps(given)).code == 0
    assert {name: endpoint.requests[0][name] for name in given} == given


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("3", "--extra must be a JSON object"),
        ("@none.json", "--extra @none.json: No such file"),
        ('{"temperature": 1}', "--extra must not contain temperature"),
        ('{"stream": false}', "extra must not contain stream"),
        ('{"response_format": {"type": "json_object"}}', "extra must not contain response_format"),
    ],
)
def test_what_can_not_be_sent_beside(endpoint: Endpoint, given: str, words: str) -> None:
    ran = chat(endpoint, "x", "--temperature", "0", "--extra", given)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert words in ran.err


# -- --file ----------------------------------------------------------------------------------


def test_files_go_with_the_prompt_and_words_name_none(endpoint: Endpoint) -> None:
    Path("notes.md").write_text("# Salt")
    ran = chat(endpoint, "Is it @photo.png ?", "--file", "photo.png", "--file", "notes.md")
    assert ran.code == 0
    words, picture, notes = endpoint.requests[0]["messages"][0]["content"]
    assert words["text"] == "Is it @photo.png ?"
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert notes["text"] == "notes.md:\n\n# Salt"


def test_a_file_that_is_not_there_is_misuse(endpoint: Endpoint) -> None:
    ran = chat(endpoint, "x", "--file", "none\x1b.png")
    assert (ran.code, ran.err) == (2, "error: none␛.png: No such file or directory\n")
    assert endpoint.requests == []


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.png", b"\xff\xd8\xff\xe0", "image/jpeg"),  # the bytes are right, the name is not
        ("a", PNG, "image/png"),
        ("a.mp3", b"ID3\x03\0\0", "audio/mpeg"),
        ("a.wav", b"RIFF\0\0\0\0WAVE", "audio/wav"),
        ("a.pdf", b"%PDF-1.7 \xff", "application/pdf"),
        ("a.bmp", b"BM\0\0", "image/bmp"),
    ],
)
def test_kinds_of_files(name: str, data: bytes, kind: str) -> None:
    Path(name).write_bytes(data)
    part = file_part(Path(name))
    assert not isinstance(part, llm.TextPart)
    assert part.media_type in (kind, kind.replace("bmp", "x-ms-bmp"))
    assert part.data == data
    assert file_line(Path(name), part) == f"{name} ({part.media_type}, {len(data)} bytes)"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.py", b"\xef\xbb\xbfx = 1"),  # with a mark of UTF-8 at the beginning
        ("a.svg", b"<svg/>"),
        ("a.txt", b"ID3 tags"),  # it begins as sound does
        ("a", b""),
    ],
)
def test_text_is_text_by_its_bytes(name: str, data: bytes) -> None:
    Path(name).write_bytes(data)
    part = file_part(Path(name))
    assert isinstance(part, llm.TextPart)
    assert part.text == f"{name}:\n\n{data.decode('utf-8-sig')}"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("a.bin", "a.bin: not a picture, sound, PDF or text in UTF-8"),
        ("a.mp4", "a.mp4: not a picture"),
        (".", ".: not a file"),
        ("/dev/zero", "/dev/zero: not a file"),
        ("large", f"large: larger than {MAX_FILE:,} bytes"),
        ("a\0b", "a␀b: not the name of a file"),
    ],
)
def test_files_that_can_not_be_sent(path: str, words: str) -> None:
    Path("a.bin").write_bytes(b"\x00\xff")
    Path("a.mp4").write_bytes(b"\x00\xff")
    with Path("large").open("wb") as file:
        file.truncate(MAX_FILE + 1)
    with pytest.raises(Misuse) as caught:
        file_part(Path(path))
    assert str(caught.value).startswith(words)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_file_that_is_longer_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_chat_files, "MAX_FILE", 100)
    assert Path("/proc/self/status").stat().st_size == 0
    with pytest.raises(Misuse, match="larger than 100 bytes"):
        file_part(Path("/proc/self/status"))


@pytest.mark.parametrize(
    ("typed", "sent", "paths"),
    [
        ("What is @photo.png", "What is photo.png", ["photo.png"]),
        ("(see @photo.png), now", "(see @photo.png), now".replace("@", ""), ["photo.png"]),
        ("@photo.png, @none.txt.", "photo.png, none.txt.", ["photo.png", "none.txt"]),
        ('@"a b.png"? @"', 'a b.png? "', ["a b.png", '"']),
        ("me@x.org and @ home", "me@x.org and @ home", []),
        ("\\@photo.png", "@photo.png", []),
        ("a\n@photo.png\nb", "a\nphoto.png\nb", ["photo.png"]),
        ("@sub/photo.png", "photo.png", ["sub/photo.png"]),
        ("@odd.!", "odd.!", ["odd.!"]),
        ("@..", "..", [".."]),
    ],
)
def test_paths_in_a_prompt(typed: str, sent: str, paths: list[str]) -> None:
    Path("odd.!").write_text("a name that ends in marks")
    assert mentioned(typed) == (sent, [Path(path) for path in paths])


def test_home_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert mentioned("@~/a.txt and @~nobody-at-all/b")[1] == [
        Path("/home/ann/a.txt"),
        Path("~nobody-at-all/b"),
    ]


def test_a_prompt_shows_no_text_of_its_own() -> None:
    typed = Typed(text="secret @x", literal=True)
    assert "secret" not in repr(typed)
    assert typed.source == '"""secret @x"""'
