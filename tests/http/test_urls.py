"""Addresses of requests: whoever parses them, the parts are httpx's."""

from __future__ import annotations

import string
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm._http.transport_errors import UnsupportedProtocol
from trio_minillm._http.urls import LONGEST_URL, PlainURL, origin_of, parsed
from trio_minillm.providers import Model


def parts(url: Any) -> tuple[object, ...]:
    """Return all that is asked of a URL."""
    names = ("scheme", "host", "raw_host", "port", "raw_path", "netloc")
    return (*(getattr(url, name) for name in names), str(url))


def outcome(parse: Any, url: str) -> tuple[object, ...]:
    try:
        return parts(parse(url))
    except Exception as exc:
        return (type(exc), str(exc))


PLAIN = [
    "http://x",
    "https://x/",
    "https://api.example.com/v1/chat/completions",
    "http://localhost:8080/v1/messages",
    "http://127.0.0.1:80/v1",
    "https://10.255.199.0:443/",
    "https://x:80/",
    "http://x:443/",
    "http://x:99999/",
    "https://my-host_1.example-2.com/a..b/c.d/e.",
    "https://x//a//",
    "https://x/v1beta/models/m:streamGenerateContent?alt=sse&key=a/b?c.d",
    "https://x/model/anthropic.claude-v1%3A0/invoke%2f",
    "https://x?",
    "https://x/?",
    "https://x?a=%20",
    "https://x/(a)!$&'*+,;=@~_-",
    "https://a-.b/",
]
OTHER = [
    "HTTP://x/",
    "https://X/",
    "ftp://x/",
    "x",
    "/v1",
    "",
    "http://",
    "http:///v1",
    "https://user:secret@x/",
    "https://x/#here",
    "https://x:/",
    "https://x:0/",
    "https://x:080/",
    "https://[::1]/",
    "https://127.1/",
    "https://a.1/",
    "https://x./",
    "https://a..b/",
    "https://.x/",
    "https://-a/",
    "https://_/",
    "https://xn--mller-kva.de/",
    "https://müller.de/",
    "https://x/./a",
    "https://x/a/../b",
    "https://x/.hidden",
    "https://x/a b",
    "https://x/%zz",
    "https://x/%4",
    "https://x/[a]",
    "https://x/a|b",
    "https://x/é",
    "https://x?é",
    'https://x?"',
    "https://x?a b",
    "https://x?{a}",
    f"https://x/{'a' * LONGEST_URL}"[:LONGEST_URL],
]
REFUSED = [
    "https://256.0.0.1/",
    "https://1.2.3.04/",
    "https://x:y/",
    "https://[::1/",
    "https://x\n/",
    "https://x/\n",
    "https://x/?\x7f",
    f"https://x/{'a' * LONGEST_URL}"[: LONGEST_URL + 1],
]


@pytest.mark.parametrize("url", PLAIN)
def test_a_plain_url_needs_no_httpx(url: str) -> None:
    found = parsed(url)
    assert isinstance(found, PlainURL)
    assert parts(found) == parts(httpx.URL(url))


@pytest.mark.parametrize("url", OTHER, ids=lambda url: ascii(url)[:40])
def test_any_other_is_parsed_by_httpx(url: str) -> None:
    assert isinstance(parsed(url), httpx.URL) or len(url) == LONGEST_URL
    assert parts(parsed(url)) == parts(httpx.URL(url))


@pytest.mark.parametrize("url", REFUSED, ids=lambda url: ascii(url)[:40])
def test_what_httpx_refuses_is_refused(url: str) -> None:
    with pytest.raises(httpx.InvalidURL) as caught:
        httpx.URL(url)
    assert outcome(parsed, url) == (httpx.InvalidURL, str(caught.value))


def test_a_url_of_httpx_is_taken_as_it_is() -> None:
    url: Any = httpx.URL("https://x/")
    assert parsed(url) == url
    nothing: Any = 5
    with pytest.raises(TypeError):
        parsed(nothing)


def test_where_a_url_leads() -> None:
    assert origin_of(parsed("http://x/")) == ("http", "x", 80)
    assert origin_of(parsed("https://x:8443/")) == ("https", "x", 8443)
    assert origin_of(parsed("https://[::1]/")) == ("https", "::1", 443)
    for url, scheme in [("ftp://x/", "ftp"), ("/v1", "no scheme"), ("http:///v1", "http")]:
        with pytest.raises(UnsupportedProtocol, match=f"^no transport for {scheme}://$"):
            origin_of(parsed(url))


@pytest.mark.parametrize(
    "model",
    [
        llm.openai("gpt-5-mini", api_key="k"),
        llm.openai_responses("gpt-5-mini", api_key="k"),
        llm.openrouter("anthropic/claude-haiku-4.5", api_key="k"),
        llm.anthropic("claude-haiku-4-5", api_key="k"),
        llm.gemini("gemini-2.5-flash", api_key="k"),
        llm.text_completions("davinci-002", api_key="k"),
        llm.compatible("m", base_url="http://127.0.0.1:8080/v1", api_key="k"),
        llm.compatible("m", base_url="https://my.openai.azure.com/openai/v1", api_key="k"),
    ],
    ids=repr,
)
def test_what_models_are_asked_at_is_plain(model: Model) -> None:
    assert isinstance(parsed(model.provider.endpoint_url(model)), PlainURL)


PIECES = [
    *(
        "http",
        "https",
        "HTTPS",
        "ftp",
        "://",
        ":",
        "//",
        "/",
        "/.",
        "/..",
        ".",
        "..",
        "?",
        "#",
        "@",
    ),
    *("a", "x.y", "A", "xn--", "xn--mller-kva", "é", "ß", "localhost", "127.0.0.1", "1.2.3", "256"),
    *("[::1]", "[", "]", "0", "80", "443", "08", "99999", "100000", "%41", "%4", "%zz", "%", "-"),
    *(
        "_",
        "~",
        " ",
        "\n",
        "\t",
        "\x7f",
        "\\",
        "|",
        "^",
        "`",
        "{",
        "}",
        '"',
        "<",
        ">",
        "=&;,+*()'!$",
    ),
]
LABEL = st.text(string.ascii_lowercase + string.digits + "-_", min_size=1, max_size=6)
BYTE = st.integers(0, 300).map(str)
HOST = st.lists(LABEL, min_size=1, max_size=3) | st.lists(BYTE, min_size=4, max_size=4)
REST = st.lists(st.sampled_from(PIECES) | LABEL, max_size=6).map("".join)
LIKELY = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "https"]),
    HOST.map(".".join),
    st.just("") | st.integers(0, 100_000).map(":{}".format),
    st.just("") | REST.map("/{}".format) | REST.map("?{}".format),
)


@given(LIKELY | st.lists(st.sampled_from(PIECES), max_size=9).map("".join) | st.text(max_size=20))
@example("http://x/\u0660")  # a digit of another script
@example("http://x:\u0668\u0660/")
def test_the_parts_are_those_of_httpx(url: str) -> None:
    assert outcome(parsed, url) == outcome(httpx.URL, url)
