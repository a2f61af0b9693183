"""Errors of a run in vendors' batches."""

from __future__ import annotations

from .._types.errors import MiniLLMError


class VendorBatchError(MiniLLMError):
    """A run in vendors' batches can't go on without risking that something is paid for twice, or what
    the vendor has is out of reach.
    """
