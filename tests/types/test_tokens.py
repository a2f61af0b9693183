"""Prompts as the ids of their tokens."""

from __future__ import annotations

from typing import Any

import pytest

import trio_minillm as llm
from trio_minillm._types.openai_messages import message_of, messages_of

GIVEN = llm.TokensPart((1, 2, 3))


@pytest.mark.parametrize(
    "given",
    [[1, 2, 3], (1, 2, 3), [{"role": "user", "content": [1, 2, 3]}], llm.user(GIVEN)],
)
def test_a_list_of_numbers_is_one_prompt(given: Any) -> None:
    (message,) = messages_of(given)
    assert (message.role, message.parts) == ("user", (GIVEN,))


@pytest.mark.parametrize(
    ("ids", "error"),
    [
        ((), ValueError),
        ((-1,), ValueError),
        ((True,), TypeError),
        (("1",), TypeError),
        ("12", TypeError),
    ],
)
def test_what_is_no_list_of_tokens(ids: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="token ids"):
        llm.TokensPart(ids)


def test_a_list_that_is_not_all_tokens_is_no_prompt() -> None:
    with pytest.raises(TypeError, match="whole numbers"):
        messages_of([1, "2"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"messages\[0\] is of type int, not a Message"):
        messages_of(iter([1, 2]))
    with pytest.raises(TypeError, match=r"messages\[1\] is of type int, not a Message"):
        messages_of([llm.user("x"), 2])
    with pytest.raises(ValueError, match="not in the shape"):
        message_of({"role": "user", "content": [1, "2"]})


def test_tokens_are_not_shown() -> None:
    assert repr(llm.TokensPart([5, 6])) == "<TokensPart 2 tokens>"  # type: ignore[arg-type]
    assert llm.TokensPart([5, 6]).ids == (5, 6)  # type: ignore[arg-type]
