"""Exchanges whose key is asked for, or which are signed: one request, perhaps sent twice.

A key that runs out is asked for anew with each attempt. A server may still refuse it, if it was called
back or ran out on the way: then it is asked for once more, and the request goes out again if another
one comes. The functions of the program that are asked run under the clock ``connect``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from inspect import isawaitable
from typing import Literal, TypeAlias

import msgspec

from .._types.credentials import (
    Credentials,
    RequestToSign,
    checked_headers,
    checked_key,
    failed_call,
    in_own_words,
    without_errors,
)
from .._types.errors import CredentialsError
from .exchange import Exchange, Outgoing, Response, ignore_progress
from .roundtrip import CONNECTING, SENDING, OnProgress
from .roundtrip import SENT as OUT
from .transport_errors import ReadError
from .urls import parsed

STARTED, COMPLETE = "credentials.started", "credentials.complete"
"""The events around what the program's functions do, as a transport's are named."""
SENT = "credentials.send_request_body.complete"
"""The event of a request that goes out at once (see `Exchange.tells`)."""

_WORDS = {
    "ask": "no key: the function api_key",
    "sign": "not signed: the function sign",
}

OnSecrets: TypeAlias = Callable[[Mapping[str, str]], None]
"""Function that is told of the headers that a key or a signature has added."""


def exchange_with(
    connect: Callable[[], Exchange], credentials: Credentials | None, on_secrets: OnSecrets
) -> Exchange:
    """Return an exchange, which asks for the key and signs if there are functions for that."""
    if credentials is None:
        return connect()
    return CredentialedExchange(connect, credentials, on_secrets)


class CredentialedExchange(Exchange):
    """One request and its response, with a key and a signature of the moment.

    ``connect`` makes the exchanges that it is sent by, and ``on_secrets`` is told of the headers that
    nobody must repeat.
    """

    tells = True

    def __init__(
        self, connect: Callable[[], Exchange], credentials: Credentials, on_secrets: OnSecrets
    ) -> None:
        super().__init__()
        self._connect = connect
        self._credentials = credentials
        self._on_secrets = on_secrets

    async def _send(self, request: Outgoing) -> Response:
        raise NotImplementedError  # other exchanges do it

    async def start(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        method: str = "POST",
        on_progress: OnProgress = ignore_progress,
    ) -> None:
        """Ask for the key, sign and send the request, and wait for the response's headers.

        Does so once more after a status 401, if the key is another one by then: a second 401 is final.
        Raises what `Exchange.start` does, and `CredentialsError`.
        """
        request = Outgoing(method, url, headers, body, on_progress)
        headers, body = {}, b""
        keyed = await self._keyed(request)
        sent = await self._sent(keyed)
        if sent.status == 401 and self._credentials.ask is not None:
            again = await self._keyed_anew(request, keyed, sent)
            if again is not None:
                sent = await self._sent(again)
        self.adopt(sent)
        self.waits = sent.waits
        if self.status == 401:  # whatever it says of another attempt
            self.headers = {k: v for k, v in self.headers.items() if k != "x-should-retry"}
        del self._connect, self._credentials, self._on_secrets  # a stream may be kept

    async def _keyed(self, request: Outgoing) -> Outgoing:
        """Return the request with its key, if that has to be asked for."""
        credentials = self._credentials
        if credentials.ask is None:
            return request
        request.on_progress(STARTED)
        keyed = await _called(credentials, "ask", (), partial(_with_key, request, credentials))
        self._on_secrets(_added(request, keyed))
        return keyed

    async def _keyed_anew(
        self, request: Outgoing, before: Outgoing, refused: Exchange
    ) -> Outgoing | None:
        """Return the request with another key, and close the response that refused the one before;
        ``None`` if the key is the same.
        """
        try:
            again = await self._keyed(request)
            if again.headers == before.headers:
                return None
            await refused.drain()
        except BaseException:
            await refused.close()
            raise
        await refused.close()
        return again

    async def _sent(self, request: Outgoing) -> Exchange:
        """Sign a request and send it. Return the exchange that has its response."""
        credentials = self._credentials
        if credentials.sign is not None:
            request.on_progress(STARTED)
            asked = _to_sign(request)
            use = partial(_signed, request, asked)
            signed = await _called(credentials, "sign", (asked,), use)
            self._on_secrets(_added(request, signed))
            request = signed
        exchange = self._connect()
        request.on_progress(COMPLETE)
        if exchange.tells:
            request.on_progress(SENT)
        await exchange.start(
            request.url,
            request.headers,
            request.body,
            method=request.method,
            on_progress=request.on_progress,
        )
        return exchange


def _with_key(request: Outgoing, credentials: Credentials, answer: object) -> Outgoing:
    return msgspec.structs.replace(request, headers=credentials.headers(checked_key(answer)))


def _to_sign(request: Outgoing) -> RequestToSign:
    headers = {"host": parsed(request.url).netloc.decode("ascii"), **_in_lower_case(request)}
    return RequestToSign(method=request.method, url=request.url, headers=headers, body=request.body)


def _signed(request: Outgoing, asked: RequestToSign, answer: object) -> Outgoing:
    # What it has got and returns as it was is neither replaced nor a secret: the host, say.
    own = {k: v for k, v in checked_headers(answer).items() if asked.headers.get(k) != v}
    return msgspec.structs.replace(request, headers={**_in_lower_case(request), **own})


def _in_lower_case(request: Outgoing) -> dict[str, str]:
    """Return the headers by the names that others replace them by; a provider may write them anyhow."""
    return {name.lower(): value for name, value in request.headers.items()}


def _added(before: Outgoing, after: Outgoing) -> dict[str, str]:
    return {k: v for k, v in after.headers.items() if before.headers.get(k) != v}


async def _called(
    credentials: Credentials,
    name: Literal["ask", "sign"],
    arguments: tuple[RequestToSign, ...],
    use: Callable[[object], Outgoing],
) -> Outgoing:
    """Call one of the program's functions, and return the request that its answer makes.

    No frame has a name for the function, whose ``repr`` may show the arguments that it was given.
    Raises `CredentialsError`, whose frames and causes have neither the key nor the request.
    """
    answer: object = None
    failure: BaseException
    try:
        answer = getattr(credentials, name)(*arguments)
        if isawaitable(answer):
            answer = await answer
        return use(answer)
    except CredentialsError as exc:
        failure = in_own_words(exc)
    except Exception as exc:  # noqa: BLE001 - a function of the program's own
        failure = failed_call(_WORDS[name], exc)
    except BaseExceptionGroup as exc:  # cancelled, or interrupted, and what failed meanwhile
        failure = without_errors(exc)
    del use, answer
    raise failure


class SentOnce:
    """Progress of a request that is not sent again where the connection ended without a word.

    One that ends so soon is taken for one that had died idle, and the request goes out on another. But a
    server that did what was asked before it died has done it unknown to anybody.
    """

    def __init__(self) -> None:
        self._is_out = False

    def __call__(self, event: str) -> None:
        if event == STARTED:  # with a key, for the first time or after a refusal
            self._is_out = False
        elif event in (SENDING, OUT):
            self._is_out = True
        elif event == CONNECTING and self._is_out:
            raise ReadError("the connection ended, and the request may have arrived")
