"""The limit of open files: raised by a client, and what happens at it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import trio
import trio.testing

import trio_minillm as llm
from trio_minillm._http.connection import Connection
from trio_minillm._http.open_files import ENOUGH_FILES
from trio_minillm._http.pool import FILES_PATIENCE, ConnectionPool
from trio_minillm._http.transport_errors import ConnectError

from ..support.peers import answering, serving

resource = pytest.importorskip("resource")


@pytest.fixture
def limit() -> Iterator[int]:
    """The hard limit; the soft one is as it was afterwards."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def soft() -> int:
    found: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return found


async def test_a_client_raises_the_limit_and_never_lowers_it(limit: int) -> None:
    most = ENOUGH_FILES if limit == resource.RLIM_INFINITY else min(ENOUGH_FILES, limit)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limit))
    async with llm.open_client():
        assert soft() == most
    assert soft() == most
    if limit == resource.RLIM_INFINITY or limit > ENOUGH_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (ENOUGH_FILES + 1, limit))
        async with llm.open_client():
            assert soft() == ENOUGH_FILES + 1


class Full:
    """Files that are opened until there is no room for another."""

    def __init__(self, hard: int) -> None:
        self.files: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
        try:
            while True:
                self.files.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass

    def close(self) -> None:
        while self.files:
            os.close(self.files.pop())


async def test_out_of_files_idle_connections_give_way(limit: int) -> None:
    """Each connection takes two files here, since the server is in this process as well."""
    async with serving(answering) as one, serving(answering) as other:
        pool = ConnectionPool()
        kept = await pool.open(("http", "127.0.0.1", one.port), None, untold)
        pool.release(kept, keep=True)
        full = Full(limit)
        try:
            opened: Connection = await pool.open(("http", "127.0.0.1", other.port), None, untold)
            assert pool.statistics().idle == 0
            pool.release(opened, keep=False)
        finally:
            full.close()
            pool.close()


async def test_out_of_files_a_request_waits_for_another_to_end(limit: int) -> None:
    told = []

    async def tell(event: str) -> None:
        told.append(event)

    async with serving(answering) as server:
        origin = ("http", "127.0.0.1", server.port)
        pool = ConnectionPool()
        busy = await pool.open(origin, None, untold)
        opened: list[Connection] = []

        async def another() -> None:
            opened.append(await pool.open(origin, None, tell))

        full = Full(limit)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(another)
                await trio.testing.wait_all_tasks_blocked()
                assert told == ["connection_pool.wait.started"]
                pool.release(busy, keep=False)
            assert len(opened) == 1
            assert set(told) == {"connection_pool.wait.started", "connection_pool.wait.complete"}
        finally:
            full.close()
            pool.close()


async def test_out_of_files_the_wait_for_another_has_an_end(
    limit: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving(answering) as server:
        origin = ("http", "127.0.0.1", server.port)
        pool = ConnectionPool()
        await pool.open(origin, None, untold)
        full = Full(limit)
        begun = trio.current_time()
        try:
            with pytest.raises(ConnectError, match="Too many open files"):
                await pool.open(origin, None, quiet)
            assert trio.current_time() - begun == pytest.approx(FILES_PATIENCE)
        finally:
            full.close()
            pool.close()


async def test_out_of_files_is_said_in_those_words(limit: int) -> None:
    async with serving(answering) as server:
        model = llm.compatible("m", base_url=server.url, api_key="none")
        async with llm.open_client(retry=llm.Retry(attempts=1)) as client:
            full = Full(limit)
            try:
                with pytest.raises(llm.SendError, match="too many open files in this") as caught:
                    await client.complete(model, "Hi")
            finally:
                full.close()
        assert caught.value.reason == "open_files"


async def quiet(event: str) -> None:
    """Takes trace events, and does nothing with them."""


async def untold(event: str) -> None:
    raise AssertionError(event)
