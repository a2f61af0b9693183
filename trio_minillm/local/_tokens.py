"""Exact counts of prompts by a local model's server, which generates nothing for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from ..providers import Model

CountPrompt: TypeAlias = Callable[[Mapping[str, Any]], int | None]
"""A function that returns the tokens of the prompt of a request with this body, ``None`` if the server
can't say."""

SECONDS = 30.0
"""Longest wait for a count. One takes a millisecond or two."""


@contextmanager
def prompt_counter(model: Model) -> Iterator[CountPrompt]:
    """Give a function that counts as a local model's server does, template and tools included, for
    the length of the block. It blocks: it is for worker threads.
    """
    import httpx

    url = f"{model.base_url}/chat/completions/input_tokens"
    headers = {"authorization": f"Bearer {model.api_key}"}
    # There is no TLS on this address, and loading certificates takes a while.
    with httpx.Client(headers=headers, trust_env=False, verify=False, timeout=SECONDS) as client:  # noqa: S501

        def count(body: Mapping[str, Any]) -> int | None:
            try:
                answer = client.post(url, json=body)
                found = answer.json()["input_tokens"]
            except (httpx.HTTPError, ValueError, KeyError, TypeError):
                return None
            return found if type(found) is int else None

        yield count
