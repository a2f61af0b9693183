"""The results of a batch, made of the lines that its vendor gives back.

A line goes through the same reading as a live answer: the request is prepared again, and its stream is
given the line's body as the response. So finish reasons, refusals, calls, usage and the record in the
ledger are those of a live answer; the cost is that of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from .._accounting.budget import Budget
from .._batch.scoring import Score, Validate, score_result, validated_result
from .._batch.sender import ONCE, attempt_of, without_frames
from .._batch.types import BatchRequest, BatchResult
from .._http.connector import Connect
from .._stream.tracked import TrackedStream
from .._types.errors import MiniLLMError, ProtocolError
from .._types.options import Limits
from .._types.response import CompletionResponse, Timings
from ..providers import Model
from .canned import CannedExchange
from .pricing import BATCH, batch_model
from .vendors import ItemEnd, decoded

Replay = Callable[..., TrackedStream]
"""`Client.stream` with a function that makes exchanges in front, and the request's meta."""


class PaidBudget(Budget):
    """A budget that counts what was spent in batches, and stops nothing: it is paid for already."""

    def __init__(self, parent: Budget | None) -> None:
        super().__init__(Limits(), parent)

    def check(self) -> None:
        """Let any answer through."""

    def enter(self, stop: Callable[..., None]) -> None:
        """Stop no stream whose answer is there."""

    def leave(self, stop: Callable[..., None]) -> None:
        """Forget nothing, since nothing was kept."""


class Answers:
    """Maker of results: one for each request, of the line that the vendor has for it."""

    def __init__(self, replay: Replay, validate: Validate | None, score: Score | None) -> None:
        self._replay = replay
        self._validate = validate
        self._score = score

    async def result(
        self, request: BatchRequest, index: int, sample: int, end: ItemEnd, sent_at: float
    ) -> BatchResult:
        """Return the result of a request with this end, booked and checked as a live one is."""
        assert request.model is not None
        body, usage = _marked(end.body) if end.answered else (end.body, None)
        headers = {"content-type": "application/json"}
        if end.request_id:
            headers["request-id"] = end.request_id
        answer, error, record = await self._read(
            request,
            _asking_nobody(batch_model(request.model, usage)),
            lambda: CannedExchange(end.status, headers, body),
        )
        attempt = attempt_of(
            error.partial if error is not None else answer,
            error,
            datetime.fromtimestamp(sent_at, UTC),
            0.0,
            record,
        )
        result = BatchResult(
            request=request,
            index=index,
            sample=sample,
            response=answer
            if answer is None
            else replace(answer, timings=_untimed(answer.timings)),
            error=error,
            attempts=(replace(attempt, timings=_untimed(attempt.timings)),),
        )
        if result.response is not None:
            result = await validated_result(result, self._validate)
        return result if self._score is None else await score_result(result, self._score)

    async def _read(
        self, request: BatchRequest, model: Model, connect: Connect
    ) -> tuple[CompletionResponse | None, MiniLLMError | None, str | None]:
        """Return what the reading of a live answer makes of a body: the answer, or the error, and the
        key of its record in the ledger.
        """
        stream = self._replay(
            connect,
            model,
            request.messages,
            request.params,
            meta=request.meta,
            made=0,
            retry=ONCE,
            extra=request.extra,
        )
        answer: CompletionResponse | None = None
        error: MiniLLMError | None = None
        try:
            answer = await stream.complete()
        except MiniLLMError as exc:
            error = without_frames(exc)
        records = stream.records
        return answer, error, records[-1].key if records else None


def _asking_nobody(model: Model) -> Model:
    """Return the model without its functions: reading what has come needs neither key nor signature."""
    if model.key_source is None and model.sign is None:
        return model
    return replace(model, key_source=None, sign=None)


def _untimed(timings: Timings) -> Timings:
    """Return the counts without the times, which are those of the reading here."""
    return replace(timings, sent=None, headers=None, first_chunk=None, last_chunk=None, total=None)


def _marked(body: bytes) -> tuple[bytes, Any]:
    """Return an answer whose usage names the tier that it was served at, and its usage.

    Anthropic's names it already. OpenAI's names that of the request (``default``), or none.
    """
    try:
        found = decoded(body, Any)
    except ProtocolError:
        return body, None  # the reading says what is wrong with it
    usage = found.get("usage") if isinstance(found, dict) else None
    if not isinstance(usage, dict):
        return body, None
    usage["service_tier"] = BATCH
    return msgspec.json.encode(found), usage
