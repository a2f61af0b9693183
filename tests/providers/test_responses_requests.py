"""Requests in OpenAI's Responses format: items, parameters, tools, and turns that go back as they came."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

import trio_minillm as llm
from trio_minillm import OpaquePart, ReasoningPart, RefusalPart, ToolCall, testing
from trio_minillm._protocol.request import body_of, make_request
from trio_minillm._types.messages import Message, ToolResult
from trio_minillm.providers import OpenAIResponses
from trio_minillm.providers._charged import asked_of
from trio_minillm.testing import sse

from ..support.media import PNG

OPENAI = llm.openai_responses("gpt-5", api_key="k")
LOCAL = llm.openai_responses("qwen", base_url="http://127.0.0.1:8000/v1")
XAI = llm.openai_responses("grok-4", base_url="https://api.x.ai/v1", api_key="k")
WIRE = "openai-responses"


def body(*messages: Any, model: llm.Model = OPENAI, **params: Any) -> dict[str, Any]:
    made = body_of(make_request(model, messages or (llm.user("Hi"),), params))
    found: dict[str, Any] = json.loads(json.dumps(made))
    return found


def sent(*messages: Any, model: llm.Model = OPENAI, **params: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = body(*messages, model=model, **params)["input"]
    return items


# -- the address and the key -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        (None, "https://api.openai.com/v1/responses"),
        ("http://h.invalid/v1/responses/", "http://h.invalid/v1/responses"),
        ("http://h.invalid/v1/chat/completions", "http://h.invalid/v1/responses"),
        (
            "http://h.invalid/openai/v1?api-version=p",
            "http://h.invalid/openai/v1/responses?api-version=p",
        ),
    ],
)
def test_the_address(base_url: str | None, url: str) -> None:
    model = llm.openai_responses("m", base_url=base_url, api_key="k")
    assert model.provider.endpoint_url(model) == url


def test_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
    model = llm.openai_responses("m")
    assert model.provider.auth_headers(model) == {"authorization": "Bearer from-the-environment"}
    elsewhere = llm.openai_responses("m", base_url="https://h.invalid/v1")
    assert elsewhere.api_key is None, "OpenAI's key is for OpenAI"
    assert elsewhere.provider.auth_headers(elsewhere) == {}
    azure = llm.openai_responses("m", base_url="https://me.openai.azure.com/openai/v1", api_key="k")
    assert azure.provider.auth_headers(azure) == {"api-key": "k"}
    assert azure.provider.wire_at(azure) == "openai-responses@me.openai.azure.com"
    assert OPENAI.provider.wire_at(OPENAI) == WIRE


# -- parameters ------------------------------------------------------------------------------


def test_parameters() -> None:
    found = body(
        max_tokens=50,
        temperature=0.5,
        top_p=0.9,
        service_tier="flex",
        store=False,
        metadata={"a": "b"},
        previous_response_id="resp_1",
        truncation="auto",
        max_tool_calls=3,
        verbosity="low",
        logprobs=True,
        include=["file_search_call.results"],
        include_obfuscation=False,
        cache=True,
    )
    assert found == {
        "model": "gpt-5",
        "input": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "max_output_tokens": 50,
        "temperature": 0.5,
        "top_p": 0.9,
        "service_tier": "flex",
        "store": False,
        "metadata": {"a": "b"},
        "previous_response_id": "resp_1",
        "truncation": "auto",
        "max_tool_calls": 3,
        "text": {"verbosity": "low"},
        "include": ["file_search_call.results", "message.output_text.logprobs"],
        "stream_options": {"include_obfuscation": False},
    }


@pytest.mark.parametrize(
    "name", ["stop", "seed", "n", "top_k", "logit_bias", "modalities", "betas"]
)
def test_a_parameter_that_the_format_lacks_is_an_error(name: str) -> None:
    value: Any = {"stop": "x", "logit_bias": {"1": 1}, "modalities": ["text"], "betas": "x"}.get(
        name, 1
    )
    with pytest.raises(ValueError, match=f"{name}: not a parameter of the openai-responses wire"):
        body(**{name: value})


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("low", {"effort": "low"}),
        (False, {"effort": "none"}),
        (True, None),
        (llm.Reasoning(summary="auto"), {"summary": "auto"}),
    ],
)
def test_reasoning(given: Any, wanted: Any) -> None:
    assert body(reasoning=given).get("reasoning") == wanted
    for other in (2000, llm.Reasoning(exclude=True)):
        with pytest.raises(ValueError, match="effort and summary"):
            body(reasoning=other)


def test_reasoning_that_is_not_stored_is_asked_for_encrypted() -> None:
    encrypted = ["reasoning.encrypted_content"]
    assert body(reasoning="low", store=False)["include"] == encrypted
    assert "include" not in body(reasoning="low")
    assert "include" not in body(reasoning=False, store=False)
    assert "include" not in body(reasoning="low", store=False, model=LOCAL)
    assert body(reasoning="low", store=False, include="x")["include"] == ["x"]
    assert body(include="message.output_text.logprobs", logprobs=True)["include"] == [
        "message.output_text.logprobs"
    ]


def test_formats() -> None:
    schema = llm.JSONSchema(
        schema={"type": "object", "properties": {"a": {"type": "string"}}}, name="sea"
    )
    found = body(response_format=schema, verbosity="low")["text"]
    assert found["verbosity"] == "low"
    assert found["format"]["type"] == "json_schema"
    assert found["format"]["name"] == "sea"
    assert found["format"]["strict"] is True
    assert found["format"]["schema"]["additionalProperties"] is False
    assert body(response_format="json")["text"] == {"format": {"type": "json_object"}}
    assert body(response_format="text", model=LOCAL)["text"] == {"format": {"type": "text"}}


def sky(city: str) -> str:
    """Say how the sky is."""
    return city


def test_tools() -> None:
    own = {"type": "web_search"}
    custom = {"type": "custom", "name": "sql"}
    found = body(
        tools=[sky, own, custom, llm.tool(sky, name="strict", strict=True)], tool_choice=sky
    )
    function, search, sql, strict = found["tools"]
    assert function["type"] == "function"
    assert (function["name"], function["strict"]) == ("sky", False)
    assert function["description"] == "Say how the sky is."
    assert (search, sql) == (own, custom)
    assert strict["strict"] is True
    assert strict["parameters"]["additionalProperties"] is False
    assert found["tool_choice"] == {"type": "function", "name": "sky"}
    choices = {
        "auto": "auto",
        "required": "required",
        "sql": {"type": "custom", "name": "sql"},
        "other": {"type": "function", "name": "other"},
    }
    for given, wanted in choices.items():
        assert body(tools=[sky, own, custom], tool_choice=given)["tool_choice"] == wanted
    assert body(tools=[own], tool_choice=own)["tool_choice"] == own
    bare = body(tools=[llm.Tool(name="bare")])["tools"][0]
    assert "description" not in bare
    nothing = body(tools=[], tool_choice="auto", parallel_tool_calls=True)
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & nothing.keys()


def test_an_extra_field_that_a_parameter_decides_is_refused() -> None:
    request = make_request(OPENAI, (llm.user("Hi"),), {}, extra={"max_output_tokens": 5})
    with pytest.raises(ValueError, match="extra must not contain max_output_tokens"):
        body_of(request)
    request = make_request(OPENAI, (llm.user("Hi"),), {}, extra={"instructions": "Be brief."})
    assert body_of(request)["instructions"] == "Be brief."


def test_a_search_that_was_not_counted_is_in_doubt() -> None:
    asked = asked_of(OPENAI, body(tools=[{"type": "web_search_preview"}]))
    assert asked.search
    assert asked.counts_all
    assert not asked_of(OPENAI, body(tools=[sky, {"type": "custom", "name": "x"}])).search
    sound = llm.user(llm.audio(b"x", media_type="audio/wav"))
    assert asked_of(OPENAI, body(sound)).audio


# -- messages --------------------------------------------------------------------------------


def test_roles() -> None:
    found = sent(llm.system("a"), llm.developer("b"), llm.user("c"), llm.assistant("d", "e"))
    assert found == [
        {"role": "system", "content": "a"},
        {"role": "developer", "content": "b"},
        {"role": "user", "content": "c"},
        {"type": "message", "role": "assistant", "content": "de"},
    ]
    assert sent(Message(role="user", parts=())) == [{"role": "user", "content": ""}]


def test_pictures_files_and_sound() -> None:
    picture = llm.image(PNG, detail="low")
    pdf = llm.document(b"%PDF-", media_type="application/pdf", title="sea.pdf")
    plain = llm.document(b"Salt.", media_type="text/plain", title="Sea")
    (message,) = sent(
        llm.user(
            "See",
            picture,
            llm.image("https://h.invalid/x.png"),
            llm.ImagePart(file_id="file-1"),
            pdf,
            llm.document(b"%PDF-", media_type="application/pdf"),
            llm.document("https://h.invalid/x.pdf"),
            llm.DocumentPart(file_id="file-2"),
            plain,
            llm.document(b"Salt.", media_type="text/plain"),
            llm.audio(b"x", media_type="audio/wav"),
        )
    )
    data = "data:application/pdf;base64,JVBERi0="
    assert message["content"] == [
        {"type": "input_text", "text": "See"},
        {"type": "input_image", "detail": "low", "image_url": picture.data_url()},
        {"type": "input_image", "detail": "auto", "image_url": "https://h.invalid/x.png"},
        {"type": "input_image", "detail": "auto", "file_id": "file-1"},
        {"type": "input_file", "file_data": data, "filename": "sea.pdf"},
        {"type": "input_file", "file_data": data, "filename": "document"},
        {"type": "input_file", "file_url": "https://h.invalid/x.pdf"},
        {"type": "input_file", "file_id": "file-2"},
        {"type": "input_text", "text": "Sea:\n\nSalt."},
        {"type": "input_text", "text": "Salt."},
        {"type": "input_audio", "input_audio": {"data": "eA==", "format": "wav"}},
    ]
    with pytest.raises(ValueError, match="audio must be given as bytes"):
        sent(llm.user(llm.AudioPart(url="data:audio/wav;base64,eA==")))


def test_parts_where_they_can_not_be() -> None:
    with pytest.raises(ValueError, match="ImagePart can't be in an assistant message"):
        sent(llm.assistant(llm.image(PNG)))
    with pytest.raises(ValueError, match="a tool message consists of tool results"):
        sent(Message(role="tool", parts=(llm.text("x"),)))
    with pytest.raises(ValueError, match="RefusalPart can't be in this message"):
        sent(llm.user(RefusalPart("x")))


def test_calls_and_results() -> None:
    call = ToolCall(id="c1", name="sky", arguments="")
    custom = ToolCall(id="c2", name="sql", arguments="select", type="custom")
    picture = llm.image(PNG)
    turns = [
        llm.user("?"),
        llm.assistant("Let me see.", call, custom),
        llm.tool_result(custom, "1"),
        llm.tool_result(call, "see", picture),
    ]
    found = sent(*turns)[1:]
    assert found == [
        {"type": "message", "role": "assistant", "content": "Let me see."},
        {"type": "function_call", "call_id": "c1", "name": "sky", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "sql", "input": "select"},
        {
            "type": "function_call_output",
            "call_id": "c1",
            "output": [
                {"type": "input_text", "text": "see"},
                {"type": "input_image", "detail": "auto", "image_url": picture.data_url()},
            ],
        },
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "1"},
    ]
    elsewhere = sent(*turns, model=LOCAL)
    assert elsewhere[3]["arguments"] == '{"input":"select"}'
    assert elsewhere[5]["type"] == "function_call_output"


# -- turns that go back ------------------------------------------------------------------------

THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "SECRET"}
SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
CITED = {"type": "url_citation", "url": "https://h.invalid"}
TEXTS = [
    {"type": "output_text", "text": "Sea", "annotations": [CITED]},
    {"type": "output_text", "text": " salt", "annotations": []},
    {"type": "refusal", "refusal": "No."},
]
SAID = {
    "type": "message",
    "role": "assistant",
    "id": "msg_1",
    "status": "completed",
    "phase": "commentary",
    "content": TEXTS,
}
CALL = {
    "type": "function_call",
    "id": "fc_1",
    "status": "completed",
    "call_id": "call_1",
    "name": "sky",
    "arguments": "{}",
}
CUSTOM = {
    "type": "custom_tool_call",
    "id": "ct_1",
    "status": "completed",
    "call_id": "call_2",
    "name": "sql",
    "input": "x",
}


def answered(*output: Any, model: llm.Model = OPENAI) -> Message:
    """Return the turn of an answer that has these items."""
    last = {"status": "completed", "output": output}
    events = sse({"type": "response.completed", "response": last})
    found, error = testing.decode(OpenAIResponses(), [events])
    assert error is None
    message = found.to_message()
    wire = model.provider.wire_at(model)
    parts = [
        msgspec.structs.replace(p, wire=wire) if isinstance(p, ReasoningPart | OpaquePart) else p
        for p in message.parts
    ]
    return Message(role="assistant", parts=tuple(parts))


def back(*output: Any, model: llm.Model = OPENAI, **params: Any) -> list[dict[str, Any]]:
    """Return what is sent of an answer in the next request."""
    return sent(answered(*output), llm.user("Go on."), model=model, **params)[:-1]


def test_items_go_back_as_they_came() -> None:
    output = [THOUGHT, SEARCH, SAID, CALL, CUSTOM]
    found = sent(answered(*output), llm.tool_result("call_1", "a"), llm.tool_result("call_2", "b"))
    assert found[:5] == output
    assert [item["type"] for item in found[5:]] == [
        "function_call_output",
        "custom_tool_call_output",
    ]


def test_ids_stay_behind_where_their_reasoning_does() -> None:
    def bare(item: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in item.items() if k not in ("id", "status", "phase")}

    assert back(SAID) == [bare(SAID)]
    stored = {k: v for k, v in THOUGHT.items() if k != "encrypted_content"}
    assert back(stored, SAID) == [stored, SAID]
    assert back(stored, SAID, store=False) == [bare(SAID)]
    assert back(stored, CALL, store=False)[0] == bare(CALL)
    assert back(stored, SEARCH, SAID, store=False) == [bare(SAID)], "a search has an id, too"
    open_thought = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"text": "hm"}]}
    assert back(open_thought, SAID, store=False) == [open_thought, SAID]


def test_reasoning_of_a_cut_answer_stays_behind_unless_it_can_be_read() -> None:
    """OpenAI finds by its id only what it has stored, and it may store complete answers only."""
    stored = {k: v for k, v in THOUGHT.items() if k != "encrypted_content"}
    for thought, kept in ((stored, False), (THOUGHT, True)):
        cut = msgspec.structs.replace(answered(thought, SAID), cut=True)
        found = sent(cut, llm.user("Go on."))[:-1]
        assert [item["type"] for item in found] == ["reasoning"] * kept + ["message"]
        assert ("id" in found[-1]) == kept


def test_the_turn_of_an_answer_that_broke_off_is_marked() -> None:
    part = {"type": "response.output_text.delta", "item_id": "m", "output_index": 0, "delta": "So"}
    broken, error = testing.decode(OpenAIResponses(), [sse(part)])
    assert isinstance(error, llm.StreamTruncated)
    assert (broken.to_message().text, broken.to_message().cut) == ("So", True)
    assert not answered(SAID).cut


def test_an_item_is_in_a_request_once() -> None:
    """OpenAI refuses the second one; so of an answer that comes again only the words do."""
    turn, go_on = answered(THOUGHT, SEARCH, SAID), llm.user("Go on.")
    again = sent(turn, go_on, turn, go_on)
    assert again[:3] == [THOUGHT, SEARCH, SAID]
    assert [(item.get("type", "message"), item.get("id")) for item in again[3:]] == [
        ("message", None)
    ] * 3
    assert again[4]["content"] == TEXTS
    elsewhere = sent(answered(THOUGHT, SAID, model=XAI), go_on, model=XAI)
    turn = answered(THOUGHT, SAID, model=XAI)
    assert sent(turn, go_on, turn, go_on, model=XAI) == elsewhere * 2, (
        "others may give one id to all"
    )


def test_another_server_gets_neither_reasoning_nor_ids() -> None:
    for model in (LOCAL, XAI):
        found = back(THOUGHT, SEARCH, SAID, CALL, model=model)
        assert "SECRET" not in json.dumps(found)
        assert not any("id" in item for item in found)
        assert [item["type"] for item in found[:2]] == ["message", "function_call"]


def test_reasoning_at_a_turns_end_stays_behind() -> None:
    assert back(THOUGHT) == []
    assert back(SAID, THOUGHT, THOUGHT)[-1]["type"] == "message"


def test_ids_that_are_too_long_stay_behind() -> None:
    long = "x" * 65
    thought, text = back({**THOUGHT, "id": long}, {**SAID, "id": long})
    assert "id" not in thought
    assert "id" not in text
    assert text["phase"] == "commentary"


def test_two_messages_of_one_turn_stay_apart() -> None:
    part = {"type": "output_text", "text": "a", "annotations": []}
    two = [{**SAID, "id": ident, "content": [part, part]} for ident in ("m1", "m2")]
    assert back(THOUGHT, *two)[1:] == two
    other = {**SAID, "content": [part]}
    del other["id"], other["phase"]
    assert [len(item["content"]) for item in back(THOUGHT, two[0], other)[1:]] == [2, 1]


def test_an_empty_text_is_no_message() -> None:
    assert sent(llm.assistant(llm.text("")), llm.user("x")) == [{"role": "user", "content": "x"}]


def test_the_servers_own_results_can_be_sent_in_any_message() -> None:
    result = {"type": "computer_call_output", "call_id": "c", "output": {}}
    own = OpaquePart(wire=WIRE, raw=result)
    foreign = OpaquePart(wire="anthropic", raw=result)
    cut = OpaquePart(wire=WIRE, raw={**result, "status": "in_progress"})
    assert sent(llm.user(own, foreign, cut)) == [result]
    assert sent(llm.user(own, "Go on.")) == [result, {"role": "user", "content": "Go on."}]
    call = ToolCall(id="c1", name="sky")
    both = Message(role="tool", parts=(own, ToolResult(call_id="c1", content=(llm.text("a"),))))
    assert result in sent(llm.assistant(call), both)


def test_mistrals_models_get_ids_that_they_take() -> None:
    model = llm.openai_responses("mistral-small", base_url="http://127.0.0.1:8000/v1")
    call = ToolCall(id="call_that_is_long", name="sky")
    first, second = sent(llm.assistant(call), llm.tool_result(call, "a"), model=model)
    assert len(first["call_id"]) == 9
    assert second["call_id"] == first["call_id"]
