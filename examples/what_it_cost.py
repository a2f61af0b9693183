"""Add up what each user's questions cost; in a file, the sums continue with the next run.

python examples/what_it_cost.py
python examples/what_it_cost.py costs.jsonl
"""

import sys
from decimal import Decimal

import trio

import trio_minillm as llm

QUESTIONS = [
    ("ann", "Why is the sea salty?"),
    ("bob", "Why is the sky blue?"),
    ("ann", "Why do cats purr?"),
]
# A local model costs nothing, so this price is made up.
PRICE = llm.TokenPrice(input=Decimal("0.05"), output=Decimal("0.40"))


async def on_cost(record: llm.CostRecord) -> None:
    print(f"{record.meta['user']}: {record.outcome}, {record.amount} USD ({record.resolution})")


async def main() -> None:
    ledger = llm.JSONLLedger(sys.argv[1]) if len(sys.argv) > 1 else llm.Ledger()
    async with (
        llm.open_local_model() as model,
        llm.open_client(on_cost=on_cost, ledger=ledger) as client,
    ):
        for user, question in QUESTIONS:
            await client.complete(model, question, max_tokens=16, price=PRICE, meta={"user": user})
        async with client.stream(model, "Tell me a story.", meta={"user": "bob"}) as stream:
            await stream.next_chunk()  # left before the end, so this server never sends the usage
    for user, totals in ledger.by_meta("user").items():
        print(f"{user}: {totals.attempts} attempts, {totals.total} USD")
    unknown = ledger.resolutions.get(llm.CostResolution.UNKNOWN, 0)
    print(f"{ledger.total} USD in all; attempts of unknown cost: {unknown}")


trio.run(main)
