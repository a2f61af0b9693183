"""Whatever is for any model is for those of every wire: commands, estimates, recordings, faults, docs.

A wire that is added must be put into `support.wires.KINDS`, or the first test fails; then it is in all
of them.
"""

from __future__ import annotations

import json
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import trio_minillm as llm
from trio_minillm import providers, testing
from trio_minillm.local._named import KEYS
from trio_minillm.testing import ScriptedTransport, faults

from .support.command import COMMAND, KEY, Ran, run
from .support.paths import BENCHMARKS, doc
from .support.wires import FORMATS, KINDS

every_kind = pytest.mark.parametrize("kind", KINDS)
DELTAS = ("Sea ", "salty")


def model_of(kind: str, url: str = "http://test.invalid", **options: Any) -> llm.Model:
    given = KINDS[kind]
    return given.make("m", base_url=url + given.base, api_key=KEY, **options)


def test_no_wire_is_forgotten() -> None:
    assert KINDS.keys() == KEYS.keys(), "the command line's names"
    exported = (getattr(providers, name) for name in providers.__all__)
    classes = {one for one in exported if isinstance(one, type) and issubclass(one, llm.Provider)}
    assert {type(model_of(kind).provider) for kind in KINDS} == classes - {llm.Provider}
    names = {kind.make.__name__ for kind in KINDS.values()}
    assert names == {name for name in llm.__all__ if _makes_models(getattr(llm, name))}
    made = {kind.events.__name__ for kind in KINDS.values()}
    assert made == {name for name in testing.__all__ if name.endswith("_events")}
    assert set(FORMATS) == {kind.format for kind in KINDS.values()}


def _makes_models(found: Any) -> bool:
    returned = getattr(found, "__annotations__", {}).get("return")
    return not isinstance(found, type) and returned in (llm.Model, "Model")


@pytest.mark.parametrize("page", ["providers.md", "quickstart.md", "cli.md"])
def test_the_docs_name_every_kind(page: str) -> None:
    text = doc(page).read_text(encoding="utf-8")
    for name, kind in KINDS.items():
        assert (f"`{name}:" if page == "cli.md" else f"llm.{kind.make.__name__}(") in text, name


def test_the_soak_has_every_format() -> None:
    text = (BENCHMARKS / "soak_scenes.py").read_text(encoding="utf-8")
    for format in FORMATS:
        assert f'    "{format}": Wire(' in text


# -- commands ----------------------------------------------------------------------------------


def command(kind: str, url: str, *args: str) -> Ran:
    keys = {KEYS[kind]: KEY, "TRIO_MINILLM_API_KEY": KEY}
    at = ("--model", f"{kind}:m", "--base-url", url + KINDS[kind].base)
    return run([*COMMAND, *args, *at], **keys)


@every_kind
async def test_every_command_knows_every_kind(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("typer", reason="needs the extra [cli]")
    asked, results, ledger = (tmp_path / name for name in ("in.jsonl", "out.jsonl", "ledger.jsonl"))
    asked.write_text('{"key": "a", "prompt": "Hi"}\n{"key": "b", "prompt": "Hello"}\n')
    async with testing.serve(testing.answer(*DELTAS)) as server:
        tell = partial(command, kind, f"http://127.0.0.1:{server.port}")

        async def told(*args: str) -> Ran:
            done = await trio.to_thread.run_sync(tell, *args)
            assert done.code == 0, (args, done.out, done.err)
            return done

        said = await told("chat", "Hi", "--price", "1,2", "--ledger", str(ledger))
        assert said.out == "Sea salty\n"
        assert "cost: $0.000011" in said.err
        assert "finished: 2 of 2" in (await told("bench", "--requests", "2")).out
        await told("batch", str(asked), str(results))
        lines = [json.loads(line) for line in results.read_text().splitlines()]
        assert sorted(line["custom_id"] for line in lines) == ["a", "b"]
        assert "Sea salty" in results.read_text()
        before = len(server.requests)
        dry = await told("batch", str(asked), str(results) + "2", "--dry-run", "--price", "1,2")
        assert "$" in dry.out + dry.err
        assert len(server.requests) == before
    costs = run([*COMMAND, "costs", str(ledger)])
    assert (costs.code, "0.000011" in costs.out) == (0, True)


# -- the library -------------------------------------------------------------------------------


@every_kind
async def test_an_answer_for_any_wire(kind: str) -> None:
    async with testing.serve(testing.answer(*DELTAS)) as server, llm.open_client() as client:
        model = model_of(kind, f"http://127.0.0.1:{server.port}")
        async with client.stream(model, "Hi") as stream:
            pieces = [chunk.delta async for chunk in stream if chunk.delta]
        whole = await client.complete(model, "Hi")
    assert pieces == list(DELTAS)
    for response in (stream.response, whole):
        assert (response.content, response.outcome) == ("Sea salty", llm.Outcome.FINISHED)
        assert response.usage is not None
        assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (7, 2)


@every_kind
async def test_faults_on_every_wire(kind: str) -> None:
    events = KINDS[kind].events(*DELTAS)
    script, behind = testing.reply(*events), b"".join(events).index(b"salty")
    cut = script | faults.cut(behind)
    faulty = [script | faults.split(every=1), cut, script | faults.status(503)]
    once = llm.Retry(attempts=1)
    async with llm.open_client(transport=ScriptedTransport(*faulty), retry=once) as client:
        whole = await client.complete(model_of(kind), "Hi")
        assert (whole.content, whole.outcome) == ("Sea salty", llm.Outcome.FINISHED)
        with pytest.raises(llm.ConnectionCut) as caught:
            await client.complete(model_of(kind), "Hi")
        assert caught.value.partial is not None
        assert caught.value.partial.content == "Sea "
        with pytest.raises(llm.RefusedError):
            await client.complete(model_of(kind), "Hi")


@every_kind
async def test_recordings_of_every_wire(kind: str, tmp_path: Path, autojump_clock: Any) -> None:
    path = tmp_path / "r.jsonl"
    script = ScriptedTransport(testing.answer(*DELTAS) | faults.split(every=7))
    async with testing.record(path, script) as recording:
        async with llm.open_client(transport=recording) as client:
            real = await client.complete(model_of(kind), "the prompt")
    assert script.requests
    assert KEY not in path.read_text()
    assert "the prompt" not in path.read_text()
    async with llm.open_client(transport=ScriptedTransport(*testing.replay(path))) as client:
        again = await client.complete(model_of(kind), "the prompt")
    assert (again.content, again.usage, again.outcome) == (real.content, real.usage, real.outcome)
    assert again.content == "Sea salty"


@every_kind
def test_what_a_request_may_cost_on_every_wire(kind: str) -> None:
    price = llm.TokenPrice(input=Decimal(1), output=Decimal(2))
    found = llm.estimate(model_of(kind), "Hello", max_tokens=10, price=price)
    assert found.amount is not None
    assert found.amount >= Decimal("0.000025"), "5 bytes of input, and 10 tokens of output"


@every_kind
def test_known_prices_of_every_wire(kind: str) -> None:
    pytest.importorskip("genai_prices", reason="needs the extra [prices]")
    given = KINDS[kind]
    if kind == "compatible":
        model = given.make(given.priced, base_url="https://api.openai.com/v1", api_key=KEY)
    else:
        model = given.make(given.priced, api_key=KEY)
    found = llm.known_price(model)
    assert found is not None
    assert found.input
    assert found.output
