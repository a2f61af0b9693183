"""Other servers that speak OpenAI's chat-completions format.

Their responses are read by `OpenAIChat`; the differences in requests are a table (`SERVERS`). A
server is recognised by its host, or named with ``server=``; an unknown one gets the common
denominator.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

import msgspec

from ._base import MODELS, Model, is_token, joined_url, url_beside
from ._formats import ANY, FORMATS
from ._openai_request import Dialect
from ._server_quirks import SERVERS, for_model
from .openai import CHAT, OpenAIChat

_AZURE_NEWER = "2024-09-01"
"""First ``api-version`` of Azure's that knows ``stream_options`` and ``max_completion_tokens``
(azure-sdk-for-java#43037); the earlier ones refuse both (openai/openai-python#1469,
openai/openai-python#1724)."""


def _is_beta(url: str) -> bool:
    """Return whether an address is that of DeepSeek's beta, the only one that continues a last message
    of the model (api-docs.deepseek.com: chat prefix completion; QuantumNous/new-api#999).
    """
    return "beta" in urlsplit(url).path.split("/")


class Compatible(OpenAIChat):
    """The provider for any server that speaks OpenAI's chat-completions format.

    ``server`` is the name of an entry of `SERVERS`. Raises ``ValueError`` for an unknown one.
    """

    name = "compatible"
    replay_wire = "compatible"
    any_text = True

    def __init__(self, server: str = "generic") -> None:
        if server not in SERVERS:
            raise ValueError(f"unknown server {server!r}; known: {', '.join(sorted(SERVERS))}")
        self.server = server
        formats = FORMATS.get(server, ANY)
        self.dialect: Dialect = msgspec.structs.replace(SERVERS[server], formats=formats)

    def endpoint_url(self, model: Model) -> str:
        """Return the URL.

        The endpoint of a resource at Azure, as its page shows it, stands for ``/openai/v1``, or,
        with an API version, for the deployment named after the model.
        """
        where = urlsplit(model.base_url) if self.server == "azure" else None
        if where is None or where.path.rstrip("/") not in ("", "/openai"):
            return joined_url(model.base_url, CHAT)
        version = parse_qs(where.query).get("api-version", [""])[-1]
        dated = f"/openai/deployments/{quote(model.name, safe='')}"
        base = dated if version[:1].isdigit() else "/openai/v1"
        return urlunsplit(where._replace(path=base + CHAT))

    def models_url(self, model: Model, after: str | None = None) -> str:
        """Return the URL of the list, which has one page; Azure's is not below a deployment."""
        url = url_beside(self.endpoint_url(model), CHAT, MODELS)
        return re.sub(r"/deployments/[^/]+(?=/models)", "", url) if self.server == "azure" else url

    def auth_headers(self, model: Model) -> dict[str, str]:
        if self.server == "azure" and model.api_key and not is_token(model.api_key):
            return {"api-key": model.api_key}
        return super().auth_headers(model)

    def wire_at(self, model: Model) -> str:
        """Return ``compatible``, whose reasoning is plain text for any server, or the name of a
        server that has its own blocks.
        """
        return self.dialect.wire

    def dialect_at(self, model: Model) -> Dialect:
        """Return how requests to a model differ. At Azure, this depends on the version, and at
        DeepSeek on the path (``/beta``).
        """
        if self.server == "deepseek" and _is_beta(self.endpoint_url(model)):
            return msgspec.structs.replace(self.dialect, prefill="prefix")
        if self.server == "azure":
            version = parse_qs(urlsplit(model.base_url).query).get("api-version", [""])[-1]
            if version[:1].isdigit() and version < _AZURE_NEWER:
                old = msgspec.structs.replace(
                    self.dialect, stream_usage=False, max_tokens="max_tokens"
                )
                return for_model(old, self.server, model.name)
        return for_model(self.dialect, self.server, model.name)

    def counts_all_choices(self, model: Model) -> bool:
        """Return True for Azure and for vLLM, whose server adds up the tokens of all choices."""
        return self.server in ("azure", "vllm") or super().counts_all_choices(model)
