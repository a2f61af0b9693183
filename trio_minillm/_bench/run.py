"""One benchmark from its plan to its result: one point, a sweep of several, or a search.

The result is a value that all outputs are made of: the table, JSON, CSV, the report, a comparison.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from .audit.audit import Audit
from .audit.null import NullRun
from .figures.figures import Figures
from .plan import Load
from .steady import Steady

SCHEMA = "trio-minillm/bench/1"
"""Name and version of the JSON object's form."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one load."""

    load: Load
    seed: int = 0
    """Seed of what was drawn at random for it, the resamples of its intervals included."""
    figures: Figures
    warmup: Figures | None = None
    alone: Figures | None = None
    """Of the requests to the first model alone, where two are compared."""
    steady: Steady | None = None
    """The steady state that was looked for, whose requests alone the figures are made of if it was found."""
    audit: Audit = Audit()
    """Proof that the figures can be believed: CPU, lag and pauses of the client."""
    null_run: NullRun | None = None
    """The same load against a server whose timing is known (``--null-run``)."""
    notes: tuple[str, ...] = ()
    """Qualifications of the figures."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one command has measured."""

    version: str
    at: datetime
    config: dict[str, Any]
    """The options: no key, and of prompts only their number and size."""
    points: tuple[Point, ...]
    """One for each load, in the order in which they ran."""
    found: dict[str, Any] | None = None
    """The outcome of a search for the highest load that meets an objective."""
