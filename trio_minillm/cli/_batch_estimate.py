"""The estimate of a dry run: what the requests are likely to take, and at most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

import trio_minillm as llm
from trio_minillm.batch import BatchRequest, read_results

from .._accounting.estimate import CountTokens
from .._accounting.tokenizers import counter, encoding_at_hand
from .._batch.throttle.token_estimate import USUAL_OUTPUT
from .._protocol.request import body_of, make_request
from .._types.money import add, scaled, times
from .._types.openai_messages import messages_of
from ..local._tokens import CountPrompt, prompt_counter
from ..providers import Model
from ..providers._base import host_of
from ..providers._pricing import rates_at
from ._output import Row, many, usd

MAX_READ = 1_000
"""Lines of an output that the usual length of an answer is taken from."""


class Estimate(msgspec.Struct):
    """Sums over the requests: likely ones, and upper bounds for those that have a bound.

    Its 16 attributes are all that the closing lines are made of.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    amount: Decimal = Decimal(0)
    """USD."""
    likely_input: int = 0
    likely_output: int = 0
    likely_amount: Decimal = Decimal(0)
    uncounted: int = 0
    """Answers to requests with media whose likely length is not known."""
    endless_input: int = 0
    """Answers without a bound on the tokens of their input."""
    endless_output: int = 0
    unbounded: int = 0
    """Answers without a bound on the one or the other."""
    unpriced: int = 0
    """Answers without a bound on their cost."""
    unpriced_key: str = ""
    """Key of the first request that has none."""
    counted_by: Counter[str] = msgspec.field(default_factory=Counter)
    """Answers by the way in which the text of their requests was counted."""
    usual_output: int = USUAL_OUTPUT
    longest: int = 0
    """Likely tokens of the longest answer: the usual ones, unless all requests allow fewer."""
    answers: int = 0
    """Answers in the output that the usual length is the mean of; without any it is a guess."""
    count: CountPrompt | None = None
    """Exact count of a prompt by the server that is to answer."""

    @contextmanager
    def prepared(
        self, model: llm.Model, target: Path | None, *, local: bool, on: bool
    ) -> Iterator[None]:
        """Look for a local model's tokenizer and for earlier answers, and use them in the block; do
        nothing unless the estimate is ``on``.
        """
        if on and target is not None:
            self._learn(target)
        if not (on and local):
            yield
            return
        with prompt_counter(model) as self.count:
            yield
        self.count = None

    def _learn(self, target: Path) -> None:
        """Take the usual length of an answer from those that are there."""
        with suppress(OSError):
            lines = islice(read_results(target), MAX_READ)
            found = [(line.usage or {}).get("completion_tokens") for line in lines if line.ok]
            known = [n for n in found if type(n) is int]
            if known:
                self.usual_output, self.answers = round(sum(known) / len(known)), len(known)

    def add(self, request: BatchRequest, answers: int) -> None:
        """Add a request that is to be sent for so many answers."""
        model = request.model
        assert model is not None
        name, count = _tokenizer(host_of(model.base_url), model.name)
        found = llm.estimate(
            model, request.messages, extra=request.extra, count_tokens=count, **request.params
        )
        likely, most = found.likely_input_tokens, found.input_tokens
        exact = None if self.count is None else self.count(_body(model, request))
        if exact is not None:
            likely = most = exact
            name = "the model's own tokenizer"
        self.counted_by[name] += answers
        likely_out = self.usual_output
        if found.output_tokens is not None:
            likely_out = min(likely_out, found.output_tokens)
        self.longest = max(self.longest, likely_out)
        self.uncounted += answers * (likely is None)
        self.likely_input += (likely or 0) * answers
        self.likely_output += likely_out * answers
        self.likely_amount = add(
            self.likely_amount, times(answers, _amount(model.price, likely or 0, likely_out))
        )
        self.input_tokens += (most or 0) * answers
        self.output_tokens += (found.output_tokens or 0) * answers
        self.amount = add(self.amount, times(answers, found.amount or Decimal(0)))
        self.endless_input += answers * (most is None)
        self.endless_output += answers * (found.output_tokens is None)
        self.unbounded += answers * (most is None or found.output_tokens is None)
        if found.amount is None:
            self.unpriced += answers
            self.unpriced_key = self.unpriced_key or request.key

    @property
    def ratios(self) -> dict[str, float | None]:
        """The bounds as multiples of what is likely, where all requests have one."""

        def ratio(most: Any, likely: Any, without: int) -> float | None:
            return float(most / likely) if likely and not without else None

        return {
            "input_tokens": ratio(
                self.input_tokens, self.likely_input, self.endless_input + self.uncounted
            ),
            "output_tokens": ratio(self.output_tokens, self.likely_output, self.endless_output),
            "amount": ratio(self.amount, self.likely_amount, self.unpriced),
        }

    def rows(self, answers: int, noun: str) -> list[Row]:
        """Return the lines about so many answers, each to a ``noun``: a request, or a sample of one."""
        if not answers:
            return []
        length = f"answers of {self.usual_output:,} tokens at most, which is a guess"
        if self.answers:
            length = f"answers of {self.usual_output:,} tokens, as {self.answers:,} in the output"
        if self.longest < self.usual_output:
            length = f"answers of {self.longest:,} tokens, the most that max_tokens allows"
        by = " and ".join(self.counted_by)
        cost = f" · ${usd(self.likely_amount)}" if self.likely_amount else ""
        likely = f"{self.likely_input:,} in · {self.likely_output:,} out{cost}"
        media = f"; {many(self.uncounted, noun)} with media not counted" * bool(self.uncounted)
        rows = [("likely", f"{likely} (input by {by}; {length}{media})")]
        least = f" (and {many(self.unbounded, noun)} without a bound)" if self.unbounded else ""
        tokens = f"at most {self.input_tokens:,} in · {self.output_tokens:,} out{least}"
        rows.append(("tokens", tokens))
        if self.unpriced < answers:
            first = f"the first is {self.unpriced_key!r}"
            more = f" (and {many(self.unpriced, noun)} without a bound or a price: {first})"
            rows.append(("cost", f"at most ${usd(self.amount)}{more if self.unpriced else ''}"))
        else:
            lacks = "bound (--max-tokens)" if self.unbounded == answers else "price (--price)"
            rows.append(("cost", f"unknown: no request has a {lacks}"))
        names = {"input_tokens": "in", "output_tokens": "out", "amount": "the cost"}
        times_ = [f"{r:,.1f} times {names[k]}" for k, r in self.ratios.items() if r is not None]
        if times_:
            rows.append(("bounds", f"{' · '.join(times_)}, of what is likely"))
        return rows

    def fields(self) -> dict[str, Any]:
        """Return the estimate for ``--summary json``."""
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "amount": f"{self.amount:f}",
            "without_bound": self.unbounded,
            "without_amount": self.unpriced,
            "first_without": self.unpriced_key or None,
            "likely": {
                "input_tokens": self.likely_input,
                "output_tokens": self.likely_output,
                "amount": f"{self.likely_amount:f}",
                "counted_by": list(self.counted_by),
                "tokens_per_answer": self.usual_output,
                "from_answers": self.answers,
                "uncounted": self.uncounted,
            },
            "bound_over_likely": self.ratios,
        }


@lru_cache(maxsize=64)
def _tokenizer(host: str, name: str) -> tuple[str, CountTokens | None]:
    """Return what counts a model's text: its name, and a function if there is one on this machine."""
    encoding = None
    if host == "api.openai.com" or (host == "openrouter.ai" and name.startswith("openai/")):
        encoding = encoding_at_hand(name.rpartition("/")[2])
    if encoding is None:
        return "4 characters a token", None
    return encoding, counter(encoding, name)


def _body(model: Model, request: BatchRequest) -> dict[str, Any]:
    asked = messages_of(request.messages)
    return body_of(make_request(model, asked, request.params, extra=request.extra))


def _amount(price: llm.TokenPrice | None, tokens: int, output: int) -> Decimal:
    """Return the USD of so many tokens at the usual rates; 0 without a price."""
    if price is None:
        return Decimal(0)
    rates = rates_at(price, tokens)
    return scaled(add(times(tokens, rates["input"]), times(output, rates["output"])), -6)
