"""A history made with one model can be sent to every other.

The checks of a request are written from the servers' references and from what they are reported to
refuse, not from the table of dialects: what is refused there is an `AssertionError` here.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import OpaquePart, ReasoningPart, RefusalPart, ToolCall, ToolResult
from trio_minillm._protocol.request import body_of, make_request
from trio_minillm.providers import SERVERS, Request
from trio_minillm.providers._history import (
    ANTHROPIC_IDS,
    ANY_IDS,
    MISTRAL_IDS,
    NO_RESULT,
    OPENAI_IDS,
    OPENING,
    CallIds,
    paired,
)

from ..support.media import PNG
from ..support.request_shapes import gemini, messages, responses

MODELS: dict[str, llm.Model] = {
    "llm.openai": llm.openai("gpt-5", api_key="k"),
    "llm.openrouter": llm.openrouter("z-ai/glm-5", api_key="k"),
    "llm.anthropic": llm.anthropic("claude-sonnet-5", api_key="k"),
    "anthropic@zai": llm.anthropic("glm-5", base_url="https://api.z.ai/api/anthropic", api_key="k"),
    "anthropic@deepseek": llm.anthropic(
        "deepseek-v4-pro", base_url="https://api.deepseek.com/anthropic", api_key="k"
    ),
    "llm.openai_responses": llm.openai_responses("gpt-5", api_key="k"),
    "responses@xai": llm.openai_responses("grok-4", base_url="https://api.x.ai/v1", api_key="k"),
    "responses@vllm": llm.openai_responses("qwen", base_url="http://h.invalid/v1"),
    "mistral at nvidia": llm.compatible(
        "mistralai/mistral-small-4", base_url="https://integrate.api.nvidia.com/v1"
    ),
    "llm.gemini": llm.gemini("gemini-3-pro", api_key="k"),
    "gemini 2.5": llm.gemini("gemini-2.5-pro", base_url="http://h.invalid/v1", api_key="k"),
    **{
        name: llm.compatible("gemini-3-pro", base_url="http://h.invalid/v1", server=name)
        for name in sorted(SERVERS)
    },
}

ID_STYLES = {
    "OpenAI": ("call_" + "a" * 24, "call_" + "b" * 24),
    "vLLM": ("chatcmpl-tool-" + "0" * 32, "chatcmpl-tool-" + "1" * 32),
    "Anthropic": ("toolu_01A09q90qw90lq917835lq9", "toolu_01B09q90qw90lq917835lq9"),
    "Kimi": ("functions.sky:0", "functions.now:1"),
    "Mistral": ("D681PevKs", "a1B2c3D4e"),
    "Responses": ("call_abc|fc_" + "x" * 400, "call_abd|fc_" + "x" * 400),
    "the same": ("call_1", "call_1"),
    "none": ("", ""),
}


def thought(model: llm.Model) -> list[Any]:
    """Return reasoning as it comes from a model, with a mark by which a request shows it."""
    wire = model.provider.wire_at(model)
    if wire.startswith("anthropic"):
        raw = {"type": "thinking", "thinking": "SECRET", "signature": "SIGNATURE"}
        opaque = {"type": "server_tool_use", "id": "srvtoolu_SIGNATURE", "name": "x", "input": {}}
        return [
            ReasoningPart(text="SECRET", signature="SIGNATURE", wire=wire, raw=raw),
            OpaquePart(wire=wire, raw=opaque),
        ]
    if wire.startswith("openai-responses"):
        raw = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "SIGNATURE"}
        opaque = {"type": "web_search_call", "id": "ws_SIGNATURE", "status": "completed"}
        return [
            ReasoningPart(text="SECRET", encrypted="SIGNATURE", wire=wire, raw=raw),
            OpaquePart(wire=wire, raw=opaque),
        ]
    if wire == "gemini":
        opaque = {"executableCode": {"code": "SIGNATURE"}}
        return [
            ReasoningPart(text="SECRET", signature="SIGNATURE", wire=wire),
            OpaquePart(wire=wire, raw=opaque),
        ]
    if wire in ("openrouter", "minimax"):
        raw = {"type": "reasoning.text", "text": "SECRET", "signature": "SIGNATURE", "index": 0}
        return [ReasoningPart(text="SECRET", signature="SIGNATURE", wire=wire, raw=raw)]
    return [ReasoningPart(text="SECRET", wire=wire)]


def history(model: llm.Model, style: str) -> list[llm.Message]:
    """Return a conversation with all that a history may hold."""
    first, second = ID_STYLES[style]
    sky = ToolCall(id=first, name="sky", arguments='{"city": "Rome"}')
    now = ToolCall(id=second, name="now", arguments="")
    sql = ToolCall(id="c" + second, name="sql", arguments="select 1", type="custom")
    return [
        llm.system("Be brief."),
        llm.developer("Answer in Latin."),
        llm.user("What is this?", llm.image(PNG)),
        llm.user("And that?", name="ann"),
        llm.assistant(thought(model), "Let me look.", sky, now),
        llm.tool_result(now, "too late", is_error=True),
        llm.tool_result(sky, "see", llm.image(PNG)),
        llm.system("Be kind, too."),
        llm.user("Well?"),
        llm.assistant(thought(model), sql),  # interrupted: its result never came
        llm.user("Never mind."),
        llm.assistant(thought(model)),  # cut off in its thoughts
        llm.assistant(RefusalPart("I would rather not.")),
        llm.user("Why?"),
    ]


def build(model: llm.Model, messages: list[llm.Message]) -> dict[str, Any]:
    request = Request(model=model, messages=tuple(messages), params={}, extra={})
    body: dict[str, Any] = json.loads(json.dumps(model.provider.build_request(request)))
    return body


# -- what the servers refuse -----------------------------------------------------------------

OPENAI_ITSELF = ("llm.openai", "openai", "azure")
TEXT_RESULTS = ("deepseek", "mimo", "moonshot", "groq", "cerebras", "minimax", "zai", "xai")
ONE_SYSTEM = ("generic", "vllm", "llama.cpp", "dashscope", "minimax", "mistral", "perplexity")
NO_UNKNOWN_FIELDS = (*OPENAI_ITSELF, "groq", "cerebras", "mistral", "deepseek")
REASONING_FIELD = {
    **dict.fromkeys(("deepseek", "moonshot", "mimo", "zai", "fireworks"), "reasoning_content"),
    **dict.fromkeys(("llama.cpp", "sglang"), "reasoning_content"),
    **dict.fromkeys(("groq", "ollama", "vllm"), "reasoning"),
    **dict.fromkeys(("llm.openrouter", "openrouter", "minimax"), "reasoning_details"),
}
REFERENCE = {
    "system": {"role", "content", "name"},
    "developer": {"role", "content", "name"},
    "user": {"role", "content", "name"},
    "assistant": {"role", "content", "name", "tool_calls"},
    "tool": {"role", "content", "tool_call_id"},
}


def check_chat(name: str, messages: list[dict[str, Any]]) -> None:
    own = name in (*OPENAI_ITSELF, "llm.openrouter", "openrouter")
    roles = [m["role"] for m in messages]
    seen: set[str] = set()
    due: list[str] = []
    for number, message in enumerate(messages):
        role = message["role"]
        assert role in REFERENCE
        assert role != "developer" or own
        extra = {REASONING_FIELD[name]} if name in REASONING_FIELD else set()
        if name == "minimax":
            extra = {"reasoning_details", "reasoning_content"}
        known = REFERENCE[role] | ({"refusal"} if own else set()) | extra
        assert message.keys() <= known, message.keys() - known
        assert "name" not in message or name != "groq"
        if role == "tool":
            assert message["tool_call_id"] == due.pop(0), "results stand in the calls' order"
            if name in (*TEXT_RESULTS, *OPENAI_ITSELF):
                assert isinstance(message["content"], str)
            continue
        assert not due, "each call has its result directly behind it"
        calls = message.get("tool_calls", [])
        due = [call["id"] for call in calls]
        assert len(set(due)) == len(due)
        assert not seen & set(due), "ids are unique in a conversation"
        seen |= set(due)
        for call in calls:
            check_call(name, call)
        if role == "assistant" and not own:
            assert message["content"] or calls, "an empty turn is refused"
        if calls and name in ("deepseek", "moonshot", "mimo"):
            assert message["reasoning_content"]
        if calls and name == "gemini":
            assert calls[0]["extra_content"]["google"]["thought_signature"]
        if number and roles[number - 1] == "tool" and "mistral" in name:
            assert role != "user"
    assert not due
    if name in ONE_SYSTEM:
        assert roles.count("system") == 1
        assert roles[0] == "system"
    if name == "perplexity":
        spoken = [r for r in roles[1:] if r != "tool"]
        assert all(a != b or a == "assistant" for a, b in pairwise(spoken))


def check_call(name: str, call: dict[str, Any]) -> None:
    if "mistral" in name:
        assert re.fullmatch("[A-Za-z0-9]{9}", call["id"])
    if name in OPENAI_ITSELF:
        assert len(call["id"]) <= 40
    assert call["id"]
    known = {"id", "type", "function", "custom"}
    assert call.keys() <= known | (set() if name in NO_UNKNOWN_FIELDS else {"extra_content"})
    if name not in (*OPENAI_ITSELF, "llm.openrouter", "openrouter"):
        assert call["type"] == "function"
    if call["type"] == "function":
        assert isinstance(json.loads(call["function"]["arguments"]), dict)


def check_responses(name: str, body: dict[str, Any], own: bool) -> None:
    responses(body, own=name == "llm.openai_responses")
    own_items = {"reasoning", "web_search_call"} if own else set()
    known = {"message", "function_call", "function_call_output"} | own_items
    if name == "llm.openai_responses":
        known |= {"custom_tool_call", "custom_tool_call_output"}
    assert {item.get("type", "message") for item in body["input"]} <= known


def check_gemini(name: str, body: dict[str, Any]) -> None:
    gemini(body)
    said = [part["text"] for part in body["systemInstruction"]["parts"]]
    assert said == ["Be brief.", "Answer in Latin.", "Be kind, too."]
    for turn in body["contents"]:
        for part in turn["parts"]:
            assert "id" not in part.get("functionResponse", ()), "it never gave one"
        calls = [p for p in turn["parts"] if "functionCall" in p]
        assert not calls or ("thoughtSignature" in calls[0]) == (name == "llm.gemini")


def check_anthropic(name: str, body: dict[str, Any], thinking: bool) -> None:
    messages(body, signatures=name == "llm.anthropic")
    assert body["system"] == "Be brief.\n\nAnswer in Latin.\n\nBe kind, too."
    for message in body["messages"]:
        content = message["content"] if isinstance(message["content"], list) else []
        kinds = {block["type"] for block in content}
        ours = {"text", "image", "tool_use", "tool_result"}
        assert kinds <= (ours | {"thinking", "server_tool_use"} if thinking else ours)
        if message["role"] == "assistant" and "deepseek" in name:
            assert content[0]["type"] == "thinking"


@pytest.mark.parametrize("style", ID_STYLES)
@pytest.mark.parametrize("target", MODELS)
def test_a_history_of_every_model_can_be_sent_to_every_other(target: str, style: str) -> None:
    model = MODELS[target]
    own = model.provider.wire_at(model)
    for source, maker in MODELS.items():
        body = build(model, history(maker, style))
        same = maker.provider.wire_at(maker) == own
        if own == "gemini":
            check_gemini(target, body)
        elif own.startswith("anthropic"):
            check_anthropic(target, body, same or "deepseek" in target)
        elif own.startswith("openai-responses"):
            check_responses(target, body, same)
        else:
            check_chat(target, body["messages"])
        sent = json.dumps(body)
        assert ("SIGNATURE" in sent) == (same and own != "compatible" and own != "openai"), source
        if target in REASONING_FIELD and (own == "compatible" or target == "llm.openrouter"):
            assert ("SECRET" in sent) == same, source
        assert build(model, history(maker, style)) == body, "it is the same each time"
        if style == "OpenAI" and "mistral" not in target and own != "gemini":  # which needs none
            assert ID_STYLES[style][0] in sent, "an id that is taken stays"


# -- calls and results -----------------------------------------------------------------------


def ids(messages: list[llm.Message]) -> list[tuple[str, str]]:
    """Return the id and the text, or the name, of all calls and results, in order."""
    out = []
    for message in messages:
        for part in message.parts:
            if isinstance(part, ToolCall):
                out.append((part.id, part.name))
            elif isinstance(part, ToolResult):
                out.append((part.call_id, part.text))
    return out


A, B = ToolCall(id="x", name="a"), ToolCall(id="x", name="b")


def test_two_calls_of_one_id_get_the_results_of_their_names() -> None:
    results = [llm.tool_result(B, "of b"), llm.tool_result(A, "of a")]
    found = ids(paired([llm.assistant(A, B), *results], ANY_IDS))
    (first, second), answers = [i for i, _ in found[:2]], found[2:]
    assert first == "x" != second
    assert answers == [(first, "of a"), (second, "of b")]


def test_two_calls_of_one_id_get_their_results_in_order_where_nothing_else_tells() -> None:
    results = [llm.tool_result("x", "1"), llm.tool_result("x", "2")]
    found = ids(paired([llm.assistant(A, A), *results], ANY_IDS))
    assert found[2:] == [(found[0][0], "1"), (found[1][0], "2")]


def test_an_id_that_comes_again_is_another_call() -> None:
    turn = [llm.assistant(A), llm.tool_result(A, "1")]
    found = ids(paired([*turn, *turn, *turn], ANY_IDS))
    calls, results = [i for i, _ in found[::2]], [i for i, _ in found[1::2]]
    assert calls == results
    assert len(set(calls)) == 3
    assert ids(paired([*turn, *turn], ANY_IDS)) == found[:4], "earlier turns stay as they were"


def test_a_result_stands_behind_its_call_whatever_was_said_between() -> None:
    given = [llm.assistant(A), llm.user("wait"), llm.tool_result(A, "1"), llm.user("go on")]
    assert [m.role for m in paired(given, ANY_IDS)] == ["assistant", "tool", "user", "user"]


def test_a_call_that_was_passed_over_gets_a_result_that_says_so() -> None:
    passed = paired([llm.assistant(A), llm.user("never mind")], ANY_IDS)
    assert ids(passed)[1] == ("x", NO_RESULT)
    result = passed[1].parts[0]
    assert isinstance(result, ToolResult)
    assert result.is_error
    half = paired([llm.assistant(A, ToolCall(id="y", name="c")), llm.tool_result(A, "1")], ANY_IDS)
    assert ids(half)[2:] == [("x", "1"), ("y", NO_RESULT)]
    assert paired([llm.assistant(A)], ANY_IDS) == [llm.assistant(A)], "it may still be carried out"


@pytest.mark.parametrize(
    "messages",
    [
        [llm.user("hi"), llm.tool_result("x", "1")],
        [llm.assistant(ToolCall(id="y", name="a")), llm.tool_result("x", "1")],
        [llm.tool_result("x", "1"), llm.assistant(A)],
    ],
)
@pytest.mark.parametrize("model", [MODELS["llm.openai"], MODELS["llm.anthropic"]])
def test_a_result_without_a_call_is_told_by_its_number(
    model: llm.Model, messages: list[llm.Message]
) -> None:
    number = [m.role for m in messages].index("tool")
    with pytest.raises(ValueError, match=rf"messages\[{number}\]: a tool result without a call"):
        build(model, messages)


def test_a_second_result_of_a_call_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"messages\[2\]"):
        paired([llm.assistant(A), llm.tool_result(A, "1"), llm.tool_result(A, "2")], ANY_IDS)


@given(
    st.lists(st.lists(st.text(max_size=3) | st.text(min_size=40), min_size=1, max_size=3)),
    st.sampled_from([ANY_IDS, OPENAI_IDS, MISTRAL_IDS, ANTHROPIC_IDS]),
)
def test_all_ids_are_taken_and_unique_and_name_their_call(
    turns: list[list[str]], accepted: CallIds
) -> None:
    messages: list[llm.Message] = []
    for number, names in enumerate(turns):
        calls = [ToolCall(id=i, name=f"{number}_{n}") for n, i in enumerate(names)]
        messages.append(llm.assistant(calls))
        messages += [llm.tool_result(call, call.name) for call in reversed(calls)]
    done = paired(messages, accepted)
    calls = [p for m in done for p in m.parts if isinstance(p, ToolCall)]
    assert all(accepted.accept(c.id) for c in calls)
    assert len({c.id for c in calls}) == len(calls)
    results = {p.call_id: p.text for m in done for p in m.parts if isinstance(p, ToolResult)}
    assert results == {c.id: c.name for c in calls}
    given = [p.id for m in messages for p in m.parts if isinstance(p, ToolCall)]
    for old, call in zip(given, calls, strict=True):
        if accepted.accept(old) and given.count(old) == 1:
            assert call.id == old
    ends = [n for n, m in enumerate(messages) if m.role == "assistant"]
    for turns_before, until in enumerate(ends):
        earlier = paired(messages[:until], accepted)
        assert earlier == done[: 2 * turns_before], "a turn stays as it was when more are added"


# -- other rules -----------------------------------------------------------------------------


def test_pictures_in_a_result_follow_as_a_users_message_where_it_takes_text_only() -> None:
    result = llm.tool_result(CALL, llm.image(PNG))
    sent = build(MODELS["llm.openai"], [llm.assistant(CALL), result])["messages"]
    assert [m["role"] for m in sent] == ["assistant", "tool", "user"]
    assert sent[1]["content"] == "(See the attachment below.)"
    text, picture = sent[2]["content"]
    assert text["text"] == "Attachment to the result of sky:"
    assert picture["type"] == "image_url"


CALL = ToolCall(id="call_1", name="sky", arguments="{}")


@pytest.mark.parametrize(
    ("name", "opening"),
    [("llm.anthropic", False), ("anthropic@zai", True), ("perplexity", True), ("groq", False)],
)
def test_a_conversation_that_the_model_begins(name: str, opening: bool) -> None:
    sent = build(MODELS[name], [llm.assistant("Hello!"), llm.user("Hi")])["messages"]
    assert [m["content"] for m in sent] == [OPENING] * opening + ["Hello!", "Hi"]


def test_a_prefill_is_marked_and_has_no_white_space_at_its_end() -> None:
    given = [llm.user("Hi"), llm.assistant("Once upon a ")]
    assert build(MODELS["llm.anthropic"], given)["messages"][-1]["content"] == "Once upon a"
    assert build(MODELS["mistral"], given)["messages"][-1]["prefix"] is True
    assert build(MODELS["moonshot"], given)["messages"][-1]["partial"] is True
    assert "partial" not in build(MODELS["moonshot"], [*given, llm.user("a")])["messages"][1]


def test_a_conversation_of_nothing_is_an_error_at_anthropic() -> None:
    with pytest.raises(ValueError, match="no message has text"):
        build(MODELS["llm.anthropic"], [llm.system("Be brief."), llm.user(" ")])


def test_what_refers_to_blocks_of_another_server_stays_behind_with_them() -> None:
    search = OpaquePart(wire="anthropic", raw={"type": "web_search_tool_result"})
    cited = llm.TextPart("So it is.", citations=({"type": "web_search_result_location"},))
    call = ToolCall(id="c", name="f", extra={"caller": {"type": "code_execution"}})
    turns = [llm.user("x"), llm.assistant(search, cited, call), llm.tool_result(call, "1")]
    here, there = (
        build(MODELS[n], turns)["messages"][1]["content"]
        for n in ("llm.anthropic", "anthropic@zai")
    )
    assert [b["type"] for b in here] == ["web_search_tool_result", "text", "tool_use"]
    assert "citations" in here[1]
    assert "caller" in here[2]
    assert there == [
        {"type": "text", "text": "So it is."},
        {"type": "tool_use", "id": "c", "name": "f", "input": {}},
    ]


def test_a_message_with_a_mark_for_the_cache_is_no_string() -> None:
    sent = build(MODELS["llm.anthropic"], [llm.user("a", cache=True), llm.user("b")])
    assert [block["text"] for block in sent["messages"][0]["content"]] == ["a", "b"]


def test_stored_thinking_that_does_not_say_whose_it_is_goes_back_to_nobody() -> None:
    stored = {
        "role": "assistant",
        "content": "So it is.",
        "reasoning_details": [{"type": "thinking", "thinking": "hm", "signature": "SIGNATURE"}],
    }
    turns = [llm.user("x"), llm.message_of(stored), llm.user("y")]
    for name, model in MODELS.items():
        assert "SIGNATURE" not in json.dumps(build(model, turns)), name


@pytest.mark.parametrize("ids", [ANY_IDS, OPENAI_IDS, MISTRAL_IDS, ANTHROPIC_IDS])
def test_an_id_that_replaces_another_is_taken_by_the_server_and_by_no_other_call(
    ids: CallIds,
) -> None:
    taken: set[str] = set()
    for _ in range(3):
        new = ids.replaced("\ud800" * 50, 1, taken)
        assert ids.accept(new)
        assert new not in taken
        assert ids.replaced("\ud800" * 50, 1, taken) == new
        taken.add(new)


@pytest.mark.parametrize(
    ("name", "signed"), [("gemini-3-pro", True), ("gemini-2.5-pro", False), ("gemini-1.5", False)]
)
def test_models_before_gemini_3_get_calls_without_a_signature(name: str, signed: bool) -> None:
    model = llm.compatible(name, base_url="http://h.invalid/v1", server="gemini")
    turns = [llm.user("x"), llm.assistant(ToolCall(id="c", name="f"))]
    (call,) = build(model, turns)["messages"][1]["tool_calls"]
    assert ("extra_content" in call) == signed


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (llm.openai("m", api_key="k"), "files_read_file_x"),
        (llm.compatible("m", base_url="http://h.invalid/v1"), "files.read file:x"),
    ],
    ids=["openai", "compatible"],
)
async def test_names_of_functions_are_made_plain_where_others_are_refused(
    model: llm.Model, name: str
) -> None:
    call = ToolCall(id="c1", name="files.read file:x", arguments="{}")
    messages = [llm.user("hi"), llm.assistant([call]), llm.tool_result(call, "done")]
    body = body_of(make_request(model, tuple(messages), {}))
    assert body["messages"][1]["tool_calls"][0]["function"]["name"] == name


def test_a_turn_that_was_cut_in_its_thinking_is_sent_without() -> None:
    model = llm.anthropic("m", api_key="k")
    thought = llm.ReasoningPart(text="hm", signature="sig", wire="anthropic")
    cut = llm.ReasoningPart(text="hm", wire="anthropic")
    for parts, kept in (
        ([thought], []),
        ([cut], []),
        ([cut, llm.text("a")], ["text"]),
        ([thought, llm.text("a")], ["thinking", "text"]),
        ([thought, llm.text("a"), thought], ["thinking", "text"]),
    ):
        messages = (llm.user("hi"), llm.assistant(*parts), llm.user("go on"))
        body = body_of(make_request(model, messages, {}))
        turns = [m for m in body["messages"] if m["role"] == "assistant"]
        content = turns[0]["content"] if turns else []
        found = [b["type"] for b in content] if isinstance(content, list) else ["text"]
        assert found == kept
    elsewhere = llm.anthropic("m", api_key="k", base_url="https://h.invalid/anthropic")
    wire = elsewhere.provider.wire_at(elsewhere)
    body = body_of(
        make_request(
            elsewhere,
            (
                llm.user("hi"),
                llm.assistant(llm.ReasoningPart(text="hm", wire=wire)),
                llm.user("go on"),
            ),
            {},
        )
    )
    assert body["messages"][1]["content"][0]["type"] == "thinking"


def test_gemini_gets_a_signature_though_the_call_has_other_fields() -> None:
    call = ToolCall(id="c1", name="f", arguments="{}", extra={"caller": {"type": "direct"}})
    model = llm.compatible("gemini-3", base_url="https://h.invalid/v1", server="gemini")
    messages = (llm.user("hi"), llm.assistant([call]), llm.tool_result(call, "done"))
    sent = body_of(make_request(model, messages, {}))["messages"][1]["tool_calls"][0]
    assert "thought_signature" in sent["extra_content"]["google"]


@pytest.mark.parametrize("model", [llm.openai("m", api_key="k"), llm.anthropic("m", api_key="k")])
def test_nothing_is_said_of_the_choice_of_no_tools(model: llm.Model) -> None:
    params = {"tools": [], "tool_choice": "auto", "parallel_tool_calls": False}
    body = body_of(make_request(model, (llm.user("hi"),), params))
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & body.keys()


@pytest.mark.parametrize(
    ("server", "kept"), [("fireworks", False), ("together", False), ("copilot", True)]
)
def test_geminis_signatures_go_to_those_who_serve_gemini(server: str, kept: bool) -> None:
    extra = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    call = ToolCall(id="c1", name="f", arguments="{}", extra=extra)
    model = llm.compatible("m", base_url="https://h.invalid/v1", server=server)
    messages = (llm.user("hi"), llm.assistant([call]), llm.tool_result(call, "done"))
    sent = body_of(make_request(model, messages, {}))["messages"][1]["tool_calls"][0]
    assert ("extra_content" in sent) is kept


@pytest.mark.parametrize(("server", "name"), [("mistral", None), ("generic", "Ann_Lee")])
def test_names_of_speakers_are_sent_as_servers_take_them(server: str, name: str | None) -> None:
    model = llm.compatible("m", base_url="https://h.invalid/v1", server=server)
    body = body_of(make_request(model, (llm.user("hi", name="Ann Lee"),), {}))
    assert body["messages"][0].get("name") == name
