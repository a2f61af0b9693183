"""Anthropic's Message Batches: requests in one call, results in one file of lines. Pure.

Its reference says: at most 100,000 requests or 256 MB in a batch; an id is of up to 64 letters, digits,
hyphens and underscores; the order of the results is not that of the requests; requests that errored, were
canceled or expired are not paid for; the lists have the newest batches first. A batch has no metadata.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from ..providers import Model
from ..providers._base import joined_url
from .vendors import BatchState, Call, ItemEnd, Reason, Vendor, below, decoded

_REASONS: dict[str, Reason] = {"canceled": "cancelled", "expired": "expired"}
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""Anthropic's page "Errors": the status that each type of error has in a live answer."""


class AnthropicBatches(Vendor):
    """The Message Batches of Anthropic, and of servers that imitate them."""

    name = "anthropic"
    max_requests = 100_000
    max_bytes = 256_000_000
    marks = False

    def line(self, id: str, body: dict[str, Any], path: str) -> bytes:
        body.pop("stream", None)
        return msgspec.json.encode({"custom_id": id, "params": body})

    def create(
        self, model: Model, token: str, lines: Sequence[bytes], file: str, path: str
    ) -> Call:
        body = b"".join((b'{"requests":[', b",".join(lines), b"]}"))
        return Call("POST", self.place(model), body)

    def place(self, model: Model) -> str:
        return joined_url(
            model.base_url, "/messages/batches", version="/v1", instead_of="/messages"
        )

    def newest(self, model: Model, after: str | None) -> Call:
        query = "limit=100" + (f"&after_id={after}" if after else "")
        return Call("GET", below(self.place(model), "", query))

    def state(self, model: Model, data: bytes) -> BatchState:
        """Read a batch.

        The address of its results is taken if it is below the one that is asked, and made otherwise:
        behind a proxy it may name Anthropic's own, which must not get the key of the proxy.
        """
        batch: _Batch = decoded(data, _Batch)
        counts = batch.request_counts
        ended = counts.succeeded + counts.errored + counts.canceled + counts.expired
        over = batch.processing_status == "ended"
        place, _, _ = self.place(model).partition("?")
        given = batch.results_url or ""
        own = below(self.place(model), f"/{batch.id}/results")
        results = given if given.startswith(f"{place}/{batch.id}/") else own
        return BatchState(
            id=batch.id,
            status=batch.processing_status,
            over=over,
            results=(results,) if over else (),
            total=counts.processing + ended,
            done=ended,
            created=batch.created_at.timestamp(),
        )

    def item(self, line: bytes) -> ItemEnd:
        found: _Line = decoded(line, _Line)
        result = found.result
        if result.type == "succeeded":
            return ItemEnd(id=found.custom_id, body=bytes(result.message))
        if result.type != "errored":
            return ItemEnd(id=found.custom_id, reason=_REASONS.get(result.type, "missing"))
        body = bytes(result.error)
        told = decoded(body, _Refusal) if body != b"null" else _Refusal()
        status = _STATUSES.get(told.error.type, 500)
        return ItemEnd(id=found.custom_id, status=status, body=body, request_id=told.request_id)


class _Counts(msgspec.Struct):
    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0


class _Batch(msgspec.Struct):
    id: str
    processing_status: str
    created_at: datetime
    request_counts: _Counts
    results_url: str | None = None


class _Result(msgspec.Struct):
    type: str
    message: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")


class _ErrorWord(msgspec.Struct):
    type: str = ""


class _Refusal(msgspec.Struct):
    error: _ErrorWord = msgspec.field(default_factory=_ErrorWord)
    request_id: str | None = None


class _Line(msgspec.Struct):
    custom_id: str
    result: _Result
