"""Known servers and what each does differently: data, from which tests and docs/servers/servers.md are made.

Each module holds the entries of one area. A `Difference` names the server, what it sends or wants,
what this library makes of that, where the fact is from, and a check that fails if it is not so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Difference(NamedTuple):
    """One thing that a server does in its own way."""

    server: str
    """The server's name, as its users know it: ``Z.ai (GLM)``."""
    does: str
    """Behaviour of the server (what it sends or wants), in a few words; the page's second column."""
    handled: str
    """Handling by this library; the third column."""
    source: str
    """Source of the fact: a vendor's reference, or ``owner/repository#number``."""
    check: Callable[[], None]
    """Raises ``AssertionError`` unless it is handled as said."""
