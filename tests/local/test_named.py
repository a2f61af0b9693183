"""Models by name: the kinds, their keys, and what is no name."""

import pytest

from trio_minillm.local._named import open_model


async def test_models_by_name(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.setenv("TRIO_MINILLM_API_KEY", "sk-2")
    async with open_model("openai:gpt-5-mini") as model:
        assert (model.name, model.api_key) == ("gpt-5-mini", "sk-1")
    async with open_model("compatible:a:b", base_url="http://127.0.0.1:1/v1") as model:
        assert (model.name, model.api_key) == ("a:b", "sk-2")
    async with open_model("text:gpt-3.5-turbo-instruct") as model:
        assert (model.provider.name, model.api_key) == ("text", "sk-1")
    async with open_model("text:m", base_url="http://127.0.0.1:1/v1") as model:
        assert model.api_key == "sk-2", "OpenAI's key must not reach another server"
    async with open_model("openai-responses:gpt-5") as model:
        assert model.api_key == "sk-1"
    async with open_model("openai-responses:m", base_url="http://127.0.0.1:1/v1") as model:
        assert model.api_key == "sk-2", "OpenAI's key must not reach another server"
    async with open_model("anthropic:c", api_key="k", headers={"x": "y"}) as model:
        assert (model.provider.name, dict(model.headers)) == ("anthropic", {"x": "y"})
    async with open_model(model, base_url="http://without.effect") as same:
        assert same is model


@pytest.mark.parametrize(
    ("name", "url"),
    [("gpt-5", None), ("openai:", None), ("compatible:m", None), ("local", "http://h/v1")],
)
async def test_names_that_are_none(name, url):
    with pytest.raises(ValueError):
        async with open_model(name, base_url=url):
            raise AssertionError("not reached")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("responses:gpt-5", "; did you mean openai-responses:gpt-5?"),
        ("google:", "; did you mean gemini:NAME?"),
        ("claude:c", "; did you mean anthropic:c?"),
        ("OpenAI:m", "; did you mean openai:m?"),
        ("antropic:m", "; did you mean anthropic:m?"),
        ("open-router:a/b:free", "; did you mean openrouter:a/b:free?"),
        ("openai:", ""),
        ("gpt", "; did you mean openai:NAME?"),
        ("gpt-5-mini", "; did you mean openai:gpt-5-mini?"),
        ("o3", "; did you mean openai:o3?"),
        ("o4-mini", "; did you mean openai:o4-mini?"),
        ("claude-haiku-4-5", "; did you mean anthropic:claude-haiku-4-5?"),
        ("gemini-2.5-flash", "; did you mean gemini:gemini-2.5-flash?"),
        ("anthropic/claude-haiku-4.5", "; did you mean openrouter:anthropic/claude-haiku-4.5?"),
        ("a/b:free", "; did you mean openrouter:a/b:free?"),
        ("models/qwen3.gguf", "; did you mean local:models/qwen3.gguf?"),
        ("lokal", "; did you mean local?"),
        ("o5", ""),
        ("zzz:m", ""),
    ],
)
async def test_the_name_that_was_likely_meant(name, words):
    with pytest.raises(ValueError) as caught:
        async with open_model(name):
            raise AssertionError("not reached")
    assert str(caught.value).endswith(f"local or local:PATH.gguf{words}")
