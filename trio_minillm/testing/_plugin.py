"""Fixtures for pytest: a scripted server in memory or on a socket, and a client of it.

This file is installed as the module ``pytest_trio_minillm``. pytest loads that in every run
wherever this library is installed, and a module inside the package would bring the whole package
along; so nothing of the package is imported before a fixture is used. The async fixtures are for
tests that are run by pytest-trio, or by anyio's plugin on Trio.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from trio_minillm import Client, Model
    from trio_minillm.testing import LoopbackServer, ScriptedTransport


@pytest.fixture
def llm_script() -> Iterator[ScriptedTransport]:
    """A server in memory for `llm_client`. It answers "ok", or ``llm_script.replies = [...]``.

    The test fails if it leaves a response open.
    """
    from trio_minillm.testing import ScriptedTransport

    transport = ScriptedTransport()
    yield transport
    assert transport.open_bodies == 0, f"{transport.open_bodies} responses were not closed"


@pytest.fixture
def llm_model() -> Model:
    """A model for `llm_client`, at an address that does not exist."""
    from trio_minillm.testing import model

    return model()


@pytest.fixture
async def llm_client(llm_script: ScriptedTransport) -> AsyncIterator[Client]:
    """An open client of `llm_script`."""
    from trio_minillm import open_client

    async with open_client(transport=llm_script) as client:
        yield client


@pytest.fixture
async def llm_server() -> AsyncIterator[LoopbackServer]:
    """A server on a loopback socket, which answers "ok" or ``llm_server.replies = [...]``.

    Its address for any client is ``llm_server.base_url``.
    """
    from trio_minillm.testing import serve

    async with serve() as server:
        yield server
