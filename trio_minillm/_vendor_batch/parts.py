"""The requests of a run, and the parts into which they are cut."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Any
from urllib.parse import urlsplit

import msgspec
import trio

from .._batch.types import BatchRequest
from .._http.exchange import Exchange
from .._protocol.request import Prepared
from ..providers import Anthropic, Model, OpenAIChat, OpenAIResponses
from ..providers._server_quirks import server_at
from ..providers._text_request import COMPLETIONS
from ..providers.openai import CHAT
from .anthropic import AnthropicBatches
from .calls import Caller
from .journal import Item, Part
from .openai import OpenAIBatches
from .options import FIRST_LOOK, LOOK_FACTOR
from .vendors import BatchState, Vendor

_ENDPOINTS = ("/responses", CHAT, COMPLETIONS)
_NOT_THE_CALLS = frozenset({"accept", "accept-encoding", "content-type", "user-agent"})


def vendor_of(model: Model) -> Vendor:
    """Return the batch API that a model's address speaks. Raises ``ValueError`` if it is none of ours."""
    if server_at(model.base_url) == "openrouter":  # https://openrouter.ai/docs/batch-quickstart
        raise ValueError("OpenRouter's batches have their own format, which is not supported")
    if isinstance(model.provider, OpenAIChat | OpenAIResponses):
        return OpenAIBatches()
    if isinstance(model.provider, Anthropic):
        return AnthropicBatches()
    raise ValueError(
        f"no vendor's batches for {model.provider.name}: only OpenAI's and Anthropic's formats have them"
    )


class Wanted(msgspec.Struct, frozen=True):
    """A request whose answer this run wants, for one of its samples."""

    request: BatchRequest
    """The request, with its model."""
    index: int
    sample: int
    mark: str
    """The hash of what is asked."""

    @property
    def item(self) -> Item:
        """The request as a part of the journal has it."""
        return self.request.key, self.sample, self.mark


class Unreturned(msgspec.Struct, frozen=True):
    """A request that came back without an answer, with the reason. Its ``repr`` shows no prompt."""

    request: BatchRequest
    """The request, with its model, and with only its sample as ``samples``."""
    reason: str
    """``expired``, ``cancelled``, ``failed`` (the whole batch), ``missing`` (the vendor does not
    mention it), or ``errored`` (with ``failures=False``)."""

    @property
    def key(self) -> str:
        """The request's key."""
        return self.request.key


class Lines(list[bytes]):
    """The lines of a part. What prints local variables does not show them."""

    def __repr__(self) -> str:
        return f"<{len(self)} lines>"


class Group:
    """The requests that can be in one batch: of one model, at one address, with the same headers."""

    def __init__(self, prepared: Prepared, connect: Callable[[], Exchange]) -> None:
        self.model: Model = prepared.model
        self.vendor: Vendor = vendor_of(self.model)
        self.caller: Caller = Caller(connect, self.model)
        self.headers: dict[str, str] = headers_of(prepared)
        self.path: str = _path_of(prepared.url)
        self.wanted: list[Wanted] = []
        self.lines = Lines()
        self.bytes: int = 0
        self.token: str = new_token()

    def make(self, body: bytes) -> bytes:
        """Return the line of a request with this body, as the next of the part that is being filled."""
        decoded: dict[str, Any] = msgspec.json.decode(body)
        return self.vendor.line(f"{self.token}-{len(self.lines)}", decoded, self.path)

    def add(self, wanted: Wanted, line: bytes) -> None:
        """Add a request to the part that is being filled."""
        self.wanted.append(wanted)
        self.lines.append(line)
        self.bytes += len(line) + 1

    def taken(self) -> tuple[Running, Lines]:
        """Return the part that was filled, with its lines, and begin another."""
        part = Part(
            token=self.token,
            at=time.time(),
            vendor=self.vendor.name,
            url=place_of(self.vendor, self.model),
            model=self.model.name,
            account=account_of(self.token, self.model),
            items=[wanted.item for wanted in self.wanted],
        )
        running = Running(part, self.model, self.vendor, self.caller)
        running.wanted = dict(enumerate(self.wanted))
        lines = self.lines
        self.wanted, self.lines, self.bytes, self.token = [], Lines(), 0, new_token()
        return running, lines


class Running:
    """A part that is at its vendor, or may be."""

    def __init__(self, part: Part, model: Model, vendor: Vendor, caller: Caller) -> None:
        self.part = part
        self.model = model
        self.vendor = vendor
        self.caller = caller
        self.wanted: dict[int, Wanted] = {}
        """Requests of it that this run wants, by their places."""
        self.state: BatchState | None = None
        """The vendor's newest word on it."""
        self.look_at: float = trio.current_time()
        """Time of the next look."""
        self.wait: float = FIRST_LOOK
        self.failing_since: float | None = None
        self.looks: int = 0
        """Looks in a row that failed, or that found a file still missing."""
        self.absent_at: float = 0.0
        """Time at which a part that no list has is taken for one that was never submitted."""
        self.strangers: set[str] = set()
        """Batches that were looked into, and are other ones."""
        self.cancelled: bool = False

    @property
    def taken(self) -> bool:
        """True unless the vendor has said that it does not take the batch at all."""
        return self.state is None or self.state.failure is None

    def put_off(self, longest: float) -> None:
        """Set the time of the next look, each wait half as long again as the one before."""
        self.look_at = trio.current_time() + min(self.wait, longest)
        self.wait = min(self.wait * LOOK_FACTOR, longest)


def place_of(vendor: Vendor, model: Model) -> str:
    """Return the address of the batches without its query, which may be private."""
    return vendor.place(model).partition("?")[0]


def account_of(token: str, model: Model) -> str:
    """Return a hash of a part's token and the key, by which another key is recognised."""
    return blake2b(f"{token}\0{model.api_key}".encode(), digest_size=8).hexdigest()


def headers_of(prepared: Prepared) -> dict[str, str]:
    """Return the headers of a request that its batch must have: a beta of Anthropic's, say."""
    return {k: v for k, v in prepared.headers.items() if k.lower() not in _NOT_THE_CALLS}


def new_token() -> str:
    """Return the name of a new part, which no other part has."""
    return f"tm{secrets.token_hex(10)}"


def _path_of(url: str) -> str:
    """Return the endpoint as OpenAI's batches name it, wherever the server is."""
    path = urlsplit(url).path
    return next((f"/v1{one}" for one in _ENDPOINTS if path.endswith(one)), f"/v1{CHAT}")
