"""Requests and responses as HTTP has them, for an observer: names and sizes, without secrets or texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from ..._protocol.redaction import shown_headers


class HTTPRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request, as an `Observer` with ``wants_http = True`` finds it in ``attempt.http``."""

    method: str
    headers: Mapping[str, str]
    """Headers, with ``[hidden]`` in place of keys and of what else may be secret. A key that is asked for
    with each attempt, and a signature, are not among them yet."""
    size: int
    """Bytes of the body."""
    fields: Mapping[str, int]
    """Bytes of each field of the body, by its name. What stands in a field is never here."""


class HTTPResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a response, as such an observer finds it in ``end.http``."""

    status: int
    headers: Mapping[str, str]
    """Headers, with ``[hidden]`` in place of cookies and of what else may be secret."""
    size: int
    """Bytes of the answer that were read, decompressed; 0 for a refusal."""


def request_facts(
    headers: Mapping[str, str], body: bytes, redacted: Callable[[str], str]
) -> HTTPRequest:
    """Return what may be told of a request that is posted. ``redacted`` blanks out its secrets."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.MsgspecError:  # a provider of the program's own may send anything
        fields = {}
    return HTTPRequest(
        method="POST",
        headers=shown_headers(headers, redacted),
        size=len(body),
        fields={name: len(bytes(value)) for name, value in fields.items()},
    )


def response_facts(
    status: int, headers: Mapping[str, str], size: int, redacted: Callable[[str], str]
) -> HTTPResponse:
    """Return what may be told of a response. ``redacted`` blanks out the request's secrets."""
    return HTTPResponse(status=status, headers=shown_headers(headers, redacted), size=size)
