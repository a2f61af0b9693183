"""Read media from bytes, files and URLs, and tell their MIME types."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, TypeAlias

Source: TypeAlias = bytes | str | Path
"""The source of media: the bytes; a `Path`, read at once; or a ``str``, which is a URL
(``https:``, ``data:``) and never a file name, so that a model's words can't name a file."""


def media_fields(source: Source, media_type: str | None) -> dict[str, Any]:
    """Return the fields ``data`` or ``url``, and ``media_type``, of a media part.

    The media type is the given one, else that of the ``data:`` URL or of the file's name, else
    ``None``. Raises ``TypeError`` for a source of another type, ``ValueError`` for a string that
    is not a URL or not base64, and `OSError` if the file can't be read.
    """
    import mimetypes  # most programs send no media

    if isinstance(source, str):
        if source.startswith("data:"):
            head, _, body = source[5:].partition(",")
            if not head.endswith(";base64"):
                raise ValueError("a data: URL must be in base64")
            return {
                "data": base64.b64decode(body, validate=True),
                "media_type": media_type or head.removesuffix(";base64").split(";")[0] or None,
            }
        if "://" not in source:
            raise ValueError("a str is a URL; give a pathlib.Path for a file")
        return {"url": source, "media_type": media_type or mimetypes.guess_type(source)[0]}
    if not isinstance(source, Path | bytes | bytearray | memoryview):
        raise TypeError("media must be bytes, a pathlib.Path or a URL")
    data = source.read_bytes() if isinstance(source, Path) else bytes(source)
    if media_type is None and isinstance(source, Path):
        media_type = mimetypes.guess_type(source.name)[0]
    return {"data": data, "media_type": media_type}


_MAGIC = (
    (b"\x89PNG\r\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
)


def sniffed_type(data: bytes) -> str | None:
    """Return the MIME type that the first bytes show, or ``None`` if they show none."""
    if data[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav"}.get(data[8:12])
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)


def true_type(data: bytes, given: str | None) -> str | None:
    """Return the MIME type of media: the given one, or what the first bytes show if there is none.

    For images, what the bytes show counts in any case: servers refuse a picture with another's type
    (BerriAI/litellm#24900), and ``image/jpg``, which is none (NousResearch/hermes-agent#55432).
    """
    if given and not given.startswith("image/"):
        return given
    shown = sniffed_type(data)
    if given and not (shown or "").startswith("image/"):
        return "image/jpeg" if given == "image/jpg" else given
    return shown
