"""The base of all providers, and the values that they translate.

A provider is a stateless translator between the neutral types and one wire format. It never waits,
never accumulates, and keeps nothing between two calls: the client does the waiting, the ingest
machine the accumulating. `trio_minillm.testing.check_provider` checks that one keeps this contract.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias
from urllib.parse import parse_qsl, urlsplit

import msgspec

from .._types.checks import check_function, check_option, check_type, warn_caller
from .._types.chunks import StreamChunk
from .._types.cost import CostInfo, TokenPrice
from .._types.credentials import KeySource, Sign, header_fault, identity_of, key_fault
from .._types.errors import ErrorInfo, ProtocolError, ProviderError
from .._types.hosts import is_this_machine
from .._types.messages import Message
from .._types.money import exact
from .._types.usage import Usage
from ._pricing import native_cost, priced_cost

if TYPE_CHECKING:
    from ._model_lists import ModelPage

Parsed: TypeAlias = StreamChunk | Sequence[StreamChunk] | None
"""The result of parsing one event: a chunk, several chunks (for an event with several choices), or
``None`` for an event that says nothing."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model at an address, with its key. Frozen.

    The ``repr`` shows neither the key nor the headers. Two models are equal if they ask for the
    same thing, whatever their keys and signatures are.

    Raises ``TypeError`` for a field of the wrong type. Raises ``ValueError``, without showing the
    value, for a key, a header, or an address that can't be sent, and for an ``identity`` at another
    machine. Warns (``UserWarning``) if a key would be sent unencrypted to another machine.
    """

    name: str
    """The name of the model, as the server knows it."""
    provider: Provider
    """The provider, which defines the wire format."""
    base_url: str
    """The address, without the path that the wire format adds."""
    api_key: str | None = None
    """The key."""
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Headers that are added to every request."""
    extra: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """Fields that are added to the body of every request."""
    price: TokenPrice | None = None
    """The price, used if the provider does not report a cost."""
    identity: str | None = None
    """A name for a server on this machine that has another port after each start, such as a local
    model. A response cache uses it instead of the address."""
    key_source: KeySource | None = None
    """A function that returns the key for each attempt, instead of ``api_key``."""
    sign: Sign | None = None
    """A function that signs each request (`trio_minillm.RequestToSign`)."""

    def __post_init__(self) -> None:
        check_type("name", self.name, str)
        check_type("provider", self.provider, Provider)
        check_type("base_url", self.base_url, str)
        check_option("api_key", self.api_key, str)
        check_type("headers", self.headers, Mapping)
        check_type("extra", self.extra, Mapping)
        check_option("price", self.price, TokenPrice)
        check_option("identity", self.identity, str)
        check_function("key_source", self.key_source)
        check_function("sign", self.sign)
        if not self.name:
            raise ValueError("name must not be empty")
        if self.name != self.name.strip() or not self.name.isprintable():
            raise ValueError(
                "name must be a model's name, without surrounding spaces or line breaks"
            )
        if self.api_key is not None and self.key_source is not None:
            raise ValueError("give api_key or key_source, not both")
        msgspec.structs.force_setattr(self, "headers", dict(self.headers))  # or they could change
        msgspec.structs.force_setattr(self, "extra", dict(self.extra))
        if fault := key_fault(self.api_key or "") or header_fault(self.headers):
            raise ValueError(fault)
        if not self.base_url.lower().startswith(("http://", "https://")):
            raise ValueError("base_url must begin with http:// or https://")
        _check_url(self.base_url)
        if self.identity is not None and not is_this_machine(host_of(self.base_url)):
            raise ValueError("identity is only for servers on this machine")
        functions = self.key_source is not None or self.sign is not None
        keyed = self.api_key or functions or self.headers.keys() & _KEY_HEADERS
        if keyed and self.base_url.lower().startswith("http:"):
            _warn_of_plain_text(host_of(self.base_url))

    def __eq__(self, other: object) -> bool:
        return self._asked() == other._asked() if isinstance(other, Model) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.name, self.base_url))

    def _asked(self) -> tuple[Any, ...]:
        """Return all that an answer may depend on. Providers keep nothing but their settings."""
        provider = type(self.provider), vars(self.provider)
        asked = self.name, self.base_url, self.headers, self.extra, self.price, self.identity
        return (*provider, *asked)

    @property
    def account(self) -> Hashable:
        """The account that requests are sent for: the key, or the functions that return it or
        sign.
        """
        if self.key_source is None and self.sign is None:
            return self.api_key
        return self.api_key, identity_of(self.key_source), identity_of(self.sign)

    def __repr__(self) -> str:
        return f"<Model {self.provider.name}:{self.name}>"

    def __rich_repr__(self) -> Any:
        yield f"{self.provider.name}:{self.name}"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request in neutral terms, for a provider to translate."""

    model: Model
    """The requested model."""
    messages: tuple[Message, ...]
    """The messages, in order."""
    params: Mapping[str, Any]
    """The parameters (`Params`) that were given and are not ``None``."""
    extra: Mapping[str, Any]
    """Other fields of the body."""
    expect_usage: bool = True
    """False if usage should not be requested."""

    def __repr__(self) -> str:
        return f"<Request {self.model!r} {len(self.messages)} messages>"

    def __rich_repr__(self) -> Any:
        yield f"{self.model.name} {len(self.messages)} messages"


class FollowUp(msgspec.Struct, frozen=True, kw_only=True):
    """A request about an earlier answer. The client adds the model's headers."""

    url: str
    """The complete address."""
    method: str = "GET"
    """The HTTP method."""
    body: bytes = b""
    """The body."""


class SettlementRequest(FollowUp, frozen=True, kw_only=True):
    """The request that looks up the final cost of an answer."""


class Continuation:
    """A way to resume an answer that the server continues to make after the connection breaks.

    `Provider.continuation` makes one for each request that has such an answer. Like a provider, it
    keeps nothing between two calls. The events of the answer must be numbered consecutively.
    """

    def position_in(self, data: bytes) -> int | None:
        """Return the number of an event from its data, or ``None`` if it has none. Raises
        nothing.
        """
        raise NotImplementedError

    def resume_request(self, response_id: str, position: int) -> FollowUp | None:
        """Return the request for the events after the one with this number, or ``None`` if there is
        none.
        """
        raise NotImplementedError

    def cancel_request(self, response_id: str) -> FollowUp | None:
        """Return the request that cancels an answer whose caller has left, or ``None`` if there is
        none.
        """
        return None


class RepeatFilter:
    """The memory of one stream in a wire format whose later events repeat earlier ones.

    The decoder passes it every chunk that a provider makes of an event, in order. Its memory must
    be bounded, and its results must not depend on how the bytes were split.
    """

    __slots__ = ()

    def known(self, chunk: StreamChunk) -> bool:
        """Return whether a chunk continues what the latest one said. If so, complete the chunk."""
        return False

    def note(self, chunk: StreamChunk) -> None:
        """Remember a chunk that repeats nothing, and complete it."""
        raise NotImplementedError

    def removed_from(
        self,
        parsed: StreamChunk | Sequence[StreamChunk],
        data: bytes,
        restored: Callable[[Any], Any],
    ) -> StreamChunk | Sequence[StreamChunk]:
        """Return an event's chunks without what repeats the answer so far.

        ``data`` is the event without its long texts, and ``restored`` puts these back into what is
        made of it.
        """
        raise NotImplementedError


class Beside(NamedTuple):
    """A top-level field that stands beside the text in an event, with another value in each.

    ``read`` takes the value's JSON, and returns the usage that the event's chunk has for it, with some
    output and with its ``raw``, made by `Usage.read_by` with that JSON, or else ``None``. It raises
    ``ValueError`` or msgspec's error for a value that may mean more.
    """

    field: str
    read: Callable[[bytes], Usage | None]


_MAKING_REQUESTS = ("build_request", "request_headers", "auth_headers", "endpoint_url")
"""Methods by which a request is made."""
_FAILURE = "(?i)error|exception|failure|failed"
"""Parts of the names of events that are failures: ``server_error``, ``ERROR``."""


def names_failure(event: str) -> bool:
    """Return whether an event's name says that something failed."""
    return re.search(_FAILURE, event) is not None


class Provider:
    """The base class of all providers.

    A subclass implements at least `endpoint_url`, `auth_headers`, `build_request`, and
    `parse_chunk`. Every method must be a pure function of its arguments. The parsing methods may
    raise only this library's errors, and msgspec's, ``UnicodeError``, and ``RecursionError``, which
    the caller turns into a `ProtocolError` that names the event.
    """

    name: ClassVar[str] = ""
    """The short name of the provider, as in ``trio-minillm chat --model NAME:…``."""
    replay_wire: ClassVar[str] = ""
    """The name of the wire format that its reasoning and opaque blocks belong to (see
    `wire_at`)."""
    always_usage: ClassVar[bool] = False
    """True if the stream ends with usage even if the request does not ask for it."""
    literal_text: ClassVar[bool] = False
    """True if an event contains its piece of text as a JSON string, so that events which differ
    only in it need no parser (`trio_minillm._protocol.templates`). A subclass that overrides
    `parse_chunk` or `parse_event` does not inherit this."""
    beside_text: ClassVar[Beside | None] = None
    """A value that changes along with the text, for events that ``literal_text`` applies to."""
    repeat_filter: ClassVar[type[RepeatFilter] | None] = None
    """The memory of one stream, if later events repeat earlier ones. With it, `parse_chunk` need
    not know what came before."""
    array_events: ClassVar[bool] = False
    """True if a stream may arrive as one JSON array whose elements are its events."""
    nested_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields of the body that are objects, to which ``extra`` may add more, such as Gemini's
    ``generationConfig``. ``extra`` can't replace what a parameter has put there."""
    any_text: ClassVar[bool] = False
    """True if `build_request` treats every visible text alike, so that two requests which differ
    only in a text also differ only there once they are built (see
    `trio_minillm._protocol.request_templates`). A subclass that overrides how requests are made
    does not inherit this."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if _overridden(cls, _MAKING_REQUESTS, "any_text"):
            cls.any_text = False
        if _overridden(cls, ("parse_chunk", "parse_event"), "literal_text"):
            cls.literal_text = False

    def endpoint_url(self, model: Model) -> str:
        """Return the URL to send requests to."""
        raise NotImplementedError

    def auth_headers(self, model: Model) -> dict[str, str]:
        """Return the headers with the key, and those that the provider always requires."""
        raise NotImplementedError

    def wire_at(self, model: Model) -> str:
        """Return the name of the wire format that a model's reasoning and opaque blocks belong to.

        They are sent back only where the name is the same. It is `replay_wire`, plus the server's
        name if servers reject each other's blocks.
        """
        return self.replay_wire

    @property
    def typed_fields(self) -> frozenset[str]:
        """The fields of the body that parameters set, which ``extra`` must not name."""
        return frozenset()

    def request_headers(self, request: Request) -> dict[str, str]:
        """Return the headers that depend on the request. The default is none."""
        return {}

    def build_request(self, request: Request) -> dict[str, Any]:
        """Return the JSON body of a streaming request, without ``extra``, which the caller adds.

        Raises ``ValueError`` for a parameter or a part that the wire format does not have.
        """
        raise NotImplementedError

    def parse_chunk(self, data: bytes) -> Parsed:
        """Translate the data of one event. Raises `ProviderError` if the event reports a
        failure.
        """
        raise NotImplementedError

    def parse_event(self, event: str, data: bytes) -> Parsed:
        """Translate a *named* event.

        By default, an event whose name says that something failed is a failure. An event with
        another name is ignored unless its data is JSON.
        """
        if names_failure(event):
            parsed = None
            try:
                with suppress(msgspec.MsgspecError, ProtocolError):
                    parsed = self.parse_chunk(data)
            except ProviderError as exc:
                exc.vague = False  # the event's name says it
                raise
            if parsed is None or (isinstance(parsed, StreamChunk) and not parsed.progress):
                raise ProviderError(self.parse_error(None, data))
            return parsed
        try:
            return self.parse_chunk(data)
        except (msgspec.ValidationError, ProtocolError):
            if data.lstrip()[:1] != b"{":
                return None
            raise
        except ProviderError as exc:
            from ._errors import is_under_way

            if exc.vague and is_under_way(event):
                return None
            raise
        except msgspec.DecodeError:
            return None  # not JSON, with a name of its own: Azure's keep-alive, for example

    def parse_response(self, body: bytes) -> Sequence[StreamChunk]:
        """Translate the body of a response that was not streamed into the chunks of a stream."""
        raise ProtocolError("the body is not an event stream")

    def parse_error(self, status: int | None, body: bytes) -> ErrorInfo:
        """Translate an error body.

        ``status`` is the HTTP status, or ``None`` for an error in a stream.
        """
        from ._errors import error_info  # only failures need it, and it is large

        return error_info(status, body)

    def parse_refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> ErrorInfo:
        """Translate a response with an error status.

        The names of ``headers`` are in lower case. The default is `parse_error` if a subclass
        overrides it. Otherwise, common rules apply, which also read the headers: a refusal that
        says when to come back is a rate limit, even if its message mentions a quota.
        """
        if type(self).parse_error is not Provider.parse_error:
            return self.parse_error(status, body)
        from ._errors import error_info

        return error_info(status, body, headers)

    def continuation(self, request: Request) -> Continuation | None:
        """Return a way to resume the answer, if it outlives its connection. The default is
        ``None``.
        """
        return None

    def generation_id(self, headers: Mapping[str, str]) -> str | None:
        """Return the generation id from the response's headers, whose names are in lower case, or
        ``None``.
        """
        return None

    def settlement_request(self, model: Model, generation_id: str) -> SettlementRequest | None:
        """Return the request that looks up the final cost, or ``None`` if that is not possible.

        The client sends it for streams that ended without a final cost. It repeats the request
        until `parse_settlement` returns a result or the clock ``settlement`` runs out.
        """
        return None

    def parse_settlement(self, body: bytes) -> Usage | None:
        """Return the final usage and cost from the body of that response, or ``None`` if they are
        not known yet.

        The cost is resolved only if the usage is ``final``.
        """
        raise NotImplementedError

    def models_url(self, model: Model, after: str | None = None) -> str | None:
        """Return the URL that lists the models at a model's address, or the page of the list that follows
        the one with the mark ``after``; ``None``, the default, if there is no list.
        """
        return None

    def parse_models(self, body: bytes) -> ModelPage:
        """Read a page of that list. Raises `ProtocolError`."""
        from ._model_lists import page_of  # only who asks for the list needs it

        return page_of(body)

    def counts_all_choices(self, model: Model) -> bool:
        """Return whether the usage of a request for several choices covers all of them.

        The default is False, which makes their cost a lower bound.
        """
        return False

    def cost_of(self, usage: Usage | None, price: TokenPrice | None) -> CostInfo:
        """Return the cost of the usage: the provider's own figure, or usage times price."""
        if usage is not None and usage.cost is not None:
            return native_cost(usage, exact(usage.cost))
        return priced_cost(usage, price)


_KEY_HEADERS = {"authorization", "Authorization", "x-api-key", "api-key", "x-goog-api-key"}


def is_token(key: str) -> bool:
    """Return whether a key is a JSON Web Token (RFC 7519), as those of Entra ID are: a header that is a
    JSON object, in base64, and two more parts.
    """
    return key.startswith("eyJ") and key.count(".") == 2


_is_host = re.compile(r"[\w.:%~-]+").fullmatch
"""Nothing else is in a name or an address; ``<host>``, ``{host}`` and ``$HOST`` were to be filled in."""


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.port == 0 or parts.netloc.endswith(":") or not _is_host(host):
            raise ValueError
    except ValueError:  # also a port that is no number or is missing behind its colon
        raise ValueError("base_url must name a host, and a port from 1 to 65535 if any") from None
    if "@" in parts.netloc:
        raise ValueError("base_url must not contain a user or password: give api_key=")
    if "#" in url:
        raise ValueError("base_url must not contain a fragment: it is never sent")
    if _KEYS_IN_QUERY & {name.lower() for name, _ in parse_qsl(parts.query)}:
        raise ValueError("base_url must not contain a key: addresses are logged. Give api_key=")
    if not url.isprintable() or " " in url or "\\" in url:
        raise ValueError("base_url must not contain spaces, backslashes or control characters")


_KEYS_IN_QUERY = {"key", "api_key", "apikey", "api-key", "token", "access_token"}


def _warn_of_plain_text(host: str) -> None:
    """Warn that a key over plain HTTP can be read by everyone on the way.

    Not for this machine, nor for names under ``.invalid``, which never exist.
    """
    if is_this_machine(host) or host.endswith(".invalid"):
        return
    warn_caller(
        f"the API key is sent to {host} unencrypted, where others can read it: use https://"
    )


def take(request: Request, table: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters that are in the table, under the names that it gives them."""
    return {table[k]: v for k, v in request.params.items() if k in table}


def refuse_others(request: Request, known: frozenset[str] | set[str]) -> None:
    """Raise ``ValueError`` if the request has parameters that the wire format does not have."""
    other = sorted(set(request.params) - known)
    if other:
        raise ValueError(
            f"{', '.join(other)}: not a parameter of the {request.model.provider.name} wire format"
            " (extra={…} sends a field unchanged)"
        )


@lru_cache(maxsize=256)
def joined_url(
    base_url: str, endpoint: str, *, version: str = "", instead_of: str = "", query: str = ""
) -> str:
    """Return the address of an endpoint below a base URL, with the base URL's query at its end.

    A base URL that ends in the endpoint already is taken as it is, and one that ends in OpenAI's
    other endpoint, ``/responses``, without that. ``version`` stands before the
    endpoint unless the base URL ends in it; ``instead_of`` is another endpoint, in which the base
    URL may end; ``query`` is the endpoint's own.
    """
    base, _, given = base_url.partition("?")
    scheme, _, rest = base.partition("://")
    base = f"{scheme.lower()}://{rest}".rstrip("/").removesuffix("/responses").rstrip("/")
    if instead_of:
        base = base.removesuffix(instead_of).rstrip("/")
    if not base.endswith(endpoint):
        base += endpoint if version and base.endswith(version) else version + endpoint
    asked = "&".join(filter(None, [query, given]))
    return f"{base}?{asked}" if asked else base


MODELS = "/models"
"""The endpoint of the list of models, beside the one for requests."""


def url_beside(url: str, endpoint: str, other: str, query: str = "") -> str:
    """Return the address of another endpoint beside the one of ``url``, whose query stays at the end."""
    base, _, given = url.partition("?")
    asked = "&".join(filter(None, [query, given]))
    address = base.removesuffix(endpoint) + other
    return f"{address}?{asked}" if asked else address


@lru_cache(maxsize=256)  # each request asks several times, and a client knows few addresses
def host_of(base_url: str) -> str:
    """Return the host in lower case, or ``""`` if the text is not an address."""
    try:
        return urlsplit(base_url).hostname or ""
    except ValueError:  # `Model` raises for it
        return ""


@lru_cache(maxsize=256)
def is_vertex(base_url: str) -> bool:
    """Return whether an address is Vertex AI's: the global one, one region's, or that of several."""
    return re.search(_VERTEX, host_of(base_url)) is not None


_VERTEX = r"(?:^|-)aiplatform\.(?:[a-z]+\.rep\.)?googleapis\.com$"


def loggable_url(model: Model) -> str:
    """Return the base URL without its query, which may be private and belongs in no file."""
    return model.base_url.partition("?")[0]


def _overridden(cls: type, methods: Iterable[str], promise: str) -> bool:
    """Return whether one of these methods comes, perhaps by a mixin, behind the class that promised."""
    newer = takewhile(lambda base: promise not in vars(base), cls.__mro__)
    return any(not vars(base).keys().isdisjoint(methods) for base in newer)
