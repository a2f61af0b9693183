"""vLLM's build for processors, which serves the embedded model's weights itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

import trio_minillm as llm
from trio_minillm.local._settings import find_model

from ..support.behind import ONCE, PROMPT, answers, broken, refused
from ..support.programs import Program, free_port, needs, running

pytestmark = needs("vllm", "nox -s servers", "TRIO_MINILLM_VLLM")

KEY = "sk-of-vllm-0123456789"
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
}
CONVERT = """
import sys, torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

folder, file, out = sys.argv[1:]
AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(out)
config = AutoConfig.from_pretrained(folder, gguf_file=file)
if hasattr(config, "quantization_config"):
    del config.quantization_config
read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
plain = AutoModelForCausalLM.from_config(config)
plain.load_state_dict({name: tensor.float() for name, tensor in read.state_dict().items()})
plain.to(torch.float32).save_pretrained(out)
"""
"""Program that writes the weights without their quantisation, as vLLM reads them."""


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    python, folder = os.environ["TRIO_MINILLM_VLLM"], tmp_path_factory.mktemp("vllm")
    gguf, model = find_model(None), folder / "model"
    convert = (python, "-c", CONVERT, str(gguf.parent), gguf.name, str(model))
    made = subprocess.run(convert, capture_output=True, text=True, env={**os.environ, **OFFLINE})
    assert made.returncode == 0, made.stderr[-3000:]
    port = free_port()
    options = {
        "--model": str(model),
        "--served-model-name": "small",
        "--host": "127.0.0.1",
        "--port": str(port),
        "--api-key": KEY,
        "--max-model-len": "1024",
    }
    arguments = [word for option in options.items() for word in option]
    command = (python, "-m", "vllm.entrypoints.openai.api_server", *arguments, "--enforce-eager")
    with running(*command, port=port, folder=folder, environment=OFFLINE, seconds=400) as program:
        yield program


def at(program: Program, name: str = "small", key: str = KEY) -> llm.Model:
    return llm.compatible(name, base_url=f"{program.url}/v1", server="vllm", api_key=key)


async def test_an_answer_comes_through(vllm: Program) -> None:
    await answers(at(vllm))


def on_messages(program: Program, name: str = "small", key: str = KEY) -> llm.Model:
    return llm.anthropic(name, base_url=program.url, api_key=key)


def on_responses(program: Program, name: str = "small", key: str = KEY) -> llm.Model:
    return llm.openai_responses(name, base_url=f"{program.url}/v1", api_key=key)


def continued(program: Program, name: str = "small", key: str = KEY) -> llm.Model:
    at = f"{program.url}/v1"
    return llm.text_completions(name, base_url=at, server="vllm", api_key=key)


Wire = Callable[..., llm.Model]


@pytest.mark.parametrize(
    ("wire", "reason"), [(on_messages, "max_tokens"), (on_responses, "incomplete")]
)
async def test_an_answer_comes_through_on_the_other_wires(
    vllm: Program, wire: Wire, reason: str
) -> None:
    answer = await answers(wire(vllm))
    assert answer.finish_reason == reason, "it was cut at its length"


async def test_a_prompt_is_continued_as_it_is(vllm: Program) -> None:
    async with llm.open_client(retry=ONCE) as client:
        model = continued(vllm)
        answer = await client.complete(model, "One, two, three,", max_tokens=4, temperature=0)
    assert answer.content.startswith(" four")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


async def test_usage_comes_with_every_choice(vllm: Program) -> None:
    async with llm.open_client(retry=ONCE) as client:
        answer = await client.complete(at(vllm), PROMPT, max_tokens=8, n=2)
    assert [len(choice.content) > 0 for choice in answer.choices] == [True, True]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


@pytest.mark.parametrize("wire", [at, on_messages, on_responses, continued])
async def test_refusals(vllm: Program, wire: Wire) -> None:
    await refused(wire(vllm, key="sk-another-0123456789"), 401, "auth", attempts=1)
    await refused(wire(vllm, "other"), 404, "invalid", attempts=1)
    await refused(wire(vllm), 400, "invalid", attempts=1, prompt="word " * 3000)


async def test_a_killed_server_cuts_the_answer(vllm: Program) -> None:
    """The last test: the server is not there any more."""
    await broken(at(vllm), vllm.kill, llm.ConnectionCut)
