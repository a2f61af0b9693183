"""Ask many questions concurrently, a few at a time. (For other models, see stream.py.)"""

import trio

import trio_minillm as llm

QUESTIONS = [
    "Why is the sea salty?",
    "Why is the sky blue?",
    "Why do cats purr?",
    "Why is snow white?",
    "Why do leaves fall?",
    "Why is gold yellow?",
]
AT_ONCE = 3


async def main() -> None:
    limit = trio.CapacityLimiter(AT_ONCE)

    async def ask(question: str) -> None:
        async with limit:
            try:
                response = await client.complete(model, question, max_tokens=16)
            except llm.MiniLLMError as error:  # one failure does not stop the others
                print(f"{question} failed: {error}")
            else:
                first = response.timings.first_chunk or 0.0
                print(f"{question} {response.text!r} (first chunk after {first:.2f} s)")

    async with (
        llm.open_local_model(slots=AT_ONCE) as model,
        llm.open_client() as client,
        trio.open_nursery() as nursery,
    ):
        for question in QUESTIONS:
            nursery.start_soon(ask, question)


trio.run(main)
