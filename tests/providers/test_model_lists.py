"""Lists of models: where they are, and what servers send."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

import trio_minillm as llm

OWN = {
    "openai": "https://api.openai.com/v1/models",
    "openai_responses": "https://api.openai.com/v1/models",
    "text_completions": "https://api.openai.com/v1/models",
    "openrouter": "https://openrouter.ai/api/v1/models",
    "anthropic": "https://api.anthropic.com/v1/models?limit=1000",
    "gemini": "https://generativelanguage.googleapis.com/v1beta/models?pageSize=1000",
}


def url_of(model: llm.Model, after: str | None = None) -> str | None:
    return model.provider.models_url(model, after)


@pytest.mark.parametrize("maker", OWN)
def test_the_list_is_beside_the_endpoint(maker: str) -> None:
    assert url_of(getattr(llm, maker)("m", api_key="k")) == OWN[maker]


@pytest.mark.parametrize(
    ("maker", "base_url", "url"),
    [
        ("compatible", "http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1/models"),
        ("compatible", "http://127.0.0.1/v1/chat/completions", "http://127.0.0.1/v1/models"),
        ("openai_responses", "http://127.0.0.1/v1/responses", "http://127.0.0.1/v1/models"),
        ("text_completions", "http://127.0.0.1/v1/completions", "http://127.0.0.1/v1/models"),
        ("anthropic", "http://127.0.0.1/v1/messages", "http://127.0.0.1/v1/models?limit=1000"),
        (
            "gemini",
            "http://127.0.0.1/v1beta/models",
            "http://127.0.0.1/v1beta/models?pageSize=1000",
        ),
        (
            "gemini",
            "http://127.0.0.1/v1beta/models/x:streamGenerateContent?a=b",
            "http://127.0.0.1/v1beta/models?pageSize=1000&a=b",
        ),
        (
            "compatible",
            "https://r.openai.azure.com/openai/v1",
            "https://r.openai.azure.com/openai/v1/models",
        ),
        (
            "compatible",
            "https://r.openai.azure.com?api-version=2024-10-21",
            "https://r.openai.azure.com/openai/models?api-version=2024-10-21",
        ),
    ],
)
def test_at_other_addresses(maker: str, base_url: str, url: str) -> None:
    assert url_of(getattr(llm, maker)("m", base_url=base_url, api_key="k")) == url


def test_the_page_that_follows() -> None:
    anthropic, gemini = llm.anthropic("m", api_key="k"), llm.gemini("m", api_key="k")
    assert url_of(anthropic, "a/b") == f"{OWN['anthropic']}&after_id=a%2Fb"
    assert url_of(gemini, "t&u=") == f"{OWN['gemini']}&pageToken=t%26u%3D"


@pytest.mark.parametrize("maker", ["anthropic", "gemini"])
def test_vertex_ai_has_no_list_in_these_formats(maker: str) -> None:
    place = "https://us-east5-aiplatform.googleapis.com/v1/projects/p/locations/us-east5"
    assert url_of(getattr(llm, maker)("m", base_url=place, api_key="ya29.x")) is None


def page(model: llm.Model, body: Any) -> Any:
    return model.provider.parse_models(json.dumps(body).encode())


ANY = llm.compatible("m", base_url="http://127.0.0.1/v1")


@pytest.mark.parametrize(
    ("entry", "context", "output"),
    [
        ({"id": "m"}, None, None),
        ({"id": "m", "max_model_len": 32768}, 32768, None),
        ({"id": "m", "context_window": 131072, "max_completion_tokens": 8192}, 131072, 8192),
        ({"id": "m", "max_context_length": 128000}, 128000, None),
        ({"id": "m", "meta": {"n_ctx_train": 2048, "n_vocab": 9}}, 2048, None),
        ({"id": "m", "context_length": 9, "top_provider": {"max_completion_tokens": 4}}, 9, 4),
        ({"id": "m", "context_length": "many", "max_tokens": None}, None, None),
    ],
)
def test_what_a_list_says_of_a_model(entry: Any, context: int | None, output: int | None) -> None:
    (found,) = page(ANY, {"object": "list", "data": [entry]}).models
    assert (found.id, found.context, found.output, found.price) == ("m", context, output, None)


def test_a_bare_array_and_entries_that_are_none() -> None:
    found = page(ANY, [{"id": "a"}, "b", {"id": 3}, {"id": ""}, {"name": "models/c"}])
    assert [one.id for one in found.models] == ["a", "c"]
    assert found.next is None


def test_pages_of_anthropic() -> None:
    model = llm.anthropic("m", api_key="k")
    data = [
        {"type": "model", "id": "new", "max_input_tokens": 200000, "max_tokens": 64000},
        {"type": "model", "id": "old", "lifecycle": "retired"},
    ]
    found = page(model, {"data": data, "has_more": True, "first_id": "new", "last_id": "old"})
    assert [(one.id, one.context, one.output) for one in found.models] == [("new", 200000, 64000)]
    assert found.next == "old"
    assert page(model, {"data": data, "has_more": False, "last_id": "old"}).next is None


def test_pages_of_gemini() -> None:
    model = llm.gemini("m", api_key="k")
    answers = {"supportedGenerationMethods": ["generateContent", "countTokens"]}
    listed = [
        {"name": "models/g", "inputTokenLimit": 1048576, "outputTokenLimit": 65536, **answers},
        {"name": "models/e", "supportedGenerationMethods": ["embedContent"]},
    ]
    found = page(model, {"models": listed, "nextPageToken": "t"})
    assert [(one.id, one.context, one.output) for one in found.models] == [("g", 1048576, 65536)]
    assert found.next == "t"


@pytest.mark.parametrize(
    ("pricing", "price"),
    [
        ({"prompt": "0.000001", "completion": "0.000005"}, (Decimal(1), Decimal(5))),
        ({"prompt": "0", "completion": "0"}, (Decimal(0), Decimal(0))),
        ({"prompt": "-1", "completion": "-1"}, None),
        ({"prompt": "cheap", "completion": "0"}, None),
        ({"prompt": True, "completion": "0"}, None),
        ({"prompt": "0.1"}, None),
        (None, None),
    ],
)
def test_prices_of_openrouter(pricing: Any, price: tuple[Decimal, Decimal] | None) -> None:
    model = llm.openrouter("m", api_key="k")
    (found,) = page(model, {"data": [{"id": "a/b", "pricing": pricing}]}).models
    assert (found.price and (found.price.input, found.price.output)) == price


@pytest.mark.parametrize("body", [b"<html>", b"3", b'{"error": "no"}', b'{"data": {}}', b"\xff"])
def test_what_is_no_list_is_an_error(body: bytes) -> None:
    with pytest.raises(llm.ProtocolError, match="list of models"):
        ANY.provider.parse_models(body)


def test_a_mark_that_is_not_unicode_is_an_error() -> None:
    model = llm.gemini("m", api_key="k")
    assert page(model, {"models": [], "nextPageToken": "é"}).next == "é"
    with pytest.raises(llm.ProtocolError, match="its next page"):
        page(model, {"models": [], "nextPageToken": "\ud800"})


def test_a_provider_of_ones_own_has_none_unless_it_says_so() -> None:
    assert llm.Provider().models_url(ANY) is None
