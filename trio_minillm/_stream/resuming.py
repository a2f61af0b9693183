"""Answers in the background: taken up again where they were cut, and called off when they are left.

The server makes such an answer whether or not anybody listens. What was cut is therefore not lost: the
events behind the last one are asked for, as often as need be, and go into the same answer. Nothing is
generated twice, so an answer goes on after content, too, where no other request is sent again.

=============================  ====================================================================
what happens                   what follows
=============================  ====================================================================
the connection is cut, or      the answer is asked for again, after a pause like that between two
silent for too long            attempts
the server fails at that, or   it is asked for once more, after the wait that it names; unless that
is not there                   was so `Retry.resumes` times in a row
it refuses, does not know it,  the cut is raised, with a note of what came of it
or has not what follows
the answer itself fails        that is raised
the caller leaves              the server is asked to stop
=============================  ====================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from random import random
from typing import Any

import trio

from .._http.credentials import exchange_with
from .._http.exchange import Exchange, ignore_progress
from .._http.roundtrip import OnProgress
from .._protocol.request import Prepared, credentials_of, headers_to, with_key
from .._protocol.resuming import ResumableDecoder
from .._protocol.state import OPEN
from .._types.errors import LimitExceeded, MiniLLMError, StreamTimeout
from .._types.options import retryable
from ..providers import FollowUp, Model, Provider
from .answer import Answer, is_cut
from .clocks import Clocks

MOST_RESUMES = 100
"""Times that one answer is taken up again. A proxy that cuts every minute lets it take over an hour and
a half; a server that cuts behind each event comes to an end."""
CALL_OFF_SECONDS = 1.0
"""Seconds that leaving an answer may take to ask its server to stop: time for a new connection."""


class Resuming:
    """One request whose answer is in the background: what its further requests need, and how often
    they have failed.

    ``on_secrets`` is told of the headers that a key or a signature adds.
    """

    def __init__(
        self,
        connect: Callable[[], Exchange],
        prepared: Prepared,
        on_secrets: Callable[[Mapping[str, str]], None],
    ) -> None:
        assert prepared.continuation is not None
        self.answer: Answer | None = None
        """The answer of the newest attempt, once it has come."""
        self._continuation = prepared.continuation
        self._model = prepared.model
        self._timeouts = prepared.timeouts
        self._retry = prepared.retry
        self._connect = connect
        self._on_secrets = on_secrets
        self._decoder: ResumableDecoder | None = None
        self.begin()

    def begin(self) -> None:
        """Begin an attempt: nothing has come of its answer."""
        self.answer = self._decoder = None
        self._position: int | None = None  # at the newest failure
        self._cut: MiniLLMError | None = None  # behind the newest event
        self._failures = 0  # since then
        self._silent = False  # the newest was silence
        self._asked = 0

    def new_decoder(self, provider: Provider, *options: Any) -> ResumableDecoder:
        """Return the decoder of an attempt's answer."""
        self._decoder = ResumableDecoder(provider, self._continuation, *options)
        return self._decoder

    # -- after a failure -------------------------------------------------------------------------

    def delay(self, error: MiniLLMError, remaining: float) -> float | None:
        """Return the seconds to wait until the answer is asked for again; ``None`` if it won't be.

        ``error`` is what the newest request came to, and ``remaining`` what the clock ``total`` leaves.
        """
        answer, decoder = self.answer, self._decoder
        if answer is None or decoder is None:
            return None
        if self._position != decoder.position:  # something new has come
            self._position, self._cut, self._failures = decoder.position, None, 0
            self._silent = False
        if self._next() is None:
            return None
        cut, before = is_cut(error), self._cut
        if not cut and (before is None or not retryable(error)):
            return None  # the answer itself has failed, or can't be had
        self._cut = before or error
        self._failures += 1
        again, self._silent = self._silent, isinstance(error, StreamTimeout)
        if (
            (again and self._silent)
            or self._failures > self._retry.resumes
            or self._asked >= MOST_RESUMES
        ):
            return None
        wait = self._retry.pause(
            error, attempt=self._failures, remaining=remaining, random=random()
        )
        if wait is not None:
            answer.reopen()
        return wait

    def failure(self, error: MiniLLMError) -> MiniLLMError:
        """Return the error to raise if the answer won't be asked for again after this one.

        It is the cut, with a note, if the answer could not be had, and else what came of it.
        """
        cut = self._cut
        if cut is None or isinstance(error, LimitExceeded) or error is cut:
            return error
        if isinstance(error, StreamTimeout) and error.clock == "total":
            return error
        cut.add_note(f"not resumed: {type(error).__name__}: {error}")
        return cut

    def end(self) -> None:
        """Forget the answer, which may be kept, and the errors, whose tracebacks hold what holds this."""
        self.answer = self._decoder = self._cut = None

    # -- requests --------------------------------------------------------------------------------

    def connect(self, before: Clocks) -> tuple[Exchange, Clocks]:
        """Return what the answer is asked for with, and the clocks of that, behind those ``before``."""
        assert self.answer is not None
        self._asked += 1
        exchange = self._new_exchange("text/event-stream")
        begun = self.answer.content > 0
        total_at = trio.current_time() + before.stop()
        return exchange, Clocks(self._timeouts, total_at, sent=exchange.tells, begun=begun)

    async def ask(self, exchange: Exchange, on_progress: OnProgress) -> None:
        """Ask for the events that follow, and wait for the response's headers."""
        wanted = self._next()
        assert wanted is not None
        await self._send(exchange, wanted, "text/event-stream", on_progress)

    def go_on(self, clocks: Clocks) -> Answer:
        """Return the answer, ready for the body that goes on with it."""
        assert self.answer is not None
        assert self._decoder is not None
        self._decoder.resume()
        self.answer.go_on(clocks)
        return self.answer

    async def call_off(self) -> None:
        """Ask the server to stop an answer that is not over. Whether it does, nobody is told.

        Shielded; takes `CALL_OFF_SECONDS` at most.
        """
        decoder, answer = self._decoder, self.answer
        self._decoder = None  # once is enough
        if decoder is None or answer is None or answer.state.over or not decoder.response_id:
            return
        wanted = self._continuation.cancel_request(decoder.response_id)
        if wanted is None:
            return
        with trio.CancelScope(deadline=trio.current_time() + CALL_OFF_SECONDS, shield=True):
            exchange = self._new_exchange("application/json")
            try:
                await self._send(exchange, wanted, "application/json")
                await exchange.drain()
            except (MiniLLMError, RuntimeError):  # the latter where the client is closed already
                pass  # the caller has left
            finally:
                await exchange.close()

    def _next(self) -> FollowUp | None:
        """Return the request for the events that follow; ``None`` if the answer can't go on."""
        answer, decoder = self.answer, self._decoder
        if answer is None or decoder is None or answer.state.state is not OPEN:
            return None
        if not decoder.response_id or decoder.position is None:
            return None
        return self._continuation.resume_request(decoder.response_id, decoder.position)

    def _new_exchange(self, accept: str) -> Exchange:
        credentials = credentials_of(self._model, partial(_headers_with, accept), self._model)
        return exchange_with(self._connect, credentials, self._on_secrets)

    async def _send(
        self,
        exchange: Exchange,
        wanted: FollowUp,
        accept: str,
        on_progress: OnProgress = ignore_progress,
    ) -> None:
        headers, method = headers_to(self._model, accept), wanted.method
        await exchange.start(
            wanted.url, headers, wanted.body, method=method, on_progress=on_progress
        )


def _headers_with(accept: str, model: Model, key: str) -> Mapping[str, str]:
    return headers_to(with_key(model, key), accept)
