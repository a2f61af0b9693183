"""Known servers and how each differs: the data of the tests and of docs/servers/servers.md.

Each module holds the entries of one area. A `Difference` names the server, what it does, how this
library handles that, the source of the fact, and a check that fails if the entry is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Difference(NamedTuple):
    """One way in which a server differs."""

    server: str
    """The server's name, as its users know it: ``Z.ai (GLM)``."""
    does: str
    """What the server does, as a phrase with a verb; the second column of the page."""
    handled: str
    """What a user of the library gets; the third column."""
    source: str
    """Source of the fact: a vendor's reference, or ``owner/repository#number``."""
    check: Callable[[], None]
    """Raises ``AssertionError`` unless it is handled as said."""
