"""Text completions: addresses and keys, prompts, parameters, events of known servers, log probabilities."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

import trio_minillm as llm
from trio_minillm._protocol.request import body_of, make_request
from trio_minillm._types.openai_messages import messages_of
from trio_minillm.providers import SERVERS, TextCompletions
from trio_minillm.testing import decode, sse, text_events

TEXT = TextCompletions()
OPENAI = "https://api.openai.com/v1/completions"


def model(name: str = "m", **options: Any) -> llm.Model:
    return llm.text_completions(name, **{"base_url": "http://127.0.0.1:8000/v1", **options})


def body(prompt: Any, asked: llm.Model | None = None, **params: Any) -> dict[str, Any]:
    return body_of(make_request(asked or model(), messages_of(prompt), params))


# -- addresses and keys ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "url"),
    [
        (None, OPENAI),
        ("https://h/v1", "https://h/v1/completions"),
        ("https://h/v1/", "https://h/v1/completions"),
        ("https://h/v1/completions", "https://h/v1/completions"),
        ("https://h/v1/chat/completions", "https://h/v1/completions"),
        ("https://api.deepseek.com/beta", "https://api.deepseek.com/beta/completions"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1/completions"),
        (
            "https://r.openai.azure.com/openai/deployments/d?api-version=2024-10-21",
            "https://r.openai.azure.com/openai/deployments/d/completions?api-version=2024-10-21",
        ),
    ],
)
def test_the_address(base: str | None, url: str) -> None:
    asked = model(base_url=base, api_key="k")
    assert asked.provider.endpoint_url(asked) == url


def test_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    assert llm.text_completions("gpt-3.5-turbo-instruct").api_key == "sk-openai"
    assert model().api_key is None, "OpenAI's key must not reach another server"
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ValueError, match="set OPENAI_API_KEY"):
        llm.text_completions("m")
    azure = model(base_url="https://r.openai.azure.com/openai/v1", api_key="k")
    assert azure.provider.auth_headers(azure) == {"api-key": "k"}
    other = model(api_key="k")
    assert other.provider.auth_headers(other) == {"authorization": "Bearer k"}


@pytest.mark.parametrize(
    ("base", "server"),
    [
        (None, "openai"),
        ("https://api.deepseek.com/beta", "deepseek"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("http://127.0.0.1:8000/v1", "generic"),
    ],
)
def test_the_server_is_known_by_its_host(base: str | None, server: str) -> None:
    provider = model(base_url=base, api_key="k").provider
    assert isinstance(provider, TextCompletions)
    assert provider.server == server


def test_an_unknown_server_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown server 'vlm'; known: .*vllm"):
        model(server="vlm")


@pytest.mark.parametrize("server", sorted(SERVERS))
def test_the_bound_of_an_answer_has_one_name(server: str) -> None:
    assert body("Once", model(server=server), max_tokens=5)["max_tokens"] == 5


# -- prompts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "sent"),
    [
        ("Once upon", "Once upon"),
        (" \n", " \n"),
        ("", ""),
        (llm.user("Once upon"), "Once upon"),
        ([{"role": "user", "content": "Once upon"}], "Once upon"),
        (llm.user("Once", llm.text(" upon", cache=True)), "Once upon"),
        ([1, 2, 3], [1, 2, 3]),
        ((1, 2, 3), [1, 2, 3]),
        (llm.user(llm.TokensPart((7,))), [7]),
        ([{"role": "user", "content": [1, 2]}], [1, 2]),
    ],
)
def test_a_prompt_is_sent_as_it_is(prompt: Any, sent: Any) -> None:
    assert body(prompt) == {
        "model": "m",
        "prompt": sent,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize(
    "messages",
    [
        [llm.system("Be brief."), llm.user("Hi")],
        [llm.user("Hi"), llm.assistant("Hello")],
        llm.assistant("Once"),
        llm.system("Once"),
        llm.user("Hi", name="ann"),
        [llm.user("Hi"), llm.user("there")],
    ],
)
def test_a_conversation_is_refused_with_a_hint(messages: Any) -> None:
    with pytest.raises(ValueError, match="use a chat format"):
        body(messages)


def test_a_picture_is_refused_by_name() -> None:
    with pytest.raises(
        ValueError, match=r"ImagePart can't be in this prompt: .* use a chat format"
    ):
        body(llm.user("a", llm.image("https://x.invalid/a")))


@pytest.mark.parametrize(
    "other",
    [
        llm.openai("m", api_key="k"),
        llm.openai_responses("m", api_key="k"),
        llm.openrouter("m", api_key="k"),
        llm.anthropic("m", api_key="k"),
        llm.gemini("m", api_key="k"),
        llm.compatible("m", base_url="https://h/v1"),
    ],
    ids=lambda m: m.provider.name,
)
def test_tokens_are_for_text_completions_only(other: llm.Model) -> None:
    with pytest.raises(ValueError, match="TokensPart"):
        body([1, 2, 3], other)


# -- parameters --------------------------------------------------------------------------------


def test_parameters_have_the_names_of_the_format() -> None:
    params = {
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "n": 2,
        "seed": 7,
        "suffix": "end",
        "echo": True,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
        "logit_bias": {"1": 2},
        "user": "u",
        "min_p": 0.1,
    }
    made = body("Once", **params, stop="x", stream_options={"continuous_usage_stats": True})
    assert made == {
        "model": "m",
        "prompt": "Once",
        "stream": True,
        **params,
        "stop": ["x"],
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }


@pytest.mark.parametrize(
    ("params", "sent"),
    [
        ({}, None),
        ({"logprobs": False}, None),
        ({"logprobs": True}, 1),
        ({"logprobs": True, "top_logprobs": 0}, 0),
        ({"logprobs": True, "top_logprobs": 5}, 5),
    ],
)
def test_log_probabilities_are_a_number(params: dict[str, Any], sent: int | None) -> None:
    assert body("Once", **params).get("logprobs") == sent


def test_alternatives_without_log_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="logprobs=True"):
        body("Once", top_logprobs=2)


@pytest.mark.parametrize(
    ("params", "whole"),
    [
        ({"prompt_logprobs": 0}, True),  # vLLM: "not available when `stream=True`"
        ({"best_of": 2}, True),  # OpenAI: "Results cannot be streamed."
        ({"echo": True, "max_tokens": 1}, True),  # llama-cpp-python leaves it out of a stream
        ({"echo": True, "max_tokens": 0}, True),
        ({"echo": True, "max_tokens": 2}, False),
        ({"echo": True}, False),
        ({"echo": False, "max_tokens": 1}, False),
        ({"max_tokens": 1}, False),
    ],
)
def test_what_servers_do_not_stream_is_asked_for_whole(params: Any, whole: bool) -> None:
    made = body("Once", **params)
    assert made["stream"] is not whole
    assert ("stream_options" in made) is not whole  # OpenAI refuses them without a stream


@pytest.mark.parametrize(
    "params",
    [{"tools": [{"type": "x"}]}, {"response_format": "json"}, {"reasoning": "low"}, {"betas": "x"}],
)
def test_what_the_format_lacks_is_refused(params: Any) -> None:
    (name,) = params
    with pytest.raises(ValueError, match=f"{name}: not a parameter of the text wire format"):
        body("Once", **params)


def test_samplers_are_for_the_servers_that_have_them() -> None:
    with pytest.raises(ValueError, match="min_p"):
        body("Once", model(base_url=None, api_key="k"), min_p=0.1)
    mistral = model(base_url="https://api.mistral.ai/v1/fim", api_key="k")  # codestral
    made = body("def f(", mistral, seed=1, suffix="return 1", max_tokens=9)
    assert made["random_seed"] == 1
    assert "stream_options" not in made
    with pytest.raises(ValueError, match="extra must not contain prompt"):
        body_of(make_request(model(), messages_of("Once"), {}, extra={"prompt": "x"}))


# -- events ------------------------------------------------------------------------------------

HEAD = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}


def event(text: Any, reason: Any = None, **more: Any) -> bytes:
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": reason, **more}
    return sse({**HEAD, "choices": [choice]})


COUNTS = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
USAGE = sse({**HEAD, "choices": [], "usage": COUNTS})
DONE = sse("[DONE]")
COUNTED = {**HEAD, "usage": COUNTS}

STREAMS = {
    # OpenAI's: null reasons, an empty text at the end, usage of its own
    "openai": [event("Hel"), event("lo"), event("", "stop"), USAGE, DONE],
    # vLLM's: fields of its own, the reason beside the last text
    "vllm": [
        event("Hel", stop_reason=None, token_ids=None, prompt_logprobs=None, prompt_token_ids=None),
        event("lo", "stop", stop_reason=2, token_ids=[5]),
        USAGE,
        DONE,
    ],
    # llama.cpp's: usage and timings with the last
    "llama.cpp": [
        event("Hel"),
        event("lo"),
        sse(
            {
                **COUNTED,
                "choices": [{"text": "", "index": 0, "logprobs": None, "finish_reason": "stop"}],
                "timings": {"prompt_n": 3},
            }
        ),
        DONE,
    ],
    # SGLang's
    "sglang": [event("Hel", matched_stop=None), event("lo", "stop", matched_stop=2), USAGE, DONE],
    # TGI's: empty reasons until the end
    "tgi": [event("Hel", ""), event("lo", "stop"), USAGE, DONE],
    # OpenRouter's: what has served it
    "openrouter": [
        event("Hel", native_finish_reason=None, reasoning=None),
        event("lo", "stop", native_finish_reason="stop", reasoning=None),
        sse({**COUNTED, "provider": "X", "choices": [{"text": "", "index": 0, "finish_reason": "stop"}]}),
        DONE,
    ],
    # A gateway's, which makes chat of it
    "chat": [
        sse({**HEAD, "choices": [{"index": 0, "delta": {"content": "Hel"}}]}),
        sse({**HEAD, "choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": "stop"}]}),
        USAGE,
        DONE,
    ],
}  # fmt: skip


@pytest.mark.parametrize("server", STREAMS)
@pytest.mark.parametrize("cut", [1, 7, 10_000])
def test_streams_of_known_servers(server: str, cut: int) -> None:
    data = b"".join(STREAMS[server])
    pieces = [data[at : at + cut] for at in range(0, len(data), cut)]
    response, error = decode(TEXT, pieces)
    assert error is None
    assert (response.content, response.finish_reason) == ("Hello", "stop")
    assert response.outcome is llm.Outcome.FINISHED
    assert response.usage is not None
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (3, 2)
    assert (response.id, response.notes, response.skipped_events) == ("cmpl-1", (), 0)


def test_without_usage_the_reason_is_the_end() -> None:
    """llama-cpp-python sends none in a stream."""
    response, error = decode(TEXT, [event("Hel"), event("lo"), event("", "length"), DONE])
    assert error is None
    assert (response.content, response.usage) == ("Hello", None)


@pytest.mark.parametrize("tail", [[], [DONE], [event("")], [event("", "")]])
def test_a_stream_without_a_reason_is_cut(tail: list[bytes]) -> None:
    response, error = decode(TEXT, [event("Hel"), *tail])
    assert isinstance(error, llm.StreamTruncated)
    assert response.content == "Hel"


@pytest.mark.parametrize("text", [{"a": 1}, [1], ["a", "b"]])
def test_text_that_can_not_be_read_is_an_error(text: Any) -> None:
    for events in ([event("Hel"), event(text), event("", "stop")], [event(text, "stop")]):
        _, error = decode(TEXT, [*events, DONE])
        assert isinstance(error, llm.ProtocolError)
        assert "text is not text" in str(error)
    whole = {**HEAD, "choices": [{"text": text, "index": 0, "finish_reason": "stop"}]}
    assert isinstance(decode(TEXT, [json.dumps(whole).encode()])[1], llm.ProtocolError)


def test_numbers_and_null_in_place_of_text() -> None:
    response, error = decode(TEXT, [event(4), event(2.50), event(None), event("", "stop"), DONE])
    assert error is None
    assert response.content == "42.5"


@pytest.mark.parametrize(
    "failed",
    [
        sse({"error": {"message": "no", "code": 500}}),
        sse({"error": "no"}),
        event("", "error"),
        event("lost", error={"message": "no", "code": 500}),
        event("", "stop", native_finish_reason="MALFORMED_FUNCTION_CALL"),
    ],
)
def test_a_failure_is_no_answer(failed: bytes) -> None:
    response, error = decode(TEXT, [event("Hel"), failed, DONE])
    assert isinstance(error, llm.ProviderError)
    assert response.content.startswith("Hel")


def test_several_choices_are_told_apart() -> None:
    events = [event("a"), event("b", index=1), event("c", "stop"), event("d", "length", index=1)]
    response, error = decode(TEXT, [*events, USAGE, DONE], choices=2)
    assert error is None
    assert [choice.content for choice in response.choices] == ["ac", "bd"]
    both = [{"text": t, "index": i, "finish_reason": "stop"} for i, t in enumerate("xy")]
    response, error = decode(TEXT, [sse({**HEAD, "choices": both}), USAGE, DONE], choices=2)
    assert error is None
    assert [choice.content for choice in response.choices] == ["x", "y"]


def test_reasoning_of_a_router() -> None:
    response, error = decode(
        TEXT, [event("", reasoning="hm"), event("Hi"), event("", "stop"), DONE]
    )
    assert error is None
    assert (response.content, response.reasoning) == ("Hi", "hm")


@pytest.mark.parametrize("more", [{}, {"native_finish_reason": None}, {"unknown": 1}])
@pytest.mark.parametrize("place", ["beside", "before"])
def test_reasoning_of_a_router_is_read_beside_any_field(more: Any, place: str) -> None:
    if place == "beside":
        events = [event("H", reasoning="h", **more), event("i", reasoning="m", **more)]
    else:
        events = [event("", reasoning="hm", **more), event("Hi", **more)]
    response, error = decode(TEXT, [*events, event("", "stop", **more), DONE])
    assert error is None
    assert (response.content, response.reasoning, response.notes) == ("Hi", "hm", ())
    choice = {"index": 0, "text": "Hi", "reasoning": "hm", "finish_reason": "stop", **more}
    response, error = decode(TEXT, [json.dumps({**COUNTED, "choices": [choice]}).encode()])
    assert error is None
    assert (response.content, response.reasoning) == ("Hi", "hm")


@pytest.mark.parametrize("indent", [None, 2])
def test_a_whole_body(indent: int | None) -> None:
    choices = [{"text": "Hello", "index": 0, "logprobs": None, "finish_reason": "stop"}]
    whole = json.dumps({**COUNTED, "choices": choices}, indent=indent).encode()
    response, error = decode(TEXT, [whole])
    assert error is None
    assert (response.content, response.finish_reason) == ("Hello", "stop")
    assert response.usage is not None
    assert response.usage.final


def test_a_whole_body_in_the_shape_of_chat() -> None:
    """Mistral's, to fill in the middle."""
    choices = [{"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}]
    response, error = decode(TEXT, [json.dumps({**COUNTED, "choices": choices}).encode()])
    assert error is None
    assert response.content == "x"


@pytest.mark.parametrize("finish", ["stop", "length", "content_filter"])
def test_builders_make_what_servers_send(finish: str) -> None:
    response, error = decode(TEXT, text_events("Hel", "lo", finish=finish))
    assert error is None
    assert (response.content, response.finish_reason) == ("Hello", finish)


# -- log probabilities -------------------------------------------------------------------------

OLDER = {
    "tokens": ["Hel", "lo"],
    "token_logprobs": [-0.5, -0.25],
    "top_logprobs": [{"Hel": -0.5, "A": -2}, {"lo": -0.25}],
    "text_offset": [0, 3],
}
IN_CHAT_S_SHAPE = [
    {
        "token": "Hel",
        "logprob": -0.5,
        "top_logprobs": [{"token": "Hel", "logprob": -0.5}, {"token": "A", "logprob": -2}],
        "text_offset": 0,
    },
    {
        "token": "lo",
        "logprob": -0.25,
        "top_logprobs": [{"token": "lo", "logprob": -0.25}],
        "text_offset": 3,
    },
]


def test_log_probabilities_have_the_shape_of_chat_s() -> None:
    pieces = [{k: [v[n]] for k, v in OLDER.items()} for n in range(2)]  # type: ignore[index]
    events = [event("Hel", logprobs=pieces[0]), event("lo", logprobs=pieces[1]), event("", "stop")]
    response, error = decode(TEXT, [*events, DONE])
    assert error is None
    assert response.logprobs == {"content": IN_CHAT_S_SHAPE}
    whole = {**HEAD, "choices": [{"text": "Hello", "logprobs": OLDER, "finish_reason": "stop"}]}
    response, error = decode(TEXT, [json.dumps(whole).encode()])
    assert error is None
    assert response.logprobs == {"content": IN_CHAT_S_SHAPE}


def test_the_newer_shape_stays_as_it_is() -> None:
    """llama.cpp's."""
    given = {"content": [{"id": 1, "token": "Hi", "bytes": [72, 105], "logprob": -1.5}]}
    response, error = decode(TEXT, [event("Hi", logprobs=given), event("", "stop"), DONE])
    assert error is None
    assert response.logprobs == given


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({**OLDER, "top_logprobs": None, "text_offset": None}, 2),
        ({**OLDER, "top_logprobs": [None, None]}, 2),
        ({**OLDER, "token_logprobs": [None, -0.25]}, 2),
        ({"tokens": []}, None),
        ({"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}, None),
        ({**OLDER, "tokens": ["Hel"]}, None),
        ({**OLDER, "tokens": "Hello"}, None),
        ({**OLDER, "tokens": [1, 2]}, None),
        ({**OLDER, "token_logprobs": ["a", "b"]}, None),
        ({**OLDER, "token_logprobs": [True, False]}, None),
        ({**OLDER, "token_logprobs": None}, None),
        ({**OLDER, "top_logprobs": 7}, None),
        ({**OLDER, "top_logprobs": [7, None]}, None),
        ({**OLDER, "top_logprobs": [{"a": "x"}, None]}, None),
        ({**OLDER, "text_offset": ["x", None]}, None),
        ({**OLDER, "text_offset": [0, None]}, 2),
    ],
)
def test_log_probabilities_cost_themselves_only(given: Any, kept: int | None) -> None:
    response, error = decode(TEXT, [event("Hello", logprobs=given), event("", "stop"), DONE])
    assert error is None
    assert response.content == "Hello"
    found = None if response.logprobs is None else len(response.logprobs["content"])
    assert found == kept
    empty = not given["tokens"]
    assert bool(response.notes) == (kept is None and not (empty and "text_offset" in given))


def prompts(*given: Any, text: str = "!") -> bytes:
    choice = {"text": text, "index": 0, "finish_reason": "stop", "prompt_logprobs": list(given)}
    return json.dumps({**COUNTED, "choices": [choice]}).encode()


def test_log_probabilities_of_the_prompt() -> None:
    """vLLM's: by the ids of tokens, the prompt's own first."""
    first = {"7": {"logprob": -3.5, "rank": 4, "decoded_token": " b"}}
    second = {"9": {"logprob": -0.5, "rank": 1, "decoded_token": "c"}}
    response, error = decode(TEXT, [prompts(None, {**first, **second})])
    assert error is None
    entries = [
        {"token": " b", "logprob": -3.5, "token_id": 7},
        {"token": "c", "logprob": -0.5, "token_id": 9},
    ]
    assert response.logprobs == {
        "prompt": [
            {"token": "", "logprob": None, "top_logprobs": []},
            {**entries[0], "top_logprobs": entries},
        ]
    }


def test_a_prompt_without_log_probabilities_has_none() -> None:
    response, error = decode(TEXT, [prompts().replace(b"[]", b"null")])
    assert error is None
    assert (response.content, response.logprobs, response.notes) == ("!", None, ())


@pytest.mark.parametrize("given", [[1], [{}], [{"7": None}], [{"7": {"logprob": 1}}], [{"x": {}}]])
def test_those_of_the_prompt_cost_themselves_only(given: Any) -> None:
    response, error = decode(TEXT, [prompts(*given)])
    assert error is None
    assert (response.content, response.logprobs) == ("!", None)
    assert any("prompt_logprobs" in note for note in response.notes)


def test_a_body_that_is_odd_elsewhere_has_none_of_the_prompt() -> None:
    given = prompts({"7": {"logprob": -1, "decoded_token": "a"}}).replace(
        b'"index": 0', b'"index": "0"'
    )
    response, error = decode(TEXT, [given])
    assert error is None
    assert response.content == "!"
    assert any("prompt_logprobs" in note for note in response.notes)


# -- OpenRouter --------------------------------------------------------------------------------


def test_openrouter_is_asked_what_it_cost() -> None:
    router = model(base_url="https://openrouter.ai/api/v1/completions", api_key="k")
    provider = router.provider
    assert provider.generation_id({"x-generation-id": "gen-1"}) == "gen-1"
    asked = provider.settlement_request(router, "gen-1")
    assert asked is not None
    assert asked.url == "https://openrouter.ai/api/v1/generation?id=gen-1"
    record = {"data": {"total_cost": 0.5, "native_tokens_prompt": 3}}
    usage = provider.parse_settlement(msgspec.json.encode(record))
    assert usage is not None
    assert usage.cost == 0.5
    assert "stream_options" not in body("Once", router)
    other = model()
    assert other.provider.generation_id({"x-generation-id": "gen-1"}) is None
    assert other.provider.settlement_request(other, "gen-1") is None


def test_usage_covers_all_choices_where_that_is_known() -> None:
    for asked, known in ((model(), False), (model(server="vllm"), True)):
        assert asked.provider.counts_all_choices(asked) is known
    openai = model(base_url=None, api_key="k")
    assert openai.provider.counts_all_choices(openai)
