"""Requests in each wire format: whole bodies and headers, as an HTTP server sees them.

The shapes are those of the providers' own references, not of our code.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest

import trio_minillm as llm
from trio_minillm import ReasoningPart, RefusalPart, TextPart, ToolCall, ToolResult
from trio_minillm.providers import SERVERS, Provider, Request
from trio_minillm.providers._anthropic_request import FAILED
from trio_minillm.providers._chat_messages import EMPTY_RESULT, SEE_BELOW
from trio_minillm.providers._server_quirks import server_at
from trio_minillm.providers.anthropic import Anthropic
from trio_minillm.providers.openai import OpenAIChat

from ..support.media import PDF, PDF64, PNG, PNG64, WAV, WAV64

CALL = ToolCall(id="call_1", name="sky", arguments='{"city": "Rome"}')

OPENAI = llm.openai("gpt", api_key="sk-1")
OPENROUTER = llm.openrouter("m/x", api_key="or-1")
ANTHROPIC = llm.anthropic("claude", api_key="an-1")


def server(name: str, **more: Any) -> llm.Model:
    return llm.compatible("m", base_url="http://host.invalid:1/v1", server=name, **more)


class Sent(NamedTuple):
    url: str
    headers: httpx.Headers
    body: dict[str, Any]


async def send(
    model: llm.Model, messages: Any = "hi", headers: dict[str, str] | None = None, **params: Any
) -> Sent:
    """Send a request, and return it as an HTTP server gets it."""
    got: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        got.append(request)
        return httpx.Response(400)

    async with llm.open_client(transport=httpx.MockTransport(answer)) as client:
        with suppress(llm.RefusedError):
            await client.complete(model, messages, headers=headers, **params)
    (request,) = got
    assert request.method == "POST"
    return Sent(str(request.url), request.headers, json.loads(request.content))


async def body(model: llm.Model, messages: Any = "hi", **params: Any) -> dict[str, Any]:
    return (await send(model, messages, **params)).body


async def said(model: llm.Model, *messages: llm.Message) -> list[dict[str, Any]]:
    """Return the ``messages`` of the body."""
    found: list[dict[str, Any]] = (await body(model, messages))["messages"]
    return found


def build(model: llm.Model, *messages: llm.Message, **params: Any) -> dict[str, Any]:
    """Build a body without a client, for requests that are refused before anything is sent."""
    request = Request(model=model, messages=messages, params=params, extra={})
    return model.provider.build_request(request)


# -- the address and the headers -------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "url"),
    [
        (OPENAI, "https://api.openai.com/v1/chat/completions"),
        (llm.openai("m", base_url="http://h.invalid/v1/"), "http://h.invalid/v1/chat/completions"),
        (OPENROUTER, "https://openrouter.ai/api/v1/chat/completions"),
        (ANTHROPIC, "https://api.anthropic.com/v1/messages"),
        (llm.anthropic("m", base_url="http://h.invalid/"), "http://h.invalid/v1/messages"),
        (llm.anthropic("m", base_url="http://h.invalid/v1"), "http://h.invalid/v1/messages"),
        (server("vllm"), "http://host.invalid:1/v1/chat/completions"),
        (
            llm.compatible(
                "m",
                base_url="https://r.openai.azure.com/openai/deployments/d?api-version=2024-10-21",
            ),
            "https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
        ),
        (
            llm.compatible("m", base_url="https://r.openai.azure.com/openai/v1/"),
            "https://r.openai.azure.com/openai/v1/chat/completions",
        ),
        *(
            (
                llm.compatible("m", base_url=f"https://r.{host}.azure.com{path}"),
                f"https://r.{host}.azure.com{asked}",
            )
            for host in ("openai", "services.ai", "cognitiveservices")
            for path, asked in (
                ("", "/openai/v1/chat/completions"),
                ("/openai/", "/openai/v1/chat/completions"),
                ("?api-version=preview", "/openai/v1/chat/completions?api-version=preview"),
                (
                    "?api-version=2024-10-21",
                    "/openai/deployments/m/chat/completions?api-version=2024-10-21",
                ),
                ("/models", "/models/chat/completions"),
            )
        ),
    ],
)
async def test_where_a_request_goes(model: llm.Model, url: str) -> None:
    assert (await send(model)).url == url


@pytest.mark.parametrize(
    ("model", "auth"),
    [
        (OPENAI, {"authorization": "Bearer sk-1"}),
        (OPENROUTER, {"authorization": "Bearer or-1"}),
        (ANTHROPIC, {"x-api-key": "an-1", "anthropic-version": "2023-06-01"}),
        (server("vllm"), {}),
        (server("vllm", api_key="k"), {"authorization": "Bearer k"}),
        (server("azure", api_key="k"), {"api-key": "k"}),
        (server("azure"), {}),
        (llm.anthropic("m", base_url="http://h.invalid"), {"anthropic-version": "2023-06-01"}),
    ],
)
async def test_how_a_request_proves_itself(
    model: llm.Model, auth: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    headers = (await send(model)).headers
    names = ("authorization", "x-api-key", "api-key", "anthropic-version")
    assert {n: headers[n] for n in names if n in headers} == auth


async def test_every_request_asks_for_an_uncompressed_event_stream() -> None:
    headers = (await send(OPENAI)).headers
    assert headers["accept"] == "text/event-stream"
    assert headers["accept-encoding"] == "identity"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == f"trio-minillm/{llm.__version__}"


async def test_openrouter_attribution() -> None:
    model = llm.openrouter("m", api_key="k", app_url="https://app.example", app_title="App")
    headers = (await send(model)).headers
    assert headers["http-referer"] == "https://app.example"
    assert headers["x-openrouter-title"] == headers["x-title"] == "App"
    plain = (await send(OPENROUTER)).headers
    assert not {"http-referer", "x-openrouter-title", "x-title"} & set(plain)


@pytest.mark.parametrize(
    ("own", "betas", "header"),
    [
        (None, None, None),
        (None, [], None),
        (None, ["files-api-2025-04-14"], "files-api-2025-04-14"),
        (None, ["a-1", "b-2"], "a-1,b-2"),
        (None, "a-1", "a-1"),
        ("c-3", None, "c-3"),
        ("c-3", ["a-1"], "c-3,a-1"),
    ],
)
async def test_anthropic_betas(own: str | None, betas: Any, header: str | None) -> None:
    model = llm.anthropic("m", api_key="k", headers={"Anthropic-Beta": own} if own else None)
    sent = await send(model, betas=betas)
    assert sent.headers.get("anthropic-beta") == header
    assert "betas" not in sent.body


async def test_headers_of_the_call_beat_the_models_and_the_models_beat_ours() -> None:
    model = llm.anthropic("m", api_key="k", headers={"Anthropic-Version": "2026-10-21", "X-A": "1"})
    headers = (await send(model, headers={"x-a": "2", "X-B": "3"})).headers
    assert headers.get_list("anthropic-version") == ["2026-10-21"]
    assert headers.get_list("x-a") == ["2"]
    assert headers["x-b"] == "3"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.deepseek.com", "deepseek"),
        ("https://API.groq.com/openai/v1", "groq"),
        ("https://api.mistral.ai/v1", "mistral"),
        ("https://api.x.ai/v1", "xai"),
        ("https://res.openai.azure.com/openai/v1", "azure"),
        ("https://res.services.ai.azure.com/openai/v1", "azure"),
        ("https://api.x.ai.evil.example/v1", "generic"),
        ("https://evil.example/api.x.ai", "generic"),
        ("http://127.0.0.1:8080/v1", "generic"),
    ],
)
def test_a_server_is_told_from_its_host(url: str, name: str) -> None:
    assert server_at(url) == name
    assert llm.compatible("m", base_url=url).provider.server == name  # type: ignore[attr-defined]


def test_an_unknown_server_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown server 'vlm'; known: .*vllm"):
        server("vlm")


@pytest.mark.parametrize(
    ("model", "headers", "found"),
    [
        (OPENROUTER, {"x-generation-id": "gen-1"}, "gen-1"),
        (OPENROUTER, {}, None),
        (OPENAI, {"x-generation-id": "gen-1"}, None),
    ],
)
def test_the_generation_id_of_the_headers(
    model: llm.Model, headers: dict[str, str], found: str | None
) -> None:
    assert model.provider.generation_id(headers) == found


# -- a rich conversation, whole --------------------------------------------------------------

CONVERSATION = [
    llm.system("Be brief."),
    llm.developer("Answer in Latin."),
    llm.user("What is this?", llm.image(PNG, detail="low"), llm.image("https://h/a.png")),
    llm.assistant("Let me look.", CALL, ToolCall(id="call_2", name="now")),
    llm.tool_result(CALL, "blue"),
    llm.tool_result("call_2", "too late", is_error=True),
    llm.user("And this?", llm.document(PDF, title="a.pdf")),
    llm.assistant(RefusalPart("No.")),
    llm.user("Why?", name="ann"),
]


async def test_openai_whole() -> None:
    assert await body(OPENAI, CONVERSATION) == {
        "model": "gpt",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": "Answer in Latin."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {
                        "type": "image_url",
                        "image_url": {"url": f"data:image/png;base64,{PNG64}", "detail": "low"},
                    },
                    {"type": "image_url", "image_url": {"url": "https://h/a.png"}},
                ],
            },
            {
                "role": "assistant",
                "content": "Let me look.",
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "sky", "arguments": '{"city": "Rome"}'},
                    },
                    {
                        "id": "call_2",
                        "type": "function",
                        "function": {"name": "now", "arguments": "{}"},
                    },
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "blue"},
            {"role": "tool", "tool_call_id": "call_2", "content": "too late"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "And this?"},
                    {
                        "type": "file",
                        "file": {
                            "filename": "a.pdf",
                            "file_data": f"data:application/pdf;base64,{PDF64}",
                        },
                    },
                ],
            },
            {"role": "assistant", "content": None, "refusal": "No."},
            {"role": "user", "name": "ann", "content": "Why?"},
        ],
    }


async def test_anthropic_whole() -> None:
    assert await body(ANTHROPIC, CONVERSATION) == {
        "model": "claude",
        "stream": True,
        "max_tokens": 8192,
        "system": "Be brief.\n\nAnswer in Latin.",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": PNG64},
                    },
                    {"type": "image", "source": {"type": "url", "url": "https://h/a.png"}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Let me look."},
                    {"type": "tool_use", "id": "call_1", "name": "sky", "input": {"city": "Rome"}},
                    {"type": "tool_use", "id": "call_2", "name": "now", "input": {}},
                ],
            },
            {  # the results and the next question are one turn, the results first
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_1", "content": "blue"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "call_2",
                        "content": "too late",
                        "is_error": True,
                    },
                    {"type": "text", "text": "And this?"},
                    {
                        "type": "document",
                        "source": {
                            "type": "base64",
                            "media_type": "application/pdf",
                            "data": PDF64,
                        },
                        "title": "a.pdf",
                    },
                ],
            },
            {"role": "assistant", "content": "No."},
            {"role": "user", "content": "Why?"},
        ],
    }


async def test_openrouter_differs_from_openai_in_little() -> None:
    theirs, ours = await body(OPENROUTER, CONVERSATION), await body(OPENAI, CONVERSATION)
    assert "stream_options" not in theirs  # without effect there: usage always comes
    assert theirs["messages"] == ours["messages"]


DEVELOPER = {"azure", "openai", "openrouter"}
SYSTEMS = {  # servers that take several system messages
    *("azure", "cerebras", "cohere", "copilot", "databricks", "deepinfra", "deepseek", "fireworks"),
    *("gemini", "groq", "mimo", "moonshot", "nvidia", "openai", "openrouter", "sambanova"),
    *("snowflake", "together", "xai", "zai"),
}
MAX_TOKENS = dict.fromkeys(
    ("azure", "cerebras", "groq", "openai", "snowflake", "xai"), "max_completion_tokens"
)
REASONING = {name: {"reasoning_content": " "} for name in ("deepseek", "mimo", "moonshot")}


@pytest.mark.parametrize("name", sorted(SERVERS))
async def test_compatible_servers_whole(name: str) -> None:
    """``max_tokens`` and ``system`` everywhere but where they are replaced."""
    sent = await body(server(name), CONVERSATION[:6], max_tokens=5, seed=7, temperature=0.5)
    ours = (await body(OPENAI, CONVERSATION[:6]))["messages"]
    ours[1]["role"] = "developer" if name in DEVELOPER else "system"
    if name == "mistral":
        for number, ident in enumerate(["LiVgi7Q5Y", "zsnnx1LEf"]):
            ours[3]["tool_calls"][number]["id"] = ours[4 + number]["tool_call_id"] = ident
    if name == "gemini":
        signature = {"google": {"thought_signature": "skip_thought_signature_validator"}}
        ours[3]["tool_calls"][0]["extra_content"] = signature
    ours[3] |= REASONING.get(name, {})
    if name not in SYSTEMS:
        ours[:2] = [{"role": "system", "content": "Be brief.\n\nAnswer in Latin."}]
    assert sent == {
        "model": "m",
        "stream": True,
        **(
            {} if name in ("mistral", "openrouter") else {"stream_options": {"include_usage": True}}
        ),
        MAX_TOKENS.get(name, "max_tokens"): 5,
        "random_seed" if name == "mistral" else "seed": 7,
        "temperature": 0.5,
        "messages": ours,
    }


# -- messages: OpenAI's wire -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "content"),
    [
        (llm.user("a"), "a"),
        (llm.user(), ""),
        (llm.user("a", "b"), [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
        (
            llm.user(llm.audio(WAV)),
            [{"type": "input_audio", "input_audio": {"data": WAV64, "format": "wav"}}],
        ),
        (
            llm.user(llm.audio(b"ID3", media_type="audio/mpeg")),
            [{"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}}],
        ),
        (
            llm.user(llm.DocumentPart(file_id="file-1")),
            [{"type": "file", "file": {"file_id": "file-1"}}],
        ),
        (
            llm.user(llm.document(PDF)),
            [
                {
                    "type": "file",
                    "file": {
                        "filename": "document",
                        "file_data": f"data:application/pdf;base64,{PDF64}",
                    },
                }
            ],
        ),
        (llm.user("a", cache=True), "a"),  # caching is automatic there
    ],
)
async def test_what_a_user_says_to_openai(message: llm.Message, content: Any) -> None:
    assert await said(OPENAI, message) == [{"role": "user", "content": content}]


@pytest.mark.parametrize(
    ("parts", "fields"),
    [
        (["a", "b"], {"content": "ab"}),
        ([], {"content": ""}),
        ([CALL], {"content": None, "tool_calls": [...]}),
        ([RefusalPart("n"), RefusalPart("o")], {"content": None, "refusal": "no"}),
        ([ReasoningPart(text="hm", wire="openai"), "a"], {"content": "a"}),
        ([llm.OpaquePart(wire="anthropic", raw={"type": "compaction"}), "a"], {"content": "a"}),
        ([TextPart("a", citations=({"type": "char_location"},))], {"content": "a"}),
    ],
)
async def test_what_the_model_said_to_openai(parts: list[Any], fields: dict[str, Any]) -> None:
    (sent,) = await said(OPENAI, llm.assistant(parts))
    assert sent.keys() == {"role", *fields}
    assert all(sent[k] == v for k, v in fields.items() if k != "tool_calls")


async def test_a_custom_call_keeps_its_text() -> None:
    call = ToolCall(id="c", name="sql", arguments="select 1", type="custom")
    (sent,) = await said(OPENAI, llm.assistant(call))
    assert sent["tool_calls"] == [
        {"id": "c", "type": "custom", "custom": {"name": "sql", "input": "select 1"}}
    ]


async def test_several_results_in_one_message_are_several_messages() -> None:
    calls = [ToolCall(id=i, name="f") for i in "ab"]
    results = tuple(ToolResult(call_id=i, content=(TextPart(i),)) for i in "ab")
    sent = await said(OPENAI, llm.assistant(calls), llm.Message(role="tool", parts=results))
    assert sent[1:] == [
        {"role": "tool", "tool_call_id": "a", "content": "a"},
        {"role": "tool", "tool_call_id": "b", "content": "b"},
    ]


@pytest.mark.parametrize("name", ["openrouter", "vllm"])
async def test_a_tool_may_answer_with_a_picture_where_the_wire_says_so(name: str) -> None:
    model = OPENROUTER if name == "openrouter" else server(name)
    result = llm.tool_result("call_1", "see", llm.image("https://h/a.png"))
    _, sent = await said(model, llm.assistant(CALL), result)
    assert sent["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "https://h/a.png"}},
    ]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (llm.Message(role="tool", parts=(TextPart("x"),)), "consists of tool results"),
        (llm.user(llm.audio("https://h/a.wav")), "as bytes"),
        (llm.user(llm.ImagePart(file_id="f")), "not by file id"),
        (llm.user(llm.document("https://h/a.pdf")), "not by URL"),
        (llm.user(CALL), "a ToolCall can't be"),
        (llm.user(RefusalPart("no")), "a RefusalPart can't be"),
        (llm.user("x", ReasoningPart(text="hm")), "a ReasoningPart can't be"),
        # Nothing is dropped silently from what the model is said to have said.
        (llm.assistant("x", llm.image(PNG)), "an? ImagePart can't be"),
        (llm.assistant(llm.tool_result("c", "x").parts[0]), "a ToolResult can't be"),
    ],
)
def test_what_cant_be_said_to_openai(message: llm.Message, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        build(OPENAI, message)


async def test_documents_by_url_where_the_wire_takes_them() -> None:
    (sent,) = await said(OPENROUTER, llm.user(llm.document("https://h/a.pdf", title="a.pdf")))
    assert sent["content"] == [
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "https://h/a.pdf"}}
    ]


async def test_mistral_takes_sound_and_documents_as_bare_strings() -> None:
    (sent,) = await said(
        server("mistral"),
        llm.user(
            llm.audio(WAV), llm.document("https://h/a.pdf"), llm.DocumentPart(file_id="file-1")
        ),
    )
    assert sent["content"] == [
        {"type": "input_audio", "input_audio": WAV64},
        {"type": "document_url", "document_url": "https://h/a.pdf"},
        {"type": "file", "file": {"file_id": "file-1"}},
    ]


# -- cache breakpoints -----------------------------------------------------------------------

NOTHING = {"type": "object", "properties": {}}
"""Parameters of a tool that has none."""
EPHEMERAL = {"cache_control": {"type": "ephemeral"}}
HOUR = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}


async def test_openrouter_marks_text_parts_only() -> None:
    sent = await said(
        OPENROUTER,
        llm.system("a", cache=True),
        llm.user("b", llm.text("c", cache="1h"), llm.image(PNG, cache=True)),
        llm.assistant("d", cache="5m"),
    )
    assert [m["content"] for m in sent] == [
        [{"type": "text", "text": "a", **EPHEMERAL}],
        [
            {"type": "text", "text": "b"},
            {"type": "text", "text": "c", **HOUR},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG64}"}},
        ],
        [
            {
                "type": "text",
                "text": "d",
                "cache_control": {"type": "ephemeral", "ttl": "5m"},
            }
        ],
    ]


@pytest.mark.parametrize("parts", [["x"], ["w", "x"], [llm.image(PNG), "x"]])
async def test_openrouter_marks_a_tools_answer(parts: list[Any]) -> None:
    call = llm.assistant(CALL)
    _, sent = await said(OPENROUTER, call, llm.tool_result(CALL, *parts, cache=True))
    assert sent["content"][-1] == {"type": "text", "text": "x", **EPHEMERAL}
    _, plain = await said(server("vllm"), call, llm.tool_result(CALL, "x", cache=True))
    assert plain["content"] == "x"


async def test_anthropic_marks_any_block() -> None:
    sent = await body(
        ANTHROPIC,
        [
            llm.system("a", cache=True),
            llm.user("b", llm.image("https://h/a.png", cache=True), llm.document(PDF, cache="1h")),
            llm.assistant(CALL),
            llm.tool_result(CALL, llm.text("x", cache=True), cache="1h"),
        ],
        tools=[llm.Tool(name="sky", cache="1h")],
        cache=True,
    )
    assert sent["cache_control"] == {"type": "ephemeral"}
    assert sent["system"] == [{"type": "text", "text": "a", **EPHEMERAL}]
    assert sent["tools"] == [{"name": "sky", "input_schema": NOTHING, **HOUR}]
    text, image, document = sent["messages"][0]["content"]
    assert "cache_control" not in text
    assert image["cache_control"] == {"type": "ephemeral"}
    assert document["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    (result,) = sent["messages"][2]["content"]
    assert result == {
        "type": "tool_result",
        "tool_use_id": "call_1",
        "content": [{"type": "text", "text": "x", **EPHEMERAL}],
        **HOUR,
    }


@pytest.mark.parametrize(
    ("model", "cache", "mark"),
    [
        (OPENROUTER, True, {"type": "ephemeral"}),
        (OPENROUTER, "1h", {"type": "ephemeral", "ttl": "1h"}),
        (ANTHROPIC, "5m", {"type": "ephemeral", "ttl": "5m"}),
        (OPENAI, True, None),
        (OPENROUTER, False, None),
        (ANTHROPIC, False, None),
    ],
)
async def test_the_automatic_breakpoint(model: llm.Model, cache: Any, mark: Any) -> None:
    assert (await body(model, cache=cache)).get("cache_control") == mark


# -- reasoning goes back to its own wire -----------------------------------------------------

SIGNED = {"type": "reasoning.text", "text": "hm", "signature": "c2ln", "index": 0}
ENCRYPTED = {"type": "reasoning.encrypted", "data": "ZW5j", "index": 1}
THINKING = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
REDACTED = {"type": "redacted_thinking", "data": "ZW5j"}
THOUGHTS = [
    ReasoningPart(text="router", wire="openrouter", raw=SIGNED),
    ReasoningPart(encrypted="ZW5j", wire="openrouter", raw=ENCRYPTED),
    ReasoningPart(text="claude", wire="anthropic", raw=THINKING),
    ReasoningPart(encrypted="ZW5j", wire="anthropic", raw=REDACTED),
    ReasoningPart(text="local", wire="compatible"),
]


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (OPENAI, {}),
        (OPENROUTER, {"reasoning_details": [SIGNED, ENCRYPTED]}),
        (server("groq"), {"reasoning": "local"}),
        (server("vllm"), {"reasoning": "local"}),
        (server("ollama"), {"reasoning": "local"}),
        (server("deepseek"), {"reasoning_content": "local"}),
        (server("llama.cpp"), {"reasoning_content": "local"}),
        (server("mistral"), {"prefix": True}),  # a reasoning field in a message is a 422
        (server("moonshot"), {"reasoning_content": "local", "partial": True}),
        (server("zai"), {"reasoning_content": "local"}),
        (server("mimo"), {"reasoning_content": "local"}),
        (server("minimax"), {"reasoning_content": "local"}),
        (server("fireworks"), {"reasoning_content": "local"}),
        (server("together"), {}),
        (server("sglang"), {"reasoning_content": "local"}),
        (server("openrouter"), {"reasoning_details": [SIGNED, ENCRYPTED]}),
        (server("cerebras"), {}),  # as at Groq, reasoning_content is a 400
        (server("gemini"), {}),
        (server("xai"), {}),
        (server("generic"), {}),
        (server("azure"), {}),
    ],
    ids=lambda x: getattr(getattr(x, "provider", None), "server", None),
)
async def test_reasoning_goes_back_to_its_own_wire(
    model: llm.Model, fields: dict[str, Any]
) -> None:
    (sent,) = await said(model, llm.assistant(THOUGHTS, "a"))
    assert sent == {"role": "assistant", "content": "a", **fields}


@pytest.mark.parametrize("name", ["groq", "llama.cpp", "openrouter"])
async def test_without_reasoning_of_its_own_nothing_goes_back(name: str) -> None:
    model = OPENROUTER if name == "openrouter" else server(name)
    foreign = ReasoningPart(text="claude", wire="anthropic", raw=THINKING)
    (sent,) = await said(model, llm.assistant(foreign, "a"))
    assert sent == {"role": "assistant", "content": "a"}


async def test_openrouter_gets_plain_reasoning_where_there_are_no_blocks() -> None:
    (sent,) = await said(
        OPENROUTER,
        llm.assistant(ReasoningPart(text="h", wire="openrouter"), "a"),
    )
    assert sent == {"role": "assistant", "content": "a", "reasoning": "h"}


@pytest.mark.parametrize("name", ["deepseek", "moonshot", "mimo"])
async def test_reasoning_is_demanded_beside_calls_though_there_is_none(name: str) -> None:
    """Else: 400 ``The reasoning_content in the thinking mode must be passed back``; DeepSeek's newer
    models refuse an empty one, and want it in every turn."""
    foreign = ReasoningPart(text="claude", wire="anthropic", raw=THINKING)
    sent, _, plain, _ = await said(
        server(name),
        llm.assistant(foreign, CALL),
        llm.tool_result(CALL, "x"),
        llm.assistant("a"),
        llm.user("b"),
    )
    assert sent["reasoning_content"] == " "
    assert plain.get("reasoning_content") == (" " if name == "deepseek" else None)


async def test_anthropic_gets_its_blocks_unchanged_and_in_order() -> None:
    search = {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": []}
    (sent,) = await said(
        ANTHROPIC,
        llm.assistant(
            THOUGHTS,
            llm.OpaquePart(wire="anthropic", raw=search),
            llm.OpaquePart(wire="anthropic", raw=found),
            llm.OpaquePart(wire="other", raw={"type": "x"}),
            ReasoningPart(text="own", signature="sig", wire="anthropic"),
            ReasoningPart(encrypted="ZW5j", wire="anthropic"),
            "a",
        ),
    )
    assert sent["content"] == [
        THINKING,
        REDACTED,
        search,
        found,
        {"type": "thinking", "thinking": "own", "signature": "sig"},
        {"type": "redacted_thinking", "data": "ZW5j"},
        {"type": "text", "text": "a"},
    ]


def opaque(kind: str, **fields: Any) -> llm.OpaquePart:
    return llm.OpaquePart(wire="anthropic", raw={"type": kind, **fields})


async def test_calls_stand_behind_the_texts_of_their_turn_at_anthropic() -> None:
    """It refuses a text after a call: "`tool_use` ids were found without `tool_result` blocks"."""

    async def kinds(model: llm.Model, *parts: Any) -> list[str]:
        sent = await said(model, llm.assistant(*parts), llm.tool_result(CALL, "x"))
        return [block["type"] for block in sent[-2]["content"]]

    assert await kinds(ANTHROPIC, "a", CALL, "b") == ["text", "text", "tool_use"]
    assert await kinds(ANTHROPIC, CALL, THOUGHTS, "b") == [
        *("tool_use", "thinking", "redacted_thinking", "text")  # thinking stays in its place
    ]
    elsewhere = llm.anthropic("m", base_url="http://h.invalid", api_key="k")
    assert (await kinds(elsewhere, "a", CALL, "b"))[-2:] == ["tool_use", "text"]


@pytest.mark.parametrize("kind", ["server_tool_use", "mcp_tool_use"])
async def test_a_call_of_a_servers_tool_without_a_result_goes_back_only_if_the_turn_goes_on(
    kind: str,
) -> None:
    pending = opaque(kind, id="srv_1", name="web_search", input={})
    found = opaque("web_search_tool_result", tool_use_id="srv_1", content=[])
    paused = llm.assistant("a", pending)
    (sent,) = await said(ANTHROPIC, paused)
    assert sent["content"][1]["type"] == kind
    sent, _ = await said(ANTHROPIC, llm.assistant(pending, CALL), llm.tool_result(CALL, "x"))
    assert sent["content"][0]["type"] == kind
    sent, _ = await said(ANTHROPIC, paused, llm.user("b"))
    assert sent["content"] == "a"
    sent, _ = await said(ANTHROPIC, paused, llm.assistant(found, "c"), llm.user("b"))
    assert [block["type"] for block in sent["content"]][1:3] == [kind, "web_search_tool_result"]


async def test_what_a_model_thought_before_it_declined_does_not_go_back() -> None:
    mark = opaque("fallback", **{"from": {"model": "a"}, "to": {"model": "b"}})
    pending = opaque("server_tool_use", id="srv_1", name="web_search", input={})
    own = ReasoningPart(text="own", signature="sig", wire="anthropic")
    (sent,) = await said(ANTHROPIC, llm.assistant(THOUGHTS, "a", pending, mark, own, "b"))
    assert [block["type"] for block in sent["content"]] == ["text", "fallback", "thinking", "text"]


@pytest.mark.parametrize(
    ("model", "kept"),
    [
        (OPENAI, set()),  # an unknown field is a 400
        (llm.openai("gemini", base_url="https://h.invalid/v1beta/openai"), {"extra_content"}),
        (server("gemini"), {"extra_content"}),
        (server("generic"), {"extra_content"}),
        (server("groq"), set()),
        (ANTHROPIC, {"caller", "toolset_name"}),
    ],
    ids=["openai", "openai elsewhere", "gemini", "generic", "groq", "anthropic"],
)
async def test_what_stands_beside_a_call_goes_back_to_its_own_wire(
    model: llm.Model, kept: set[str]
) -> None:
    extra = {
        "extra_content": {"google": {"thought_signature": "c2ln"}},
        "caller": {"type": "direct"},
        "toolset_name": "t",
    }
    (sent,) = await said(model, llm.assistant(ToolCall(id="c", name="f", extra=extra)))
    call = sent["tool_calls"][0] if "tool_calls" in sent else sent["content"][0]
    assert {k: call[k] for k in extra if k in call} == {k: extra[k] for k in kept}


# -- messages: Anthropic's wire --------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (
            llm.ImagePart(file_id="file_1"),
            {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
        ),
        (
            llm.document("https://h/a.pdf"),
            {"type": "document", "source": {"type": "url", "url": "https://h/a.pdf"}},
        ),
        (
            llm.document("grüß".encode(), media_type="text/markdown"),
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "grüß"},
            },
        ),
        (
            llm.document(PDF, title="T", context="C", citations=True),
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": PDF64},
                "title": "T",
                "context": "C",
                "citations": {"enabled": True},
            },
        ),
    ],
)
async def test_what_a_user_says_to_anthropic(part: Any, block: dict[str, Any]) -> None:
    assert await said(ANTHROPIC, llm.user(part)) == [{"role": "user", "content": [block]}]


@pytest.mark.parametrize(
    ("result", "fields"),
    [
        (llm.tool_result("c", "x"), {"content": "x"}),
        (llm.tool_result("c"), {}),
        (llm.tool_result("c", ""), {}),  # an empty text block is refused
        (llm.tool_result("c", "x", is_error=True), {"content": "x", "is_error": True}),
        *(  # "content cannot be empty if is_error is true"
            (llm.tool_result("c", *texts, is_error=True), {"content": FAILED, "is_error": True})
            for texts in ([], [""], [" \n"])
        ),
        (
            llm.tool_result("c", "x", "y"),
            {"content": "x\n\ny"},
        ),
        (
            llm.tool_result("c", "x", llm.text("y", cache=True)),
            {
                "content": [
                    {"type": "text", "text": "x"},
                    {"type": "text", "text": "y", **EPHEMERAL},
                ]
            },
        ),
        (
            llm.tool_result("c", llm.image("https://h/a")),
            {"content": [{"type": "image", "source": {"type": "url", "url": "https://h/a"}}]},
        ),
    ],
)
async def test_what_a_tool_answers_to_anthropic(result: Any, fields: dict[str, Any]) -> None:
    call = ToolCall(id="c", name="f")
    assert (await said(ANTHROPIC, llm.assistant(call), result))[1:] == [
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", **fields}]}
    ]


async def test_empty_text_is_left_out_and_turns_alternate() -> None:
    assert await said(
        ANTHROPIC,
        llm.user("a"),
        llm.assistant("", " ", RefusalPart(""), ReasoningPart(text="foreign", wire="openai")),
        llm.user("b", "\n"),
        llm.system("late"),
        llm.user("c"),
    ) == [
        {"role": "user", "content": "a\n\nb\n\nc"},
    ]


THINKS = ReasoningPart(text="hm", wire="anthropic", signature="c2ln")


@pytest.mark.parametrize(
    ("first", "second", "thinks"),
    [
        ([], [], False),  # another model's
        ([THINKS], [], True),  # it need not think again between two calls
        ([THINKS], [THINKS], True),
        ([], [THINKS], True),
        ([ReasoningPart(text="hm", wire="compatible")], [], False),
    ],
)
async def test_a_turn_without_thinking_so_far_goes_on_without_it(
    first: list[Any], second: list[Any], thinks: bool
) -> None:
    loop = [
        llm.user("a"),
        llm.assistant(*first, ToolCall(id="c1", name="f", arguments="{}")),
        llm.tool_result("c1", "x"),
        llm.assistant(*second, ToolCall(id="c2", name="f", arguments="{}")),
        llm.tool_result("c2", "y"),
    ]
    wanted = llm.Reasoning(budget=2048)
    assert ("thinking" in await body(ANTHROPIC, loop, reasoning=wanted)) == thinks
    over = [*loop, llm.assistant("done"), llm.user("b")]
    assert "thinking" in await body(ANTHROPIC, over, reasoning=wanted)
    assert "thinking" in await body(ANTHROPIC, loop, reasoning=llm.Reasoning(effort="low"))


async def test_several_texts_are_one_string_where_nothing_else_is_said() -> None:
    assert await said(
        ANTHROPIC,
        llm.user("a", "b"),
        llm.user("c"),
        llm.assistant("d", "e"),
        llm.user("f", llm.image("https://h/a")),
    ) == [
        {"role": "user", "content": "a\n\nb\n\nc"},
        {"role": "assistant", "content": "de"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "f"},
                {"type": "image", "source": {"type": "url", "url": "https://h/a"}},
            ],
        },
    ]


async def test_citations_go_back_with_their_text() -> None:
    cited = {"type": "char_location", "cited_text": "x", "document_index": 0}
    (sent,) = await said(ANTHROPIC, llm.assistant(TextPart("a", citations=(cited,))))
    assert sent["content"] == [{"type": "text", "text": "a", "citations": [cited]}]


def test_what_cant_be_said_to_anthropic() -> None:
    with pytest.raises(ValueError, match="no AudioPart"):
        build(ANTHROPIC, llm.user(llm.audio(WAV)))


@pytest.mark.parametrize("text", ["[1]", '{"a', '"{}"', '{"a": 1e999}', "a=1", '{"a": 1}{"a": 1}'])
async def test_arguments_that_are_no_object_are_sent_as_one(text: str) -> None:
    """Servers parse those of earlier turns, and refuse the conversation for ever if they can't."""
    history = [llm.assistant(ToolCall(id="c9", name="f", arguments=text)), llm.user("go on")]
    made = {"arguments": text}
    for model in (OPENAI, OPENROUTER, server("vllm"), server("minimax")):
        (call,) = (await said(model, *history))[0]["tool_calls"]
        assert json.loads(call["function"]["arguments"]) == made
    block = (await said(ANTHROPIC, *history))[0]["content"][0]
    assert (block["type"], block["input"]) == ("tool_use", made)


@pytest.mark.parametrize("text", ['{"a":  1}', ' {"a": {"b": [null]}} '])
async def test_arguments_that_are_an_object_stay_as_they_came(text: str) -> None:
    sent = await said(OPENAI, llm.assistant(ToolCall(id="c9", name="f", arguments=text)))
    assert sent[0]["tool_calls"][0]["function"]["arguments"] == text


@pytest.mark.parametrize("parallel", [True, False])
async def test_parallel_calls_are_not_asked_for_without_tools(parallel: bool) -> None:
    """OpenAI: "only allowed when 'tools' are specified"; a loop's last request has none."""
    for given in ({}, {"tools": None}, {"tools": []}):
        sent = await body(OPENAI, parallel_tool_calls=parallel, **given)
        assert "parallel_tool_calls" not in sent


# -- tools -----------------------------------------------------------------------------------

SKY = llm.Tool(
    name="sky",
    description="Its colour.",
    parameters={"type": "object", "properties": {"city": {"type": "string", "default": "x"}}},
)
SKY_STRICT = msgspec.structs.replace(SKY, name="closed", strict=True, cache=True)
CLOSED = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "default: x"}},
    "required": ["city"],
    "additionalProperties": False,
}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}


@pytest.mark.parametrize("model", [OPENAI, ANTHROPIC, OPENROUTER], ids=lambda m: m.provider.name)
@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, NOTHING),
        ({"type": "object"}, NOTHING),
        ({"properties": {"a": {}}}, {"type": "object", "properties": {"a": {}}}),
        (SKY.parameters, SKY.parameters),
        (
            {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "properties": {"a": {}}}}},
            {
                "type": "object",
                "properties": {"a": {}},
                "$defs": {"A": {"type": "object", "properties": {"a": {}}}},
            },
        ),
    ],
)
async def test_the_root_of_a_tools_parameters_has_its_type_and_properties(
    model: llm.Model, given: dict[str, Any], sent: dict[str, Any]
) -> None:
    (found,) = (await body(model, tools=[llm.Tool(name="t", parameters=given)]))["tools"]
    assert found.get("input_schema", found.get("function", {}).get("parameters")) == sent


@pytest.mark.parametrize("model", [OPENAI, ANTHROPIC], ids=lambda m: m.provider.name)
@pytest.mark.parametrize("word", ["anyOf", "oneOf"])
def test_a_strict_tool_has_no_choice_of_parameters(model: llm.Model, word: str) -> None:
    one = {"type": "object", "properties": {"a": {"type": "string"}}}
    tool = llm.Tool(name="t", parameters={"type": "object", word: [one, one]}, strict=True)
    with pytest.raises(ValueError, match="the root has several schemas to choose from"):
        build(model, llm.user("x"), tools=[tool])


async def test_tools_for_openai() -> None:
    own = {"type": "custom", "custom": {"name": "sql"}}
    sent = await body(OPENAI, tools=[SKY, SKY_STRICT, llm.Tool(name="now", strict=False), own])
    assert sent["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "sky",
                "description": "Its colour.",
                "parameters": SKY.parameters,
            },
        },
        {
            "type": "function",
            "function": {
                "name": "closed",
                "description": "Its colour.",
                "parameters": CLOSED,
                "strict": True,
            },
        },
        {
            "type": "function",
            "function": {"name": "now", "parameters": NOTHING, "strict": False},
        },
        own,
    ]


async def test_tools_for_openrouter_carry_the_breakpoint() -> None:
    (sent,) = (await body(OPENROUTER, tools=[SKY_STRICT]))["tools"]
    assert sent["cache_control"] == {"type": "ephemeral"}


async def test_tools_for_anthropic() -> None:
    sent = await body(ANTHROPIC, tools=[SKY, SKY_STRICT, llm.Tool(name="now"), SEARCH])
    assert sent["tools"] == [
        {"name": "sky", "description": "Its colour.", "input_schema": SKY.parameters},
        {
            "name": "closed",
            "description": "Its colour.",
            "input_schema": CLOSED,
            "strict": True,
            "cache_control": {"type": "ephemeral"},
        },
        {"name": "now", "input_schema": NOTHING},
        SEARCH,
    ]


@pytest.mark.parametrize("model", [OPENAI, OPENROUTER, ANTHROPIC, server("mistral")])
async def test_no_tools_are_not_an_empty_list(model: llm.Model) -> None:
    assert "tools" not in await body(model, tools=[])


NAMED = {"type": "function", "function": {"name": "sky"}}
ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}}


@pytest.mark.parametrize(
    ("choice", "openai", "anthropic"),
    [
        ("auto", "auto", {"type": "auto"}),
        ("none", "none", {"type": "none"}),
        ("required", "required", {"type": "any"}),
        ("sky", NAMED, {"type": "tool", "name": "sky"}),
        (SKY, NAMED, {"type": "tool", "name": "sky"}),
        (ALLOWED, ALLOWED, ALLOWED),
        (None, None, None),
    ],
)
async def test_tool_choice(choice: Any, openai: Any, anthropic: Any) -> None:
    for model, wanted in ((OPENAI, openai), (ANTHROPIC, anthropic)):
        sent = await body(model, tools=[SKY], tool_choice=choice)
        assert sent.get("tool_choice") == wanted


@pytest.mark.parametrize("model", [OPENAI, ANTHROPIC], ids=lambda m: m.provider.name)
def test_a_tool_of_another_name_can_not_be_chosen(model: llm.Model) -> None:
    with pytest.raises(ValueError, match="tool_choice must be one of tools, or its name"):
        build(model, llm.user("x"), tools=[SKY], tool_choice="skies")


def test_a_tool_of_a_server_may_be_chosen() -> None:
    given = {"tools": [SKY], "mcp_servers": [{"name": "n"}], "tool_choice": "theirs"}
    found = build(ANTHROPIC, llm.user("x"), **given)["tool_choice"]
    assert found == {"type": "tool", "name": "theirs"}


@pytest.mark.parametrize(
    ("choice", "parallel", "anthropic"),
    [
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (None, True, {"type": "auto", "disable_parallel_tool_use": False}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ("sky", False, {"type": "tool", "name": "sky", "disable_parallel_tool_use": True}),
        ("none", False, {"type": "none"}),  # has no such flag
    ],
)
async def test_parallel_calls(choice: Any, parallel: bool, anthropic: dict[str, Any]) -> None:
    given = {"tools": [SKY], "tool_choice": choice, "parallel_tool_calls": parallel}
    assert (await body(ANTHROPIC, **given))["tool_choice"] == anthropic
    assert (await body(OPENAI, **given))["parallel_tool_calls"] is parallel


# -- formats ---------------------------------------------------------------------------------


class Answer(msgspec.Struct):
    colour: str
    sure: bool = True


ANSWER_OPEN = {
    "title": "Answer",
    "type": "object",
    "properties": {"colour": {"type": "string"}, "sure": {"type": "boolean", "default": True}},
    "required": ["colour"],
}
ANSWER_CLOSED = {
    "title": "Answer",
    "type": "object",
    "properties": {
        "colour": {"type": "string"},
        "sure": {"type": "boolean", "description": "default: true"},
    },
    "required": ["colour", "sure"],
    "additionalProperties": False,
}
GRAMMAR = {"type": "grammar", "grammar": "root ::= x"}


@pytest.mark.parametrize(
    ("given", "wire"),
    [
        ("text", {"type": "text"}),
        ("json", {"type": "json_object"}),
        (GRAMMAR, GRAMMAR),
        (
            Answer,
            {
                "type": "json_schema",
                "json_schema": {"name": "Answer", "strict": True, "schema": ANSWER_CLOSED},
            },
        ),
        (
            llm.JSONSchema(schema=ANSWER_OPEN, name="a", description="d", strict=False),
            {
                "type": "json_schema",
                "json_schema": {"name": "a", "description": "d", "schema": ANSWER_OPEN},
            },
        ),
    ],
)
async def test_formats_for_openai(given: Any, wire: dict[str, Any]) -> None:
    assert (await body(OPENAI, response_format=given))["response_format"] == wire


async def test_formats_for_anthropic_have_no_name() -> None:
    sent = await body(ANTHROPIC, response_format=Answer, reasoning="low")
    assert sent["output_config"] == {
        "effort": "low",
        "format": {"type": "json_schema", "schema": ANSWER_CLOSED},
    }
    assert "output_config" not in await body(ANTHROPIC, response_format="text")
    own = await body(ANTHROPIC, response_format={"type": "json_schema", "schema": {}})
    assert own["output_config"] == {"format": {"type": "json_schema", "schema": {}}}
    with pytest.raises(ValueError, match="no free JSON mode"):
        build(ANTHROPIC, llm.user("hi"), response_format="json")


# -- reasoning -------------------------------------------------------------------------------

R = llm.Reasoning


@pytest.mark.parametrize(
    ("given", "openai"),
    [
        ("low", {"reasoning_effort": "low"}),
        (False, {"reasoning_effort": "none"}),
        (True, {}),
    ],
)
async def test_reasoning_at_openai_is_an_effort(given: Any, openai: dict[str, Any]) -> None:
    sent = await body(OPENAI, reasoning=given)
    assert {k: v for k, v in sent.items() if "reasoning" in k} == openai


@pytest.mark.parametrize("given", [2000, R(summary="auto"), R(exclude=True)])
@pytest.mark.parametrize("model", [OPENAI, server("groq"), server("deepseek")])
def test_what_cant_be_said_of_reasoning(model: llm.Model, given: Any) -> None:
    with pytest.raises(ValueError, match="no budget, summary"):
        build(model, llm.user("hi"), reasoning=given)


@pytest.mark.parametrize(
    ("name", "given", "wire"),
    [
        ("deepseek", R(enabled=True, effort="high"),
         {"thinking": {"type": "enabled"}, "reasoning_effort": "high"}),
        ("moonshot", R(enabled=True, effort="high"), {"reasoning_effort": "high"}),
        ("moonshot", False, {"thinking": {"type": "disabled"}}),
        ("dashscope", True, {"enable_thinking": True}),
        ("dashscope", False, {"enable_thinking": False}),
        ("dashscope", 2000, {"enable_thinking": True, "thinking_budget": 2000}),
        ("dashscope", R(exclude=False), {}),
    ],
)  # fmt: skip
async def test_reasoning_as_servers_of_their_own_call_it(
    name: str, given: Any, wire: dict[str, Any]
) -> None:
    assert rest(await body(server(name), reasoning=given)) == wire


@pytest.mark.parametrize("given", ["low", R(summary="auto"), R(exclude=True)])
def test_a_server_with_a_budget_has_no_effort(given: Any) -> None:
    with pytest.raises(ValueError, match="no effort or summary"):
        build(server("dashscope"), llm.user("hi"), reasoning=given)


@pytest.mark.parametrize("name", ["deepseek", "mimo", "moonshot", "zai", "dashscope"])
@pytest.mark.parametrize("off", [False, "none", R(effort="none"), R(enabled=False)])
async def test_reasoning_is_off_by_any_of_its_words(name: str, off: Any) -> None:
    wire = {"enable_thinking": False} if name == "dashscope" else {"thinking": {"type": "disabled"}}
    assert rest(await body(server(name), reasoning=off)) == wire


@pytest.mark.parametrize("name", ["groq", "minimax"])
def test_a_server_of_one_choice_is_not_asked_for_more(name: str) -> None:
    assert "messages" in build(server(name), llm.user("hi"), n=1)
    with pytest.raises(ValueError, match="this server returns one choice"):
        build(server(name), llm.user("hi"), n=2)


@pytest.mark.parametrize(
    ("given", "wire"),
    [
        ("low", {"effort": "low"}),
        (2000, {"max_tokens": 2000}),
        (True, {"enabled": True}),
        (False, {"enabled": False}),
        (
            R(effort="high", exclude=False, summary="auto"),
            {"effort": "high", "exclude": False, "summary": "auto"},
        ),
    ],
)
async def test_reasoning_at_openrouter(given: Any, wire: dict[str, Any]) -> None:
    assert (await body(OPENROUTER, reasoning=given))["reasoning"] == wire


@pytest.mark.parametrize(
    ("given", "wire"),
    [
        (True, {"thinking": {"type": "enabled"}}),
        (False, {"thinking": {"type": "disabled"}}),
        ("high", {"reasoning_effort": "high"}),
        (
            R(enabled=True, effort="max"),
            {"thinking": {"type": "enabled"}, "reasoning_effort": "max"},
        ),
    ],
)
async def test_reasoning_at_deepseek_is_a_switch_and_an_effort(
    given: Any, wire: dict[str, Any]
) -> None:
    sent = await body(server("deepseek"), reasoning=given)
    assert {k: v for k, v in sent.items() if k in ("thinking", "reasoning_effort")} == wire


@pytest.mark.parametrize(
    ("given", "wire"),
    [
        (False, {"thinking": {"type": "disabled"}}),
        ("none", {"thinking": {"type": "disabled"}}),
        (True, {"thinking": {"type": "adaptive"}}),
        ("low", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}),
        (2000, {"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 10192}),
        (
            R(budget=2000, summary="auto"),
            {
                "thinking": {"type": "enabled", "budget_tokens": 2000, "display": "summarized"},
                "max_tokens": 10192,
            },
        ),
        (R(exclude=True), {"thinking": {"type": "adaptive", "display": "omitted"}}),
        (R(exclude=False), {"thinking": {"type": "adaptive", "display": "summarized"}}),
    ],
)
async def test_thinking_at_anthropic(given: Any, wire: dict[str, Any]) -> None:
    sent = await body(ANTHROPIC, reasoning=given)
    wanted = {"max_tokens": 8192, **wire}
    names = ("thinking", "output_config", "max_tokens")
    assert {k: v for k, v in sent.items() if k in names} == wanted


async def test_a_budget_leaves_max_tokens_alone_where_it_was_given() -> None:
    assert (await body(ANTHROPIC, reasoning=2000, max_tokens=3000))["max_tokens"] == 3000
    assert (await body(ANTHROPIC, max_tokens=0))["max_tokens"] == 0  # only writes the cache


# -- the other parameters --------------------------------------------------------------------

PLAIN = ("model", "messages", "stream", "stream_options")


def rest(sent: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in sent.items() if k not in PLAIN}


@pytest.mark.parametrize(
    ("given", "wire"),
    [
        ({"stop": "x"}, {"stop": ["x"]}),
        ({"stop": ("x", "y")}, {"stop": ["x", "y"]}),
        ({"stop": []}, {}),  # "[] is too short - 'stop'"
        ({"max_tokens": 5}, {"max_completion_tokens": 5}),
        ({"n": 2}, {"n": 2}),
        ({"temperature": 0}, {"temperature": 0}),
        ({"temperature": None}, {}),
        ({"prediction": "x"}, {"prediction": {"type": "content", "content": "x"}}),
        ({"prediction": {"type": "content", "content": []}},) * 2,
        ({"logprobs": True, "top_logprobs": 3},) * 2,
        ({"logit_bias": {"50256": -100}},) * 2,
        ({"modalities": ["text", "audio"], "audio": {"format": "pcm16", "voice": "alloy"}},) * 2,
        ({"metadata": {"a": "b"}, "store": True},) * 2,
        ({"prompt_cache_retention": "in_memory", "prompt_cache_key": "k"},) * 2,
        ({"moderation": {"model": "m"}, "safety_identifier": "s"},) * 2,
        ({"verbosity": "low", "service_tier": "flex", "user": "u", "seed": 1},) * 2,
        ({"top_p": 0.5, "frequency_penalty": -1.5, "presence_penalty": 1},) * 2,
        ({"web_search_options": {"search_context_size": "low"}},) * 2,
    ],
)
async def test_parameters_at_openai(given: dict[str, Any], wire: dict[str, Any]) -> None:
    assert rest(await body(OPENAI, **given)) == wire


@pytest.mark.parametrize(
    ("given", "wire"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"top_k": 1, "min_p": 0.1, "top_a": 0.2, "repetition_penalty": 1.1},) * 2,
        ({"models": ["a/b"], "provider": {"sort": "price"}},) * 2,
        ({"plugins": [{"id": "web"}], "session_id": "s", "trace": {"trace_id": "t"}},) * 2,
        ({"image_config": {"aspect_ratio": "1:1"}},) * 2,
    ],
)
async def test_parameters_at_openrouter(given: dict[str, Any], wire: dict[str, Any]) -> None:
    assert rest(await body(OPENROUTER, **given)) == wire


@pytest.mark.parametrize(
    ("given", "wire"),
    [
        ({"stop": "x"}, {"stop_sequences": ["x"]}),
        ({"stop": ["x", "y"]}, {"stop_sequences": ["x", "y"]}),
        ({"temperature": 0.5, "top_p": 0.9, "top_k": 5},) * 2,
        ({"user": "u"}, {"metadata": {"user_id": "u"}}),
        ({"metadata": {"user_id": "u"}}, {"metadata": {"user_id": "u"}}),
        ({"service_tier": "standard_only", "speed": "fast", "inference_geo": "us"},) * 2,
        ({"container": "c", "context_management": {"edits": []}},) * 2,
        ({"mcp_servers": [{"type": "url", "name": "n", "url": "https://h"}]},) * 2,
    ],
)
async def test_parameters_at_anthropic(given: dict[str, Any], wire: dict[str, Any]) -> None:
    assert rest(await body(ANTHROPIC, **given)) == {"max_tokens": 8192, **wire}


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({}, {"include_usage": True}),
        ({"expect_usage": False}, None),
        (
            {"include_obfuscation": False},
            {"include_usage": True, "include_obfuscation": False},
        ),
        ({"expect_usage": False, "include_obfuscation": False}, {"include_obfuscation": False}),
        (
            {"stream_options": {"continuous_usage_stats": True}},
            {"include_usage": True, "continuous_usage_stats": True},
        ),
    ],
)
async def test_stream_options(given: dict[str, Any], options: dict[str, Any] | None) -> None:
    assert (await body(OPENAI, **given)).get("stream_options") == options


@pytest.mark.parametrize("n", [0, -1])
async def test_n_is_a_whole_number(n: Any) -> None:
    with pytest.raises(ValueError, match="n must be a whole number"):
        await body(OPENAI, n=n)


# -- extra -----------------------------------------------------------------------------------


async def test_extra_goes_into_the_body_and_the_calls_beats_the_models() -> None:
    model = llm.openai("m", api_key="k", extra={"a": 1, "b": 2})
    assert rest(await body(model, extra={"b": 3, "c": None})) == {"a": 1, "b": 3, "c": None}


@pytest.mark.parametrize(
    ("model", "extra", "params"),
    [
        (OPENAI, {"temperature": 1}, {}),
        (OPENAI, {"temperature": 1}, {"temperature": 1}),
        (OPENAI, {"model": "other"}, {}),
        (OPENAI, {"messages": []}, {}),
        (OPENAI, {"stream": False}, {}),
        (OPENAI, {"max_completion_tokens": 5}, {"max_tokens": 5}),
        (OPENAI, {"max_tokens": 5}, {"max_tokens": 5}),
        (OPENAI, {"stream_options": {}}, {}),
        (OPENAI, {"reasoning_effort": "low"}, {"reasoning": "low"}),
        (OPENROUTER, {"provider": {}}, {}),
        (OPENROUTER, {"reasoning": {}}, {"reasoning": "low"}),
        (ANTHROPIC, {"stop_sequences": ["x"]}, {"stop": "x"}),
        (ANTHROPIC, {"thinking": {}}, {"reasoning": "low"}),
        (ANTHROPIC, {"system": "x"}, {}),
        (server("mistral"), {"random_seed": 1}, {"seed": 1}),
    ],
    ids=str,
)
async def test_an_extra_that_a_parameter_decides_is_an_error(
    model: llm.Model, extra: dict[str, Any], params: dict[str, Any]
) -> None:
    (name,) = extra
    with pytest.raises(ValueError, match=f"extra must not contain {name}"):
        await body(model, extra=extra, **params)
    with pytest.raises(ValueError, match=f"extra must not contain {name}"):
        await body(msgspec.structs.replace(model, extra=extra), **params)


@pytest.mark.parametrize(
    ("model", "extra"),
    [
        (OPENAI, {"top_k": 5}),
        (OPENAI, {"provider": {"order": ["x"]}}),
        (server("groq"), {"min_p": 0.1}),
        (server("vllm"), {"session_id": "s", "guided_json": {}}),
        (server("mistral"), {"safe_prompt": True}),
        (ANTHROPIC, {"seed": 1}),
        (ANTHROPIC, {"thinking": {"type": "between_tools"}}),  # no typed parameter says these
        (ANTHROPIC, {"output_config": {"task_budget": {"type": "tokens", "total": 20000}}}),
    ],
    ids=str,
)
async def test_extra_sends_what_the_wire_has_no_parameter_for(
    model: llm.Model, extra: dict[str, Any]
) -> None:
    sent = await body(model, extra=extra)
    assert {k: sent[k] for k in extra} == extra


# -- a provider's bare bones -----------------------------------------------------------------


def test_the_base_of_providers_leaves_the_wire_to_its_subclasses() -> None:
    class Bare(Provider):
        pass

    bare = Bare()
    model = llm.Model(name="m", provider=bare, base_url="http://h.invalid")
    request = Request(model=model, messages=(llm.user("hi"),), params={}, extra={})
    assert bare.request_headers(request) == {}
    assert bare.typed_fields == frozenset()
    assert bare.generation_id({"x-generation-id": "g"}) is None
    assert str(bare.cost_of(llm.Usage(cost=0.5, final=True), None).amount) == "0.5"
    assert bare.cost_of(None, None) == llm.CostInfo()
    for call in (
        lambda: bare.endpoint_url(model),
        lambda: bare.auth_headers(model),
        lambda: bare.build_request(request),
        lambda: bare.parse_chunk(b"{}"),
    ):
        with pytest.raises(NotImplementedError):
            call()
    with pytest.raises(llm.ProtocolError):
        bare.parse_response(b"{}")


def test_a_provider_that_builds_requests_anew_may_refuse_a_text() -> None:
    class Own(OpenAIChat):
        def build_request(self, request: Request) -> dict[str, Any]:
            return super().build_request(request)

    class Renamed(OpenAIChat):
        name = "renamed"

    class Sure(Own):
        any_text = True

        def build_request(self, request: Request) -> dict[str, Any]:
            return super().build_request(request)

    assert (OpenAIChat.any_text, Anthropic.any_text, Renamed.any_text) == (True, True, True)
    assert (Provider.any_text, Own.any_text, Sure.any_text) == (False, False, True)


async def test_pictures_of_a_result_that_is_an_error_follow_all_results() -> None:
    """Anthropic: "all content must be type `text` if `is_error` is true"."""
    calls = [ToolCall(id=i, name="f") for i in "abc"]
    picture, said_so = llm.image("https://h/a"), llm.image("https://h/b")
    results = [
        llm.tool_result("a", picture, is_error=True),
        llm.tool_result("b", "x", said_so, is_error=True),
        llm.tool_result("c", picture),
    ]
    sent = await said(ANTHROPIC, llm.user("q"), llm.assistant(calls), *results, llm.user("and?"))
    blocks = sent[2]["content"]
    assert [b["type"] for b in blocks] == [*["tool_result"] * 3, "image", "image", "text"]
    assert [b["content"] for b in blocks[:2]] == [SEE_BELOW, "x"]
    assert [b["source"]["url"] for b in blocks[3:5]] == ["https://h/a", "https://h/b"]
    assert blocks[2]["content"][0]["type"] == "image"
    assert [b.get("is_error", False) for b in blocks[:3]] == [True, True, False]


@pytest.mark.parametrize("stop", ["\n", ["x", " \n\n"]])
def test_anthropic_takes_no_stop_of_white_space(stop: Any) -> None:
    with pytest.raises(ValueError, match="no sequence of only white space"):
        build(ANTHROPIC, llm.user("x"), stop=stop)
    elsewhere = llm.anthropic("m", base_url="https://h.invalid", api_key="k")
    assert build(elsewhere, llm.user("x"), stop=stop)["stop_sequences"]
    assert "stop_sequences" not in build(ANTHROPIC, llm.user("x"), stop=[])


@pytest.mark.parametrize("stop", ["", ["x", ""]])
async def test_an_empty_stop_is_refused_here(stop: Any) -> None:
    with pytest.raises(ValueError, match="stop must not contain an empty text"):
        await body(OPENAI, stop=stop)


@pytest.mark.parametrize("name", ["gemini", "mistral", "vllm", "generic", "openrouter"])
async def test_an_empty_result_of_a_tool_has_a_text_where_none_is_refused(name: str) -> None:
    model = OPENROUTER if name == "openrouter" else server(name)
    history = [llm.user("q"), llm.assistant(CALL), llm.tool_result(CALL, "")]
    assert (await said(model, *history))[2]["content"] == EMPTY_RESULT
    assert (await said(OPENAI, *history))[2]["content"] == ""


async def test_openrouter_gets_no_empty_turn_of_the_model() -> None:
    thought = llm.assistant(ReasoningPart(text="h", wire="openrouter"))
    sent = await said(OPENROUTER, llm.user("a"), thought, llm.assistant(""), llm.user("b"))
    assert [m["content"] for m in sent] == ["a", "b"]


@pytest.mark.parametrize("name", ["generic", "vllm", "llama.cpp", "lmstudio", "ollama", "sglang"])
async def test_neighbours_of_one_role_are_merged_for_local_templates(name: str) -> None:
    """Those of Gemma's and Mistral's models: "roles must alternate user/assistant/…"."""
    names = [llm.user("c", name="ann"), llm.user("d", name="bob")]
    history = [llm.assistant("z"), llm.user("a"), llm.user("b", llm.image(PNG)), llm.assistant("x")]
    first, second, third, fourth = await said(server(name), *history, *names)
    assert (first, third) == (
        {"role": "assistant", "content": "z"},
        {"role": "assistant", "content": "x"},
    )
    assert [p["type"] for p in second["content"]] == ["text", "text", "image_url"]
    assert fourth == {"role": "user", "content": "c\n\nd"}
    same = [llm.user("c", name="ann"), llm.user("d", name="ann")]
    assert (await said(server(name), *same)) == [
        {"role": "user", "content": "c\n\nd", "name": "ann"}
    ]


@pytest.mark.parametrize(
    ("url", "field"),
    [
        ("https://api.deepseek.com/beta", "prefix"),
        ("https://api.deepseek.com/beta/v1/chat/completions", "prefix"),
        ("https://api.deepseek.com/v1", None),
        ("https://dashscope.aliyuncs.com/compatible-mode/v1", "partial"),
    ],
)
async def test_a_last_message_of_the_model_is_continued_where_it_can_be(
    url: str, field: str | None
) -> None:
    model = llm.compatible("m", base_url=url, api_key="k")
    sent = await said(model, llm.user("a"), llm.assistant("{"))
    marked = {"prefix", "partial"} & sent[-1].keys()
    assert marked == ({field} if field else set())


@pytest.mark.parametrize("name", ["$filter", "filter[name]", "a b", "x" * 65, ""])
def test_a_parameter_whose_name_anthropic_refuses_is_told_here(name: str) -> None:
    tool = llm.Tool(name="t", parameters={"anyOf": [{"properties": {name: {"type": "string"}}}]})
    with pytest.raises(
        ValueError, match=r"tool 't' has the parameter .*: this server accepts names"
    ):
        build(ANTHROPIC, llm.user("x"), tools=[tool])
    sent = build(OPENAI, llm.user("x"), tools=[tool])["tools"]
    assert sent[0]["function"]["parameters"]["properties"].keys() == {name}


def test_names_inside_of_a_parameter_may_be_any() -> None:
    inner = {"type": "object", "properties": {"$filter": {"type": "string"}}}
    tool = llm.Tool(name="t", parameters={"type": "object", "properties": {"a.b-c_d": inner}})
    assert build(ANTHROPIC, llm.user("x"), tools=[tool])["tools"]


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("openai/gpt-oss-120b", True),
        ("qwen/qwen3-32b", True),
        ("moonshotai/kimi-k2-instruct-0905", False),
        ("llama-3.3-70b-versatile", False),
    ],
)
async def test_groqs_models_that_do_not_think_get_no_reasoning(name: str, given: bool) -> None:
    """A conversation moves between them: "reasoning is not supported with this model"."""
    model = llm.compatible(name, base_url="https://api.groq.com/openai/v1", api_key="k")
    _, sent = await said(model, llm.user("q"), llm.assistant(THOUGHTS, "a"))
    assert ("reasoning" in sent) == given
