"""Ask a second time when the first request is late: on a server that is sometimes slow.

python examples/second_model.py
python examples/second_model.py 1.0     # ask later
"""

import sys

import trio

import trio_minillm as llm

QUESTIONS = ["Why is the sea salty?", "Why is the sky blue?", "Why do cats purr?"]


async def main() -> None:
    after = float(sys.argv[1]) if len(sys.argv) > 1 else 0.1
    async with llm.open_local_model(slots=2) as model, llm.open_client() as client:
        twice = llm.first_of(model, model, after=after)  # the same model: a second connection
        for question in QUESTIONS:
            began = trio.current_time()
            async with client.stream(twice, question, max_tokens=16) as stream:
                await stream.next_chunk()
                waited = trio.current_time() - began
                await stream.collect()
            asked = [f"{record.model}: {record.outcome}" for record in stream.records]
            print(f"{waited:.2f} s until the first content; asked {', '.join(asked)}")
    print(f"{client.ledger.attempts} requests for {len(QUESTIONS)} answers")


trio.run(main)
