"""OpenAI's Batch API: a file of requests, a batch of it, and files of what became of them. Pure.

Its guide says: at most 50,000 requests and 200 MB in a batch, all to one endpoint and one model; the order
of the results is not that of the requests; requests that expired are in the file of errors, with the code
``batch_expired``; those that ended before are paid for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ..providers import Model
from ..providers._base import joined_url
from .vendors import BatchState, Call, ItemEnd, Reason, Vendor, below, decoded

MARK = "trio_minillm"
"""Name of the field of a batch's metadata that holds our token."""
_OVER = frozenset({"completed", "failed", "expired", "cancelled"})
_REASONS: dict[str, Reason] = {"batch_expired": "expired", "batch_cancelled": "cancelled"}
_STREAMING = ("stream", "stream_options")


class OpenAIBatches(Vendor):
    """The Batch API of OpenAI, and of servers that imitate it."""

    name = "openai"
    max_requests = 50_000
    max_bytes = 200_000_000
    marks = True

    def line(self, id: str, body: dict[str, Any], path: str) -> bytes:
        for name in _STREAMING:
            body.pop(name, None)
        made = {"custom_id": id, "method": "POST", "url": path, "body": body}
        return msgspec.json.encode(made)

    def upload(self, model: Model, token: str, lines: Sequence[bytes]) -> Call:
        """Return the call that uploads a file; https://platform.openai.com/docs/api-reference/files."""
        mark = f"trio-minillm-{token}"
        head = (
            f'--{mark}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f'--{mark}\r\ncontent-disposition: form-data; name="file"; filename="{mark}.jsonl"\r\n'
            "content-type: application/jsonl\r\n\r\n"
        )
        body = b"".join((head.encode(), b"\n".join(lines), f"\n\r\n--{mark}--\r\n".encode()))
        url = _address(model, "/files")
        return Call("POST", url, body, f"multipart/form-data; boundary={mark}")

    def uploaded(self, data: bytes) -> str:
        file: _File = decoded(data, _File)
        return file.id

    def create(
        self, model: Model, token: str, lines: Sequence[bytes], file: str, path: str
    ) -> Call:
        made = {
            "input_file_id": file,
            "endpoint": path,
            "completion_window": "24h",  # the only one there is
            "metadata": {MARK: token},
        }
        return Call("POST", self.place(model), msgspec.json.encode(made))

    def place(self, model: Model) -> str:
        return _address(model, "/batches")

    def newest(self, model: Model, after: str | None) -> Call:
        query = "limit=100" + (f"&after={after}" if after else "")
        return Call("GET", below(self.place(model), "", query))

    def state(self, model: Model, data: bytes) -> BatchState:
        batch: _Batch = decoded(data, _Batch)
        counts = batch.request_counts or _Counts()
        files = [one for one in (batch.output_file_id, batch.error_file_id) if one]
        places = tuple(_address(model, f"/files/{one}/content") for one in files)
        failure = None
        if batch.status == "failed" and not batch.output_file_id:  # else some were answered
            told = (batch.errors and batch.errors.data) or [_Error()]
            failure = (told[0].code or "failed", told[0].message or "no reason is given")
        over = batch.status in _OVER
        return BatchState(
            id=batch.id,
            status=batch.status,
            over=over,
            results=places if over else (),  # a file may be there before it is whole
            awaited=over
            and (counts.completed > 0 and not batch.output_file_id)
            | (counts.failed > 0 and not batch.error_file_id),
            total=counts.total or None,  # it is 0 until the batch is validated
            done=counts.completed + counts.failed,
            created=batch.created_at,
            token=(batch.metadata or {}).get(MARK),
            failure=failure,
        )

    def item(self, line: bytes) -> ItemEnd:
        found: _Line = decoded(line, _Line)
        if found.response is not None:
            answer = found.response
            return ItemEnd(
                id=found.custom_id,
                status=answer.status_code,
                body=bytes(answer.body),
                request_id=answer.request_id,
            )
        error = found.error or _Error()
        reason = _REASONS.get(error.code or "")
        if reason is not None:
            return ItemEnd(id=found.custom_id, reason=reason)
        body = msgspec.json.encode({"error": {"code": error.code, "message": error.message}})
        return ItemEnd(id=found.custom_id, status=500, body=body)


class _File(msgspec.Struct):
    id: str


class _Counts(msgspec.Struct):
    total: int = 0
    completed: int = 0
    failed: int = 0


class _Error(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _Errors(msgspec.Struct):
    data: list[_Error] | None = None


class _Batch(msgspec.Struct):
    id: str
    status: str
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: _Errors | None = None
    request_counts: _Counts | None = None
    created_at: float | None = None
    metadata: dict[str, Any] | None = None


class _Answer(msgspec.Struct):
    status_code: int
    body: msgspec.Raw = msgspec.Raw(b"null")
    request_id: str | None = None


class _Line(msgspec.Struct):
    custom_id: str
    response: _Answer | None = None
    error: _Error | None = None


def _address(model: Model, endpoint: str) -> str:
    return joined_url(model.base_url, endpoint, instead_of="/chat/completions")
