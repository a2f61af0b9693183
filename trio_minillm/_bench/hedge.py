"""The comparison of one model alone with the same behind a second one."""

from __future__ import annotations

import msgspec

from .._toolkit.choices.choice import ModelChoice
from .record import ALONE, MEASURED


class Hedge(msgspec.Struct, frozen=True, kw_only=True):
    """A second model behind the first, whose requests are sent in turn with those to the first alone."""

    name: str
    """The second model's name, as it was given."""
    after: float
    """Seconds without content after which the second model is asked."""
    choice: ModelChoice
    """Both models, as `first_of` takes them."""

    def turns(self, number: int) -> tuple[str, ...]:
        """Return the phases of a prompt's two requests, by turns in either order: the second may find the
        prompt in the server's cache.
        """
        both = ALONE, MEASURED
        return both[::-1] if number % 2 else both
