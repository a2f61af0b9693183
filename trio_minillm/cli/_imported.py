"""Names in the user's own code, as options take them (``MODULE:NAME``): a function, a type, a schema."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import Any

from ._output import Misuse, one_line

MAX_SAID = 300
"""Characters of an exception of the user's code that a message shows."""


def imported(option: str, given: str, form: str) -> Any:
    """Return what ``given`` names, for an option that takes the ``form`` ``MODULE:…``. Raises `Misuse`.

    Modules are found in the current directory first, as ``python -m`` finds them.
    """
    name, mark, path = given.partition(":")
    if not mark or not name or not path:
        raise Misuse(f"{option} takes {form}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(name)
        for part in path.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as exc:
        hint = "; leave out .py" if name.endswith(".py") else ""
        raise Misuse(f"{option} {given}: {said(exc)}{hint}") from exc
    return found


def said(exc: BaseException) -> str:
    """Return an exception in a few words, with the line of the user's code that raised it."""
    place = ""
    frames = traceback.extract_tb(exc.__traceback__)
    theirs = [
        frame
        for frame in frames
        if Path(frame.filename).parent != _OURS and "importlib" not in frame.filename
    ]
    if theirs:
        place = f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})"
    return one_line(f"{type(exc).__name__}: {exc}", MAX_SAID) + place


_OURS = Path(__file__).parent
