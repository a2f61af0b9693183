"""Thousands of requests in one process, under one layer of control: `Client.batch`."""

from ._values import Attempt, BatchRequest, BatchResult

__all__ = ["Attempt", "BatchRequest", "BatchResult"]
