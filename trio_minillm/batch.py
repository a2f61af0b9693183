"""Batches: thousands of requests in one process, which `Client.batch` sends."""

from typing import TYPE_CHECKING, Any

from ._batch.batch import Batch
from ._batch.files.append_file import ResultFileError
from ._batch.files.key_table import in_shard
from ._batch.files.request_file import InputError, InputReport, Problem, RequestFile
from ._batch.files.response_cache import CacheError, ResponseCache
from ._batch.files.result_file import ResultFile, read_results
from ._batch.files.result_format import ResultLine
from ._batch.files.result_table import write_table
from ._batch.options import BatchOptions
from ._batch.results import Watch
from ._batch.statistics import BatchStatistics
from ._batch.throttle.controls import Control
from ._batch.throttle.traced_lane import TraceEvent
from ._batch.types import Attempt, BatchRequest, BatchResult
from ._batch.validation import validate_schema
from ._vendor_batch.errors import VendorBatchError
from ._vendor_batch.journal import Journal
from ._vendor_batch.options import VendorBatchOptions
from ._vendor_batch.parts import Unreturned
from ._vendor_batch.vendor_batch import AtVendor, VendorBatch, VendorStatistics

if TYPE_CHECKING:
    from .adapters.ray import on_ray

__all__ = [
    "AtVendor",
    "Attempt",
    "Batch",
    "BatchOptions",
    "BatchRequest",
    "BatchResult",
    "BatchStatistics",
    "CacheError",
    "Control",
    "InputError",
    "InputReport",
    "Journal",
    "Problem",
    "RequestFile",
    "ResponseCache",
    "ResultFile",
    "ResultFileError",
    "ResultLine",
    "TraceEvent",
    "Unreturned",
    "VendorBatch",
    "VendorBatchError",
    "VendorBatchOptions",
    "VendorStatistics",
    "Watch",
    "in_shard",
    "on_ray",
    "read_results",
    "validate_schema",
    "write_table",
]


def __getattr__(name: str) -> Any:
    """Load `on_ray` when it is asked for: few programs need it."""
    if name == "on_ray":
        from .adapters.ray import on_ray

        return on_ray
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
