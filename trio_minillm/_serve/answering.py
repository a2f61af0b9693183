"""From a request to the program of its answer: what is said, when, and broken in which way. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from ..testing._answer_parts import Finish
from ..testing._events import json_reply
from ..testing._script import Reply, head_bytes
from .capacity import Capacity
from .distributions import Distribution, distribution
from .fault_texts import SharedFault
from .forms import Forms, Length, kind_of
from .options import ServeOptions
from .programs import EVENTS, Program, program_of, repaced, reply_of, streamed, struck
from .records import ServedRecord
from .requests import Asked
from .scripts import Answers, ScriptedAnswer
from .writing import Writer, body

LAST_CHUNK = b"0\r\n\r\n"


class Answering:
    """The answers of a server, by its options and files."""

    def __init__(self, options: ServeOptions, capacity: Capacity) -> None:
        """Raise ``ValueError`` or ``OSError`` for a file that can't be used."""
        self._options = options
        self._capacity = capacity
        self._answers = Answers(options.files)
        self._forms = Forms()

    def reset(self) -> None:
        """Begin with the first answer of the files again."""
        self._answers.reset()

    def program(
        self, asked: Asked, asked_body: dict[str, Any], record: ServedRecord
    ) -> tuple[Program, bool]:
        """Return the program of an answer, and True if it takes one of the places.

        Raises `RefusedRequestError` if there is no answer for it.
        """
        options = self._options
        random = Random(f"{options.seed}/{record.number}")
        faults = list(options.shared_faults)
        words, first = True, 0.0
        if not self._answers:
            hit = _hit(faults, random)
            first = options.first.draw(random)
            if asked.stream and not hit:
                return self._generated(asked, record, random, first), True
            reply = self._generated_reply(asked, record, random, first)
        else:
            answer = self._answers.choose(asked, asked_body)
            if isinstance(answer, ScriptedAnswer):
                faults += answer.struck_by()
                reply = self._scripted(answer, asked, record, random)
            else:
                words, reply = False, self._recorded(answer, asked, record, random)
            hit = _hit(faults, random)
        record.faults = [fault.name for fault in hit]
        reply = struck(reply, [fault.on(asked.wire) for fault in hit], asked.wire)
        record.status = reply.status
        whole = None if asked.stream else record.completion_tokens if words else -1
        program = program_of(reply, asked.wire, words=words, whole=whole)
        return program, reply.status < 400

    # -- generated answers ---------------------------------------------------------------------

    def _length(self, asked: Asked, record: ServedRecord, random: Random) -> tuple[Length, Finish]:
        wanted = self._options.length
        made, cut = asked.tokens(None if wanted is None else wanted.draw(random))
        thought = 0 if asked.wire == "text" else min(self._options.reasoning, made)
        record.completion_tokens, record.reasoning_tokens = made, thought
        return Length(asked.prompt_tokens, thought, made - thought), "length" if cut else "stop"

    def _generated(
        self, asked: Asked, record: ServedRecord, random: Random, first: float
    ) -> Program:
        """Return a stream that is written as it falls due."""
        length, finish = self._length(asked, record, random)
        options = self._options
        kind = kind_of(asked, length, finish, options.usage)
        writer = Writer(self._forms.get(kind, frame=True), record.id, length)
        contents = writer.contents(
            options.tokens_per_chunk, opening=options.opening, end=LAST_CHUNK
        )
        headers = {**EVENTS, "x-request-id": record.id, "transfer-encoding": "chunked"}
        gap = self._gap(options.gap, random)
        return streamed(head_bytes("1.1", 200, headers), contents, first, gap)

    def _generated_reply(
        self, asked: Asked, record: ServedRecord, random: Random, first: float
    ) -> Reply:
        """Return a whole answer, or a stream that is written at once because faults will change it."""
        length, finish = self._length(asked, record, random)
        options, gap = self._options, self._gap(self._options.gap, random)
        kind = kind_of(asked, length, finish, options.usage)
        if asked.stream:
            writer = Writer(self._forms.get(kind, frame=False), record.id, length)
            contents = writer.contents(options.tokens_per_chunk, opening=options.opening)
            return _named(reply_of(contents, first, gap), record)
        per_chunk = options.tokens_per_chunk
        chunks = -(-length.reasoning // per_chunk) + -(-length.text // per_chunk)
        wait = first + sum(gap() for _ in range(chunks - 1))
        data = body(kind, record.id, length)
        return _named(msgspec.structs.replace(json_reply(None, wait=wait), steps=(data,)), record)

    def _gap(self, gap: Distribution, random: Random) -> Callable[[], float]:
        """Return the function that gives the time to the next content."""
        draw, knee, capacity = gap.draw, self._options.slow_down, self._capacity
        if knee is not None:
            return lambda: draw(random) * max(1.0, capacity.running / knee)
        constant = gap.constant
        return (lambda: draw(random)) if constant is None else (lambda: constant)

    # -- answers of files ----------------------------------------------------------------------

    def _scripted(
        self, answer: ScriptedAnswer, asked: Asked, record: ServedRecord, random: Random
    ) -> Reply:
        options = self._options
        names = (asked.model, record.id, int(time.time()))
        reply, usage = answer.reply(asked, names, options.usage, options.tokens_per_chunk)
        record.prompt_tokens = usage.uncached_input_tokens or 0
        record.completion_tokens = usage.completion_tokens or 0
        record.reasoning_tokens = usage.reasoning_tokens or 0
        if answer.error is not None:
            return _named(reply, record)
        first, gap = options.first, options.gap
        if answer.ttft is not None:
            first = distribution(answer.ttft, "ttft")
        if answer.itl is not None:
            gap = distribution(answer.itl, "itl")
        return self._repaced(_named(reply, record), asked, first.draw(random), gap, random)

    def _recorded(self, reply: Reply, asked: Asked, record: ServedRecord, random: Random) -> Reply:
        record.prompt_tokens = 0  # nobody knows
        if not self._options.retimed or reply.error is not None:
            return reply
        first, gap = self._options.first.draw(random), self._options.gap
        return self._repaced(reply, asked, first, gap, random)

    def _repaced(
        self, reply: Reply, asked: Asked, first: float, gap: Distribution, random: Random
    ) -> Reply:
        drawn, opening = self._gap(gap, random), self._options.opening
        return repaced(reply, asked.wire, first, drawn, opening=opening)


def _hit(faults: list[SharedFault], random: Random) -> list[SharedFault]:
    """Return the faults that strike this request."""
    return [fault for fault in faults if fault.share >= 1 or random.random() < fault.share]


def _named(reply: Reply, record: ServedRecord) -> Reply:
    return msgspec.structs.replace(reply, headers={**reply.headers, "x-request-id": record.id})
