"""Text completions through the front door: streams, batches, caches, files, retries, cost."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

import trio_minillm as llm
from trio_minillm.batch import RequestFile
from trio_minillm.testing import ScriptedTransport, faults, hang, json_reply, reply, text_events

PRICE = llm.TokenPrice(input=1, output=2)
BASE = llm.text_completions("base", base_url="http://test.invalid/v1", price=PRICE)
ANSWER = reply(*text_events("upon", " a", " time"))


async def test_a_stream_has_its_cost() -> None:
    transport = ScriptedTransport(ANSWER)
    async with llm.open_client(transport=transport) as client:
        async with client.stream(BASE, "Once", max_tokens=9) as stream:
            assert "".join([chunk.delta async for chunk in stream]) == "upon a time"
        assert stream.response.cost.amount == Decimal("0.000013")  # 7 and 3 tokens
        assert client.ledger.total == stream.response.cost.amount
    assert stream.outcome is llm.Outcome.FINISHED


@pytest.mark.parametrize("status", [429, 503])
async def test_what_fails_before_the_answer_is_tried_again(status: int) -> None:
    busy = json_reply({"error": {"message": "later"}}, status=status)
    transport = ScriptedTransport(busy, ANSWER)
    async with llm.open_client(transport=transport, retry=llm.Retry(base_delay=0)) as client:
        response = await client.complete(BASE, "Once")
    assert (response.content, response.timings.attempts) == ("upon a time", 2)


async def test_a_cut_stream_keeps_what_came(autojump_clock: object) -> None:
    cut = ANSWER | faults.without_end() | faults.without_finish()
    for broken in (cut, reply(*text_events("upon")[:1], hang)):
        async with llm.open_client(transport=ScriptedTransport(broken)) as client:
            with pytest.raises(llm.StreamError) as caught:
                await client.complete(BASE, "Once")
        assert caught.value.partial is not None
        assert caught.value.partial.content.startswith("upon")


async def test_an_answer_is_kept_with_its_log_probabilities(tmp_path: Path) -> None:
    logprobs = {"tokens": ["a", " b"], "token_logprobs": [None, -1.5], "text_offset": [0, 1]}
    choice = {"text": "a b", "index": 0, "finish_reason": "length", "logprobs": logprobs}
    transport = ScriptedTransport(json_reply({"id": "cmpl-1", "choices": [choice]}))
    params = {"echo": True, "max_tokens": 0, "logprobs": True}
    echoes = []
    with llm.ResponseCache(tmp_path / "answers") as cache:
        async with llm.open_client(transport=transport) as client:
            for _ in range(2):
                asked = [llm.BatchRequest("k", "a b", params=params)]
                async with client.batch(asked, model=BASE, cache=cache) as results:
                    async for result in results:
                        assert result.response is not None
                        echoes.append(llm.split_echo(result.response, "a b"))
    assert len(transport.requests) == 1
    assert echoes[0] == echoes[1]
    assert [entry["logprob"] for entry in echoes[0].prompt] == [None, -1.5]


async def test_prompts_of_a_request_file(tmp_path: Path) -> None:
    lines = [
        {"key": "text", "prompt": "Once", "suffix": "end"},
        {"key": "tokens", "prompt": [1, 2]},
        {
            "custom_id": "openai",
            "method": "POST",
            "url": "/v1/completions",
            "body": {"model": "base", "prompt": "Once", "logprobs": 2, "best_of": 2},
        },
        {"key": "chat", "messages": [{"role": "user", "content": "Once"}]},
    ]
    source = tmp_path / "requests.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    whole = {"index": 0, "text": "upon a time", "finish_reason": "stop"}
    transport = ScriptedTransport(
        lambda request: (
            ANSWER if request.json()["stream"] else json_reply({"id": "c", "choices": [whole]})
        )
    )
    requests = RequestFile(source, model=BASE)
    async with llm.open_client(transport=transport) as client:
        async with client.batch(requests, model=BASE, concurrency=1) as results:
            found = {r.key: r.response.content async for r in results if r.response is not None}
    assert found == dict.fromkeys(("text", "tokens", "openai", "chat"), "upon a time")
    sent = {
        (str(b["prompt"]), b.get("suffix"), b.get("logprobs"), b["stream"])
        for b in transport.bodies
    }
    assert sent == {
        ("Once", "end", None, True),
        ("[1, 2]", None, None, True),
        ("Once", None, 2, False),
        ("Once", None, None, True),
    }
