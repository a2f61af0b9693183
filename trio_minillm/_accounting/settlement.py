"""Settlement: asking a provider afterwards what a generation cost.

A model and a generation id go in, a final usage comes out. Records, ledgers and callbacks are the
bookkeeper's (`trio_minillm._accounting.bookkeeper`).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from weakref import WeakValueDictionary

import msgspec
import trio

from .._http.credentials import CredentialedExchange
from .._http.exchange import Exchange
from .._protocol.request import credentials_of, headers_to, with_key
from .._types.errors import MiniLLMError, ProtocolError
from .._types.options import retry_after
from .._types.usage import Usage
from ..providers import Model, SettlementRequest
from ..providers._base import loggable_url
from ..providers._safe_calls import safe_settlement_request

ASK_SECONDS = 10.0
"""Seconds that one question may take: a connection that hangs leaves time for two more within the
clock ``settlement`` (30 s)."""
ASK_EVERY = 2.0
"""Seconds between two questions at most; the first wait is a quarter of it. OpenRouter has its
answer only some 10 to 20 s after a stream was left."""
ASKING_AT_ONCE = 64
"""Number of questions to one address at a time, so that leaving a thousand streams at once does not
flood it."""
MAX_UNREADABLE = 5
"""Number of unreadable answers after which no more questions are asked: a proxy's error page will
not become an answer."""
MODELS_KEPT = 64
"""Number of models, each of another address, that are kept for later questions. It bounds the
memory of a client that is given ever new addresses."""
WAIT_STATUSES = frozenset({404, 408, 409, 425, 429})
"""Statuses that mean "not yet", as every 5xx does. After any other, asking again is of no use."""

_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError, ProtocolError)
"""Errors that a provider's parser may raise for an answer that it can't read."""

_log = logging.getLogger("trio_minillm")


class SettlementClient:
    """HTTP client that asks providers what a generation cost, and keeps the models to ask with.

    Guarantees: at most `ASKING_AT_ONCE` questions to one address are under way. Nothing that a
    server or a provider's parser does is raised.
    """

    def __init__(self, connect: Callable[[], Exchange]) -> None:
        self._connect = connect
        # By address, each for as long as somebody asks there or waits to.
        self._limiters: WeakValueDictionary[str, trio.CapacityLimiter] = WeakValueDictionary()
        self._models: dict[tuple[str, str], Model] = {}  # by provider and address, newest last
        self._newest: Model | None = None

    def remember(self, model: Model) -> None:
        """Keep a model: its address and key serve to ask about attempts of an earlier process."""
        if model is self._newest:  # as for nearly every request
            return
        self._newest = model
        place = (model.provider.name, loggable_url(model))
        self._models.pop(place, None)
        self._models[place] = model
        if len(self._models) > MODELS_KEPT:
            del self._models[next(iter(self._models))]

    def model_at(self, provider: str, base_url: str) -> Model | None:
        """Return the model that was last remembered for a provider at an address."""
        return self._models.get((provider, base_url))

    def model_for(self, generation_id: str) -> Model | None:
        """Return the model that was last remembered and can be asked about a generation id."""
        able = (
            m for m in reversed(self._models.values()) if safe_settlement_request(m, generation_id)
        )
        return next(able, None)

    async def ask(self, model: Model, generation_id: str, seconds: float) -> Usage | None:
        """Ask until there is an answer, for ``seconds`` from the first question at most.

        Returns ``None`` without an answer: if the provider can't be asked or refuses to say, if
        its answers can't be read, or if the time is over.
        """
        request = safe_settlement_request(model, generation_id)
        if request is None or seconds <= 0:
            return None
        limiter = self._limiter(loggable_url(model))
        until, wait, unreadable = math.inf, 0.0, 0
        while unreadable < MAX_UNREADABLE:
            usage, again = None, 0.0
            async with limiter:
                # The clock starts with the first question, not with the wait for its turn.
                until = min(until, trio.current_time() + seconds)
                with trio.move_on_at(until):
                    try:
                        usage, again = await self._ask_once(model, request)
                    except _UNREADABLE:
                        unreadable += 1
            wait = min(ASK_EVERY, wait + ASK_EVERY / 4)
            left = until - trio.current_time()
            if usage is not None or again >= left:
                return usage
            await trio.sleep(min(max(wait, again), left))
        return None

    def _limiter(self, address: str) -> trio.CapacityLimiter:
        return self._limiters.setdefault(address, trio.CapacityLimiter(ASKING_AT_ONCE))

    async def _ask_once(
        self, model: Model, request: SettlementRequest
    ) -> tuple[Usage | None, float]:
        """Return the usage, if the answer has it, and the seconds to wait before asking again.

        They are infinity if there is no use in asking again. Raises `_UNREADABLE`.
        """
        exchange = self._connect()
        credentials = credentials_of(model, _headers_with, model)
        if credentials is not None:
            exchange = CredentialedExchange(self._connect, credentials, _keep_nothing)
        try:
            with trio.move_on_after(ASK_SECONDS):
                headers = headers_to(model, "application/json")
                await exchange.start(request.url, headers, request.body, method=request.method)
                body = await exchange.short_body(ASK_SECONDS)
                if 200 <= exchange.status < 300:
                    return model.provider.parse_settlement(body), 0.0
                if exchange.status in WAIT_STATUSES or exchange.status >= 500:
                    return None, retry_after(exchange.headers, now=time.time()) or 0.0
                return None, math.inf
        except _UNREADABLE:
            raise
        except MiniLLMError:
            pass  # no connection, say: the next question may have an answer
        except Exception as exc:  # noqa: BLE001 - a provider's bug must not lose the record
            # Without its text, which may quote a server, and that the key.
            names = type(model.provider).__name__, type(exc).__name__
            _log.error("%s can't read a looked-up cost: %s", *names)
            return None, math.inf
        finally:
            await exchange.close()
        return None, 0.0


def _headers_with(model: Model, key: str) -> dict[str, str]:
    return headers_to(with_key(model, key), "application/json")


def _keep_nothing(headers: Mapping[str, str]) -> None:
    """Keep no secrets: nothing that a server says here is shown."""
