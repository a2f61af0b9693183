"""Vendors' batches as a whole, on the virtual clock, against the stand-in for both of them."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from decimal import Decimal

import httpx
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm.batch import (
    BatchRequest,
    Journal,
    ResultFile,
    ResultFileError,
    VendorBatchError,
    read_results,
)

from ..support.streams import CancelAtStep
from ..support.vendor_batches import StandIn, StandInTransport, chat

KEY = "sk-test-0123456789abcdef"
URL = "http://127.0.0.1:9/v1"
PRICE = llm.TokenPrice(
    input=2, output=8, variants=(llm.TokenPrice(input=1, output=4, service_tier="batch"),)
)
COST = Decimal("0.003")  # 1,000 tokens at 1 USD and 500 at 4 USD a million


def model_of(vendor, **more):
    make = {"openai": llm.openai, "anthropic": llm.anthropic}[vendor]
    return make("m-1", api_key=KEY, **{"base_url": URL, "price": PRICE, **more})


vendors = pytest.mark.parametrize("vendor", ["openai", "anthropic"])


def requests(*prompts, **more):
    return [BatchRequest(f"k-{prompt}", prompt, **more) for prompt in prompts]


class Rig:
    """A run into a file, which can be repeated as the command does."""

    def __init__(self, tmp_path, vendor="openai", **more):
        self.stand_in = StandIn()
        self.model = model_of(vendor, **more)
        self.out = tmp_path / "out.jsonl"
        self.journal = tmp_path / "out.jsonl.batches"
        self.unreturned = {}
        self.ledger = llm.Ledger()

    async def run(self, asked, instrument=None, **options):
        transport = StandInTransport(self.stand_in)
        async with llm.open_client(transport=transport, ledger=self.ledger) as client:
            with ResultFile(self.out, fsync="never") as out:
                left = out.unanswered(asked, model=self.model)
                batch = client.vendor_batch(
                    left, model=self.model, journal=self.journal, **options
                )
                async with batch as results:
                    async for result in results:
                        await out.append(result)
                self.unreturned = {one.key: one.reason for one in batch.unreturned}
        return batch.statistics()

    def lines(self):
        return {line.key: line for line in read_results(self.out)}

    def keys(self):
        return Counter(line.key for line in read_results(self.out))


@pytest.fixture
def rig(tmp_path, request):
    return Rig(tmp_path)


@vendors
async def test_each_request_comes_back_as_a_line(tmp_path, vendor, autojump_clock):
    rig = Rig(tmp_path, vendor)
    stats = await rig.run(requests("a", "b", "c"))
    lines = rig.lines()
    assert {key: line.content for key, line in lines.items()} == {
        f"k-{p}": f"to {p}" for p in "abc"
    }
    line = lines["k-a"]
    assert line.ok
    assert line.cost == {"amount": "0.003", "resolution": "resolved", "source": "price"}
    assert line.usage["service_tier"] == "batch"
    assert line.timings is None
    assert len(line.attempts) == 1
    assert rig.ledger.totals.cost == 3 * COST
    assert (stats.parts, stats.submitted, stats.results) == (1, 3, 3)
    assert stats.at_vendor == ()
    steps = Counter(rig.stand_in.calls)
    assert steps == Counter({"upload": vendor == "openai", "create": 1, "look": 2, "results": 1})
