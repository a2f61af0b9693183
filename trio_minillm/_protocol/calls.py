"""Tool calls under construction: which call a piece belongs to, and what its arguments are.

By OpenAI's reference the index says which call a piece belongs to, and id and name come with the
first piece only. Servers differ: all calls under one index, or none; ids and names again with every
piece; an id made up for each piece; one id for two calls; the arguments once more at the end. So a
piece is compared with the call that it may go on with (`Calls.found`), in five respects:

=========  =======================================================================================
`id`       ``same``; ``new``: another than the call's; ``absent``: it has none, the call has one;
           ``none``: the call has none so far (the piece may bring it)
`index`    ``same``; ``new``: another; ``absent``: the piece has none, or the call has none
`name`     ``same``; ``new``: another; ``late``: the call's first; ``absent``: the piece has none
`so_far`   the arguments of the call: ``empty``, ``open`` (begun, and no whole object), ``whole``
`piece`    the arguments of the piece: ``empty``, ``begins`` (an object), ``continues``
=========  =======================================================================================

`ROWS` has the verdict for every case. Where two servers mean different things by the same pieces,
the verdict is the one after which nothing can be run that the model did not ask for: the call
that is in doubt is invalid (`Verdict.DOUBT`, `Verdict.GUESS`). The table and the code that looks into it
stand in one file, hence its length.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from enum import Enum
from functools import cache
from itertools import product, starmap
from typing import Any, Final, NamedTuple

import msgspec

from .._types.chunks import ToolCallDelta
from .._types.messages import OpaquePart, ToolCall
from .arguments import PLACEHOLDERS, Arguments, is_object, same_json
from .builders import TextBuilder


class Verdict(Enum):
    """The relation of a piece to the call that it may go on with."""

    SAME = "same"
    """A piece of that call."""
    NAME = "name"
    """A piece of that call, and its name is the next piece of the name."""
    GUESS = "guess"
    """The same, but two calls may be meant: the call is not run."""
    OTHER = "other"
    """The first piece of another call."""
    DOUBT = "doubt"
    """The same, but that call may be meant: of the two, the one that stays empty is not run."""


_IDS: Final = ("same", "new", "absent", "none")
_INDEXES: Final = ("same", "new", "absent")
_NAMES: Final = ("same", "new", "late", "absent")
_SO_FAR: Final = ("empty", "open", "whole")
_PIECES: Final = ("empty", "begins", "continues")
COLUMNS: Final = (_IDS, _INDEXES, _NAMES, _SO_FAR, _PIECES)

_NO_NAMES: Final = frozenset({"null", "None", "undefined", "<nil>"})
"""Words that languages print for nothing. Servers that build their JSON as text write them for the name
that the later pieces of a call don't have."""

_V = Verdict
ROWS: Final[tuple[tuple[str, str, str, str, str, Verdict], ...]] = (
    # id            index          name           so far   piece              the first that fits
    # A name that comes late belongs to the call, unless its id says that it is another one.
    ("new",         "*",           "late",        "*",     "*",               _V.OTHER),
    # A piece without a name goes on: at the index, under the id, or with the newest call. The id
    # may change with every piece (Poolside, old releases of vLLM), and so may the index, if the id
    # stays or the call still waits for arguments (Nebius, Cerebras).
    ("*",           "same absent", "late absent", "*",     "*",               _V.SAME),
    ("same",        "new",         "late absent", "*",     "*",               _V.SAME),
    ("absent none", "new",         "absent",      "empty open", "*",          _V.SAME),
    # A new index is another call, whatever its id (DeepSeek and GLM give two calls one id), unless
    # the piece is plainly in the middle of the arguments.
    ("same absent none", "new",    "same",        "open",  "continues",       _V.SAME),
    # A server that gave the call an id would give one to another, too.
    ("absent",      "new",         "same",        "*",     "*",               _V.DOUBT),
    ("*",           "new",         "*",           "*",     "*",               _V.OTHER),
    # The name again, with every piece (MiniMax on NVIDIA NIM, a fork of vLLM): the same call. But a
    # second object under a used id, without any index, is another call of that function (relays of
    # Gemini take the function's name for the id).
    ("same",        "absent",      "same",        "whole", "begins",          _V.OTHER),
    ("same absent", "same absent", "same",        "*",     "*",               _V.SAME),
    # … without ids, it opens another call behind a whole object.
    ("none",        "same absent", "same",        "whole", "empty begins",    _V.DOUBT),
    ("none",        "same absent", "same",        "*",     "*",               _V.SAME),
    # … under a new id: another call (Ollama gives all calls one index, Gemini none), unless its
    # arguments can't be a beginning.
    ("new",         "same absent", "same",        "*",     "continues",       _V.SAME),
    ("new",         "same absent", "same",        "*",     "*",               _V.DOUBT),
    # Another name under a new id is another call; so it is behind arguments that are whole (a
    # server behind OpenRouter gives all calls one index and one id) or that it does not go on with.
    ("new",         "same absent", "new",         "*",     "*",               _V.OTHER),
    ("*",           "same absent", "new",         "whole", "*",               _V.OTHER),
    ("*",           "same absent", "new",         "open",  "empty begins",    _V.OTHER),
    # Before the arguments, or in the middle of them, it is the next piece of the name (Gemini
    # through some relays). Where neither an id nor an index ties the two, it may be another call.
    ("none",        "absent",      "new",         "empty", "*",               _V.GUESS),
    ("*",           "same absent", "new",         "*",     "*",               _V.NAME),
)  # fmt: skip
"""The verdict for every cell; ``*`` is anything. Sources stand in docs/servers/servers.md."""


@cache
def _words() -> list[list[frozenset[str]]]:
    """Return the words of each row's columns; not before the first call of a tool needs them."""
    return [[frozenset(words.split()) for words in row[:5]] for row in ROWS]


@cache
def verdict_of(*cell: str) -> Verdict:
    """Return the verdict of the first row that fits this cell, a value for each of five columns."""
    return next(
        row[5]
        for row, allowed in zip(ROWS, _words(), strict=True)
        if all(value in words or "*" in words for value, words in zip(cell, allowed, strict=True))
    )


@cache
def _by_keys(*keys: str) -> Verdict | None:
    """Return the verdict where it does not depend on the arguments: for those, nothing is parsed."""
    verdicts = {verdict_of(*keys, so_far, piece) for so_far, piece in product(_SO_FAR, _PIECES)}
    return verdicts.pop() if len(verdicts) == 1 else None


class CallBuilder(Arguments):
    """A tool call under construction, or the block of a server's tool, whose input comes alike."""

    __slots__ = (
        *("adrift", "alias", "beside", "declined", "doubtful", "extra", "id"),
        *("index", "moved_to", "name", "rival", "start"),
    )

    def __init__(self, start: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.start = start  # the block of a server's tool, as it was opened
        self.id: str | None = None
        self.alias: str | None = None  # the newest of the other ids that its pieces came under
        self.index: int | None = None
        self.moved_to: int | None = None  # the newest of the other indexes
        self.name: str | None = None
        self.extra: dict[str, Any] | None = None
        self.rival: CallBuilder | None = None  # the call that it may be a piece of
        self.doubtful = False
        self.declined = False  # another model has answered in place of the one that made it
        self.adrift = False  # it has taken pieces that were not marked as those of any call
        self.beside: TextBuilder | None = None  # text in the call's own block

    @property
    def says_nothing(self) -> bool:
        """True if neither a name nor arguments came, only an id or an index."""
        return not self.name and self.blank

    def add(self, delta: ToolCallDelta, *, names: bool = False) -> None:
        """Take the next piece. The first id and the first name stay.

        With ``names``, the piece's name is a part of the whole name (or all of it so far).
        """
        if delta.id and not self.id:
            self.id = delta.id
        name = _name(delta) if delta.name else None
        if name and not self.name:
            self.name = name
        elif name and names and self.name:
            self.name = name if name.startswith(self.name) else self.name + name
        if delta.type == "custom":
            self.free_text = True
        if delta.arguments:
            self.add_piece(delta.arguments)
        if delta.extra:
            self.extra = {**(self.extra or {}), **delta.extra}

    def call(self, id: str) -> ToolCall:
        """Return the call that it has become; a ``null`` in place of its arguments is none."""
        text = self.read()
        return ToolCall(
            id=id,
            name=self.name or "",
            arguments="" if not self.free_text and text.strip() == "null" else text,
            type="custom" if self.free_text else "function",
            extra=self.extra,
        )

    def as_piece(self) -> ToolCallDelta:
        """Return all that has come as one piece of a call."""
        kind = "custom" if self.free_text else "function"
        return ToolCallDelta(self.index, self.id, self.name, self.joined(), kind, self.extra)

    def opaque(self, wire: str) -> OpaquePart:
        """Return the block of a server's tool, with its input if that is whole."""
        raw = dict(self.start or {})
        text = self.read()
        if text and is_object(text):
            raw["input"] = msgspec.json.decode(text.strip() or "{}")
        return OpaquePart(wire=wire, raw=raw)


class Calls:
    """The tool calls of one choice, and the place of every piece among them.

    Each piece takes O(1), but for the parsing that `MAX_CHECKED` bounds.
    """

    def __init__(self) -> None:
        self.all: list[CallBuilder] = []
        self._by_id: dict[str, CallBuilder] = {}
        self._by_index: dict[int, CallBuilder] = {}
        self.newest: CallBuilder | None = None
        """The call that got the newest piece."""
        self._repeated = False  # all came once more at the end

    def take(
        self, delta: ToolCallDelta, *, opens: bool = False, beside: bool = False
    ) -> CallBuilder | None:
        """Give a piece to its call. Returns the call if the piece has opened it.

        ``opens``: the wire says that a call begins here. ``beside``: the piece is not the first in
        its list, and two entries of a list are two calls if nothing else ties them.
        """
        if delta.index is not None and not opens:
            there = self._by_index.get(delta.index)
            if there is not None and _goes_on(delta, there):
                there.add(delta)
                self.newest = there
                if delta.id:
                    self._by_id[delta.id] = there
                return None
        found = None if opens else self.found(delta)
        verdict = Verdict.OTHER if found is None else self.verdict(found, delta, beside=beside)
        if found is not None and verdict in (Verdict.SAME, Verdict.NAME, Verdict.GUESS):
            found.doubtful |= verdict is Verdict.GUESS
            found.adrift |= delta.index is None and not delta.id and not delta.name
            self._add(found, delta, names=verdict is not Verdict.SAME)
            return None
        if not opens and not (delta.id or _name(delta) or delta.arguments.strip()):
            return None  # says nothing, and opens nothing
        call = CallBuilder()
        if verdict is Verdict.DOUBT or (found is not None and _was_lent(found, delta)):
            call.rival = found
        self.all.append(call)
        self._add(call, delta)
        return call

    def repeated_by(self, deltas: Sequence[ToolCallDelta]) -> bool:
        """Return whether these are all calls so far, in their order: the same names and arguments, and
        no other ids.
        """
        pairs = zip(self.all, deltas, strict=False)
        repeated = len(deltas) == len(self.all) and all(starmap(_is_sent_again, pairs))
        self._repeated |= repeated
        return repeated

    def found(self, delta: ToolCallDelta) -> CallBuilder | None:
        """Return the call that a piece may go on with.

        That is the call at its index, if the ids don't contradict it; else the newest one of its
        id; else the one at its index; else the newest of all.
        """
        there = None if delta.index is None else self._by_index.get(delta.index)
        if there is not None and _id_of(delta, there) != "new":
            return there
        return (self._by_id.get(delta.id) if delta.id else None) or there or self.newest

    def verdict(self, call: CallBuilder, delta: ToolCallDelta, *, beside: bool = False) -> Verdict:
        """Return what a piece is to a call, by `ROWS`."""
        ident, index, name = _id_of(delta, call), self._index_of(delta, call), _name_of(delta, call)
        if beside and index == "absent" and not delta.id and name in ("same", "new"):
            index = "new"
        found = _by_keys(ident, index, name)
        return found or verdict_of(ident, index, name, call.so_far(), _piece_of(delta))

    def _index_of(self, delta: ToolCallDelta, call: CallBuilder) -> str:
        if delta.index is None or call.index is None:
            return "absent"
        return "same" if delta.index in (call.index, call.moved_to) else "new"

    def _add(self, call: CallBuilder, delta: ToolCallDelta, *, names: bool = False) -> None:
        call.add(delta, names=names)
        self.newest = call
        if delta.id:
            if delta.id not in (call.id, call.alias):
                _forget(self._by_id, call.alias, call)  # a new one with every piece would pile up
                call.alias = delta.id
            self._by_id[delta.id] = call
        if delta.index is not None:
            if call.index is None:
                call.index = delta.index
            elif delta.index not in (call.index, call.moved_to):
                _forget(self._by_index, call.moved_to, call)
                call.moved_to = delta.index
            self._by_index[delta.index] = call

    # -- when the response is built ----------------------------------------------------------

    def sorted_out(self, *, finished: bool) -> Sorted:
        """Return which calls are copies of others, and which are in doubt.

        Of a ``finished`` answer, one of which nothing but an id came is none.
        """
        copies: set[CallBuilder] = set()
        # Text in the block of a call may be its input under another name.
        doubtful = {c for c in self.all if c.doubtful or (c.blank and c.beside and c.beside.said)}
        by_id: dict[tuple[str, str | None], list[CallBuilder]] = {}
        for call in self.all:
            if call.declined:
                continue  # the model that took over may make the same one
            if call.id:
                by_id.setdefault((call.id, call.name), []).append(call)
            if call.rival is not None and call.rival not in copies:
                _judge(call, call.rival, copies, doubtful)
        for group in by_id.values():
            if len(group) > 1:
                _judge_group(group, copies, doubtful)
        left = [c for c in self.all if c not in copies]
        again = [c for c in left if c.came_again()]
        # Pieces that went astray may be the arguments of a call at the same place that has none.
        broken = [c for c in left if not c.is_whole()]
        places = {c.index for c in (*again, *broken)}
        doubtful |= {c for c in left if c.blank and c.index in places}
        # Of two calls that took turns, the newest may end up with the arguments of the other.
        doubtful |= {c for c in left if c.adrift and broken}
        if any(not c.name and not c.blank for c in left):
            doubtful |= {c for c in left if _bare(c) in PLACEHOLDERS}
        silent = {c for c in left if c.declined or (finished and c.says_nothing)}
        count = len(again) + self._repeated
        mended, replaced = any(c.mended for c in left), any(c.replaced for c in left)
        declined = any(c.declined for c in left)
        return Sorted(copies, doubtful, silent, count, mended, replaced, declined)

    def ids(self, copies: Collection[CallBuilder] = (), answer: str = "") -> dict[CallBuilder, str]:
        """Return an id for every call but copies: the server's, if no call before has the same.

        A server that gives none, or one to two calls, still needs to be told which call a result
        is for. The id of the ``answer`` is a part of those that are made: they are then of one call
        in a whole conversation.
        """
        taken = {call.id for call in self.all if call.id}
        out: dict[CallBuilder, str] = {}
        given: set[str] = set()
        for number, call in enumerate(self.all):
            if call in copies:
                continue
            ident = call.id or "_".join(filter(None, ("call", str(number), answer)))
            if ident in given or (not call.id and ident in taken):
                ident = next(
                    i for n in range(2, len(self.all) + 3) if (i := f"{ident}-{n}") not in taken
                )
                taken.add(ident)
            given.add(ident)
            out[call] = ident
        return out


class Sorted(NamedTuple):
    """The calls of a choice that are none of their own, or must not be run."""

    copies: set[CallBuilder]
    """Calls that are there twice: not shown."""
    doubtful: set[CallBuilder]
    """Calls that the model may not have made."""
    silent: set[CallBuilder]
    """Calls of which neither a name nor arguments came, or whose model declined: not shown."""
    again: int
    """The number of times that arguments, or all calls, came more than once."""
    mended: bool
    """True if arguments were not quite JSON, and had only one meaning."""
    replaced: bool
    """True if a call ended with other arguments than had come in pieces."""
    declined: bool
    """True if the model that made a call declined to go on."""

    def shows(self, call: CallBuilder) -> bool:
        """Return whether a call is one of its own."""
        return call not in self.copies and call not in self.silent

    def notes(self) -> Iterator[str]:
        """Yield what was odd, for the response."""
        if self.copies or self.again:
            yield "tool calls or their arguments were repeated: counted once"
        if self.mended:
            yield "arguments of tool calls were almost JSON, with one meaning: repaired"
        if self.replaced:
            yield "arguments of tool calls were others at their end: the last ones count"
        if self.declined:
            yield "tool calls of a model that declined, before another took over: left out"


def _goes_on(delta: ToolCallDelta, call: CallBuilder) -> bool:
    """Return whether a piece at the index of a call is one as almost all are, and goes on with it.

    The table says the same.
    """
    if delta.id and delta.id != call.id:
        return False
    return not delta.name or (delta.name == call.name and call.id is not None)


def _was_lent(call: CallBuilder, delta: ToolCallDelta) -> bool:
    """Return whether a call has taken pieces at the index at which another one begins now."""
    return delta.index is not None and delta.index == call.moved_to


def _forget(found: dict[Any, CallBuilder], key: Any, call: CallBuilder) -> None:
    if found.get(key) is call:
        del found[key]


def _name(delta: ToolCallDelta) -> str | None:
    name = delta.name
    return name if name and name not in _NO_NAMES and not name.isspace() else None


def _id_of(delta: ToolCallDelta, call: CallBuilder) -> str:
    if not call.id:
        return "none"
    if not delta.id:
        return "absent"
    return "same" if delta.id in (call.id, call.alias) else "new"


def _name_of(delta: ToolCallDelta, call: CallBuilder) -> str:
    name = _name(delta)
    if not name:
        return "absent"
    if not call.name:
        return "late"
    return "same" if name == call.name else "new"


def _piece_of(delta: ToolCallDelta) -> str:
    text = delta.arguments.lstrip()
    if not text:
        return "empty"
    return "begins" if text[0] == "{" or delta.type == "custom" else "continues"


def _bare(call: CallBuilder) -> str:
    return call.read().strip()


def _is_copy(call: CallBuilder, other: CallBuilder) -> bool:
    a, b = _bare(call), _bare(other)
    return call.free_text == other.free_text and (a == b or same_json(a, b))


def _is_sent_again(call: CallBuilder, delta: ToolCallDelta) -> bool:
    if delta.name != call.name or (delta.id and call.id and delta.id != call.id):
        return False
    mine, its = _bare(call), delta.arguments.strip()
    return is_object(its) and (mine == its or same_json(mine, its))


def _judge(
    call: CallBuilder, rival: CallBuilder, copies: set[CallBuilder], doubtful: set[CallBuilder]
) -> None:
    """Decide what a call is whose first piece may have belonged to the call before it."""
    same = call.name == rival.name and not (call.id and rival.id)
    if same and (_is_copy(call, rival) or (call.blank and not rival.blank)):
        copies.add(call)
    elif call.blank:
        doubtful.add(call)
        if call.index is not None and call.index == rival.moved_to:
            doubtful.add(rival)  # its arguments may be this call's
    elif rival.blank or (same and _bare(rival) in PLACEHOLDERS):
        doubtful.add(rival)


def _judge_group(
    group: list[CallBuilder], copies: set[CallBuilder], doubtful: set[CallBuilder]
) -> None:
    """Find the calls of one id and one name that are a beginning, or a copy, of another of them.

    LocalAI sends one call under several indexes; two parallel calls of one id differ.
    """
    for number, call in enumerate(group):
        mine = _bare(call)
        for at, other in enumerate(group):
            if at == number or other in copies or call.free_text != other.free_text:
                continue
            its = _bare(other)
            if mine == its and at > number:
                continue  # the first of two stays
            if its.startswith(mine):
                copies.add(call)
                break
            if mine in PLACEHOLDERS:
                doubtful.add(call)
