"""The task of a stream over an answer that another client has received."""

from __future__ import annotations

from .._http.event_source import EventSource, exchange_over
from .._protocol.request import Prepared
from .._types.options import Bounds, Retry, Timeouts
from ..providers import Model
from .task import StreamTask


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
    exchange, url = exchange_over(source)
    prepared = Prepared(
        model=model,
        url=url or model.provider.endpoint_url(model),
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
    return StreamTask(lambda: exchange, prepared)
