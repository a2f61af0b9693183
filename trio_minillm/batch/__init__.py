"""Thousands of requests in one process, under one layer of control: `Client.batch`."""

from typing import TYPE_CHECKING, Any

from ._batch import Batch
from ._cache import CacheError, ResponseCache
from ._input import InputError, InputReport, Problem, RequestFile
from ._keys import in_shard
from ._lines import ResultFileError
from ._output import ResultFile, read_results
from ._result_format import ResultLine
from ._results import Watch
from ._settings import BatchOptions
from ._statistics import BatchStatistics
from ._values import Attempt, BatchRequest, BatchResult

if TYPE_CHECKING:
    from ..adapters.ray import on_ray

__all__ = [
    "Attempt",
    "Batch",
    "BatchOptions",
    "BatchRequest",
    "BatchResult",
    "BatchStatistics",
    "CacheError",
    "InputError",
    "InputReport",
    "Problem",
    "RequestFile",
    "ResponseCache",
    "ResultFile",
    "ResultFileError",
    "ResultLine",
    "Watch",
    "in_shard",
    "on_ray",
    "read_results",
]


def __getattr__(name: str) -> Any:
    """`on_ray` stands above the client, which stands above this package."""
    if name == "on_ray":
        from importlib import import_module

        return import_module("trio_minillm.adapters.ray").on_ray
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
