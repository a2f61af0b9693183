"""Additions to a result once its answer is whole: the typed value, and the caller's score."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import replace

from .types import BatchResult

Score: TypeAlias = Callable[[BatchResult], Any]
"""A function of a result, async or not, that returns the result's ``score``."""


async def score_result(result: BatchResult, score: Score | None) -> BatchResult:
    """Return the result with its ``score``, and with ``value`` or ``invalid`` if its request asked
    for a type.

    Failed results are scored, too. ``score`` sees all other fields in place, and what it raises is
    raised. Nothing is waited for but an async score.
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
