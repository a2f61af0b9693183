"""Unit tests of hiding keys in what a server repeats; `tests/test_security.py` tests the promise."""

from __future__ import annotations

import html
import json
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_minillm._protocol.redaction import (
    HIDDEN,
    RUN,
    THOROUGH,
    redact,
    redact_beginnings,
    redact_text,
    secrets_in,
    secrets_of,
    shown_headers,
)

from ..support.spellings import KEY, VALUE, pieces_of, spelled, spellings


def test_the_secrets_of_a_model_are_its_key_and_header_values_that_are_no_words() -> None:
    assert secrets_of(KEY, ["abc", "abcdef", ""]) == [KEY.encode(), b"abcdef"]
    assert secrets_of(None, []) == []
    assert secrets_of("short", []) == []


def test_the_secrets_in_a_request_are_told_by_their_names() -> None:
    fields = [
        ("Authorization", "Bearer sk-0123456789"),
        ("Cookie", "session=abcdefgh; a=1"),
        ("accept", "text/event-stream"),
        ("api_key", "query-key"),
    ]
    found = secrets_in(fields, ("password", "", "abc"))
    assert found == {
        b"Bearer sk-0123456789",
        b"sk-0123456789",
        b"session=abcdefgh; a=1",
        b"abcdefgh",
        b"query-key",
        b"password",
    }


def test_a_beginning_of_a_key_is_hidden_from_eight_characters_on() -> None:
    key = "sk-0123456789"
    assert redact_beginnings(f"a {key} b", key) == "a [hidden] b"
    assert redact_beginnings(f"a {key[:8]}", key) == "a [hidden]"
    assert redact_beginnings(f"a {key[:7]}", key) == f"a {key[:7]}"
    assert redact_beginnings("a", "") == "a"


def test_text_is_redacted_as_bytes_are() -> None:
    assert redact_text(f"schlüssel {KEY}!", [KEY.encode()]) == "schlüssel [hidden]!"
    assert redact_text("half \ud800", [KEY.encode()]) == "half ?"
    assert redact_text("half \ud800", []) == "half ?"


@pytest.mark.parametrize(
    ("text", "secret", "shown"),
    [
        ("chatcmpl-0123456789", "", None),
        ("chatcmpl-0123456789", "password", None),
        ("chatcmpl-password-1", "password", "chatcmpl-[hidden]-1"),
        ("chatcmpl-0123456789", "sk-0123456-abcdefghijklmnop", None),
        ("chatcmpl-0123456-abc", "sk-0123456-abcdefghijklmnop", "chatcmpl[hidden]"),
        ("chatcmpl-0123456-ab", "sk-0123456-abcdefghijklmnop", None),
        (
            "chatcmpl-0123456-abc, of the server",
            "sk-0123456-abc",
            "chatcmpl[hidden], of the server",
        ),
        ("an id of the server, and no key", "sk-0123456-ab", None),
        ("chatcmpl-0123456789", "sk\\0123456-ab", None),
    ],
)
def test_an_id_is_shown_but_for_the_key(text: str, secret: str, shown: str | None) -> None:
    assert redact_text(text, [secret.encode()] if secret else []) == (shown or text)


@pytest.mark.parametrize("secret", [KEY, VALUE])
@pytest.mark.parametrize("how", spellings("x"))
def test_every_spelling_is_hidden_wherever_it_stands(how: str, secret: str) -> None:
    text = spellings(secret)[how]
    for before, after in (("", ""), ("bad key ", "!"), (secret[:6], secret[-6:]), ("%", "&")):
        shown = redact(f"{before}{text}{after}".encode(), [secret.encode()]).decode()
        assert not any(piece in spelled(shown) for piece in pieces_of(secret)), shown


@pytest.mark.parametrize("secret", [KEY, VALUE])
def test_in_much_it_is_hidden_as_it_is_and_as_json_writes_it(secret: str) -> None:
    for text in (
        secret,
        json.dumps(secret)[1:-1].replace("/", "\\/"),
        spellings(secret)["unicode"],
    ):
        body = f'{{"message": "bad key {text}!", "pad": "{"x" * THOROUGH}"}}'.encode()
        assert json.loads(redact(body, [secret.encode()]))["message"] == "bad key [hidden]!"
    torn = f'{{"message": "bad key {secret}!{"x" * THOROUGH}'.encode()
    assert secret.encode() not in redact(torn, [secret.encode()])


@pytest.mark.parametrize("secret", ["sk-\\n0123456789", "sk-0123456789\\"])
def test_a_secret_with_a_backslash_is_no_escape(secret: str) -> None:
    for how in ("plain", "json", "unicode", "json in json", "url", "html"):
        text = spellings(secret)[how]
        shown = redact(f"bad key {text}!".encode(), [secret.encode()])
        assert shown.replace(b"\\", b"") == b"bad key [hidden]!", how


def test_a_part_of_a_secret_is_shown_as_long_as_it_gives_nothing_away() -> None:
    short = f"{KEY[: RUN - 1]}... {KEY[1 - RUN :]} is no key".encode()
    assert redact(short, [KEY.encode()]) == short
    assert redact(KEY[2 : RUN + 2].encode(), [KEY.encode()]) == b"[hidden]"
    assert redact(b"a sk-01 b", [b"sk-01"]) == b"a [hidden] b"


@example(secret="0000000000\\0", before="", after="", how="url")
@given(
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=80),
    before=st.text(max_size=30),
    after=st.text(max_size=30),
    how=st.sampled_from(sorted(spellings("x"))),
)
def test_a_secret_of_any_characters_is_hidden_and_json_stays_json(
    secret: str, before: str, after: str, how: str
) -> None:
    text = spellings(secret)[how]
    body = json.dumps({"error": before + secret + after, "n": [before, 1]}).encode()
    clean = redact(body, [secret.encode()])
    json.loads(clean)
    assert secret not in json.loads(clean)["error"].replace("[hidden]", "\0")
    shown = redact(text.encode(), [secret.encode()]).decode()
    if len(text) >= 12 and how not in ("a prefix", "an end", "all but an end"):
        assert not any(piece in spelled(shown) for piece in pieces_of(spelled(secret)))
    assert redact(before.encode(), [b"0123456789abcdef"]) == before.encode() or "0123" in before


@given(
    secret=st.text("ab\\%&u0;", min_size=6, max_size=20),
    text=st.text("ab\\%&u0;", max_size=40),
    at=st.integers(0, 14),
)
def test_a_text_that_is_let_through_unread_has_nothing_to_hide(
    secret: str, text: str, at: int
) -> None:
    for shown in (text, text + secret[at : at + 13] + text):
        assert redact_text(shown, [secret.encode()]) == redact(
            shown.encode(), [secret.encode()]
        ).decode("utf-8")


@pytest.mark.parametrize("name", ["quot", "amp", "lt", "gt", "apos"])
def test_a_character_that_html_calls_by_name_is_recognised(name: str) -> None:
    secret = html.unescape(f"sk-0123&{name};456789")
    for text in (f"sk-0123&{name};456789", f"sk-0123&amp;{name};456789"):
        assert redact(f"a {text} b".encode(), [secret.encode()]) == b"a [hidden] b"


@pytest.mark.parametrize("size", [2**16, 4_000_000])
def test_hiding_takes_time_in_proportion(size: int) -> None:
    """Nothing that a server sends makes it quadratic: ten times as much, not a hundred times."""
    key = b"sk-" + bytes(range(48, 122)).replace(b"\\", b"")

    def steps(data: bytes) -> int:
        count = 0

        def count_line(frame: Any, event: str, arg: object) -> Any:
            nonlocal count
            count += event == "line"
            return count_line

        before = sys.gettrace()
        sys.settrace(count_line)
        try:
            redact(data, [key])
        finally:
            sys.settrace(before)
        return count

    for piece in (
        b"x",
        key[:6],
        key[:11],
        key,
        key[:18],
        b"\\",
        b"%25",
        b"&amp;",
        b"\\u0073",
        b"&#0",
    ):
        body = (piece * size)[:size]
        assert steps(body) <= 30 * min(size, 2**16) + 1_000 * len(key), piece


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("Authorization", "Bearer sk-1", HIDDEN.decode()),
        ("x-api-key", "sk-1", HIDDEN.decode()),
        ("set-cookie", "session=1", HIDDEN.decode()),
        ("x-ratelimit-remaining-tokens", "149984", "149984"),
        ("x-rate-limit-reset-tokens", "6s", "6s"),
        ("content-type", "application/json", "application/json"),
        ("x-request-id", "sk-1 asked", "… asked"),
        ("location", "https://sso.example/login?ticket=1", "https://sso.example/login?[hidden]"),
        ("link", '</b?t=1>; rel="next", </c>', '</b?[hidden]>; rel="next", </c>'),
        ("warning", "asked twice? no", "asked twice? no"),
    ],
)
def test_headers_are_shown_without_secrets(name: str, value: str, shown: str) -> None:
    headers = {name: value}
    assert shown_headers(headers, lambda text: text.replace("sk-1", "…")) == {name: shown}
