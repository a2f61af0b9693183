"""Clocks, retries and spending limits as frozen values, and the decision whether to retry.

Nothing here waits or knows the time: `Retry.delay` is given everything it depends on.
"""

from __future__ import annotations

import math
import re
from datetime import UTC
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Literal

import msgspec

from .checks import check_count, check_seconds
from .errors import MiniLLMError, ProviderError, RefusedError, SendError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """The clocks of a stream, in seconds; ``None`` turns one off.

    A slow consumer never trips one: all of them stand still while the buffer to it is full.

    Raises ``ValueError`` for anything but a number of seconds, 0 or more.
    """

    connect: float | None = 10.0
    """Limit for name look-up, TCP and TLS, until the connection stands. 10 s: three SYN retries
    fit."""
    send: float | None = 30.0
    """Limit of time without progress while the request is sent, however long that takes in all.
    30 s: lost packets have been sent again some seven times by then."""
    first_chunk: float | None = 300.0
    """Limit from the sent request to the first content. Reasoning models think for minutes, and some
    servers hold back even the headers until then."""
    idle: float | None = 120.0
    """Limit of silence between content; keep-alive comments and pings count as silence."""
    byte_idle: float | None = 120.0
    """Limit of time without any bytes, comments included."""
    total: float | msgspec.UnsetType | None = msgspec.UNSET
    """Limit from start to end, retries and their waits included. Unless set: none for a stream,
    since someone is watching it; 600 s for `Client.complete`, since no one is."""
    usage_grace: float | None = 1.0
    """Time to wait for usage once the finish reason and all content have come. Servers send it
    within milliseconds or not at all. When it runs out, that is not an error."""
    settlement: float | None = 30.0
    """Time during which a provider is asked for the cost of a stream that ended without a final
    figure; ``None``: it is not asked. 30 s: OpenRouter's answer takes up to 20."""

    def __post_init__(self) -> None:
        if self.settlement == math.inf:
            raise ValueError("settlement must have an end, since a client's block waits for it")
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
    """The most that is held of one response: exceeding any of these is a `LimitExceeded`.

    They keep a server from filling the memory. A larger one costs that memory and nothing else:
    whatever their values, no step takes other tasks their turn for longer.

    Raises ``ValueError`` for anything but whole numbers from 1 on.
    """

    event: int = 64 * 1024 * 1024
    """Bytes of one event, of one line, or of a body in place of a stream: 64 MiB. Pictures, audio
    and files come as one line of JSON; those of 6 to 40 MB are real."""
    response: int = 256 * 1024 * 1024
    """Bytes of a response, decompressed: 256 MiB, about fifty times the longest answer of text that
    any model gives today with log probabilities."""
    arguments: int = 8 * 1024 * 1024
    """Characters of arguments in all the tool calls of a response: 8 Mi, some 15 times what a model
    can say in one answer."""
    tool_input: int = 256 * 1024
    """Characters in the input of one of the provider's own tools, which is kept decoded: 256 Ki."""
    choices: int = 128
    """Choices in one response. OpenAI allows 128."""
    tool_calls: int = 128
    """Tool calls in one choice. OpenAI allows 128 tools; more calls mean a model in a loop."""
    parts: int = 4096
    """Content blocks, and images, in one choice."""
    items: int = 2**18
    """Annotations, reasoning blocks or log probabilities in one choice. As Python objects they take
    twenty times their size on the wire. 262,144 is more tokens than any model gives in one answer."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            check_count(name, getattr(self, name))


BOUNDS = Bounds()
"""The bounds of every response for which none are given."""


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """Rules for trying again, which happens only before the first content, never after it: an answer
    that was cut is not asked for twice. Only one that its server makes in the background goes on after
    a cut (``resumes``).

    Tried again are requests that could not be sent or whose connection died before an answer
    began, HTTP 408, 409, 425, 429 and 5xx except 501, and the same errors reported as the first event
    of a stream. Not tried again are an exhausted quota, a wrong key, a wrong request, a certificate that
    is not accepted, a handshake that fails, and a stream that broke off.

    Raises ``ValueError`` for numbers that make no sense.
    """

    attempts: int = 3
    """Number of requests in all; 1 turns retries off."""
    base_delay: float = 0.5
    """Upper bound of the first wait, in seconds; it doubles with every attempt."""
    max_delay: float = 8.0
    """Upper bound of any wait that the server did not ask for, in seconds."""
    max_retry_after: float = 60.0
    """Longest wait, in seconds, that a server may ask for; beyond it, the error is raised at once.
    Limits per minute refill within 60 s."""
    resumes: int = 5
    """Number of times in a row that an answer in the background is taken up again without anything new
    of it; 0 turns that off. It costs nothing, since nothing is generated twice."""

    def __post_init__(self) -> None:
        check_count("attempts", self.attempts)
        if type(self.resumes) is not int or self.resumes < 0:
            raise ValueError("resumes must be a whole number from 0 on")
        for name in ("base_delay", "max_delay", "max_retry_after"):
            check_seconds(name, getattr(self, name))

    def delay(
        self, error: MiniLLMError, *, attempt: int, remaining: float, random: float
    ) -> float | None:
        """Return the seconds to wait before the next attempt, or ``None`` to give up now.

        ``attempt`` is the number of attempts so far; ``remaining`` is what the clock ``total``
        leaves, in seconds; ``random`` is uniform in [0, 1). The wait is drawn from the whole range
        (full jitter), so that many clients that failed together don't return together. A wait that
        would outlast ``remaining`` is not begun. A server that asks for 0 seconds is believed once:
        attempts without any wait between them are soon used up.
        """
        if attempt >= self.attempts or not retryable(error):
            return None
        return self.pause(error, attempt=attempt, remaining=remaining, random=random)

    def pause(
        self, error: MiniLLMError, *, attempt: int, remaining: float, random: float
    ) -> float | None:
        """Return the wait that `delay` returns, without asking whether there may be another attempt."""
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
    """Spending limits; once one is reached, no attempt starts, and `BudgetExceeded` is raised.

    Known spending counts: the costs and tokens of attempts that have ended, failed ones included,
    as far as they are known. Attempts that are still running can carry the sum past the limit;
    ``running`` decides what happens to them.

    Raises ``ValueError`` for a limit that is not a number of USD or tokens, 0 or more.
    """

    max_cost: Decimal | float | int | None = None
    """Limit in USD."""
    max_tokens: int | None = None
    """Limit in tokens, input and output together."""
    running: Literal["finish", "cancel"] = "finish"
    """Let the attempts that are running when the limit is reached finish, or cancel them (their
    consumers get `BudgetExceeded`, with what had arrived)."""

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
    try:
        moment = parsedate_to_datetime(date)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return -1.0
