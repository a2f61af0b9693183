"""The child process of :mod:`trio_minillm.local`: a llama.cpp server that dies with its parent.

It talks to its parent over its standard streams and takes no arguments, so that the server's
secret is in no argument list and in no environment:

======  ==========================================================================
stdin   One line of JSON, the settings, then silence. The end of input is the order
        to exit; the kernel gives it too when the parent dies, however it dies.
stdout  One line of JSON: ``{"address": "http://127.0.0.1:PORT"}`` once requests can
        be answered, or ``{"error": …}`` / ``{"bad_setting": …}`` before it exits.
stderr  llama.cpp's own log.
======  ==========================================================================

This file is run as a script and imports nothing of its package, which would cost the child half a
second and the memory of an HTTP client. The parent imports it only for `TOOLS_TEMPLATE`.
"""

from __future__ import annotations

import difflib
import importlib
import json
import os
import select
import signal
import sys
import time
from typing import Any, BinaryIO, NoReturn

LOG_SECONDS = 0.25
"""Seconds to wait before exiting with an error: llama.cpp logs from a thread of its own, whose last
lines would be lost if the process ended at once."""

# The markers <ifm|tool_calls> and <|ifm|im_start|> together make llama.cpp choose its parser
# "K2 Horizon". The grammar of that parser lets nothing precede a required call, but lets text
# precede or replace an optional one. llama.cpp's automatic parsers allow any text before a required
# call, so a model that was never taught tools talks until `max_tokens`.
# Only the first call of a past turn is shown: a template that shows several makes llama.cpp allow
# several, and such a model then repeats itself without end.
TOOLS_TEMPLATE = r"""
{%- set system = messages[0].content if messages[0].role == 'system' else '' %}
{%- if system or tools %}
{{- '<|im_start|>system\n' + system }}
{%- if tools %}
{{- '\n\nYou can call these functions:\n' }}
{%- for tool in tools %}{{- tool.function | tojson + '\n' }}{%- endfor %}
{{- 'To call one, answer only: <ifm|tool_calls><ifm|tool_call>{"name": NAME, "arguments": ' }}
{{- 'ARGUMENTS}</ifm|tool_call></ifm|tool_calls>' }}
{%- endif %}
{{- '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'user' %}
{{- '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}
{%- elif message.role == 'assistant' %}
{{- '<|im_start|>assistant\n' + (message.content or '') }}
{%- if message.tool_calls %}
{%- set call = message.tool_calls[0].function %}
{{- '<ifm|tool_calls><ifm|tool_call>{"name": "' + call.name + '", "arguments": ' }}
{{- (call.arguments | tojson) + '}</ifm|tool_call></ifm|tool_calls>' }}
{%- endif %}
{{- '<|im_end|>\n' }}
{%- elif message.role == 'tool' %}
{{- '<|im_start|>user\nResult: ' + message.content + '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|ifm|im_start|>assistant\n' }}{%- endif %}
"""
"""The ChatML template for ``tools=True``."""


def main() -> NoReturn:
    """Serve until standard input ends. Never returns."""
    if sys.platform != "win32":
        # Control-C in the terminal is for the parent, which then ends this process in order.
        os.setsid()
    report = _take_stdout()
    settings: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    _die_with_stdin()
    try:
        # The server runs in C++ threads; the name only keeps it from being destroyed.
        _server, address = _start(settings)
    except _BadSettingError as exc:
        _exit(report, bad_setting=str(exc))
    except Exception as exc:  # noqa: BLE001 - the parent must hear of every failure
        _exit(report, error=f"{type(exc).__name__}: {exc}")
    with report:
        report.write(json.dumps({"address": address}).encode() + b"\n")
    sys.stdin.buffer.read()
    # Not `del _server`: an orderly shutdown waits for live streams, and there is nothing to save.
    os._exit(0)


class _BadSettingError(Exception):
    """A setting that llama.cpp does not have, or a value that it refuses."""


def _take_stdout() -> BinaryIO:
    """Return standard output for the report, and send what C++ code prints to stderr."""
    report = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(report, "wb")


def _die_with_stdin() -> None:
    """Make the end of standard input end this process from now on, even while it loads a model.

    A thread that waits for the end of input would not do: xllamacpp holds the GIL while it loads,
    which takes minutes for a large model. The kernel's SIGIO needs no Python, and its default
    action is to terminate. (Linux's PR_SET_PDEATHSIG would do harm: it fires when the *thread* that
    started the child ends, and Trio starts processes from worker threads, which it retires after
    ten idle seconds.) Windows has neither; there the end of input is noticed once the model is
    loaded.
    """
    if sys.platform == "win32":
        return
    import fcntl

    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    # The input may have ended before the kernel was asked to report it. Nothing follows the
    # settings, so "readable" can only mean "ended".
    if select.select([0], [], [], 0)[0]:
        os._exit(0)


def _start(settings: dict[str, Any]) -> tuple[object, str]:
    xllamacpp: Any = importlib.import_module("xllamacpp")  # it has no type hints
    params = xllamacpp.CommonParams()
    for name, value in settings.items():
        _set(params, name, value)
    server = xllamacpp.Server(params)
    return server, str(server.listening_address)


def _set(params: Any, name: str, value: Any) -> None:
    """Set ``params.a.b`` for the name ``"a.b"``."""
    *parents, last = name.split(".")
    target = params
    for parent in parents:
        target = _get(target, parent, name)
    current = _get(target, last, name)
    try:
        # JSON has lists only.
        setattr(target, last, set(value) if isinstance(current, set) else value)
    except (TypeError, ValueError, OverflowError, AttributeError) as exc:
        raise _BadSettingError(f"llama.cpp's {name!r} does not take this value: {exc}") from exc


def _get(target: Any, attribute: str, name: str) -> Any:
    try:
        if attribute.startswith("_"):
            raise AttributeError(attribute)
        return getattr(target, attribute)
    except AttributeError:
        near = difflib.get_close_matches(attribute, [n for n in dir(target) if n[0] != "_"])
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise _BadSettingError(f"llama.cpp has no parameter {name!r}{hint}") from None


def _exit(report: BinaryIO, **fields: str) -> NoReturn:
    time.sleep(LOG_SECONDS)
    with report:
        report.write(json.dumps(fields).encode() + b"\n")
    os._exit(1)


if __name__ == "__main__":
    main()
