"""Show what a waiting stream holds in memory, by room of the library.

``python benchmarks/held_memory.py [--streams N]``. So many streams have their first piece of text and
wait for more, each iterated by a task of its own. Bytes are those that Python's allocator has given out
(`tracemalloc`), counted for the file that asked for them; a coroutine's frame counts for its function.
The sockets' buffers, which the kernel holds, are not in it.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tracemalloc
from collections import Counter

import bench
from request_profile import PROMPT, room_of


async def held(url: str, count: int) -> tuple[Counter[str], int]:
    """Return the bytes by room of so many streams, and those in all."""
    import trio

    import trio_minillm as llm

    by_room: Counter[str] = Counter()
    async with llm.open_client() as client:
        hold, short = (
            llm.openai(name, base_url=f"{url}/v1", api_key="none") for name in ("hold", "short")
        )
        for _ in range(10):  # whatever is made once is made now
            await client.complete(short, PROMPT)
            async with client.stream(short, PROMPT) as stream:
                await stream.collect()
        opened, all_open = 0, trio.Event()

        async def wait() -> None:
            nonlocal opened
            async with client.stream(hold, PROMPT) as stream:
                async for _ in stream:
                    opened += 1
                    if opened == count:
                        all_open.set()

        gc.collect()
        tracemalloc.start()
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(wait)
            await all_open.wait()
            await trio.sleep(0.1)
            gc.collect()
            for found in tracemalloc.take_snapshot().statistics("filename"):
                name = found.traceback[0].filename
                generated = "trio" if "<attrs generated methods trio" in name else ""
                by_room[room_of(name) or generated or "other"] += found.size
            tracemalloc.stop()
            nursery.cancel_scope.cancel()
    return by_room, by_room.total()


def main() -> None:
    import trio

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--streams", type=int, default=500, metavar="N", help="(default: 500)")
    count = parser.parse_args().streams
    _, its = bench.cores() or (None, None)
    with bench.replay_server(its) as urls:
        by_room, total = trio.run(held, urls["many"], count)
    print(f"<!-- Python {sys.version.split()[0]}, {count} streams -->")
    print("| room | KiB per stream |\n| --- | --- |")
    for room, size in by_room.most_common():
        print(f"| `{room}` | {size / count / 1024:.2f} |")
    print(f"| all | {total / count / 1024:.1f} |")


if __name__ == "__main__":
    main()
