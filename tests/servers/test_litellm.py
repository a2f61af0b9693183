"""litellm's proxy in front of the embedded model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import trio_minillm as llm
from trio_minillm.local import open_local_server

from ..support.behind import ONCE, PROMPT, answers, broken, kill, leaves_nothing_running, refused
from ..support.programs import Program, free_port, needs, running

pytestmark = needs("litellm", "nox -s servers", "TRIO_MINILLM_LITELLM")

KEY = "sk-of-the-proxy-0123456789"
OFFLINE = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "LITELLM_MODE": "PRODUCTION",
    "NO_PROXY": "127.0.0.1",
}


@contextmanager
def litellm(url: str, key: str, folder: Path) -> Iterator[Program]:
    """litellm's proxy, whose model ``small`` is the one at this address."""
    port = free_port()
    params = {"model": "openai/small", "api_base": f"{url}/v1", "api_key": key, "max_retries": 0}
    settings = {
        "model_list": [{"model_name": "small", "litellm_params": params}],
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"num_retries": 0, "telemetry": False},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
    }
    (folder / "config.yaml").write_text(json.dumps(settings))  # YAML is a superset
    program = os.environ.get("TRIO_MINILLM_LITELLM", "litellm")
    arguments = ("--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port))
    with running(program, *arguments, port=port, folder=folder, environment=OFFLINE) as running_one:
        yield running_one


@pytest.fixture(scope="module")
def proxy(embedded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with litellm(embedded.url, embedded.key, tmp_path_factory.mktemp("litellm")) as program:
        yield program


def at(program: Program, name: str = "small", key: str = KEY) -> llm.Model:
    return llm.compatible(name, base_url=f"{program.url}/v1", api_key=key)


async def test_an_answer_comes_through(proxy: Program) -> None:
    await answers(at(proxy))


async def test_on_anthropics_wire(proxy: Program) -> None:
    async with llm.open_client(retry=ONCE) as client:
        model = llm.anthropic("small", base_url=proxy.url, api_key=KEY)
        answer = await client.complete(model, PROMPT, max_tokens=16)
    assert answer.outcome is llm.Outcome.FINISHED
    assert answer.content
    assert answer.usage is not None


async def test_a_stream_that_is_left_is_not_generated_further(proxy: Program, embedded) -> None:
    await leaves_nothing_running(at(proxy), embedded.url, embedded.key)


async def test_a_model_that_it_does_not_have_is_refused(proxy: Program) -> None:
    error = await refused(at(proxy, "other"), 400, "invalid", attempts=1)
    assert "other" in str(error)


async def test_a_wrong_key_is_refused_and_not_shown(proxy: Program) -> None:
    wrong = "sk-wrong-0123456789-0123456789"
    error = await refused(at(proxy, key=wrong), 400, "invalid", attempts=1)  # 401 with a database
    assert wrong not in str(error)


async def test_a_killed_proxy_cuts_the_answer(embedded, tmp_path: Path) -> None:
    with litellm(embedded.url, embedded.key, tmp_path) as program:
        await broken(at(program), program.kill, llm.ConnectionCut)


async def test_a_model_that_dies_passes_for_a_whole_answer(tmp_path: Path) -> None:
    """litellm makes up the reason and counts tokens itself; nothing that it sends tells of the cut."""
    async with open_local_server(context=1024, slots=1) as server:
        with litellm(server.base_url, server.model().api_key, tmp_path) as program:
            async with llm.open_client(retry=ONCE) as client:
                async with client.stream(at(program), PROMPT, max_tokens=900) as stream:
                    await stream.next_chunk()
                    kill(server.pid)
                    await stream.collect()
            assert stream.response.outcome is llm.Outcome.FINISHED
            assert stream.response.finish_reason == "stop"
            await refused(at(program), 500, "server", attempts=2)
