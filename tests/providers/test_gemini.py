"""Gemini's own wire: addresses and keys, requests, events, usage."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest

import trio_minillm as llm
from trio_minillm import OpaquePart, ReasoningPart, TextPart, ToolCall
from trio_minillm._protocol.request import body_of, make_request
from trio_minillm.providers import Gemini
from trio_minillm.testing import decode, sse

from ..support.media import PNG

GEMINI = Gemini()
HOST = "https://generativelanguage.googleapis.com"
VERTEX = "https://us-east5-aiplatform.googleapis.com/v1/projects/p/locations/us-east5"
EUROPE = "https://aiplatform.eu.rep.googleapis.com/v1/projects/p/locations/eu"
METHOD = ":streamGenerateContent?alt=sse"


def model(name: str = "gemini-3-pro", **options: Any) -> llm.Model:
    return llm.gemini(name, **{"api_key": "k", **options})


# -- addresses and keys ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "name", "url"),
    [
        (None, "m", f"{HOST}/v1beta/models/m{METHOD}"),
        (HOST, "m", f"{HOST}/v1beta/models/m{METHOD}"),
        (f"{HOST}/v1/", "m", f"{HOST}/v1/models/m{METHOD}"),
        (f"{HOST}/v1beta/models", "models/m", f"{HOST}/v1beta/models/m{METHOD}"),
        (None, "tunedModels/m-1", f"{HOST}/v1beta/tunedModels/m-1{METHOD}"),
        (f"{HOST}/v1beta/models/m:streamGenerateContent", "x", f"{HOST}/v1beta/models/m{METHOD}"),
        (f"{HOST}/v1beta?a=b", "m", f"{HOST}/v1beta/models/m{METHOD}&a=b"),
        (None, "a b?c", f"{HOST}/v1beta/models/a%20b%3Fc{METHOD}"),
        (VERTEX, "m", f"{VERTEX}/publishers/google/models/m{METHOD}"),
        (f"{VERTEX}/publishers/google", "m", f"{VERTEX}/publishers/google/models/m{METHOD}"),
        (VERTEX, "endpoints/7", f"{VERTEX}/endpoints/7{METHOD}"),
        (
            "https://aiplatform.googleapis.com",
            "m",
            f"https://aiplatform.googleapis.com/v1/publishers/google/models/m{METHOD}",
        ),
        (EUROPE, "m", f"{EUROPE}/publishers/google/models/m{METHOD}"),
        ("http://localhost:4000/gemini", "m", f"http://localhost:4000/gemini/v1beta/models/m{METHOD}"),
    ],
)  # fmt: skip
def test_the_address(base: str | None, name: str, url: str) -> None:
    assert GEMINI.endpoint_url(model(name, base_url=base)) == url


@pytest.mark.parametrize(
    ("base", "key", "header"),
    [
        (None, "AIzaX", "x-goog-api-key"),
        (None, "other", "x-goog-api-key"),
        (None, "ya29.x", "authorization"),
        (VERTEX, "ya29.x", "authorization"),
        (VERTEX, "another-token", "authorization"),
        (VERTEX, "AIzaX", "x-goog-api-key"),
        (VERTEX, "AQ.x", "x-goog-api-key"),
        (EUROPE, "another-token", "authorization"),
        ("http://localhost", "sk-x", "x-goog-api-key"),
    ],
)
def test_the_key(base: str | None, key: str, header: str) -> None:
    bare = f"Bearer {key}" if header == "authorization" else key
    assert GEMINI.auth_headers(model(base_url=base, api_key=key)) == {header: bare}


def test_the_key_s_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    with pytest.raises(ValueError, match="set GEMINI_API_KEY"):
        llm.gemini("m")
    assert GEMINI.auth_headers(llm.gemini("m", base_url="http://localhost")) == {}
    monkeypatch.setenv("GEMINI_API_KEY", "from-there")
    assert llm.gemini("m").api_key == "from-there"
    with pytest.warns(UserWarning, match="unencrypted"):
        llm.gemini("m", base_url="http://x.example", headers={"x-goog-api-key": "k"}, api_key="")


# -- requests ----------------------------------------------------------------------------------


def body(
    *messages: llm.Message, on: llm.Model | None = None, extra: Any = None, **params: Any
) -> Any:
    given = messages or (llm.user("Hi"),)
    request = make_request(on or model(), given, params, extra=extra)
    return json.loads(msgspec.json.encode(body_of(request)))


HI = [{"role": "user", "parts": [{"text": "Hi"}]}]


def settings(**params: Any) -> Any:
    made = body(**params)
    assert made.pop("contents") == HI
    assert made.keys() <= {"generationConfig"}
    return made.get("generationConfig", {})


def city(name: str) -> str:
    """Look it up."""
    return name


class City(msgspec.Struct):
    name: str
    size: int | None = None


@pytest.mark.parametrize(
    ("params", "sent"),
    [
        ({}, {}),
        ({"max_tokens": 5, "temperature": 0.5}, {"maxOutputTokens": 5, "temperature": 0.5}),
        ({"top_p": 0.5, "top_k": 3, "seed": 1}, {"topP": 0.5, "topK": 3, "seed": 1}),
        ({"presence_penalty": 1, "frequency_penalty": 2}, {"presencePenalty": 1, "frequencyPenalty": 2}),
        ({"logprobs": True, "top_logprobs": 2}, {"responseLogprobs": True, "logprobs": 2}),
        ({"n": 2, "cache": True}, {"candidateCount": 2}),
        ({"stop": "a"}, {"stopSequences": ["a"]}),
        ({"stop": ("a", "b")}, {"stopSequences": ["a", "b"]}),
        ({"modalities": ["text", "image"]}, {"responseModalities": ["TEXT", "IMAGE"]}),
        ({"response_format": "text"}, {}),
        ({"response_format": "json"}, {"responseMimeType": "application/json"}),
        ({"response_format": {"responseMimeType": "x"}}, {"responseMimeType": "x"}),
        ({"reasoning": False}, {"thinkingConfig": {"thinkingBudget": 0}}),
        ({"reasoning": "none"}, {"thinkingConfig": {"thinkingBudget": 0}}),
        ({"reasoning": True}, {"thinkingConfig": {"includeThoughts": True}}),
        ({"reasoning": "low"}, {"thinkingConfig": {"includeThoughts": True, "thinkingLevel": "low"}}),
        ({"reasoning": 500}, {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": 500}}),
        (
            {"reasoning": llm.Reasoning(effort="high", exclude=True)},
            {"thinkingConfig": {"includeThoughts": False, "thinkingLevel": "high"}},
        ),
    ],
)  # fmt: skip
def test_settings(params: dict[str, Any], sent: dict[str, Any]) -> None:
    assert settings(**params) == sent


def test_an_effort_is_a_budget_for_older_models() -> None:
    older = model("gemini-2.5-flash")
    made = body(on=older, reasoning="medium")["generationConfig"]["thinkingConfig"]
    assert made == {"includeThoughts": True, "thinkingBudget": 8192}
    with pytest.raises(ValueError, match="effort must be one of minimal, low, medium, high"):
        body(on=older, reasoning="xhigh")


def test_a_typed_answer() -> None:
    made = settings(response_format=City)
    assert made["responseMimeType"] == "application/json"
    schema = made["responseJsonSchema"]
    assert (schema["type"], schema["required"]) == ("object", ["name", "size"])
    free = settings(response_format=dict[str, int])["responseJsonSchema"]
    assert '"additionalProperties": {"type": "integer"}' in json.dumps(free), "as it is"
    loose = llm.JSONSchema(schema={"type": "object", "properties": {"a": {}}}, strict=False)
    assert settings(response_format=loose)["responseJsonSchema"]["properties"] == {"a": {}}


def test_tools() -> None:
    def now() -> str:
        return ""

    made = body(tools=[city, now, {"googleSearch": {}}])
    ours, own = made["tools"]
    assert own == {"googleSearch": {}}
    first, second = ours["functionDeclarations"]
    assert (first["name"], first["description"]) == ("city", "Look it up.")
    assert first["parametersJsonSchema"]["properties"] == {"name": {"type": "string"}}
    assert second == {"name": "now"}, "an object without properties is refused"
    assert "toolConfig" not in made
    assert body(tools=[{"codeExecution": {}}])["tools"] == [{"codeExecution": {}}]
    none = body(tools=[], tool_choice="auto")
    assert none.keys() == {"contents"}


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (city, {"mode": "ANY", "allowedFunctionNames": ["city"]}),
        ("city", {"mode": "ANY", "allowedFunctionNames": ["city"]}),
        ({"mode": "VALIDATED"}, {"mode": "VALIDATED"}),
    ],
)
def test_the_choice_of_a_tool(choice: Any, config: Any) -> None:
    made = body(tools=[city], tool_choice=choice)
    assert made["toolConfig"] == {"functionCallingConfig": config}


def test_a_strict_tool_and_a_whole_tool_config() -> None:
    strict = llm.tool(city, strict=True)
    assert body(tools=[strict])["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}
    forced = body(tools=[strict], tool_choice="required")["toolConfig"]
    assert forced == {"functionCallingConfig": {"mode": "ANY"}}
    whole = {"functionCallingConfig": {"mode": "AUTO"}, "retrievalConfig": {}}
    assert body(tools=[city], tool_choice=whole)["toolConfig"] == whole


def test_what_extra_may_add() -> None:
    more = {"generationConfig": {"speechConfig": {}}, "safetySettings": [], "cachedContent": "c"}
    made = body(max_tokens=5, extra=more)
    assert made["generationConfig"] == {"maxOutputTokens": 5, "speechConfig": {}}
    assert (made["safetySettings"], made["cachedContent"]) == ([], "c")
    assert body(extra={"generationConfig": {"x": 1}})["generationConfig"] == {"x": 1}
    tools = body(tools=[city], tool_choice="auto", extra={"toolConfig": {"retrievalConfig": {}}})
    assert tools["toolConfig"].keys() == {"functionCallingConfig", "retrievalConfig"}
    for bad, words in (
        ({"generationConfig": {"maxOutputTokens": 6}}, "generationConfig.maxOutputTokens"),
        ({"generationConfig": 7}, "generationConfig must be a mapping"),
        ({"contents": []}, "must not contain contents"),
        ({"systemInstruction": {}}, "must not contain systemInstruction"),
    ):
        with pytest.raises(ValueError, match=words):
            body(max_tokens=5, extra=bad)


@pytest.mark.parametrize("name", ["logit_bias", "store", "parallel_tool_calls", "user", "metadata"])
def test_parameters_that_it_does_not_have(name: str) -> None:
    value = {"logit_bias": {}, "user": "x", "metadata": {}}.get(name, True)
    with pytest.raises(ValueError, match=f"{name}: not a parameter of the gemini wire format"):
        body(**{name: value})


def test_a_tier() -> None:
    assert body(service_tier="flex")["serviceTier"] == "flex"


# -- messages ----------------------------------------------------------------------------------


def test_roles_and_instructions() -> None:
    made = body(
        llm.system("Be brief."),
        llm.user("Hi"),
        llm.user("there"),
        llm.assistant("Hello."),
        llm.developer("Be kind."),
        llm.assistant(llm.RefusalPart("No."), ""),
        llm.user(""),
    )
    assert made["systemInstruction"] == {"parts": [{"text": "Be brief."}, {"text": "Be kind."}]}
    assert made["contents"] == [
        {"role": "user", "parts": [{"text": "Hi"}, {"text": "there"}]},
        {"role": "model", "parts": [{"text": "Hello."}, {"text": "No."}]},
    ]
    with pytest.raises(ValueError, match="no message has text"):
        body(llm.system("x"), llm.user(""))


def test_a_conversation_that_the_model_begins() -> None:
    assert [turn["role"] for turn in body(llm.assistant("Hi"))["contents"]] == ["user", "model"]


def test_media() -> None:
    data = base64.b64encode(PNG).decode()
    parts = [
        llm.image(PNG),
        llm.image("https://x.example/a.png"),
        llm.audio(b"RIFF", media_type="audio/wav"),
        llm.DocumentPart(file_id="https://x.example/v1beta/files/1", media_type="application/pdf"),
        llm.document(b"words", media_type="text/plain", title="Notes"),
        llm.document(b"more", media_type="text/plain"),
    ]
    assert body(llm.user(*parts))["contents"][0]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": data}},
        {"fileData": {"mimeType": "image/png", "fileUri": "https://x.example/a.png"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}},
        {
            "fileData": {
                "mimeType": "application/pdf",
                "fileUri": "https://x.example/v1beta/files/1",
            }
        },
        {"text": "Notes:\n\nwords"},
        {"text": "more"},
    ]
    bare = llm.image("https://x.example/a")
    assert body(llm.user(bare))["contents"][0]["parts"] == [
        {"fileData": {"fileUri": "https://x.example/a"}}
    ]


CALL = ToolCall(id="call_1", name="city", arguments='{"name": "Rome"}')
UNCHECKED = "skip_thought_signature_validator"


def test_calls_and_results() -> None:
    named = msgspec.structs.replace(CALL, id="b", extra={"id": "server-1", "thoughtSignature": "S"})
    second = ToolCall(id="c", name="now")
    results = [
        llm.tool_result(second, "late", is_error=True),
        llm.tool_result(named, "big", llm.image(PNG)),
    ]
    made = body(llm.user("x"), llm.assistant(named, second), *results)["contents"]
    assert made[1]["parts"] == [
        {
            "functionCall": {"name": "city", "args": {"name": "Rome"}, "id": "server-1"},
            "thoughtSignature": "S",
        },
        {"functionCall": {"name": "now", "args": {}}},
    ]
    picture = {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(PNG).decode()}}
    first = {"name": "city", "response": {"output": "big"}, "id": "server-1"}
    late = {"functionResponse": {"name": "now", "response": {"error": "late"}}}
    assert made[2] == {
        "role": "user",
        "parts": [{"functionResponse": {**first, "parts": [picture]}}, late],
    }
    older = body(llm.user("x"), llm.assistant(named, second), *results, on=model("gemini-2.5-pro"))
    assert older["contents"][2]["parts"] == [{"functionResponse": first}, picture, late]
    linked = llm.tool_result(CALL, llm.image("https://x.example/a"))
    behind = body(llm.assistant(CALL), linked)["contents"][-1]["parts"]
    assert [next(iter(part)) for part in behind] == ["functionResponse", "fileData"]


def test_arguments_that_are_no_object_are_put_into_one() -> None:
    bad = ToolCall(id="x", name="f", arguments="[1]")
    (part,) = body(llm.user("q"), llm.assistant(bad), llm.tool_result(bad, "x"))["contents"][1][
        "parts"
    ]
    assert part["functionCall"]["args"] == {"arguments": "[1]"}


@pytest.mark.parametrize(
    ("extra", "name", "signature"),
    [
        (None, "gemini-3-pro", UNCHECKED),
        (None, "gemini-2.5-pro", None),
        ({"thoughtSignature": "S"}, "gemini-2.5-pro", "S"),
        ({"extra_content": {"google": {"thought_signature": "T"}}}, "gemini-3-pro", "T"),
        ({"extra_content": {"google": 7}}, "gemini-3-pro", UNCHECKED),
    ],
)
def test_the_signature_of_a_call(extra: Any, name: str, signature: str | None) -> None:
    call = msgspec.structs.replace(CALL, extra=extra)
    made = body(llm.assistant(call), llm.tool_result(call, "x"), on=model(name))
    assert made["contents"][1]["parts"][0].get("thoughtSignature") == signature


def test_what_belongs_to_the_wire_goes_back_in_order() -> None:
    parts = [
        ReasoningPart(text="hm", signature="A", wire="gemini"),
        ReasoningPart(text="unsigned", wire="gemini"),
        ReasoningPart(text="theirs", signature="X", wire="anthropic"),
        TextPart("one"),
        OpaquePart(wire="gemini", raw={"thoughtSignature": "B"}),
        OpaquePart(wire="gemini", raw={"thoughtSignature": "C"}),
        OpaquePart(wire="gemini", raw={"executableCode": {"code": "1"}}),
        OpaquePart(wire="anthropic", raw={"type": "x"}),
        OpaquePart(wire="gemini", raw={"text": "", "thoughtSignature": "D"}),
    ]
    assert body(llm.user("x"), llm.assistant(parts))["contents"][1]["parts"] == [
        {"text": "hm", "thought": True, "thoughtSignature": "A"},
        {"text": "one", "thoughtSignature": "B"},
        {"text": "", "thoughtSignature": "C"},
        {"executableCode": {"code": "1"}},
        {"text": "", "thoughtSignature": "D"},
    ]


# -- events ------------------------------------------------------------------------------------


def event(*parts: Any, reason: Any = None, candidate: Any = None, **more: Any) -> Any:
    inner = {"content": {"parts": list(parts), "role": "model"}, **(candidate or {})}
    if reason is not None:
        inner["finishReason"] = reason
    return {"candidates": [inner], **more}


def answer(*events: Any, **options: Any) -> tuple[llm.CompletionResponse, llm.MiniLLMError | None]:
    return decode(GEMINI, [b"".join(map(sse, events))], **options)


def finished(*events: Any, **options: Any) -> llm.CompletionResponse:
    response, error = answer(*events, **options)
    assert error is None
    return response


STOP = event({"text": ""}, reason="STOP")


def test_parts_keep_their_order() -> None:
    response = finished(
        event({"text": "h", "thought": True}),
        event({"text": "m", "thought": True}),
        event({"text": "a"}, {"text": "b"}),
        event({"text": "c"}),
        event({"functionCall": {"name": "f", "args": {"x": 1}}}, {"functionCall": {"name": "f"}}),
        event({"text": "d"}),
        event({"executableCode": {"code": "1"}}, {"codeExecutionResult": {"output": "1"}}),
        event({"text": "e"}, {}),
        STOP,
        {"responseId": "r-1", "modelVersion": "m-1"},
    )
    assert response.parts == (
        ReasoningPart(text="hm", wire="gemini"),
        TextPart("abc"),
        ToolCall(id="call_0_r-1", name="f", arguments='{"x":1}'),
        ToolCall(id="call_1_r-1", name="f", arguments="{}"),
        TextPart("d"),
        OpaquePart(wire="gemini", raw={"executableCode": {"code": "1"}}),
        OpaquePart(wire="gemini", raw={"codeExecutionResult": {"output": "1"}}),
        TextPart("e"),
    )
    assert response.tool_calls == response.parts[2:4]
    assert (response.content, response.reasoning) == ("abcde", "hm")
    assert (response.id, response.model) == ("r-1", "m-1")


def replayed(response: llm.CompletionResponse) -> Any:
    return body(llm.user("x"), response.to_message(), llm.user("y"))["contents"][1]["parts"]


def test_signatures_stay_with_their_parts() -> None:
    parts = [
        {"text": "hm", "thought": True, "thoughtSignature": "A"},
        {"text": "so", "thought": True, "thoughtSignature": "B"},
        {"text": "one "},
        {"text": "two", "thoughtSignature": "C"},
        {"text": " three"},
        {"text": "", "thoughtSignature": "D"},
        {"functionCall": {"name": "f", "args": {}, "id": "i"}, "thoughtSignature": "E"},
    ]
    one_by_one = finished(*map(event, parts), STOP)
    at_once = finished(event(*parts), STOP)
    assert one_by_one.parts == at_once.parts
    assert one_by_one.content == "one two three"
    assert replayed(one_by_one)[:6] == parts[:6]
    assert replayed(finished(*map(event, parts), STOP))[6] == parts[6]
    call = one_by_one.tool_calls[0]
    assert (call.id, call.extra) == ("i", {"id": "i", "thoughtSignature": "E"})


def test_a_signature_alone_signs_the_thought_before_it() -> None:
    thought = {"thought": True, "thoughtSignature": "A"}
    response = finished(event({"text": "hm", "thought": True}), event(thought), STOP)
    assert response.parts == (ReasoningPart(text="hm", signature="A", wire="gemini"),)
    snake = finished(event({"text": "a", "thought_signature": "A"}), STOP)
    assert replayed(snake) == [{"text": "a", "thoughtSignature": "A"}]


def test_a_call_in_pieces() -> None:
    def piece(*values: Any, more: bool = True, **fields: Any) -> Any:
        inner = {**fields, **({"partialArgs": list(values)} if values else {})}
        return event({"functionCall": inner | ({"willContinue": True} if more else {})})

    first = {"jsonPath": "$.a", "stringValue": "x", "willContinue": True}
    response = finished(
        piece(name="f", id="i"),
        piece(first),
        piece({"jsonPath": "$.a", "stringValue": "y"}),
        piece(more=False),
        piece({"jsonPath": "$.b", "numberValue": 1}, name="g", more=False),
        STOP,
    )
    assert [(c.name, c.arguments) for c in response.tool_calls] == [
        ("f", '{"a":"xy"}'),
        ("g", '{"b":1}'),
    ]
    assert finished(event({"text": "a"}, {"functionCall": {}}), STOP).parts == (TextPart("a"),)
    cut = finished(piece(name="f"), piece(first), STOP)
    assert cut.tool_calls == ()
    assert cut.invalid_tool_calls[0].arguments == '{"a":"x'


@pytest.mark.parametrize("reason", ["STOP", "MAX_TOKENS", "SAFETY"])
def test_a_reason_beside_the_end_of_a_call_that_has_ended_counts(reason: str) -> None:
    value = {"jsonPath": "$.a", "numberValue": 1}
    grounded = {"groundingChunks": [{"web": {"uri": "u"}}]}
    response = finished(
        event({"functionCall": {"name": "f", "willContinue": True}}),
        event({"functionCall": {"partialArgs": [value]}}),
        event({"functionCall": {}}, reason=reason, candidate={"groundingMetadata": grounded}),
    )
    assert response.finish_reason == reason
    assert len(response.tool_calls) == (1 if reason == "STOP" else 0)
    assert len(response.invalid_tool_calls) == (0 if reason == "STOP" else 1)
    assert response.annotations == ({"web": {"uri": "u"}},)


@pytest.mark.parametrize("call", [{"name": "f", "args": {}}, {}])
@pytest.mark.parametrize("thought", [False, True])
def test_text_in_the_part_of_a_call_is_not_lost(call: Any, thought: bool) -> None:
    part = {"text": "a", "functionCall": call, "thoughtSignature": "A", "thought": thought}
    response = finished(event(part), STOP)
    assert (response.content, response.reasoning) == (("", "a") if thought else ("a", ""))
    calls = [(c.name, c.extra) for c in response.tool_calls]
    assert calls == ([("f", {"thoughtSignature": "A"})] if call else [])


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ({"name": "f"}, "{}"),
        ({"name": "f", "args": None}, "{}"),
        ({"name": "f", "args": '{"a": 1}'}, '{"a": 1}'),
        ({"name": "f", "args": {"a": None}, "id": 7}, '{"a":null}'),
        ({"name": "f", "args": {"a": 1}, "willContinue": False}, '{"a":1}'),
    ],
)
def test_a_whole_call(call: Any, arguments: str) -> None:
    for name in ("functionCall", "function_call"):
        response = finished(event({name: call}), STOP)
        assert [c.arguments for c in response.tool_calls] == [arguments]


def test_media_are_handed_out_and_go_back() -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "AA=="}}
    sound = {"inlineData": {"mimeType": "audio/L16;rate=24000", "data": "BB=="}}
    other = {"inlineData": {"mime_type": "video/mp4", "data": "CC=="}}
    response = finished(event({"text": "a"}, image), event(sound), event(sound), event(other), STOP)
    assert response.images == (image,)
    assert response.audio == {"inlineData": [sound["inlineData"]] * 2}
    assert replayed(response) == [{"text": "a"}, image, sound, sound, other]


def test_what_is_cited() -> None:
    found = {"groundingChunks": [{"web": {"uri": "u"}}, 7], "webSearchQueries": ["q"]}
    cited = {"citationSources": [{"uri": "v"}], "citations": [{"uri": "w"}]}
    response = finished(
        event({"text": "a"}, candidate={"groundingMetadata": {}}),
        event({"text": "b"}, candidate={"groundingMetadata": found, "citationMetadata": cited}),
        event(reason="STOP", candidate={"finishMessage": "m", "safetyRatings": [{}]}),
    )
    assert response.annotations == ({"web": {"uri": "u"}}, {"uri": "w"}, {"uri": "v"})
    assert response.metadata == {
        "groundingMetadata": found,
        "finishMessage": "m",
        "safetyRatings": [{}],
    }


def test_several_candidates() -> None:
    def both(*texts: str, reason: Any = None) -> Any:
        made = [event({"text": t}, reason=reason)["candidates"][0] for t in texts]
        return {"candidates": [{**one, "index": n} for n, one in enumerate(made)]}

    counts = {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7}
    response = finished(
        both("a", "b"), both("c", "d", reason="STOP"), {"usageMetadata": counts}, choices=2
    )
    assert [choice.content for choice in response.choices] == ["ac", "bd"]
    assert response.usage is not None
    assert response.usage.final
    assert GEMINI.counts_all_choices(model())


def test_log_probabilities() -> None:
    given = {"chosenCandidates": [{"token": "a"}]}
    response = finished(event({"text": "a"}, candidate={"logprobsResult": given}), STOP)
    assert response.logprobs == given


# -- ends --------------------------------------------------------------------------------------


def test_the_body_s_end_is_the_end() -> None:
    assert finished(event({"text": "a"}), event(reason="STOP")).finish_reason == "STOP"
    assert finished(event({"text": "a"}, reason="SAFETY")).finish_reason == "SAFETY"
    assert finished(event({"text": "a"}, reason="STOP"), "[DONE]").finish_reason == "STOP"
    for events in ([event({"text": "a"})], [event({"text": "a"}), "[DONE]"], [event()]):
        response, error = answer(*events)
        assert isinstance(error, llm.EndedEarly)
        assert response.outcome is llm.Outcome.TRUNCATED
    open_ = event({"text": "a"}, reason="FINISH_REASON_UNSPECIFIED")
    assert isinstance(answer(open_)[1], llm.EndedEarly)


def test_a_reason_that_names_a_failure() -> None:
    said = "Malformed function call: secret words"
    bad = event(
        reason="MALFORMED_FUNCTION_CALL",
        candidate={"finishMessage": said},
        usageMetadata={"promptTokenCount": 3, "totalTokenCount": 9},
    )
    response, error = answer(event({"text": "a"}), bad)
    assert isinstance(error, llm.ProviderError)
    assert (error.code, error.info.kind) == ("MALFORMED_FUNCTION_CALL", "server")
    assert error.info.metadata == {"finishMessage": said}
    assert "secret" not in f"{error}{error!r}"
    assert response.content == "a"
    assert response.usage is not None
    assert response.usage.completion_tokens == 6
    with_text = event({"text": "b"}, reason="UNEXPECTED_TOOL_CALL")
    assert answer(event({"text": "a"}), with_text)[0].content == "ab"


@pytest.mark.parametrize("message", [None, "", "Bad words."])
def test_a_prompt_that_was_blocked(message: str | None) -> None:
    feedback = {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": message}
    blocked = {"promptFeedback": feedback, "usageMetadata": {"promptTokenCount": 3}}
    for response, error in (answer(blocked), decode(GEMINI, [json.dumps(blocked).encode()])):
        assert isinstance(error, llm.ProviderError)
        assert (error.code, error.info.kind) == ("PROHIBITED_CONTENT", "invalid")
        assert not error.info.retryable
        words = ": Bad words." if message else ""
        assert error.info.message == f"the prompt was blocked: PROHIBITED_CONTENT{words}"
        assert response.usage is not None


def test_feedback_that_blocks_nothing() -> None:
    for reason in ("BLOCK_REASON_UNSPECIFIED", "", None, 7):
        feedback = {"blockReason": reason, "safetyRatings": []}
        first = event({"text": "a"}, promptFeedback=feedback, candidate={"avgLogprobs": -0.1})
        response = finished(first, STOP)
        assert response.metadata == {"promptFeedback": feedback, "avgLogprobs": -0.1}
    response, error = answer({"promptFeedback": {"safetyRatings": []}})
    assert isinstance(error, llm.EndedEarly)


ERROR = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}


@pytest.mark.parametrize(
    "body",
    [
        sse(ERROR),
        sse([ERROR]),
        json.dumps(ERROR).encode(),
        json.dumps([ERROR]).encode(),
        sse({"response": ERROR}),
        sse(ERROR, "error"),
    ],
)
def test_an_error(body: bytes) -> None:
    error = decode(GEMINI, [body])[1]
    assert isinstance(error, llm.ProviderError)
    assert (error.status, error.info.message) == (503, "overloaded")


def test_an_error_beside_an_answer() -> None:
    response, error = answer(event({"text": "a"}), {**event({"text": "b"}), **ERROR})
    assert isinstance(error, llm.ProviderError)
    assert response.content == "ab"
    bad = {
        "candidates": [
            {"finishReason": {}},
            {"finishReason": 1.5, "content": {"parts": [{"text": {}}]}},
        ]
    }
    assert isinstance(answer({**bad, **ERROR})[1], llm.ProviderError)
    fine = {**STOP, "error": {"code": 0, "message": ""}}
    assert finished(event({"text": "a"}), fine).content == "a"


def test_an_object_that_nobody_understands() -> None:
    error = answer({"message": "no such model", "code": 404})[1]
    assert isinstance(error, llm.ProviderError)
    with_answer = finished(event({"text": "a"}), {"heartbeat": 1}, STOP)
    assert with_answer.content == "a"
    assert isinstance(decode(GEMINI, [b'{"x": 1}'])[1], llm.ProviderError)


def test_a_whole_answer() -> None:
    whole = event(
        {"text": "a"}, reason="STOP", usageMetadata={"promptTokenCount": 3, "totalTokenCount": 4}
    )
    response, error = decode(GEMINI, [json.dumps(whole, indent=2).encode()])
    assert error is None
    assert (response.content, response.finish_reason) == ("a", "STOP")
    assert response.usage is not None
    assert (response.usage.completion_tokens, response.usage.final) == (1, True)
    empty = decode(GEMINI, [json.dumps({"candidates": [{"content": {}}]}).encode()])
    assert isinstance(empty[1], llm.EndedEarly)
    wrapped = finished({"response": event({"text": "a"}, reason="STOP"), "traceId": "t"})
    assert wrapped.content == "a"
    paths = {"name": "f", "partialArgs": [{"jsonPath": "$.a", "numberValue": 1}]}
    piece = decode(GEMINI, [json.dumps(event({"functionCall": paths}, reason="STOP")).encode()])
    assert [c.arguments for c in piece[0].tool_calls] == ['{"a":1}']


# -- other shapes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd",
    [
        {"candidates": {"content": {"parts": [{"text": "a"}]}}},
        {"candidates": [{"content": {"parts": {"text": "a"}}}]},
        {"candidates": [{"content": {"parts": ["a", None]}}]},
        {"candidates": [{"content": {"parts": "a"}}]},
        {"candidates": [{"content": "a"}]},
        {"candidates": [{"content": [{"text": "a"}]}]},
        {"candidates": [{"index": "0", "content": {"parts": [{"text": {"text": "a"}}]}}]},
        {"candidates": [{"content": {"parts": [{"text": None}, {"text": "a"}]}}], "responseId": 7},
    ],
)
def test_text_in_another_shape(odd: Any) -> None:
    assert finished(odd, STOP).content == "a"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (event({"text": [{"x": {}}]}), "text of candidates"),
        (event({"functionCall": 7}), "functionCall is not an object"),
        (event({"functionCall": {"name": [1]}}), "functionCall.name is not text"),
        (event(7), "candidates[].content.parts[] is not an object"),
        (event({"text": "a"}, reason=[[{"x": 1}], 1.5, {"type": [{}]}]), "finishReason"),
        ({"candidates": 7}, "candidates is not a list"),
    ],
)
def test_an_answer_that_can_t_be_read(bad: Any, words: str) -> None:
    error = answer(bad, STOP)[1]
    assert isinstance(error, llm.ProtocolError), error
    assert words in str(error)


def test_half_a_surrogate_pair_meets_the_other() -> None:
    events = [sse(json.dumps(event({"text": half}))) for half in ("\ud83d", "\ude00")]
    assert decode(GEMINI, [*events, sse(STOP)])[0].content == "\U0001f600"


def test_usage_that_can_t_be_read_costs_itself() -> None:
    response = finished(event({"text": "a"}, usageMetadata=7, responseId={}), STOP)
    assert response.content == "a"
    assert response.usage is None
    assert any("usageMetadata" in note for note in response.notes)


def test_what_is_no_json() -> None:
    assert isinstance(answer(event({"text": "a"}), "{broken")[1], llm.ProtocolError)
    assert finished(event({"text": "a"}), "keep-alive", STOP).content == "a"


# -- usage and cost ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "counts"),
    [
        ({"promptTokenCount": 9, "candidatesTokenCount": 2, "totalTokenCount": 11}, (9, None, 2, None)),
        (
            {"promptTokenCount": 9, "cachedContentTokenCount": 4, "candidatesTokenCount": 2,
             "thoughtsTokenCount": 5, "toolUsePromptTokenCount": 1, "totalTokenCount": 17},
            (6, 4, 7, 5),
        ),
        ({"promptTokenCount": 9, "thoughtsTokenCount": 5, "totalTokenCount": 14}, (9, None, 5, 5)),
        ({"promptTokenCount": 9, "totalTokenCount": 9}, (9, None, 0, None)),
        ({"promptTokenCount": 9}, (9, None, None, None)),
        ({"candidatesTokenCount": 2, "totalTokenCount": 2}, (None, None, 2, None)),
        ({"promptTokenCount": "9", "candidatesTokenCount": "2"}, (9, None, 2, None)),
    ],
)  # fmt: skip
def test_usage(raw: Any, counts: tuple[Any, ...]) -> None:
    usage = finished(event({"text": "a"}, reason="STOP", usageMetadata=raw)).usage
    assert usage is not None
    assert counts == (
        usage.uncached_input_tokens,
        usage.cache_read_tokens,
        usage.completion_tokens,
        usage.reasoning_tokens,
    )
    assert usage.raw == raw


def test_the_last_usage_wins() -> None:
    events = [
        event({"text": "a"}, usageMetadata={"promptTokenCount": 9, "candidatesTokenCount": n})
        for n in (1, 5)
    ]
    usage = finished(*events, STOP).usage
    assert usage is not None
    assert (usage.completion_tokens, usage.final) == (5, False)


def test_usage_by_modality_and_tier() -> None:
    raw = {
        "promptTokenCount": 9,
        "candidatesTokenCount": 3,
        "totalTokenCount": 12,
        "promptTokensDetails": [
            7,
            {"modality": "TEXT", "tokenCount": 2},
            {"modality": "AUDIO", "tokenCount": 3},
            {"modality": "IMAGE", "tokenCount": 4},
        ],
        "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1}, {"modality": "AUDIO"}],
        "serviceTier": "flex",
    }
    usage = finished(event({"text": "a"}, reason="STOP", usageMetadata=raw)).usage
    assert usage is not None
    assert (usage.audio_input_tokens, usage.image_input_tokens) == (3, 4)
    assert (usage.audio_output_tokens, usage.image_output_tokens) == (None, 1)
    assert (usage.service_tier, usage.doubts) == ("flex", None)
    for traffic, tier in (("ON_DEMAND", "standard"), ("ON_DEMAND_PRIORITY", "priority"),
                          ("PROVISIONED_THROUGHPUT", "provisioned_throughput")):  # fmt: skip
        plain = {"promptTokenCount": 9, "candidatesTokenCount": 3, "trafficType": traffic}
        usage = finished(event({"text": "a"}, reason="STOP", usageMetadata=plain)).usage
        assert usage is not None
        assert usage.service_tier == tier


def test_counts_that_contradict_each_other_are_in_doubt() -> None:
    raw = {"promptTokenCount": 9, "candidatesTokenCount": 3, "totalTokenCount": 20}
    usage = finished(event({"text": "a"}, reason="STOP", usageMetadata=raw)).usage
    assert usage is not None
    assert usage.doubts == {"completion_tokens": "the total is not the sum of the counts"}
    bad = {"promptTokenCount": 9, "candidatesTokenCount": [], "totalTokenCount": 20}
    usage = finished(event({"text": "a"}, reason="STOP", usageMetadata=bad)).usage
    assert usage is not None
    assert usage.completion_tokens is None
    price = llm.TokenPrice(input=1, output=1)
    assert GEMINI.cost_of(usage, price).amount is None


@pytest.mark.parametrize("number", ["5", "1.10"])
def test_a_number_for_text_is_text_with_its_digits(number: str) -> None:
    said = event({"text": "n"}, reason="STOP")
    body = json.dumps(said).replace('"text": "n"', f'"text": {number}')
    response, error = decode(GEMINI, [sse(body)])
    assert (error, response.content) == (None, number)


def test_a_signature_that_is_none_is_noted() -> None:
    response, error = answer(event({"text": "a", "thoughtSignature": 5}, reason="STOP"))
    assert (error, response.content) == (None, "a")
    assert any("thoughtSignature" in note for note in response.notes)


def test_a_negative_index_is_malformed() -> None:
    said = event({"text": "a"}, reason="STOP")
    said["candidates"][0]["index"] = -1
    error = answer(said)[1]
    assert isinstance(error, llm.ProtocolError)
