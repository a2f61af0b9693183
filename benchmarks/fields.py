"""Compare the CPU of reading arguments while they stream with that of collecting them.

``python benchmarks/fields.py`` takes two minutes. 4 MB of arguments come in 100,000 pieces, in OpenAI's
format, from memory: what is measured is this library alone. Each contender runs in a process of its own, in
turn; printed are medians of seconds and of the ratios within a round. ``jiter``, which parses all that
has come again for each piece, is measured at small sizes only: it takes time in proportion to the square.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from statistics import median
from typing import Any

import trio

import trio_minillm as llm
from trio_minillm.testing import sse

PIECE = 40
READ = 65_536
SHAPES = {"a long text": "text", "a list of records": "list"}
READS = {"64 KiB per read": "big", "one event per read": "one"}


def arguments(shape: str, pieces: int) -> str:
    """Return the JSON of about 40 characters for each of so many pieces."""
    size = PIECE * pieces
    if shape == "text":
        line = 'She said: "It is cold here",\nand closed the window. '
        return json.dumps({"path": "a/b.txt", "content": line * (size // 55)})
    record = {"name": "a record with a name", "price": 1.5, "tags": ["a", "b"]}
    return json.dumps({"items": [record] * (size // 67)})


def events(text: str, pieces: int) -> list[bytes]:
    """Return the events of one call whose arguments are cut into so many pieces."""
    step = -(-len(text) // pieces)

    def event(piece: str, **more: Any) -> bytes:
        call = {"index": 0, "function": {"arguments": piece, **more}}
        if more:
            call |= {"id": "call_1", "type": "function"}
        choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}
        return sse({"id": "chatcmpl-1", "model": "m", "choices": [choice]})

    out = [event("", name="write")]
    out += [event(text[i : i + step]) for i in range(0, len(text), step)]
    out.append(sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}))
    out.append(sse({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}))
    return [*out, sse("[DONE]")]


async def body(made: list[bytes], read: str) -> AsyncIterator[bytes]:
    """Yield the events, as they come in reads of the socket."""
    if read == "one":
        for event in made:
            yield event
        return
    data = b"".join(made)
    for at in range(0, len(data), READ):
        yield data[at : at + READ]


async def collect(stream: llm.StreamingCompletion) -> None:
    await stream.collect()


async def fields(stream: llm.StreamingCompletion) -> None:
    async for call in stream.calls():
        async for _ in call.fields():
            pass


async def values(stream: llm.StreamingCompletion) -> None:
    async for call in stream.calls():
        async for _ in call.values(field="items"):
            pass


async def partial(stream: llm.StreamingCompletion) -> None:
    call = await stream.calls().__anext__()
    while await stream.next_chunks():
        call.partial()
    assert call.partial().is_whole


async def jiter(stream: llm.StreamingCompletion) -> None:
    import jiter

    so_far = bytearray()
    while batch := await stream.next_chunks():
        for chunk in batch:
            for delta in chunk.tool_calls:
                so_far += delta.arguments.encode()
                if so_far:
                    jiter.from_json(bytes(so_far), partial_mode="trailing-strings")


CONTENDERS = {
    "collect": collect,
    "fields": fields,
    "values": values,
    "partial": partial,
    "jiter": jiter,
}


def run(name: str, shape: str, pieces: int, read: str) -> None:
    """Print the CPU of one contender, in seconds."""
    made = events(arguments(shape, pieces), pieces)

    async def main() -> float:
        source = body(made, read)
        stream = llm.StreamingCompletion.from_event_source(source, llm.openai("m", api_key="k"))
        async with stream:
            begun = time.process_time()
            await CONTENDERS[name](stream)
            took = time.process_time() - begun
            assert stream.outcome is llm.Outcome.FINISHED
            assert len(stream.response.tool_calls) == 1
            return took

    print(trio.run(main))


def measured(name: str, shape: str, pieces: int, read: str) -> float:
    """Return the CPU of one contender in a process of its own."""
    command = [sys.executable, __file__, "--one", name, shape, str(pieces), read]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def table(rounds: int, pieces: int) -> None:
    print(f"| {pieces:,} pieces, 4 MB | collect | fields | values | partial |")
    print("| --- | --- | --- | --- | --- |")
    for words, shape in SHAPES.items():
        for reads, read in READS.items():
            names = ["collect", "fields", *(["values"] if shape == "list" else []), "partial"]
            taken = [{n: measured(n, shape, pieces, read) for n in names} for _ in range(rounds)]
            cells = [f"{median(t['collect'] for t in taken):.2f} s"]
            for name in ("fields", "values", "partial"):
                ratio = [t[name] / t["collect"] for t in taken if name in t]
                cells.append(f"{median(ratio):.2f} x" if ratio else "")
            print(f"| {words}, {reads} | {' | '.join(cells)} |")


def sizes(rounds: int, pieces: int) -> None:
    print("\n| pieces | fields | jiter again for each piece |\n| --- | --- | --- |")
    for part in (16, 8, 4, 2, 1):
        number = pieces // part
        mine = median(measured("fields", "text", number, "big") for _ in range(rounds))
        theirs = f"{measured('jiter', 'text', number, 'big'):.2f} s" if number <= 25_000 else ""
        print(f"| {number:,} | {mine:.2f} s | {theirs} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pieces", type=int, default=100_000)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, shape, number, read = given.one
        run(name, shape, int(number), read)
    else:
        table(given.rounds, given.pieces)
        sizes(given.rounds, given.pieces)
