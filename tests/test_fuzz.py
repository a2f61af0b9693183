"""A short run of the fuzz targets, without atheris: a few thousand inputs, always the same.

``python -m nox -s fuzz`` runs a million, guided by coverage.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from trio_minillm._protocol import builders, choice
from trio_minillm._protocol import sse as _sse
from trio_minillm._stream.buffer import NO_CHUNKS

from .fuzz import mutate, targets

INPUTS = {"answer": 1200, "http": 1500, "refusal": 1500, "request": 1500}


FOUND = {
    "blanks before JSON, cut behind them": (
        "answer",
        b"\6\0\0\0\0\xad+\xad\n{\0\n\0\0\xa9\xb6\x9a",
    ),
    "a mark behind blanks is none": ("answer", b"\4\0\1\0\1\0\1\0\n\xef\xbb\xbf{}"),
    "a blank that JSON does not know": ("answer", b"\4\0\1\0\1\0\1\0\x0b{}"),
    "a key beside bad UTF-8": ("answer", b'\4\0\0\0\0\0\0\0{"message":"sk-fuzz-0123456789\xa1"}'),
}
"""Inputs that once showed a fault."""


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_once(name: str) -> None:
    target, data = FOUND[name]
    targets.TARGETS[target](data)


@pytest.mark.parametrize("target", targets.TARGETS)
def test_the_targets_hold(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sse, "QUICK_BYTES", targets.HELD)
    rng = random.Random(target)
    check, corpus = targets.TARGETS[target], list(mutate.seeds(target))
    for seed in corpus:
        check(seed)
        for _ in range(8 if target in ("answer", "http") else 0):  # as it is, but cut elsewhere
            check(seed[:1] + rng.randbytes(targets.HEAD - 1) + seed[targets.HEAD :])
    for number in range(INPUTS[target]):
        data = mutate.mutated(target, rng.choice(corpus), rng)
        corpus[rng.randrange(len(corpus))] = data if number % 3 else rng.choice(corpus)
        try:
            check(data)
        except Exception as exc:
            raise AssertionError(f"{target} {data!r}") from exc
    assert not list(shared_contents())


def shared_contents() -> Iterator[object]:
    """Yield what is in the containers that all streams share since they are empty."""
    extras, additions = choice._NO_EXTRAS, builders._NOTHING
    yield from (*choice._NO_PARTS, *builders._NO_BLOCKS, *_sse._NO_BYTES, *NO_CHUNKS)
    yield from (*additions.citations, *additions.signature, *additions.details)
    yield from (*extras.annotations, *extras.logprobs, *extras.audio, *extras.images)
