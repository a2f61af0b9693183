"""Additions to a result once its answer is whole: the typed value, and the caller's judgements."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import replace

from .types import BatchResult

Validate: TypeAlias = Callable[[BatchResult], Any]
"""A function of a result with an answer, async or not, that raises ``ValueError`` for one that won't
do."""
Score: TypeAlias = Callable[[BatchResult], Any]
"""A function of a result, async or not, that returns the result's ``score``."""


async def validated_result(result: BatchResult, validate: Validate | None) -> BatchResult:
    """Return the result of an answer with its ``value`` if its request asked for a type, and with
    ``invalid`` if it is not of that type or ``validate`` refuses it.

    ``validate`` is not asked about an answer of another type. Any other exception of it than
    ``ValueError`` and msgspec's is raised.
    """
    assert result.response is not None
    try:
        if result.response.response_type is not None:
            result = replace(result, value=result.response.value)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return replace(result, invalid=_without_frames(error))
    if validate is None:
        return result
    try:
        given = validate(result)
        if inspect.isawaitable(given):
            await given
    except (ValueError, msgspec.MsgspecError) as error:
        return replace(result, invalid=_without_frames(error), value=None)
    return result


async def score_result(result: BatchResult, score: Score) -> BatchResult:
    """Return the result with its ``score``.

    Failed results are scored, too. ``score`` sees all other fields in place, and what it raises is
    raised. Nothing is waited for but an async score.
    """
    given = score(result)
    return replace(result, score=await given if inspect.isawaitable(given) else given)


def _without_frames(error: Exception) -> Exception:
    """Return the error without its frames, which hold the answer, and much else."""
    error.__traceback__ = None
    return error
