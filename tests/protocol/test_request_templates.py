"""Requests that are made from a template are the bytes of those that are built."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import Model, Retry, Timeouts
from trio_minillm._protocol import request as module
from trio_minillm._protocol.request import Prepared, prepare
from trio_minillm._protocol.request_templates import MAX_SHAPES, Templates, texts_of
from trio_minillm.providers import SERVERS, OpenAIChat

MODELS = [
    llm.openai("m", api_key="k"),
    llm.openai("m", api_key="k", base_url="http://127.0.0.1:1/v1"),
    llm.anthropic("claude-x", api_key="k"),
    llm.openrouter("m", api_key="k", headers={"x-title": "t"}, extra={"transforms": []}),
    *(
        llm.compatible(name, base_url="https://models.invalid/v1", server=server)
        for server in SERVERS
        for name in ("m", "mistral-x")
    ),
]
PARAMS: list[dict[str, Any]] = [
    {},
    {"max_tokens": 5},
    {"max_tokens": 5, "temperature": 1},
    {"max_tokens": 5, "temperature": 1.0},
    {"max_tokens": 5, "stop": "."},
    {"max_tokens": 5, "top_p": None},
]
ROLES = st.sampled_from(("system", "developer", "user", "assistant"))
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: not text.isspace())


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Templates:
    made = Templates()
    monkeypatch.setattr(module, "_templates", made)
    return made


def made(model: Model, messages: Any, **more: Any) -> Prepared | str:
    try:
        params = {k: v for k, v in more.items() if k not in ("extra", "headers")}
        given = {k: v for k, v in more.items() if k in ("extra", "headers")}
        return prepare(model, messages, params, timeouts=Timeouts(), retry=Retry(), **given)
    except (TypeError, ValueError) as exc:
        return str(exc)


def built(monkeypatch: pytest.MonkeyPatch, model: Model, messages: Any, **more: Any) -> Any:
    with monkeypatch.context() as patched:
        patched.setattr(module, "_templates", Templates())
        return made(model, messages, **more)


@given(
    model=st.sampled_from(MODELS),
    params=st.sampled_from(PARAMS),
    roles=st.lists(ROLES, min_size=1, max_size=4),
    data=st.data(),
)
def test_a_filled_request_is_the_built_one(
    model: Model, params: dict[str, Any], roles: list[str], data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(module, "_templates", Templates())
        for number in range(4):
            texts = [data.draw(TEXTS) for _ in roles]
            messages: Any = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=True)]
            if number == 3:
                messages = [
                    llm.Message(role=r, parts=(llm.TextPart(t),))  # type: ignore[arg-type]
                    for r, t in zip(roles, texts, strict=True)
                ]
            assert made(model, messages, **params) == built(monkeypatch, model, messages, **params)


def in_use(templates: Templates) -> int:
    return sum(found is not None for found in templates._found.values())


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_a_shape_gets_a_template_when_it_comes_again(model: Model, fresh: Templates) -> None:
    for number in range(3):
        prepared = made(model, f'"{number}" Grüße\n\U0001f600', max_tokens=7)
        assert isinstance(prepared, Prepared)
        assert in_use(fresh) == (number > 0)
        (message,) = msgspec.json.decode(prepared.body)["messages"]
        content = message["content"]
        text = content if isinstance(content, str) else content[0]["text"]
        assert text == f'"{number}" Grüße\n\U0001f600'


@pytest.mark.parametrize("model", MODELS, ids=repr)
@pytest.mark.parametrize(
    "roles",
    [
        ("system", "user"),
        ("user", "system", "user"),
        ("system", "developer", "user"),
        ("user", "user"),
        ("user", "assistant", "user"),
    ],
)
def test_instructions_may_stand_anywhere(
    model: Model, roles: tuple[str, ...], fresh: Templates, monkeypatch: pytest.MonkeyPatch
) -> None:
    def conversation(name: str) -> Any:
        return [{"role": role, "content": f"{n}{name}"} for n, role in enumerate(roles)]

    for name in "abc":
        prepared = made(model, conversation(name), max_tokens=7)
        assert prepared == built(monkeypatch, model, conversation(name), max_tokens=7)
    assert in_use(fresh) == isinstance(prepared, Prepared)


@pytest.mark.parametrize(
    "more",
    [
        {"extra": {"top_k": 1}},
        {"headers": {"x-a": "b"}},
        {"tools": [llm.Tool(name="f", parameters={"type": "object"})]},
        {"stop": ["."]},
        {"stop": "." * 300},
    ],
)
def test_what_may_depend_on_more_is_built(more: dict[str, Any], fresh: Templates) -> None:
    for _ in range(3):
        assert isinstance(made(MODELS[1], "Hi", max_tokens=1, **more), Prepared)
    assert not in_use(fresh)


@pytest.mark.parametrize(
    "messages",
    [
        "",
        " \n",
        [],
        b"Hi",
        llm.user("a", "b"),
        llm.user("a", name="n"),
        llm.user("a", cache=True),
        llm.user(llm.image(b"\x89PNG\r\n\x1a\n")),
        [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
        [{"role": "user", "content": "a", "name": "n"}],
        [{"role": "robot", "content": "a"}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b "}],
        [{"role": "user", "content": "a"}] * 9,
    ],
)
def test_messages_that_are_more_than_texts_have_no_shape(messages: Any) -> None:
    assert texts_of(messages) is None


def test_a_number_and_a_truth_value_are_not_the_same(fresh: Templates) -> None:
    for _ in range(3):
        assert "temperature must be" in str(made(MODELS[1], "Hi", temperature=True))
        one = made(MODELS[1], "Hi", temperature=1)
        whole = made(MODELS[1], "Hi", temperature=1.0)
        assert isinstance(one, Prepared)
        assert isinstance(whole, Prepared)
        assert b'"temperature":1,' in one.body
        assert b'"temperature":1.0,' in whole.body


def test_a_changed_dictionary_of_the_model_counts(fresh: Templates) -> None:
    model = llm.openai("m", api_key="k")
    for _ in range(3):
        made(model, "Hi")
    model.headers["x-new"] = "1"  # type: ignore[index]
    prepared = made(model, "Hi")
    assert isinstance(prepared, Prepared)
    assert prepared.headers["x-new"] == "1"


def test_a_change_within_the_extra_fields_of_the_model_counts(fresh: Templates) -> None:
    inner: dict[str, Any] = {"enable_thinking": 1}
    model = llm.compatible("m", base_url="http://127.0.0.1:1", extra={"template": inner})
    for value in (1, True, False):
        inner["enable_thinking"] = value
        for _ in range(3):
            prepared = made(model, "Hi")
            assert isinstance(prepared, Prepared)
            sent = msgspec.json.decode(prepared.body)["template"]["enable_thinking"]
            assert (sent, type(sent)) == (value, type(value))
    inner["enable_thinking"] = object()
    assert made(model, "Hi") == "template contains a value that JSON can't represent"


class Marked(str):
    """Text of a type of its own, as numpy and the makers of templates have."""


@pytest.mark.parametrize(
    "messages",
    [
        Marked("Hi"),
        [{"role": "user", "content": Marked("Hi")}],
        [{"role": Marked("user"), "content": "Hi"}],
        [{"role": ["user"], "content": "Hi"}],
        llm.Message(role=Marked("user"), parts=(llm.TextPart("Hi"),)),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_plain_text_is_always_built(messages: Any, fresh: Templates) -> None:
    first = made(MODELS[1], messages)
    made(MODELS[1], "Hi")
    made(MODELS[1], "Hi")
    assert [made(MODELS[1], messages) for _ in range(3)] == [first] * 3
    assert isinstance(first, Prepared) or "role" in first or "messages" in first


def test_a_shape_that_another_thread_drops_meanwhile_is_kept_again() -> None:
    class Dropping(OrderedDict[Any, Any]):
        def __setitem__(self, key: Any, value: Any) -> None:
            super().__setitem__(key, value)
            if value is not None:
                super().pop(key)  # as of the oldest of too many

    templates = Templates()
    templates._found = Dropping()

    def build(messages: list[dict[str, str]]) -> tuple[None, bytes]:
        return None, msgspec.json.encode(messages)

    assert templates.get(MODELS[1], ("user",), (), {}, build) is None
    assert templates.get(MODELS[1], ("user",), (), {}, build) is not None


def test_half_a_surrogate_is_refused_without_being_shown(fresh: Templates) -> None:
    for _ in range(3):
        assert made(MODELS[1], "secret \ud800") == "a message or parameter is not valid Unicode"
    assert isinstance(made(MODELS[1], "Hi"), Prepared)
    assert in_use(fresh) == 1
    assert made(MODELS[1], "secret \ud800") == "a message or parameter is not valid Unicode"


def test_a_provider_whose_requests_are_of_its_own_is_always_asked(fresh: Templates) -> None:
    class Dated(OpenAIChat):
        def auth_headers(self, model: Model) -> dict[str, str]:
            calls.append(1)
            return {"authorization": f"Bearer {len(calls)}"}

    calls: list[int] = []
    model = msgspec.structs.replace(MODELS[1], provider=Dated())
    for number in range(1, 4):
        prepared = made(model, "Hi")
        assert isinstance(prepared, Prepared)
        assert prepared.headers["authorization"] == f"Bearer {number}"


def test_a_mixin_that_makes_requests_counts_as_well() -> None:
    class Dated:
        def auth_headers(self, model: Model) -> dict[str, str]: ...

    class Mixed(Dated, OpenAIChat): ...

    class Promised(Dated, OpenAIChat):
        any_text = True

    class Under(Promised): ...

    assert (Mixed.any_text, Promised.any_text, Under.any_text) == (False, True, True)
    assert Mixed.literal_text


def test_only_the_newest_shapes_are_kept(fresh: Templates) -> None:
    for number in range(2 * MAX_SHAPES):
        made(MODELS[1], "Hi", max_tokens=number + 1)
    assert len(fresh._found) == MAX_SHAPES


def test_a_text_that_does_not_stand_once_makes_no_template() -> None:
    templates = Templates()

    def build(messages: list[dict[str, str]]) -> tuple[None, bytes]:
        return None, msgspec.json.encode([messages, messages])

    for _ in range(3):
        assert templates.get(MODELS[1], ("user",), (), {}, build) is None
