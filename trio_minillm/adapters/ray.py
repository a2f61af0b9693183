"""A batch on many machines: a class for Ray Data's ``map_batches``.

Each actor has a thread with a Trio loop, in which one client and one `Client.batch` live as long as
the actor: what the adaptive control and the rates have learned stays from block to block. Finished
requests are in files of one folder, one for each life of an actor; whoever is given a request looks
there first. Ray itself is not imported here: it calls us.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import msgspec
import trio

from .._batch.batch import Batch
from .._batch.files.request_format import check_request, request_from
from .._batch.files.result_format import fingerprint
from .._batch.options import BatchOptions
from .._batch.types import BatchRequest
from ..providers import Model
from ._portal import Portal, open_both
from ._ray_rows import rows_of, table_of
from ._shared_results import SharedResults

if TYPE_CHECKING:
    import pyarrow as pa

DIVIDED = ("concurrency", "max_concurrency", "requests_per_minute", "tokens_per_minute", "limits")
"""Options that hold for all actors together."""
OTHERS = ("cache", "retry", "retry_share", "deadline", "timeouts")
"""Options that hold for each."""

UNWRITTEN = 16
"""Answers that are there and not written yet, at most; then nothing more is sent."""


def on_ray(
    model: str | Model,
    *,
    actors: int,
    folder: str | os.PathLike[str],
    params: Mapping[str, Any] | None = None,
    retry_failed: bool = False,
    model_options: Mapping[str, Any] | None = None,
    **options: Unpack[BatchOptions],
) -> type:
    """A class for ``dataset.map_batches(cls, compute=ActorPoolStrategy(size=actors), …)``.

    Rows are requests: either a column ``text`` with a line of JSON as in a batch's input file, or
    that line's fields as columns. The rows that come out have ``key``, ``ok``, ``outcome``,
    ``content``, ``error`` (a class's name), ``prompt_tokens``, ``completion_tokens``, ``cost`` (USD,
    as text), ``cached`` and ``result``, the whole line as in a batch's output file.

    Guarantees: a request with a line in ``folder``, which all actors must see, is not sent again,
    by whatever actor or run; an actor that dies loses the requests that it had under way, which
    Ray gives to another one. ``retry_failed`` sends those again whose line is an error. The key of
    another request is a ``ValueError``.

    ``model`` is ``KIND:NAME`` as on the command line, made in each actor with its key from the
    environment there and ``model_options`` (``base_url``, …); or a `Model`, which carries its key to
    the actors. ``concurrency``, rates and ``limits`` are for all ``actors`` together, and each gets
    its part: what one does not need, another can't use. Spending counts from an actor's start.

    Raises ``ValueError`` for options that can't be divided, ``TypeError`` for unknown ones.
    """
    if type(actors) is not int or actors < 1:
        raise ValueError("actors must be a whole number from 1 on")
    unknown = sorted(set(options) - {*DIVIDED, *OTHERS})
    if unknown:
        raise TypeError(f"not an option of a batch on Ray: {', '.join(unknown)}")
    plan = _Plan(
        model=model,
        model_options=dict(model_options or {}),
        folder=str(Path(folder).absolute()),
        params=dict(params or {}),
        retry_failed=retry_failed,
        options=divided(options, actors),
    )
    return type("AskOnRay", (_Actor,), {"plan": plan, "__doc__": on_ray.__doc__})


def divided(options: Mapping[str, Any], actors: int) -> dict[str, Any]:
    """The part of each of so many actors; all parts together are never more than the whole."""
    out = {name: value for name, value in options.items() if value is not None}
    if out.get("concurrency", "auto") == "auto":
        out["max_concurrency"] = out.get("max_concurrency", 1_000)
    for name in ("concurrency", "max_concurrency"):
        if isinstance(out.get(name), int):
            if out[name] < actors:
                raise ValueError(f"{name} must be at least the number of actors")
            out[name] //= actors
    for name in ("requests_per_minute", "tokens_per_minute"):
        if name in out:
            out[name] /= actors
    if "limits" in out:
        whole = out["limits"]
        cost, tokens = whole.max_cost, whole.max_tokens
        out["limits"] = msgspec.structs.replace(
            whole,
            max_cost=None if cost is None else Decimal(str(cost)) / actors,
            max_tokens=None if tokens is None else tokens // actors,
        )
    return out


class _Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What each actor is told."""

    model: str | Model
    model_options: dict[str, Any]
    folder: str
    params: dict[str, Any]
    retry_failed: bool
    options: dict[str, Any]

    def __repr__(self) -> str:
        return "<_Plan>"  # it may have a key in it


class _Actor:
    """What Ray keeps: it is made once in an actor's process and called with block after block.

    Calls are async, so that Ray gives an actor the next block while the last answers of this one
    are still coming.
    """

    plan: _Plan

    def __init__(self) -> None:
        self._host = Portal(partial(_open_run, self.plan))

    async def __call__(self, batch: dict[str, Any]) -> pa.Table:
        """The results of a block of rows, in its order."""
        rows = rows_of(batch)
        return table_of(await asyncio.wrap_future(self._host.submit(partial(_answer, rows))))


async def _answer(rows: list[Any], run: _Run) -> list[bytes]:
    return await run.answer(rows)


class _Run:
    """The life of an actor inside of its Trio loop."""

    def __init__(self, plan: _Plan, model: Model, record: SharedResults) -> None:
        self._plan = plan
        self._model = model
        self._record = record
        self._running: dict[str, _Call] = {}
        self._failure: Exception | None = None
        self._send, self._receive = trio.open_memory_channel[BatchRequest](0)

    async def requests(self) -> AsyncIterator[BatchRequest]:
        """What the batch is fed with, as long as it lives."""
        async for request in self._receive:
            yield request

    async def deliver(self, results: Batch) -> None:
        """Write down each result, and wake those who wait for it."""
        try:
            async for result in results:
                line = await self._record.append(result)
                self._running.pop(result.key).end(line)
        except Exception as error:  # noqa: BLE001 - raised by each call
            self._failure = error
            for call in self._running.values():
                call.done.set()

    async def answer(self, rows: list[Any]) -> list[bytes]:
        """A line for each row."""
        requests = [self._request(row) for row in rows]
        await self._record.refresh()
        lines = [await self._begin(request) for request in requests]
        return [line if isinstance(line, bytes) else await self._end(line) for line in lines]

    def _request(self, row: Any) -> BatchRequest:
        request = request_from(row, model_of=self._named, params=self._plan.params)
        check_request(request)
        return request

    def _named(self, name: str | None) -> Model:
        if name is None or name == self._model.name:
            return self._model
        return msgspec.structs.replace(self._model, name=name, price=None)

    async def _begin(self, request: BatchRequest) -> bytes | _Call:
        """Its line, if it has one; else it is sent."""
        call = self._running.get(request.key)
        if call is None:
            line = await self._record.line(request, retry_failed=self._plan.retry_failed)
            if line is not None:
                return line
            call = self._running[request.key] = _Call(fingerprint(request))
            if self._failure is None:
                await self._send.send(request)
        elif call.request != fingerprint(request):
            raise ValueError(f"the key {request.key!r} stands for two requests")
        return call

    async def _end(self, call: _Call) -> bytes:
        if self._failure is None:
            await call.done.wait()
        if call.line is None:
            assert self._failure is not None
            raise self._failure
        return call.line


class _Call:
    """A request that is under way."""

    def __init__(self, request: str) -> None:
        self.request = request
        self.line: bytes | None = None
        self.done = trio.Event()

    def end(self, line: bytes) -> None:
        self.line = line
        self.done.set()


@asynccontextmanager
async def _open_run(plan: _Plan) -> AsyncIterator[_Run]:
    async with open_both(plan.model, {}, **plan.model_options) as (client, model):
        with await trio.to_thread.run_sync(SharedResults, plan.folder) as record:
            run = _Run(plan, model, record)
            async with (
                client.batch(
                    run.requests(), model=model, buffer=UNWRITTEN, **plan.options
                ) as results,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(run.deliver, results)
                yield run
