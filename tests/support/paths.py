"""Paths that tests use: the repository, the recorded data beside it, a TLS authority."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
BENCHMARKS = REPOSITORY / "benchmarks"
SHARED = Path(os.environ.get("TRIO_MINILLM_SHARED") or REPOSITORY.parent / "shared")
"""Recorded streams and conformance cases. They need not be there: their tests are skipped then."""
TLS_FILES = Path(__file__).resolve().parent / "tls"
"""A test authority, and a server's certificate of it for localhost and 127.0.0.1."""


def doc(name: str) -> Path:
    """Return the page of this name, in whatever section of the documentation it is."""
    (found,) = DOCS.rglob(name)
    return found
