"""A client in a program with its own event loop: in its Trio run, or in a thread beside it."""

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
    """Yield a client and a model (see `open_model`), both open for the length of the block."""
    async with open_client(**client_options) as client, open_model(name, **model_options) as model:
        yield client, model


class Portal(Generic[S]):
    """A resource of ours, such as a client, that is opened at its first use and kept open.

    Guarantees: in a Trio run, a system task holds the resource, so that it is closed when the run
    ends; elsewhere, a Trio loop in a daemon thread holds it until `close` or the end of the
    process. Cancelling a call cancels the function that it runs. If the resource can't be opened,
    each call raises that error. Thread-safe. ``opening`` makes a new context manager for each loop.
    """

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[S]]) -> None:
        self._opening = opening
        self._runs: dict[trio.lowlevel.TrioToken, _Held[S]] = {}
        self._thread: _Held[S] | None = None
        self._lock = threading.Lock()

    async def call(self, function: Callable[[S], Awaitable[T]]) -> T:
        """Call the function with the resource: in the caller's Trio run, or else in the thread.

        Raises what the function raises, and the error of opening.
        """
        if not trio.lowlevel.in_trio_run():
            return await asyncio.wrap_future(self.submit(function))
        token = trio.lowlevel.current_trio_token()
        held = self._runs.get(token)
        if held is None:
            held = self._runs[token] = _Held()
            trio.lowlevel.spawn_system_task(self._serve, held, token)
        return await held.call(function)

    def submit(self, function: Callable[[S], Awaitable[T]]) -> Future[T]:
        """Start the function in the thread. Cancelling the future cancels the function."""
        with self._lock:
            if self._thread is None:
                held = self._thread = _Held()
                threading.Thread(
                    target=trio.run, args=(self._serve, held), name="trio_minillm", daemon=True
                ).start()
                held.begun.wait()
            return self._thread.submit(function)

    def close(self) -> None:
        """Cancel the calls in the thread, and wait until the resource there is closed."""
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
    """The resource in one Trio run, open as long as `serve` runs."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        """Set when calls can be submitted, which may be before the resource is open."""
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

    async def call(self, function: Callable[[S], Awaitable[T]]) -> T:
        await self._ready.wait()
        if self._error is not None:
            raise self._error
        return await function(self._opened[0])

    def submit(self, function: Callable[[S], Awaitable[T]]) -> Future[T]:
        """Start `call` from another thread."""
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
        self._nursery.start_soon(self._fulfil, function, future)

    def _cancel(self) -> None:
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()

    async def _fulfil(self, function: Callable[[S], Awaitable[T]], future: Future[T]) -> None:
        scope, token = trio.CancelScope(), trio.lowlevel.current_trio_token()

        def done(_: Future[T]) -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(scope.cancel)

        future.add_done_callback(done)  # without effect once the scope has been left
        try:
            with scope:
                result = await self.call(function)
                with suppress(InvalidStateError):  # cancelled at the same time
                    future.set_result(result)
        except Exception as error:  # noqa: BLE001 - raised by the caller's future
            with suppress(InvalidStateError):
                future.set_exception(error)
        except BaseException:
            future.cancel()
            raise
