"""A model's address, key and headers: refusals and warnings."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

import trio_minillm as llm

from ..support.spellings import KEY
from ..support.wires import MAKERS


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("bad", ["\n", "\r\nx-evil: 1", "\0", "ü", "\ud800"])
def test_keys_and_headers_that_can_not_be_sent_are_refused(make: Any, bad: str) -> None:
    for given in ({"api_key": KEY + bad}, {"api_key": "k", "headers": {"x": KEY + bad}}):
        with pytest.raises(ValueError, match="printable ASCII") as caught:
            make("m", **given)
        assert KEY not in str(caught.value)
    with pytest.raises(ValueError, match="HTTP token"):
        make("m", api_key="k", headers={"x" + bad: "v"})


@pytest.mark.parametrize("bad", ["a\n", " a", "ü"])
def test_betas_that_can_not_be_sent_are_refused(bad: str) -> None:
    model = llm.anthropic("m", api_key="k")
    request = llm.Request(
        model=model, messages=(llm.user("x"),), params={"betas": ["a", bad]}, extra={}
    )
    with pytest.raises(ValueError, match="betas must be printable"):
        model.provider.request_headers(request)


@pytest.mark.parametrize(
    "url",
    [
        "http://me:secret@h/v1",
        "http://me@h/v1",
        "ftp://h",
        "file:///etc/passwd",
        "//h/v1",
        "h/v1",
        "http://h/v1?api_key=" + KEY,
        "http://h/v1?a=b&KEY=" + KEY,
        "http://h/v1\r\nx-evil: 1",
        "http://h /v1",
        "http://h\\@evil.invalid/v1",
        "http://h/\0",
        "http:///v1",
        "https://",
        "http://[::1",
        "http://h:99999/v1",
        "http://h:0/v1",
        "http://h:-1/v1",
        "http://h:80:80/v1",
        "http://h:x/v1",
    ],
)
def test_addresses_that_mean_something_else_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        llm.compatible("m", base_url=url)
    assert KEY not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding"])
def test_headers_do_not_say_where_the_body_ends(name: str) -> None:
    with pytest.raises(ValueError, match="where the body ends"):
        llm.compatible("m", base_url="http://h", headers={name: "5"})


@pytest.mark.parametrize(
    ("host", "warned"),
    [
        ("localhost", False),
        ("LOCALHOST", False),
        ("a.localhost", False),
        ("127.0.0.1", False),
        ("127.8.9.10", False),
        ("[::1]", False),
        ("name.invalid", False),
        ("example.com", True),
        ("10.0.0.1", True),
        ("192.168.1.5", True),
        ("0.0.0.0", True),
        ("[::2]", True),
        ("128.0.0.1", True),
        ("localhost.example.com", True),
        ("127.0.0.1.example.com", True),
        ("notlocalhost", True),
    ],
)
def test_a_key_over_plain_http_to_another_machine_is_warned_of(host: str, warned: bool) -> None:
    for make in MAKERS:
        for headers in ({}, {"Authorization": KEY}):
            key = None if headers else KEY
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                make("m", base_url=f"http://{host}:80/v1", api_key=key or "", headers=headers)
                make("m", base_url=f"https://{host}:80/v1", api_key=key or "", headers=headers)
                make("m", base_url=f"http://{host}:80/v1", api_key="")  # there is no key to lose
            assert [(w.filename, KEY in str(w.message)) for w in told] == [
                (__file__, False)
            ] * warned
