"""What tells functions for keys apart."""

from __future__ import annotations

from trio_minillm._types.credentials import identity_of


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self) -> str:
        return "k"


def test_functions_are_told_apart_also_if_they_have_no_hash() -> None:
    one, other = Unhashable(), Unhashable()
    assert identity_of(one) == identity_of(one) != identity_of(other)
    assert identity_of(one.__call__) == identity_of(one.__call__)
