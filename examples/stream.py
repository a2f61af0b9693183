"""Stream one answer from a local model, or from the model named on the command line.

python examples/stream.py
python examples/stream.py openrouter:anthropic/claude-haiku-4.5
"""

import sys
from contextlib import AbstractAsyncContextManager, nullcontext

import trio

import trio_minillm as llm

MAKERS = {"openrouter": llm.openrouter, "openai": llm.openai, "anthropic": llm.anthropic}


def chosen() -> AbstractAsyncContextManager[llm.Model]:
    if len(sys.argv) == 1:
        return llm.open_local_model()
    kind, _, name = sys.argv[1].partition(":")
    return nullcontext(MAKERS[kind](name))


async def main() -> None:
    async with (
        chosen() as model,
        llm.open_client() as client,
        client.stream(model, "Why is the sea salty?", max_tokens=80) as stream,
    ):
        async for chunk in stream:
            print(chunk.delta, end="", flush=True)
    usage = stream.usage
    tokens = usage.completion_tokens if usage else "unknown"
    print(f"\n\n{stream.outcome} ({stream.finish_reason}), tokens: {tokens}")


trio.run(main)
