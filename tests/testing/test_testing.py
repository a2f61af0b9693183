"""The testing module keeps its own promises, and every provider of ours keeps the contract."""

import itertools

import pytest
import trio
import trio.testing

import trio_minillm as llm
from trio_minillm import providers, testing

OPENAI = [
    b"".join(testing.openai_events("Hel", "lo ", "wörld")),
    b"".join(testing.openai_events("x", finish=None)),
]
ANTHROPIC = [b"".join(testing.anthropic_events("Hel", "lo")), b"".join(testing.anthropic_events())]

PROVIDERS = [
    (providers.OpenAIChat(), OPENAI),
    (providers.OpenRouter(), OPENAI),
    (providers.Anthropic(), ANTHROPIC),
    *((providers.Compatible(server), OPENAI) for server in providers.SERVERS),
]


@pytest.mark.parametrize(
    ("provider", "streams"),
    PROVIDERS,
    ids=lambda p: getattr(p, "server", None) or getattr(p, "name", ""),
)
def test_every_provider_keeps_the_contract(provider, streams):
    testing.check_provider(
        testing.model(provider), streams=streams, errors=[b'{"error": {"message": "x"}}']
    )


class Lines(llm.Provider):
    """A wire of plain text: one event a piece, an event ``END`` at its end."""

    name = "lines"

    def endpoint_url(self, model):
        return f"{model.base_url}/lines"

    def auth_headers(self, model):
        return {"x-key": model.api_key or ""}

    def build_request(self, request):
        return {"say": [m.text for m in request.messages]}

    def parse_chunk(self, data):
        if data == b"END":
            return llm.StreamChunk(end=True, progress=False)
        return llm.StreamChunk(data.decode("utf-8", "replace"))

    def parse_response(self, body):
        return [llm.StreamChunk(body.decode()), llm.StreamChunk(end=True)]


LINES = [
    testing.sse("Hel") + testing.sse("lo") + testing.sse("END"),
    testing.sse("x") + testing.sse("END"),
]


async def test_a_provider_from_outside_works_like_ours():
    testing.check_provider(testing.model(Lines()), streams=LINES)
    transport = testing.ScriptedTransport(testing.reply(*LINES))
    async with llm.open_client(transport=transport) as client:
        response = await client.complete(testing.model(Lines(), api_key="k"), "Hi")
    assert (response.content, response.outcome) == ("Hello", llm.Outcome.FINISHED)
    assert transport.bodies == [{"say": ["Hi"]}]
    assert transport.requests[0].headers["x-key"] == "k"


class Leaky(Lines):
    def build_request(self, request):
        return {**super().build_request(request), "key": request.model.api_key}


class Fickle(Lines):
    count = itertools.count()

    def build_request(self, request):
        return {**super().build_request(request), "n": next(self.count)}


class Deaf(Lines):
    def build_request(self, request):
        return {}


class Nowhere(Lines):
    def endpoint_url(self, model):
        return "/lines"


class Shouting(Lines):
    def auth_headers(self, model):
        return {"X-Key": "k"}


class Fragile(Lines):
    def parse_chunk(self, data):
        return super().parse_chunk(data) if data != b"null" else {}["null"]


class Stateful(Lines):
    seen = 0

    def parse_chunk(self, data):
        type(self).seen += 1
        return llm.StreamChunk(f"{self.seen}") if data != b"END" else super().parse_chunk(data)


class Wordless(Lines):
    def parse_error(self, status, body):
        return llm.ErrorInfo(message="", kind="server")


class Telling(Lines):
    def __repr__(self):
        return "the-key-that-is-nowhere-else"


@pytest.mark.parametrize(
    ("provider", "words"),
    [
        (Leaky(), "header"),
        (Fickle(), "pure"),
        (Deaf(), "messages"),
        (Nowhere(), "URL"),
        (Shouting(), "lower case"),
        (Fragile(), "foreign KeyError"),
        (Stateful(), "split"),
        (Wordless(), "status"),
        (Telling(), "repr"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_a_broken_contract_is_told(provider, words):
    with pytest.raises(AssertionError, match=words):
        testing.check_provider(testing.model(provider), streams=LINES)


def test_a_stream_that_does_not_finish_is_told():
    with pytest.raises(AssertionError, match="does not finish"):
        testing.check_provider(testing.model(Lines()), streams=[testing.sse("Hel")])


async def test_scripts_take_no_real_time(autojump_clock):
    slow = testing.reply(3600.0, *testing.openai_events("late"), wait=10.0)
    transport = testing.ScriptedTransport(slow, testing.reply(testing.hang))
    clocks = llm.Timeouts(first_chunk=None, idle=None, byte_idle=None, total=None)
    async with llm.open_client(transport=transport, timeouts=clocks) as client:
        start = trio.current_time()
        await client.complete(testing.model(), "Hi")
        assert trio.current_time() - start == pytest.approx(3610)
        with trio.move_on_after(100) as scope:
            await client.complete(testing.model(), "Hi")
        assert scope.cancelled_caught
        assert transport.open_bodies == 0


def test_hang_says_its_name():
    assert repr(testing.hang) == "hang"


def test_decode_needs_no_loop():
    response, error = testing.decode(providers.OpenAIChat(), testing.openai_events("a", "b"))
    assert (response.content, error) == ("ab", None)
    half = testing.openai_events("a", finish=None, done=False, usage=False)
    response, error = testing.decode(providers.OpenAIChat(), half)
    assert isinstance(error, llm.EndedEarly)
    assert response.content == "a"
