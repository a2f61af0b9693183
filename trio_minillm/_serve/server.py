"""The timed server: it takes connections, makes the program of each answer, and keeps the books."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import trio

from .._http.open_files import raise_file_limit
from ..providers import Model, Provider
from ..providers._models import compatible
from ..testing._events import json_reply
from ..testing._script import Reply, ServedRequest, wire
from .answering import Answering
from .capacity import Capacity
from .connections import Connection, Exchange
from .fault_texts import error_body
from .measures import Measures, prometheus
from .options import ServeOptions
from .pacer import Pacer
from .records import Records, ServedRecord
from .requests import MAX_NAME, RefusedRequestError, asked_of, wire_in
from .serving import Serving
from .timers import new_timer

BACKLOG = 4096
"""Connections that wait to be accepted: as many begin at once as a benchmark has streams."""
ACCEPT_RETRY = 0.1
"""Seconds after which a connection is accepted again, where there were too many open files."""


class TimedServer:
    """A running server, made by `open_timed_server`."""

    def __init__(self, options: ServeOptions, host: str, pacer: Pacer, records: Records) -> None:
        self.options = options
        self.host = host
        self.port = 0
        self.pacer = pacer
        self.measures = Measures(pacer.now())
        self._records = records
        self._capacity = Capacity(options.slots)
        self._answering = Answering(options, self._capacity)
        self._number = 0
        self._serial = 0
        self._running: set[Serving] = set()
        self._connections: set[Connection] = set()

    @property
    def url(self) -> str:
        """The address, as ``http://127.0.0.1:8000``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """The address for a client's ``base_url``."""
        return f"{self.url}/v1"

    @property
    def records(self) -> Sequence[ServedRecord]:
        """The newest records of requests that have ended since the server began or was reset."""
        return self._records.kept

    @property
    def log_failure(self) -> OSError | None:
        """The error that ended the log; None as long as the log is whole."""
        return self._records.failed

    def model(self, provider: Provider | None = None, **options: Any) -> Model:
        """Return a model at this server. ``options`` are those of `trio_minillm.compatible`."""
        made = compatible(self.options.model, **{"base_url": self.base_url, **options})
        return made if provider is None else msgspec.structs.replace(made, provider=provider)

    def metrics(self) -> dict[str, Any]:
        """Return the figures of ``/metrics.json``; times are in seconds."""
        gauges = {name: value for name, (_, value) in self._gauges().items()}
        return {**self.measures.fields(), **gauges}

    def reset(self) -> None:
        """Begin anew with numbers, figures and records. What runs goes on, and is not counted."""
        self.measures = Measures(self.pacer.now())
        self._records.clear()
        self._number = 0
        self._answering.reset()

    def _gauges(self) -> dict[str, tuple[str, float]]:
        capacity = self._capacity
        return {
            "running": ("Requests being served.", capacity.running),
            "queued": ("Requests waiting for a slot.", capacity.queued),
            "connections": ("Open connections.", len(self._connections)),
            "uptime_seconds": (
                "Seconds since the server started or was reset.",
                self.pacer.now() - self.measures.since,
            ),
            "cpu_seconds": ("CPU time of the process, in seconds.", time.process_time()),
        }

    # -- connections ---------------------------------------------------------------------------

    async def accept(self, listener: socket.socket) -> None:
        """Accept and serve connections, for ever."""
        numbers = iter(range(2**62))
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(listener)
                while True:
                    try:
                        sock, _ = listener.accept()
                    except BlockingIOError:
                        break
                    except OSError:  # it was reset, or there are too many open files
                        await trio.sleep(ACCEPT_RETRY)
                        break
                    conn = Connection(sock, next(numbers), self._begin, self.pacer.now)
                    nursery.start_soon(self._serve, conn)

    async def _serve(self, conn: Connection) -> None:
        self._connections.add(conn)
        try:
            await conn.run()
        finally:
            self._connections.discard(conn)

    def stop(self) -> None:
        """Record what is still running."""
        for serving in [*self._running]:
            serving.stop()

    # -- requests ------------------------------------------------------------------------------

    def _begin(self, conn: Connection, request: ServedRequest, at: float) -> Exchange | None:
        keep = "close" not in request.headers.get("connection", "").lower()
        if request.method != "POST" or request.path == "/reset":
            self._reply(conn, self._page(request), keep=keep)
            return None
        record = ServedRecord(
            id=f"{self._serial:012d}",
            number=self._number,
            wire="",
            path=request.path[:MAX_NAME],
            received=at,
            received_unix=time.time() - (self.pacer.now() - at),
        )
        self._serial += 1
        try:
            record.wire = wire_in(request.path, self.options.wire)
            asked, asked_body = asked_of(request, record.wire)
            if self._capacity.full:
                raise RefusedRequestError(503, "too many requests are waiting")
            record.model, record.stream = asked.model, asked.stream
            record.prompt_tokens = asked.prompt_tokens
            program, takes_place = self._answering.program(asked, asked_body, record)
        except RefusedRequestError as exc:
            self._refuse(conn, record, exc, keep=keep)
            return None
        except Exception as exc:  # noqa: BLE001 - what a wire format or a fault has no form for
            why = RefusedRequestError(400, f"this server can't make such an answer: {exc}")
            self._refuse(conn, record, why, keep=keep)
            return None
        self._number += 1
        self.measures.prompt_tokens += record.prompt_tokens
        serving = Serving(self, conn, record, program, takes_place=takes_place, keep=keep)
        self._running.add(serving)
        if takes_place:
            self._capacity.enter(serving, at)
        else:
            serving.start(at)
        return serving

    def ended(self, serving: Serving, measures: Measures, at: float) -> None:
        """Write the record of what has ended, and let the next one begin."""
        self._running.discard(serving)
        record = serving.record
        measures.requests[record.wire, record.ended] += 1
        measures.queue.add(record.queued)
        for name in record.faults:
            measures.faults[name] += 1
        self._records.add(record, keep=measures is self.measures)
        if serving.takes_place:
            self._capacity.leave(serving, at)

    def _refuse(
        self, conn: Connection, record: ServedRecord, why: RefusedRequestError, *, keep: bool
    ) -> None:
        record.status, record.ended, record.ended_at = why.status, "refused", self.pacer.now()
        self.measures.requests[record.wire, "refused"] += 1
        self._records.add(record, keep=True)
        text = error_body(record.wire, why.status, str(why), "invalid_request_error")
        self._reply(conn, json_reply(text, status=why.status), keep=keep)

    def _reply(self, conn: Connection, reply: Reply, *, keep: bool) -> None:
        reply = msgspec.structs.replace(reply, keep_alive=keep)
        conn.send(b"".join(step for step in wire(reply).steps if isinstance(step, bytes)))
        if not keep:
            conn.end()

    def _page(self, request: ServedRequest) -> Reply:
        path = request.path.rstrip("/")
        if request.method == "POST":
            self.reset()
            return json_reply({"reset": True})
        if request.method == "GET":
            if path.endswith("/models"):
                listed = {"id": self.options.model, "object": "model", "created": 0}
                return json_reply({"object": "list", "data": [{**listed, "owned_by": "serve"}]})
            if path in ("/health", "/v1/health", "/ping", ""):
                return json_reply({"status": "ok"})
            if path == "/metrics.json":
                return json_reply(self.metrics())
            if path == "/metrics":
                text = prometheus(self.measures, self._gauges()).encode()
                kind = "text/plain; version=0.0.4; charset=utf-8"
                return Reply(steps=(text,), headers={"content-type": kind}, framing="length")
        status = 404 if request.method == "GET" else 405
        what = f"there is no {request.method} {request.path[:MAX_NAME]}"
        return json_reply(error_body("openai", status, what, "not_found"), status=status)


@asynccontextmanager
async def open_timed_server(
    options: ServeOptions | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    log: str | os.PathLike[str] | None = None,
    now: Callable[[], float] | None = None,
) -> AsyncIterator[TimedServer]:
    """Run a timed server for the length of a block. ``port`` 0 takes any that is free.

    ``log`` is a file that gets the record of each request as a line of JSON; it is appended to. If a write
    fails, streams go on, and `TimedServer.log_failure` says why. ``now`` is the clock, for tests on Trio's
    mocked one: ``trio.current_time``, with an ``autojump_threshold`` of 0.02, because bytes on a socket need
    a moment of real time. Leaving the block breaks open connections.

    Raises ``OSError`` if the port is taken, or a file can't be read or written, and ``ValueError`` for a
    file that is neither a recording nor a script.
    """
    raise_file_limit()  # a connection is a file
    records = Records(log)
    timer = new_timer(now)
    listener: socket.socket | None = None
    failure: BaseException | None = None
    try:
        server = TimedServer(options or ServeOptions(), host, Pacer(timer), records)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        listener.setblocking(False)
        server.port = listener.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.pacer.run)
            nursery.start_soon(partial(server.accept, listener))
            try:
                yield server
            except BaseException as exc:  # noqa: BLE001 - raised below, outside of the nursery's group
                failure = exc
            server.stop()
            nursery.cancel_scope.cancel()
    finally:
        if listener is not None:
            listener.close()
        timer.close()
        records.close()
    if failure is not None:
        raise failure
