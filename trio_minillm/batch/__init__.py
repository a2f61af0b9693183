"""Thousands of requests in one process, under one layer of control: `Client.batch`."""

from ._results import Watch
from ._run import Batch, BatchOptions, settings_of
from ._statistics import BatchStatistics
from ._values import Attempt, BatchRequest, BatchResult

__all__ = [
    "Attempt",
    "Batch",
    "BatchOptions",
    "BatchRequest",
    "BatchResult",
    "BatchStatistics",
    "Watch",
    "settings_of",
]
