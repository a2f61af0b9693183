"""The task of a stream over an answer that another client has received."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .._http.event_source import address_of, exchange_over
from .._protocol.redaction import secrets_in
from .._protocol.request import Prepared, check_model
from .._types.checks import check_option, check_seconds
from .._types.options import Bounds, Retry, Timeouts
from ..providers import Model, Provider
from .task import StreamTask

if TYPE_CHECKING:
    from .._http.event_source import EventSource

NOWHERE = "http://source.invalid"
"""Address of a model whose source does not say which was asked. It is used for nothing else."""


def model_of(source: EventSource, model: Model | str, provider: Provider | None) -> Model:
    """Return the model whose answer a source has: this one, perhaps with another provider, or one of
    this name at the address that was asked.

    Raises ``TypeError`` for a name without a provider.
    """
    check_option("provider", provider, Provider)
    if provider is None or not isinstance(model, str):
        check_model(model)
        assert isinstance(model, Model)
        return model if provider is None else msgspec.structs.replace(model, provider=provider)
    return Model(name=model, provider=provider, base_url=address_of(source) or NOWHERE)


def with_idle(timeouts: Timeouts | None, idle: float | None) -> Timeouts:
    """Return the clocks, two of them as long as ``idle`` if that is given."""
    check_option("timeouts", timeouts, Timeouts)
    if idle is None:
        return timeouts or Timeouts()
    check_seconds("idle_timeout", idle)
    if timeouts is not None:
        raise ValueError("give idle_timeout or timeouts, not both")
    return Timeouts(first_chunk=idle, idle=idle)


def task_over(
    source: EventSource,
    model: Model,
    *,
    expect_usage: bool,
    choices: int,
    timeouts: Timeouts,
    bounds: Bounds,
    lenient: bool,
    raw: bool,
) -> StreamTask:
    """Return the task that reads such an answer. It makes one attempt: it can't ask again."""
    exchange, asked = exchange_over(source)
    prepared = Prepared(
        model=model,
        url=model.provider.endpoint_url(model) if asked is None else str(asked.url),
        headers={},
        body=b"",
        timeouts=timeouts,
        retry=Retry(attempts=1),
        expect_usage=expect_usage,
        choices=choices,
        bounds=bounds,
        lenient=lenient,
        raw=raw,
    )
    task = StreamTask(lambda: exchange, prepared)
    if asked is not None:  # the key of the client that has asked, which a server may repeat
        fields = [*asked.headers.items(), *asked.url.params.multi_items()]
        task.keep_secrets(secrets_in(fields))
    return task
