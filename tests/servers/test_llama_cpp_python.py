"""llama-cpp-python's server, which answers one request at a time and lets a second interrupt it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
        "--logits_all": "true",  # or there are no log probabilities
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


# -- text completions --------------------------------------------------------------------------

BEGINNING = "<|im_start|>\n"
"""A beginning of prompts. The server takes the first token of an echo for one that begins a document,
whether it is or not, and has no number for the next."""


def continued(program: Program) -> llm.Model:
    return llm.text_completions("small", base_url=f"{program.url}/v1", server="llama-cpp-python")


async def test_a_prompt_is_continued_as_it_is(server: Program) -> None:
    async with llm.open_client(retry=ONCE) as client:
        answer = await client.complete(
            continued(server),
            "The capital of France is",
            max_tokens=3,
            temperature=0,
            logprobs=True,
        )
    assert answer.content.startswith(" Paris")
    entries = (answer.logprobs or {})["content"]
    assert "".join(entry["token"] for entry in entries) == answer.content


async def test_an_echo_says_how_likely_its_prompt_is(server: Program) -> None:
    prompt, plain = f"{BEGINNING}The capital of France is", {"temperature": 0, "logprobs": True}
    async with llm.open_client(retry=ONCE) as client:
        model = continued(server)
        said = await client.complete(model, prompt, max_tokens=1, **plain)
        whole = prompt + said.content
        answer = await client.complete(model, whole, max_tokens=1, echo=True, **plain)
    echo = llm.split_echo(answer, whole)
    (generated,) = (said.logprobs or {})["content"]
    assert echo.prompt[-1]["token"] == generated["token"] == said.content
    assert echo.prompt[-1]["logprob"] == pytest.approx(generated["logprob"], abs=1e-3)
    assert echo.prompt[-1]["text_offset"] == len(prompt)
    assert echo.text == "".join(entry["token"] for entry in echo.completion) != ""


MULTIPLE_CHOICE = """
task: capitals
dataset_path: json
dataset_kwargs:
  data_files:
    test: {path}
test_split: test
output_type: multiple_choice
doc_to_text: "The capital of {{{{country}}}} is"
doc_to_choice: ["Paris", "Rome", "London"]
doc_to_target: "{{{{capital}}}}"
metric_list:
  - metric: acc
"""
ROLLING = """
task: texts
dataset_path: json
dataset_kwargs:
  data_files:
    test: {path}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "The capital of {{{{country}}}} is {{{{capital}}}}."
metric_list:
  - metric: bits_per_byte
"""


@pytest.mark.filterwarnings("ignore")
def test_the_harness_compares_likelihoods(
    server: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm_eval = pytest.importorskip("lm_eval", reason="lm_eval is not installed (extra: lm-eval)")
    from lm_eval.tasks import TaskManager

    from trio_minillm.adapters.lm_eval import TrioMiniLLM

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = {"France": "Paris", "Italy": "Rome", "England": "London"}
    data = tmp_path / "capitals.jsonl"
    data.write_text(
        "".join(json.dumps({"country": c, "capital": t}) + "\n" for c, t in rows.items())
    )
    (tmp_path / "capitals.yaml").write_text(MULTIPLE_CHOICE.format(path=data))
    (tmp_path / "texts.yaml").write_text(ROLLING.format(path=data))

    def run(task: str) -> dict[str, Any]:
        model = TrioMiniLLM(
            "text:small", base_url=f"{server.url}/v1", prefix=BEGINNING, concurrency=1
        )
        tasks = TaskManager(include_path=str(tmp_path), include_defaults=False)
        made = lm_eval.simple_evaluate(
            model=model, tasks=[task], task_manager=tasks, bootstrap_iters=0
        )
        found: dict[str, Any] = made["results"][task]
        return found

    assert run("capitals")["acc,none"] == 1.0
    assert 0.2 < run("texts")["bits_per_byte,none"] < 1.5
