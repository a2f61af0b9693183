"""Files in a prompt: pictures, sound, PDF and text, as parts of a message.

Only words that a person types name a file: ``@PATH`` in a conversation, and ``--file``. Words that come
from elsewhere (an argument, a pipe, a model) are never looked through.
"""

from __future__ import annotations

import mimetypes
import os
import re
import stat
from pathlib import Path
from typing import TypeAlias

import trio_minillm as llm

from .._types.media import sniffed_type
from ._output import Misuse, one_line

MAX_FILE = 1 << 26
"""Bytes of the largest file that is sent. Servers refuse requests that are half as long."""

FilePart: TypeAlias = llm.TextPart | llm.ImagePart | llm.AudioPart | llm.DocumentPart


def file_part(path: Path) -> FilePart:
    """Return a file as a part of a message: text as text under its name, anything else as what it is.

    The bytes decide first, then the name. Raises `Misuse` for a file that can't be read, is too large
    or is of another kind.
    """
    named = one_line(str(path))
    data = _bytes_of(path, named)
    shown, guessed = sniffed_type(data), mimetypes.guess_type(path.name)[0] or ""
    text = _text_of(data)
    # A few kinds begin with letters that a text can begin with, too.
    if text is not None and (shown is None or guessed.startswith("text/")):
        return llm.text(f"{path.name}:\n\n{text}")
    kind = shown or guessed
    if kind.startswith("image/"):
        return llm.image(data, media_type=kind)
    if kind.startswith("audio/"):
        return llm.audio(data, media_type=kind)
    if kind == "application/pdf":
        return llm.document(data, media_type=kind, title=path.name)
    raise Misuse(f"{named}: not a picture, sound, PDF or text in UTF-8")


def _bytes_of(path: Path, named: str) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a device may have no end
            raise Misuse(f"{named}: not a file")
        with path.open("rb") as file:  # which may be longer than it says, as those of /proc are
            data = b"" if found.st_size > MAX_FILE else file.read(MAX_FILE + 1)
        if max(found.st_size, len(data)) > MAX_FILE:
            raise Misuse(f"{named}: larger than {MAX_FILE:,} bytes")
    except OSError as exc:
        raise Misuse(f"{named}: {exc.strerror or exc}") from exc
    except ValueError as exc:  # a NUL in the name
        raise Misuse(f"{named}: not the name of a file") from exc
    return data


def _text_of(data: bytes) -> str | None:
    """Return bytes as text, or None if they are not text in UTF-8."""
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def file_line(path: Path, part: FilePart) -> str:
    """Return what is attached, in a line: ``photo.png (image/png, 20,480 bytes)``."""
    if isinstance(part, llm.TextPart):
        return one_line(f"{path} (text, {len(part.text):,} characters)")
    return one_line(f"{path} ({part.media_type}, {len(part.data or b''):,} bytes)")


# -- @PATH -----------------------------------------------------------------------------------

_MENTION = re.compile(r'(?<!\S)(\\?)@(?:"([^"\n]+)"|(\S+))')
_AFTER = ".,;:!?)]}'\""
"""Marks that may follow a path and are none of it, unless there is such a file."""


def mentioned(text: str) -> tuple[str, list[Path]]:
    r"""Return a text with names in place of ``@PATH`` and ``@"PATH"``, and the paths.

    A path follows a space or begins a line, so that a mail address is none. ``\@`` stands for the sign
    itself.
    """
    paths: list[Path] = []

    def name_of(match: re.Match[str]) -> str:
        escaped, quoted, bare = match.groups()
        if escaped:
            return match[0][1:]
        path, after = path_of(quoted), ""
        if quoted is None:
            path, after = _bare_path(bare)
        paths.append(path)
        return (path.name or str(path)) + after

    return re.sub(_MENTION, name_of, text), paths


def _bare_path(word: str) -> tuple[Path, str]:
    """Return the path that a word begins with, and the marks after it."""
    path, cut = path_of(word), word.rstrip(_AFTER)
    if cut in ("", word) or os.path.lexists(path):
        return path, ""
    return path_of(cut), word[len(cut) :]


def path_of(given: str | None) -> Path:
    """Return the path that was typed, with the home directory in place of ``~``."""
    return Path(os.path.expanduser(given or ""))  # noqa: PTH111 - Path's own raises for ~nobody
