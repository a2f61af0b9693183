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
TEXT = [
    b"".join(testing.text_events("Hel", "lo ", "wörld")),
    b"".join(testing.text_events("x", finish=None)),
]
GEMINI = [
    b"".join(testing.gemini_events("Hel", "lo", "!")),
    b"".join(testing.gemini_events(usage=False)),
    b"[%b]" % b",\r\n".join(event[6:] for event in testing.gemini_events("Hel", "lo")),
]

PROVIDERS = [
    (providers.OpenAIChat(), OPENAI),
    (providers.OpenRouter(), OPENAI),
    (providers.Anthropic(), ANTHROPIC),
    (providers.OpenAIResponses(), [b"".join(testing.responses_events("Hel", "lo"))]),
    (providers.Gemini(), GEMINI),
    (providers.TextCompletions(), TEXT),
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


# -- misuse --------------------------------------------------------------------------------------


async def said(*replies):
    async with llm.open_client(transport=testing.ScriptedTransport(*replies)) as client:
        return await client.complete(testing.model(), "Hi", retry=llm.Retry(attempts=1))


async def test_a_fault_is_applied_to_an_answer(autojump_clock):
    whole = testing.answer("a", "b")
    assert (await said(whole | testing.faults.without_usage())).usage is None
    with pytest.raises(llm.StreamTruncated):
        await said(whole | testing.faults.merge() | testing.faults.cut(-200))
    with pytest.raises(TypeError, match=r"after \| must be a fault"):
        await said(whole | testing.faults.cut)


async def test_a_function_may_return_an_answer():
    assert (await said(lambda _: testing.answer("a"))).content == "a"
    for wrong in (None, b"x", testing.reply):
        with pytest.raises(TypeError, match="the reply of a function must be Reply, not"):
            await said(lambda _, wrong=wrong: wrong)


@pytest.mark.parametrize("wrong", [5, testing.faults.cut])
def test_what_is_no_fault_is_told(wrong):
    with pytest.raises(TypeError, match=r"after \| must be a fault, as in"):
        testing.reply() | wrong


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: testing.reply("text"), "a step is .*, not str: encode it"),
        (lambda: testing.reply([b"x"]), r"not list: give its items, as in reply\(\*events\)"),
        (lambda: testing.reply(True), "a step is .*, not bool"),
        (lambda: testing.Reply(steps=b"x"), "steps must be a tuple of steps, not bytes"),
        (lambda: testing.reply(b"x", status="200"), "status must be int, not str"),
        (lambda: testing.json_reply({}, status="200"), "status must be int, not str"),
        (lambda: testing.reply(b"x", headers=[]), "headers must be Mapping, not list"),
        (lambda: testing.reply(b"x", wait="1"), "wait must be float or int or"),
        (
            lambda: testing.answer(5),
            "a part of an answer must be str or ReasoningPart or ToolCall, not int",
        ),
        (lambda: testing.ScriptedTransport("hi"), "a reply must be Reply or a function"),
        (lambda: testing.ScriptedTransport(settlements="hi"), "must be a list, not str"),
        (lambda: testing.model("anthropic"), "provider must be Provider, not str"),
    ],
)
def test_a_script_of_other_types_is_told(make, words):
    with pytest.raises(TypeError, match=words):
        make()


@pytest.mark.parametrize("wrong", ["hi", b"hi", testing.reply(), 5])
def test_replies_are_a_list(wrong):
    with pytest.raises(TypeError, match="replies must be a list, not"):
        testing.ScriptedTransport().replies = wrong


@pytest.mark.parametrize(
    "make",
    [
        lambda: testing.faults.cut(5, "bang"),
        lambda: testing.reply() | testing.faults.framing("bang"),
    ],
)
def test_a_fault_that_is_unknown_is_told(make):
    with pytest.raises(ValueError, match="must be one of"):
        make()
