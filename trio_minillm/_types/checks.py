"""Checks of arguments, at the call and not somewhere inside, and warnings. None shows a value."""

from __future__ import annotations

import inspect
import warnings
from types import NoneType, UnionType
from typing import get_args


def check_type(what: str, value: object, kind: type | UnionType) -> None:
    """Raise ``TypeError`` for an argument of another type."""
    if not isinstance(value, kind):
        raise wrong_type(what, value, *(get_args(kind) or (kind,)))


def check_option(what: str, value: object, kind: type) -> None:
    """Raise ``TypeError`` for an argument of another type that is not ``None``."""
    if value is not None and not isinstance(value, kind):
        raise wrong_type(what, value, kind, NoneType)


def check_function(what: str, value: object) -> None:
    """Raise ``TypeError`` for an argument that can't be called and is not ``None``."""
    if value is not None and not callable(value):
        raise wrong_type(what, value, "a function", NoneType)


def wrong_type(what: str, value: object, *kinds: object) -> TypeError:
    """Return the error for an argument of none of these types."""
    wanted = " or ".join(
        "None" if k is NoneType else k if isinstance(k, str) else getattr(k, "__name__", str(k))
        for k in kinds
    )
    return TypeError(f"{what} must be {wanted}, not {type(value).__name__}")


def check_count(name: str, value: object) -> None:
    """Raise ``ValueError`` unless the value is a whole number, 1 or more."""
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} must be a whole number, 1 or more")


def check_seconds(name: str, value: object) -> None:
    """Raise ``ValueError`` unless the value is a number of seconds, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"{name} must be a number of seconds, 0 or more")


def warn_caller(message: str) -> bool:
    """Warn (``UserWarning``) at the line that called into this package. Returns False, and warns nobody,
    in a task of its own, which no line has called.
    """
    level, frame = 1, inspect.currentframe()
    while frame and frame.f_back and frame.f_globals.get("__name__", "").startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    if frame and frame.f_globals.get("__name__", "").startswith("trio."):
        return False
    warnings.warn(message, stacklevel=level)
    return True


_PACKAGE = __name__.partition(".")[0] + "."
