"""Claude at other clouds: the address, the key, the body, and whose thinking goes where."""

from __future__ import annotations

import pytest

import trio_minillm as llm
from trio_minillm import ReasoningPart
from trio_minillm._protocol.request import body_of, make_request
from trio_minillm.providers._anthropic_request import VERTEX_VERSION
from trio_minillm.testing import ScriptedTransport, answer

VERTEX = "https://us-east5-aiplatform.googleapis.com/v1/projects/p/locations/us-east5"
GLOBAL = "https://aiplatform.googleapis.com/v1/projects/p/locations/global"
EUROPE = "https://aiplatform.eu.rep.googleapis.com/v1/projects/p/locations/eu"
NAMED = "/publishers/anthropic/models"
RAW = ":streamRawPredict"


@pytest.mark.parametrize(
    ("base", "name", "url"),
    [
        (VERTEX, "claude@1", f"{VERTEX}{NAMED}/claude@1{RAW}"),
        (f"{VERTEX}/", "c", f"{VERTEX}{NAMED}/c{RAW}"),
        (GLOBAL, "c", f"{GLOBAL}{NAMED}/c{RAW}"),
        (EUROPE, "c", f"{EUROPE}{NAMED}/c{RAW}"),
        (f"{VERTEX}/publishers/anthropic", "c", f"{VERTEX}{NAMED}/c{RAW}"),
        (f"{VERTEX}{NAMED}", "c", f"{VERTEX}{NAMED}/c{RAW}"),
        (f"{VERTEX}{NAMED}/d{RAW}", "c", f"{VERTEX}{NAMED}/d{RAW}"),
        (f"{VERTEX}?a=b", "c", f"{VERTEX}{NAMED}/c{RAW}?a=b"),
        (VERTEX, "a b?c/d", f"{VERTEX}{NAMED}/a%20b%3Fc%2Fd{RAW}"),
        (
            "https://bedrock-runtime.us-west-2.amazonaws.com/anthropic",
            "c",
            "https://bedrock-runtime.us-west-2.amazonaws.com/anthropic/v1/messages",
        ),
        (
            "https://bedrock-mantle.us-east-1.api.aws/anthropic/v1/messages",
            "c",
            "https://bedrock-mantle.us-east-1.api.aws/anthropic/v1/messages",
        ),
        (
            "https://not-aiplatform.googleapis.com.example.com",
            "c",
            "https://not-aiplatform.googleapis.com.example.com/v1/messages",
        ),
    ],
)
def test_the_address(base: str, name: str, url: str) -> None:
    model = llm.anthropic(name, base_url=base, api_key="k")
    assert model.provider.endpoint_url(model) == url


@pytest.mark.parametrize("base", [VERTEX, GLOBAL, EUROPE])
@pytest.mark.parametrize("key", ["ya29.x", "another-token", "sk-ant-x"])
def test_vertex_takes_a_token_alone(base: str, key: str) -> None:
    model = llm.anthropic("c", base_url=base, api_key=key)
    headers = model.provider.auth_headers(model)
    assert headers == {"anthropic-version": "2023-06-01", "authorization": f"Bearer {key}"}


async def test_an_answer_of_claude_at_vertex() -> None:
    transport = ScriptedTransport(answer("Sea ", "salty"))
    model = llm.anthropic("claude@1", base_url=VERTEX, api_key="ya29.x")
    async with llm.open_client(transport=transport) as client:
        said = await client.complete(model, "Hi", max_tokens=5)
        async with client.stream(model, "Hi") as stream:
            assert (await stream.collect()).content == "Sea salty"
    assert (said.content, said.outcome) == ("Sea salty", llm.Outcome.FINISHED)
    assert transport.bodies[0] == {
        "anthropic_version": VERTEX_VERSION,
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 5,
        "stream": True,
    }
    assert transport.requests[0].url.path.endswith(f"{NAMED}/claude@1{RAW}")


def test_the_version_in_the_body_can_be_another() -> None:
    model = llm.anthropic("c", base_url=VERTEX, api_key="k", extra={"anthropic_version": "x"})
    assert body_of(make_request(model, (llm.user("Hi"),), {}))["anthropic_version"] == "x"


def test_models_of_one_place_know_each_others_thinking() -> None:
    """The model's name in Vertex AI's address is no other place."""
    first, second = (llm.anthropic(n, base_url=VERTEX, api_key="k") for n in ("a", "b"))
    elsewhere = llm.anthropic("a", base_url=EUROPE, api_key="k")
    wire = first.provider.wire_at(first)
    assert wire == second.provider.wire_at(second) != elsewhere.provider.wire_at(elsewhere)
    thought = ReasoningPart(text="hm", signature="s", wire=wire)
    turns = (llm.user("x"), llm.assistant(thought, "y"), llm.user("z"))
    for model, kinds in ((second, ["thinking", "text"]), (elsewhere, None)):
        content = body_of(make_request(model, turns, {}))["messages"][1]["content"]
        assert content == "y" if kinds is None else [b["type"] for b in content] == kinds
