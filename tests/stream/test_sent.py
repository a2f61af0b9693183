"""The time at which a request was out."""

import pytest
import trio

import trio_minillm as llm
from trio_minillm import testing


async def test_the_time_for_a_key_is_before_the_request_and_not_in_its_answer(autojump_clock):
    async def key():
        await trio.sleep(2)
        return "k"

    transport = testing.ScriptedTransport(
        testing.reply(1.0, *testing.openai_events("Hi"), wait=0.5)
    )
    model = llm.compatible("m", base_url="https://server/v1", api_key=key)
    async with llm.open_client(transport=transport) as client:
        timings = (await client.complete(model, "Hello")).timings
    assert (timings.sent, timings.headers, timings.first_chunk) == (2.0, 2.5, 3.5)


async def test_on_a_connection_that_is_kept_the_request_is_out_at_once():
    async with testing.serve(testing.answer("Hi")) as server, llm.open_client() as client:
        for _ in range(2):
            timings = (await client.complete(server.model(), "Hello")).timings
    assert timings.sent == 0.0
    assert timings.headers > 0


async def test_a_request_that_nobody_answers_has_no_such_time(autojump_clock):
    transport = testing.ScriptedTransport(testing.reply(wait=testing.hang))
    async with llm.open_client(transport=transport, timeouts=llm.Timeouts(first_chunk=3)) as client:
        async with client.stream(testing.model(), "Hello") as stream:
            with pytest.raises(llm.StreamTimeout):
                await stream.collect()
    assert stream.response.timings.sent is None
