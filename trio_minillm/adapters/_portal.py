"""A client in a program whose event loop is not ours: in its Trio run, or in a thread beside it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Generic, TypeVar

import trio

from .._client import Client, open_client
from ..local._named import open_model
from ..providers import Model

S = TypeVar("S")
T = TypeVar("T")


@asynccontextmanager
async def open_both(
    name: str | Model, client_options: dict[str, Any], **model_options: Any
) -> AsyncIterator[tuple[Client, Model]]:
    """A client and a model (see `open_model`) for the length of a block."""
    async with open_client(**client_options) as client, open_model(name, **model_options) as model:
        yield client, model


class Portal(Generic[S]):
    """Something of ours, a client say, that is opened where it is first needed and kept open.

    Guarantees: in a Trio run it lives in a system task, so that it is closed when the run ends;
    elsewhere a Trio loop in a daemon thread holds it until `close` or the end of the process.
    Cancelling a call cancels what it asked for. An error of opening is raised by each call. Safe
    for threads. ``opening`` makes a fresh block for each loop.
    """

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[S]]) -> None:
        self._opening = opening
        self._runs: dict[trio.lowlevel.TrioToken, _Held[S]] = {}
        self._thread: _Held[S] | None = None
        self._lock = threading.Lock()

    async def call(self, function: Callable[[S], Awaitable[T]]) -> T:
        """Run it in the Trio run that this is called from; from asyncio, in the thread."""
        if not trio.lowlevel.in_trio_run():
            return await asyncio.wrap_future(self.submit(function))
        token = trio.lowlevel.current_trio_token()
        held = self._runs.get(token)
        if held is None:
            held = self._runs[token] = _Held()
            trio.lowlevel.spawn_system_task(self._serve, held, token)
        return await held.ask(function)

    def submit(self, function: Callable[[S], Awaitable[T]]) -> Future[T]:
        """Start it in the thread. Cancelling the future cancels it."""
        with self._lock:
            if self._thread is None:
                held = self._thread = _Held()
                threading.Thread(
                    target=trio.run, args=(self._serve, held), name="trio_minillm", daemon=True
                ).start()
                held.begun.wait()
            return self._thread.submit(function)

    def close(self) -> None:
        """Cancel what is asked in the thread, and wait until all is closed there."""
        with self._lock:
            held, self._thread = self._thread, None
        if held is not None:
            held.close()

    async def _serve(self, held: _Held[S], token: trio.lowlevel.TrioToken | None = None) -> None:
        try:
            await held.serve(self._opening())
        finally:
            if token is not None:
                del self._runs[token]


class _Held(Generic[S]):
    """What is open as long as `serve` runs, in one Trio run."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self._ended = threading.Event()
        self._ready: trio.Event = trio.Event()
        self._opened: list[S] = []
        self._error: Exception | None = None
        self._nursery: trio.Nursery | None = None
        self._token: trio.lowlevel.TrioToken | None = None

    async def serve(self, block: AbstractAsyncContextManager[S]) -> None:
        self._token = trio.lowlevel.current_trio_token()
        try:
            async with trio.open_nursery() as self._nursery:
                self.begun.set()
                try:
                    async with block as opened:
                        self._opened.append(opened)
                        self._ready.set()
                        await trio.sleep_forever()
                except Exception as error:  # noqa: BLE001 - raised by each call
                    self._error = error
                    self._ready.set()
                    await trio.sleep_forever()
        finally:
            self._ended.set()

    async def ask(self, function: Callable[[S], Awaitable[T]]) -> T:
        await self._ready.wait()
        if self._error is not None:
            raise self._error
        return await function(self._opened[0])

    def submit(self, function: Callable[[S], Awaitable[T]]) -> Future[T]:
        """`ask` from another thread."""
        future: Future[T] = Future()
        assert self._token is not None
        self._token.run_sync_soon(self._start, function, future)
        return future

    def close(self) -> None:
        assert self._token is not None
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._cancel)
        self._ended.wait()

    def _start(self, function: Callable[[S], Awaitable[T]], future: Future[T]) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._answer, function, future)

    def _cancel(self) -> None:
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()

    async def _answer(self, function: Callable[[S], Awaitable[T]], future: Future[T]) -> None:
        scope, token = trio.CancelScope(), trio.lowlevel.current_trio_token()

        def left(_: Future[T]) -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(scope.cancel)

        future.add_done_callback(left)  # it does nothing to a scope that was left
        try:
            with scope:
                result = await self.ask(function)
                with suppress(InvalidStateError):  # cancelled at the same time
                    future.set_result(result)
        except Exception as error:  # noqa: BLE001 - raised where it was asked
            with suppress(InvalidStateError):
                future.set_exception(error)
        except BaseException:
            future.cancel()
            raise
