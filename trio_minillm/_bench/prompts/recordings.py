"""The lengths of recorded requests, by the usage of their answers.

A recording (`trio_minillm.testing.record`) holds no request's body, so that no prompt is ever in a file, and
no time between requests. The answers tell how long the prompts were, and are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from ..._client import open_client
from ..._serve.programs import PROVIDERS
from ..._types.errors import MiniLLMError
from ..._types.options import Retry
from ..._types.response import CompletionResponse
from ...providers import Model
from ...providers._models import compatible
from ...testing import hang, replay
from ...testing._events import wire_of
from ...testing._script import ServedRequest
from .collected import PromptError, Shape

_AT = "http://127.0.0.1"


async def recorded_shapes(path: Path) -> list[Shape]:
    """Return the lengths of the requests in a recording whose answers tell them, in their order.

    Raises `PromptError` for a recording that can't be read, or has none such.
    """
    from ...testing import ScriptedTransport  # which imports httpx

    try:
        replies = replay(path, speed=math.inf)
    except ValueError as exc:
        raise PromptError(f"{path}: {exc}") from None
    found: list[Shape] = []
    for url, reply in zip(_urls(path), replies, strict=False):
        if hang in (reply.wait, *reply.steps):  # the client hung up before the end
            continue
        async with open_client(transport=ScriptedTransport(reply)) as client:
            response: CompletionResponse[Any] | None
            try:
                response = await client.complete(_model_at(url), "-", retry=Retry(attempts=1))
            except MiniLLMError as exc:
                response = exc.partial
        usage = None if response is None else response.usage
        if usage is not None and usage.prompt_tokens and usage.completion_tokens:
            found.append(Shape(tokens=usage.prompt_tokens, output=usage.completion_tokens))
    if not found:
        raise PromptError(f"{path}: no answer in this recording reports prompt tokens")
    return found


def _urls(path: Path) -> Iterator[str]:
    """Yield the addresses of a recording's requests for answers, in their order."""
    with path.open("rb") as file:
        for line in file:
            try:
                opening = msgspec.json.decode(line)
            except msgspec.DecodeError:
                return  # torn: its writer was stopped
            method, url = opening.get("method"), opening.get("url", "")
            if method is None:
                continue
            asked = ServedRequest(method=method, target=url, headers={}, body=b"")
            if not asked.is_question:
                yield url


def _model_at(url: str) -> Model:
    """Return a model on the wire format of an address."""
    model = compatible("m", base_url=_AT, api_key="-")
    wire = wire_of(url.partition("?")[0])
    return msgspec.structs.replace(model, provider=PROVIDERS[wire]())
