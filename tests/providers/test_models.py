"""A model's address, key and headers: refusals and warnings."""

from __future__ import annotations

import subprocess
import sys
import warnings
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

import trio_minillm as llm
import trio_minillm.providers
from trio_minillm.providers.anthropic import Anthropic

from ..support.spellings import KEY
from ..support.wires import MAKERS


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("dressed", [f'"{KEY}"', f"'{KEY}'", f"Bearer {KEY}", f"bearer  {KEY}"])
def test_a_key_that_was_copied_with_what_stood_around_it_is_refused(
    make: Any, dressed: str
) -> None:
    with pytest.raises(ValueError, match="the key alone, without quotation marks") as caught:
        make("m", api_key=dressed)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("base_url", "asked"),
    [
        ("HTTPS://api.openai.com/v1", "https://api.openai.com/v1/chat/completions"),
        ("Http://localhost:1/v1/responses", "http://localhost:1/v1/chat/completions"),
        ("http://localhost:1/v1/responses/?a=b", "http://localhost:1/v1/chat/completions?a=b"),
    ],
)
def test_an_address_may_be_written_in_several_ways(base_url: str, asked: str) -> None:
    model = llm.compatible("m", base_url=base_url)
    assert model.provider.endpoint_url(model) == asked


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("bad", ["\n", "\r\nx-evil: 1", "\0", "ü", "\ud800"])
def test_keys_and_headers_that_can_not_be_sent_are_refused(make: Any, bad: str) -> None:
    for given in ({"api_key": KEY + bad}, {"api_key": "k", "headers": {"x": KEY + bad}}):
        with pytest.raises(ValueError, match="printable ASCII") as caught:
            make("m", **given)
        assert KEY not in str(caught.value)
    with pytest.raises(ValueError, match="HTTP token"):
        make("m", api_key="k", headers={"x" + bad: "v"})


MODEL = {"name": "m", "provider": Anthropic(), "base_url": "https://h/v1"}


@pytest.mark.parametrize("make", [*MAKERS, partial(llm.Model, **MODEL)])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": None}, "name must be str, not NoneType"),
        ({"base_url": 5}, r"base_url must be str( or None)?, not int"),
        ({"api_key": 5}, r"api_key must be str( or a function)? or None, not int"),
        ({"headers": 5}, r"headers must be Mapping( or None)?, not int"),
        ({"extra": 5}, "extra must be Mapping, not int"),
        ({"price": 5}, "price must be TokenPrice or None, not int"),
    ],
)
def test_a_field_of_another_type_is_a_type_error(
    make: Any, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(TypeError, match=f"^{words}$") as caught:
        make(**{"name": "m", "api_key": "k", **given})
    assert caught.value.__context__ is None


def test_only_a_server_on_this_machine_is_known_by_another_name() -> None:
    """Two servers elsewhere can't pass for one."""
    model = llm.Model(**{**MODEL, "base_url": "http://127.0.0.1:8080/v1"}, identity="a")
    assert model.identity == "a"
    with pytest.raises(ValueError, match="identity is only for servers on this machine"):
        replace(model, base_url="https://h/v1")
    wrong: Any = 5
    with pytest.raises(TypeError, match="identity must be str or None, not int"):
        llm.Model(**MODEL, identity=wrong)


@pytest.mark.parametrize("make", [*MAKERS, partial(llm.Model, **MODEL)])
def test_a_model_has_a_name(make: Any) -> None:
    with pytest.raises(ValueError, match="name must not be empty"):
        make(name="", api_key="k")
    for wrong in (" ", " m", "m\n", "m\tx"):
        with pytest.raises(
            ValueError, match=r"^name must be a model's name, without surrounding spaces"
        ):
            make(name=wrong, api_key="k")


@pytest.mark.parametrize("make", MAKERS)
def test_an_empty_address_is_not_the_usual_one(make: Any) -> None:
    """Check that no key goes to a vendor if the variable with the address was empty."""
    with pytest.raises(ValueError, match="base_url must begin with http") as caught:
        make(name="m", base_url="", api_key="secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["openai", Anthropic, None])
def test_a_model_has_a_provider(wrong: Any) -> None:
    with pytest.raises(TypeError, match="provider must be Provider, not"):
        llm.Model(name="m", provider=wrong, base_url="https://h/v1")


def test_a_server_needs_an_address() -> None:
    with pytest.raises(TypeError, match="base_url must be str, not NoneType"):
        llm.compatible("m", base_url=None)  # type: ignore[arg-type]


def test_a_models_headers_and_fields_are_its_own() -> None:
    headers, extra = {"x-a": "1"}, {"top": 1}
    model = llm.openai("m", api_key="k", headers=headers, extra=extra)
    headers["x-a"], extra["top"] = "2", 2
    assert (model.headers, model.extra) == ({"x-a": "1"}, {"top": 1})


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
        "http://h/v1#",
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


@pytest.mark.parametrize("make", [llm.openai, llm.openrouter, llm.compatible])
@pytest.mark.parametrize("base", ["http://h.invalid/v1", "http://h.invalid/v1/chat/completions"])
@pytest.mark.parametrize("slash", ["", "/", "//"])
@pytest.mark.parametrize("query", ["", "?api-version=2025-01-01", "?a=b&c=/v1/"])
def test_where_a_chat_goes(make: Any, base: str, slash: str, query: str) -> None:
    model = make("m", base_url=f"{base}{slash}{query}")
    assert model.provider.endpoint_url(model) == f"http://h.invalid/v1/chat/completions{query}"


@pytest.mark.parametrize(
    "base", ["http://h.invalid", "http://h.invalid/v1", "http://h.invalid/v1/messages"]
)
@pytest.mark.parametrize("slash", ["", "/", "//"])
@pytest.mark.parametrize("query", ["", "?api-version=2025-01-01", "?a=b&c=/v1/"])
def test_where_a_message_goes(base: str, slash: str, query: str) -> None:
    model = llm.anthropic("m", base_url=f"{base}{slash}{query}", api_key=KEY)
    assert model.provider.endpoint_url(model) == f"http://h.invalid/v1/messages{query}"
    assert model.provider.wire_at(model) == "anthropic@h.invalid"


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1/generation?id=gen-1"),
        ("https://h.invalid/v1/?a=b", "https://h.invalid/v1/generation?id=gen-1&a=b"),
        (
            "https://h.invalid/v1/chat/completions/?a=b",
            "https://h.invalid/v1/generation?id=gen-1&a=b",
        ),
    ],
)
def test_where_the_cost_is_asked_for(base: str, url: str) -> None:
    model = llm.openrouter("m", base_url=base, api_key=KEY)
    request = model.provider.settlement_request(model, "gen-1")
    assert request is not None
    assert request.url == url


OAUTH = "sk-ant-oat01-x"


@pytest.mark.parametrize(
    ("base", "key", "names"),
    [
        (None, KEY, {"x-api-key"}),
        (None, OAUTH, {"authorization"}),
        ("https://api.z.ai/api/anthropic", KEY, {"x-api-key", "authorization"}),
        ("https://gateway.invalid", "sk-ant-api03-x", {"x-api-key"}),
        ("https://gateway.invalid", OAUTH, {"authorization"}),
        ("https://r.services.ai.azure.com/anthropic", KEY, {"x-api-key"}),
        ("https://gateway.invalid", "", set()),
    ],
)
def test_the_header_of_a_key_on_anthropics_wire(
    base: str | None, key: str, names: set[str]
) -> None:
    model = llm.anthropic("m", base_url=base, api_key=key)
    headers = model.provider.auth_headers(model)
    assert headers.keys() - {"anthropic-version"} == names
    assert headers.get("x-api-key", key) == key
    assert headers.get("authorization", f"Bearer {key}") == f"Bearer {key}"


def test_an_oauth_token_brings_its_beta_beside_the_callers() -> None:
    model = llm.anthropic("m", api_key=OAUTH, headers={"anthropic-beta": "a-1"})
    request = llm.Request(
        model=model, messages=(llm.user("x"),), params={"betas": ["b-2"]}, extra={}
    )
    headers = model.provider.request_headers(request)
    assert headers == {"anthropic-beta": "a-1,b-2,oauth-2025-04-20"}


@pytest.mark.parametrize(
    ("base", "wire"),
    [
        (None, "anthropic"),
        ("https://API.anthropic.com/v1/", "anthropic"),
        ("https://api.z.ai/api/anthropic", "anthropic@api.z.ai/api/anthropic"),
        ("https://API.z.ai/api/anthropic/v1?key-id=7", "anthropic@api.z.ai/api/anthropic"),
        ("http://127.0.0.1:4000", "anthropic@127.0.0.1:4000"),
    ],
)
def test_whose_thinking_it_is_on_anthropics_wire(base: str | None, wire: str) -> None:
    model = llm.anthropic("m", base_url=base, api_key=KEY)
    assert model.provider.wire_at(model) == wire


@pytest.mark.parametrize(
    ("version", "bound", "asked"),
    [
        ("2024-06-01", "max_tokens", False),
        ("2024-08-01-preview", "max_tokens", False),
        ("2024-09-01-preview", "max_completion_tokens", True),
        ("2024-10-21", "max_completion_tokens", True),
        ("preview", "max_completion_tokens", True),
        ("", "max_completion_tokens", True),
    ],
)
def test_what_azure_takes_depends_on_its_version(version: str, bound: str, asked: bool) -> None:
    query = f"?api-version={version}" if version else ""
    base = f"https://r.openai.azure.com/openai/deployments/d{query}"
    model = llm.compatible("m", base_url=base)
    request = llm.Request(
        model=model, messages=(llm.user("x"),), params={"max_tokens": 5}, extra={}
    )
    body = model.provider.build_request(request)
    assert body[bound] == 5
    assert ("stream_options" in body) is asked


def test_the_names_of_all_providers_are_there_before_they_are_loaded() -> None:
    assert set(llm.providers.__all__) <= set(dir(llm.providers))
    code = "import trio_minillm as llm; print(llm.providers.anthropic.Anthropic().name)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "anthropic\n"


def test_an_event_whose_name_says_that_something_goes_on_is_passed_over() -> None:
    data = b'{"message": "looking for sources"}'
    assert llm.providers.OpenAIChat().parse_event("search", data) is None
    with pytest.raises(llm.ProviderError):
        llm.providers.OpenAIChat().parse_event("other", data)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    "url",
    [
        *("http://http://h/v1", "https://https://h", "http://h:/v1", "http://[::1]:/v1"),
        *("http://<host>/v1", "http://{host}:80/v1", "http://$HOST/v1", "http://*:8000/v1"),
    ],
)
def test_an_address_that_was_not_filled_in_is_told_at_once(make: Any, url: str) -> None:
    with pytest.raises(ValueError, match="base_url must name a host, and a port from 1 to 65535"):
        make("m", base_url=url, api_key="k")


@pytest.mark.parametrize(
    "url",
    [
        *("https://my_host.example/v1", "https://b\xfccher.example/v1", "http://[::1]:80/v1"),
        *("http://[fe80::1%25lo]:80/v1", "https://h/https://other/v1", "https://r-1.example./v1"),
    ],
)
def test_an_address_may_be_unusual(url: str) -> None:
    assert llm.compatible("m", base_url=url).base_url == url
