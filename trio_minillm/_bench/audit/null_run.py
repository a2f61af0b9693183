"""The null run: the same load against a server on this machine whose timing is known."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import trio
from msgspec.structs import replace

from ..._client import open_client
from ...providers._models import compatible
from ..figures.figures import Figures
from ..load import LoadRun
from ..plan import Plan
from ..record import MEASURED, Record
from .null import NullRun, null_run_of
from .stamps import Lags, open_stamped_transport

MAX_REQUESTS = 2000
"""Requests of a null run, at most."""
SECONDS = 30.0
"""Seconds after which a null run starts no more requests."""
PATIENCE = 30.0
"""Seconds that the server has to begin."""
TOKENS = 128
"""Tokens of an answer where the measured answers had no usage and no content."""


class NullRunError(Exception):
    """The null run could not be made."""


def timing_of(figures: Figures) -> dict[str, float]:
    """Return the timing that is like the measured one: medians, and the mean of the answers' tokens."""
    ttft, itl = (figures.latency[name].at("p50") or 0.0 for name in ("ttft", "itl"))
    answers = max(1, figures.finished)
    chunks = figures.chunks / answers
    tokens = figures.tokens
    made = chunks if tokens is None else tokens["output_tokens"] / tokens["answers"]
    return {
        "ttft": round(ttft, 6),
        "itl": round(itl, 6),
        "tokens": max(1, round(made or TOKENS)),
        "tokens_per_chunk": max(1, round(made / chunks)) if chunks else 1,
    }


async def null_run(plan: Plan, figures: Figures) -> NullRun:
    """Run a plan's load against a server of its own, in another process, and compare both records.

    Raises `NullRunError` if there is no such server.
    """
    timing = timing_of(figures)
    few = MAX_REQUESTS if plan.requests is None else min(plan.requests, MAX_REQUESTS)
    likewise = replace(
        plan,
        prompts=tuple(replace(prompt, params={}, lengths=()) for prompt in plan.prompts),
        requests=few,
        duration=SECONDS if plan.duration is None else min(plan.duration, SECONDS),
        warmup=0,
        params={"max_tokens": int(timing["tokens"])},
        attempts=1,
        part=(0, 1),
    )
    records: list[Record] = []
    with TemporaryDirectory(prefix="trio-minillm-") as folder:
        log = Path(folder) / "served.jsonl"
        async with (
            _serving(timing, log) as base_url,
            open_stamped_transport(lags := Lags()) as transport,
            open_client(transport=transport) as client,
        ):
            model = compatible("timed", base_url=base_url)
            # Its times are taken as those that it is told beside: what is taken out there is no share.
            await LoadRun(client, model, likewise, records.append, lags=lags).run()
        served = await trio.to_thread.run_sync(_read, log)
    return null_run_of((r for r in records if r.phase == MEASURED), served, timing)


@asynccontextmanager
async def _serving(timing: dict[str, float], log: Path) -> AsyncIterator[str]:
    """Run the server for the length of a block, and give its address."""
    options = [f"--{name.replace('_', '-')}={value:g}" for name, value in timing.items()]
    command = [sys.executable, "-m", "trio_minillm.cli", "serve", "--port=0", "--json", "--quiet"]
    process = await trio.lowlevel.open_process(
        [*command, *options, f"--log={log}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for this program, which ends it
    )
    try:
        yield await _address(process)
    finally:
        process.terminate()
        with trio.CancelScope(shield=True), trio.move_on_after(PATIENCE):
            await process.wait()
        if process.returncode is None:
            process.kill()
        if process.stdout is not None:
            await trio.aclose_forcefully(process.stdout)


async def _address(process: trio.Process) -> str:
    line = b""
    assert process.stdout is not None
    with trio.move_on_after(PATIENCE):
        while b"\n" not in line and (data := await process.stdout.receive_some()):
            line += data
    try:
        found: str = msgspec.json.decode(line.partition(b"\n")[0])["base_url"]
    except (msgspec.DecodeError, KeyError, TypeError):
        raise NullRunError("the server for the null run did not start") from None
    return found


def _read(log: Path) -> dict[str, dict[str, Any]]:
    """Return the server's records by their ids."""
    with log.open("rb") as lines:
        records = [msgspec.json.decode(line) for line in lines]
    return {record["id"]: record for record in records}
