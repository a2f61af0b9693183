"""Clocks, retries and spending limits as frozen values, and the decision whether to retry.

Nothing here waits or knows the time: `Retry.delay` is given everything it depends on.
"""

from __future__ import annotations

import math
import re
from datetime import UTC
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

import msgspec

from .checks import check_count, check_seconds
from .errors import MiniLLMError, ProviderError, RefusedError, SendError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """The clocks of a stream, in seconds. ``None`` turns a clock off.

    A slow consumer never triggers a clock, because all of them stop while the buffer is full.

    Raises ``ValueError`` for anything other than a number of seconds, 0 or more.
    """

    connect: float | None = 10.0
    """The limit for name lookup, TCP, and TLS, until the connection is open. 10 seconds leave time
    for three SYN retries."""
    send: float | None = 30.0
    """The limit for sending without progress, however long sending takes in total. Within 30
    seconds, lost packets have been sent again about seven times."""
    first_chunk: float | None = 300.0
    """The limit from the sent request to the first content. Reasoning models think for minutes, and
    some servers send not even headers before that."""
    idle: float | None = 120.0
    """The limit for silence between content. Keep-alive comments and pings count as silence."""
    byte_idle: float | None = 120.0
    """The limit for time without any bytes. Comments count as bytes."""
    total: float | msgspec.UnsetType | None = msgspec.UNSET
    """The limit from start to end, including retries and their waits. The default is none for a
    stream, because someone watches it, and 600 seconds for `Client.complete`."""
    usage_grace: float | None = 1.0
    """The time to wait for usage after the finish reason and all content. Servers send it within
    milliseconds or not at all. It is not an error if this clock runs out."""
    settlement: float | None = 30.0
    """The time during which the client asks a provider for the final cost of a stream. ``None``
    means that it does not ask. OpenRouter takes up to 20 seconds."""

    def __post_init__(self) -> None:
        if self.settlement == math.inf:
            raise ValueError("settlement must be finite, because a client's block waits for it")
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and value is not msgspec.UNSET:
                check_seconds(name, value)

    def with_total(self, default: float | None) -> Timeouts:
        """Return these clocks with ``total`` set to the default if it is not set yet."""
        if self.total is not msgspec.UNSET:
            return self
        return msgspec.structs.replace(self, total=default)


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """The most that the client holds of one response. Exceeding a bound raises `LimitExceeded`.

    Bounds keep a server from filling the memory. A larger bound costs memory and nothing else: it
    does not make any step block other tasks for longer.

    Raises ``ValueError`` for values other than whole numbers from 1.
    """

    event: int = 64 * 1024 * 1024
    """Bytes of one event, of one line, or of a body instead of a stream: 64 MiB. Pictures, audio,
    and files arrive as one line of JSON, and real ones have 6 to 40 MB."""
    response: int = 256 * 1024 * 1024
    """Bytes of a response, decompressed: 256 MiB. That is about fifty times the longest text answer
    of today's models with log probabilities."""
    arguments: int = 8 * 1024 * 1024
    """Characters of arguments in all tool calls of a response: 8 Mi, about 15 times what a model
    can write in one answer."""
    tool_input: int = 256 * 1024
    """Characters in the input of one of the provider's own tools, which is kept decoded: 256 Ki."""
    choices: int = 128
    """Choices in one response: 128, as OpenAI allows."""
    tool_calls: int = 128
    """Tool calls in one choice: 128. OpenAI allows 128 tools, and more calls mean a model in a
    loop."""
    parts: int = 4096
    """Content blocks, and images, in one choice: 4,096."""
    items: int = 2**18
    """Annotations, reasoning blocks, or log probabilities in one choice: 262,144, which is more
    tokens than any model writes in one answer. Python objects take twenty times the size that these
    have on the wire."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            check_count(name, getattr(self, name))


BOUNDS = Bounds()
"""The bounds of every response for which none are given."""


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """Rules for retrying. The client retries only before the first content, never after it.

    An answer that was cut is not requested twice. Only an answer that the server makes in the
    background is resumed after a cut (``resumes``).

    Retried are requests that could not be sent, requests whose connection broke before an answer
    started, HTTP 408, 409, 425, 429, and 5xx except 501, and the same errors as the first event of
    a stream. Not retried are a used-up quota, a wrong key, an invalid request, an untrusted
    certificate, a failed handshake, and a stream that broke off.

    Raises ``ValueError`` for numbers that make no sense.
    """

    attempts: int = 3
    """The largest number of requests. 1 turns retries off."""
    base_delay: float = 0.5
    """The longest first wait, in seconds. It doubles with every attempt."""
    max_delay: float = 8.0
    """The longest wait that the server did not ask for, in seconds."""
    max_retry_after: float = 60.0
    """The longest wait that a server may ask for, in seconds. If it asks for more, the error is
    raised at once. Limits per minute refill within 60 seconds."""
    resumes: int = 5
    """The number of times in a row that an answer in the background is resumed without progress. 0
    turns resuming off. Resuming costs nothing, because nothing is generated twice."""

    def __post_init__(self) -> None:
        check_count("attempts", self.attempts)
        if type(self.resumes) is not int or self.resumes < 0:
            raise ValueError("resumes must be a whole number, 0 or more")
        for name in ("base_delay", "max_delay", "max_retry_after"):
            check_seconds(name, getattr(self, name))

    def delay(
        self, error: MiniLLMError, *, attempt: int, remaining: float, random: float
    ) -> float | None:
        """Return the seconds to wait before the next attempt, or ``None`` to give up now.

        - ``error`` is what the last attempt raised.
        - ``attempt`` is the number of attempts so far.
        - ``remaining`` is the rest of the clock ``total``, in seconds. A longer wait is not
          started.
        - ``random`` is uniform in [0, 1). The wait is drawn from the whole range (full jitter), so
          that clients which failed together do not return together.

        A server that asks for 0 seconds is obeyed once, because attempts without a wait are soon
        used up.
        """
        if attempt >= self.attempts or not retryable(error):
            return None
        return self.pause(error, attempt=attempt, remaining=remaining, random=random)

    def pause(
        self, error: MiniLLMError, *, attempt: int, remaining: float, random: float
    ) -> float | None:
        """Return the same wait as `delay`, without checking whether another attempt is allowed."""
        asked = None
        if isinstance(error, RefusedError):
            asked = error.retry_after
        elif isinstance(error, ProviderError):
            asked = error.info.retry_after
        if asked or (asked is not None and attempt == 1):
            wait = asked if asked <= self.max_retry_after else None
        else:
            wait = random * min(self.max_delay, self.base_delay * 2.0 ** min(attempt - 1, 32))
        return None if wait is None or wait >= remaining else wait


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Spending limits. Once one is reached, no attempt starts, and `BudgetExceeded` is raised.

    Known spending counts: the costs and tokens of attempts that have ended, including failed ones,
    as far as they are known. Running attempts can exceed the limit; ``running`` decides what
    happens to them.

    Raises ``ValueError`` for a limit that is not a number of USD or tokens, 0 or more.
    """

    max_cost: Decimal | float | int | None = None
    """The limit in USD."""
    max_tokens: int | None = None
    """The limit in tokens, input and output together."""
    running: Literal["finish", "cancel"] = "finish"
    """The fate of attempts that are running when the limit is reached: they finish, or they are
    cancelled. Consumers of a cancelled attempt get `BudgetExceeded` with what had arrived."""

    def __post_init__(self) -> None:
        cost, tokens = self.max_cost, self.max_tokens
        if cost is not None:
            number = not isinstance(cost, bool) and isinstance(cost, Decimal | float | int)
            if not number or not Decimal(cost).is_finite() or cost < 0:
                raise ValueError("max_cost must be a number of USD, 0 or more")
        if tokens is not None and (type(tokens) is not int or tokens < 0):
            raise ValueError("max_tokens must be a whole number, 0 or more")
        if self.running not in ("finish", "cancel"):
            raise ValueError("running must be 'finish' or 'cancel'")


def retryable(error: MiniLLMError) -> bool:
    """Return whether an error from before the first content may pass by itself."""
    if isinstance(error, RefusedError | ProviderError):
        return error.info.retryable
    return isinstance(error, SendError) and not error.permanent


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the wait that ``retry-after-ms`` or ``retry-after`` asks for, in seconds.

    ``now`` is the time in seconds since the epoch, for a header that gives a date; a date without
    a time zone is read as UTC, as HTTP's are. The first header that makes sense counts; ``None``
    if neither does.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name, "")
        numbers = [re.fullmatch(_NUMBER, part.strip(' "')) for part in value.split(",")]
        if all(numbers):  # several where each of two proxies has added one
            seconds = max(float(n[1]) / _PER_SECOND.get(n[2], unit) for n in numbers if n)
        else:
            seconds = _until(value, now)
        if 0 <= seconds < float("inf"):
            return seconds
    return None


_NUMBER = r"([0-9]+(?:\.[0-9]*)?)(?: ?(m?s|sec|seconds?))?"
"""A number as HTTP writes it, which some servers put a unit to. `float` accepts more: ``1_000``,
``inf``, digits of other scripts."""
_PER_SECOND = {"ms": 1000.0, **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0)}


def _until(date: str, now: float) -> float:
    """Return the seconds until an HTTP date: 0 if it is past, -1 if it is not a date."""
    from email.utils import parsedate_to_datetime  # slow to import, and rarely needed

    try:
        moment = parsedate_to_datetime(date)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return -1.0
