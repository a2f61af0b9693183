"""llama-cpp-python's server, which answers one request at a time and lets a second interrupt it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import trio_minillm as llm
from trio_minillm.local._settings import find_model

from ..support.behind import ONCE, PROMPT
from ..support.programs import Program, free_port, needs, running

pytestmark = needs("llama-cpp-python", "nox -s servers: no wheel?", "TRIO_MINILLM_LLAMA_CPP_PYTHON")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    port, python = free_port(), os.environ["TRIO_MINILLM_LLAMA_CPP_PYTHON"]
    options = {
        "--model": str(find_model(None)),
        "--model_alias": "small",
        "--host": "127.0.0.1",
        "--port": str(port),
        "--n_ctx": "1024",
    }
    arguments = [word for option in options.items() for word in option]
    folder = tmp_path_factory.mktemp("llama_cpp_python")
    with running(python, "-m", "llama_cpp.server", *arguments, port=port, folder=folder) as program:
        yield program


def at(program: Program) -> llm.Model:
    return llm.compatible("small", base_url=f"{program.url}/v1")


async def test_an_answer_comes_through(server: Program) -> None:
    async with llm.open_client(retry=ONCE) as client:
        answer = await client.complete(at(server), PROMPT, max_tokens=24)
    assert answer.outcome is llm.Outcome.FINISHED
    assert answer.content


async def test_an_answer_that_another_request_interrupts_is_not_whole(server: Program) -> None:
    async with llm.open_client(retry=ONCE) as client:
        with pytest.raises(llm.EndedEarly) as caught:
            async with client.stream(at(server), PROMPT, max_tokens=900) as stream:
                while len(stream.accumulated) < 20:
                    assert await stream.next_chunk() is not None
                await client.complete(at(server), PROMPT, max_tokens=4)
                await stream.collect()
    assert caught.value.partial is not None
    assert len(caught.value.partial.content) >= 20
