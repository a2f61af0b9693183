"""A call becomes a request: what is checked, what is sent, and what a request may show."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

import trio_minillm as llm
from trio_minillm import Retry, Timeouts, testing
from trio_minillm._protocol.request import (
    Prepared,
    body_of,
    encoded,
    headers_to,
    make_request,
    prepare,
    with_price,
)
from trio_minillm._types.openai_messages import messages_of

MODEL = testing.model(api_key="sk-secret-0123", headers={"X-Team": "a"}, extra={"top": 1})


class City(msgspec.Struct):
    name: str


TIMEOUTS = Timeouts()


def prepared(messages: Any = "Hi", model: llm.Model = MODEL, **options: Any) -> Prepared:
    own = {"timeouts", "retry", *(prepare.__kwdefaults__ or ())}
    params = {name: value for name, value in options.items() if name not in own}
    given = {name: value for name, value in options.items() if name in own}
    clocks = {"timeouts": TIMEOUTS, "retry": Retry()}
    return prepare(model, messages, params, ("lenient",), **clocks | given)


def test_a_request_has_all_that_is_sent_and_how_its_answer_is_read() -> None:
    made = prepared(
        max_tokens=5,
        n=2,
        stop=None,
        response_format=City,
        extra={"seed_words": ["a"]},
        headers={"X-Trace": "t"},
        lenient=True,
        raw=True,
    )
    assert made.url.endswith("/chat/completions")
    assert made.headers["content-type"] == "application/json"
    assert made.headers["accept"] == "text/event-stream"
    assert (made.headers["x-team"], made.headers["x-trace"]) == ("a", "t")
    body = json.loads(made.body)
    assert body["messages"] == [{"role": "user", "content": "Hi"}]
    assert (body["n"], body["seed_words"], body["top"], "stop" in body) == (2, ["a"], 1, False)
    assert (made.choices, made.lenient, made.raw) == (2, True, True)
    assert made.response_type is City
    assert made.timeouts is TIMEOUTS  # as the caller has them


def test_what_is_left_out_has_a_default() -> None:
    made = prepared(timeouts=Timeouts(total=5.0))
    assert (made.choices, made.lenient, made.raw, made.response_type) == (1, False, False, None)
    assert made.model is MODEL
    assert made.timeouts.total == 5.0


@pytest.mark.parametrize(
    "given", ["json", {"type": "json_object"}, llm.JSONSchema(schema={"type": "object"})]
)
def test_a_format_that_is_no_type_decodes_nothing(given: Any) -> None:
    assert prepared(response_format=given).response_type is None


def test_usage_is_expected_unless_the_call_says_no_and_the_wire_lets_it() -> None:
    anthropic = llm.anthropic("claude", api_key="sk-ant-0123")
    assert prepared().expect_usage
    assert not prepared(expect_usage=False).expect_usage
    assert prepared(model=anthropic, max_tokens=1, expect_usage=False).expect_usage


def test_a_request_shows_neither_prompt_nor_key() -> None:
    made = prepared("secret plan")
    (shown,) = made.__rich_repr__()
    for text in (repr(made), shown):
        assert text == f"<Prepared {MODEL!r}>"


def test_misuse_is_told_before_anything_is_built() -> None:
    with pytest.raises(TypeError, match="did you mean max_tokens"):
        prepared(max_token=1)
    with pytest.raises(TypeError, match="did you mean lenient"):
        prepared(leniant=True)
    with pytest.raises(ValueError, match="n must be a whole number"):
        prepared(n=0)
    with pytest.raises(TypeError, match="unknown parameter: options"):
        prepared(options=("x",))
    with pytest.raises(ValueError, match="HTTP token"):
        prepared(headers={"bad name": "x"})
    with pytest.raises(TypeError, match="extra must be Mapping or None, not int"):
        prepared(extra=5)
    with pytest.raises(TypeError, match="headers must be Mapping or None, not list"):
        prepared(headers=[])


@pytest.mark.parametrize("name", ["max_tokens", "messages", "stream", "model"])
def test_extra_does_not_decide_what_is_decided_already(name: str) -> None:
    request = make_request(MODEL, messages_of("Hi"), {"max_tokens": 1}, extra={name: 1})
    with pytest.raises(ValueError, match=f"extra must not contain {name}"):
        body_of(request)


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("stream", "every answer is streamed"),
        ("stop_sequences", "use stop="),
        ("system", "llm.system"),
    ],
)
def test_extra_is_no_way_round(name: str, way: str) -> None:
    model = llm.anthropic("claude", api_key="sk-ant-0123")
    with pytest.raises(ValueError, match=f"extra must not contain {name}: .*{way}"):
        prepared(model=model, extra={name: "x"})


def test_a_body_without_extra_is_the_provider_s() -> None:
    model = testing.model()
    request = make_request(model, messages_of("Hi"), {})
    assert body_of(request) == model.provider.build_request(request)


def test_half_a_surrogate_is_an_error_that_shows_no_text() -> None:
    with pytest.raises(ValueError, match="not valid Unicode") as caught:
        encoded({"text": "secret \ud800"})
    assert not isinstance(caught.value, UnicodeError)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("inside", [lambda x: x, lambda x: {"a": x}, lambda x: [(1, x)]])
def test_a_number_that_json_has_not_is_an_error(
    number: float, inside: Callable[[Any], Any]
) -> None:
    with pytest.raises(ValueError, match="extra_field must contain only finite numbers"):
        prepared("the word null", extra={"other": None, "extra_field": inside(number)})
    assert prepared("the word null", extra={"other": [None, 1.5, "null"]}).body


def test_a_value_that_json_has_not_is_an_error() -> None:
    circle: list[Any] = []
    circle.append(circle)
    for value in (object(), circle, {"a": types.MappingProxyType({})}):
        with pytest.raises(
            TypeError, match="extra_field contains a value that JSON can't represent"
        ):
            prepared(extra={"fine": 1, "extra_field": value})
    with pytest.raises(TypeError, match="the name of a field must be text"):
        prepared(extra={None: 1})


def test_the_model_s_own_headers_count_most() -> None:
    model = testing.model(headers={"Accept": "text/x", "User-Agent": "me"})
    made = headers_to(model, "application/json")
    assert (made["accept"], made["user-agent"]) == ("text/x", "me")
    assert made["accept-encoding"] == "identity"


def test_a_price_of_the_call_takes_the_place_of_the_model_s() -> None:
    price = llm.TokenPrice(input=1, output=2)
    assert with_price(MODEL, None) is MODEL
    assert with_price(MODEL, price).price == price
    with pytest.raises(TypeError, match="price must be TokenPrice, not int"):
        with_price(MODEL, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="model must be a Model"):
        with_price("gpt", None)  # type: ignore[arg-type]


def test_a_null_deep_inside_is_sent() -> None:
    deep: Any = None
    for _ in range(500):
        deep = [deep]
    assert b"null" in prepared(extra={"a": deep}).body
