"""What an answer is worth: the value that was asked for, and the caller's score of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import replace

from .types import BatchResult

Score: TypeAlias = Callable[[BatchResult], Any]
"""A function, async or not, of a result; what it returns is the result's ``score``."""


async def score_result(result: BatchResult, score: Score | None) -> BatchResult:
    """The result with ``value`` or ``invalid``, where its request wanted a type, and ``score``.

    The score is asked for failed results too, with all else in place. What it raises is raised.
    Waits for nothing but an async score.
    """
    wanted = None if result.response is None else result.response.response_type
    if wanted is not None:
        assert result.response is not None
        try:
            result = replace(result, value=result.response.parsed())
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            error.__traceback__ = None  # its frames hold the answer, and much else
            result = replace(result, invalid=error)
    if score is None:
        return result
    given = score(result)
    return replace(result, score=await given if inspect.isawaitable(given) else given)
