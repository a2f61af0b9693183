"""Observers and log records: each attempt once, whatever becomes of it, and no harm to any answer."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
from contextvars import ContextVar

import pytest
import trio

import trio_minillm as llm
from trio_minillm import Outcome
from trio_minillm._toolkit.choices.attempt import Attempt
from trio_minillm.testing import (
    ScriptedTransport,
    eof,
    hang,
    json_reply,
    openai_events,
    reply,
    responses_events,
    resumable,
)

from ..support.streams import cancelled_at
from ..support.vendor_batches import StandIn, StandInTransport

SECRET = "sk-test-0123456789"
PROMPT = "the prompt is private"
BUSY = json_reply({"error": {"message": f"no: {PROMPT} {SECRET}"}}, status=429)
ANSWER = reply(*openai_events("Hi", " you"))
CUT = reply(openai_events("Hi")[1])


class Notes(llm.Observer):
    """An observer that keeps what it is told."""

    def __init__(self):
        self.all = []
        self.ends = []
        self.attempts = []

    def attempt_began(self, attempt):
        self.attempts.append(attempt)
        self.all.append(("began", attempt.number))

    def answer_began(self, attempt, seconds):
        assert attempt is self.attempts[-1]
        self.all.append(("answer", seconds))

    def attempt_ended(self, attempt, end):
        assert attempt is self.attempts[-1]
        self.ends.append(end)
        self.all.append((str(end.outcome), end.retried))


def model(**more):
    return llm.compatible("test-model", base_url="https://test.invalid/v1", api_key=SECRET, **more)


def opened(*script, observer=None, **more):
    return llm.open_client(transport=ScriptedTransport(*script), observer=observer, **more)


async def run(client, how, **params):
    if how == "complete":
        return await client.complete(model(), PROMPT, **params)
    async with client.stream(model(), PROMPT, **params) as stream:
        async for _ in stream:
            pass
    return stream.response


ways = pytest.mark.parametrize("how", ["complete", "stream"])


@ways
async def test_one_attempt(how, autojump_clock):
    notes = Notes()
    async with opened(reply(2, *openai_events("Hi", " you")), observer=notes) as client:
        response = await run(client, how, max_tokens=3, temperature=None)
    assert notes.all == [("began", 1), ("answer", 2.0), ("finished", False)]
    (attempt,), (end,) = notes.attempts, notes.ends
    assert attempt.model == model()
    assert attempt.url == "https://test.invalid/v1/chat/completions"
    assert attempt.params == {"max_tokens": 3}
    assert attempt.messages is None
    assert [end.record.key] == [r.key for r in client.ledger.recent]
    assert end.seconds == 2.0
    assert end.timings.first_chunk == 2.0
    assert end.response.content == response.content == "Hi you"
    assert PROMPT not in repr((attempt, end))
    assert SECRET not in repr((attempt, end))


@ways
async def test_refused_and_tried_again(how, autojump_clock):
    notes = Notes()
    async with opened(BUSY, BUSY, ANSWER, observer=notes) as client:
        await run(client, how)
    kinds = [what for what, _ in notes.all]
    assert kinds == ["began", "errored", "began", "errored", "began", "answer", "finished"]
    assert [a.number for a in notes.attempts] == [1, 2, 3]
    assert [e.retried for e in notes.ends] == [True, True, False]
    assert [e.response is None for e in notes.ends] == [True, True, False]
    assert [e.error and e.error.status for e in notes.ends] == [429, 429, None]
    assert [e.record.key for e in notes.ends] == [r.key for r in client.ledger.recent]


@ways
async def test_the_last_of_several_failures_is_told_with_its_own_error(how, autojump_clock):
    notes = Notes()
    async with opened(BUSY, BUSY, observer=notes, retry=llm.Retry(attempts=2)) as client:
        with pytest.raises(llm.RetriesExhausted):
            await run(client, how)
    assert [e.retried for e in notes.ends] == [True, False]
    assert [type(e.error) for e in notes.ends] == [llm.RefusedError] * 2


@ways
async def test_cut_off(how, autojump_clock):
    notes = Notes()
    async with opened(CUT, observer=notes) as client:
        with pytest.raises(llm.StreamTruncated):
            await run(client, how)
    assert notes.all[-1] == ("truncated", False)
    assert notes.ends[0].response.content == "Hi"
    assert type(notes.ends[0].error) is llm.EndedEarly


async def test_left_early(autojump_clock):
    notes = Notes()
    slow = reply(openai_events("Hi")[0], openai_events("Hi")[1], hang)
    async with opened(slow, observer=notes) as client:
        async with client.stream(model(), PROMPT) as stream:
            await stream.next_chunk()
            await trio.sleep(5)
    assert notes.all[-1] == ("cancelled", False)
    assert notes.ends[0].seconds == 5
    assert notes.ends[0].error is None


async def test_left_between_two_attempts(autojump_clock):
    """An attempt that never began is not told of."""
    notes = Notes()
    async with opened(
        BUSY, ANSWER, observer=notes, retry=llm.Retry(base_delay=60, max_delay=60)
    ) as client:
        async with client.stream(model(), PROMPT):
            await trio.sleep(1)
    assert notes.all == [("began", 1), ("errored", True)]


async def test_no_attempt_without_money(autojump_clock):
    notes = Notes()
    async with opened(ANSWER, observer=notes, limits=llm.Limits(max_cost=0)) as client:
        with pytest.raises(llm.BudgetExceeded):
            await client.complete(model(), PROMPT)
    assert notes.all == []


@ways
async def test_cancelled_at_each_step(how, autojump_clock):
    step, more = 0, True
    while more:
        step += 1
        notes = Notes()

        async def program():
            async with opened(BUSY, ANSWER, observer=notes) as client:  # noqa: B023
                await run(client, how)

        more = await cancelled_at(step, program)
        began = [a for a in notes.all if a[0] == "began"]
        assert len(began) == len(notes.ends), notes.all
    assert step > 10
    assert [e.outcome for e in notes.ends] == [Outcome.ERRORED, Outcome.FINISHED]


async def test_a_batch(autojump_clock):
    """Each attempt is a stream of its own, but the numbers go on."""
    notes = Notes()
    async with opened(BUSY, ANSWER, observer=notes) as client:
        requests = [llm.BatchRequest(key="a", messages=PROMPT, params={"max_tokens": 3})]
        async with client.batch(requests, model=model()) as results:
            async for result in results:
                assert result.response.content == "Hi you"
    assert [a.number for a in notes.attempts] == [1, 2]
    assert [e.outcome for e in notes.ends] == [Outcome.ERRORED, Outcome.FINISHED]
    assert [e.retried for e in notes.ends] == [False, False]
    assert notes.attempts[0].params == {"max_tokens": 3}


async def test_an_answer_in_the_background_is_one_attempt(autojump_clock):
    """It is taken up again where it was cut, and begins once."""
    notes = Notes()
    events = responses_events("Sea ", "salt")
    script = reply(*events[:6], eof), resumable(*events)
    async with opened(*script, observer=notes) as client:
        asked = llm.openai_responses("m", base_url="https://test.invalid/v1", api_key=SECRET)
        response = await client.complete(asked, PROMPT, background=True)
    assert (response.content, response.timings.resumes) == ("Sea salt", 1)
    assert [what for what, _ in notes.all] == ["began", "answer", "finished"]


async def test_a_vendors_batch_is_not_told_of(tmp_path, autojump_clock):
    """Its answers were made long before they are read."""
    notes = Notes()
    transport = StandInTransport(StandIn())
    key = "sk-test-0123456789abcdef"  # the stand-in's
    asked = llm.openai("m-1", base_url="http://127.0.0.1:9/v1", api_key=key)
    async with llm.open_client(transport=transport, observer=notes) as client:
        requests = [llm.BatchRequest("a", "a")]
        journal = tmp_path / "journal"
        async with client.vendor_batch(requests, model=asked, journal=journal) as results:
            async for result in results:
                assert result.response.content == "to a"
    assert client.ledger.attempts == 1
    assert notes.all == []


async def test_content_only_if_it_is_wanted(autojump_clock):
    notes = Notes()
    notes.wants_content = True
    async with opened(ANSWER, observer=notes) as client:
        await client.complete(model(), PROMPT)
    assert [m.text for m in notes.attempts[0].messages] == [PROMPT]
    assert PROMPT not in repr(notes.attempts)


async def test_scopes_keep_the_observer(autojump_clock):
    notes = Notes()
    async with opened(ANSWER, observer=notes) as client:
        await client.scope(meta={"user": 1}).complete(model(), PROMPT, meta={"b": 2})
    assert notes.attempts[0].meta == {"user": 1, "b": 2}


async def test_methods_may_be_left_out(autojump_clock):
    class Nothing(llm.Observer): ...

    async with opened(ANSWER, observer=Nothing()) as client:
        assert (await client.complete(model(), PROMPT)).content == "Hi you"


async def test_an_end_is_told_of_once(autojump_clock):
    notes = Notes()
    async with opened(ANSWER, observer=notes) as client:
        async with client.stream(model(), PROMPT) as stream:
            await stream.collect()
        stream._attempt_over(client.ledger.recent[0], None)
        stream._answer_begins()
    assert [what for what, _ in notes.all] == ["began", "answer", "finished"]
    shown = [list(one.__rich_repr__()) for one in (*notes.attempts, *notes.ends)]
    assert shown == [[repr(one)] for one in (*notes.attempts, *notes.ends)]


class Broken:
    """An observer whose every method fails."""

    def attempt_began(self, attempt):
        raise ValueError("first")

    def answer_began(self, attempt, seconds):
        raise ValueError("second")

    def attempt_ended(self, attempt, end):
        raise ValueError("third")


@ways
async def test_a_broken_observer_costs_no_answer(how, autojump_clock, caplog):
    async with opened(BUSY, ANSWER, ANSWER, observer=Broken()) as client:
        for _ in range(2):
            assert (await run(client, how)).content == "Hi you"
    failures = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert [r.exc_info[1].args[0] for r in failures] == ["first", "third", "second"]
    assert PROMPT not in caplog.text, "nor are the server's words there, which were being handled"


async def test_an_error_that_an_observer_raises_on_is_not_logged(autojump_clock, caplog):
    class Raises(llm.Observer):
        def attempt_ended(self, attempt, end):
            try:
                raise KeyError("mine")
            except KeyError as exc:
                exc.__cause__ = end.error
                raise ValueError("third") from exc

    async with opened(BUSY, observer=Raises(), retry=llm.Retry(attempts=1)) as client:
        with pytest.raises(llm.RefusedError):
            await run(client, "complete")
    assert "third" in caplog.text
    assert "mine" in caplog.text
    assert PROMPT not in caplog.text


async def test_a_client_keeps_no_stream_of_several_models(autojump_clock):
    """Each is of a kind of its own, which must not be remembered."""

    def attempts():
        return [found for found in gc.get_objects() if isinstance(found, Attempt)]

    older = attempts()  # of other tests
    async with opened(ANSWER, observer=Notes()) as client:
        async with client.stream(llm.fallback(model(), model()), PROMPT) as stream:
            await stream.collect()
        del stream
        gc.collect()
        assert attempts() == older


async def test_an_observer_may_end_the_stream(autojump_clock):
    class Rejects(Notes):
        def answer_began(self, attempt, seconds):
            super().answer_began(attempt, seconds)
            streams[0].reject()

    notes, streams = Rejects(), []
    async with opened(ANSWER, observer=notes) as client:
        async with client.stream(model(), PROMPT) as stream:
            streams.append(stream)
            assert await stream.next_chunk() is None
        assert [record.rejected for record in client.ledger.recent] == [True]
    assert notes.all == [("began", 1), ("answer", 0.0), ("cancelled", False)]


@pytest.mark.parametrize("missing", ["attempt_began", "answer_began", "attempt_ended"])
async def test_what_is_no_observer(missing):
    async def wait(*args): ...

    for wrong in (None, 3, wait):
        notes = Notes()
        setattr(notes, missing, wrong)
        with pytest.raises(TypeError, match=missing):
            async with opened(observer=notes):
                pass


USER = ContextVar("USER", default="nobody")


async def test_the_context_is_that_of_the_call(autojump_clock):
    """An observer that sets a variable of the context changes nothing for the program."""
    seen = []

    class Asks(llm.Observer):
        def attempt_began(self, attempt):
            seen.append(USER.get())
            USER.set("set by the observer")

        def attempt_ended(self, attempt, end):
            seen.append(USER.get())

    async with opened(ANSWER, ANSWER, observer=Asks()) as client, trio.open_nursery() as nursery:

        async def ask(name):
            USER.set(name)
            stream = client.stream(model(), PROMPT)
            USER.set("later")
            async with stream:
                await stream.collect()
            assert USER.get() == "later"

        nursery.start_soon(ask, "ann")
        nursery.start_soon(ask, "bob")
    assert sorted(seen) == ["ann", "bob", "set by the observer", "set by the observer"]
    assert USER.get() == "nobody"


@ways
async def test_log_records(how, autojump_clock, caplog):
    caplog.set_level(logging.DEBUG, "trio_minillm")
    script = BUSY, reply(2, *openai_events("Hi", " you"))
    async with opened(*script) as client:
        await run(client, how, user=PROMPT)
    records = [r for r in caplog.records if r.name == "trio_minillm"]
    assert [(r.levelname, r.llm_attempt) for r in records] == [
        ("DEBUG", 1),
        ("WARNING", 1),
        ("DEBUG", 2),
        ("DEBUG", 2),
    ]
    assert [r.getMessage() for r in records] == [
        "attempt 1 at <Model compatible:test-model> began",
        "attempt 1 at <Model compatible:test-model> failed (RefusedError 429 rate_limit); another follows",
        "attempt 2 at <Model compatible:test-model> began",
        "attempt 2 at <Model compatible:test-model> ended: finished after 2.000 s",
    ]
    last = records[-1]
    assert (last.llm_model, last.llm_provider) == ("test-model", "compatible")
    assert (last.llm_outcome, last.llm_error) == ("finished", None)
    assert (last.llm_seconds, last.llm_first_chunk) == pytest.approx((2.0, 2.0))
    assert last.llm_key == client.ledger.recent[-1].key
    assert records[1].llm_error == "429"
    for record in records:
        assert PROMPT not in str(vars(record))
        assert SECRET not in str(vars(record))


@ways
async def test_a_retry_is_logged_without_debug(how, autojump_clock, caplog):
    caplog.set_level(logging.WARNING, "trio_minillm")
    async with opened(BUSY, ANSWER) as client:
        await run(client, how)
    assert [r.levelname for r in caplog.records] == ["WARNING"]


async def test_an_unwatched_client_has_plain_streams(caplog):
    caplog.set_level(logging.WARNING, "trio_minillm")
    async with opened() as client:
        assert type(client.stream(model(), PROMPT)) is llm.TrackedStream
    caplog.set_level(logging.ERROR, "trio_minillm")
    async with opened(BUSY, ANSWER, retry=llm.Retry(base_delay=0, max_delay=0)) as client:
        await client.complete(model(), PROMPT)
    assert not caplog.records


async def test_a_failure_in_words_of_ours(autojump_clock, caplog):
    caplog.set_level(logging.DEBUG, "trio_minillm")
    async with opened(reply(hang)) as client:
        with pytest.raises(llm.StreamTimeout):
            await client.complete(model(), PROMPT, timeouts=llm.Timeouts(first_chunk=3))
    assert (
        caplog.records[-1].getMessage().endswith("errored after 3.000 s, StreamTimeout first_chunk")
    )


def test_a_program_without_logging_gets_no_line_that_it_did_not_ask_for():
    program = """if True:
        import trio
        import trio.testing
        import trio_minillm as llm
        from trio_minillm import testing

        async def main():
            scripts = testing.reply(status=503), testing.reply(*testing.openai_events("Hi"))
            transport = testing.ScriptedTransport(*scripts)
            async with llm.open_client(transport=transport) as client:
                response = await client.complete(testing.model(), "Hi")
            print(response.timings.attempts)

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    """
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert (ran.stdout, ran.stderr) == ("2\n", "")


class Wire(Notes):
    wants_http = True


@ways
async def test_an_observer_of_http_gets_names_and_sizes_alone(how, autojump_clock):
    notes = Wire()
    cookies = {"set-cookie": "s=0123456789", "x-ratelimit-remaining-tokens": "12"}
    refused = json_reply({"error": {"message": PROMPT}}, status=429, headers=cookies)
    async with opened(refused, ANSWER, observer=notes) as client:
        target = model(headers={"x-team": "a team's own"})
        await client.complete(target, PROMPT, max_tokens=3)
    first, second = notes.attempts
    sent = first.http
    assert second.http is sent, "one request, sent twice"
    assert sent.method == "POST"
    assert sent.headers["authorization"] == sent.headers["x-team"] == "[hidden]"
    assert sent.headers["content-type"] == "application/json"
    assert {"model", "messages", "stream"} <= set(sent.fields)
    assert sent.fields["model"] == len(b'"test-model"')
    assert sent.size > sum(sent.fields.values())
    got = [end.http for end in notes.ends]
    assert [one.status for one in got] == [429, 200]
    assert got[0].headers["set-cookie"] == "[hidden]"
    assert got[0].headers["x-ratelimit-remaining-tokens"] == "12"
    assert (got[0].size, got[1].size) == (0, sum(map(len, openai_events("Hi", " you"))))
    shown = repr([first.http, *got])
    assert PROMPT not in shown
    assert SECRET not in shown


async def test_without_a_response_there_is_no_head(autojump_clock):
    notes = Wire()
    async with opened(reply(hang), observer=notes) as client:
        with trio.move_on_after(1):
            await client.complete(model(), PROMPT)
    assert notes.ends[0].http is None or notes.ends[0].http.status == 200
    plain = Notes()
    async with opened(ANSWER, observer=plain) as client:
        await client.complete(model(), PROMPT)
    assert plain.attempts[0].http is plain.ends[0].http is None
