"""Calls from outside of Trio: an error that says what to do, and the ways in that it names."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
import trio

import trio_minillm as llm
from trio_minillm import local
from trio_minillm.testing import ScriptedTransport, openai_events, reply

from .support.paths import doc

MODEL = llm.compatible("m", base_url="http://test.invalid/v1")
WAYS = ("trio.run(main)", "asyncio.to_thread(trio.run", "start_guest_run", "backend='trio'")


def transport() -> ScriptedTransport:
    return ScriptedTransport(reply(*openai_events("Rivers ", "carry ", "salt.")))


async def ask() -> str:
    async with llm.open_client(transport=transport()) as client:
        async with client.stream(MODEL, "Why?") as stream:
            return "".join([chunk.delta async for chunk in stream])


async def open_one() -> None:
    async with llm.open_client():
        raise AssertionError


async def open_local() -> None:
    async with local.open_local_server():
        raise AssertionError


CALLS: dict[str, Callable[[llm.Client], Coroutine[Any, Any, object]]] = {
    "open_client": lambda _: open_one(),
    "open_local_server": lambda _: open_local(),
    "a stream": lambda client: client.stream(MODEL, "Why?").__aenter__(),
    "complete": lambda client: client.complete(MODEL, "Why?"),
    "a batch": lambda client: client.batch([], model=MODEL).__aenter__(),
}


@pytest.mark.parametrize("what", CALLS)
@pytest.mark.parametrize("under", ["asyncio", "nothing"])
def test_the_error_names_the_ways(what: str, under: str) -> None:
    def call(client: llm.Client) -> None:
        coroutine = CALLS[what](client)
        if under == "asyncio":
            asyncio.run(coroutine)
        else:
            coroutine.send(None)

    async def main() -> None:
        async with llm.open_client(transport=transport()) as client:
            await trio.to_thread.run_sync(call, client)

    here = "this is asyncio" if under == "asyncio" else "no event loop of Trio's runs here"
    with pytest.raises(RuntimeError, match=f"^{what} needs Trio, and {here}") as caught:
        trio.run(main)
    for way in (*WAYS, "%autoawait trio", "docs/streaming/asyncio.md"):
        assert way in str(caught.value)
    assert doc("asyncio.md").exists()


def test_in_a_thread_beside_asyncio() -> None:
    async def main() -> list[str]:
        return await asyncio.gather(*(asyncio.to_thread(trio.run, ask) for _ in range(3)))

    assert asyncio.run(main()) == ["Rivers carry salt."] * 3


def test_as_a_guest_of_asyncio() -> None:
    """Tasks of both take turns in one thread."""

    async def main() -> tuple[str, int]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        turns = 0

        async def count() -> None:
            nonlocal turns
            while not done.done():
                turns += 1
                await asyncio.sleep(0)

        trio.lowlevel.start_guest_run(
            ask, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done.set_result
        )
        counter = asyncio.create_task(count())
        outcome = await done
        await counter
        return outcome.unwrap(), turns

    text, turns = asyncio.run(main())
    assert text == "Rivers carry salt."
    assert turns > 1


def test_a_stream_in_a_guest_run_is_cancelled_from_asyncio() -> None:
    """Through Trio's own token, as docs/streaming/asyncio.md has it."""
    outcomes: list[llm.Outcome | None] = []

    async def wait(scope: trio.CancelScope, begun: asyncio.Event) -> None:
        never = ScriptedTransport(reply(*openai_events("a")[:2], 3600.0))
        async with llm.open_client(transport=never) as client:
            with scope:
                async with client.stream(MODEL, "Why?") as stream:
                    await stream.next_chunk()
                    begun.set()
                    await stream.collect()
            outcomes.append(stream.outcome)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        scope, begun = trio.CancelScope(), asyncio.Event()
        trio.lowlevel.start_guest_run(
            wait,
            scope,
            begun,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
        )
        await begun.wait()
        scope.cancel()
        (await done).unwrap()

    asyncio.run(main())
    assert outcomes == [llm.Outcome.CANCELLED]


def test_with_anyios_backend() -> None:
    assert anyio.run(ask, backend="trio") == "Rivers carry salt."


def test_in_ipython() -> None:
    """The real program: with ``%autoawait trio`` it works, and without it, the error says so."""
    pytest.importorskip("IPython", reason="IPython is not installed")
    cells = """
        import trio_minillm as llm
        from trio_minillm.testing import ScriptedTransport, openai_events, reply

        async def ask():
            transport = ScriptedTransport(reply(*openai_events("Rivers ", "carry ", "salt.")))
            async with llm.open_client(transport=transport) as client:
                model = llm.compatible("m", base_url="http://test.invalid/v1")
                return (await client.complete(model, "Why?")).content

        await ask()
        %autoawait trio
        print("SAID", await ask())
    """
    lines = textwrap.dedent(cells).strip()
    ran = subprocess.run(
        [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor"],
        input=f"{lines}\nexit\n",
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "IPYTHONDIR": os.environ.get("TMPDIR", "/tmp"), "PYTHONWARNINGS": ""},
        check=False,
    )
    assert "this is asyncio" in ran.stdout
    assert "%autoawait trio" in ran.stdout
    assert "SAID Rivers carry salt." in ran.stdout, ran.stdout + ran.stderr


def test_ipython_completes_the_parameters_of_a_call() -> None:
    completer = pytest.importorskip("IPython.core.completer", reason="IPython is not installed")
    client = object.__new__(llm.Client)
    found = completer.IPCompleter(namespace={"client": client, "model": None})
    found.use_jedi = False
    for call in ("client.stream(model, 'Why?', max_t", "client.complete(model, 'Why?', max_t"):
        with completer.provisionalcompleter():
            matches = {match.text for match in found.completions(call, len(call))}
        assert "max_tokens=" in matches
