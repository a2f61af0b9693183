"""Answers that repeat their prompt, parted from it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm


def answer(text: str, *tokens: tuple[str, int | None]) -> llm.Choice:
    entries = [
        {"token": token, "logprob": -1.0, "top_logprobs": [], "text_offset": place}
        for token, place in tokens
    ]
    return llm.Choice(content=text, logprobs={"content": entries} if entries else None)


def parts(found: llm.Echo) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    prompt, completion = (
        [(one["token"], one["text_offset"]) for one in side]
        for side in (found.prompt, found.completion)
    )
    return prompt, completion


@pytest.mark.parametrize(
    ("tokens", "prompt", "completion"),
    [
        # OpenAI's, SGLang's
        ([("a", 0), (" b", 1), (" c", 3)], [("a", 0), (" b", 1)], [(" c", 3)]),
        # vLLM's: the token that begins a document is among them, and counts in the offsets
        (
            [("<s>", 0), ("a", 3), (" b", 4), (" c", 6)],
            [("<s>", -3), ("a", 0), (" b", 1)],
            [(" c", 3)],
        ),
        # Without offsets
        ([("a", None), (" b", None), (" c", None)], [("a", 0), (" b", 1)], [(" c", 3)]),
        ([], [], []),
    ],
)
def test_the_prompt_is_parted_from_the_answer(tokens: Any, prompt: Any, completion: Any) -> None:
    found = llm.split_echo(answer("a b c", *tokens), "a b")
    assert (found.text, *parts(found)) == (" c", prompt, completion)
    assert repr(found) == f"<Echo {len(prompt)} + {len(completion)} tokens>"


def test_a_beginning_that_the_tokens_leave_out() -> None:
    """llama-cpp-python's: it is in the text, and its offsets are those of what is left."""
    given = answer("<s>a b c", ("a", 0), (" b", 1), (" c", 3))
    found = llm.split_echo(given, "<s>a b")
    assert (found.text, *parts(found)) == (" c", [("a", 3), (" b", 4)], [(" c", 6)])


def test_characters_that_take_several_tokens() -> None:
    """Their tokens are no text: the offsets count, with or without a token in front."""
    tokens = [("é", 0), ("\ufffd", 1), ("\ufffd", 1), ("x", 2), ("y", 3)]
    found = llm.split_echo(answer("é€xy", *tokens), "é€x")
    assert parts(found) == (tokens[:4], tokens[4:])
    shifted = [("<s>", 0), *((token, place + 3) for token, place in tokens)]
    found = llm.split_echo(answer("é€xy", *shifted), "é€x")
    assert parts(found) == ([("<s>", -3), *tokens[:4]], tokens[4:])


def test_generated_tokens_that_a_stop_sequence_has_cut() -> None:
    found = llm.split_echo(answer("a b", ("a", 0), (" b", 1), ("\n\n", 3)), "a b")
    assert (found.text, *parts(found)) == ("", [("a", 0), (" b", 1)], [("\n\n", 3)])


@pytest.mark.parametrize(
    "given",
    [
        answer("a b c", ("x", 0), ("y", 1)),
        answer("a b c", ("a", None), ("c", 4)),
        answer("a b c", ("a", 1), (" b", 0), ("c", 4)),
    ],
)
def test_tokens_that_do_not_add_up(given: llm.Choice) -> None:
    with pytest.raises(ValueError, match="do not add up"):
        llm.split_echo(given, "a b")


def test_an_answer_without_an_echo() -> None:
    with pytest.raises(ValueError, match="gave no echo") as caught:
        llm.split_echo(answer(" c"), "a secret")
    assert "secret" not in str(caught.value)
    with pytest.raises(TypeError, match="prompt must be str"):
        llm.split_echo(answer(" c"), [1])  # type: ignore[arg-type]


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)


@given(st.lists(texts, min_size=1, max_size=8), st.data(), st.booleans())
def test_any_tokens_are_parted_where_the_prompt_ends(
    tokens: list[str], data: st.DataObject, begins: bool
) -> None:
    cut = data.draw(st.integers(0, len(tokens)))
    prompt, whole = "".join(tokens[:cut]), "".join(tokens)
    given = [*(["<s>"] if begins else []), *tokens]
    places = [len("".join(given[:n])) for n in range(len(given))]
    found = llm.split_echo(answer(whole, *zip(given, places, strict=True)), prompt)
    assert found.text == whole[len(prompt) :]
    assert "".join(one["token"] for one in found.completion) == found.text
    assert "".join(one["token"] for one in found.prompt).endswith(prompt)
