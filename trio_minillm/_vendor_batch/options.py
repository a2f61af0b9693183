"""Options of a run in vendors' batches by name, and the same checked and with their defaults."""

from __future__ import annotations

from typing import Any, TypedDict

import msgspec

from .._batch.scoring import Score, Validate
from .._types.checks import check_count, check_seconds

PART_BYTES = 100_000_000
"""Most bytes of a part unless the caller says otherwise: it is held in memory while it is sent."""
FIRST_LOOK, LOOK_FACTOR, LOOK_EVERY = 5.0, 1.5, 60.0
"""Seconds before the first look at a batch, the factor from each wait to the next, and the longest."""
SETTLE = 60.0
"""Seconds that a batch may take to show up in the vendor's list, once its submission was cut off."""


class VendorBatchOptions(TypedDict, total=False):
    """Arguments of `Client.vendor_batch` by name. ``None`` stands for the default throughout."""

    part_requests: int | None
    """Most requests in one batch; by default as many as the vendor takes (OpenAI 50,000, Anthropic
    100,000)."""
    part_bytes: int | None
    """Most bytes of one batch (100 MB), which are held in memory while it is sent. OpenAI takes 200 MB,
    Anthropic 256 MB."""
    look_every: float | None
    """Longest wait between two looks at a batch, in seconds (60). The first look comes after 5 s, and
    each wait is half as long again as the one before."""
    settle: float | None
    """Seconds (60) that a batch may take to show up in the vendor's list, where a kill or a broken
    connection has left open whether it was submitted. Only then is it submitted again."""
    samples: int | None
    """Answers that are asked for each request (1)."""
    submit: bool | None
    """False to submit nothing, and only fetch what is at the vendor already."""
    failures: bool | None
    """False to make no results of requests that the vendor refused or failed at: they are among the
    ``unreturned``, to be asked live."""
    validate: Validate | None
    """As in `BatchOptions`, but an invalid answer is not asked again."""
    score: Score | None
    """As in `BatchOptions`."""


class VendorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options, checked and with their defaults; see `VendorBatchOptions`."""

    part_requests: int | None = None
    part_bytes: int = PART_BYTES
    look_every: float = LOOK_EVERY
    settle: float = SETTLE
    samples: int = 1
    submit: bool = True
    failures: bool = True
    validate: Validate | None = None
    score: Score | None = None

    def __post_init__(self) -> None:
        for name in ("part_requests", "part_bytes", "samples"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        for name in ("look_every", "settle"):
            check_seconds(name, getattr(self, name))
        if not self.look_every:
            raise ValueError("look_every must be more than 0")
        for name in ("validate", "score"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise TypeError(f"{name} must be a function")


def settings_from(options: VendorBatchOptions) -> VendorSettings:
    """Return the options checked and with their defaults.

    Raises ``TypeError`` for an unknown one, ``ValueError`` for a wrong value.
    """
    given: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
    return VendorSettings(**given)
