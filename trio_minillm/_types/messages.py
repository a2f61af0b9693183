"""What we ask: messages and their parts, as plain values, in no provider's shape.

A `Message` is a role and a tuple of parts. The same part types come back in a response,
so that ``response.to_message()`` is the next turn and nothing is lost on the way:
reasoning blocks keep their signatures, encrypted blocks their bytes, tool calls their
exact argument strings.

No ``repr`` here shows what a part says: prompts must not reach a log by accident.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from .media import Source, media_fields, sniffed_type

Role = Literal["system", "developer", "user", "assistant", "tool"]

CacheHint: TypeAlias = bool | Literal["5m", "1h"] | None
"""A cache breakpoint behind a part, message or tool: ``True`` for the provider's default
life, or ``"5m"`` / ``"1h"``. Wires whose caching is automatic ignore it."""


class Quiet:
    """Mixin: a ``repr`` (and rich's) that gives sizes and kinds, never content."""

    __slots__ = ()

    def _facts(self) -> str:
        return ""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._facts()}>".replace(" >", ">")

    def __rich_repr__(self) -> Any:
        yield self._facts()


class TextPart(Quiet, msgspec.Struct, frozen=True):
    """Text. ``citations`` are the provider's own citation objects, as they came."""

    text: str
    cache: CacheHint = None
    citations: tuple[dict[str, Any], ...] = ()

    def _facts(self) -> str:
        return f"{len(self.text)} characters"


class MediaPart(Quiet, msgspec.Struct, frozen=True, kw_only=True):
    """Bytes, or where they are: exactly one of ``data``, ``url`` and ``file_id`` is set.

    ``media_type`` is a MIME type; known whenever ``data`` is set.
    """

    data: bytes | None = None
    url: str | None = None
    file_id: str | None = None
    media_type: str | None = None
    cache: CacheHint = None

    def __post_init__(self) -> None:
        if sum(x is not None for x in (self.data, self.url, self.file_id)) != 1:
            raise ValueError("give exactly one of data, url and file_id")
        if self.data is not None and not self.media_type:
            kind = sniffed_type(self.data)
            if kind is None:
                raise ValueError("the media type can't be told from the bytes: give media_type=")
            msgspec.structs.force_setattr(self, "media_type", kind)

    def _facts(self) -> str:
        where = (
            "url" if self.url else "file_id" if self.file_id else f"{len(self.data or b'')} bytes"
        )
        return f"{self.media_type or '?'} {where}"

    def base64(self) -> str:
        """The bytes in base64; ``ValueError`` if there are none."""
        if self.data is None:
            raise ValueError("this part has no bytes, only a reference")
        return base64.b64encode(self.data).decode("ascii")

    def data_url(self) -> str:
        """A URL that names the content: the URL itself, or ``data:`` with the bytes."""
        return self.url or f"data:{self.media_type};base64,{self.base64()}"


class ImagePart(MediaPart, frozen=True, kw_only=True):
    """A picture. ``detail`` (``low``, ``high``, ``auto``) is OpenAI's, others ignore it."""

    detail: str | None = None


class AudioPart(MediaPart, frozen=True, kw_only=True):
    """Sound. ``format`` is the wire's word for it (``wav``, ``mp3``)."""

    @property
    def format(self) -> str:
        """``wav`` for ``audio/wav``, ``mp3`` for ``audio/mpeg``, and so on."""
        subtype = (self.media_type or "audio/wav").split("/")[-1].removeprefix("x-")
        return {"mpeg": "mp3", "wave": "wav", "vnd.wave": "wav"}.get(subtype, subtype)


class DocumentPart(MediaPart, frozen=True, kw_only=True):
    """A document, PDF or plain text. ``context`` and ``citations`` are Anthropic's."""

    title: str | None = None
    context: str | None = None
    citations: bool = False


class RefusalPart(Quiet, msgspec.Struct, frozen=True):
    """The model's words where it declined to answer."""

    text: str

    def _facts(self) -> str:
        return f"{len(self.text)} characters"


class ReasoningPart(Quiet, msgspec.Struct, frozen=True, kw_only=True):
    """One block of reasoning.

    ``text`` is what can be read of it (may be empty). ``signature`` and ``encrypted`` are
    opaque and go back unchanged. ``wire`` names the provider dialect whose block it is;
    other dialects leave it out of the next request, since none takes another's blocks.
    ``raw`` is the block as the wire had it, where it has more than these fields.
    """

    text: str = ""
    signature: str | None = None
    encrypted: str | None = None
    wire: str = ""
    raw: dict[str, Any] | None = None

    def _facts(self) -> str:
        return f"{len(self.text)} characters" + (" signed" if self.signature else "")


class ToolCall(Quiet, msgspec.Struct, frozen=True, kw_only=True):
    """One call that the model asks for.

    ``arguments`` is the exact string that came over the wire; `parsed` reads it. ``type`` is
    ``"custom"`` for OpenAI's free-text tools, whose arguments are not JSON.
    """

    id: str
    name: str
    arguments: str = ""
    type: Literal["function", "custom"] = "function"
    extra: dict[str, Any] | None = None
    """Fields that the wire put beside the call and wants back (Gemini's signature)."""

    def _facts(self) -> str:
        return f"{self.name} {len(self.arguments)} characters of arguments"

    def parsed(self, type: Any = Any) -> Any:
        """The arguments, read as JSON (``{}`` if there are none, or ``null``) into ``type``.

        Raises `msgspec.DecodeError` if they are not JSON, `msgspec.ValidationError` if
        they don't fit ``type``. Calls in ``response.tool_calls`` are always JSON objects.
        """
        text = self.arguments.strip()
        return msgspec.json.decode("{}" if text in ("", "null") else text, type=type)


class ToolResult(Quiet, msgspec.Struct, frozen=True, kw_only=True):
    """What a tool answered to the call ``call_id``."""

    call_id: str
    content: tuple[TextPart | ImagePart | DocumentPart, ...]
    name: str | None = None
    is_error: bool = False
    cache: CacheHint = None

    def _facts(self) -> str:
        return f"{self.call_id} {len(self.content)} parts"

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(p.text for p in self.content if isinstance(p, TextPart))


class OpaquePart(Quiet, msgspec.Struct, frozen=True, kw_only=True):
    """A block that only its own dialect understands (a server tool's call or result, a
    compaction): goes back unchanged on the dialect ``wire`` and is left out on others.
    """

    wire: str
    raw: dict[str, Any]

    def _facts(self) -> str:
        return f"{self.wire} {self.raw.get('type', '?')}"


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
)


class Message(Quiet, msgspec.Struct, frozen=True, kw_only=True):
    """One turn: a role and its parts, in order."""

    role: Role
    parts: tuple[Part, ...]
    name: str | None = None

    def _facts(self) -> str:
        return f"{self.role} {[type(p).__name__ for p in self.parts]}"

    @property
    def text(self) -> str:
        """The text parts, joined with nothing."""
        return "".join(p.text for p in self.parts if isinstance(p, TextPart))


Content: TypeAlias = "str | Part | Sequence[str | Part]"


def _parts(content: Sequence[Content], cache: CacheHint) -> tuple[Part, ...]:
    flat: list[Part] = []
    for item in content:
        if isinstance(item, str):
            flat.append(TextPart(item))
        elif isinstance(item, Sequence):
            flat.extend(_parts(item, None))
        elif isinstance(item, Part):
            flat.append(item)
        else:
            raise TypeError(f"a message is made of text and parts, not {type(item).__name__}")
    if cache and flat:
        last = flat[-1]
        if not hasattr(last, "cache"):
            raise ValueError(f"a {type(last).__name__} can't carry a cache breakpoint")
        flat[-1] = msgspec.structs.replace(last, cache=cache)
    return tuple(flat)


def system(*content: Content, cache: CacheHint = None) -> Message:
    """The instructions that stand above the conversation."""
    return Message(role="system", parts=_parts(content, cache))


def developer(*content: Content, cache: CacheHint = None) -> Message:
    """Instructions in OpenAI's newer role; on wires without it the same as `system`."""
    return Message(role="developer", parts=_parts(content, cache))


def user(*content: Content, name: str | None = None, cache: CacheHint = None) -> Message:
    """A turn of the user: text, pictures, sound, documents."""
    return Message(role="user", parts=_parts(content, cache), name=name)


def assistant(*content: Content, name: str | None = None, cache: CacheHint = None) -> Message:
    """A turn of the model. As the last message it is a prefill, on wires that allow one."""
    return Message(role="assistant", parts=_parts(content, cache), name=name)


def tool_result(
    call: ToolCall | str,
    *content: str | TextPart | ImagePart | DocumentPart,
    is_error: bool = False,
    cache: CacheHint = None,
) -> Message:
    """The answer to a tool call (the call itself, or its id)."""
    if not isinstance(call, str | ToolCall):
        raise TypeError("tool_result needs the call, or its id")
    parts = tuple(TextPart(c) if isinstance(c, str) else c for c in content)
    ident, name = (call, None) if isinstance(call, str) else (call.id, call.name)
    result = ToolResult(call_id=ident, name=name, content=parts, is_error=is_error, cache=cache)
    return Message(role="tool", parts=(result,))


def text(text: str, *, cache: CacheHint = None) -> TextPart:
    """Text as a part of its own, to put a cache breakpoint behind it."""
    return TextPart(text, cache)


def image(
    source: Source,
    *,
    media_type: str | None = None,
    detail: str | None = None,
    cache: CacheHint = None,
) -> ImagePart:
    """A picture from bytes, a path or a URL."""
    return ImagePart(**media_fields(source, media_type), detail=detail, cache=cache)


def audio(source: Source, *, media_type: str | None = None, cache: CacheHint = None) -> AudioPart:
    """Sound from bytes or a path (no wire takes a URL other than ``data:``)."""
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
    """A document (PDF, plain text) from bytes, a path or a URL."""
    if title is None and isinstance(source, Path):
        title = source.name
    return DocumentPart(
        **media_fields(source, media_type),
        title=title,
        context=context,
        citations=citations,
        cache=cache,
    )
