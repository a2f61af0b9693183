"""Tests of a batch's requests, whose parameters are given by name as in a call."""

import copy
import pickle
from typing import Any

import msgspec
import pytest

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm.batch import BatchRequest
from trio_minillm.testing import ScriptedTransport, openai_events, reply


class City(msgspec.Struct):
    name: str


def test_parameters_by_name_are_kept_in_params() -> None:
    made = BatchRequest("k", "prompt", max_tokens=10, response_format=City, meta=3, samples=[1, 2])
    assert made.params == {"max_tokens": 10, "response_format": City}
    assert (made.key, made.messages, made.meta, made.samples) == ("k", "prompt", 3, (1, 2))
    assert made == BatchRequest(
        "k", "prompt", None, {"max_tokens": 10, "response_format": City}, {}, 3, (1, 2)
    )


def test_both_ways_go_together() -> None:
    wanted = {"seed": 1, "max_tokens": 10}
    assert BatchRequest("k", "p", params={"seed": 1}, max_tokens=10).params == wanted
    assert BatchRequest("k", "p", None, {"seed": 1}, {"x": 1}, max_tokens=10).params == wanted
    assert BatchRequest("k", "p", None, {"seed": 1}, {"x": 1}, max_tokens=10).extra == {"x": 1}


def test_a_mapping_that_was_given_is_left_as_it_is() -> None:
    given = {"seed": 1}
    BatchRequest("k", "p", params=given, max_tokens=10)
    assert given == {"seed": 1}


def test_it_stays_a_plain_value() -> None:
    made = BatchRequest("k", "p", max_tokens=10)
    for again in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert again == made
        assert type(again) is BatchRequest
    assert msgspec.structs.replace(made, key="other").params == {"max_tokens": 10}
    assert BatchRequest.__struct_fields__[:4] == ("key", "messages", "model", "params")
    match made:
        case BatchRequest(key, "p"):
            assert key == "k"
    assert BatchRequest[City]("k", "p", response_format=City).params == {"response_format": City}


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"max_token": 1}, TypeError, r"^unknown parameter: max_token \(did you mean max_tokens\?"),
        ({"metas": 1}, TypeError, r"did you mean meta\?"),
        ({"timeout": 1}, TypeError, "use timeouts="),
        ({"seed": 1, "params": {"seed": 1}}, ValueError, "^seed must not be in params as well$"),
        ({"seed": 1, "params": 3}, TypeError, "params and extra must be mappings"),
        ({"params": None}, TypeError, "params and extra must be mappings"),
    ],
)
def test_what_is_wrong_is_said_at_once(given: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        BatchRequest("k", "p", **given)


def test_a_subclass_has_fields_of_its_own() -> None:
    class Numbered(BatchRequest[Any], frozen=True):
        number: int = 0

    made = Numbered("k", "p", number=3, max_tokens=1)
    assert (made.number, made.params) == (3, {"max_tokens": 1})


async def test_they_are_sent(autojump_clock: Any) -> None:
    transport = ScriptedTransport(reply(*openai_events('{"name": "Rome"}')))
    asked = [BatchRequest("k", "p", temperature=0.5, response_format=City)]
    async with llm.open_client(transport=transport) as client:
        async with client.batch(asked, model=testing.model()) as results:
            (result,) = [result async for result in results]
    assert result.value == City("Rome")
    assert transport.bodies[0]["temperature"] == 0.5
