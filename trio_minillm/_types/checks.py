"""Checks of arguments, at the call and not somewhere inside. None shows a value."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import get_args


def check_type(what: str, value: object, kind: type | UnionType) -> None:
    """Raise ``TypeError`` for an argument of another type."""
    if not isinstance(value, kind):
        raise wrong_type(what, value, *(get_args(kind) or (kind,)))


def wrong_type(what: str, value: object, *kinds: object) -> TypeError:
    """Return the error for an argument of none of these types."""
    wanted = " or ".join(
        "None" if k is NoneType else k if isinstance(k, str) else getattr(k, "__name__", str(k))
        for k in kinds
    )
    return TypeError(f"{what} must be {wanted}, not {type(value).__name__}")


def check_count(name: str, value: object) -> None:
    """Raise ``ValueError`` unless the value is a whole number from 1 on."""
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} must be a whole number from 1 on")
