"""A stream under any sequence of what its server and its caller may do.

What holds after every step, in any order of sending, taking, waiting in vain, cancelling, rejecting,
draining and closing:

- there is no outcome or exactly one, and once it stands neither it nor the response changes;
- it is finished only on evidence: a finish reason that no content had followed, the wire's own end
  event behind a part of an answer, or the sentinel behind usage that counts all of it;
- there is an error if and only if the outcome is a failure, it is raised by iteration once, by
  `collect` each time, and has what had arrived in ``partial``;
- what is handed out is the beginning of what was sent, in order, each chunk once, and all of it
  is folded in before the caller sees it; what a cancelled wait did not take is not lost;
- whatever happened before, the end of the channel ends the stream.

`tests/protocol/test_state.py` walks the table itself, `tests/protocol/test_ingest.py` the fold.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import hypothesis
import msgspec
import trio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from trio.testing import MockClock

import trio_minillm as llm
from trio_minillm import Outcome, StreamChunk, Usage

FAILED = (Outcome.ERRORED, Outcome.TRUNCATED)
ROOM = 90
"""Items that are sent before the caller takes any: the channel holds 100."""

texts = st.sampled_from(["a", "b", "é", "long " * 20])
chunks = st.one_of(
    st.builds(StreamChunk, texts),
    st.builds(StreamChunk, texts),
    st.builds(StreamChunk, reasoning=texts),
    st.just(StreamChunk(progress=False)),
    st.just(StreamChunk(progress=False, answer=False, unread=("logprobs",))),
    st.builds(
        lambda n: StreamChunk(usage=Usage(completion_tokens=n)), st.sampled_from([1, 0, None])
    ),
    st.builds(StreamChunk, texts, finish_reason=st.sampled_from(["stop", "length"])),
    st.just(StreamChunk(finish_reason="stop")),
    st.just(StreamChunk(end=True, progress=False)),
    st.just(StreamChunk(end=True, sentinel=True, progress=False)),
)
errors = st.sampled_from(
    [
        lambda: llm.ConnectionCut("cut"),
        lambda: llm.EndedEarly("early"),
        lambda: llm.StreamTimeout("idle", 1.0),
        lambda: llm.ProtocolError("malformed", event=3),
    ]
)


def evidence(chunks: list[StreamChunk], text: str, thought: str) -> bool:
    """Return whether the chunks up to one of them may be a finished answer with this text."""
    answer = reason = counted = said = False
    deltas = thoughts = ""
    for chunk in chunks:
        deltas, thoughts = deltas + chunk.delta, thoughts + chunk.reasoning
        answer = answer or (chunk.answer and not chunk.end)
        if chunk.delta or chunk.reasoning:
            # Blanks and reasoning behind a reason leave it standing at the end.
            said, reason, counted = True, reason and not chunk.delta.strip(), False
        reason = reason or chunk.finish_reason is not None
        if chunk.usage is not None:
            tokens = chunk.usage.completion_tokens
            counted = counted or bool(tokens) or (tokens == 0 and not said)
        ended = chunk.end and answer and (counted or not chunk.sentinel)
        if (reason or ended) and (deltas, thoughts) == (text, thought):
            return True
    return False


def run(operation: Callable[[], Awaitable[Any]]) -> Any:
    """Do it in a run of its own; a wait that nothing ends is cancelled and gives "waited"."""

    async def main() -> Any:
        with trio.move_on_after(1.0):
            return await operation()
        return "waited"

    return trio.run(main, clock=MockClock(autojump_threshold=0))


class StreamMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stream: Any = None
        self.send: Any = None
        self.sent: list[StreamChunk] = []
        self.taken: list[StreamChunk] = []
        self.items = 0
        self.open = True  # the sending end
        self.closed = False  # the stream
        self.raised = 0
        self.final: bytes | None = None
        self.outcome: Outcome | None = None

    @rule(expect_usage=st.booleans())
    @precondition(lambda self: self.stream is None)
    def begin(self, expect_usage: bool) -> None:
        self.stream, self.send = llm.StreamingCompletion.from_channel("m", "g", expect_usage)

    # -- the server ------------------------------------------------------------------------

    def _put(self, item: Any) -> bool:
        try:
            self.send.send_nowait(item)
        except trio.BrokenResourceError:
            return False  # the caller has left
        self.items += 1
        return True

    sending = precondition(lambda self: self.stream and self.open and self.items < ROOM)

    @sending
    @rule(chunk=chunks)
    def one_chunk(self, chunk: StreamChunk) -> None:
        chunk = msgspec.structs.replace(chunk)
        if self._put(chunk):
            self.sent.append(chunk)

    @sending
    @rule(batch=st.lists(chunks, max_size=5))
    def a_batch(self, batch: list[StreamChunk]) -> None:
        batch = [msgspec.structs.replace(chunk) for chunk in batch]
        if self._put(list(batch)):
            self.sent += batch

    @sending
    @rule(make=errors)
    def an_error(self, make: Callable[[], llm.MiniLLMError]) -> None:
        self._put(make())

    @sending
    @rule()
    def the_end(self) -> None:
        self.send.close()
        self.open = False

    # -- the caller ------------------------------------------------------------------------

    using = precondition(lambda self: self.stream is not None and not self.closed)

    @using
    @rule(way=st.sampled_from(["next_chunk", "receive", "__anext__"]))
    def take(self, way: str) -> None:
        try:
            got = run(getattr(self.stream, way))
        except (trio.EndOfChannel, StopAsyncIteration):
            got = None
        except llm.MiniLLMError as exc:
            self.raised += 1
            assert exc is self.stream.error  # noqa: PT017
            return
        if isinstance(got, StreamChunk):
            self.taken.append(got)
        elif got is None:
            assert self.stream.is_finished
        else:
            assert not self.stream.is_finished

    @using
    @rule()
    def collect(self) -> None:
        try:
            got = run(self.stream.collect)
        except llm.MiniLLMError as exc:
            self.raised = 1  # iteration raises it no more
            assert exc is self.stream.error  # noqa: PT017
            assert exc.partial is not None  # noqa: PT017
        else:
            assert (got == "waited") is not self.stream.is_finished
            assert self.stream.error is None

    @using
    @rule()
    def cancel(self) -> None:
        response = run(self.stream.cancel)
        assert response.outcome is self.stream.outcome is not None

    @using
    @rule()
    def reject(self) -> None:
        before = self.stream.outcome
        self.stream.reject()
        assert self.stream.outcome is (before or Outcome.CANCELLED)

    @using
    @rule()
    def drain(self) -> None:
        self.stream.drain_buffered()

    @using
    @rule()
    def close(self) -> None:
        run(self.stream.aclose)
        self.closed = True

    @precondition(lambda self: self.closed)
    @rule()
    def use_after_the_end(self) -> None:
        run(self.stream.aclose)
        for method in (self.stream.next_chunk, self.stream.collect, self.stream.cancel):
            try:
                run(method)
            except trio.ClosedResourceError:
                continue
            raise AssertionError("a closed stream can be used")

    # -- what holds ------------------------------------------------------------------------

    @invariant()
    def one_outcome(self) -> None:
        if self.stream is None:
            return
        outcome = self.stream.outcome
        assert self.stream.is_finished == (outcome is not None)
        assert self.stream.errored == (outcome in FAILED) == (self.stream.error is not None)
        assert not (self.closed and outcome is None)
        if outcome is None:
            return
        encoded = msgspec.json.encode(self.stream.response)
        self.outcome, self.final = self.outcome or outcome, self.final or encoded
        assert (outcome, encoded) == (self.outcome, self.final)
        if outcome is Outcome.FINISHED:
            response = self.stream.response
            assert evidence(self.sent, response.content, response.reasoning)
        error = self.stream.error
        if error is not None:
            assert error.partial.content == self.stream.accumulated
            assert error.partial.outcome is outcome

    @invariant()
    def in_order_and_none_lost(self) -> None:
        if self.stream is None:
            return
        shown = [chunk for chunk in self.sent if chunk.progress]
        left = iter(shown)
        assert all(any(one is chunk for one in left) for chunk in self.taken)
        whole, so_far = "".join(c.delta for c in self.sent), self.stream.accumulated
        assert whole.startswith(so_far)
        assert len(so_far) >= sum(len(chunk.delta) for chunk in self.taken)

    @invariant()
    def raised_once(self) -> None:
        assert self.raised <= 1

    def teardown(self) -> None:
        if self.stream is None:
            return
        self.send.close()
        if not self.closed:
            with contextlib.suppress(llm.MiniLLMError):
                assert run(self.stream.collect) != "waited", "the end of the channel is no end"
            run(self.stream.aclose)
        assert self.stream.outcome is not None
        self.one_outcome()
        self.in_order_and_none_lost()


StreamMachine.TestCase.settings = hypothesis.settings(
    max_examples=200, stateful_step_count=25, deadline=None
)
TestStream = StreamMachine.TestCase
