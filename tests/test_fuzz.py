"""A short run of the fuzz targets, without atheris: a few thousand inputs, always the same.

``python -m nox -s fuzz`` runs a million, guided by coverage.
"""

from __future__ import annotations

import random

import pytest

from .fuzz import mutate, targets

INPUTS = {"answer": 1200, "http": 1500, "refusal": 1500, "request": 1500}


@pytest.mark.parametrize("target", targets.TARGETS)
def test_the_targets_hold(target: str) -> None:
    rng = random.Random(target)
    check, corpus = targets.TARGETS[target], list(mutate.seeds(target))
    for seed in corpus:
        check(seed)
    for number in range(INPUTS[target]):
        data = mutate.mutated(target, rng.choice(corpus), rng)
        corpus[rng.randrange(len(corpus))] = data if number % 3 else rng.choice(corpus)
        try:
            check(data)
        except Exception as exc:
            raise AssertionError(f"{target} {data!r}") from exc
