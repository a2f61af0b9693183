"""A batch on many machines: a class for Ray Data's ``map_batches``.

Each actor has a thread with a Trio loop, in which one client and one `Client.batch` live as long as
the actor, so that what the concurrency limit and the rates have learned is kept from block to
block. Results are in the files of one folder, one file for each life of an actor, and an actor
looks there first for every request that it is given. Ray itself is not imported here: it calls this
module.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
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
from .._batch.files.result_format import ResultLine, fingerprint
from .._batch.options import BatchOptions
from .._batch.types import BatchRequest
from ..providers import Model
from ._portal import Portal, open_both
from ._shared_results import SharedResults

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger("trio_minillm")

DIVIDED = ("concurrency", "max_concurrency", "requests_per_minute", "tokens_per_minute", "limits")
"""Options whose value is for all actors together."""
OTHERS = ("cache", "retry", "retry_share", "deadline", "timeouts")
"""Options whose value is for each actor."""

UNWRITTEN = 16
"""Answers that have arrived and are not written yet, at most; beyond that nothing is sent."""


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
    """Return a class for Ray Data's ``dataset.map_batches``, which sends the rows as requests.

    Use it as ``dataset.map_batches(cls, compute=ActorPoolStrategy(size=actors), num_cpus=0, …)``.
    Without ``num_cpus=0``, actors that hold every core keep tasks from reading.

    - ``model`` is ``KIND:NAME`` as on the command line. Each actor makes it with the key from its
      environment and with ``model_options`` (``base_url``, …). It may also be a `Model`, which
      carries its key to the actors.
    - ``actors`` is the number of actors. ``concurrency``, rates, and ``limits`` apply to all of
      them together. Each gets an equal part, and no actor can use what another does not need.
      Spending counts from an actor's start.
    - ``folder`` holds the results, and all actors must see it. A request with a line there is not
      sent again, by any actor or run.
    - ``params`` are parameters for rows that do not set them.
    - ``retry_failed`` sends requests again whose line is an error.
    - ``options`` are those of `BatchOptions`.

    Rows are requests: either a column ``text`` with a line of JSON as in a batch's input file, or
    the fields of such a line as columns. The resulting rows have ``key``, ``ok``, ``outcome``,
    ``content``, ``error`` (the name of a class), ``prompt_tokens``, ``completion_tokens``, ``cost``
    (USD, as text), ``cached``, and ``result``, the complete line of a batch's output file.

    If an actor dies, Ray gives its running requests to another one. Raises ``ValueError`` for
    options that can't be divided and for a key that belongs to another request, and ``TypeError``
    for unknown options.
    """
    if type(actors) is not int or actors < 1:
        raise ValueError("actors must be a whole number, 1 or more")
    unknown = sorted(set(options) - {*DIVIDED, *OTHERS})
    if unknown:
        raise TypeError(f"not an option of a batch on Ray: {', '.join(unknown)}")
    plan = _Plan(
        actors=actors,
        model=model,
        model_options=dict(model_options or {}),
        folder=str(Path(folder).absolute()),
        params=dict(params or {}),
        retry_failed=retry_failed,
        options=divided(options, actors),
    )
    return type("AskOnRay", (_Actor,), {"plan": plan, "__doc__": on_ray.__doc__})


def divided(options: Mapping[str, Any], actors: int) -> dict[str, Any]:
    """Return the part of each actor. All parts together are never more than the whole.

    Raises ``ValueError`` if there is less than one slot for each.
    """
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
    """The instructions for each actor."""

    actors: int
    model: str | Model
    model_options: dict[str, Any]
    folder: str
    params: dict[str, Any]
    retry_failed: bool
    options: dict[str, Any]

    def __repr__(self) -> str:
        return "<_Plan>"  # the fields may contain a key


class _Actor:
    """The object in an actor's process that Ray makes once and calls with block after block.

    Calls are async, so that Ray gives an actor the next block while the last answers of this one
    are still arriving.
    """

    plan: _Plan

    def __init__(self) -> None:
        _warn_of_cores(self.plan.actors)
        self._portal = Portal(partial(_open_run, self.plan))

    async def __call__(self, batch: dict[str, Any]) -> pa.Table:
        """Return the results of a block of rows, in its order."""
        rows = rows_of(batch)
        return table_of(await asyncio.wrap_future(self._portal.submit(partial(_answer, rows))))


def _warn_of_cores(actors: int) -> None:
    """Log a warning if the actors have every core, so that the tasks that feed them can't run."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return
    kept = actors * ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
    there = ray.cluster_resources().get("CPU", 0)
    if kept and kept >= there:
        _log.warning(
            "%d actors keep all %g CPUs of the cluster, so that no task can read their input: "
            "give map_batches num_cpus=0",
            actors,
            there,
        )


async def _answer(rows: list[Any], run: _Run) -> list[bytes]:
    return await run.answer(rows)


class _Run:
    """The part of an actor that lives in its Trio loop."""

    def __init__(self, plan: _Plan, model: Model, results: SharedResults) -> None:
        self._plan = plan
        self._model = model
        self._results = results
        self._running: dict[str, _Call] = {}
        self._failure: Exception | None = None
        self._send, self._receive = trio.open_memory_channel[BatchRequest](0)

    async def requests(self) -> AsyncIterator[BatchRequest]:
        """Yield the requests for the batch, as long as it lives."""
        async for request in self._receive:
            yield request

    async def deliver(self, batch: Batch) -> None:
        """Write each result to the folder, and wake the calls that wait for it."""
        try:
            async for result in batch:
                line = await self._results.append(result)
                self._running.pop(result.key).end(line)
        except Exception as error:  # noqa: BLE001 - raised by each call
            self._failure = error
            for call in self._running.values():
                call.done.set()

    async def answer(self, rows: list[Any]) -> list[bytes]:
        """Return a result line for each row."""
        requests = [self._request(row) for row in rows]
        await self._results.refresh()
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
        """Return the request's line if it has one; otherwise send it."""
        call = self._running.get(request.key)
        if call is None:
            line = await self._results.line(request, retry_failed=self._plan.retry_failed)
            if line is not None:
                return line
            call = self._running[request.key] = _Call(fingerprint(request))
            if self._failure is None:
                await self._send.send(request)
        elif call.request != fingerprint(request):
            raise ValueError(f"the key {request.key!r} names two requests")
        return call

    async def _end(self, call: _Call) -> bytes:
        if self._failure is None:
            await call.done.wait()
        if call.line is None:
            assert self._failure is not None
            raise self._failure
        return call.line


class _Call:
    """A request that is under way, which several rows may wait for."""

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
        with await trio.to_thread.run_sync(SharedResults, plan.folder) as shared:
            run = _Run(plan, model, shared)
            async with (
                client.batch(
                    run.requests(), model=model, buffer=UNWRITTEN, **plan.options
                ) as batch,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(run.deliver, batch)
                yield run


# -- the rows of Ray's blocks ----------------------------------------------------------------------


def rows_of(batch: Mapping[str, Any]) -> list[Any]:
    """Return the rows of a block in Ray's numpy format, in JSON's types.

    Raises ``ValueError`` for a text that is not JSON.
    """
    columns = {name: column.tolist() for name, column in batch.items()}
    if "text" in columns:
        return [_json(text) for text in columns["text"]]
    names = list(columns)
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [
        {name: _cell(name, value) for name, value in row.items() if not _missing(value)}
        for row in rows
    ]


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise ValueError("a row's text is not a line of JSON") from None


def _cell(name: str, value: Any) -> Any:
    """Return a cell's value. Nested fields may be JSON, since a column of a table has one type."""
    if name not in ("key", "custom_id", "prompt", "system", "model") and isinstance(value, str):
        if value[:1] in ("{", "["):
            return _json(value)
        return value
    return value.tolist() if hasattr(value, "tolist") else value


def _missing(value: Any) -> bool:
    return value is None or value != value  # NaN stands for a missing number in a table


def table_of(lines: list[bytes]) -> pa.Table:
    """Return the rows for result lines, with the same column types in every block."""
    import pyarrow as pa

    texts, numbers = pa.string(), pa.int64()
    found = [(msgspec.json.decode(line, type=ResultLine), line) for line in lines]
    usages = [line.usage or {} for line, _ in found]
    return pa.table(
        {
            "key": pa.array([line.key for line, _ in found], texts),
            "ok": pa.array([line.ok for line, _ in found], pa.bool_()),
            "outcome": pa.array([line.outcome for line, _ in found], texts),
            "content": pa.array([line.content for line, _ in found], texts),
            "error": pa.array([(line.error or {}).get("code") for line, _ in found], texts),
            "prompt_tokens": pa.array([u.get("prompt_tokens") for u in usages], numbers),
            "completion_tokens": pa.array([u.get("completion_tokens") for u in usages], numbers),
            "cost": pa.array([(line.cost or {}).get("amount") for line, _ in found], texts),
            "cached": pa.array([line.cached for line, _ in found], pa.bool_()),
            "result": pa.array([raw.decode().rstrip("\n") for _, raw in found], texts),
        }
    )
