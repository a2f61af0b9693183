"""litellm's proxy in front of the embedded model.

Of a request on another wire than chat completions it makes one that the model's server takes: of
`small`'s one of Responses, of `passed_on`'s one of chat completions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

import trio_minillm as llm
from trio_minillm.local import open_local_server

from ..support.behind import (
    ONCE,
    PROMPT,
    SAME,
    TOOL,
    WEATHER,
    answers,
    broken,
    busy_slots,
    calls_a_tool,
    kill,
    leaves_nothing_running,
    refused,
)
from ..support.programs import Program, free_port, needs, running

pytestmark = needs("litellm", "nox -s servers", "TRIO_MINILLM_LITELLM")

Wire = Callable[[Program, str], llm.Model]
KEY = "sk-of-the-proxy-0123456789"
OFFLINE = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "LITELLM_MODE": "PRODUCTION",
    "NO_PROXY": "127.0.0.1",
}


@contextmanager
def litellm(url: str, key: str, folder: Path) -> Iterator[Program]:
    """litellm's proxy, whose models are the one at this address."""
    port = free_port()
    params = {"api_base": f"{url}/v1", "api_key": key, "max_retries": 0}
    kinds = {"small": "openai/small", "passed_on": "hosted_vllm/small"}
    settings = {
        "model_list": [
            {"model_name": name, "litellm_params": {"model": model, **params}}
            for name, model in kinds.items()
        ],
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


def on_messages(program: Program, name: str = "small") -> llm.Model:
    return llm.anthropic(name, base_url=program.url, api_key=KEY)


def on_responses(program: Program, name: str = "small") -> llm.Model:
    return llm.openai_responses(name, base_url=f"{program.url}/v1", api_key=KEY)


OTHERS = pytest.mark.parametrize("wire", [on_messages, on_responses])


@OTHERS
@pytest.mark.parametrize("name", ["small", "passed_on"])
async def test_an_answer_comes_through_on_the_other_wires(
    proxy: Program, wire: Wire, name: str
) -> None:
    await answers(wire(proxy, name))


async def test_a_prompt_is_continued_as_it_is(proxy: Program) -> None:
    model = llm.text_completions("small", base_url=f"{proxy.url}/v1", api_key=KEY)
    async with llm.open_client(retry=ONCE) as client:
        answer = await client.complete(model, "One, two, three,", max_tokens=4, **SAME)
    assert answer.content.startswith(" four")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


@pytest.mark.parametrize("wire", [at, on_responses])
@pytest.mark.parametrize("name", ["small", "passed_on"])
async def test_a_tool_is_called_and_its_result_used(proxy: Program, wire: Wire, name: str) -> None:
    call, said = await calls_a_tool(wire(proxy, name))
    assert call.parsed()["city"] == "Paris"
    assert "21" in said.content


async def test_a_call_whose_first_piece_is_lost_is_not_run(proxy: Program) -> None:
    """llama.cpp begins the arguments beside the name, and litellm passes on what comes behind it."""
    async with llm.open_client(retry=ONCE) as client:
        answer = await client.stream(
            on_messages(proxy, "passed_on"), WEATHER, tools=[TOOL], tool_choice="required", **SAME
        ).complete()
    assert answer.finish_reason == "tool_use"
    assert not answer.tool_calls
    (call,) = answer.invalid_tool_calls
    assert call.name == "forecast"
    assert "Paris" in call.arguments


@OTHERS
async def test_a_stream_that_is_left_is_generated_to_its_end(
    proxy: Program, embedded, wire: Wire
) -> None:
    """litellm goes on reading it; on chat completions it hangs up."""
    async with llm.open_client(retry=ONCE) as client:
        async with client.stream(wire(proxy, "small"), PROMPT, max_tokens=400) as stream:
            while len(stream.accumulated) < 20:
                assert await stream.next_chunk() is not None
        assert stream.outcome is llm.Outcome.CANCELLED
        await trio.sleep(1)
        assert await busy_slots(embedded.url, embedded.key) == 1
        with trio.fail_after(120):
            while await busy_slots(embedded.url, embedded.key):
                await trio.sleep(0.1)


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
