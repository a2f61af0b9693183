"""Trio's loop in a thread of its own, for a conversation whose prompts the main thread reads.

The main thread reads lines, because only there a signal ends `input`, and readline then leaves the
terminal as it was. Trio runs on in the other thread meanwhile, so that nothing waits for the user:
connections, a local model, and lookups of what an answer cost.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import trio

import trio_minillm as llm

from ..local._named import open_model
from ._chat_answer import LOCAL_CONTEXT, Ask, Interrupt, stream_answer
from ._chat_signals import Signals
from ._output import Answer, Misuse, OutputError

T = TypeVar("T")


class StoppedError(Exception):
    """Ctrl-C before a model was ready."""


class _Job:
    """A piece of work for Trio's loop."""

    def __init__(self) -> None:
        self.done: Future[None] = Future()
        self.stopped = False
        self.on_stop: Callable[[], object] = lambda: None

    def stop(self) -> None:
        """End it early. To be called in Trio's thread."""
        self.stopped = True
        self.on_stop()


class _Opening(_Job):
    def __init__(self, model: llm.Model | str) -> None:
        super().__init__()
        self.model = model


class _Request(_Job):
    def __init__(self, ask: Ask, messages: Sequence[llm.Message], answer: Answer) -> None:
        super().__init__()
        self.ask, self.messages, self.answer = ask, messages, answer


class Stage:
    """A client and one open model in Trio's loop, which runs in a thread until `close`.

    Methods are for the main thread, and wait for their work; a signal ends it early.
    """

    def __init__(
        self, ledger: llm.Ledger, signals: Signals, observer: llm.Observer | None = None
    ) -> None:
        self._ledger = ledger
        self._observer = observer
        self._signals = signals
        self._send, self._jobs = trio.open_memory_channel[_Job](1)
        self._begun: Future[trio.lowlevel.TrioToken] = Future()
        self._ended: Future[None] = Future()
        self._job: _Job | None = None
        threading.Thread(target=self._run, name="trio", daemon=True).start()
        self._token = self._begun.result()

    def open(self, model: llm.Model | str) -> None:
        """Close the open model, and open this one.

        Raises what opening it raises, and `StoppedError` after a signal; no model is then open.
        """
        self._do(_Opening(model))

    def answer(self, ask: Ask, messages: Sequence[llm.Message], answer: Answer) -> None:
        """Send a request to the open model, show its answer, and fill in ``answer``, however it ends."""
        self._do(_Request(ask, messages, answer))

    def read(self, function: Callable[[llm.Ledger], T]) -> T:
        """Return a function of the ledger, which Trio's thread writes."""
        try:
            return trio.from_thread.run_sync(function, self._ledger, trio_token=self._token)
        except trio.RunFinishedError:
            return function(self._ledger)

    def close(self) -> None:
        """Close the model and the client, and wait until all costs are known. Raises whatever ended the
        loop too early.
        """
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._send.close)
        self._ended.result()

    def _do(self, job: _Job) -> None:
        self._job = job
        try:
            with self._signals.stopping(self._stop):
                self._token.run_sync_soon(self._send.send_nowait, job)
                job.done.result()
        finally:
            self._job = None

    def _stop(self) -> None:
        if (job := self._job) is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(job.stop)

    # -- in Trio's thread ------------------------------------------------------------------------

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            trio.run(self._main)
        except BaseException as exc:  # noqa: BLE001 - it is raised where its work is waited for
            failure = exc
        if failure is None:
            self._ended.set_result(None)
            return
        waiting: list[Future[Any]] = [self._begun, self._ended]
        if (job := self._job) is not None:
            waiting.append(job.done)
        for one in waiting:
            if not one.done():
                one.set_exception(failure)

    async def _main(self) -> None:
        self._begun.set_result(trio.lowlevel.current_trio_token())
        async with llm.open_client(ledger=self._ledger, observer=self._observer) as client:
            job = await self._next()
            while job is not None:
                if isinstance(job, _Opening):
                    job = await self._with_model(client, job)
                else:  # neither the model that was wanted nor the one before could be opened
                    job.done.set_exception(Misuse("no model is open: /model opens one"))
                    job = await self._next()

    async def _next(self) -> _Job | None:
        try:
            return await self._jobs.receive()
        except trio.EndOfChannel:
            return None

    async def _with_model(self, client: llm.Client, opening: _Opening) -> _Job | None:
        """Answer requests with a model; return the job that needs another one, or None at the end."""
        try:
            with trio.CancelScope() as scope:
                opening.on_stop = scope.cancel
                if opening.stopped:
                    scope.cancel()
                async with open_model(opening.model, context=LOCAL_CONTEXT, slots=1) as model:
                    await trio.lowlevel.checkpoint_if_cancelled()
                    opening.on_stop = lambda: None
                    opening.done.set_result(None)
                    return await self._serve(client, model)
        except (llm.MiniLLMError, Misuse, ValueError) as exc:
            if opening.done.done():
                raise
            opening.done.set_exception(exc)
        else:
            opening.done.set_exception(StoppedError())
        return await self._next()

    async def _serve(self, client: llm.Client, model: llm.Model) -> _Job | None:
        while isinstance(job := await self._next(), _Request):
            await _answer(client, model, job)
            job.done.set_result(None)
        return job


async def _answer(client: llm.Client, model: llm.Model, job: _Request) -> None:
    answer, interrupt = job.answer, Interrupt()
    if job.stopped:
        answer.interrupted = signal.SIGINT
        return
    async with trio.open_nursery() as nursery:
        job.on_stop = lambda: nursery.start_soon(interrupt.end, signal.SIGINT)
        with interrupt.scope:
            try:
                await stream_answer(client, model, job.ask, job.messages, answer, interrupt)
            except (llm.MiniLLMError, OutputError, Misuse) as exc:
                answer.error = exc
        job.on_stop = lambda: None
        nursery.cancel_scope.cancel()
    if answer.stream is not None:
        answer.response = answer.stream.response
    answer.interrupted = interrupt.happened
