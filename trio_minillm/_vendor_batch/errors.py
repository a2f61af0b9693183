"""Errors of a run in vendors' batches."""

from __future__ import annotations

from .._types.errors import MiniLLMError


class VendorBatchError(MiniLLMError):
    """A run in vendors' batches can't continue.

    Either something might be paid for twice, or what the vendor has can't be reached.
    """
