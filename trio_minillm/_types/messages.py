"""Messages and their parts as plain values, independent of any provider's format.

A `Message` is a role and a tuple of parts. Responses are made of the same parts, so that
``response.to_message()`` is the next turn and nothing is lost on the way: reasoning blocks keep
their signatures, encrypted blocks their bytes, tool calls their exact argument strings.

No ``repr`` here shows content: prompts must not reach a log by accident.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from .checks import check_option, check_type, wrong_type
from .media import Source, media_fields, true_type
from .schemas import read_json

Role = Literal["system", "developer", "user", "assistant", "tool"]

CacheHint: TypeAlias = bool | Literal["5m", "1h"] | None
"""A cache breakpoint after a part, message or tool: ``True`` for the provider's default
lifetime, or ``"5m"`` or ``"1h"``. Providers whose caching is automatic ignore it."""


def check_cache(given: object) -> None:
    """Raise ``ValueError`` unless it is a `CacheHint`."""
    if given not in (None, True, False, "5m", "1h"):
        raise ValueError("cache must be True, '5m' or '1h'")


class Quiet:
    """Mixin for a ``repr`` (and rich's) that shows sizes and kinds, never content."""

    __slots__ = ()

    def _facts(self) -> str:
        return ""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._facts()}>".replace(" >", ">")

    def __rich_repr__(self) -> Any:
        yield self._facts()


class TextPart(Quiet, msgspec.Struct, frozen=True):
    """A piece of text."""

    text: str
    """The text."""
    cache: CacheHint = None
    """A cache breakpoint after the text (Anthropic, OpenRouter)."""
    citations: tuple[dict[str, Any], ...] = ()
    """The provider's own citation objects, unchanged."""
    extra: dict[str, Any] | None = None
    """Other fields of the text that the provider wants back, such as its id in OpenAI Responses."""

    def __post_init__(self) -> None:
        check_type("text", self.text, str)
        if self.cache is not None:
            check_cache(self.cache)

    def _facts(self) -> str:
        return f"{len(self.text)} characters"


class MediaPart(Quiet, msgspec.Struct, frozen=True, kw_only=True):
    """An image, audio, or a document, as bytes or by reference.

    Set exactly one of ``data``, ``url``, and ``file_id``. Raises ``ValueError`` for none or several
    of them, and if the media type of ``data`` is neither given nor recognised from its first bytes.
    """

    data: bytes | None = None
    """The bytes of the medium."""
    url: str | None = None
    """The address of the medium, or a ``data:`` URL."""
    file_id: str | None = None
    """The id of a file that the provider stores."""
    media_type: str | None = None
    """The MIME type, which is always known if ``data`` is set. For an image, its bytes decide,
    whatever you pass."""
    cache: CacheHint = None
    """A cache breakpoint after the part (Anthropic, OpenRouter)."""

    def __post_init__(self) -> None:
        check_option("data", self.data, bytes)
        check_option("url", self.url, str)
        check_cache(self.cache)
        if sum(x is not None for x in (self.data, self.url, self.file_id)) != 1:
            raise ValueError("give exactly one of data, url and file_id")
        if self.data is not None:
            kind = true_type(self.data, self.media_type)
            if not kind:
                raise ValueError("the media type can't be told from the bytes: give media_type=")
            msgspec.structs.force_setattr(self, "media_type", kind)

    def _facts(self) -> str:
        where = (
            "url" if self.url else "file_id" if self.file_id else f"{len(self.data or b'')} bytes"
        )
        return f"{self.media_type or '?'} {where}"

    def base64(self) -> str:
        """Return the bytes in base64. Raises ``ValueError`` if the part is only a reference."""
        if self.data is None:
            raise ValueError("this part has no bytes, only a reference")
        return base64.b64encode(self.data).decode("ascii")

    def data_url(self) -> str:
        """Return the URL, or a ``data:`` URL of the bytes.

        Raises ``ValueError`` if there is only a file id.
        """
        return self.url or f"data:{self.media_type};base64,{self.base64()}"


class ImagePart(MediaPart, frozen=True, kw_only=True):
    """An image."""

    detail: str | None = None
    """The resolution at which OpenAI reads the image: ``low``, ``high``, or ``auto``. Ignored
    elsewhere."""


class AudioPart(MediaPart, frozen=True, kw_only=True):
    """Audio, such as a spoken question."""

    @property
    def format(self) -> str:
        """OpenAI's name of the format, such as ``wav`` for ``audio/wav`` and ``mp3`` for
        ``audio/mpeg``.
        """
        subtype = (self.media_type or "audio/wav").split("/")[-1].removeprefix("x-")
        return {"mpeg": "mp3", "wave": "wav", "vnd.wave": "wav"}.get(subtype, subtype)


class DocumentPart(MediaPart, frozen=True, kw_only=True):
    """A document: PDF or plain text."""

    title: str | None = None
    """The title or file name that the model sees."""
    context: str | None = None
    """Facts about the document that are not to be cited (Anthropic)."""
    citations: bool = False
    """True if the model should cite the document (Anthropic)."""

    def plain_text(self) -> str | None:
        """Return the text of a plain-text document, and ``None`` for any other."""
        if self.data is None or not (self.media_type or "").startswith("text/"):
            return None
        return self.data.decode("utf-8", "replace")


class RefusalPart(Quiet, msgspec.Struct, frozen=True):
    """Text in which the model declined to answer."""

    text: str
    """The text of the refusal."""
    extra: dict[str, Any] | None = None
    """Other fields that the provider wants back, as in `TextPart`."""

    def __post_init__(self) -> None:
        check_type("text", self.text, str)

    def _facts(self) -> str:
        return f"{len(self.text)} characters"


class ReasoningPart(Quiet, msgspec.Struct, frozen=True, kw_only=True):
    """One block of reasoning."""

    text: str = ""
    """The readable text, which may be empty."""
    signature: str | None = None
    """The provider's signature, which is sent back unchanged."""
    encrypted: str | None = None
    """The encrypted reasoning, which is sent back unchanged."""
    wire: str = ""
    """The wire format that the block belongs to (`Provider.replay_wire`). Other formats leave the
    block out, because no provider accepts another's."""
    raw: dict[str, Any] | None = None
    """The block as the provider sent it, if it has more than these fields."""

    def __post_init__(self) -> None:
        check_type("text", self.text, str)
        check_option("raw", self.raw, dict)

    def _facts(self) -> str:
        return f"{len(self.text)} characters" + (" signed" if self.signature else "")


class ToolCall(Quiet, msgspec.Struct, frozen=True, kw_only=True):
    """A tool call that the model asks for."""

    id: str
    """The provider's id. The client makes one if the provider sent none, or the same id for two
    calls."""
    name: str
    """The name of the tool."""
    arguments: str = ""
    """The arguments exactly as the provider sent them, without repeats. `parsed` decodes them."""
    type: Literal["function", "custom"] = "function"
    """``"function"``, or ``"custom"`` for OpenAI's free-text tools, whose arguments are not
    JSON."""
    extra: dict[str, Any] | None = None
    """Other fields of the call that the provider wants back, such as Gemini's signature."""

    def __post_init__(self) -> None:
        check_type("id", self.id, str)
        check_type("name", self.name, str)
        check_type("arguments", self.arguments, str)

    def _facts(self) -> str:
        return f"{self.name} {len(self.arguments)} characters of arguments"

    def parsed(self, type: Any = Any) -> Any:
        """Return the arguments, decoded from JSON into ``type``.

        An empty string and ``null`` count as ``{}``. The arguments of the calls in
        ``response.tool_calls`` are always JSON objects, except for calls of the type ``"custom"``.

        Raises `msgspec.DecodeError` if the arguments are not JSON, and its subclass
        `msgspec.ValidationError` if they do not match ``type``.
        """
        text = self.arguments.strip()
        return read_json("{}" if text in ("", "null") else text, type)


class ToolResult(Quiet, msgspec.Struct, frozen=True, kw_only=True):
    """The result of a tool call."""

    call_id: str
    """The id of the call."""
    content: tuple[TextPart | ImagePart | DocumentPart, ...]
    """The text, images, and documents that the tool returned."""
    name: str | None = None
    """The name of the tool, for wire formats that need it again."""
    is_error: bool = False
    """True if the tool failed; the content then says why."""
    cache: CacheHint = None
    """A cache breakpoint after the result (Anthropic, OpenRouter)."""

    def __post_init__(self) -> None:
        check_type("call_id", self.call_id, str)
        _check_parts("a tool's result", self.content, (TextPart, ImagePart, DocumentPart))
        check_cache(self.cache)

    def _facts(self) -> str:
        return f"{self.call_id} {len(self.content)} parts"

    @property
    def text(self) -> str:
        """The text parts, joined without a separator."""
        return "".join(p.text for p in self.content if isinstance(p, TextPart))


class OpaquePart(Quiet, msgspec.Struct, frozen=True, kw_only=True):
    """A block that exists in only one wire format, such as the call or result of a hosted tool.

    It is sent back unchanged if ``wire`` is the provider's `Provider.replay_wire`, and left out
    otherwise.
    """

    wire: str
    """The name of the wire format that the block belongs to."""
    raw: dict[str, Any]
    """The block, unchanged."""

    def __post_init__(self) -> None:
        check_type("raw", self.raw, dict)

    def _facts(self) -> str:
        return f"{self.wire} {self.raw.get('type', '?')}"


class TokensPart(Quiet, msgspec.Struct, frozen=True):
    """A prompt as token ids, which text completions accept instead of text.

    Raises ``TypeError`` for anything other than whole numbers, and ``ValueError`` for none or
    negative ones.
    """

    ids: tuple[int, ...]
    """The token ids, in order."""

    def __post_init__(self) -> None:
        if not isinstance(self.ids, (tuple, list)) or any(type(one) is not int for one in self.ids):
            raise TypeError("token ids must be a tuple of whole numbers")
        if not self.ids or min(self.ids) < 0:
            raise ValueError("token ids must be one or more numbers, 0 or more")
        msgspec.structs.force_setattr(self, "ids", tuple(self.ids))  # or they could change

    def _facts(self) -> str:
        return f"{len(self.ids)} tokens"


Part: TypeAlias = (
    TextPart
    | ImagePart
    | AudioPart
    | DocumentPart
    | RefusalPart
    | ReasoningPart
    | ToolCall
    | ToolResult
    | OpaquePart
    | TokensPart
)


_PARTS = get_args(Part)
_ROLES = get_args(Role)


def _check_parts(what: str, parts: Any, kinds: tuple[type, ...]) -> None:
    """Raise ``TypeError`` unless all parts are of these kinds."""
    if not isinstance(parts, (tuple, list)):
        raise wrong_type("parts", parts, "a tuple of parts")
    for part in parts:
        if not isinstance(part, kinds):
            hint = ": await it" if isinstance(part, Awaitable) else ""
            raise TypeError(f"{what} is made of text and parts, not {type(part).__name__}{hint}")


class Message(Quiet, msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a conversation: a role and its parts, in order."""

    role: Role
    """``"system"``, ``"developer"``, ``"user"``, ``"assistant"``, or ``"tool"``."""
    parts: tuple[Part, ...]
    """Text, images, calls, and other parts, in order."""
    name: str | None = None
    """The name of the speaker, if several share a role."""
    cut: bool = False
    """True for an answer that was cancelled, broke off or failed: the server may not have stored it."""

    def __post_init__(self) -> None:
        if self.role not in _ROLES:
            raise ValueError(f"role must be one of {', '.join(_ROLES)}")
        _check_parts("a message", self.parts, _PARTS)
        if self.name is not None:
            check_type("name", self.name, str)

    def _facts(self) -> str:
        return f"{self.role} {[type(p).__name__ for p in self.parts]}"

    @property
    def text(self) -> str:
        """The text parts, joined without a separator."""
        return "".join(p.text for p in self.parts if isinstance(p, TextPart))


Content: TypeAlias = "str | Part | Sequence[str | Part]"


def _parts(content: Sequence[Content], cache: CacheHint) -> tuple[Part, ...]:
    flat: list[Any] = []  # `Message` checks that they are parts
    for item in content:
        if isinstance(item, str):
            flat.append(TextPart(item))
        elif isinstance(item, Sequence) and not isinstance(item, bytes):
            flat.extend(_parts(item, None))
        else:
            flat.append(item)
    if cache and flat:
        last = flat[-1]
        if not hasattr(last, "cache"):
            raise ValueError(f"{type(last).__name__} can't carry a cache breakpoint")
        flat[-1] = msgspec.structs.replace(last, cache=cache)
    return tuple(flat)


def system(*content: Content, cache: CacheHint = None) -> Message:
    """Return a message with instructions for the whole conversation."""
    return Message(role="system", parts=_parts(content, cache))


def developer(*content: Content, cache: CacheHint = None) -> Message:
    """Return a message with instructions in OpenAI's newer role. Elsewhere, it means the same as
    `system`.
    """
    return Message(role="developer", parts=_parts(content, cache))


def user(*content: Content, name: str | None = None, cache: CacheHint = None) -> Message:
    """Return a message of the user: text, images, audio, and documents.

    ``name`` is the name of the speaker, and ``cache`` a cache breakpoint after the message.
    """
    return Message(role="user", parts=_parts(content, cache), name=name)


def assistant(*content: Content, name: str | None = None, cache: CacheHint = None) -> Message:
    """Return a message of the model. As the last message, it is a prefill, where the provider
    supports that.

    ``content`` is text or parts, in order. ``name`` is the name of the speaker, and ``cache`` a
    cache breakpoint after the message.
    """
    return Message(role="assistant", parts=_parts(content, cache), name=name)


def tool_result(
    call: ToolCall | str,
    *content: str | TextPart | ImagePart | DocumentPart,
    is_error: bool = False,
    cache: CacheHint = None,
) -> Message:
    """Return a message with the result of a tool call.

    - ``call`` is the call, or its id.
    - ``content`` is the result: text, images, and documents.
    - ``is_error`` is true if the tool failed.
    - ``cache`` is a cache breakpoint after the result.
    """
    if not isinstance(call, str | ToolCall):
        raise TypeError("tool_result needs the call, or its id")
    parts = tuple(TextPart(c) if isinstance(c, str) else c for c in content)
    ident, name = (call, None) if isinstance(call, str) else (call.id, call.name)
    result = ToolResult(call_id=ident, name=name, content=parts, is_error=is_error, cache=cache)
    return Message(role="tool", parts=(result,))


def text(text: str, *, cache: CacheHint = None) -> TextPart:
    """Return a text part, which can have a cache breakpoint after it."""
    return TextPart(text, cache)


def image(
    source: Source,
    *,
    media_type: str | None = None,
    detail: str | None = None,
    cache: CacheHint = None,
) -> ImagePart:
    """Return an image from bytes, a `Path`, or a URL. A file is read at once.

    - ``media_type`` is taken from the file name or the first bytes if you leave it out.
    - ``detail`` is the resolution at which OpenAI reads the image: ``low``, ``high``, or ``auto``.
    - ``cache`` is a cache breakpoint after the image.

    Raises ``ValueError`` if the media type can't be recognised, and for a string that is not a URL.
    """
    return ImagePart(**media_fields(source, media_type), detail=detail, cache=cache)


def audio(source: Source, *, media_type: str | None = None, cache: CacheHint = None) -> AudioPart:
    """Return audio from bytes, a `Path`, or a ``data:`` URL.

    The arguments are those of `image`. No provider accepts any other URL for audio.
    """
    return AudioPart(**media_fields(source, media_type), cache=cache)


def document(
    source: Source,
    *,
    media_type: str | None = None,
    title: str | None = None,
    context: str | None = None,
    citations: bool = False,
    cache: CacheHint = None,
) -> DocumentPart:
    """Return a document (PDF or plain text) from bytes, a `Path`, or a URL.

    - ``source``, ``media_type``, and ``cache`` are as for `image`.
    - ``title`` is the name of the file by default.
    - ``context`` and ``citations`` are for Anthropic; see `DocumentPart`.
    """
    if title is None and isinstance(source, Path):
        title = source.name
    return DocumentPart(
        **media_fields(source, media_type),
        title=title,
        context=context,
        citations=citations,
        cache=cache,
    )
