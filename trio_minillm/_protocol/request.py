"""A call in our vocabulary -> the HTTP request that stands for it, checked and encoded.

This is the only place that prepares a request: a client sends what `prepare` makes, a response
cache hashes it, and whoever only wants to know what would be sent (an estimate of its cost, the
check of a request file) takes the steps before it: `make_request`, `body_of`, `encoded`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from functools import partial
from typing import Any, TypeAlias, TypeVar

import msgspec

from .._types.checks import check_option, check_type
from .._types.cost import TokenPrice
from .._types.credentials import Credentials
from .._types.messages import Message
from .._types.openai_messages import messages_of
from .._types.options import BOUNDS, Bounds, Retry, Timeouts
from .._types.params import OTHER_WAYS, JSONSchema, check_params, format_of
from .._types.schemas import ANY_IN_OBJECT, is_object, root_in_place
from .._version import __version__
from ..providers import Continuation, Model, Request
from ..providers._charged import Asked, asked_of
from .request_templates import Template, Templates, texts_of

Messages: TypeAlias = (
    str | Message | Mapping[str, Any] | Sequence[Message | Mapping[str, Any] | int]
)
"""A prompt; a message; or messages, ours or mappings in OpenAI's format. For text completions also
the ids of a prompt's tokens."""


_T = TypeVar("_T")


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A request, ready to be sent any number of times, and how to read its answer."""

    model: Model
    url: str
    headers: Mapping[str, str]
    body: bytes
    timeouts: Timeouts
    retry: Retry
    expect_usage: bool
    """True if the answer is over only when its usage has come, too."""
    choices: int
    """The number of choices that were asked for."""
    bounds: Bounds
    lenient: bool
    """True if malformed events are passed over and counted."""
    raw: bool
    """True if the bytes of each event are kept on its chunks."""
    response_type: Any = None
    """The type that the content is to be decoded as, if the response format is one."""
    tools: Any = ()
    """The tools that the model may call, as they were given."""
    asked: Asked = Asked()
    """The part of the request that its price depends on."""
    credentials: Credentials | None = None
    """The functions that give the key, or that sign, if the model has any."""
    continuation: Continuation | None = None
    """The way back to the answer, if it outlives its connection."""

    def __repr__(self) -> str:
        return f"<Prepared {self.model!r}>"

    def __rich_repr__(self) -> Any:
        yield repr(self)


def prepare(
    model: Model,
    messages: Messages,
    params: Mapping[str, Any],
    options: Iterable[str] = (),
    /,
    *,
    timeouts: Timeouts,
    retry: Retry,
    bounds: Bounds = BOUNDS,
    extra: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    expect_usage: bool | None = None,
    lenient: bool = False,
    raw: bool = False,
) -> Prepared:
    """Check a call's arguments, and return the request that they make.

    ``expect_usage=False`` counts where the wire format leaves the choice. ``options`` are the names of
    the caller's other arguments, for the hint at a misspelled one of ``params``.

    Raises ``TypeError`` for an unknown parameter, ``ValueError`` for one that the model's wire format
    does not have, for a clash of ``extra`` with a typed one, and for bad messages.
    """
    if lenient is not False or raw is not False or expect_usage is not None:
        check_type("lenient", lenient, bool)
        check_type("raw", raw, bool)
        check_option("expect_usage", expect_usage, bool)
    provider = model.provider
    wanted = provider.always_usage or expect_usage is not False

    def build(messages: Messages) -> tuple[Prepared, bytes]:
        request = make_request(
            model,
            messages_of(messages),
            params,
            extra=extra,
            headers=headers,
            expect_usage=wanted,
            options=options,
        )
        made = _prepared(
            request, timeouts=timeouts, retry=retry, bounds=bounds, lenient=lenient, raw=raw
        )
        return made, made.body

    alike = provider.any_text and _is_nothing(extra) and _is_nothing(headers)
    if alike and (texts := texts_of(messages)) is not None:
        template = _templates.get(model, texts[0], (wanted,), params, build)
        if template is not None:
            made: Prepared = template.made
            return msgspec.structs.replace(
                made,
                body=_filled(template, texts[1]),
                timeouts=timeouts,
                retry=retry,
                bounds=bounds,
                lenient=lenient,
                raw=raw,
            )
    return build(messages)[0]


_templates = Templates()


def _is_nothing(given: object) -> bool:
    return given is None or (type(given) is dict and not given)


def _prepared(request: Request, **reading: Any) -> Prepared:
    """Return a request; ``reading`` are the fields that say how it is sent and its answer read."""
    provider, body = request.model.provider, body_of(request)
    asked = asked_of(request.model, body)
    return Prepared(
        model=request.model,
        url=provider.endpoint_url(request.model),
        headers=_headers(request),
        body=encoded(body),
        expect_usage=request.expect_usage,
        choices=asked.choices,
        **reading,
        response_type=_response_type(request.params.get("response_format")),
        tools=request.params.get("tools", ()),
        asked=asked,
        credentials=credentials_of(request.model, _headers_with, request),
        continuation=provider.continuation(request),
    )


def _headers(request: Request) -> dict[str, str]:
    return {
        "content-type": "application/json",
        **headers_to(request.model, "text/event-stream"),
        **request.model.provider.request_headers(request),
    }


def _headers_with(request: Request, key: str) -> dict[str, str]:
    model = with_key(request.model, key)
    return _headers(msgspec.structs.replace(request, model=model))


def credentials_of(
    model: Model, headers_with: Callable[[_T, str], Mapping[str, str]], asked: _T
) -> Credentials | None:
    """Return the functions that give a model's key, or that sign; ``None`` if it has none.

    ``headers_with`` returns the headers of what is ``asked`` with a key.
    """
    if model.key_source is None and model.sign is None:
        return None
    headers = partial(headers_with, asked)
    return Credentials(ask=model.key_source, sign=model.sign, headers=headers)


def with_key(model: Model, key: str) -> Model:
    """Return the model with the key that it has asked for, which was checked. It warns of nothing."""
    keyed = copy(model)
    msgspec.structs.force_setattr(keyed, "api_key", key)
    return keyed


def _filled(template: Template, texts: list[str]) -> bytes:
    """Return the body of a request that differs from the template's in its texts."""
    try:
        return template.filled(texts)
    except UnicodeError:  # its repr would show the text
        raise ValueError(_NOT_UNICODE) from None


def make_request(
    model: Model,
    messages: tuple[Message, ...],
    params: Mapping[str, Any],
    *,
    extra: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    expect_usage: bool = True,
    options: Iterable[str] = (),
) -> Request:
    """Check typed parameters (``None``: not given) and put them together with the messages.

    Raises ``TypeError`` for an unknown parameter, ``ValueError`` for a bad one.
    """
    check_option("extra", extra, Mapping)
    check_option("headers", headers, Mapping)
    given = {name: value for name, value in params.items() if value is not None}
    check_params(given, options)
    if headers:  # the model checks what may stand in a header
        model = msgspec.structs.replace(model, headers={**model.headers, **headers})
    return Request(
        model=model, messages=messages, params=given, extra=extra or {}, expect_usage=expect_usage
    )


def body_of(request: Request) -> dict[str, Any]:
    """Return the JSON body: the provider's, with ``extra`` added.

    Two places must not decide one thing: ``ValueError`` for an extra key that a typed parameter of
    this wire decides, or that the body has already.
    """
    body = request.model.provider.build_request(request)
    merged = {**request.model.extra, **request.extra}
    if not merged:
        return body
    for name in request.model.provider.nested_fields & merged.keys():
        merged[name] = _joined(name, body.pop(name, None), merged[name])
    decided = set(body) | set(request.params) | request.model.provider.typed_fields
    clash = sorted(set(merged) & (decided | {"messages", "stream"}))
    if clash:
        hint = OTHER_WAYS.get(clash[0], "give it as a parameter")
        raise ValueError(f"extra must not contain {', '.join(clash)}: {hint}")
    return {**body, **merged}


def _joined(name: str, typed: Any, given: Any) -> Any:
    """Return an object of the body with what ``extra`` adds to it."""
    if typed is None:
        return given
    if not isinstance(given, Mapping):
        raise ValueError(f"extra: {name} must be a mapping")
    clash = sorted(typed.keys() & given.keys())
    if clash:
        raise ValueError(f"extra must not contain {name}.{clash[0]}: give it as a parameter")
    return {**typed, **given}


def encoded(body: Mapping[str, Any]) -> bytes:
    """Return a body as JSON.

    Raises ``ValueError`` for half a surrogate, NaN and infinity, ``TypeError`` for a value that JSON
    has no form for. They name the field and show nothing of it.
    """
    try:
        made = msgspec.json.encode(body)
    except UnicodeError:  # its repr would show the text
        raise ValueError(_NOT_UNICODE) from None
    except (TypeError, RecursionError):
        raise TypeError(_unfit_field(body)) from None
    if b"null" in made:  # what NaN and infinity are encoded as
        with suppress(RecursionError):
            for name, value in body.items():
                if not _is_finite(value):
                    raise ValueError(f"{name} must contain only finite numbers")
    return made


_NOT_UNICODE = "a message or parameter is not valid Unicode"


def _unfit_field(body: Mapping[str, Any]) -> str:
    for name, value in body.items():
        try:
            msgspec.json.encode(value)
        except (TypeError, RecursionError):
            return f"{name} contains a value that JSON can't represent"
    return "the name of a field must be text"


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def headers_to(model: Model, accept: str) -> dict[str, str]:
    """Return the headers of any request to a model's address; the model's own count most."""
    return {
        "accept": accept,
        "accept-encoding": "identity",  # compression holds chunks back
        "user-agent": f"trio-minillm/{__version__}",
        **model.provider.auth_headers(model),
        **{k.lower(): v for k, v in model.headers.items()},
    }


def with_price(model: Model, price: TokenPrice | None) -> Model:
    """Return the model, at another price if one is given. Raises ``TypeError`` for misuse."""
    check_model(model)
    if price is None:
        return model
    check_type("price", price, TokenPrice)
    return msgspec.structs.replace(model, price=price)


def check_model(model: object) -> None:
    """Raise ``TypeError`` unless it is a `Model`: its mere name, say."""
    if not isinstance(model, Model):
        raise TypeError(
            "model must be a Model: llm.openai(…), llm.anthropic(…), … (first_of and fallback are for"
            " client.stream and client.complete alone)"
        )


def _response_type(given: Any) -> Any:
    if given is None:
        return None
    wanted = format_of(given)
    if not isinstance(wanted, JSONSchema):
        return None
    if wanted.type is None and not is_object(root_in_place(wanted.schema)):
        return ANY_IN_OBJECT
    return wanted.type
