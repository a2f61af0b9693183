"""The client: requests in, streams out."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import msgspec
import trio

from ._accounting.bookkeeper import Bookkeeper, OnCost
from ._accounting.budget import Budget
from ._accounting.ledger import Ledger
from ._accounting.record import CostRecord
from ._accounting.settlement import SettlementClient
from ._accounting.totals import JSON_ERRORS
from ._http.connector import (
    CheckAddress,
    Connect,
    any_address,
    check_brought,
    open_connector,
)
from ._http.open_files import raise_file_limit
from ._protocol.ingest import Ingest
from ._protocol.request import Messages, Prepared, prepare, with_price
from ._stream.outside import check_in_trio
from ._stream.task import StreamTask
from ._toolkit.streams import TrackedStream
from ._types.checks import check_option
from ._types.cost import TokenPrice
from ._types.options import BOUNDS, Bounds, Limits, Retry, Timeouts
from ._types.params import Params, PlainParams, show_params
from ._types.response import CompletionResponse
from ._types.value_type import Asked
from .providers import Model

if TYPE_CHECKING:
    from ._batch.batch import Batch
    from ._batch.options import BatchOptions
    from ._batch.types import BatchRequest
    from ._http.brought import HTTPClient, HTTPTransport
    from ._toolkit.choices.choice import ModelChoice
    from ._toolkit.choices.race import PreparedChoice
    from ._toolkit.observers.observing import Notifier, Observer
    from ._toolkit.reasking import Asking
    from ._toolkit.tools.tool_loop import ToolRun
    from ._vendor_batch.journal import Journal
    from ._vendor_batch.options import VendorBatchOptions
    from ._vendor_batch.vendor_batch import VendorBatch

_log = logging.getLogger("trio_minillm")

COMPLETE_SECONDS = 600.0
"""Seconds of the total clock of `Client.complete`, and of a batch's attempt, unless another is set:
ten minutes, as in the vendors' own clients."""


class Client:
    """A client for any number of models. Open one with `open_client`.

    Any number of tasks may use a client at the same time.
    """

    def __init__(
        self,
        connect: Connect,
        timeouts: Timeouts,
        retry: Retry,
        bookkeeper: Bookkeeper,
        *,
        bounds: Bounds = BOUNDS,
        check_address: CheckAddress = any_address,
        budget: Budget | None = None,
        meta: Any = None,
        notifier: Notifier | None = None,
    ) -> None:
        self._connect = connect
        self._check_address = check_address
        self._timeouts = timeouts
        self._unwatched = _bounded(timeouts)
        self._retry = retry
        self._bookkeeper = bookkeeper
        self._bounds = bounds
        self._budget = budget
        self._meta = meta
        self._notifier = notifier

    @property
    def ledger(self) -> Ledger:
        """The ledger: every attempt of this client, and the sums of their costs."""
        return self._bookkeeper.ledger

    def scope(
        self, *, limits: Limits | None = None, meta: Mapping[str, Any] | None = None
    ) -> Client:
        """Return a client with the same connections, and with limits or metadata of its own.

        - ``limits`` apply to what is sent through the returned client. The limits of this client
          apply as well.
        - ``meta`` is added to the metadata of every call. A call's own values take precedence.
        """
        check_option("limits", limits, Limits)
        check_option("meta", meta, Mapping)
        budget = self._budget if limits is None else Budget(limits, self._budget)
        return self._scope(budget, _merged(self._meta, meta))

    def _scope(self, budget: Budget | None, meta: Any, connect: Connect | None = None) -> Client:
        return Client(
            connect or self._connect,
            self._timeouts,
            self._retry,
            self._bookkeeper,
            bounds=self._bounds,
            check_address=self._check_address,
            budget=budget,
            meta=meta,
            # What another connection plays back was made long ago.
            notifier=self._notifier if connect is None else None,
        )

    @show_params
    def stream(
        self,
        model: Model | ModelChoice,
        messages: Messages,
        *,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        bounds: Bounds | None = None,
        price: TokenPrice | None = None,
        meta: Any = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        expect_usage: bool | None = None,
        lenient: bool = False,
        raw: bool = False,
        **params: Unpack[Params],
    ) -> TrackedStream:
        """Return a stream for one answer. Use it as ``async with client.stream(…) as stream``.

        The call checks the request but sends nothing. Entering the block starts the request without
        waiting for the server. If the request fails, iteration and `StreamingCompletion.collect`
        raise the error.

        - ``model`` is a model, or several (`first_of`, `fallback`). With several, the stream is
          that of the model that gives the answer. All requests are prepared before the first is
          sent, each with the options of its model, so ``price`` and ``headers`` are not allowed.
        - ``messages`` is a string, one message, or a list of messages; dictionaries in OpenAI's
          format are accepted.
        - ``timeouts``, ``retry``, and ``bounds`` replace the client's defaults.
        - ``price`` replaces the price of the model.
        - ``meta`` is your own value. It is stored with the cost, in the ledger and in what
          ``on_cost`` receives. A ledger in a file accepts only JSON.
        - ``extra`` adds fields to the body of the request, and ``headers`` to its headers.
        - ``expect_usage=False`` neither requests usage nor waits for it, where the wire format
          allows that.
        - ``lenient`` skips and counts events whose text or calls can't be read, instead of failing.
        - ``raw`` keeps the bytes of each event in `StreamChunk.raw`.
        - ``params`` are the parameters of the request, such as ``max_tokens`` (see `Params`).

        Raises ``TypeError`` for an unknown parameter, and for ``meta`` that the ledger can't
        store. Raises ``ValueError`` for a parameter that the wire format does not have, for
        ``extra`` that clashes with a parameter, for invalid messages, and for a proxy in the
        environment that can't be used.
        """
        prepare: Any = self._prepare if isinstance(model, Model) else self._prepare_choice
        prepared: Prepared | PreparedChoice = prepare(
            model,
            messages,
            params,
            timeouts=timeouts,
            retry=retry,
            bounds=bounds,
            price=price,
            meta=meta,
            extra=extra,
            headers=headers,
            expect_usage=expect_usage,
            lenient=lenient,
            raw=raw,
        )
        return self._stream_of(prepared, meta, messages, params)

    @overload
    async def complete(
        self,
        model: Model | ModelChoice,
        messages: Messages,
        *,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        bounds: Bounds | None = None,
        price: TokenPrice | None = None,
        meta: Any = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        expect_usage: bool | None = None,
        lenient: bool = False,
        retries_invalid: int = 0,
        response_format: type[Asked],
        **params: Unpack[PlainParams],
    ) -> CompletionResponse[Asked]: ...

    @overload
    async def complete(
        self,
        model: Model | ModelChoice,
        messages: Messages,
        *,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        bounds: Bounds | None = None,
        price: TokenPrice | None = None,
        meta: Any = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        expect_usage: bool | None = None,
        lenient: bool = False,
        retries_invalid: int = 0,
        **params: Unpack[Params],
    ) -> CompletionResponse: ...

    @show_params
    async def complete(
        self,
        model: Model | ModelChoice,
        messages: Messages,
        *,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        bounds: Bounds | None = None,
        price: TokenPrice | None = None,
        meta: Any = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        expect_usage: bool | None = None,
        lenient: bool = False,
        retries_invalid: int = 0,
        **params: Unpack[Params],
    ) -> CompletionResponse[Any]:
        """Send a request, wait for the complete answer, and return it.

        The arguments are those of `stream`, without ``raw``. The answer is streamed internally, so
        a long answer does not run into a read timeout. The clock ``total`` is 600 seconds unless
        ``timeouts`` sets it.

        If ``response_format`` is a type, `CompletionResponse.value` is the answer as that type.
        ``retries_invalid`` says how often to ask again if the answer does not match the type, with
        a message that explains what is wrong. Each of these requests has its own clocks and its own
        record in the ledger. With the default of 0, the answer is not decoded until you read
        ``value``.

        Raises what a stream raises, and the last `InvalidAnswer` if ``retries_invalid`` is not
        enough.
        """
        if timeouts is None:
            timeouts = self._unwatched
        else:
            check_option("timeouts", timeouts, Timeouts)
            timeouts = _bounded(timeouts)
        if params.get("raw"):  # that `stream` would take, for chunks that nobody gets to see
            raise TypeError("complete does not accept raw: use stream, whose chunks have the bytes")
        asking: Asking | TrackedStream
        if retries_invalid == 0:
            prepare: Any = self._prepare if isinstance(model, Model) else self._prepare_choice
            prepared: Prepared | PreparedChoice = prepare(
                model,
                messages,
                params,
                timeouts=timeouts,
                retry=retry,
                bounds=bounds,
                price=price,
                meta=meta,
                extra=extra,
                headers=headers,
                expect_usage=expect_usage,
                lenient=lenient,
            )
            asking = self._stream_of(prepared, meta, messages, params)
            del prepared
        else:
            from ._toolkit.reasking import Asking, check_reasking

            check_reasking(retries_invalid, params.get("response_format"))
            options: dict[str, Any] = {"timeouts": timeouts, "retry": retry, "bounds": bounds}
            options |= {"price": price, "meta": meta, "extra": extra, "headers": headers}
            options |= {"expect_usage": expect_usage, "lenient": lenient, **params}
            asking = Asking(partial(self.stream, model, **options), messages, retries_invalid)
            del options
        del messages, extra, headers, params  # what prints variables must not show them
        return await asking.complete()

    @show_params
    def run_tools(
        self,
        model: Model | ModelChoice,
        messages: Messages,
        *,
        max_steps: int = 10,
        max_parallel: int = 8,
        total: float | None = None,
        limits: Limits | None = None,
        errors: Literal["show", "raise"] = "show",
        threads: bool = False,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        bounds: Bounds | None = None,
        price: TokenPrice | None = None,
        meta: Any = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        expect_usage: bool | None = None,
        lenient: bool = False,
        **params: Unpack[Params],
    ) -> ToolRun:
        """Return a loop that runs the functions the model calls, until the model answers without a
        call.

        Use it as ``async with client.run_tools(model, messages, tools=[…]) as run: async for step
        in run``.

        - ``tools`` are functions, or tools made from functions.
        - ``max_steps`` is the largest number of requests.
        - ``max_parallel`` is the number of calls that run at the same time. Async functions run in
          tasks.
        - ``threads=True`` runs functions that are not async in threads. By default, they run in
          place and block.
        - ``errors`` says what happens if a function raises: the model sees the error (``"show"``),
          or the loop raises it (``"raise"``).
        - ``total`` is the time that the loop may take, in seconds.
        - ``limits`` are spending limits for the loop.

        The other arguments are those of `stream` and apply to each request. A ``tool_choice`` other
        than ``"auto"`` and ``"none"`` applies only to the first request, because the model could
        otherwise never answer.

        Raises what `stream` raises, and ``TypeError`` for a tool without a function. If
        ``max_steps``, ``total``, or ``limits`` end the loop, it has no answer.
        """
        from ._toolkit.tools.tool_loop import new_run

        check_option("limits", limits, Limits)
        client = self if limits is None else self.scope(limits=limits)
        options: dict[str, Any] = {
            "timeouts": timeouts,
            "retry": retry,
            "bounds": bounds,
            "price": price,
            "meta": meta,
            "extra": extra,
            "headers": headers,
            "expect_usage": expect_usage,
            "lenient": lenient,
            **params,
        }
        return new_run(
            client.stream,
            model,
            messages,
            options,
            max_steps=max_steps,
            max_parallel=max_parallel,
            total=total,
            errors=errors,
            threads=threads,
        )

    def batch(
        self,
        requests: Iterable[BatchRequest[Asked]] | AsyncIterable[BatchRequest[Asked]],
        *,
        model: Model | None = None,
        **options: Unpack[BatchOptions],
    ) -> Batch[Asked]:
        """Return a batch, which sends many requests under common control of rates, retries, and
        money.

        Use it as ``async with client.batch(requests, model=…) as results: async for result in
        results``. Results arrive as they are ready. Nothing is read or sent before the block is
        entered.

        - ``requests`` is an iterable or async iterable. It is read only as fast as requests can be
          sent.
        - ``model`` is for requests that name no model.
        - ``options`` are described in `trio_minillm.batch.BatchOptions`. Options that you leave out
          adapt to the provider's answers.

        Raises ``TypeError`` for an unknown option, and ``ValueError`` for an invalid one.
        """
        from ._batch.batch import Batch
        from ._batch.options import settings_from

        settings = settings_from(options)
        timeouts = _bounded(settings.timeouts or self._timeouts)
        budget = Budget(settings.limits or Limits(), self._budget)
        return Batch(
            requests,
            model,
            msgspec.structs.replace(settings, timeouts=timeouts),
            prepare=self._prepare_call,
            stream=self._scope(budget, self._meta)._stream_in_batch,  # noqa: SLF001 - of this class
            budget=budget,
            change_limits=partial(self._bookkeeper.change, budget),
        )

    def vendor_batch(
        self,
        requests: Iterable[BatchRequest[Asked]] | AsyncIterable[BatchRequest[Asked]],
        *,
        journal: str | os.PathLike[str] | Journal,
        model: Model | None = None,
        **options: Unpack[VendorBatchOptions],
    ) -> VendorBatch[Asked]:
        """Return a run of requests in their vendors' own batches, which are answered within a day
        at half price.

        Use it as ``async with client.vendor_batch(requests, model=…, journal=…) as results: async
        for result in results``. The address must have OpenAI's Batch API or Anthropic's Message
        Batches. All requests are held in memory.

        - ``requests`` and ``model`` are as for `batch`.
        - ``journal`` is a file that records what was submitted. To continue after a stop or a
          crash, pass the same requests and the same journal.
        - ``options`` are described in `trio_minillm.batch.VendorBatchOptions`.

        Raises ``TypeError`` for an unknown option, and ``ValueError`` for an invalid one or for a
        wire format without batches.
        """
        from ._vendor_batch.answers import PaidBudget
        from ._vendor_batch.options import settings_from
        from ._vendor_batch.vendor_batch import VendorBatch

        paid = PaidBudget(self._budget)

        def replay(
            connect: Connect,
            model: Model,
            messages: Messages,
            params: Mapping[str, Any],
            **more: Any,
        ) -> TrackedStream:
            reader = self._scope(paid, self._meta, connect)
            return reader._stream_in_batch(model, messages, params, **more)  # noqa: SLF001 - of this class

        return VendorBatch(
            requests,
            model,
            journal,
            settings_from(options),
            prepare=self._prepare_call,
            replay=replay,
            connect=self._connect,
            budget=self._budget,
        )

    def _stream_in_batch(
        self,
        model: Model,
        messages: Messages,
        params: Mapping[str, Any],
        *,
        timeouts: Timeouts | None = None,
        retry: Retry,
        meta: Any,
        made: int,
        extra: Mapping[str, Any],
        lenient: bool = False,
    ) -> TrackedStream:
        """Return the stream of a batch's request, whose meta goes into the ledger if that can keep
        it: a batch takes any. ``made`` is the number of attempts that were made at it before.
        """
        if meta is not None:
            try:
                if len(msgspec.json.encode(meta)) <= MAX_BATCH_META:
                    self.ledger.check(_merged(self._meta, meta))
                else:
                    meta = None
            except JSON_ERRORS:
                meta = None
        # Options of a call may stand among the parameters of a batch's request, and seldom do.
        prepare = self._prepare if OPTIONS.isdisjoint(params) else self._prepare_mixed
        prepared = prepare(
            model,
            messages,
            params,
            timeouts=timeouts,
            retry=retry,
            meta=meta,
            extra=extra,
            lenient=lenient,
        )
        stream = self._stream_of(prepared, meta, messages, params)
        stream.made_before = made
        return stream

    async def settle(
        self,
        ids: Iterable[str | CostRecord] | None = None,
        *,
        model: Model | None = None,
        timeouts: Timeouts | None = None,
    ) -> list[CostRecord]:
        """Look up the final cost of streams whose cost is not final, and record it.

        - ``ids`` are generation ids or ledger records. The default is every record whose cost can
          still be looked up, also from an earlier process.
        - ``model`` gives the address and the key for attempts of another client. The default is a
          model that this client has used at the same address.
        - ``timeouts`` sets the clock ``settlement``: the seconds to keep asking about each stream,
          from its first question.

        Returns one record for each, in order: resolved, or still ``unknown``. Up to 64 are looked
        up at the same time. ``on_cost`` is not called again. Raises ``ValueError`` if no model is
        known for an address.
        """
        check_option("timeouts", timeouts, Timeouts)
        check_option("model", model, Model)
        seconds = (timeouts or self._timeouts).settlement or 0.0
        return await self._bookkeeper.settle(ids, model, seconds)

    def _stream_of(
        self,
        prepared: Prepared | PreparedChoice,
        meta: Any,
        messages: Messages,
        params: Mapping[str, Any],
        kind: Callable[..., TrackedStream] = TrackedStream,
    ) -> TrackedStream:
        """Return the stream that sends a request and reads its answer, of a kind of its own if one is
        given.

        ``messages`` and ``params`` are those that the request was made of, for an observer.
        """
        if not isinstance(prepared, Prepared):
            from ._toolkit.choices.chosen import stream_of_choice

            # Not functools.partial, whose repr would show the messages.
            return stream_of_choice(
                prepared,
                lambda one, kind: self._stream_of(one, meta, messages, params, kind),
            )
        model = prepared.model
        if self._budget is not None and not self._budget.idle:
            self._budget.warn()
        # In order and not by name, for which Python makes a dictionary: a third of what this takes.
        ingest = Ingest(
            model.name,
            prepared.expect_usage,
            prepared.choices,
            model.provider.wire_at(model),
            prepared.bounds,
            prepared.asked,
        )
        observed = self._notifier is not None or _log.isEnabledFor(logging.DEBUG)
        if observed:
            from ._toolkit.observers.observing import observed_kind

            kind = observed_kind(kind)
        stream = kind(
            ingest,
            StreamTask(self._connect, prepared),
            prepared,
            self._bookkeeper,
            self._budget,
            _merged(self._meta, meta),
        )
        if observed:
            from ._toolkit.observers.observing import observe

            observe(stream, self._notifier, prepared, messages, params)
        return stream

    def _prepare_call(self, model: Model, messages: Messages, **more: Any) -> Prepared:
        """Make the request of a call whose parameters stand among its options."""
        params = {name: value for name, value in more.items() if name not in OPTIONS}
        options = {name: value for name, value in more.items() if name in OPTIONS}
        return self._prepare(model, messages, params, **options)

    def _prepare_mixed(
        self,
        model: Model,
        messages: Messages,
        params: Mapping[str, Any],
        *,
        lenient: bool,
        **options: Any,
    ) -> Prepared:
        """Do what `_prepare` does, where ``params`` may have options among them."""
        mixed = {"lenient": lenient, **params}  # a request's own word counts
        return self._prepare_call(model, messages, **options, **mixed)

    def _prepare(
        self,
        model: Model,
        messages: Messages,
        params: Mapping[str, Any],
        *,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        bounds: Bounds | None = None,
        price: TokenPrice | None = None,
        meta: Any = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        expect_usage: bool | None = None,
        lenient: bool = False,
        raw: bool = False,
    ) -> Prepared:
        """Check all that `stream` takes and make the request, with the client's defaults."""
        # The parameters come as what they are: for ``**params``, Python would make a dictionary of all
        # that is given, and take it apart again.
        model = with_price(model, price)
        if timeouts is not None:
            check_option("timeouts", timeouts, Timeouts)
        if retry is not None:
            check_option("retry", retry, Retry)
        if bounds is not None:
            check_option("bounds", bounds, Bounds)
        self._bookkeeper.remember(model)
        self._bookkeeper.ledger.check(_merged(self._meta, meta))
        prepared = prepare(
            model,
            messages,
            params,
            OPTIONS,
            timeouts=timeouts or self._timeouts,
            retry=retry or self._retry,
            bounds=bounds or self._bounds,
            extra=extra,
            headers=headers,
            expect_usage=expect_usage,
            lenient=lenient,
            raw=raw,
        )
        self._check_address(prepared.url)
        return prepared

    def _prepare_choice(
        self, model: object, messages: Messages, params: Mapping[str, Any], **options: Any
    ) -> PreparedChoice:
        """Make the requests for several models. Raises ``TypeError`` if they are no `ModelChoice`."""
        from ._toolkit.choices.race import prepare_choice

        return prepare_choice(model, messages, self._prepare_call, **options, **params)


MAX_BATCH_META = 1 << 16
"""Bytes of JSON of a batch request's meta that goes into the ledger, which keeps the newest 1,000
and those of unsettled attempts in memory."""
OPTIONS = frozenset(Client.stream.__kwdefaults__ or ())
"""The arguments of `Client.stream` that are no parameters of the request."""


@lru_cache(maxsize=16)
def _bounded(timeouts: Timeouts) -> Timeouts:
    """Return the clocks of an answer that nobody watches."""
    return timeouts.with_total(COMPLETE_SECONDS)


def _merged(outer: Any, inner: Any) -> Any:
    """Return the scope's meta with the call's on top."""
    if outer is None or inner is None:
        return outer if inner is None else inner
    if not isinstance(inner, Mapping):
        raise TypeError("meta must be a mapping in a scope that has meta: the two are merged")
    return {**outer, **inner}


def _notifier(observer: Observer | None) -> Notifier | None:
    if observer is None:
        return None
    from ._toolkit.observers.observing import Notifier

    return Notifier(observer)


@asynccontextmanager
async def open_client(
    *,
    http_client: HTTPClient | None = None,
    transport: HTTPTransport | None = None,
    timeouts: Timeouts | None = None,
    retry: Retry | None = None,
    bounds: Bounds | None = None,
    on_cost: OnCost | None = None,
    ledger: Ledger | None = None,
    limits: Limits | None = None,
    observer: Observer | None = None,
) -> AsyncIterator[Client]:
    """Open a client for the duration of a block: ``async with open_client() as client``.

    Without ``http_client`` or ``transport``, the client makes its own connections (see
    `TrioTransport`). It verifies TLS, never queues requests, and closes its connections with the
    block. It uses httpx for addresses that have a proxy in the environment. It never uses a proxy
    for this machine or for addresses in ``NO_PROXY``. It never follows redirects.

    - ``http_client`` or ``transport`` is a client or a transport of httpx or httpx2 to send
      requests with. It stays open after the block.
    - ``timeouts``, ``retry``, and ``bounds`` are the defaults of every call.
    - ``on_cost`` is an async function that is called once with the `CostRecord` of each finished or
      cancelled attempt. It runs in the client's nursery. It can't fail a stream, or delay it by
      more than 1 second. An exception is logged (``trio_minillm``), and the function is cancelled
      after 30 seconds. The ledger has the attempt in any case.
    - ``ledger`` records all attempts. The default keeps them in memory.
    - ``limits`` stops new attempts once enough is spent. A call warns once (``UserWarning``) if an
      earlier answer has an unknown cost, which ``max_cost`` can't count.
    - ``observer`` is notified when each attempt starts and ends (see `Observer` and
      `opentelemetry_observer`).

    The block ends once all attempts are recorded, even if it is cancelled. While the client looks
    up the final cost of a stream, the block waits for it: at most for the clock ``settlement`` from
    the first question, or twice that if hundreds of lookups wait for the same address. Then it
    waits for ``on_cost``. A *finished* stream without a cost does not delay the end of the block.

    Entering the block raises the process's soft limit of open files as far as the hard limit
    allows, because each connection needs one. Raises ``ValueError`` if both ``http_client`` and
    ``transport`` are given.
    """
    check_in_trio("open_client")
    if http_client is not None and transport is not None:
        raise ValueError("give http_client or transport, not both")
    check_option("timeouts", timeouts, Timeouts)
    check_option("retry", retry, Retry)
    check_option("bounds", bounds, Bounds)
    check_brought(http_client, transport)
    check_option("ledger", ledger, Ledger)
    check_option("limits", limits, Limits)
    if on_cost is not None and not callable(on_cost):
        raise TypeError("on_cost must be an async function")
    notifier = _notifier(observer)
    raise_file_limit()
    failure: BaseException | None = None
    async with open_connector(http_client, transport) as connect, trio.open_nursery() as nursery:
        bookkeeper = Bookkeeper(
            SettlementClient(connect),
            Ledger() if ledger is None else ledger,
            on_cost,
            nursery,
        )
        budget = Budget(limits) if limits is not None else None
        try:
            yield Client(
                connect,
                timeouts or Timeouts(),
                retry or Retry(),
                bookkeeper,
                bounds=bounds or BOUNDS,
                check_address=connect.check,
                budget=budget,
                notifier=notifier,
            )
        except BaseException as exc:  # noqa: BLE001 - also Cancelled: the tasks are shielded
            failure = exc  # comes out as itself, and not before all is booked
        finally:
            bookkeeper.close()
    bookkeeper.finish()
    try:
        if failure is not None:
            raise failure
    finally:
        del failure  # or its traceback and this frame keep each other alive
