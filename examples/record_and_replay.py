"""Record a real answer once, and test against it for ever, with or without faults."""

import math
import tempfile
from pathlib import Path

import trio

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm.testing import faults


async def record(path: Path) -> None:
    async with (
        llm.open_local_model() as model,
        testing.record(path) as transport,
        llm.open_client(transport=transport) as client,
    ):
        response = await client.complete(model, "Why is the sea salty?", max_tokens=24)
        print(f"recorded: {response.text!r}")


async def replay(path: Path) -> None:
    (reply,) = testing.replay(path, speed=math.inf)
    for name, script in {
        "as it was": reply,
        "cut in the middle": reply | faults.cut(1000, "reset"),
    }.items():
        transport = testing.ScriptedTransport(script)
        async with (
            llm.open_client(transport=transport) as client,
            client.stream(testing.model(), "Why is the sea salty?") as stream,
        ):
            try:
                await stream.collect()
            except llm.StreamTruncated as error:
                print(error)
        print(f"{name}: {stream.outcome}, {stream.text!r}")


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "answer.jsonl")
        await record(path)
        await replay(path)


trio.run(main)
