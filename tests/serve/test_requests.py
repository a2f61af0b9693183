"""What the server reads out of a request."""

from typing import Any

import msgspec
import pytest

from trio_minillm._serve.requests import Asked, RefusedRequestError, asked_of, wire_in
from trio_minillm.testing import ServedRequest

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
GEMINI = "/v1beta/models/gemini-x:streamGenerateContent"


def asked(path: str = CHAT, **body: Any) -> Asked:
    request = ServedRequest(method="POST", target=path, headers={}, body=msgspec.json.encode(body))
    return asked_of(request, wire_in(request.path, None))[0]


@pytest.mark.parametrize(
    ("path", "wire"),
    [
        (CHAT, "openai"),
        ("/chat/completions", "openai"),
        ("/openai/deployments/x/chat/completions", "openai"),
        (TEXT, "text"),
        ("/v1/messages", "anthropic"),
        ("/v1/responses", "responses"),
        (GEMINI, "gemini"),
        ("/v1beta/models/x:generateContent", "gemini"),
    ],
)
def test_the_path_decides_on_the_wire_format(path: str, wire: Any) -> None:
    assert wire_in(path, None) == wire
    assert wire_in(path, wire) == wire
    other = "text" if wire != "text" else "openai"
    with pytest.raises(RefusedRequestError, match=f"only the wire format {other}"):
        wire_in(path, other)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/embeddings", "/v1/messages/count_tokens"])
def test_other_paths_are_not_there(path: str) -> None:
    with pytest.raises(RefusedRequestError) as caught:
        wire_in(path, None)
    assert caught.value.status == 404


@pytest.mark.parametrize(
    ("body", "tokens", "cut"),
    [
        ({}, 128, False),
        ({"max_tokens": 5}, 5, True),
        ({"max_completion_tokens": 5, "max_tokens": 9}, 5, True),
        ({"max_tokens": None}, 128, False),
        ({"max_tokens": 5, "ignore_eos": True}, 5, True),
        ({"min_tokens": 300}, 300, False),
    ],
)
def test_the_length_of_an_answer(body: dict[str, Any], tokens: int, cut: bool) -> None:
    assert asked(**body).tokens(None) == (tokens, cut)


@pytest.mark.parametrize(
    ("body", "tokens", "cut"),
    [
        ({}, 64, False),
        ({"max_tokens": 65}, 64, False),
        ({"max_tokens": 64}, 64, True),
        ({"max_tokens": 5}, 5, True),
        ({"max_tokens": 100, "ignore_eos": True}, 100, True),
        ({"max_tokens": 100, "min_tokens": 80}, 80, False),
        ({"max_tokens": 100, "min_tokens": 200}, 100, True),
        ({"ignore_eos": True}, 64, False),
    ],
)
def test_the_length_with_one_of_the_server(body: dict[str, Any], tokens: int, cut: bool) -> None:
    assert asked(**body).tokens(64.2) == (tokens, cut)
    assert asked().tokens(0) == (1, False)


def test_limits_of_other_wires() -> None:
    assert asked("/v1/responses", max_output_tokens=3).max_tokens == 3
    assert asked(GEMINI, generationConfig={"maxOutputTokens": 3}).max_tokens == 3
    made = asked(GEMINI)
    assert (made.model, made.stream, made.usage, made.running_usage) == (
        "gemini-x",
        True,
        True,
        True,
    )
    assert not asked("/v1beta/models/x:generateContent").stream


def test_usage_is_asked_for_by_name() -> None:
    assert not asked(stream=True).usage
    made = asked(stream_options={"include_usage": True, "continuous_usage_stats": True})
    assert (made.usage, made.running_usage) == (True, True)
    assert asked("/v1/messages").usage
    assert not asked("/v1/messages").running_usage


@pytest.mark.parametrize(
    ("path", "body", "tokens"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "one two  three\n"}]}, 3),
        (CHAT, {"messages": [{"role": "system", "content": "a b"}, {"content": "c"}]}, 3),
        (CHAT, {"messages": [{"content": [{"type": "text", "text": "a b"}, {"text": "c"}]}]}, 3),
        (CHAT, {"messages": [{"content": [{"image_url": {"url": "data: x y"}}]}]}, 0),
        (CHAT, {}, 0),
        (TEXT, {"prompt": "a b"}, 2),
        (TEXT, {"prompt": ["a b"]}, 2),
        (TEXT, {"prompt": [1, 2, 3]}, 3),
        (TEXT, {"prompt": [[1, 2, 3]]}, 3),
        ("/v1/messages", {"system": "a b", "messages": [{"content": "c"}]}, 3),
        ("/v1/responses", {"instructions": "a", "input": "b c"}, 3),
        ("/v1/responses", {"input": [{"content": [{"type": "input_text", "text": "b c"}]}]}, 2),
        (GEMINI, {"contents": [{"parts": [{"text": "a b"}]}]}, 2),
    ],
)
def test_a_word_of_the_prompt_is_a_token(path: str, body: dict[str, Any], tokens: int) -> None:
    assert asked(path, **body).prompt_tokens == tokens


@pytest.mark.parametrize(
    ("path", "body", "what"),
    [
        (CHAT, {"n": 2}, "n must be 1"),
        (TEXT, {"best_of": 2}, "best_of must be 1"),
        (TEXT, {"prompt": ["a", "b"]}, "prompt must be one text"),
        (CHAT, {"max_tokens": 0}, "the token limit must be from 1 to 1,000,000"),
        (CHAT, {"max_tokens": "9"}, "the token limit must be from 1 to 1,000,000"),
        (CHAT, {"min_tokens": -1}, "min_tokens"),
    ],
)
def test_what_can_not_be_served_is_refused(path: str, body: dict[str, Any], what: str) -> None:
    with pytest.raises(RefusedRequestError, match=what) as caught:
        asked(path, **body)
    assert caught.value.status == 400


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    request = ServedRequest(method="POST", target=CHAT, headers={}, body=body)
    with pytest.raises(RefusedRequestError, match="the body"):
        asked_of(request, "openai")
