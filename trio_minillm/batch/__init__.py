"""Thousands of requests in one process, under one layer of control: `Client.batch`."""

from ._input import InputError, InputReport, Problem, RequestFile
from ._keys import in_shard
from ._output import ResultFile, ResultFileError, read_results
from ._result_format import ResultLine
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
    "InputError",
    "InputReport",
    "Problem",
    "RequestFile",
    "ResultFile",
    "ResultFileError",
    "ResultLine",
    "Watch",
    "in_shard",
    "read_results",
    "settings_of",
]
