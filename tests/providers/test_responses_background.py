"""The way back to a response in the background."""

from __future__ import annotations

from typing import Any

import pytest

import trio_minillm as llm
from trio_minillm._protocol.request import body_of, make_request
from trio_minillm._types.openai_messages import messages_of
from trio_minillm.providers import FollowUp
from trio_minillm.providers._base import Continuation, RepeatFilter
from trio_minillm.providers._responses_background import (
    LONGEST_ID,
    LONGEST_NUMBER,
    BackgroundResponse,
)

URL = "https://api.openai.com/v1/responses"


def request(base_url: str | None = None, **params: Any) -> Any:
    model = llm.openai_responses("m", api_key="k", base_url=base_url)
    return make_request(model, messages_of("Hi"), params)


def test_only_a_response_in_the_background_has_one() -> None:
    asked = request(background=True)
    assert asked.model.provider.continuation(request()) is None
    found = asked.model.provider.continuation(asked)
    assert isinstance(found, BackgroundResponse)
    assert body_of(asked)["background"] is True


def test_it_needs_to_be_stored() -> None:
    with pytest.raises(ValueError, match="needs store"):
        body_of(request(background=True, store=False))


@pytest.mark.parametrize(
    ("options", "query"),
    [
        ({}, "stream=true&starting_after=7"),
        (
            {"include": ["a.b", "c&d"]},
            "stream=true&starting_after=7&include%5B%5D=a.b&include%5B%5D=c%26d",
        ),
        ({"obfuscated": False}, "stream=true&starting_after=7&include_obfuscation=false"),
        ({"obfuscated": True}, "stream=true&starting_after=7&include_obfuscation=true"),
    ],
)
def test_the_request_for_what_follows(options: Any, query: str) -> None:
    background = BackgroundResponse(URL, **options)
    assert background.resume_request("resp_1", 7) == FollowUp(url=f"{URL}/resp_1?{query}")


def test_the_request_that_ends_it() -> None:
    plain, azure = BackgroundResponse(URL), BackgroundResponse(f"{URL}?api-version=v1")
    assert plain.cancel_request("r") == FollowUp(url=f"{URL}/r/cancel", method="POST")
    assert azure.cancel_request("r") == FollowUp(
        url=f"{URL}/r/cancel?api-version=v1", method="POST"
    )
    found = azure.resume_request("r", 0)
    assert found is not None
    assert found.url.endswith("/r?stream=true&starting_after=0&api-version=v1")


@pytest.mark.parametrize("ident", ["", ".", "..", "x" * (LONGEST_ID + 1)])
def test_an_id_that_leads_elsewhere_is_not_asked_for(ident: str) -> None:
    background = BackgroundResponse(URL)
    assert background.resume_request(ident, 1) is None
    assert background.cancel_request(ident) is None


def test_an_id_is_one_part_of_the_path() -> None:
    found = BackgroundResponse(URL).cancel_request("../a?b#c")
    assert found is not None
    assert found.url == f"{URL}/..%2Fa%3Fb%23c/cancel"


@pytest.mark.parametrize(
    ("data", "position"),
    [
        (b'{"sequence_number": 7}', 7),
        (b'{"sequence_number": 0}', 0),
        (b'{"sequence_number": 7, "delta": "\\ud83d"}', 7),
        (b'{"sequence_number": "7"}', 7),
        (b'{"sequence_number": -1}', None),
        (b'{"sequence_number": null}', None),
        (b'{"sequence_number": %d}' % LONGEST_NUMBER, LONGEST_NUMBER),
        (b"{}", None),
        (b"[DONE]", None),
        (b"[]", None),
        (b"\xff", None),
    ],
)
def test_the_number_of_an_event(data: bytes, position: int | None) -> None:
    assert BackgroundResponse(URL).position_in(data) == position


def test_what_a_wire_of_ones_own_need_not_have() -> None:
    assert Continuation().cancel_request("r") is None
    assert RepeatFilter().known(llm.StreamChunk("a")) is False
