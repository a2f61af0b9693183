"""The loop of a model with tools: every wire, every way in which it ends, and nothing left behind."""

from __future__ import annotations

import json
import threading
import traceback

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm.testing import ScriptedTransport, hang, reply, sse

from ..support.conversations import SPEAKERS, TURNS, Turn, chat, checked
from ..support.request_shapes import said_in
from ..support.streams import cancelled_at

KEY = "sk-test-0123456789"
WHOLE = Turn("", "", "Done.")
HELLO = "Shall I go out?"


def model():
    return llm.openai("m", base_url="https://test.invalid/v1", api_key=KEY)


def calls(*named):
    """A turn of the model that calls functions, each given as (name, arguments)."""
    return Turn("", "", "", tuple((name, json.dumps(given), "") for name, given in named))


def script(*turns):
    return [
        reply(*chat(number, turn)) if isinstance(turn, Turn) else turn
        for number, turn in enumerate(turns)
    ]


class Loop:
    """A client whose server plays turns, and what came of the run."""

    def __init__(self, *turns, **options):
        self.transport = ScriptedTransport(*script(*turns))
        self.options = options
        self.steps = []
        self.run = None
        self.ledger = llm.Ledger()

    async def go(self, *tools, body=None):
        async with llm.open_client(transport=self.transport, ledger=self.ledger) as client:
            async with client.run_tools(model(), HELLO, tools=tools, **self.options) as self.run:
                async for step in self.run:
                    self.steps.append(step)
                    if body is not None:
                        await body(step)
        return self.run

    @property
    def results(self):
        return [(s.text, s.is_error) for s in self.steps if isinstance(s, llm.ToolResult)]

    @property
    def history(self):
        return [said(message) for message in self.run.messages]


def said(message):
    """A message as its role and its parts in short."""
    parts = []
    for part in message.parts:
        if isinstance(part, llm.ToolCall):
            parts.append(f"{part.name}{part.arguments}")
        elif isinstance(part, llm.ToolResult):
            parts.append(("error: " if part.is_error else "") + part.text)
        else:
            parts.append(part.text)
    return (message.role, *parts)


def double(number: int) -> int:
    return 2 * number


async def wait(seconds: float) -> str:
    await trio.sleep(seconds)
    return f"waited {seconds:g}"


def sky(city: str, days: list[int] | None = None) -> str:
    """Look at the sky."""
    return {"Rome": "clear", "Ostia": "rain"}[city]


async def now() -> str:
    """Tell the time."""
    return "noon"


@pytest.mark.parametrize("name", SPEAKERS)
async def test_every_wire(name, autojump_clock):
    speaker = SPEAKERS[name]
    transport = ScriptedTransport(*(reply(*speaker.stream(n, TURNS[n])) for n in range(2)))
    async with llm.open_client(transport=transport) as client:
        messages = [llm.system("Be brief."), llm.user(TURNS[0].asked)]
        async with client.run_tools(speaker.model, messages, tools=[sky, now]) as run:
            steps = [step async for step in run]
    assert run.outcome == "finished"
    assert run.response.content == TURNS[1].text
    text = "".join(s.delta for s in steps if isinstance(s, llm.StreamChunk))
    assert text == TURNS[0].text + TURNS[1].text
    assert [s.name for s in steps if isinstance(s, llm.ToolCall)] == ["sky", "now"]
    results = {s.name: s.text for s in steps if isinstance(s, llm.ToolResult)}
    assert results == {"sky": "clear", "now": "noon"}
    for body in transport.bodies:
        body.pop("tools", None)
        checked(speaker, body)
    begin = ("system", "Be brief."), ("user", TURNS[0].asked)
    said = said_in(speaker.shape, transport.bodies[1])
    assert said[:2] == [*begin]
    assert said[-2:] == [("result", "sky", "clear"), ("result", "now", "noon")]
    assert [m.role for m in run.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]
    assert client.ledger.attempts == 2


async def test_steps_in_order(autojump_clock):
    """Calls before their results; results as they are ready; the history in the order of the calls."""
    loop = Loop(calls(("wait", {"seconds": 3}), ("double", {"number": 4})), WHOLE)
    await loop.go(wait, double)
    kinds = [type(s).__name__ for s in loop.steps if not isinstance(s, llm.StreamChunk)]
    assert kinds == ["ToolCall", "ToolCall", "ToolResult", "ToolResult"]
    assert loop.results == [("8", False), ("waited 3", False)]
    assert loop.history == [
        ("user", HELLO),
        ("assistant", 'wait{"seconds": 3}', 'double{"number": 4}'),
        ("tool", "waited 3"),
        ("tool", "8"),
        ("assistant", "Done."),
    ]


@pytest.mark.parametrize(("most", "seconds"), [(1, 6), (2, 4), (8, 3)])
async def test_side_by_side(most, seconds, autojump_clock):
    turn = calls(*(("wait", {"seconds": n}) for n in (1, 2, 3)))
    began = trio.current_time()
    await Loop(turn, WHOLE, max_parallel=most).go(wait)
    assert trio.current_time() - began == pytest.approx(seconds)


async def test_collect(autojump_clock):
    transport = ScriptedTransport(*script(calls(("double", {"number": 1})), WHOLE))
    async with llm.open_client(transport=transport) as client:
        async with client.run_tools(model(), HELLO, tools=[double]) as run:
            assert (await run.collect()).content == "Done."
    assert run.response.timings.total is not None


# -- errors as results -----------------------------------------------------------------------------


def broken(number: int) -> int:
    raise LookupError(f"no such number, says the bearer of {KEY}")


@pytest.mark.parametrize("errors", ["show", "raise"])
async def test_calls_that_the_model_got_wrong(errors, autojump_clock):
    """They are no fault of the program, so they are always shown."""
    turn = calls(("triple", {"number": 1}), ("double", {"number": "one"}))
    loop = Loop(turn, WHOLE, errors=errors)
    await loop.go(double)
    assert sorted(loop.results, reverse=True) == [
        ("there is no tool 'triple'; there are: double", True),
        ("the arguments are wrong: Expected `int`, got `str` - at `$.number`", True),
    ]
    assert loop.run.outcome == "finished"


async def test_an_exception_is_shown_without_the_key(autojump_clock):
    loop = Loop(calls(("broken", {"number": 1}), ("double", {"number": 1})), WHOLE)
    await loop.go(broken, double)
    assert sorted(loop.results, reverse=True) == [
        ("LookupError: no such number, says the bearer of [hidden]", True),
        ("2", False),
    ]


async def test_an_exception_is_raised(autojump_clock):
    """As itself. The other calls are cancelled, and the history says so."""

    async def late() -> None:
        await trio.sleep(1)
        raise LookupError

    turn = calls(("wait", {"seconds": 9}), ("double", {"number": 1}), ("late", {}))
    loop = Loop(turn, errors="raise")
    with pytest.raises(LookupError):
        await loop.go(wait, double, late)
    assert trio.current_time() < 9
    assert loop.run.outcome == "failed"
    assert loop.history[2:] == [
        ("tool", "error: not finished: the program stopped before this call had a result"),
        ("tool", "2"),
        ("tool", "error: not finished: the program stopped before this call had a result"),
    ]


async def test_two_exceptions_are_a_group(autojump_clock):
    async def stubborn(number: int) -> int:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("on the way out")

    loop = Loop(calls(("stubborn", {"number": 1}), ("broken", {"number": 1})), errors="raise")
    with pytest.RaisesGroup(LookupError, ValueError):
        await loop.go(stubborn, broken)


async def test_a_group_of_the_tool_s_own_comes_out_as_it_is(autojump_clock):
    async def parallel() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise ValueError("inner")

    with pytest.RaisesGroup(ValueError):
        await Loop(calls(("parallel", {})), errors="raise").go(parallel)


async def test_leaving_early_is_told_of_a_tool_that_failed(autojump_clock):
    """The exception was there, though nobody took the step behind which it stands."""
    loop = Loop(calls(("broken", {"number": 1})), errors="raise")

    async def leave(step):
        if isinstance(step, llm.ToolCall):
            await trio.testing.wait_all_tasks_blocked()
            raise KeyError("of the block")

    with pytest.RaisesGroup(KeyError, LookupError):
        await loop.go(broken, body=leave)


async def test_the_block_s_exception_comes_out_as_itself(autojump_clock):
    class Mine(Exception): ...

    async def leave(step):
        raise Mine

    for turn in (WHOLE, calls(("wait", {"seconds": 9}))):
        loop = Loop(turn, errors="raise")
        with pytest.raises(Mine):
            await loop.go(wait, body=leave)
        assert loop.run.outcome == "cancelled"


# -- what a function returns -----------------------------------------------------------------------


class City(msgspec.Struct):
    name: str


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("text", "text"),
        (None, "null"),
        ({"a": [1]}, '{"a":[1]}'),
        (City("Rome"), '{"name":"Rome"}'),
        ([llm.text("a"), "b"], "ab"),
        (["a", "b"], '["a","b"]'),
        (
            object(),
            "TypeError: the tool returned a value of type object, which JSON can't represent",
        ),
    ],
)
async def test_what_a_function_returns(value, shown, autojump_clock):
    def give() -> None:
        return value

    loop = Loop(calls(("give", {})), WHOLE)
    await loop.go(give)
    assert [text for text, _ in loop.results] == [shown]


async def test_pydantic(autojump_clock):
    pydantic = pytest.importorskip("pydantic")
    made = pydantic.create_model("Made", name=(str, ...))(name="x")

    def give() -> None:
        return made

    loop = Loop(calls(("give", {})), WHOLE)
    await loop.go(give)
    assert loop.results == [('{"name":"x"}', False)]


@pytest.mark.parametrize("threads", [True, False])
async def test_threads(threads):
    where = []

    def here() -> str:
        where.append(threading.current_thread() is threading.main_thread())
        return "x"

    async def there() -> str:
        where.append(threading.current_thread() is threading.main_thread())
        return "y"

    loop = Loop(calls(("here", {}), ("there", {})), WHOLE, threads=threads)
    await loop.go(here, there)
    assert sorted(where) == sorted([not threads, True])


# -- the ends --------------------------------------------------------------------------------------


async def test_max_steps(autojump_clock):
    """The calls of the last answer are run, so that nothing is lost, and no request follows."""
    turn = calls(("double", {"number": 1}))
    loop = Loop(turn, turn, max_steps=2)
    with pytest.raises(llm.ToolLoopError, match="no answer after 2 requests") as caught:
        await loop.go(double)
    assert caught.value.reason == loop.run.outcome == "max_steps"
    assert [m.role for m in loop.run.messages] == ["user", "assistant", "tool", "assistant", "tool"]
    assert len(loop.transport.bodies) == 2


def paused_turn(reason, *blocks):
    """An answer of Anthropic's, of whole blocks."""
    start = {"type": "message_start", "message": {"id": "m", "model": "c", "content": []}}
    opened = [
        {"type": "content_block_start", "index": number, "content_block": block}
        for number, block in enumerate(blocks)
    ]
    end = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 1}}
    return reply(*(sse(e) for e in (start, *opened, end, {"type": "message_stop"})))


SEARCH = {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "x"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": []}


async def test_a_paused_turn_is_sent_back_and_goes_on(autojump_clock):
    claude = llm.anthropic("claude-x", api_key=KEY)
    pause = paused_turn("pause_turn", {"type": "text", "text": "Wait."}, SEARCH)
    transport = ScriptedTransport(
        pause, paused_turn("end_turn", FOUND, {"type": "text", "text": "Yes."}), pause, pause
    )
    async with llm.open_client(transport=transport) as client:
        async with client.run_tools(claude, HELLO, tools=[double]) as run:
            response = await run.collect()
        assert (response.text, run.outcome) == ("Yes.", "finished")
        sent = json.loads(transport.requests[1].content)["messages"]
        assert sent[1]["content"] == [{"type": "text", "text": "Wait."}, SEARCH]
        assert [m.role for m in run.messages] == ["user", "assistant", "assistant"]
        async with client.run_tools(claude, HELLO, tools=[double], max_steps=2) as run:
            with pytest.raises(llm.ToolLoopError):
                await run.collect()
        assert run.outcome == "max_steps"


async def test_an_end_is_raised_once(autojump_clock):
    """Like a stream's: a second look finds that it is over."""
    transport = ScriptedTransport(*script(calls(("double", {"number": 1}))))
    async with llm.open_client(transport=transport) as client:
        async with client.run_tools(model(), HELLO, tools=[double], max_steps=1) as run:
            with pytest.raises(llm.ToolLoopError):
                await run.collect()
            assert [step async for step in run] == []
            with pytest.raises(trio.ClosedResourceError):
                await run.collect()


@pytest.mark.parametrize("at", ["answer", "call"])
async def test_total(at, autojump_clock):
    cut = reply(*chat(1, WHOLE)[:2], hang)
    last = cut if at == "answer" else calls(("double", {"number": 2}), ("wait", {"seconds": 9}))
    loop = Loop(calls(("wait", {"seconds": 2})), last, total=5)
    with pytest.raises(llm.ToolLoopError, match="no answer within 5 s") as caught:
        await loop.go(wait, double)
    assert caught.value.reason == loop.run.outcome == "total"
    assert trio.current_time() == pytest.approx(5)
    whole = [("user", HELLO), ("assistant", 'wait{"seconds": 2}'), ("tool", "waited 2")]
    assert loop.history[:3] == whole
    if at == "answer":
        assert len(loop.history) == 3
        assert loop.run.response.content == "Do"
    else:
        assert [line[0] for line in loop.history[3:]] == ["assistant", "tool", "tool"]
        assert loop.history[4] == ("tool", "4")
        assert loop.history[5][1].startswith("error: not finished")
    assert loop.ledger.attempts == 2


async def test_money(autojump_clock):
    """The limit counts what this loop spends; its calls' results are kept."""
    loop = Loop(calls(("double", {"number": 1})), limits=llm.Limits(max_tokens=10))
    with pytest.raises(llm.BudgetExceeded):
        await loop.go(double)
    assert loop.run.outcome == "limits"
    assert loop.history[-1] == ("tool", "2")


async def test_a_stream_that_breaks(autojump_clock):
    cut = reply(*chat(1, WHOLE)[:2])
    loop = Loop(calls(("double", {"number": 1})), cut)
    with pytest.raises(llm.StreamTruncated) as caught:
        await loop.go(double)
    assert caught.value.partial.content == loop.run.response.content == "Do"
    assert loop.run.outcome == "failed"
    assert loop.history[-1] == ("tool", "2")
    assert dict(loop.ledger.outcomes)[llm.Outcome.TRUNCATED] == 1


async def test_a_client_that_is_closed_meanwhile_leaves_no_answer(autojump_clock):
    """Its streams are then cancelled: what had come is no answer, though no error says so."""
    ledger, opened, close = llm.Ledger(), trio.Event(), trio.Event()
    clients = []

    async def own():
        script_of_run = script(calls(("double", {"number": 1})), reply(*chat(1, WHOLE)[:2], hang))
        transport = ScriptedTransport(*script_of_run)
        async with llm.open_client(transport=transport, ledger=ledger) as client:
            clients.append(client)
            opened.set()
            await close.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(own)
        await opened.wait()
        async with clients[0].run_tools(model(), HELLO, tools=[double]) as run:
            async for step in run:
                if isinstance(step, llm.StreamChunk) and step.delta:
                    close.set()
            with pytest.raises(trio.ClosedResourceError):
                await run.collect()
    assert run.outcome == "cancelled"
    assert run.response.content == "Do"
    assert run.messages[-1].role == "tool", "the half answer is no turn of the history"


async def test_calls_of_an_answer_that_was_cut_are_not_run(autojump_clock):
    events = chat(0, calls(("broken", {"number": 1})))
    events = [
        event.replace(b'"finish_reason":"tool_calls"', b'"finish_reason":"length"')
        for event in events
    ]
    loop = Loop(reply(*events), errors="raise")
    with pytest.raises(llm.ToolLoopError, match="length") as caught:
        await loop.go(broken)
    assert caught.value.reason == loop.run.outcome == "invalid_calls"
    assert loop.history == [("user", HELLO)]
    assert len(loop.run.response.invalid_tool_calls) == 1


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("required", ["required", None]),
        ("auto", ["auto", "auto"]),
        ("none", ["none", "none"]),
        (None, [None, None]),
    ],
)
async def test_a_forced_call_is_forced_once(choice, sent, autojump_clock):
    loop = Loop(calls(("double", {"number": 1})), WHOLE, tool_choice=choice)
    await loop.go(double)
    assert [body.get("tool_choice") for body in loop.transport.bodies] == sent


async def test_a_named_tool_is_forced_once(autojump_clock):
    loop = Loop(calls(("double", {"number": 1})), WHOLE, tool_choice=double, max_tokens=50)
    await loop.go(double)
    first, second = loop.transport.bodies
    assert first["tool_choice"]["function"]["name"] == "double"
    assert "tool_choice" not in second
    assert first["tools"] == second["tools"]
    assert first["max_completion_tokens"] == second["max_completion_tokens"] == 50


# -- misuse ----------------------------------------------------------------------------------------


async def test_misuse(autojump_clock):
    async with llm.open_client(transport=ScriptedTransport()) as client:
        for error, options in [
            (TypeError, {}),
            (TypeError, {"tools": []}),
            (TypeError, {"tools": [City]}),
            (TypeError, {"tools": [{"type": "web_search"}]}),
            (TypeError, {"tools": [double], "temprature": 1}),
            (TypeError, {"tools": [double], "limits": 3}),
            (ValueError, {"tools": [double], "max_steps": 0}),
            (ValueError, {"tools": [double], "max_parallel": 0}),
            (ValueError, {"tools": [double], "total": -1}),
            (ValueError, {"tools": [double], "errors": "ignore"}),
            (ValueError, {"tools": [double], "n": 2}),
            (ValueError, {"tools": [double, double]}),
        ]:
            with pytest.raises(error):
                client.run_tools(model(), HELLO, **options)
        with pytest.raises(TypeError):
            client.run_tools("m", HELLO, tools=[double])
        run = client.run_tools(model(), HELLO, tools=[double])
        with pytest.raises(RuntimeError):
            await anext(run)


@pytest.mark.parametrize("wrong", [{}, {"tools": [double], "max_parallel": 0}])
async def test_misuse_shows_no_key(wrong):
    """Also where the variables of all frames are printed."""
    async with llm.open_client(transport=ScriptedTransport()) as client:
        with pytest.raises((TypeError, ValueError)) as caught:
            client.run_tools(model(), HELLO, **wrong)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    text = "".join(shown.format())
    assert "ToolCaller" in text
    assert KEY not in text


async def test_a_run_is_entered_once_and_ends_with_its_block(autojump_clock):
    async with llm.open_client(transport=ScriptedTransport(*script(WHOLE))) as client:
        run = client.run_tools(model(), HELLO, tools=[double])
        async with run:
            pass
        with pytest.raises(RuntimeError):
            await run.__aenter__()
        assert run.outcome == "cancelled"
        with pytest.raises(trio.ClosedResourceError):
            await anext(run)
        with pytest.raises(trio.ClosedResourceError):
            await run.collect()


# -- cancelled, and any turns ----------------------------------------------------------------------


def whole(messages):
    """Say whether each call in a history has its result, and each result its call."""
    asked = [p.id for m in messages for p in m.parts if isinstance(p, llm.ToolCall)]
    told = [p.call_id for m in messages for p in m.parts if isinstance(p, llm.ToolResult)]
    return asked == told


async def test_cancelled_at_each_step(autojump_clock):
    step, more = 0, True
    while more:
        step += 1
        loop = Loop(calls(("wait", {"seconds": 1}), ("double", {"number": 1})), WHOLE)
        more = await cancelled_at(step, loop.go, wait, double)
        if loop.run is not None:
            assert whole(loop.run.messages)
            assert loop.run.outcome in (("cancelled", "finished") if more else ("finished",))
    assert step > 15


async def test_cancelled_as_a_part_of_a_tool_fails(autojump_clock):
    """What is shown to the model does not come out of the block, which is cancelled."""

    async def fails():
        raise ValueError("mine")

    async def several(number: int) -> str:
        """Do several things."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails)
            nursery.start_soon(trio.sleep_forever)
        raise AssertionError

    step = 1
    while await cancelled_at(step, Loop(calls(("several", {"number": 1})), WHOLE).go, several):
        step += 1
    assert step > 20


async def test_left_at_each_step(autojump_clock):
    turns = calls(("wait", {"seconds": 1}), ("double", {"number": 1})), WHOLE
    every = Loop(*turns)
    await every.go(wait, double)
    for number in range(len(every.steps)):
        loop, left = Loop(*turns), number

        class Enough(Exception): ...

        async def leave(step):
            nonlocal left
            left -= 1
            if left < 0:
                raise Enough

        with pytest.raises(Enough):
            await loop.go(wait, double, body=leave)
        assert whole(loop.run.messages)
        assert loop.ledger.attempts <= 2


ACTIONS = st.sampled_from(
    [
        ("double", {"number": 3}, "6"),
        (
            "double",
            {"number": "x"},
            "error: the arguments are wrong: Expected `int`, got `str` - at `$.number`",
        ),
        ("wait", {"seconds": 2}, "waited 2"),
        ("wait", {"seconds": 0.5}, "waited 0.5"),
        ("nothing", {}, "error: there is no tool 'nothing'; there are: double, wait"),
    ]
)


@given(st.lists(st.lists(ACTIONS, min_size=1, max_size=4), max_size=4), st.integers(1, 5))
def test_any_turns(turns, most):
    loop = Loop(*(calls(*((n, g) for n, g, _ in turn)) for turn in turns), WHOLE, max_parallel=most)
    trio.run(loop.go, double, wait, clock=trio.testing.MockClock(autojump_threshold=0))
    assert loop.run.outcome == "finished"
    expected = [("user", HELLO)]
    for turn in turns:
        expected.append(("assistant", *(f"{n}{json.dumps(g)}" for n, g, _ in turn)))
        expected += [("tool", result) for *_, result in turn]
    assert loop.history == [*expected, ("assistant", "Done.")]
    assert whole(loop.run.messages)
    assert len(loop.transport.bodies) == len(turns) + 1
