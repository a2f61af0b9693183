"""Answers of known servers that differ from the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

import trio_minillm as llm
from trio_minillm import testing

from . import Difference

ANSWERS: list[Difference] = []

# -- tool calls ------------------------------------------------------------------------------------

ARGS = '{"city":"Paris"}'
ONE, TWO = '{"city":', '"Paris"}'
_ = msgspec.UNSET


def _piece(index: Any = _, id: Any = _, name: Any = _, arguments: Any = _) -> dict[str, Any]:
    """A piece of a call; what is not given is absent."""
    function = {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not _}
    call = {"index": index, "id": id, "function": function or _}
    return {k: v for k, v in call.items() if v is not _}


def calls(
    server: str,
    does: str,
    handled: str,
    source: str,
    pieces: list[tuple[Any, ...]],
    *good: tuple[str, str],
    reason: str | None = "tool_calls",
) -> None:
    """Add a way of sending calls on OpenAI's wire: its pieces, one an event, and what can be run."""

    def check() -> None:
        deltas = [{"tool_calls": [_piece(*p)]} for p in pieces]
        choices = [{"index": 0, "delta": d, "finish_reason": None} for d in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": reason})
        body = [testing.sse({"id": "x", "choices": [c]}) for c in choices]
        usage = {"prompt_tokens": 1, "completion_tokens": 1}
        body += [testing.sse({"id": "x", "choices": [], "usage": usage}), testing.sse("[DONE]")]
        _holds(llm.compatible("m", base_url="http://127.0.0.1/v1"), body, good)

    ANSWERS.append(Difference(server, does, handled, source, check))


def blocks(
    server: str,
    does: str,
    handled: str,
    source: str,
    given: list[tuple[str, str, Any, list[str]]],
    *good: tuple[str, str],
) -> None:
    """Add a way of sending calls on Anthropic's wire: id, name, input and pieces of each block."""

    def check() -> None:
        body = [_event("message_start", message={"id": "m", "content": [], "usage": {}})]
        for n, (ident, name, value, pieces) in enumerate(given):
            block = {"type": "tool_use", "id": ident, "name": name, "input": value}
            body.append(_event("content_block_start", index=n, content_block=block))
            for text in pieces:
                delta = {"type": "input_json_delta", "partial_json": text}
                body.append(_event("content_block_delta", index=n, delta=delta))
            body.append(_event("content_block_stop", index=n))
        end = {"stop_reason": "tool_use"}
        body.append(_event("message_delta", delta=end, usage={"output_tokens": 1}))
        body.append(_event("message_stop"))
        _holds(llm.anthropic("m", api_key="k"), body, good)

    ANSWERS.append(Difference(server, does, handled, source, check))


def _event(kind: str, **fields: Any) -> bytes:
    return testing.sse({"type": kind, **fields}, kind)


def _holds(model: llm.Model, body: list[bytes], good: tuple[tuple[str, str], ...]) -> None:
    response, error = testing.decode(model.provider, body)
    assert error is None, error
    found = response.tool_calls
    assert tuple((c.name, c.arguments) for c in found) == good, found
    assert len({c.id for c in found}) == len(found)
    assert bool(response.invalid_tool_calls) != bool(good)


def _gemini(parts: list[Any], *good: tuple[str, str]) -> Callable[[], None]:
    """Check the calls in parts on Gemini's wire, each in an event of its own."""

    def check() -> None:
        end = {"candidates": [{"content": {}, "finishReason": "STOP"}]}
        body = [testing.sse({"candidates": [{"content": {"parts": [part]}}]}) for part in parts]
        _holds(llm.gemini("m", api_key="k"), [*body, testing.sse(end)], good)

    return check


def _valued(text: str, *, more: bool = False) -> dict[str, Any]:
    """A piece of the argument ``city``."""
    value = {"jsonPath": "$.city", "stringValue": text, **({"willContinue": True} if more else {})}
    return {"functionCall": {"partialArgs": [value], "willContinue": True}}


A, B = ("weather", ARGS), ("time", "{}")
ONE_CALL, BOTH = "one call", "both calls"

ANSWERS += [
    Difference(
        "Vertex AI",
        "sends arguments as values with JSON paths (`partialArgs`) and without an id, if asked to",
        "one call, with the arguments as JSON while they stream",
        "cloud.google.com/vertex-ai: `FunctionCall`, recorded streams",
        _gemini(
            [
                {"functionCall": {"name": "weather", "willContinue": True}},
                _valued("Pa", more=True),
                _valued("ris"),
                {"functionCall": {}},
            ],
            A,
        ),
    ),
    Difference(
        "Vertex AI",
        "ends arguments with JSON paths by leaving out `willContinue`, and sends an empty `functionCall` after them",
        "one call",
        "vercel/ai#14358",
        _gemini(
            [
                {"functionCall": {"name": "weather", "willContinue": True}},
                {"functionCall": {"partialArgs": [{"jsonPath": "$.city", "stringValue": "Paris"}]}},
                {"functionCall": {}},
            ],
            A,
        ),
    ),
    Difference(
        "Gemini (relays)",
        "sends text and a call in one part",
        "the text and the call",
        "NousResearch/hermes-agent PR 109862",
        _gemini(
            [{"text": "I look.", "functionCall": {"name": "weather", "args": {"city": "Paris"}}}], A
        ),
    ),
    Difference(
        "Gemini",
        "sends calls without ids, and without `args` if there are none",
        "both calls, with ids that the client makes and does not send back",
        "ai.google.dev/api/caching, `FunctionCall`; recorded streams",
        _gemini(
            [
                {"functionCall": {"name": "weather", "args": {"city": "Paris"}}},
                {"functionCall": {"name": "time"}},
            ],
            A,
            B,
        ),
    ),
]

calls(
    "MiniMax on NVIDIA NIM",
    "repeats the function's name with every piece of the arguments",
    ONE_CALL,
    "NousResearch/hermes-agent#8259",
    [
        (0, "c1", "weather", ""),
        (0, _, "weather", ONE),
        (0, _, "weather", TWO),
        (0, _, "weather", ""),
    ],
    A,
)
calls(
    "Mistral (through litellm)",
    "sends `null` as the name in later pieces of a call",
    ONE_CALL,
    "BerriAI/litellm#12513",
    [(0, "c1", "weather", ONE), (0, "", "null", TWO)],
    A,
)
calls(
    "Gemini (through relays)",
    "sends the function's name in pieces",
    "one call with the joined name; a piece that equals the name so far counts as a repeat",
    "continuedev/continue#5849",
    [(0, "c1", "wea", ""), (0, _, "ther", ""), (0, _, _, ARGS)],
    A,
)
calls(
    "DeepSeek, Z.ai (GLM)",
    "gives two calls with different indexes the same id",
    "both calls; the second gets a new id",
    "HKUDS/nanobot#3943",
    [(0, "c1", "weather", ARGS), (1, "c1", "time", "{}")],
    A,
    B,
)
calls(
    "OpenRouter (some models)",
    "gives calls of different functions the same id and index",
    "both calls; the second gets a new id",
    "skye-harris/hass_local_openai_llm#92",
    [(0, "c1", "weather", ARGS), (0, "c1", "time", "{}")],
    A,
    B,
)
calls(
    "Gemini (through relays)",
    "uses the function's name as the id of each of its calls, without an index",
    "all calls, with distinct ids",
    "cloudwego/eino-ext#652",
    [(_, "weather", "weather", ARGS), (_, "weather", "weather", '{"city":"Rome"}')],
    A,
    ("weather", '{"city":"Rome"}'),
)
calls(
    "Ollama",
    "sends every call with index 0",
    "both calls; a new id with a name starts another call",
    "ollama/ollama#15457",
    [(0, "c1", "weather", ARGS), (0, "c2", "time", "{}")],
    A,
    B,
)
calls(
    "Gemini (OpenAI-compatible)",
    "sends calls without an index",
    BOTH,
    "openai/openai-python#2806",
    [(_, "c1", "weather", ARGS), (_, "c2", "time", "{}")],
    A,
    B,
)
calls(
    "Databricks (Kimi)",
    "leaves out the index after the first piece of a call",
    "later pieces continue the newest call",
    "aaif-goose/goose#11511",
    [(0, "c1", "weather", ""), (_, _, _, ONE), (_, _, _, TWO)],
    A,
)
calls(
    "Nebius, Cerebras",
    "sends every piece of the arguments with another index, and without id and name",
    "one call, until its arguments are complete",
    "dirac-run/dirac#215",
    [(0, "c1", "weather", ""), (1, _, _, ONE), (2, _, _, TWO)],
    A,
)
calls(
    "Poolside",
    "changes the id from the second piece on",
    "one call with its first id",
    "poolsideai/pool#9",
    [(0, "c1", "weather", ""), (0, "c2", _, ONE), (0, "c2", _, TWO)],
    A,
)
calls(
    "LocalAI",
    "sends one call with one id under several indexes",
    "one call; arguments that are a prefix of the other's are left out, with a note",
    "mudler/LocalAI#9722",
    [(0, "c1", "weather", ""), (1, "c1", "weather", ARGS)],
    A,
)
calls(
    "Mistral",
    'sends the id `"null"`',
    "a new id",
    "Mistral's client, `ToolCall.id`",
    [(0, "null", "weather", ARGS), (1, "null", "time", "{}")],
    A,
    B,
)
calls(
    "Z.ai (GLM), local servers",
    "repeats the complete arguments after their pieces",
    "the arguments once, with a note",
    "anomalyco/opencode#12425",
    [(0, "c1", "weather", ""), (0, _, _, ONE), (0, _, _, TWO), (0, _, _, ARGS)],
    A,
)
calls(
    "Baidu Qianfan",
    "sends the arguments so far with every piece",
    "the last piece, if the joined pieces are not JSON",
    "NousResearch/hermes-agent#35592",
    [(0, "c1", "weather", ""), (0, _, _, ONE), (0, _, _, ARGS)],
    A,
)
calls(
    "Bedrock (through gateways), litellm in 2024",
    "sends `{}` before the arguments",
    "the arguments",
    "openai/openai-agents-js#712, BerriAI/litellm#4537",
    [(0, "c1", "weather", "{}"), (0, _, _, ONE), (0, _, _, TWO)],
    A,
)
calls(
    "GitHub Copilot",
    "sends no arguments at all for a call without any",
    "a call with `{}`, if the finish reason is known and does not mean a cut answer",
    "MadSkittles/Router-Maestro#162",
    [(0, "c1", "time")],
    ("time", ""),
)
calls(
    "any server",
    "sends a call in an answer that reached its maximum length",
    "no call to run, even if it looks complete",
    "NousResearch/hermes-agent#6847, langchain-ai/langchainjs#11471",
    [(0, "c1", "weather", ARGS)],
    reason="length",
)
calls(
    "Gemini (OpenAI-compatible)",
    "sends a call with the finish reason `content_filter: SAFETY`",
    "no call to run",
    "Gemini API, `FinishReason`",
    [(0, "c1", "weather", ARGS)],
    reason="content_filter: SAFETY",
)
calls(
    "Kimi, Gemini",
    "sends unescaped line ends and tabs in the arguments of a call",
    "escaped arguments, with a note",
    "MoonshotAI/kimi-cli#1378; agentscope-ai/agentscope-java#768",
    [(0, "c1", "weather", '{"city":"Paris\n'), (0, _, _, '\t"}')],
    ("weather", '{"city":"Paris\\n\\t"}'),
)
calls(
    "vLLM (hermes parser)",
    "encodes arguments twice, as JSON in a JSON string",
    "the object, with a note",
    "vllm-project/vllm PR 54964; quarkiverse/quarkus-langchain4j#2569",
    [(0, "c1", "weather", '"{\\"city\\":'), (0, _, _, '\\"Paris\\"}"')],
    A,
)
calls(
    "vLLM (0.17 and newer), Moonshot (Kimi)",
    "sends the finish reasons `repetition` and `repeat` for a model in a loop",
    "no call to run",
    "BerriAI/litellm PR 27101; MoonshotAI/moonpalace PR 3",
    [(0, "c1", "weather", ARGS)],
    reason="repetition",
)
calls(
    "several agent servers",
    "starts a call that never gets a name or arguments",
    "no call, not even an invalid one",
    "NousResearch/hermes-agent#47967",
    [(0, "c1", "weather", ARGS), (1, "c2", "", "")],
    A,
)
blocks(
    "Kimi (Anthropic's format)",
    "gives several `tool_use` blocks the same id",
    "all calls, with distinct ids",
    "HKUDS/nanobot#4473",
    [("grep:3", "weather", {}, [ARGS]), ("grep:3", "time", {}, ["{}"])],
    A,
    B,
)
blocks(
    "relays of Anthropic's format",
    "sends the complete input in `content_block_start`, and again in deltas",
    "the input once, with a note",
    "Anthropic's reference: the input is empty at the start",
    [("c1", "weather", {"city": "Paris"}, [ONE, TWO])],
    A,
)

_LITELLM = "seen with litellm 1.82.6 in front of llama.cpp (`nox -s servers`)"
blocks(
    "litellm (Messages in front of chat completions)",
    "drops arguments that come with a call's name, such as llama.cpp's opening brace",
    "no call to run",
    _LITELLM,
    [("c1", "weather", {}, [ARGS[1:6], ARGS[6:]])],
)


# -- how an answer ends, and what stands beside it -------------------------------------------------


def _chunk(delta: Any = None, reason: Any = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": reason, **more}
    return testing.sse({"id": "x", "choices": [choice]})


_USAGE = {"prompt_tokens": 5, "completion_tokens": 7}
_SPENT = testing.sse({"id": "x", "choices": [], "usage": _USAGE})
_DONE = testing.sse("[DONE]")
_TAIL = [_chunk(reason="stop"), _SPENT, _DONE]
_RELAY = "Anthropic-style relays"
_METRICS = "amazon-bedrock-invocationMetrics"
_ZEROS = {"input_tokens": 0, "output_tokens": 0}
_MADE = {"input_tokens": 26, "output_tokens": 16}


def answers(
    server: str,
    does: str,
    handled: str,
    source: str,
    body: list[bytes],
    text: str = "an answer",
    reasoning: str = "",
    *,
    error: type[llm.MiniLLMError] | None = None,
    on: str = "compatible",
    usage: tuple[int, int] | None = None,
) -> None:
    """Add an answer that is odd: its body, and what is read of it; ``usage`` are tokens of the prompt
    and of the answer.
    """

    def check() -> None:
        wires = {"anthropic": llm.anthropic, "responses": llm.openai_responses}
        wires["gemini"] = llm.gemini
        model = wires[on]("m", api_key="k") if on in wires else testing.model()
        response, found = testing.decode(model.provider, body)
        assert (type(found) if found else None) is error, found
        assert (response.content, response.reasoning) == (text, reasoning)
        assert (response.outcome is llm.Outcome.FINISHED) is (error is None)
        if usage is not None:
            assert response.usage is not None
            counted = response.usage.prompt_tokens, response.usage.completion_tokens
            assert (response.usage.final, counted) == (True, usage)

    ANSWERS.append(Difference(server, does, handled, source, check))


answers(
    "llama-cpp-python",
    "sends `[DONE]` without finish reason or usage when a newer request interrupts the answer",
    "`truncated`",
    "seen with its default settings",
    [_chunk({"content": "an answer"}), _DONE],
    error=llm.EndedEarly,
)
answers(
    "Snowflake",
    "sends usage before `[DONE]`, but no finish reason",
    "`finished`, with the finish reason `None`",
    "recorded streams",
    [_chunk({"content": "an answer"}), _SPENT, _DONE],
)
answers(
    "Gemini (through relays)",
    "sends the finish reason with every chunk, including the first",
    "the whole answer; content after a finish reason overrides it, with a note",
    "su-kaka/gcli2api#403",
    [_chunk({"content": "an "}, "stop"), _chunk({"content": "answer"}, "stop"), _SPENT, _DONE],
)
answers(
    "Z.ai (GLM)",
    "sends the finish reason `network_error` for its own failures",
    "`ProviderError`; retried if no content has arrived",
    "Z.ai's reference; earendil-works/pi#2313",
    [_chunk({"content": "an answer"}), _chunk(reason="network_error"), _SPENT, _DONE],
    error=llm.ProviderError,
)
answers(
    "DeepSeek",
    "sends the finish reason `insufficient_system_resource` for an interrupted answer",
    "`ProviderError`; retried if no content has arrived",
    "DeepSeek's reference",
    [_chunk({"content": "an answer"}), _chunk(reason="insufficient_system_resource"), _DONE],
    error=llm.ProviderError,
)
answers(
    "Vertex AI",
    "sends keep-alives as data (`data: : keepalive`)",
    "ignored, with a count and a note",
    "anomalyco/opencode#50871",
    [_chunk({"content": "an "}), b"data: : keepalive\n\n", _chunk({"content": "answer"}), *_TAIL],
)
answers(
    "Together",
    "sends a bare number as `logprobs` in a stream",
    "left out, with a note",
    "togethercomputer/openapi PR 27",
    [_chunk({"content": "an answer"}, logprobs=-0.0000017881393), *_TAIL],
)
answers(
    "servers that convert tokens to JSON values",
    "send digits as numbers",
    "their digits as text",
    "mastra-ai/mastra#18289",
    [_chunk({"content": "an answer "}), _chunk({"content": 42}), *_TAIL],
    "an answer 42",
)
answers(
    "Databricks",
    "sends reasoning as a part of the content, with a summary",
    "reasoning",
    "Databricks' API reference; databricks/appkit PR 559",
    [
        _chunk({"content": [{"type": "reasoning", "summary": [{"type": "x", "text": "hm"}]}]}),
        _chunk({"content": [{"type": "text", "text": "an answer"}]}),
        *_TAIL,
    ],
    reasoning="hm",
)
answers(
    "Bedrock gateways",
    "send `reasoning_content` as an object with the text, or with only the signature",
    "the text as reasoning",
    "envoyproxy/ai-gateway PR 1222",
    [
        _chunk({"reasoning_content": {"text": "hm"}}),
        _chunk({"reasoning_content": {"signature": "c2ln"}}),
        _chunk({"content": "an answer"}),
        *_TAIL,
    ],
    reasoning="hm",
)
answers(
    "Mistral",
    "sends content as a list of text and thinking parts",
    "text and reasoning",
    "Mistral's API reference",
    [
        _chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}),
        _chunk({"content": [{"type": "text", "text": "an answer"}]}),
        *_TAIL,
    ],
    reasoning="hm",
)
answers(
    ".NET servers",
    "send a byte-order mark before each event",
    "ignored",
    "`StreamWriter` with `Encoding.UTF8`",
    [b"\xef\xbb\xbf" + event for event in (_chunk({"content": "an answer"}), *_TAIL)],
)
answers(
    _RELAY,
    "leave out an empty field of a delta",
    "an empty piece",
    "MoonshotAI/kimi-code#2924, agentclientprotocol/claude-agent-acp PR 852",
    [
        _event("message_start", message={"id": "m", "content": [], "usage": {"input_tokens": 3}}),
        _event("content_block_start", index=0, content_block={"type": "text"}),
        _event("content_block_delta", index=0, delta={"type": "text_delta"}),
        _event("content_block_delta", index=0, delta={"type": "text_delta", "text": "an answer"}),
        _event("content_block_stop", index=0),
        _event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 2}),
        _event("message_stop"),
    ],
    on="anthropic",
)


def _relayed(
    start: Any = None, end: Any = None, *, last: list[bytes] | None = None, thought: Any = None
) -> list[bytes]:
    """An answer of a relay of Anthropic's wire, with its usage objects, the block of a thought, and
    what it sends in place of ``message_stop``. It sends no ping.
    """
    message = {"id": "m", "role": "assistant", "content": [], **({"usage": start} if start else {})}
    events = [_event("message_start", message=message)]
    if thought is not None:
        events.append(_event("content_block_start", index=0, content_block=thought))
        delta = {"type": "thinking_delta", "thinking": "hm"}
        events.append(_event("content_block_delta", index=0, delta=delta))
        events.append(_event("content_block_stop", index=0))
    block = {"type": "text", "text": ""}
    delta = {"type": "text_delta", "text": "an answer"}
    events += [
        _event("content_block_start", index=1, content_block=block),
        _event("content_block_delta", index=1, delta=delta),
        _event("content_block_stop", index=1),
        _event("message_delta", delta={"stop_reason": "end_turn"}, usage=end or _MADE),
    ]
    return events + ([_event("message_stop")] if last is None else last)


answers(
    "Z.ai (GLM, Anthropic's format), SGLang",
    "sends 0 input tokens in `message_start`, and the counts in `message_delta`",
    "the counts of `message_delta`",
    "zai-org/GLM-5#139, sgl-project/sglang PR 20830",
    _relayed(_ZEROS, {**_MADE, "cache_read_input_tokens": 4}),
    on="anthropic",
    usage=(30, 16),
)
answers(
    _RELAY,
    "send no usage in `message_start`, and no `ping`",
    "the counts of `message_delta`",
    "cline/cline#4346",
    _relayed(),
    on="anthropic",
    usage=(26, 16),
)
answers(
    "GitHub Copilot (Anthropic's format), vLLM before March 2026",
    "sends `[DONE]` after `message_stop` or instead of it",
    "ignored; the finish reason before it ends the answer",
    "huggingface/tau PR 692, caozhiyuan/copilot-api PR 209, vllm-project/vllm PR 37510",
    _relayed(last=[_DONE]),
    on="anthropic",
    usage=(26, 16),
)
answers(
    "Moonshot (Kimi), DeepSeek, MiniMax (Anthropic's format)",
    "sends thinking without a signature, or with an empty one",
    "reasoning, which is sent back unchanged",
    "NousResearch/hermes-agent PR 49143, NousResearch/hermes-agent#75725",
    _relayed(thought={"type": "thinking", "thinking": ""}),
    reasoning="hm",
    on="anthropic",
)
answers(
    "relays of Claude on Bedrock",
    "send `amazon-bedrock-invocationMetrics` in `message_stop`",
    "ignored",
    "docs.aws.amazon.com/bedrock: Anthropic Claude Messages API",
    _relayed(_MADE, last=[_event("message_stop", **{_METRICS: {"inputTokenCount": 26}})]),
    on="anthropic",
    usage=(26, 16),
)
answers(
    "litellm (Messages in front of Responses)",
    "sends `message_start` twice with all counts 0, and the counts at the end",
    "one answer with the counts from its end",
    _LITELLM,
    [
        *(2 * [_event("message_start", message={"id": "m", "content": [], "usage": _ZEROS})]),
        _event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        _event("content_block_delta", index=0, delta={"type": "text_delta", "text": "an answer"}),
        _event("content_block_stop", index=0),
        _event("message_delta", delta={"stop_reason": "end_turn"}, usage=_MADE),
        _event("message_stop"),
    ],
    on="anthropic",
    usage=(26, 16),
)

answers(
    "iFlytek",
    "sends its own `code` with the text, where `0` means success",
    "the text of the event, then an error if the code means a failure",
    "xfyun.cn: Spark's HTTP interface, error codes",
    [testing.sse({"code": 10013, "message": "refused", "choices": [
        {"index": 0, "delta": {"content": "an answer"}}]}), *_TAIL],
    error=llm.ProviderError,
)  # fmt: skip
answers(
    "Bedrock, Databricks (through gateways)",
    "sends reasoning in objects (`reasoningContent.reasoningText.text`)",
    "reasoning",
    "docs.aws.amazon.com: Converse, ReasoningContentBlock",
    [
        _chunk({"content": [{"reasoningContent": {"reasoningText": {"text": "hm"}}}]}),
        _chunk({"content": "an answer"}),
        *_TAIL,
    ],
    reasoning="hm",
)
answers(
    "GitHub Copilot (Claude)",
    "splits the text and calls of an unstreamed answer into two choices",
    "one answer",
    "ericc-ch/copilot-api PR 81; HKUDS/nanobot#1481; karthink/gptel PR 1284",
    [
        msgspec.json.encode(
            {
                "choices": [
                    {"message": {"content": "an answer"}, "finish_reason": "tool_calls"},
                    {
                        "message": {"tool_calls": [_piece(0, "c", "f", "{}")]},
                        "finish_reason": "tool_calls",
                    },
                ],
                "usage": _USAGE,
            }
        )
    ],
)
answers(
    "GitHub Copilot (Claude)",
    "puts the text and each call of an unstreamed answer into a choice of its own",
    "one answer",
    "karthink/gptel PR 1284",
    [
        msgspec.json.encode(
            {
                "choices": [
                    {"message": {"content": "an answer"}, "finish_reason": "tool_calls"},
                    *(
                        {
                            "message": {"tool_calls": [_piece(0, ident, "f", "{}")]},
                            "finish_reason": "tool_calls",
                        }
                        for ident in ("a", "b")
                    ),
                ],
                "usage": _USAGE,
            }
        )
    ],
)
answers(
    "TGI (old releases), Foundry Local",
    "numbers the pieces as choices",
    "one answer",
    "huggingface/text-generation-inference PR 1648; microsoft/foundry-local#263",
    [
        testing.sse({"id": "x", "choices": [
            {"index": n, "delta": {"content": text}, "finish_reason": reason}]})
        for n, text, reason in ((1, "an ", None), (2, "ans", None), (3, "wer", "stop"))
    ] + [_SPENT, _DONE],
)  # fmt: skip
answers(
    "TGI (old releases)",
    "numbers every piece as a choice, including pieces without text (a byte of an emoji, a special token)",
    "one answer",
    "huggingface/text-generation-inference PR 1648",
    [
        testing.sse({"id": "x", "choices": [
            {"index": n, "delta": {"content": text}, "finish_reason": reason}]})
        for n, text, reason in ((0, "an ", None), (1, "", None), (2, "answer", None), (4, "", "stop"))
    ] + [_SPENT, _DONE],
)  # fmt: skip
answers(
    "Rapid-MLX",
    "repeats the complete text with the finish reason",
    "the text once, with a note",
    "raullenchai/Rapid-MLX#1709",
    [_chunk({"content": "The answer"}), _chunk({"content": " is 42."}),
     _chunk({"content": "The answer is 42."}, "stop"), _SPENT, _DONE],
    "The answer is 42.",
)  # fmt: skip
answers(
    "Cloudflare Workers AI and other gateways",
    "wraps the upstream's answer in `result` or another field",
    "the answer",
    "BerriAI/litellm PR 26028",
    [
        testing.sse({"result": {"choices": [{"index": 0, "delta": {"content": "an answer"}}]}}),
        *_TAIL,
    ],
)
answers(
    "relays of event streams",
    "send the upstream's line as data (`data: data: …`), or several events in one",
    "the events",
    "openclaw/openclaw PR 97474; paiml/aprender PR 2015",
    [
        b"data: " + _chunk({"content": "an "}),
        _chunk({"content": "ans"}).rstrip() + _chunk({"content": "wer"})[6:],
        *(b"data: " + event for event in _TAIL),
    ],
)


# -- OpenAI Responses ------------------------------------------------------------------------------


def _step(kind: str, **fields: Any) -> bytes:
    return testing.sse({"type": f"response.{kind}", **fields})


def _said(text: str, ident: str) -> dict[str, Any]:
    return {"type": "message", "id": ident, "content": [{"type": "output_text", "text": text}]}


def _completed(*output: Any, **fields: Any) -> bytes:
    usage = {"input_tokens": 5, "output_tokens": 7}
    last = {"status": "completed", "output": list(output), "usage": usage, **fields}
    return _step("completed", response=last)


_TEXT = "output_text.delta"

answers(
    "GitHub Copilot (Responses)",
    "changes the id of an item with every event",
    "one item, recognised by its index",
    "BerriAI/litellm PR 30072; vercel/ai PR 18548",
    [
        _step("output_item.added", output_index=0, item=_said("", "a")),
        _step(_TEXT, output_index=0, item_id="b", delta="an "),
        _step(_TEXT, output_index=0, item_id="c", delta="answer"),
        _step("output_item.done", output_index=0, item=_said("an answer", "d")),
        _completed(_said("an answer", "e")),
    ],
    on="responses",
)
answers(
    "llama.cpp (Responses)",
    "reports the status `completed` even if the answer reached its maximum length; litellm turns this into `end_turn`",
    "`finished`, like a complete answer; compare the counts with `max_tokens`",
    "seen with the embedded model",
    [_step(_TEXT, delta="an answer"), _completed(_said("an answer", "a"))],
    on="responses",
    usage=(5, 7),
)
answers(
    "OpenRouter (Responses)",
    "sends `[DONE]` after the last event",
    "ignored",
    "recorded streams of simonw/llm-openrouter",
    [_step(_TEXT, output_index=0, delta="an answer"), _completed(), _DONE],
    on="responses",
)
answers(
    "OpenAI (Responses)",
    "sends an empty `output` in the final response",
    "the content of the earlier events",
    "recorded streams of jeremychone/rust-genai",
    [_step("output_item.done", output_index=0, item=_said("an answer", "a")), _completed()],
    on="responses",
)
answers(
    "vLLM, DeepSeek, LM Studio (Responses)",
    "sends reasoning as `reasoning_text`, in separate events",
    "reasoning",
    "vllm-project/vllm PR 24938; recorded streams of pydantic/pydantic-ai",
    [
        _step("reasoning_part.added", output_index=0, part={"type": "reasoning_text", "text": ""}),
        _step("reasoning_text.delta", output_index=0, delta="hm"),
        _step("reasoning_part.done", output_index=0, part={"type": "reasoning_text", "text": "hm"}),
        _step(_TEXT, output_index=1, delta="an answer"),
        _completed(),
    ],
    reasoning="hm",
    on="responses",
)
answers(
    "vLLM (Responses)",
    "raises the content index with each delta, and sends one text at the end",
    "the text once",
    "vllm-project/vllm PR 29947",
    [
        _step(_TEXT, output_index=0, content_index=1, delta="an "),
        _step(_TEXT, output_index=0, content_index=2, delta="answer"),
        _step("output_text.done", output_index=0, content_index=3, text="an answer"),
        _step("output_item.done", output_index=0, item=_said("an answer", "a")),
        _completed(_said("an answer", "a")),
    ],
    on="responses",
)
answers(
    "llama.cpp, Lemonade (Responses)",
    "sends items without indexes or ids",
    "each event applies to the newest item of its kind",
    "ggml-org/llama.cpp issue 20607; lemonade-sdk/lemonade issue 3607",
    [
        _step("output_item.added", item=_said("", "a")),
        _step(_TEXT, delta="an "),
        _step(_TEXT, delta="answer"),
        _step("output_item.done", item=_said("an answer", "a")),
        _completed(),
    ],
    on="responses",
)
answers(
    "Gemini",
    "sends the finish reason `MALFORMED_FUNCTION_CALL` without content",
    "`ProviderError`; retried if no content has arrived",
    "pydantic/pydantic-ai PR 3095; BerriAI/litellm issue 21744",
    [testing.sse({"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL", "index": 0}]})],
    "",
    error=llm.ProviderError,
    on="gemini",
)
answers(
    "OpenAI, Azure (Responses)",
    "sends an `error` event, and `response.failed` after it",
    "`ProviderError` at the first of the two",
    "recorded streams of prism-php/prism",
    [
        testing.sse({"type": "error", "error": {"code": "server_error", "message": "no"}}, "error"),
        _step("failed", response={"status": "failed", "error": {"code": "server_error"}}),
    ],
    "",
    error=llm.ProviderError,
    on="responses",
)
answers(
    "Hermes Agent, nanobot, and other agents behind an API",
    "report in named or unnamed events that a tool failed which they run, and go on with the answer",
    "the answer; `response.notes` mentions the failure",
    "NousResearch/hermes-agent#16588, NousResearch/hermes-agent#70503; HKUDS/nanobot PR 5562; anomalyco/opencode#38106",
    [
        _chunk({"content": "an "}),
        testing.sse({"tool": "f", "toolCallId": "c", "status": "failed"}, "hermes.tool.progress"),
        testing.sse({"name": "f", "call_id": "c", "error": "no"}, "nanobot.tool.progress"),
        testing.sse({"tool_name": "f", "error": "no"}, "tool.failed"),
        testing.sse({"event": "tool.completed", "tool": "f", "error": True}),
        _chunk({"content": "answer"}),
        *_TAIL,
    ],
)
