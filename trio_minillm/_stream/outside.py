"""The error for calls from outside of Trio, which says what to do."""

from __future__ import annotations

import sys

import trio

_WAYS = (
    "run the program with trio.run(main), or with anyio.run(main, backend='trio'). From asyncio:"
    " await asyncio.to_thread(trio.run, main), or Trio as a guest in asyncio's loop"
    " (trio.lowlevel.start_guest_run). In IPython: %autoawait trio. See docs/streaming/asyncio.md"
)


def check_in_trio(what: str) -> None:
    """Raise ``RuntimeError`` unless a task of Trio's has called this."""
    if not trio.lowlevel.in_trio_task():
        raise RuntimeError(f"{what} needs Trio, and {_here()}: {_WAYS}")


def _here() -> str:
    """Return what runs here in place of Trio."""
    asyncio = sys.modules.get("asyncio")  # not imported for that
    if asyncio is not None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            return "this is asyncio"
    return "no Trio event loop is running here"
