"""Requests that known servers want otherwise than the reference."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import msgspec
import pytest

import trio_minillm as llm
from trio_minillm import OpaquePart, ReasoningPart, ToolCall
from trio_minillm._protocol.request import body_of, make_request

from ..media import PNG
from ..schema_rules import refusals
from . import Difference

CALL = ToolCall(id="call_" + "a" * 24, name="sky", arguments="{}")
LOOP = [llm.user("Weather?"), llm.assistant(CALL), llm.tool_result(CALL, "21")]
THOUGHT = ReasoningPart(text="hm", wire="compatible")
SYSTEMS = [llm.system("a"), llm.system("b"), llm.user("c"), llm.assistant("d"), llm.system("e")]


def at(url: str, name: str = "m", **options: Any) -> llm.Model:
    """A model at a server that is told from its address."""
    return llm.compatible(name, base_url=url, api_key="k", **options)


def anthropic(url: str | None = None, key: str = "k") -> llm.Model:
    return llm.anthropic("m", base_url=url, api_key=key)


def body(model: llm.Model, messages: list[llm.Message], **params: Any) -> dict[str, Any]:
    request = llm.Request(model=model, messages=tuple(messages), params=params, extra={})
    return model.provider.build_request(request)


def holds(
    model: llm.Model,
    messages: list[llm.Message],
    test: Callable[[Any], Any],
    **params: Any,
) -> Callable[[], None]:
    """Check what stands in the body of a request."""

    def check() -> None:
        sent = body(model, messages, **params)
        assert test(sent), sent

    return check


def refused(model: llm.Model, **params: Any) -> Callable[[], None]:
    """Check that a parameter is an error before anything is sent."""

    def check() -> None:
        try:
            body(model, [llm.user("x")], **params)
        except ValueError:
            return
        raise AssertionError(f"{params} is sent")

    return check


def goes_to(model: llm.Model, url: str) -> Callable[[], None]:
    def check() -> None:
        assert model.provider.endpoint_url(model) == url

    return check


def proves(model: llm.Model, *names: str) -> Callable[[], None]:
    """Check the headers that carry the key."""

    def check() -> None:
        headers = model.provider.auth_headers(model)
        assert headers.keys() - {"anthropic-version"} == set(names), headers.keys()

    return check


def place(base_url: str, *headers: str, ends: str = "/v1/messages") -> Callable[[], None]:
    """Check an address of Anthropic's format, and the headers that carry the key there."""
    model = anthropic(base_url)

    def check() -> None:
        goes_to(model, base_url + ends)()
        proves(model, *headers)()
        assert body(model, [llm.user("x")])["model"] == "m"

    return check


def _raw_predict() -> None:
    model = llm.anthropic("claude-sonnet-4-5@20250929", base_url=_VERTEX, api_key="ya29.k")
    named = "publishers/anthropic/models/claude-sonnet-4-5@20250929:streamRawPredict"
    goes_to(model, f"{_VERTEX}/{named}")()
    proves(model, "authorization")()
    sent = body(model, [llm.user("x")])
    assert sent["anthropic_version"] == "vertex-2023-10-16"
    assert "model" not in sent
    assert sent["stream"] is True


def _own_thinking_alone(base_url: str) -> None:
    """Thinking goes back to where it came from, signed or not, and another server's does not."""
    model = anthropic(base_url)
    wire = model.provider.wire_at(model)
    for signature in ("s", None):
        block = {"type": "thinking", "thinking": "hm"}
        block |= {"signature": signature} if signature else {}
        own = ReasoningPart(text="hm", signature=signature, raw=block, wire=wire)
        turns = [llm.user("x"), llm.assistant(own, CALL), llm.tool_result(CALL, "21")]
        assert body(model, turns)["messages"][1]["content"][0] == block
        turns[1] = llm.assistant(msgspec.structs.replace(own, wire="anthropic"), CALL)
        assert block not in body(model, turns)["messages"][1]["content"]


def _ended_as_at_anthropic() -> None:
    for base_url in (
        "https://bedrock-runtime.us-west-2.amazonaws.com/anthropic",
        "https://bedrock-mantle.us-east-1.api.aws/anthropic",
        "https://r.services.ai.azure.com/anthropic",
        _VERTEX,
        "https://aiplatform.eu.rep.googleapis.com/v1/projects/p/locations/eu",
    ):
        model = anthropic(base_url)
        wire = model.provider.wire_at(model)
        cut, signed = ReasoningPart(text="a", wire=wire), ReasoningPart(signature="s", wire=wire)
        turn = llm.assistant(cut, signed, "y", signed)
        sent = body(model, [llm.user("x"), turn, llm.user("z")])
        kinds = [block["type"] for block in sent["messages"][1]["content"]]
        assert kinds == ["thinking", "text"], base_url
        refused(model, stop=" ")()


def _whole(sent: Any) -> bool:
    return sent["stream"] is False and "stream_options" not in sent


def roles(sent: Any) -> list[str]:
    return [m["role"] for m in sent["messages"]]


def demanded(sent: Any) -> bool:
    """Return whether the turn with the call has reasoning, though none was given."""
    return bool(sent["messages"][1]["reasoning_content"])


def returned(field: str) -> Callable[[Any], bool]:
    return lambda sent: bool(sent["messages"][1].get(field) == "hm")


def nowhere(sent: Any) -> bool:
    return sent["messages"][1].keys() == {"role", "content"}


TURN = [llm.user("x"), llm.assistant(THOUGHT, "y"), llm.user("z")]
KIMI, ZAI = at("https://api.moonshot.ai/v1"), at("https://api.z.ai/api/paas/v4")
MINIMAX, GROQ = at("https://api.minimax.io/v1"), at("https://api.groq.com/openai/v1")
DEEPSEEK, MIMO = at("https://api.deepseek.com"), at("https://api.xiaomimimo.com/v1")
MISTRAL = at("https://api.mistral.ai/v1")
GEMINI = at("https://generativelanguage.googleapis.com/v1beta/openai", "gemini-3-pro")
PERPLEXITY, CEREBRAS = at("https://api.perplexity.ai"), at("https://api.cerebras.ai/v1")
AZURE = "https://r.openai.azure.com/openai/deployments/d"
OLD = at(f"{AZURE}?api-version=2024-06-01")
DETAIL = {"type": "reasoning.text", "text": "hm", "index": 0}
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "s"}
ABROAD = "https://api.z.ai/api/anthropic"
MOVED = [
    llm.user("x"),
    llm.assistant(
        ReasoningPart(
            text="hm", signature="s", raw=SIGNED, wire="anthropic@api.z.ai/api/anthropic"
        ),
        OpaquePart(raw={"type": "x"}, wire="anthropic@api.z.ai/api/anthropic"),
        "y",
    ),
    llm.user("z"),
]
PICTURE = [*LOOP[:2], llm.tool_result(CALL, "see", llm.image(PNG))]
BACK = "reasoning is sent back in `reasoning_content`"

_BOTH = ("x-api-key", "authorization")
_OWN = llm.gemini("gemini-3-pro", api_key="k")
_CONTINUED = llm.text_completions("m", base_url="http://127.0.0.1:8000/v1")
_VERTEX = "https://us-east5-aiplatform.googleapis.com/v1/projects/p/locations/us-east5"

REQUESTS: list[Difference] = [
    Difference(
        "OpenAI (text completions)",
        "rejects `best_of` in a stream, and `stream_options` without one",
        "the answer is requested unstreamed, without `stream_options`",
        "platform.openai.com/docs/api-reference/completions/create",
        holds(_CONTINUED, [llm.user("x")], _whole, best_of=2),
    ),
    Difference(
        "vLLM (text completions)",
        '"`prompt_logprobs` are not available when `stream=True`"',
        "the answer is requested unstreamed",
        "vllm-project/vllm, `entrypoints/openai/protocol.py`",
        holds(_CONTINUED, [llm.user("x")], _whole, prompt_logprobs=0),
    ),
    Difference(
        "llama-cpp-python (text completions)",
        "omits the echo of a prompt from a stream",
        "an echo with at most one new token is requested unstreamed",
        "abetlen/llama-cpp-python, `llama.py`",
        holds(_CONTINUED, [llm.user("x")], _whole, echo=True, max_tokens=1),
    ),
    Difference(
        "llama.cpp (text completions)",
        "sends no log probabilities for `logprobs: 0`",
        "`logprobs=True` requests one alternative",
        "seen with the embedded model",
        holds(_CONTINUED, [llm.user("x")], lambda s: s["logprobs"] == 1, logprobs=True),
    ),
    Difference(
        "DeepSeek (text completions)",
        "serves them only at `/beta`",
        'use `base_url="https://api.deepseek.com/beta"`',
        "api-docs.deepseek.com/guides/fim_completion",
        goes_to(
            llm.text_completions("m", base_url="https://api.deepseek.com/beta", api_key="k"),
            "https://api.deepseek.com/beta/completions",
        ),
    ),
    Difference(
        "Mistral (text completions)",
        "fills in the middle at `/v1/fim/completions`, with `random_seed` and without `stream_options`",
        'use `base_url="https://api.mistral.ai/v1/fim"`; both fields are sent as it expects',
        "docs.mistral.ai/api, fim",
        holds(
            llm.text_completions("m", base_url="https://api.mistral.ai/v1/fim", api_key="k"),
            [llm.user("x")],
            lambda s: s["random_seed"] == 1 and "stream_options" not in s,
            seed=1,
            suffix="y",
        ),
    ),
    Difference(
        "Gemini",
        "rejects (400) a call without its signature (Gemini 3)",
        "signatures are sent back with their parts, and calls of other models are marked as such",
        "ai.google.dev/gemini-api/docs/thought-signatures",
        holds(_OWN, LOOP, lambda sent: "thoughtSignature" in sent["contents"][1]["parts"][0]),
    ),
    Difference(
        "Gemini",
        "sends calls without ids, and matches results to calls by name",
        "results carry the name of their call, and an id only if the server sent one",
        "ai.google.dev/api/caching, `FunctionResponse`",
        holds(
            _OWN,
            LOOP,
            lambda sent: (
                sent["contents"][2]["parts"]
                == [{"functionResponse": {"name": "sky", "response": {"output": "21"}}}]
            ),
        ),
    ),
    Difference(
        "Vertex AI",
        "expects an access token as a bearer token, and the publisher in the address",
        "the client adds both to an address that ends in `/locations/…`",
        "cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference",
        proves(llm.gemini("m", base_url=_VERTEX, api_key="ya29.k"), "authorization"),
    ),
    Difference(
        "Anthropic",
        "rejects (400) signatures that it did not make",
        "thinking is sent back only to the address that it came from",
        "can1357/oh-my-pi#6379, thedotmack/claude-mem#3198",
        holds(anthropic(), MOVED, lambda sent: sent["messages"][1]["content"] == "y"),
    ),
    Difference(
        "Anthropic",
        "with a thinking budget, rejects (400) a turn without thinking that continues after a tool result",
        "the rest of another model's turn runs without thinking; the next turn thinks again",
        "anomalyco/opencode#3077, Kilo-Org/kilocode#5219",
        holds(
            anthropic(),
            LOOP,
            lambda sent: "thinking" not in sent,
            reasoning=llm.Reasoning(budget=2048),
        ),
    ),
    Difference(
        "OpenAI",
        "rejects (400) a tool whose parameters are an object without `properties`",
        "empty `properties` are added",
        'platform.openai.com/docs/guides/function-calling: "object schema missing properties"',
        holds(
            llm.openai("m", api_key="k"),
            LOOP,
            lambda sent: sent["tools"][0]["function"]["parameters"]["properties"] == {},
            tools=[llm.Tool(name="now")],
        ),
    ),
    Difference(
        "Anthropic",
        "accepts OAuth tokens (`sk-ant-oat…`) only as bearer tokens",
        "sent as a bearer token, with the required beta header",
        "BerriAI/litellm#21039",
        proves(anthropic(key="sk-ant-oat01-x"), "authorization"),
    ),
    Difference(
        "DeepSeek (Anthropic's format)",
        "serves it at `https://api.deepseek.com/anthropic`, with the key in `x-api-key`",
        "use `llm.anthropic(name, base_url=…)`",
        "api-docs.deepseek.com/guides/anthropic_api",
        place("https://api.deepseek.com/anthropic", *_BOTH),
    ),
    Difference(
        "Moonshot (Kimi, Anthropic's format)",
        "serves it at `https://api.moonshot.ai/anthropic` (`.cn` in China), and Kimi Code at `https://api.kimi.com/coding`; expects the key as a bearer token",
        "use `llm.anthropic(name, base_url=…)`",
        "platform.moonshot.ai: Claude Code; NousResearch/hermes-agent PR 49143",
        place("https://api.kimi.com/coding", *_BOTH),
    ),
    Difference(
        "Moonshot (Kimi, Anthropic's format)",
        "accepts `adaptive` thinking with an effort, and its own thinking back, signed or not",
        "sent as to newer Claude models; thinking is sent back unchanged",
        "anomalyco/opencode PR 37696, NousResearch/hermes-agent PR 67606",
        partial(_own_thinking_alone, "https://api.moonshot.ai/anthropic"),
    ),
    Difference(
        "Z.ai (GLM, Anthropic's format)",
        "serves it at `https://api.z.ai/api/anthropic`; expects the key as a bearer token",
        "use `llm.anthropic(name, base_url=…)`",
        "docs.z.ai/scenario-example/develop-tools/claude",
        place(ABROAD, *_BOTH),
    ),
    Difference(
        "MiniMax (Anthropic's format)",
        "serves it at `https://api.minimax.io/anthropic` (`api.minimaxi.com` in China)",
        "use `llm.anthropic(name, base_url=…)`",
        "platform.minimax.io/docs/api-reference/text-anthropic-api",
        place("https://api.minimax.io/anthropic", *_BOTH),
    ),
    Difference(
        "MiniMax (Anthropic's format)",
        "stops thinking after a call whose thinking is missing; rejects (400) thinking signed elsewhere",
        "its own thinking is sent back unchanged, and no other's",
        "NousResearch/hermes-agent#75725, NousResearch/hermes-agent#85251",
        partial(_own_thinking_alone, "https://api.minimax.io/anthropic"),
    ),
    Difference(
        "Bedrock (Anthropic's format)",
        "serves it at `https://bedrock-runtime.REGION.amazonaws.com/anthropic` and `https://bedrock-mantle.REGION.api.aws/anthropic`, with an API key or a signature; `invoke-with-response-stream` is a different format in binary frames",
        "use `llm.anthropic(name, base_url=…)` with `api_key=` or `sign=`",
        "docs.aws.amazon.com/bedrock: Inference using Anthropic Messages API",
        place("https://bedrock-mantle.us-east-1.api.aws/anthropic", *_BOTH),
    ),
    Difference(
        "Vertex AI (Claude)",
        "expects the model's name in the address, `anthropic_version` in the body, and a bearer token",
        "the client sends all three, for a `base_url` that ends in `/locations/…`",
        "platform.claude.com/docs/en/build-with-claude/claude-on-vertex-ai",
        _raw_predict,
    ),
    Difference(
        "Bedrock, Vertex AI, Foundry (Claude)",
        "reject what Anthropic rejects: unsigned thinking, a turn that ends in thinking, a stop sequence of white space",
        "treated like Anthropic",
        "platform.claude.com: the same models",
        _ended_as_at_anthropic,
    ),
    Difference(
        "Anthropic-style relays",
        "expect `x-api-key` or a bearer token",
        "both are sent, except for Anthropic's own keys",
        "docs.z.ai, platform.moonshot.ai, openrouter.ai: `ANTHROPIC_AUTH_TOKEN`",
        proves(anthropic(ABROAD), "x-api-key", "authorization"),
    ),
    Difference(
        "Anthropic-style relays",
        "fail (500), or send nothing, for a list of blocks in place of a string",
        "plain text is sent as a string",
        "reference of Messages: `content` is a string or a list",
        holds(
            anthropic(ABROAD),
            [llm.system("a"), llm.user("b"), llm.user("c")],
            lambda sent: (sent["system"], sent["messages"][0]["content"]) == ("a", "b\n\nc"),
        ),
    ),
    Difference(
        "Azure OpenAI",
        "puts a query in the address, and expects the key in `api-key`",
        "the query is kept after the path",
        "learn.microsoft.com: Azure OpenAI REST reference",
        goes_to(OLD, f"{AZURE}/chat/completions?api-version=2024-06-01"),
    ),
    Difference(
        "Azure OpenAI",
        "shows the address of a resource without a path",
        "`/openai/v1` is added, or, with a dated `api-version`, the deployment named after the model",
        "learn.microsoft.com: Azure OpenAI REST reference",
        goes_to(
            llm.compatible("m", base_url="https://r.openai.azure.com"),
            "https://r.openai.azure.com/openai/v1/chat/completions",
        ),
    ),
    Difference(
        "Azure OpenAI",
        "rejects `stream_options` and `max_completion_tokens` in versions before 2024-09-01",
        "`max_tokens` is sent, and usage is not requested",
        "openai/openai-python#1469, openai/openai-python#1724",
        holds(
            OLD,
            [llm.user("x")],
            lambda sent: sent["max_tokens"] == 5 and "stream_options" not in sent,
            max_tokens=5,
        ),
    ),
    Difference(
        "Cerebras",
        "rejects (400) penalties, `logit_bias`, and `reasoning_content`",
        "a `ValueError` for these parameters; reasoning is not sent back",
        "inference-docs.cerebras.ai/resources/openai, CherryHQ/cherry-studio#16790",
        refused(CEREBRAS, frequency_penalty=1.0),
    ),
    Difference(
        "DashScope (Qwen)",
        "`System message must be at the beginning`",
        "one system message at the start",
        "vllm-project/vllm#41114",
        holds(
            at("https://dashscope-intl.aliyuncs.com/compatible-mode/v1"),
            SYSTEMS,
            lambda sent: roles(sent) == ["system", "user", "assistant"],
        ),
    ),
    Difference(
        "DashScope (Qwen)",
        "controls thinking with `enable_thinking` and `thinking_budget`",
        "`reasoning=` is translated",
        "help.aliyun.com/model-studio",
        holds(
            at("https://dashscope.aliyuncs.com/compatible-mode/v1"),
            [llm.user("x")],
            lambda sent: (sent["enable_thinking"], sent["thinking_budget"]) == (True, 500),
            reasoning=500,
        ),
    ),
    Difference(
        "DeepSeek",
        "in thinking mode, rejects (400) a model's turn with missing or empty `reasoning_content`",
        f"{BACK}, or a blank if there is none",
        "NousResearch/hermes-agent#17341, diegosouzapw/OmniRoute#1682",
        holds(DEEPSEEK, LOOP, demanded),
    ),
    Difference(
        "DeepSeek (Anthropic's format)",
        "in thinking mode, rejects (400) a model's turn without thinking",
        "a blank thinking block is added",
        "decolua/9router#2397",
        holds(
            anthropic("https://api.deepseek.com/anthropic"),
            LOOP,
            lambda sent: sent["messages"][1]["content"][0]["type"] == "thinking",
        ),
    ),
    Difference(
        "Fireworks",
        "accepts reasoning between tool calls",
        BACK,
        "docs.fireworks.ai/guides/reasoning",
        holds(at("https://api.fireworks.ai/inference/v1"), TURN, returned("reasoning_content")),
    ),
    Difference(
        "Gemini (OpenAI's format)",
        "rejects (400) a call without `thought_signature` since Gemini 3",
        "its own signature is sent back; calls of other models get the value that skips the check",
        "ai.google.dev/gemini-api/docs/thought-signatures",
        holds(
            GEMINI,
            LOOP,
            lambda sent: sent["messages"][1]["tool_calls"][0]["extra_content"]["google"],
        ),
    ),
    Difference(
        "Groq",
        "rejects (400) `logprobs`, `logit_bias`, names, and `n` above 1",
        "a `ValueError` for these parameters; names are left out",
        "console.groq.com/docs/openai",
        refused(GROQ, n=2),
    ),
    Difference(
        "Groq",
        "rejects (400) `reasoning_content`; accepts `reasoning`",
        "reasoning is sent back in `reasoning`",
        "janhq/jan#8136",
        holds(GROQ, TURN, returned("reasoning")),
    ),
    Difference(
        "llama-cpp-python",
        "rejects `content: null` next to calls",
        "empty text is sent",
        "abetlen/llama-cpp-python: `llama_types.py`",
        holds(
            at("http://h.invalid/v1", server="llama-cpp-python"),
            LOOP,
            lambda sent: sent["messages"][1]["content"] == "",
        ),
    ),
    Difference(
        "MiniMax",
        "rejects (2013) a second system message",
        "one system message at the start",
        "MiniMax-AI/MiniMax-M2#51",
        holds(MINIMAX, SYSTEMS, lambda sent: roles(sent) == ["system", "user", "assistant"]),
    ),
    Difference(
        "MiniMax",
        "wants its `reasoning_details` back (`reasoning_split`)",
        "sent back unchanged, to MiniMax only",
        "platform.minimax.io: M2 function calling",
        holds(
            MINIMAX,
            [
                llm.user("x"),
                llm.assistant(ReasoningPart(text="hm", wire="minimax", raw=DETAIL), "y"),
                llm.user("z"),
            ],
            lambda sent: sent["messages"][1]["reasoning_details"] == [DETAIL],
        ),
    ),
    Difference(
        "Mistral",
        "rejects (400) call ids that are not nine letters and digits",
        "other ids are replaced, both in the call and in its result",
        "karthink/gptel#1203, anomalyco/opencode#1680",
        holds(
            MISTRAL,
            LOOP,
            lambda sent: (
                re.fullmatch("[A-Za-z0-9]{9}", sent["messages"][2]["tool_call_id"])
                and sent["messages"][1]["tool_calls"][0]["id"]
                == sent["messages"][2]["tool_call_id"]
            ),
        ),
    ),
    Difference(
        "Mistral",
        "`Unexpected role 'user' after role 'tool'`",
        "an assistant turn is added between them: `OK.`",
        "avante-corp/avante.nvim#2562",
        holds(
            MISTRAL, [*LOOP, llm.user("x")], lambda sent: roles(sent)[-2:] == ["assistant", "user"]
        ),
    ),
    Difference(
        "Mistral",
        "rejects (422) `stream_options`, and sends usage without it",
        "not sent",
        "openai/openai-agents-python#442",
        holds(MISTRAL, [llm.user("x")], lambda sent: "stream_options" not in sent),
    ),
    Difference(
        "Moonshot (Kimi)",
        "`reasoning_content is missing in assistant tool call message`",
        f"{BACK}, or a blank for calls without any",
        "continuedev/continue#11600",
        holds(KIMI, LOOP, demanded),
    ),
    Difference(
        "Moonshot (Kimi)",
        "rejects (400) `thinking` with `reasoning_effort`",
        "only the effort is sent",
        "HKUDS/nanobot#3939",
        holds(
            KIMI,
            [llm.user("x")],
            lambda sent: sent["reasoning_effort"] == "low" and "thinking" not in sent,
            reasoning=llm.Reasoning(effort="low", enabled=True),
        ),
    ),
    Difference(
        "NVIDIA NIM",
        "passes requests on to Mistral's models, which have Mistral's limits",
        "recognised by the model's name, on any server",
        "NousResearch/hermes-agent#20154",
        holds(
            at("https://integrate.api.nvidia.com/v1", "mistralai/mistral-small-4"),
            [*LOOP, llm.user("x")],
            lambda sent: roles(sent)[-2:] == ["assistant", "user"],
        ),
    ),
    Difference(
        "OpenAI",
        "rejects (400) a call id of more than 40 characters",
        "replaced by a shorter id",
        "vercel/ai#5171",
        holds(
            llm.openai("gpt", api_key="k"),
            [llm.assistant(ToolCall(id="x" * 64, name="f")), llm.tool_result("x" * 64, "1")],
            lambda sent: len(sent["messages"][1]["tool_call_id"]) <= 40,
        ),
    ),
    Difference(
        "OpenAI",
        "rejects (400) a picture in a tool result",
        "the picture follows in a user message",
        "platform.openai.com/docs/api-reference/chat: tool message",
        holds(llm.openai("gpt", api_key="k"), PICTURE, lambda sent: roles(sent)[-1] == "user"),
    ),
    Difference(
        "OpenRouter",
        "wants its `reasoning_details` back, also through `llm.compatible`",
        "sent back unchanged",
        "openrouter.ai/docs: preserving reasoning blocks",
        holds(
            at("https://openrouter.ai/api/v1"),
            [
                llm.user("x"),
                llm.assistant(ReasoningPart(text="hm", wire="openrouter", raw=DETAIL), "y"),
                llm.user("z"),
            ],
            lambda sent: sent["messages"][1]["reasoning_details"] == [DETAIL],
        ),
    ),
    Difference(
        "Perplexity",
        "`user and assistant roles should be alternating`",
        "adjacent turns with the same role are merged",
        "perplexityai/api-discussion#265",
        holds(
            PERPLEXITY,
            [llm.user("a"), llm.user("b")],
            lambda sent: [m["content"] for m in sent["messages"]] == ["a\n\nb"],
        ),
    ),
    Difference(
        "SGLang",
        "accepts reasoning in `reasoning_content`",
        BACK,
        "sgl-project/sglang: `protocol.py`",
        holds(at("http://h.invalid/v1", server="sglang"), TURN, returned("reasoning_content")),
    ),
    Difference(
        "Snowflake",
        "expects `max_completion_tokens`",
        "sent under that name",
        "langchain-ai/langchain-snowflake#132",
        holds(
            at("https://me.snowflakecomputing.com/api/v2/cortex/v1"),
            [llm.user("x")],
            lambda sent: sent["max_completion_tokens"] == 5,
            max_tokens=5,
        ),
    ),
    Difference(
        "vLLM",
        "has chat templates that reject a second system message (Qwen)",
        "one system message at the start",
        "vllm-project/vllm#41114",
        holds(
            at("http://h.invalid/v1", server="vllm"),
            SYSTEMS,
            lambda sent: roles(sent) == ["system", "user", "assistant"],
        ),
    ),
    Difference(
        "xAI",
        "does not want reasoning back",
        "not sent",
        "docs.x.ai: reasoning",
        holds(at("https://api.x.ai/v1"), TURN, nowhere),
    ),
    Difference(
        "Xiaomi MiMo",
        "rejects (400) calls without `reasoning_content`, and calls without text",
        f"{BACK}, or blanks if there is none",
        "platform.xiaomimimo.com: passing back reasoning_content; XiaomiMiMo/MiMo-V2-Flash#8",
        holds(MIMO, LOOP, lambda sent: demanded(sent) and sent["messages"][1]["content"]),
    ),
    Difference(
        "Xiaomi MiMo",
        "rejects (400) a picture in a tool result",
        "the picture follows in a user message",
        "XiaomiMiMo/MiMo#44",
        holds(MIMO, PICTURE, lambda sent: roles(sent)[-1] == "user"),
    ),
    Difference(
        "Z.ai (GLM)",
        "wants reasoning back between tool calls",
        BACK,
        "docs.z.ai/guides/capabilities/thinking-mode",
        holds(ZAI, TURN, returned("reasoning_content")),
    ),
]


# -- schemas and formats ---------------------------------------------------------------------


class _Source(msgspec.Struct):
    name: str


class _Rated(msgspec.Struct):
    stars: Annotated[int, msgspec.Meta(ge=1, le=10)]
    lines: Annotated[list[str], msgspec.Meta(min_length=2)]
    point: tuple[float, float]
    source: Annotated[_Source, msgspec.Meta(description="where it is from")]


class _Node(msgspec.Struct):
    below: list[_Node]


def _asked(model: llm.Model, format: Any) -> dict[str, Any]:
    body = body_of(make_request(model, (llm.user("hi"),), {"response_format": format}))
    return body.get("response_format") or body["output_config"]["format"]


def _named(server: str) -> llm.Model:
    return llm.compatible("m", base_url="http://host.invalid/v1", server=server)


def _schema_is_taken(model: llm.Model, wire: str) -> Callable[[], None]:
    def check() -> None:
        sent = _asked(model, _Rated)
        schema = sent["schema"] if wire == "anthropic" else sent["json_schema"]["schema"]
        assert refusals(schema, wire) == []
        whole = _asked(model, list[_Rated])
        schema = whole["schema"] if wire == "anthropic" else whole["json_schema"]["schema"]
        assert refusals(schema, wire) == []

    return check


def _comes_as_text(model: llm.Model, *types: Any) -> Callable[[], None]:
    def check() -> None:
        for type in types:
            schema = _asked(model, type)["schema"]
            assert refusals(schema, "anthropic") == []
            assert "json_text" in msgspec.json.encode(schema).decode()
        choice = llm.Choice(content='{"json_text":"{\\"a\\":1}"}')
        assert llm.CompletionResponse(choices=(choice,)).parsed(dict[str, int]) == {"a": 1}

    return check


def _is_refused(model: llm.Model, format: Any, words: str) -> Callable[[], None]:
    def check() -> None:
        with pytest.raises(ValueError, match=words):
            _asked(model, format)

    return check


def _is_not_strict() -> None:
    sent = _asked(llm.openai("gpt", api_key="none"), dict[str, int])["json_schema"]
    assert sent["strict"] is False


def _schema_beside_json() -> None:
    sent = _asked(_named("llama-cpp-python"), _Rated)
    assert sent.keys() == {"type", "schema"}
    assert sent["type"] == "json_object"
    assert refusals(sent["schema"], "azure") == []


REQUESTS += [
    Difference(
        "OpenAI",
        "rejects anything next to a `$ref`, a root that is not an object, and tuples",
        "the definition is inlined; the answer is wrapped in an object; a tuple becomes a list of that length",
        "developers.openai.com: structured outputs; langchain-ai/langchainjs#11381,"
        " Gitlawb/openclaude#1256, openai/openai-agents-python#4752",
        _schema_is_taken(llm.openai("gpt", api_key="none"), "openai"),
    ),
    Difference(
        "OpenAI",
        "rejects maps in a strict schema",
        "the schema is sent without `strict`; a strict tool raises `ValueError` before anything is sent",
        "pydantic/pydantic-ai#4117, openai/openai-agents-python PR 3927",
        _is_not_strict,
    ),
    Difference(
        "Azure",
        "rejects bounds and formats in a strict schema",
        "moved into the description",
        "learn.microsoft.com: structured outputs, unsupported keywords",
        _schema_is_taken(_named("azure"), "azure"),
    ),
    Difference(
        "OpenRouter",
        "passes a schema on to models of any vendor",
        "bounds and formats move into the description",
        "openrouter.ai/docs/structured-outputs; BerriAI/litellm#21016",
        _schema_is_taken(llm.openrouter("anthropic/claude", api_key="none"), "openrouter"),
    ),
    Difference(
        "Groq",
        "rejects bounds in a strict schema: `minItems is not supported`",
        "moved into the description",
        "i-am-bee/beeai-framework#1215",
        _schema_is_taken(_named("groq"), "azure"),
    ),
    Difference(
        "llama.cpp",
        "turns bounds and lengths of a schema into a grammar, but not every pattern",
        "bounds are kept; patterns and formats move into the description",
        "github.com/ggml-org/llama.cpp: grammars/README.md",
        _schema_is_taken(_named("llama.cpp"), "llama.cpp"),
    ),
    Difference(
        "Anthropic",
        "rejects number bounds, lengths, and tuples in a schema",
        "moved into the description",
        "platform.claude.com: structured outputs, JSON Schema limitations; BerriAI/litellm#21016",
        _schema_is_taken(llm.anthropic("claude", api_key="none"), "anthropic"),
    ),
    Difference(
        "Anthropic",
        "rejects recursion and maps in a schema",
        "the value is requested as JSON in the text, and `parsed()` extracts it",
        "platform.claude.com: structured outputs, JSON Schema limitations",
        _comes_as_text(llm.anthropic("claude", api_key="none"), _Node, dict[str, int]),
    ),
    Difference(
        "DeepSeek",
        "has no `json_schema` response format",
        "a `ValueError` that names alternatives, before anything is sent",
        "api-docs.deepseek.com: create chat completion; BerriAI/litellm#7580, llm-exe/llm-exe#662",
        _is_refused(_named("deepseek"), _Rated, "use 'json'"),
    ),
    Difference(
        "Z.ai (GLM)",
        "has no `json_schema` response format",
        "a `ValueError` that names alternatives, before anything is sent",
        "docs.z.ai: chat completion; promptfoo/promptfoo PR 9905",
        _is_refused(_named("zai"), _Rated, "use 'json'"),
    ),
    Difference(
        "llama-cpp-python",
        "accepts a schema with `json_object`, but no `json_schema`",
        "the schema is sent with `json_object`",
        "abetlen/llama-cpp-python: llama_types.py",
        _schema_beside_json,
    ),
    Difference(
        "LM Studio",
        "has no `json_object` response format",
        "a `ValueError` that asks for a schema or a type, before anything is sent",
        "lmstudio-ai/lmstudio-bug-tracker#189",
        _is_refused(_named("lmstudio"), "json", "give a schema or a type"),
    ),
    Difference(
        "Perplexity",
        "has no `json_object` response format",
        "a `ValueError` that asks for a schema or a type, before anything is sent",
        "docs.perplexity.ai: structured outputs",
        _is_refused(_named("perplexity"), "json", "give a schema or a type"),
    ),
    Difference(
        "Anthropic",
        "rejects (400) a tool error with a picture or without text",
        "only its text, or a placeholder sentence; the picture follows after the results",
        "vellum-ai/vellum-assistant PR 18387, bytedance/trae-agent PR 231",
        holds(
            anthropic(),
            [*LOOP[:2], llm.tool_result(CALL, llm.image(PNG), is_error=True)],
            lambda sent: (
                [b["type"] for b in sent["messages"][2]["content"]] == ["tool_result", "image"]
            ),
        ),
    ),
    Difference(
        "Anthropic",
        "rejects (400) tool parameters with special characters in their names (`$filter`)",
        "a `ValueError` that names the parameter, before anything is sent",
        "ComposioHQ/composio#3500, beautyfree/appstore-connect-mcp#2",
        refused(
            anthropic(),
            tools=[llm.Tool(name="t", parameters={"properties": {"$filter": {"type": "string"}}})],
        ),
    ),
    Difference(
        "Anthropic",
        "rejects (400) a stop sequence of only white space",
        "a `ValueError`, before anything is sent",
        "BerriAI/litellm#3286, EleutherAI/lm-evaluation-harness#2412",
        refused(anthropic(), stop="\n"),
    ),
    Difference(
        "Anthropic, OpenAI",
        "reject (400) a tool schema with nulls or in an older draft (`exclusiveMinimum: true`)",
        "converted to the current draft",
        "Dokploy/mcp#74, homeassistant-ai/ha-mcp#2361, MervinPraison/PraisonAI#3111",
        holds(
            anthropic(),
            LOOP,
            lambda sent: (
                sent["tools"][0]["input_schema"]["properties"]
                == {"a": {"type": "integer", "exclusiveMinimum": 0}}
            ),
            tools=[
                llm.Tool(
                    name="t",
                    parameters={
                        "properties": {
                            "a": {
                                "type": "integer",
                                "minimum": 0,
                                "exclusiveMinimum": True,
                                "description": None,
                            }
                        },
                        "required": None,
                    },
                )
            ],
        ),
    ),
    Difference(
        "Anthropic and gateways to it",
        "rejects (400) `image/jpg`, and a picture with the wrong media type",
        "the media type is taken from the bytes of the image",
        "BerriAI/litellm#24900, NousResearch/hermes-agent#55432",
        holds(
            anthropic(),
            [llm.user(llm.image(PNG, media_type="image/jpg"))],
            lambda sent: sent["messages"][0]["content"][0]["source"]["media_type"] == "image/png",
        ),
    ),
    Difference(
        "DeepSeek",
        "continues a final assistant message only at `/beta`, and only with `prefix`",
        "`prefix` is set at `/beta`",
        "api-docs.deepseek.com: chat prefix completion; QuantumNous/new-api#999",
        holds(
            at("https://api.deepseek.com/beta"),
            [llm.user("x"), llm.assistant("{")],
            lambda sent: sent["messages"][1]["prefix"] is True,
        ),
    ),
    Difference(
        "Gemini models, also through OpenRouter and other gateways",
        "reject (400) an empty tool result",
        "a placeholder sentence is sent",
        "RooCodeInc/Roo-Code PR 10672, block/goose PR 1425",
        holds(
            llm.openrouter("google/gemini-3-pro", api_key="k"),
            [*LOOP[:2], llm.tool_result(CALL, "")],
            lambda sent: bool(sent["messages"][2]["content"]),
        ),
    ),
    Difference(
        "vLLM, llama.cpp, LM Studio (templates of Gemma and Mistral models)",
        "`Conversation roles must alternate user/assistant/…`",
        "adjacent turns with the same role are merged",
        "vllm-project/vllm#6862, microsoft/autogen#3597",
        holds(
            at("http://127.0.0.1:8000/v1", server="vllm"),
            [llm.user("a"), llm.user("b")],
            lambda sent: [m["content"] for m in sent["messages"]] == ["a\n\nb"],
        ),
    ),
    Difference(
        "Anthropic",
        "rejects (400) a schema with more than 16 fields that have several types or may be null",
        "the answer is requested as JSON in the text, and `parsed()` extracts it",
        "vercel/ai PR 17268, elie222/inbox-zero#2323",
        holds(
            anthropic(),
            [llm.user("x")],
            lambda sent: (
                list(sent["output_config"]["format"]["schema"]["properties"]) == ["json_text"]
            ),
            response_format=msgspec.defstruct("T", [(f"f{n}", int | None) for n in range(17)]),
        ),
    ),
    Difference(
        "Groq",
        "rejects (400) reasoning in a turn if the model does not think",
        "reasoning is sent back only to models that think",
        "vercel/ai PR 8057, musistudio/claude-code-router PR 1204",
        holds(at("https://api.groq.com/openai/v1", "llama-3.3-70b-versatile"), TURN, nowhere),
    ),
    Difference(
        "llama.cpp, vLLM, MiniMax",
        "reject (400) every later request if an earlier call's arguments are not a JSON object",
        "such arguments are sent as the argument `arguments`",
        "vllm-project/vllm#43995, OpenHands/software-agent-sdk#2887, HKUDS/nanobot#2373",
        holds(
            at("http://127.0.0.1:8000/v1", server="vllm"),
            [llm.assistant(ToolCall(id="c", name="f", arguments='{"a')), llm.user("go on")],
            lambda sent: (
                sent["messages"][0]["tool_calls"][0]["function"]["arguments"]
                == '{"arguments":"{\\"a"}'
            ),
        ),
    ),
    Difference(
        "OpenAI",
        "rejects (400) `parallel_tool_calls` without tools, and an empty `stop`",
        "not sent",
        "openai/swarm#30, camel-ai/camel PR 3706",
        holds(
            llm.openai("m", api_key="k"),
            [llm.user("x")],
            lambda sent: sent.keys() == {"model", "messages", "stream", "stream_options"},
            parallel_tool_calls=False,
            stop=[],
        ),
    ),
]
