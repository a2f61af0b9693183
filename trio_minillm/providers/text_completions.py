"""Text completions: a prompt is continued as it is, over OpenAI's older endpoint ``/v1/completions``.

OpenAI has a few models on it still; vLLM, SGLang, llama.cpp, llama-cpp-python, TGI, LM Studio,
OpenRouter and DeepSeek (to fill in the middle) serve any of theirs. Events differ from those of chat
completions in that a choice has ``text`` in place of ``delta``, so that the rest of them is read by
the same rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from .._types.chunks import StreamChunk
from .._types.errors import ProtocolError
from .._types.usage import Usage
from ._base import (
    MODELS,
    Model,
    Request,
    SettlementRequest,
    host_of,
    is_token,
    joined_url,
    url_beside,
)
from ._openai_choices import advances
from ._openai_request import Dialect
from ._server_quirks import SERVERS
from ._text_events import in_words_of_chat, ordinary_chunk, take_prompt_logprobs
from ._text_request import COMPLETIONS, text_body, typed_fields
from .openai import CHAT, DONE, OpenAIChat, Read
from .openrouter import OpenRouter

_TEXT = "choices[].text"
_CHARGES = OpenRouter()


class TextCompletions(OpenAIChat):
    """The provider for text completions.

    ``server`` is the name of an entry of `SERVERS`. Raises ``ValueError`` for an unknown one.
    """

    name = "text"
    replay_wire = "text"
    literal_text = True
    any_text = True

    def __init__(self, server: str = "generic") -> None:
        if server not in SERVERS:
            raise ValueError(f"unknown server {server!r}; known: {', '.join(sorted(SERVERS))}")
        self.server = server
        self.bills: bool = server == "openrouter"
        # Whatever it is called in chat, the bound of an answer has one name in this format.
        self.dialect: Dialect = msgspec.structs.replace(SERVERS[server], max_tokens="max_tokens")

    def endpoint_url(self, model: Model) -> str:
        """Return the URL; a query in the base URL (Azure's ``api-version``) stays at its end."""
        return joined_url(model.base_url, COMPLETIONS, instead_of=CHAT)

    def models_url(self, model: Model, after: str | None = None) -> str:
        """Return the URL of the list, which has one page."""
        return url_beside(self.endpoint_url(model), COMPLETIONS, MODELS)

    def auth_headers(self, model: Model) -> dict[str, str]:
        key, host = model.api_key, host_of(model.base_url)
        if key and host.endswith(".azure.com") and not is_token(key):
            return {"api-key": key}
        return super().auth_headers(model)

    @property
    def typed_fields(self) -> frozenset[str]:
        return typed_fields(self.dialect)

    def build_request(self, request: Request) -> dict[str, Any]:
        return text_body(request, self.dialect)

    def counts_all_choices(self, model: Model) -> bool:
        """Return True for vLLM as well, whose server adds up the tokens of all choices."""
        return self.server == "vllm" or super().counts_all_choices(model)

    # -- answers ---------------------------------------------------------------------------

    def parse_chunk(self, data: bytes) -> Read:
        if data != DONE and (ordinary := ordinary_chunk(data, self._told)) is not None:
            return ordinary
        parsed = super().parse_chunk(data)
        _checked([parsed] if isinstance(parsed, StreamChunk) else parsed)
        return parsed

    def parse_response(self, body: bytes) -> Sequence[StreamChunk]:
        parsed = super().parse_response(body)
        take_prompt_logprobs(body, _checked(parsed))
        return parsed

    # -- OpenRouter's cost -----------------------------------------------------------------

    def generation_id(self, headers: Mapping[str, str]) -> str | None:
        return _CHARGES.generation_id(headers) if self.bills else None

    def settlement_request(self, model: Model, generation_id: str) -> SettlementRequest | None:
        """Return the request that asks OpenRouter. No other server can be asked."""
        if not self.bills:
            return None
        ident = quote(generation_id, safe="")
        url = joined_url(model.base_url, "/generation", instead_of=COMPLETIONS, query=f"id={ident}")
        return SettlementRequest(url=url)

    def parse_settlement(self, body: bytes) -> Usage | None:
        return _CHARGES.parse_settlement(body)


def _checked(chunks: Sequence[StreamChunk]) -> Sequence[StreamChunk]:
    """Return chunks that chat's rules have read, with what differs in this format.

    Raises `ProtocolError` for text that could not be read: there it stands beside the answer, here it
    is the answer.
    """
    for chunk in chunks:
        if chunk.unread and _TEXT in chunk.unread:
            raise ProtocolError(f"{_TEXT} is not text")
        if chunk.logprobs:
            in_words_of_chat(chunk)
            chunk.progress = advances(chunk) or chunk.usage is not None
    return chunks
