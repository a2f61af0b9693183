"""Leave a stream as soon as a certain word arrives."""

import trio

import trio_minillm as llm

WORD = " the "


async def main() -> None:
    async with (
        llm.open_local_model() as model,
        llm.open_client() as client,
        client.stream(model, "Tell me a story of the sea.", max_tokens=200) as stream,
    ):
        async for chunk in stream:
            print(chunk.delta, end="", flush=True)
            if WORD in stream.text:
                break
    # The connection is closed, the model has stopped, and the text that arrived is still here.
    print(f"\n\n{stream.outcome} after {len(stream.text)} characters")


trio.run(main)
