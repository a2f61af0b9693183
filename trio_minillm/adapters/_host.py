"""A client in a program whose event loop is not ours: in its Trio run, or in a thread beside it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, TypeAlias, TypeVar

import trio

from .._client import Client, open_client
from .._models import anthropic, compatible, openai, openrouter
from ..local import open_local_model
from ..providers import Model

T = TypeVar("T")
Asking: TypeAlias = Callable[[Client, Model], Awaitable[T]]
"""What a program asks of a client and a model."""

KEYS = {
    "openrouter": "OPENROUTER_API_KEY",
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "compatible": "TRIO_MINILLM_API_KEY",
}
"""Where each kind of model's key comes from. The last is sent only where a base URL says."""


@asynccontextmanager
async def open_model(
    name: str, *, base_url: str | None = None, api_key: str | None = None, **options: Any
) -> AsyncIterator[Model]:
    """The model with a name like ``openai:gpt-5-mini``, for the length of a block.

    ``options`` are those of the constructor of its kind, or of `open_local_model`. Raises
    ``ValueError`` for a name of another form, and what the constructor raises.
    """
    kind, _, rest = name.partition(":")
    if kind == "local":
        if base_url is not None:
            raise ValueError("a local model has no base URL: its server is started here")
        async with open_local_model(path=rest or None, **options) as model:
            yield model
        return
    if kind not in KEYS or not rest:
        kinds = ", ".join(f"{kind}:NAME" for kind in KEYS)
        raise ValueError(f"the model is {kinds}, local or local:PATH.gguf")
    options = {"base_url": base_url, "api_key": api_key, **options}
    if kind == "compatible":
        if base_url is None:
            raise ValueError("compatible:NAME needs a base URL")
        options["api_key"] = api_key or os.environ.get(KEYS[kind], "").strip() or None
        yield compatible(rest, **options)
    else:
        yield {"openrouter": openrouter, "openai": openai, "anthropic": anthropic}[kind](
            rest, **options
        )


class Host:
    """A client and a model, opened where they are first needed, and kept open.

    Guarantees: in a Trio run they live in a system task, so that they are closed, and what is
    left is settled, when the run ends; elsewhere a Trio loop in a daemon thread holds them until
    `close` or the end of the process. Cancelling a call cancels its request. An error of opening
    them is raised by each call. Safe for threads.

    ``open_a_model`` makes a fresh block for each loop; ``options`` are those of `open_client`.
    """

    def __init__(
        self, open_a_model: Callable[[], AbstractAsyncContextManager[Model]], **options: Any
    ) -> None:
        self._open_a_model = open_a_model
        self._options = options
        self._runs: dict[trio.lowlevel.TrioToken, _Held] = {}
        self._thread: _Held | None = None
        self._lock = threading.Lock()

    async def call(self, function: Asking[T]) -> T:
        """Run it in the Trio run that this is called from; from asyncio, in the thread."""
        if not trio.lowlevel.in_trio_run():
            return await asyncio.wrap_future(self.submit(function))
        token = trio.lowlevel.current_trio_token()
        held = self._runs.get(token)
        if held is None:
            held = self._runs[token] = _Held()
            trio.lowlevel.spawn_system_task(self._serve, held, token)
        return await held.ask(function)

    def submit(self, function: Asking[T]) -> Future[T]:
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
        """Cancel what is asked in the thread, and wait until its client is closed."""
        with self._lock:
            held, self._thread = self._thread, None
        if held is not None:
            held.close()

    async def _serve(self, held: _Held, token: trio.lowlevel.TrioToken | None = None) -> None:
        try:
            await held.serve(open_client(**self._options), self._open_a_model())
        finally:
            if token is not None:
                del self._runs[token]


class _Held:
    """A client and a model that are open as long as `serve` runs, in one Trio run."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self._ended = threading.Event()
        self._ready: trio.Event = trio.Event()
        self._opened: tuple[Client, Model] | Exception | None = None
        self._nursery: trio.Nursery | None = None
        self._token: trio.lowlevel.TrioToken | None = None

    async def serve(
        self,
        client_block: AbstractAsyncContextManager[Client],
        model_block: AbstractAsyncContextManager[Model],
    ) -> None:
        self._token = trio.lowlevel.current_trio_token()
        try:
            async with trio.open_nursery() as self._nursery:
                self.begun.set()
                try:
                    async with client_block as client, model_block as model:
                        self._opened = client, model
                        self._ready.set()
                        await trio.sleep_forever()
                except Exception as error:  # noqa: BLE001 - raised by each call
                    self._opened = error
                    self._ready.set()
                    await trio.sleep_forever()
        finally:
            self.begun.set()
            self._ended.set()

    async def ask(self, function: Asking[T]) -> T:
        await self._ready.wait()
        if isinstance(self._opened, Exception):
            raise self._opened
        assert self._opened is not None
        return await function(*self._opened)

    def submit(self, function: Asking[T]) -> Future[T]:
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

    def _start(self, function: Asking[T], future: Future[T]) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._answer, function, future)

    def _cancel(self) -> None:
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()

    async def _answer(self, function: Asking[T], future: Future[T]) -> None:
        scope, token = trio.CancelScope(), trio.lowlevel.current_trio_token()

        def left(_: Future[T]) -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(scope.cancel)

        future.add_done_callback(left)  # it does nothing to a scope that was left
        try:
            with scope:
                result = await self.ask(function)
        except Exception as error:  # noqa: BLE001 - raised where it was asked
            with suppress(InvalidStateError):  # cancelled at the same time
                future.set_exception(error)
            return
        except BaseException:
            future.cancel()
            raise
        if not scope.cancelled_caught:
            with suppress(InvalidStateError):
                future.set_result(result)
