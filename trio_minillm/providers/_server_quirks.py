"""Known servers of OpenAI's chat-completions format: where they are, and what their requests differ in.

A quirk that belongs elsewhere:

============================================  =====================================================
what differs                                  decided in
============================================  =====================================================
an answer's events, in any server             `OpenAIChat.parse_chunk` (``openai.py``), by the names
                                              that ``_openai_events.py`` knows; the choices in them
                                              in ``_openai_choices.py``
the counts of tokens                          ``_usage_names.py``
finish reasons, and those that are failures   ``_reasons.py``
refusals and errors                           ``_error_kinds.py``, ``_error_words.py``
Anthropic's wire                              ``anthropic.py``
repeated or scattered pieces, tool calls      ``_protocol/repeats.py``, ``_protocol/calls.py``
framing of the stream; a body without events  ``_protocol/sse.py``, ``_protocol/sniffer.py``
formats of answers that a server refuses      ``_formats.py``
keys, addresses and costs of known servers    ``compatible.py``
a difference in requests of a kind that no    a new field of `Dialect` (``_openai_request.py``) or of
entry here has                                `MessageRules` (``_chat_messages.py``)
============================================  =====================================================

A table of facts. Each entry is from the server's own reference or SDK, or from the report that is
named beside it; `GENERIC`, the common denominator, is what every server takes.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from .._types.messages import ReasoningPart
from .._types.params import Reasoning
from ._base import host_of
from ._chat_messages import TurnOrder
from ._history import MISTRAL_IDS, OPENAI_IDS
from ._openai_request import Dialect
from .openrouter import OpenRouter

_SAMPLERS = ("top_k", "min_p", "top_a", "repetition_penalty")

BLANK = " "
"""Reasoning of a turn that has none, where one is demanded: DeepSeek refuses an empty text
(hermes-agent#17341) and made-up words (oh-my-pi#897)."""

# -- reasoning that is sent back -------------------------------------------------------------


def _text(thoughts: list[ReasoningPart]) -> str:
    return "".join(p.text for p in thoughts if p.wire in ("", "compatible"))


def _content(thoughts: list[ReasoningPart], calls: bool) -> dict[str, Any]:
    return {"reasoning_content": text} if (text := _text(thoughts)) else {}


def _content_beside_calls(thoughts: list[ReasoningPart], calls: bool) -> dict[str, Any]:
    text = _text(thoughts) or (BLANK if calls else "")
    return {"reasoning_content": text} if text else {}


def _content_always(thoughts: list[ReasoningPart], calls: bool) -> dict[str, Any]:
    return {"reasoning_content": _text(thoughts) or BLANK}


_THINKING = (
    r"kimi[-_.]?k(?:2.*think|2[.-]?[5-9]|[3-9])|deepseek.*(?:v3[.-][1-9]|v[4-9]|reasoner|r1)"
)
_THOUGHTLESS_AT_GROQ = "llama|kimi-k2-instruct|gemma|mistral|allam"
_NEWER = r"(?:^|/)(?:gpt-[5-9]|o[1-9]\b)"


def for_model(dialect: Dialect, server: str, model: str) -> Dialect:
    """Return what requests for a model differ in, at a server that has models of several vendors.

    OpenAI's newer models refuse ``max_tokens`` there as well (vault-operator#28, GitHub Models in
    super-agent-party#384), and models of Kimi and DeepSeek that think refuse calls without the
    reasoning before them (hermes-agent#92359: NVIDIA). Groq's models that do not think refuse
    reasoning ("reasoning is not supported with this model", vercel/ai PR 8057).
    """
    name = model.lower()
    if server == "groq" and re.search(_THOUGHTLESS_AT_GROQ, name):
        return msgspec.structs.replace(dialect, replay=None)
    if server not in _OF_ALL_VENDORS:
        return dialect
    if re.search(_NEWER, name):
        return msgspec.structs.replace(dialect, max_tokens="max_completion_tokens")
    if dialect.replay is None and re.search(_THINKING, name):
        return msgspec.structs.replace(dialect, replay=_content_beside_calls)
    return dialect


_OF_ALL_VENDORS = frozenset(("generic", "copilot", "azure", "nvidia", "huggingface", "dashscope"))


def _reasoning(thoughts: list[ReasoningPart], calls: bool) -> dict[str, Any]:
    return {"reasoning": text} if (text := _text(thoughts)) else {}


def _details(thoughts: list[ReasoningPart], calls: bool) -> dict[str, Any]:
    """Return MiniMax's blocks (``reasoning_split``), or else the text."""
    own = [p for p in thoughts if p.wire == "minimax"]
    details = [p.raw for p in own if p.raw is not None]
    if details:
        return {"reasoning_details": details}
    text = "".join(p.text for p in own) or _text(thoughts)
    return {"reasoning_content": text} if text else {}


# -- reasoning that is asked for -------------------------------------------------------------


def _switch(reasoning: Reasoning) -> dict[str, Any]:
    """Translate reasoning for servers that have a switch and an effort."""
    if reasoning.budget is not None or reasoning.summary or reasoning.exclude:
        raise ValueError(
            "this server accepts a reasoning effort or on/off: no budget, summary or exclude"
        )
    if reasoning.is_off:
        return {"thinking": {"type": "disabled"}}
    out: dict[str, Any] = {}
    if reasoning.enabled is not None:
        out["thinking"] = {"type": "enabled"}
    if reasoning.effort is not None:
        out["reasoning_effort"] = reasoning.effort
    return out


def _switch_or_effort(reasoning: Reasoning) -> dict[str, Any]:
    """Translate reasoning for Kimi, which refuses both at once (nanobot#3939)."""
    out = _switch(reasoning)
    if "reasoning_effort" in out:
        out.pop("thinking", None)
    return out


def _budget(reasoning: Reasoning) -> dict[str, Any]:
    """Translate reasoning for Qwen's own server, which has a switch and a budget."""
    effort = reasoning.effort not in (None, "none")
    if effort or reasoning.summary or reasoning.exclude:
        raise ValueError("this server accepts a reasoning budget or on/off: no effort or summary")
    if reasoning.is_off:
        return {"enable_thinking": False}
    out: dict[str, Any] = {}
    if reasoning.enabled is not None or reasoning.budget is not None:
        out["enable_thinking"] = True
    if reasoning.budget is not None:
        out["thinking_budget"] = reasoning.budget
    return out


# -- the servers -----------------------------------------------------------------------------

GENERIC = Dialect(
    max_tokens="max_tokens",
    developer="system",
    document_urls=True,
    any_tool_content=True,
    signatures="kept",
    own_parts=False,
    text_lists=False,
    # Templates of Gemma's, Llama 2's and Mistral's models (vllm-project/vllm#6862)
    order=TurnOrder(one_system=True, alternate=True, no_empty=True),
    extra_params=_SAMPLERS,
)

_HOSTED = msgspec.structs.replace(
    GENERIC,
    any_tool_content=False,
    signatures="",
    order=TurnOrder(no_empty=True),
    extra_params=(),
)
"""Common ground of servers of one vendor: several instructions are taken, pictures in results are not,
and Gemini's signatures are only by those who serve Gemini (Fireworks refuses unknown fields:
Flowise#2866, midscene#1322)."""
_ONE_SYSTEM = TurnOrder(one_system=True, no_empty=True)
_replace = msgspec.structs.replace

SERVERS: dict[str, Dialect] = {
    "generic": GENERIC,
    "openai": Dialect(ids=OPENAI_IDS),
    "azure": Dialect(ids=OPENAI_IDS),
    "cerebras": _replace(  # inference-docs.cerebras.ai/resources/openai: these are a 400
        _HOSTED,
        max_tokens="max_completion_tokens",
        without=("frequency_penalty", "presence_penalty", "logit_bias"),
    ),
    "cohere": _HOSTED,
    "copilot": _replace(_HOSTED, signatures="kept"),
    "dashscope": _replace(  # Qwen's template: "System message must be at the beginning"
        _HOSTED,
        order=_ONE_SYSTEM,
        reasoning=_budget,
        prefill="partial",  # help.aliyun.com/model-studio: partial mode
        extra_params=("top_k", "repetition_penalty"),
    ),
    "databricks": _replace(_HOSTED, signatures="kept"),
    "deepinfra": _replace(
        _HOSTED, signatures="kept", extra_params=("top_k", "min_p", "repetition_penalty")
    ),
    "deepseek": _replace(  # OmniRoute#1682: in thinking mode, no turn may be without
        _HOSTED, reasoning=_switch, replay=_content_always, silent=""
    ),
    "fireworks": _replace(_HOSTED, replay=_content, extra_params=("top_k", "min_p")),
    "gemini": _replace(_HOSTED, signatures="required"),
    "groq": _replace(  # console.groq.com/docs/openai: a 400; jan#8136: unknown fields, too
        _HOSTED,
        max_tokens="max_completion_tokens",
        replay=_reasoning,
        names=False,
        one_choice=True,
        without=("logprobs", "top_logprobs", "logit_bias"),
    ),
    "huggingface": GENERIC,
    "llama.cpp": _replace(GENERIC, replay=_content),
    "llama-cpp-python": _replace(GENERIC, any_tool_content=False, silent=""),
    "lmstudio": GENERIC,
    "mimo": _replace(  # platform.xiaomimimo.com: passing-back-reasoning_content; MiMo#44, Flash#8
        _HOSTED, reasoning=_switch, replay=_content_beside_calls, silent=BLANK
    ),
    "minimax": _replace(  # MiniMax-M2#51: one system message
        _HOSTED, wire="minimax", replay=_details, one_choice=True, order=_ONE_SYSTEM
    ),
    "mistral": _replace(  # it refuses stream_options, and sends usage anyway
        GENERIC,
        seed="random_seed",
        stream_usage=False,
        bare_media=True,
        signatures="",
        names=False,  # mistral-go#3: "extra_forbidden"
        ids=MISTRAL_IDS,
        order=TurnOrder(one_system=True, bridge=True, no_empty=True),  # avante.nvim#2562
        prefill="prefix",
        without=("user", "logit_bias", "stream_options", "include_obfuscation"),
        extra_params=("top_k", "repetition_penalty"),
    ),
    "moonshot": _replace(  # "reasoning_content is missing in assistant tool call message"
        _HOSTED,
        reasoning=_switch_or_effort,
        replay=_content_beside_calls,
        silent="",
        prefill="partial",
        flavored_schemas=True,  # kimi-code#2661, hermes-agent PR 14805
    ),
    "nvidia": _HOSTED,
    "ollama": _replace(GENERIC, replay=_reasoning, extra_params=()),
    "openrouter": OpenRouter.dialect,
    "perplexity": _replace(  # api-discussion#265
        _HOSTED,
        order=_replace(GENERIC.order, opening=True),
        extra_params=("top_k",),
    ),
    "sambanova": _replace(_HOSTED, extra_params=("top_k",)),
    "sglang": _replace(GENERIC, replay=_content),
    "snowflake": _replace(_HOSTED, max_tokens="max_completion_tokens"),
    "together": _replace(_HOSTED, extra_params=_SAMPLERS),
    "vllm": _replace(GENERIC, replay=_reasoning),
    "xai": _replace(_HOSTED, max_tokens="max_completion_tokens"),
    "zai": _replace(_HOSTED, reasoning=_switch, replay=_content),  # docs.z.ai: thinking-mode
}
"""The known servers by name, with how requests to each differ from OpenAI's."""

_HOSTS = {
    "api.openai.com": "openai",
    "*.openai.azure.com": "azure",
    "*.services.ai.azure.com": "azure",
    "*.cognitiveservices.azure.com": "azure",
    "api.cerebras.ai": "cerebras",
    "api.cohere.com": "cohere",
    "api.cohere.ai": "cohere",
    "api.githubcopilot.com": "copilot",
    "api.*.githubcopilot.com": "copilot",
    "dashscope*.aliyuncs.com": "dashscope",
    "*.dashscope.aliyuncs.com": "dashscope",
    "*.maas.aliyuncs.com": "dashscope",
    "*.cloud.databricks.com": "databricks",
    "*.gcp.databricks.com": "databricks",
    "*.azuredatabricks.net": "databricks",
    "api.deepinfra.com": "deepinfra",
    "api.deepseek.com": "deepseek",
    "api.fireworks.ai": "fireworks",
    "generativelanguage.googleapis.com": "gemini",
    "*aiplatform.googleapis.com": "gemini",
    "api.groq.com": "groq",
    "router.huggingface.co": "huggingface",
    "*.endpoints.huggingface.cloud": "huggingface",
    "*.xiaomimimo.com": "mimo",
    "api.minimax.io": "minimax",
    "api.minimaxi.com": "minimax",
    "api.minimax.chat": "minimax",
    "api.mistral.ai": "mistral",
    "api.moonshot.ai": "moonshot",
    "api.moonshot.cn": "moonshot",
    "api.kimi.com": "moonshot",
    "integrate.api.nvidia.com": "nvidia",
    "openrouter.ai": "openrouter",
    "api.perplexity.ai": "perplexity",
    "api.sambanova.ai": "sambanova",
    "*.snowflakecomputing.com": "snowflake",
    "api.together.xyz": "together",
    "api.together.ai": "together",
    "api.x.ai": "xai",
    "api.z.ai": "zai",
    "open.bigmodel.cn": "zai",
}
"""Hosts of known servers; a star stands for any text."""


def server_at(base_url: str) -> str:
    """Return the name of the known server at an address, else ``"generic"``."""
    host = host_of(base_url)
    return next((name for known, name in _HOSTS.items() if fnmatchcase(host, known)), "generic")
