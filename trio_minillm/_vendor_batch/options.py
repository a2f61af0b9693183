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
    """The keyword arguments of `Client.vendor_batch`. ``None`` means the default everywhere."""

    part_requests: int | None
    """The largest number of requests in one batch. The default is what the vendor accepts: 50,000
    for OpenAI, 100,000 for Anthropic."""
    part_bytes: int | None
    """The largest size of one batch in bytes (100 MB), which is held in memory while it is sent.
    OpenAI accepts 200 MB, and Anthropic 256 MB."""
    look_every: float | None
    """The longest wait between two checks of a batch, in seconds (60). The first check is after 5
    seconds, and each wait is half as long again as the one before."""
    settle: float | None
    """The seconds (60) that a batch may take to appear in the vendor's list, if a kill or a broken
    connection has left open whether it was submitted. Only then is it submitted again."""
    samples: int | None
    """The number of answers to each request (1)."""
    submit: bool | None
    """False to submit nothing, and only fetch what is already at the vendor."""
    failures: bool | None
    """False to make no results for requests that the vendor refused or failed. They are then in
    ``unreturned``, so that you can send them live."""
    validate: Validate | None
    """A function as in `BatchOptions`, but the model is not asked again after an invalid answer."""
    score: Score | None
    """A function as in `BatchOptions`."""


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
