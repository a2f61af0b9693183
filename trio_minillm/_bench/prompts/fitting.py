"""The tokens of made prompts, as the model's tokenizer or its server counts them.

A local model's server counts without generating anything, and tiktoken counts for models whose encoding
is on this machine. Otherwise two short requests are sent: what the usage of their answers says of two
lengths gives the tokens of a word, and those of the template.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import trio

from ..._accounting.tokenizers import counter, encoding_at_hand
from ..._client import Client
from ..._protocol.request import body_of, make_request
from ..._types.messages import assistant, user
from ..._types.openai_messages import messages_of
from ..._types.options import Retry
from ...local._tokens import prompt_counter
from ...providers import Model
from ...providers._base import host_of
from ..plan import Plan
from .collected import Collected
from .prompt import next_turn
from .synthetic import Count, Fit, Synthetic, fresh_words, make_prompts

FEW, MANY = 64, 512
"""Words of the two texts that are counted."""
PROBE_TOKENS = 16
"""Most tokens of a probe's answer: the least that every server takes."""
PROBE = "probe"
"""Phase of the probes in a ledger."""
_CHAT_AROUND = 7
"""Tokens around a single user message in OpenAI's chat format, by its cookbook."""


async def made_for(
    wanted: Synthetic,
    client: Client,
    model: Model,
    plan: Plan,
    *,
    local: bool,
    second: Model | None = None,
) -> tuple[Collected, Fit]:
    """Return prompts of the wanted lengths for this model, and how they were measured.

    Raises what a request to the server raises; and, before anything is sent, ``ValueError`` or
    ``TypeError`` for parameters that its wire format, or that of a ``second`` model, does not have.
    """
    for one in (model, second):
        if one is not None:
            _check(wanted, one, plan)
    if local:
        return await trio.to_thread.run_sync(
            _made_locally, wanted, model, plan, abandon_on_cancel=True
        )
    encoding = encoding_at_hand(model.name)
    plain = plan.system is None and "response_format" not in plan.params
    if encoding is not None and plain and host_of(model.base_url) == "api.openai.com":
        count = counter(encoding, model.name)
        fit = fit_of(lambda text: count(text) + _CHAT_AROUND, f"counted by tiktoken ({encoding})")
    else:
        fit = await _probed(client, model, plan)
    made = await trio.to_thread.run_sync(make_prompts, wanted, fit, abandon_on_cancel=True)
    return made, fit


def _check(wanted: Synthetic, model: Model, plan: Plan) -> None:
    """Raise ``ValueError`` or ``TypeError`` if a prompt, or its second turn, can't be sent to a model."""
    sample = msgspec.structs.replace(wanted, count=1, shapes=wanted.shapes[:1])
    before = () if plan.system is None else (plan.system,)
    for prompt in make_prompts(sample, Fit(how="not counted")).prompts:
        for asked in (prompt, next_turn(prompt, assistant("-"))):
            if asked is not None:
                params = {**plan.params, **asked.params}
                body_of(make_request(model, (*before, *messages_of(asked.messages)), params))


def fit_of(count: Count, how: str) -> Fit:
    """Return the fit to a function that counts. It counts each prompt, too."""
    few, many = count(_words(FEW)), count(_words(MANY))
    return _line(few, many, how, count)


def _line(few: int | None, many: int | None, how: str, count: Count | None = None) -> Fit:
    """Return the line through two counts; a word is a token where there is none."""
    if few is None or many is None:
        return Fit(
            how="not counted: the server reports no prompt tokens, so a word counts as a token"
        )
    if many <= few:
        return Fit(
            how="not counted: the server's counts do not grow with the prompt, so a word counts as a token"
        )
    each = (many - few) / (MANY - FEW)
    return Fit(each=each, around=few - each * FEW, how=how, count=count)


def _words(count: int) -> str:
    """Return a text that no server has in its cache."""
    return " ".join(fresh_words(random.Random(count), count))


def _made_locally(wanted: Synthetic, model: Model, plan: Plan) -> tuple[Collected, Fit]:
    with _local_count(model, plan) as count:
        fit = fit_of(count, "counted by the model's server")
        return make_prompts(wanted, fit), fit


@contextmanager
def _local_count(model: Model, plan: Plan) -> Iterator[Count]:
    before = () if plan.system is None else (plan.system,)
    with prompt_counter(model) as counted:

        def count(text: str) -> int | None:
            request = make_request(model, (*before, user(text)), plan.params)
            return counted(body_of(request))

        yield count


async def _probed(client: Client, model: Model, plan: Plan) -> Fit:
    """Return the fit to the usage of two short answers."""
    found: list[int | None] = []
    params: dict[str, Any] = dict(plan.params)
    if "min_tokens" not in model.extra:
        params["max_tokens"] = min(PROBE_TOKENS, params.get("max_tokens") or PROBE_TOKENS)
    for words in (FEW, MANY):
        before = [] if plan.system is None else [plan.system]
        stream = client.stream(
            model,
            [*before, user(_words(words))],
            timeouts=plan.timeouts,
            retry=Retry(attempts=max(plan.attempts, 3)),
            meta={"bench": PROBE},
            **params,
        )
        async with stream:
            response = await stream.collect()
        usage = response.usage
        found.append(None if usage is None else usage.prompt_tokens)
    few, many = found
    return _line(few, many, "estimated from the usage of two short requests")


def described(wanted: Synthetic, fit: Fit) -> dict[str, Any]:
    """Return the lengths and the fit for a result."""
    return {
        "input_tokens": "as given" if wanted.tokens is None else wanted.tokens.text,
        "prefix_share": wanted.prefix_share,
        "counted": fit.how,
        "tokens_per_word": round(fit.each, 4),
        "template_tokens": round(fit.around, 2),
    }


__all__ = ["PROBE", "described", "fit_of", "made_for"]
