"""Calls to other endpoints than those for answers, such as a vendor's batch API: with clocks, again where
that is safe, and with errors of ours.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing

import trio
from msgspec.structs import replace

from .._http.credentials import SentOnce, exchange_with
from .._http.exchange import Exchange, ignore_progress
from .._http.failures import never_sent
from .._protocol.redaction import redact, redact_text, secrets_added, secrets_of
from .._protocol.request import credentials_of, headers_to, with_key
from .._types.errors import (
    ConnectionCut,
    LimitExceeded,
    MiniLLMError,
    RefusedError,
    SendError,
    StreamTimeout,
)
from .._types.options import retry_after
from ..providers import Model
from .vendors import Call

CALL_SECONDS = 60.0
"""Seconds that a call may take, beside the time for its body."""
BYTES_PER_SECOND = 50_000
"""Slowest upload that is waited for."""
SILENT_SECONDS = 60.0
"""Longest silence while a file of results is read."""
ATTEMPTS = 8
"""Attempts at a call that fails in a way which may pass: some two minutes, with their waits."""
LONGEST_WAIT = 60.0
"""Longest wait between two attempts, in seconds, unless the server asks for more."""
LONGEST_ASKED = 600.0
"""Longest wait that a server may ask for."""
MAX_REPLY = 64 << 20
"""Bytes of an answer that is held as a whole: a list of a hundred batches has some 100 KB."""
MAX_LINE = 64 << 20
"""Bytes of a line of results."""
_ADDED_SECRETS = 64
"""Keys and signatures of the latest calls that are blanked out: more than there are calls at a time."""
_AGAIN = frozenset({408, 409, 425, 429})


def may_pass(error: MiniLLMError) -> bool:
    """Return True if the same call may succeed later."""
    if isinstance(error, RefusedError):
        status = error.status or 0
        return (status in _AGAIN and error.kind != "quota") or status >= 500
    if isinstance(error, SendError):
        return not error.permanent
    return isinstance(error, ConnectionCut | StreamTimeout)


def was_sent(error: MiniLLMError) -> bool:
    """Return True if the server may have done what a call that failed asked for."""
    if isinstance(error, RefusedError):
        return (error.status or 0) >= 500 or error.status in (408, 409)
    return not never_sent(error)


def wait_before(attempt: int, error: MiniLLMError) -> float:
    """Return the seconds before another attempt: 1, 2, 4 … 60, up to a quarter less, so that many
    programs do not come at once; or what the server asks for, 600 at most.
    """
    wait = min(LONGEST_WAIT, 2.0 ** (attempt - 1)) * (1 - random.random() / 4)
    asked = error.retry_after if isinstance(error, RefusedError) else None
    return max(wait, min(asked or 0.0, LONGEST_ASKED))


Slept = Callable[[float], Awaitable[bool]]
"""Async function that sleeps until a time on Trio's clock, or returns False to end what is waited for."""


async def _slept(until: float) -> bool:
    await trio.sleep_until(until)
    return True


class Caller:
    """Sender of calls to a model's address, with its key."""

    def __init__(self, connect: Callable[[], Exchange], model: Model) -> None:
        self._connect = connect
        self._model = model
        self._secrets = secrets_of(model.api_key, model.headers.values())
        self._added: deque[bytes] = deque(maxlen=_ADDED_SECRETS)
        self.failing: str = ""
        """Words for the failure of the newest call; empty if it did not fail."""

    async def once(self, call: Call) -> bytes:
        """Make a call, and return the body of its answer. Raises `MiniLLMError`."""
        try:
            data = await self._once(call)
        except MiniLLMError as exc:  # which is not kept: its frames hold the part
            unsent = isinstance(exc, SendError) and not was_sent(exc)
            self.failing = f"nothing can be sent: {exc}" if unsent else str(exc)
            raise
        self.failing = ""
        return data

    async def _once(self, call: Call) -> bytes:
        seconds = CALL_SECONDS + len(call.body) / BYTES_PER_SECOND
        exchange = self._exchange(call)
        try:
            with trio.move_on_after(seconds):
                await self._start(exchange, call)
                out = bytearray()
                while data := await exchange.receive():
                    out += data
                    if len(out) > MAX_REPLY:
                        raise LimitExceeded("bytes in one response", MAX_REPLY)
                return bytes(out)
            raise StreamTimeout("total", seconds)
        finally:
            await exchange.close()

    async def call(self, call: Call, slept: Slept = _slept) -> bytes:
        """Make a call that may be made twice, again and again while its failure may pass and ``slept``
        returns True.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self.once(call)
            except MiniLLMError as exc:
                again = attempt < ATTEMPTS and may_pass(exc)
                if not (again and await slept(trio.current_time() + wait_before(attempt, exc))):
                    raise
        raise AssertionError("the last attempt raises or returns")

    async def lines(self, url: str) -> AsyncGenerator[bytes, None]:
        """Yield the lines of a file of results. Raises `ConnectionCut` for one that is cut.

        It holds no cancel scope between two lines, whatever is done with them meanwhile.
        """
        call = Call("GET", url, named=True)
        exchange = self._exchange(call)
        try:
            with trio.move_on_after(CALL_SECONDS) as scope:
                await self._start(exchange, call)
            if scope.cancelled_caught:
                raise StreamTimeout("total", CALL_SECONDS)
            async with aclosing(_lines(exchange)) as lines:
                async for line in lines:
                    yield line
        finally:
            await exchange.close()

    def _exchange(self, call: Call) -> Exchange:
        """Return an exchange for a call, which asks for the key and signs where the model wants that."""
        credentials = credentials_of(self._model, self._headers_with, call)
        return exchange_with(self._connect, credentials, self._keep_secrets)

    def _keep_secrets(self, headers: Mapping[str, str]) -> None:
        self._added += secrets_added(headers)

    def _headers_with(self, call: Call, key: str) -> dict[str, str]:
        return _headers(with_key(self._model, key), call)

    async def _start(self, exchange: Exchange, call: Call) -> None:
        # The headers have no name here: a traceback's variables would show the key.
        await exchange.start(
            call.url,
            _headers(self._model, call),
            call.body,
            method=call.method,
            on_progress=SentOnce() if call.once else ignore_progress,
        )
        if not 200 <= exchange.status < 300:
            raise self._refused(call, exchange, await exchange.short_body(CALL_SECONDS))

    def _refused(self, call: Call, exchange: Exchange, body: bytes) -> RefusedError:
        status, headers = exchange.status, exchange.headers
        info = self._model.provider.parse_refusal(status, headers, redact(body, self._known()))
        url = self.redacted(call.url.partition("?")[0])
        words = info.message
        if status in (404, 405, 501):
            or_none = ", or none with this id for this key" if call.named else ""
            words = f"{words} ({url}: no {call.what} here{or_none})"
        elif status == 413:
            words = f"{words} (a part is too large for this server: make it smaller)"
        request_id = headers.get("x-request-id") or headers.get("request-id")
        return RefusedError(
            replace(info, message=words),
            retry_after=retry_after(headers, now=time.time()),
            request_id=None if request_id is None else self.redacted(request_id),
            headers={name: self.redacted(value) for name, value in headers.items()},
            url=url,
        )

    def redacted(self, text: str) -> str:
        """Return a server's words without the key and what the latest calls were signed with."""
        return redact_text(text, self._known())

    def _known(self) -> list[bytes]:
        return [*self._secrets, *self._added]


def _headers(model: Model, call: Call) -> dict[str, str]:
    headers = {**headers_to(model, "application/json"), **call.headers}
    if call.body or call.method == "POST":
        headers["content-type"] = call.content_type
    return headers


async def _lines(exchange: Exchange) -> AsyncGenerator[bytes, None]:
    rest = bytearray()
    while True:
        data = b""
        with trio.move_on_after(SILENT_SECONDS) as scope:
            data = await exchange.receive()
        if scope.cancelled_caught:
            raise StreamTimeout("byte_idle", SILENT_SECONDS)
        if not data:
            break
        *whole, last = data.split(b"\n")
        for piece in whole:
            line, rest = bytes(rest + piece), bytearray()
            if line.strip():
                yield line
        rest += last
        if len(rest) > MAX_LINE:
            raise LimitExceeded("bytes in one line", MAX_LINE)
    if rest.strip():
        yield bytes(rest)
