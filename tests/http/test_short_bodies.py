"""Tests of reading the body of an error in UTF-8, whatever a server or a proxy has made of it."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm._http.short_bodies import in_utf8, unzipped

WORDS = "Zugriff verweigert: 余额不足 é"
KEY = "sk-0123456789abcdef"


@pytest.mark.parametrize("charset", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
@pytest.mark.parametrize("text", [json.dumps({"error": WORDS}), f"<p>{WORDS}</p>"])
def test_text_that_shows_its_coding(charset: str, text: str) -> None:
    assert in_utf8(text.encode(charset), "").decode("utf-8-sig").removeprefix("\ufeff") == text


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("iso-8859-1", "Zugriff é verweigert"),
        ("windows-1251", "Доступ запрещён"),
        ("gb2312", "余额不足"),
        ("GBK", "余额不足"),
        ('"big5"', "餘額不足"),
        ("Shift_JIS", "残高不足"),
        ("euc-kr", "잔액 부족"),
    ],
)
def test_text_in_the_coding_that_the_header_names(charset: str, text: str) -> None:
    body = text.encode(charset.strip('"'))
    assert in_utf8(body, f"text/html; charset={charset}").decode() == text
    assert in_utf8(text.encode(), f"text/html; charset={charset}").decode() == text


@pytest.mark.parametrize(
    "named", ["", "utf-8", "unicode_escape", "hex", "punycode", "gb-nothing", "cp1"]
)
def test_bytes_that_nothing_explains_stay(named: str) -> None:
    found = in_utf8(b"a\xe9b", f"text/plain; charset={named}")
    assert found in (b"a\xe9b", "a\ufffdb".encode())


def test_a_body_may_be_cut_inside_a_character() -> None:
    body = "é".encode()[:1]
    assert in_utf8(b"a" + body, "text/plain; charset=latin-1") == b"a" + body


def test_data_of_gzip_are_unpacked_as_far_as_they_go() -> None:
    packed = gzip.compress(b"x" * 1000)
    assert unzipped(packed, 100) == b"x" * 100
    assert unzipped(packed[:-8], 2000) == b"x" * 1000
    for other in (b"", b"\x1f\x8b", b"\x1f\x8b\x08broken", b"plain"):
        assert unzipped(other, 100) == other


def _packed(body: bytes) -> bytes:
    return gzip.compress(body)


@pytest.mark.parametrize("make", [_packed, lambda b: b.decode().encode("utf-16")])
async def test_a_refusal_is_read_and_shows_no_key(make: Any, autojump_clock: Any) -> None:
    body = json.dumps({"error": {"message": f"Insufficient Balance for {KEY}"}}).encode()
    transport = testing.ScriptedTransport(testing.reply(make(body), status=403))
    asked = llm.compatible("m", base_url="https://llm.invalid/v1", api_key=KEY)
    async with llm.open_client(transport=transport) as client:
        with pytest.raises(llm.RefusedError, match="Insufficient Balance for") as caught:
            await client.complete(asked, "Hi")
    assert caught.value.kind == "quota"
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("cut", [1, 2, 99])
async def test_an_answer_that_is_packed_and_does_not_say_so(cut: int, autojump_clock: Any) -> None:
    packed = gzip.compress(b"".join(testing.openai_events("Hi")))
    transport = testing.ScriptedTransport(testing.reply(packed[:cut], packed[cut:]))
    async with llm.open_client(transport=transport) as client:
        with pytest.raises(llm.ProtocolError, match="compressed, but has no content-encoding"):
            await client.complete(testing.model(), "Hi")
