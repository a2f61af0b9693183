"""Token counts by tiktoken, if its vocabulary is on this machine. Nothing is downloaded.

tiktoken fetches a vocabulary when it is first used, and keeps it in a folder. Here it is only used
for a vocabulary that the folder already has, whole and unchanged.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

_SOURCE = "https://openaipublic.blob.core.windows.net/encodings/"
_FILES = {
    "cl100k_base": (
        "cl100k_base.tiktoken",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
    "o200k_base": (
        "o200k_base.tiktoken",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
    "o200k_harmony": (
        "o200k_base.tiktoken",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
}
"""The file of each encoding and its SHA-256, as in tiktoken 0.14. A file with another hash is
thrown away by tiktoken and fetched anew."""


def counter(encoding: str, model: str) -> Callable[[str], int]:
    """Return a function that counts the tokens of a text in one of OpenAI's encodings.

    Raises ``ImportError`` without tiktoken, ``FileNotFoundError`` if its folder does not have the
    vocabulary, and ``ValueError`` for an unknown encoding or for a model that, as far as tiktoken
    knows, does not have this one.
    """
    if encoding not in _FILES:
        raise ValueError(f"unknown encoding {encoding!r}; known: {', '.join(sorted(_FILES))}")
    try:
        import tiktoken
    except ImportError as exc:
        wanted = "counting with an encoding needs tiktoken: pip install 'trio-minillm[tokens]'"
        raise ImportError(wanted) from exc
    try:
        fitting = tiktoken.encoding_name_for_model(model.rpartition("/")[2])
    except KeyError:
        fitting = "not known to tiktoken"
    if fitting != encoding:
        raise ValueError(f"{model} does not count in {encoding}: its encoding is {fitting}")
    name, digest = _FILES[encoding]
    if not _cached(_SOURCE + name, digest):
        raise FileNotFoundError(
            f"{name} is not in tiktoken's folder (TIKTOKEN_CACHE_DIR), and is not downloaded here"
        )
    encode = tiktoken.get_encoding(encoding).encode_ordinary
    return lambda text: len(encode(text))


def encoding_at_hand(model: str) -> str | None:
    """Return the encoding of a model of OpenAI's, if `counter` can use it here; ``None`` otherwise."""
    try:
        import tiktoken

        encoding = tiktoken.encoding_name_for_model(model)
    except (ImportError, KeyError):
        return None
    known = encoding in _FILES
    return (
        encoding if known and _cached(_SOURCE + _FILES[encoding][0], _FILES[encoding][1]) else None
    )


def _cached(url: str, digest: str) -> bool:
    """Return True if tiktoken will use a file of its folder and not fetch it."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if folder is None:
        folder = str(Path(tempfile.gettempdir(), "data-gym-cache"))
    if folder == "":
        return False  # tiktoken keeps nothing then
    path = Path(folder, hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest())
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest
