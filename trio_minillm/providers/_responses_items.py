"""The items of an OpenAI Responses answer: what came of each, so that nothing counts twice.

Everything in this format comes up to five times: in deltas, in the ``.done`` event of its text, in that
of its content part, in that of its item, and in the response at the end. Servers leave out any of them,
and recordings are trimmed. So the first that has a piece of content counts, and `Items`, the memory of
one stream, takes the others out.

Items are told apart by their index in the output. Servers also use one index for several items, leave
it out, or give an item another id in every event. So an index and an id are hints: where they fail, the
newest item of the same kind is meant, and in the list at the end the next one of that kind.

The deltas of a piece may stop before its end (xAI, relays). So the first that has it as a whole is held
against them (`Block.whole`), and what they lack counts, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any, Final

import msgspec

from .._types.chunks import Block, StreamChunk, ToolCallDelta
from .._types.errors import ProtocolError
from ._base import RepeatFilter

SECTIONS: Final = 4096
"""Numbers that each item has for its pieces of content."""
SUMMARIES: Final = SECTIONS // 2
"""The first of those that are pieces of a summary of reasoning."""
MAX_ITEMS: Final = 4096
"""Items in one answer, as many as `Ingest` keeps blocks."""

MESSAGE, REASONING, CALL = "message", "reasoning", "call"
"""Kinds of items whose content is read. All others are kept as they are."""
_TYPES: Final = {
    **{kind: kind for kind in (MESSAGE, REASONING)},
    **dict.fromkeys(("function_call", "custom_tool_call"), CALL),
}
_FIELDS: Final[dict[str, Any]] = {
    **dict.fromkeys(("delta", "reasoning", "refusal"), ""),
    **dict.fromkeys(("annotations", "images"), ()),
    **dict.fromkeys(("logprobs", "audio"), None),
}
"""Fields of `StreamChunk` with content, but for calls, and what they are without any."""
_SPOKEN: Final = ("delta", "reasoning", "refusal")
"""Those of them that are text."""


class ItemChunk(StreamChunk, kw_only=True, gc=False):
    """A chunk of an event that speaks of an item, until `Items` has found which one, and what is new."""

    index: int | None = None
    """Its index in the output, as far as the event says."""
    item_id: str | None = None
    kind: str = MESSAGE
    section: int = 0
    """Number of the piece of content in the item; from `SUMMARIES` on, it is one of the summary."""
    of: int = 0
    """The number of such pieces that the item has, where the event lists them all."""
    repeats: bool = False
    """True if it repeats what may have come before."""
    held: bool = False
    """True if it repeats what may come later: content that an item has when it is opened."""
    listed: bool = False
    """True if it is from the list of all items at the end, in which ``index`` is a place."""
    opened: dict[str, Any] | None = None
    """The item, in the event that opens it."""
    ended: dict[str, Any] | None = None
    """The item, in the event that ends it."""
    unreadable: str = ""
    """Name of a field with content that can't be read."""


def kind_of(item: Mapping[str, Any]) -> str:
    """Return the kind of an item: `MESSAGE`, `REASONING`, `CALL`, or its own type."""
    given = item.get("type")
    if isinstance(given, str) and given:
        return _TYPES.get(given, given)
    if "content" in item or item.get("role") == "assistant":
        return MESSAGE
    if "call_id" in item and "name" in item:
        return CALL
    return REASONING if "summary" in item else ""


class _Item:
    """One item of an answer so far. Its 15 attributes are what each of its events may repeat."""

    __slots__ = (
        *("alone", "begun", "call_id", "compared", "end", "ended", "head", "held", "id", "kind"),
        *("listed", "pieces", "said", "slots", "told"),
    )

    def __init__(self, kind: str, ident: str | None) -> None:
        self.kind = kind
        self.id = ident
        self.alone = True  # no item of its kind had its index before
        self.call_id = ""  # that of a call, which servers give where items have none
        self.slots: dict[int, int] = {}  # numbers of its blocks, by section
        self.said: set[tuple[int, str]] = set()  # sections and kinds of the content that came
        self.compared: dict[int, int] = {}  # sizes of the texts that came again, by block
        self.held: list[ItemChunk] = []
        self.pieces: list[str] = []  # texts with which its sections begin
        self.head: dict[str, Any] | None = None  # of a message, as its blocks have it
        self.told = ""  # the part of the reasoning that is shown: its text, or its summary
        self.begun = False  # it was opened by an event for that
        self.end: dict[str, Any] | None = None  # of an item that is kept as it came
        self.ended = False
        self.listed = False


class Items(RepeatFilter):
    """The memory of one stream: its items, and the number of the block that each piece belongs to.

    Blocks are numbered in the order in which they begin, whatever indexes the server gives.
    """

    def __init__(self) -> None:
        self._all: list[_Item] = []
        self._at: dict[tuple[int, str], _Item] = {}
        self._by_id: dict[str, _Item] = {}
        self._newest: dict[str, _Item] = {}  # by kind
        self._slots = 0
        # Blocks, by a piece's place and its field.
        self._ready: dict[tuple[int | None, str], int] = {}
        self._heard = False  # audio came

    def known(self, chunk: StreamChunk) -> bool:
        """Return whether a chunk's block is open; if so, put the chunk into it."""
        ready = self._ready.get((chunk.part, _field_of(chunk)))
        if ready is None:
            return False
        chunk.part = ready
        return True

    def note(self, chunk: StreamChunk) -> None:
        """Put a piece of an answer into its block. Almost all chunks are such pieces."""
        place = chunk.part
        if place is None:
            self._heard = self._heard or chunk.audio is not None
            return
        if self.known(chunk):
            return
        field = _field_of(chunk)
        index, section = divmod(place, SECTIONS)
        self._place(chunk, self._item(index, None, _KINDS[field]), section)
        if chunk.part is not None and not chunk.logprobs and section != SUMMARIES - 1:
            self._ready[place, field] = chunk.part

    def removed_from(
        self,
        parsed: StreamChunk | Sequence[StreamChunk],
        data: bytes,
        restored: Callable[[Any], Any],
    ) -> Sequence[StreamChunk]:
        """Return an event's chunks without what repeats the answer so far, and with the numbers of
        their blocks. Raises `ProtocolError` for content that can't be read and did not come before.
        """
        chunks = (parsed,) if isinstance(parsed, StreamChunk) else parsed
        out: list[StreamChunk] = []
        for chunk in chunks:
            if isinstance(chunk, ItemChunk):
                out += self._told_by(chunk)
                continue
            if chunk.end and not chunk.sentinel:
                out += self._held_back()
            self.note(chunk)
            out.append(chunk)
        return out

    # -- items -----------------------------------------------------------------------------

    def _item(self, index: int | None, ident: str | None, kind: str) -> _Item:
        """Return the item that an event speaks of; a new one if there is none."""
        if index is not None:
            there = self._at.get((index, kind))
            if there is not None:
                return there
        named = self._by_id.get(ident) if ident else None
        if named is not None and named.kind == kind:
            return named
        newest = self._newest.get(kind) if index is None else None
        return newest or self._open(index, ident, kind)

    def _open(self, index: int | None, ident: str | None, kind: str) -> _Item:
        if len(self._all) >= MAX_ITEMS:
            raise ProtocolError(f"the answer has more than {MAX_ITEMS:,} items")
        made = _Item(kind, None)
        made.alone = kind not in self._newest if index is None else (index, kind) not in self._at
        self._newest[kind] = made
        self._all.append(made)
        self._ready.clear()
        if index is not None:
            self._at[index, kind] = made
        self._name(made, ident)
        return made

    def _name(self, item: _Item, ident: str | None) -> None:
        if ident and item.id is None:
            item.id = ident
            self._by_id[ident] = item

    def _found(self, chunk: ItemChunk) -> _Item:
        """Return the item that a chunk speaks of."""
        index, ident, kind = chunk.index, chunk.item_id, chunk.kind
        named = self._by_id.get(ident) if ident else None
        if chunk.listed:
            if named is not None and named.kind == kind:
                return named
            left = (i for i in self._all if i.kind == kind and not i.listed)
            return next(left, None) or self._open(None, ident, kind)
        there = None if index is None else self._at.get((index, kind))
        other = there is not None and bool(ident and there.id) and ident != there.id
        if chunk.opened is not None:
            again = there is not None and not there.ended and not (other and there.begun)
            return there if there is not None and again else self._open(index, ident, kind)
        if chunk.ended is not None and there is not None and there.ended and other:
            return self._open(index, ident, kind)  # one index for all items
        if chunk.ended is not None and there is None and named is None:
            newest = self._newest.get(kind) if index is None else None
            return newest if newest and not newest.ended else self._open(index, ident, kind)
        return self._item(index, ident, kind)

    # -- chunks ----------------------------------------------------------------------------

    def _told_by(self, chunk: ItemChunk) -> Iterator[StreamChunk]:
        """Yield what is new in what an event says of an item."""
        item = self._found(chunk)
        self._name(item, chunk.item_id)
        if chunk.held:
            item.held.append(chunk)
            return
        if chunk.opened is not None:
            yield from self._begin(item, chunk, chunk.opened)
            return
        if chunk.repeats and (again := self._remove(chunk, item)):
            yield from self._compared(item, chunk, again)
        new = _plain(chunk)
        if item.kind in (MESSAGE, REASONING, CALL) and new.progress:
            self._place(new, item, chunk.section)
        if chunk.ended is not None:
            yield from self._end(item, chunk, chunk.ended, new)
        elif new.progress or new.unread:
            yield new

    def _begin(
        self, item: _Item, chunk: ItemChunk, opened: dict[str, Any]
    ) -> Iterator[StreamChunk]:
        """Yield the opening of an item; content in it waits for what follows."""
        item.begun = True
        if item.kind == MESSAGE:
            item.head = item.head or head_of(opened)
        elif item.kind == REASONING:
            block = Block(start={"type": REASONING})
            if not item.slots:
                yield StreamChunk(part=self._slot(item, 0), block=block, progress=False)
        elif item.kind == CALL:
            new = _plain(chunk)
            self._place(new, item, 0)
            yield new
        elif not item.slots:
            yield StreamChunk(part=self._slot(item, 0), block=Block(start=opened))

    def _end(
        self, item: _Item, chunk: ItemChunk, ended: dict[str, Any], new: StreamChunk
    ) -> Iterator[StreamChunk]:
        """Yield the end of an item: what it has become, and what only its end has."""
        told = item.head if item.ended else None
        item.ended, item.listed = True, item.listed or chunk.listed
        if item.kind == MESSAGE:
            head = head_of(ended)
            if head and told:  # with the id of its own end, as reasoning has
                head = {**head, **told}
            if head and head != item.head:
                item.head = head
                for slot in item.slots.values():
                    yield StreamChunk(part=slot, block=Block(delta={"item": head}), progress=False)
        elif item.kind != CALL and (more := _merged(item.end, ended)) is not None:
            item.end = more
            if item.kind == REASONING:
                more = {**more, "type": REASONING}
            if new.images:
                item.said.add((0, "images"))
            begun = bool(item.slots)
            new.part = self._slot(item, 0)
            new.block = Block(delta=more) if begun else Block(start=more)
            new.progress = item.kind != REASONING or bool(more.get("encrypted_content"))
            yield new
            return
        if new.progress or new.unread:
            yield new

    def _held_back(self) -> Iterator[StreamChunk]:
        """Yield the content that items had when they were opened, where none came later."""
        for item in self._all:
            held, item.held = item.held, []
            for chunk in held:
                self._remove(chunk, item)
                new = _plain(chunk)
                if new.progress:
                    self._place(new, item, chunk.section)
                    yield new

    def _compared(self, item: _Item, chunk: ItemChunk, again: str) -> Iterator[StreamChunk]:
        """Yield a chunk that has a text which came again, to be held against the pieces of its block.

        Nothing where that may be another block's: the item has another id, its end does not list its
        pieces as they came, or a later item may have what seems to be missing, since relays list one
        message with all texts.
        """
        slot = item.slots.get(chunk.section if item.kind == MESSAGE else 0)
        other = chunk.item_id and item.id and chunk.item_id != item.id
        pieces = {number for number, _ in item.said}
        longer = slot is not None and len(again) > item.compared.get(slot, 0)
        listed = max(chunk.of, 1) if item.kind == MESSAGE else 1  # others have one block for all
        last = item.kind == CALL or self._newest[item.kind] is item
        if slot is not None and longer and last and not other and len(pieces) <= listed:
            item.compared[slot] = len(again)
            yield StreamChunk(part=slot, block=Block(whole=again), progress=False)

    def _remove(self, chunk: ItemChunk, item: _Item) -> str:
        """Take out of a chunk what its item has said before. Return the text or the arguments of that."""
        said, section = item.said, _numbered_as_told(chunk, item.said)
        again = ""
        chunk.section = section
        if chunk.unreadable:
            if not said:
                raise ProtocolError(f"{chunk.unreadable} can't be read")
            chunk.unread = (*chunk.unread, chunk.unreadable)
        if chunk.audio and self._heard:
            chunk.audio = None
        if chunk.delta and len(item.pieces) > 1 and chunk.delta == "".join(item.pieces):
            # vLLM counts the content index on with each delta, and has one text at the end.
            chunk.delta, chunk.logprobs = "", None
        for name, nothing in _FIELDS.items():
            if (section, name) in said:
                again = again or (getattr(chunk, name) if name in _SPOKEN else "")
                setattr(chunk, name, nothing)
        if chunk.tool_calls:
            calls = chunk.tool_calls
            if (section, "arguments") in said:
                # A list need not have the order of the events, and an index need not tell calls apart.
                named = item.alone or chunk.item_id
                own = (item.call_id, None if named else item.call_id)
                same = [call for call in calls if not item.call_id or call.id in own]
                again = "".join(call.arguments for call in same)
                calls = tuple(msgspec.structs.replace(call, arguments="") for call in calls)
            if (section, "head") in said:
                calls = tuple(
                    msgspec.structs.replace(call, id=None, name=None, extra=None)
                    for call in calls
                    if call.arguments
                )
            chunk.tool_calls = calls
        return again

    def _place(self, chunk: StreamChunk, item: _Item, section: int) -> None:
        """Put content into its block, open that if it is new, and note what came."""
        if chunk.reasoning:
            part = "summary" if section >= SUMMARIES else "text"
            item.told = item.told or part
            if item.told != part:  # the same thoughts twice: the first of both is shown
                chunk.reasoning, chunk.part = "", None
                return
        number = section if item.kind == MESSAGE else 0
        new = number not in item.slots
        if chunk.delta:
            item.pieces.append(chunk.delta)
        chunk.part = self._slot(item, number)
        for name in _FIELDS:
            if getattr(chunk, name):
                item.said.add((section, name))
        self._heard = self._heard or chunk.audio is not None
        for call in chunk.tool_calls:
            if call.id and call.name:
                item.said.add((section, "head"))
                item.call_id = call.id
            if call.arguments:
                item.said.add((section, "arguments"))
        if new:
            chunk.block = _opening(chunk, item)
        elif chunk.annotations:
            chunk.block = Block(delta={"citations": list(chunk.annotations)})

    def _slot(self, item: _Item, section: int) -> int:
        found = item.slots.get(section)
        if found is None:
            found = item.slots[section] = self._slots
            self._slots += 1
        return found


_KINDS: Final = {
    **dict.fromkeys(("delta", "refusal", ""), MESSAGE),
    "reasoning": REASONING,
    "tool_calls": CALL,
}
"""The kinds of items that have a kind of content."""


def _field_of(chunk: StreamChunk) -> str:
    """Return the field of a chunk that says what its item is."""
    if chunk.delta:
        return "delta"
    if chunk.reasoning:
        return "reasoning"
    if chunk.tool_calls:
        return "tool_calls"
    return "refusal" if chunk.refusal else ""


def _merged(known: dict[str, Any] | None, ended: dict[str, Any]) -> dict[str, Any] | None:
    """Return an item with what this end of it has and those before lacked; ``None`` if that is nothing."""
    if known is None:
        return ended
    said = {name: value for name, value in ended.items() if value not in _EMPTY}
    other = known.get("id") and said.get("id", known["id"]) != known["id"]
    new = any(known.get(name) in _EMPTY for name in said)
    return {**known, **said} if new and not other else None


_EMPTY: Final[tuple[Any, ...]] = (None, "", [], {})


def _numbered_as_told(chunk: ItemChunk, said: Set[tuple[int, str]]) -> int:
    """Return the section of a listed piece of content, as the pieces of its item were numbered so far.

    Bedrock counts a message's pieces on from those of the reasoning before it, and lists them from 0.
    So if a number came that the list can't have, the first piece listed is the first that came.
    """
    section = chunk.section
    base = SUMMARIES if section >= SUMMARIES else 0
    if not chunk.of:
        return section
    told = sorted({number for number, _ in said if base <= number < base + SUMMARIES})
    if not told or told[-1] - base < chunk.of or section - base >= len(told):
        return section
    return told[section - base]


def _opening(chunk: StreamChunk, item: _Item) -> Block:
    """Return the opening of a block for a chunk's content."""
    if item.kind == CALL:
        return Block(start={"type": "tool_use"})
    if item.kind == REASONING:
        return Block(start={"type": REASONING})
    start: dict[str, Any] = {"type": "refusal" if chunk.refusal else MESSAGE}
    if item.head:
        start["item"] = item.head
    if chunk.annotations:
        start["citations"] = list(chunk.annotations)
    return Block(start=start)


def _plain(chunk: ItemChunk) -> StreamChunk:
    """Return a chunk for the consumer, which has nothing of how the event was laid out."""
    new = StreamChunk(
        chunk.delta,
        chunk.reasoning,
        chunk.refusal,
        chunk.tool_calls,
        annotations=chunk.annotations,
        logprobs=chunk.logprobs,
        audio=chunk.audio,
        images=chunk.images,
        unread=chunk.unread,
    )
    new.progress = bool(new.tool_calls) or any(getattr(new, name) for name in _FIELDS)
    return new


def head_of(item: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fields of a message, or of a call, that are sent back beside its content."""
    return {name: item[name] for name in _HEAD if isinstance(item.get(name), str | dict)} or None


_HEAD: Final = ("id", "phase", "caller", "namespace")


def call_in(
    item: Mapping[str, Any], index: int | None, name: str, ident: str, arguments: str
) -> ToolCallDelta:
    """Return a call's item as a piece of a call."""
    head = head_of(item)
    kind = "custom" if item.get("type") == "custom_tool_call" else "function"
    extra = {"item": head} if head else None
    return ToolCallDelta(index, ident or None, name or None, arguments, kind, extra)
