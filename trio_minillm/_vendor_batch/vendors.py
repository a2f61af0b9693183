"""The batch APIs of the vendors: from our values to their requests, and back. Pure.

Sources: the reference and the guide of OpenAI's Batch API, and of Anthropic's Message Batches, and the
types of openai-python (``types/batch.py``, ``batch_create_params.py``) and of anthropic-sdk-python
(``types/messages/message_batch.py``, ``resources/messages/batches.py``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from .._types.errors import ProtocolError
from ..providers import Model
from ..providers._coerce import clean, loose_json

Reason = Literal["expired", "cancelled", "failed", "missing", "errored"]
"""The reason that a request has no answer. ``expired``: its time was over · ``cancelled`` · ``failed``:
the vendor did not take the whole batch · ``missing``: the vendor says nothing of it · ``errored``: the
request itself was refused, or failed."""


class Call(msgspec.Struct, frozen=True):
    """A request to a vendor's batch API."""

    method: str
    url: str
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}
    once: bool = False
    """True if it must not arrive twice."""
    named: bool = False
    """True if its address names a batch or a file, which may not be there."""
    what: str = "batches"
    """Name of what is there, for an error that says that it is not."""

    def __repr__(self) -> str:
        return f"<{self.method} call>"


class BatchState(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as its vendor describes it."""

    id: str
    status: str
    """The state in the vendor's word."""
    over: bool
    """True if the vendor works on it no more, so that its results are final."""
    results: tuple[str, ...] = ()
    """Addresses of its files of results."""
    awaited: bool = False
    """True if it should have a file of results that the vendor does not name yet."""
    total: int | None = None
    """Number of its requests, where the vendor counts them."""
    done: int = 0
    """Number of its requests that have ended."""
    created: float | None = None
    """Time at which it was made, in seconds since 1970."""
    token: str | None = None
    """The token that it was given, where the vendor keeps it."""
    failure: tuple[str, str] | None = None
    """Code and words of the vendor's reason not to take the batch at all."""

    @property
    def reason(self) -> Reason:
        """The reason for a request of which the results say nothing."""
        word = self.status.replace("canceled", "cancelled")
        if word in ("expired", "cancelled", "failed"):
            return word  # type: ignore[return-value]
        return "missing"


class ItemEnd(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a vendor's results: the end of one request."""

    id: str
    """Our id of it."""
    reason: Reason | None = None
    """The reason that it has neither an answer nor a refusal of its own."""
    status: int = 200
    """The HTTP status that a live request would have had."""
    body: bytes = b""
    request_id: str | None = None

    @property
    def answered(self) -> bool:
        """True if it has an answer, which is paid for."""
        return self.reason is None and 200 <= self.status < 300

    def __repr__(self) -> str:
        return f"<ItemEnd {self.id} {self.reason or self.status}>"


class Vendor(ABC):
    """The batch API of one vendor."""

    name: str
    max_requests: int
    """The most requests in one batch."""
    max_bytes: int
    """The most bytes of one batch."""
    marks: bool
    """True if a batch keeps the token that it is given."""

    @abstractmethod
    def line(self, id: str, body: dict[str, Any], path: str) -> bytes:
        """Return a request as it stands in a batch. ``path`` is the endpoint's below the address."""

    def upload(self, model: Model, token: str, lines: Sequence[bytes]) -> Call | None:
        """Return the call that uploads the requests first; ``None`` if they go with the batch itself."""
        return None

    def uploaded(self, data: bytes) -> str:
        """Return the id of the file in the answer to that call."""
        raise NotImplementedError

    @abstractmethod
    def create(
        self, model: Model, token: str, lines: Sequence[bytes], file: str, path: str
    ) -> Call:
        """Return the call that makes a batch, of the uploaded ``file`` or of the lines."""

    @abstractmethod
    def place(self, model: Model) -> str:
        """Return the address of the batches."""

    def cancel(self, model: Model, id: str) -> Call:
        """Return the call that cancels a batch."""
        return Call("POST", below(self.place(model), f"/{id}/cancel"), named=True)

    def look(self, model: Model, id: str) -> Call:
        """Return the call that asks for the state of a batch."""
        return Call("GET", below(self.place(model), f"/{id}"), named=True)

    @abstractmethod
    def newest(self, model: Model, after: str | None) -> Call:
        """Return the call that lists the newest batches, or those before the one with this id."""

    @abstractmethod
    def state(self, model: Model, data: bytes) -> BatchState:
        """Read a batch. Raises `ProtocolError`."""

    def listed(self, model: Model, data: bytes) -> tuple[list[BatchState], str | None]:
        """Read a list of batches, newest first, and the id after which it goes on."""
        page = decoded(data, _Page)
        states = [self.state(model, bytes(each)) for each in page.data]
        return states, states[-1].id if page.has_more and states else None

    @abstractmethod
    def item(self, line: bytes) -> ItemEnd:
        """Read a line of results. Raises `ProtocolError`."""


class _Page(msgspec.Struct):
    data: list[msgspec.Raw]
    has_more: bool = False


def below(url: str, path: str, query: str = "") -> str:
    """Return an address below another, whose query stays at the end."""
    base, _, given = url.partition("?")
    asked = "&".join(filter(None, [query, given]))
    return f"{base}{path}?{asked}" if asked else base + path


def decoded(data: bytes, kind: Any) -> Any:
    """Return JSON of this type, as leniently read as that of a live answer. Raises `ProtocolError`,
    without what it says.
    """
    try:
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.ValidationError:
            raise
        except (msgspec.DecodeError, UnicodeError):
            return msgspec.json.decode(msgspec.json.encode(clean(loose_json(data))), type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
        where = str(exc) if isinstance(exc, msgspec.ValidationError) else "it is not JSON"
        raise ProtocolError(f"an answer of the batch API can't be read: {where}") from None
