"""Promises for single events: malformed ones, unusual ones, and tool calls; see `promises`."""

from __future__ import annotations

from typing import Any

import msgspec

import trio_minillm as llm
from trio_minillm.testing import eof, sse

from .promises import (
    PIECES,
    SO_FAR,
    WHOLE,
    NotOnThisWireError,
    Promises,
    Said,
    Sees,
    Wire,
    errored,
    finished,
    truncated,
)

EVENTS = Promises()
promise = EVENTS.add


def data(text: str | bytes) -> bytes:
    return b"data: " + (text if isinstance(text, bytes) else text.encode()) + b"\n\n"


def with_usage(w: Wire, value: Any) -> bytes:
    if w.anthropic:
        return w.event("message_delta", delta={}, usage={"output_tokens": value})
    if w.gemini:
        return sse({"usageMetadata": {"candidatesTokenCount": value}})
    if w.responses:  # only its last event counts
        raise NotOnThisWireError
    return sse({"choices": [], "usage": {"completion_tokens": value}})


# fmt: off
# -- malformed -------------------------------------------------------------------------------------

MALFORMED = "Malformed events in the middle of an answer"
BAD = errored("ProtocolError event {bad}", connection=None)


def bad(fault: str, event: Any, wires: str = "") -> None:
    promise(MALFORMED, fault, lambda w: [*w.head, event(w) if callable(event) else event, *w.rest],
            BAD, wires=wires)


bad("not JSON", data("{choices: []}"))
bad("half of an event's JSON", lambda w: w.says("lost").replace(b"}\n\n", b"\n\n"))
bad("JSON, and more after it", lambda w: w.says("lost").replace(b"}\n\n", b"} {}\n\n"))
bad("an unescaped line end in the text", lambda w: w.says("lost").replace(b"lost", b"lo\nst"))
bad("two events in the data of one, longer than 64 KiB", lambda w: w.says("a" * 2**16).rstrip()
    + w.says("b").partition(b"data: ")[2])
bad("an object as the text", lambda w: w.says({"a": 1}))
bad("100,000 nested brackets", data("[" * 100_000))
bad("100,000 nested brackets as the text", lambda w: w.says(7).replace(b":7", b":" + b"[" * 100_000))
bad("a finish reason that is an object without a known reason in it",
    lambda w: w.event("message_delta", delta={"stop_reason": {"type": {"a": 7}}})
    if w.anthropic else w.ends("completed", status={"type": {"a": 7}}) if w.responses
    else w.candidate(reason={"type": {"a": 7}}) if w.gemini else w.choice({}, {"type": {"a": 7}}))
bad("a choice has a negative index", lambda w: w.candidate({"text": "lost"}, inner={"index": -1})
    if w.gemini else w.choice({"content": "lost"}, index=-1), "openai gemini")
promise(MALFORMED, "a line longer than `Bounds.event`", lambda w: [*w.head, w.says("a" * 2**20), *w.rest],
        lambda w: errored(f"LimitExceeded bytes in one {'event' if w.array else 'line'}")(w),
        options={"bounds": llm.Bounds(event=2**19)})
promise(MALFORMED, "the body ends in the middle of the last event",
        lambda w: [*w.head, b"data: {broken"], truncated("EndedEarly", connection="kept"))
promise(MALFORMED, "any of these as the first event", lambda w: [data("{"), *w.whole],
        lambda w: Sees("errored", "ProtocolError event 1", text="", usage="unknown"))
promise(MALFORMED, "any of these after the finish reason", lambda w: [
    *w.head, w.says(PIECES[3]), *w.tail(usage=False, end=False), data("{"),
    *w.tail()[1 if w.anthropic else 0:]], finished(skipped=1, notes="after the finish reason"))
promise(MALFORMED, "with `lenient=True`: skipped and counted",
        lambda w: [*w.head, data("{"), data("{"), *w.rest], finished(skipped=2, notes="malformed"),
        options={"lenient": True})
promise(MALFORMED, "with `lenient=True`: a choice has a negative index",
        lambda w: [*w.head, w.candidate({"text": "lost"}, inner={"index": -1}) if w.gemini
                   else w.choice({"content": "lost"}, index=-1), *w.rest], finished(skipped=1),
        options={"lenient": True}, wires="openai gemini")
promise(MALFORMED, "with `lenient=True`: an error event",
        lambda w: [*w.head, data("{"), w.error(529), *w.rest],
        errored("ProviderError overloaded", skipped=1), options={"lenient": True})

# -- plain in meaning, or beside the answer ---------------------------------------------------------

ODD = "Quirks that do not cost the answer"


def spared(fault: str, event: Any, wires: str = "", **more: Any) -> None:
    promise(ODD, fault, lambda w: [*w.head, event(w) if callable(event) else event, *w.rest],
            finished(**more), wires=wires)


def with_more(text: str) -> str:
    return SO_FAR + text + PIECES[3]


spared("a keep-alive as data (`data: : keepalive`)", data(": keepalive"), skipped=1, notes="not JSON")
spared("… other words", data("ping"), skipped=1, notes="not JSON")
spared("… `null`", data("null"), skipped=1)
spared("… a number", data("7"), skipped=1)
spared("… a string", data('"text"'), skipped=1)
spared("… `true`", data("true"), skipped=1)
spared("… an empty list", data("[]"), skipped=1)
spared("… words in brackets", data("[ping]"), skipped=1, notes="not JSON")
spared("… an object of an unknown shape", data('{"keepalive": 1}'))
spared("… in braces, but not JSON", data("{keepalive}"), skipped=1, notes="not JSON")
spared("… with another language's quotes", data("{'ping': 1}"), skipped=1, notes="not JSON")
spared("… an object that does not end", data('{"ping": true'), skipped=1, notes="not JSON")
spared("a side field that nests 3,000 levels deep", lambda w: w.says("more").replace(
    b"{", b'{"zzz":' + b"[" * 3000 + b"]" * 3000 + b",", 1), text=with_more("more"), notes="too deep")
spared("an event of an unknown shape that nests 5,000 levels deep",
       data('{"type":"news","zzz":' + "[" * 5000 + "]" * 5000 + "}"), notes="too deep")
promise(ODD, "data without its field name (`{…}` for `data: {…}`)",
        lambda w: [*w.head, w.says("more").partition(b"data: ")[2], *w.rest],
        finished(text=with_more("more")))
spared("bytes in the text that are not UTF-8", lambda w: w.says("lost").replace(b"lost", b"l\xffst"),
       text=with_more("l\ufffdst"), notes="UTF-8")
spared("half of a surrogate pair in the text", lambda w: w.says("lost").replace(b"lost", b"\\ud83d"),
       text=with_more("\ufffd"), notes="surrogate")
promise(ODD, "the halves of a surrogate pair in two events", lambda w: [*w.head, *(
    w.says("lost").replace(b"lost", half) for half in (b"\\ud83d", b"\\ude00")), *w.rest],
    finished(text=with_more("\U0001f600")))
promise(ODD, "the first half of a surrogate pair, at the end of the text", lambda w: [
    *w.head, w.says(PIECES[3]), w.says("lost").replace(b"lost", b"\\ud83d"), *w.tail()],
    finished(notes="surrogate"))
promise(ODD, "the text at the start of its block, and again in pieces", lambda w: [
    w.opening[0], w.adds(w.item()) if w.responses else w.opens("text", text=WHOLE),
    *map(w.says, PIECES), *w.tail()],
    finished(notes=lambda w: "" if w.responses else "again"), wires="anthropic responses")
spared("a control character in the text", lambda w: w.says("lost").replace(b"lost", b"l\x01st"),
       text=with_more("l\x01st"))
spared("an array of one event", lambda w: w.says("more").replace(b"data: ", b"data: [")
    .replace(b"}\n\n", b"}]\n\n"), text=with_more("more"))
spared("events without a blank line between them", lambda w: w.says("a")[:-1] + w.says("b"),
       "openai gemini", text=with_more("ab"))
spared("the field name repeated in the data (`data: data: …`)",
       lambda w: w.says("more").replace(b"data: ", b"data: data: "), text=with_more("more"))
spared("two events in the data of one", lambda w: w.says("a").rstrip() + w.says("b").partition(b"data: ")[2],
       text=with_more("ab"))
spared("an event's JSON as a JSON string", lambda w: data(msgspec.json.encode(
    w.says("more").partition(b"data: ")[2].strip().decode())), "openai", text=with_more("more"))
spared("spaces before the field name", lambda w: b" \xe2\x80\x8b" + w.says("more").replace(
    b"\ndata:", b"\n data:"), text=with_more("more"))
spared('an event inside another object (`{"result": …}`)', lambda w: data(
    b'{"result":' + w.says("more").partition(b"data: ")[2].strip() + b"}"), "openai", text=with_more("more"))
spared("100,000 objects in a field next to the text", lambda w: w.says("more").replace(
    b'"choices"', b'"zzz":[' + b"{}," * 110_000 + b'0],"choices"', 1), "openai",
    text=with_more("more"), notes="beyond the limits")
spared("a byte-order mark before an event", lambda w: b"\xef\xbb\xbf" + w.says("more"),
       text=with_more("more"))
spared("a number as the text", lambda w: w.says(7), text=with_more("7"))
spared("… with a fraction, kept as sent", lambda w: w.says(7).replace(b":7", b":1.10"),
       text=with_more("1.10"))
spared("… `NaN`", lambda w: w.says(7).replace(b":7", b":NaN"), text=with_more("NaN"))
spared("… of 10,000 digits", lambda w: w.says(7).replace(b":7", b":" + b"7" * 10_000),
       text=with_more("7" * 10_000))
spared("`true` as the text", lambda w: w.says(True), text=with_more("true"))
spared("a list of numbers as the text", lambda w: w.says([1]), "openai", text=with_more("1"))
spared('a finish reason that is empty or `"null"`', lambda w: w.event(
    "message_delta", delta={"stop_reason": "null"}) if w.anthropic else w.candidate(reason="")
    + w.candidate(reason="null") if w.gemini else w.choice({}, "null"))
spared("usage that is a list", lambda w: w.event("message_delta", delta={}, usage=[])
    if w.anthropic else w.candidate(usageMetadata=[]) if w.gemini
    else sse({"choices": [], "usage": []}), "openai anthropic gemini")
spared("… that is text", lambda w: w.event("message_delta", delta={}, usage="x")
    if w.anthropic else w.candidate(usageMetadata="x") if w.gemini
    else sse({"choices": [], "usage": "x"}), "openai anthropic gemini",
    notes=lambda w: "usageMetadata" if w.gemini else "usage")
spared("a `message` instead of a delta", sse({"choices": [{"message": {"content": "more"}}]}),
       "openai", text=with_more("more"))
spared("text in an object (`content: {\"content\": …}`)", lambda w: w.choice({"content": {"content": "more"}}),
       "openai", text=with_more("more"))
spared("text in a part under another name", lambda w: w.choice({"content": [
    {"type": "text", "value": "mo"}, {"type": "text", "content": "re"}]}), "openai", text=with_more("more"))
spared("text in a part of an unknown type", lambda w: w.choice({"content": [{"type": "news", "text": "more"}]}),
       "openai", text=with_more("more"))
promise(ODD, "the text in the delta's `text`", lambda w: [
    *w.opening, *(w.choice({"text": p}) for p in PIECES), *w.tail()], finished(), wires="openai")
promise(ODD, "… in its `message`", lambda w: [
    *w.opening, *(w.choice({"message": {"content": p}}) for p in PIECES), *w.tail()], finished(), wires="openai")
promise(ODD, "… in the choice (`choices[].content`)", lambda w: [
    *w.opening, *(w.choice({}, content=p) for p in PIECES), *w.tail()], finished(), wires="openai")
spared("the text so far repeated in a `message` next to an empty delta",
       lambda w: w.choice({}, message={"content": SO_FAR}), "openai", notes="another place")
spared("text in a delta under an unknown name", lambda w: w.choice({"smell": "lost"}), "openai",
       notes="choices[].delta.smell")
spared("reasoning under other names (`thoughts`, `reason_content`, `thinking_content`)",
       lambda w: w.choice({"thoughts": "a"}) + w.choice({"content": "", "reason_content": "b"})
       + w.choice({"thinking_content": "c"}), "openai", reasoning="abc")
spared("reasoning in Bedrock's objects", lambda w: w.choice({"reasoningContent": {"text": "a"}}) + w.choice(
    {"reasoning": {"reasoningText": "b"}}) + w.choice({"content": [
        {"reasoningContent": {"reasoningText": {"text": "c"}}}]}), "openai", reasoning="abc")
spared("text in a list of parts", lambda w: w.says([{"type": "text", "text": "more"}]),
       "anthropic responses gemini", text=with_more("more"))
spared("text instead of a delta", lambda w: w.event("content_block_delta", index=0, delta="more"),
       "anthropic", text=with_more("more"))
spared("text in a delta of an unknown type", lambda w: w.changes("news_delta", text="more"), "anthropic",
       text=with_more("more"))
spared("a warning in `error`, next to text", lambda w: sse(
    {"error": "warning: slow", "choices": [{"index": 0, "delta": {"content": "more"}}]}), "openai",
    text=with_more("more"))
spared("a success code with each piece (iFlytek, MiniMax)", lambda w: sse(
    {"code": 0, "base_resp": {"status_code": 0, "status_msg": ""},
     "choices": [{"index": 0, "delta": {"content": "more"}}]}), "openai", text=with_more("more"))
spared("choices that are empty text, or `false`", sse({"choices": ""}), "openai")
spared("a refusal that is an empty list or object", sse({"choices": [{"index": 0, "delta": {"refusal": []}}]}), "openai")
spared("an error that is the word `null` or an empty list",
       sse({"error": [None], "choices": [{"index": 0, "delta": {}, "error": "null"}]}), "openai")
spared("a delta that is `false`", sse({"choices": [{"index": 0, "delta": False}]}), "openai")
spared("a negative count of tokens", lambda w: with_usage(w, -1))
spared("… that is text", lambda w: with_usage(w, "x"))
spared("… of 10,000 digits", lambda w: with_usage(w, 7).replace(b":7", b":" + b"7" * 10_000))
spared("… of 1e300", lambda w: with_usage(w, 1e300))
spared("… that is `true`", lambda w: with_usage(w, True))
spared("`choices` is an object", sse({"choices": {"delta": {"content": "more"}}}), "openai",
       text=with_more("more"))
spared("a choice is `null`", sse({"choices": [None]}), "openai")
spared("a delta is a list", lambda w: w.choice([]), "openai")
spared("… is text", lambda w: w.choice("more"), "openai", text=with_more("more"))
spared("an index that is text", lambda w: w.choice({"content": "more"}, index="0"), "openai",
       text=with_more("more"))
for field in ("logprobs", "native_finish_reason"):
    spared(f"`{field}` of the wrong type", lambda w, field=field: w.choice({}, **{field: [0.5]}),
           "openai", notes=field)
spared("reasoning that is an object without text", lambda w: w.choice({"reasoning": {"a": 1}}),
       "openai", notes="reasoning")
spared("an event without a type", sse({}), "anthropic")
spared("… whose type is `null`", sse({"type": None}), "anthropic")
spared("a delta without an index", lambda w: w.delta("output_text", "more", None)
       if w.responses else w.changes("text_delta", None, text="more"), "anthropic responses",
       text=with_more("more"))
spared("… with an index that is text", lambda w: w.delta("output_text", "more", "0")
       if w.responses else w.changes("text_delta", "0", text="more"), "anthropic responses",
       text=with_more("more"))
spared("a delta event without a delta", lambda w: w.event("output_text.delta", output_index=0)
       if w.responses else w.event("content_block_delta", index=0), "anthropic responses")
spared("a delta without a type",
       lambda w: w.event("content_block_delta", index=0, delta={"text": "more"}), "anthropic",
       text=with_more("more"))
spared("a text delta without text", lambda w: w.changes("text_delta"), "anthropic")
spared("a block that starts without a type",
       lambda w: w.event("content_block_start", index=1, content_block={}), "anthropic",
       notes="content_block")
spared("… without a block", lambda w: w.event("content_block_start", index=1), "anthropic",
       notes="content_block")

# -- unusual, and right ----------------------------------------------------------------------------

UNUSUAL = "Unusual but valid answers"


def odd(fault: str, events: Any, wires: str = "", **more: Any) -> None:
    promise(UNUSUAL, fault, events, finished(**more), wires=wires)


def within(*events: bytes) -> Any:
    return lambda w: [*w.head, *events, *w.rest]


def lines(w: Wire, end: bytes) -> list[bytes]:
    return [event.replace(b"\n", end) for event in w.whole]


odd("lines end with CR LF", lambda w: lines(w, b"\r\n"))
odd("lines end with CR", lambda w: lines(w, b"\r"))
odd("one byte at a time", lambda w: [bytes([b]) for b in b"".join(w.whole)])
odd("a long event split between two reads, and short ones after it", lambda w: [
    *w.head, w.says("long " * 2000)[:6000], w.says("long " * 2000)[6000:] + b"".join(w.rest)],
    text=SO_FAR + "long " * 2000 + PIECES[3])
odd("a byte-order mark at the beginning", lambda w: [b"\xef\xbb\xbf", *w.whole])
odd("an event spread over several `data:` lines",
    lambda w: [e.replace(b'"text_delta",', b'"text_delta",\ndata:')
               .replace(b'"output_index":', b'"output_index":\ndata:')
               .replace(b'"candidates":', b'"candidates":\ndata: ')
               .replace(b'"choices":', b'"choices":\ndata: ') for e in w.whole])
odd("no space after the colon", lambda w: [e.replace(b"data: ", b"data:") for e in w.whole])
odd("comments, `id:`, `retry:`, and empty `data:` between events",
    within(b": OPENROUTER PROCESSING\n\n", b"id: 7\n\n", b"retry: 99\n\n", b"data:\n\n", b"\n\n"))
odd("hundreds of blank lines", within(b"\n" * 300))
odd("Unicode line separators and control characters in the text (U+2028, U+0085, NUL)",
    lambda w: [*w.opening, w.says("a\u2028b\u0085c\0d"), *w.tail()], text="a\u2028b\u0085c\0d")
odd("an escaped surrogate pair", lambda w: [
    *w.opening, w.says("x").replace(b'"x"', b'"\\ud83d\\ude00"'), *w.tail()], text="\U0001f600")
odd("an event with an unknown name, with text", within(b"event: news\ndata: hello\n\n"), "openai")
odd("an event of an unknown type", lambda w: [*w.head, w.event("news", what=[1]), *w.rest],
    "anthropic responses")
odd("… whose known fields have the wrong type",
    lambda w: [*w.head, w.event("news", index="a", delta="b", message=[], content_block=7, item=1,
                                response=[], output_index="x"), *w.rest],
    "anthropic responses")
odd("a proxy's keep-alive events (`event: keepalive`)",
    within(*[b"event: keepalive\ndata: " + d + b"\n\n" for d in (b"{}", b"", b"alive", b"[1]", b"7")]))
odd("a delta of an unknown type", lambda w: [*w.head, w.changes("smell_delta", smell="a"), *w.rest],
    "anthropic")
odd("… whose fields have the wrong type",
    lambda w: [*w.head, w.changes("smell_delta", text=7, thinking=[1]), *w.rest], "anthropic")
odd("a block of an unknown type", lambda w: [*w.head, w.opens("smell", 1), w.changes("smell_delta", 1),
    *w.rest], "anthropic")
odd("text for a block that never started", lambda w: [
    *w.head, w.changes("text_delta", 7, text="odd"), *w.rest], "anthropic", text=WHOLE + "odd")
odd("text before its block starts", lambda w: [w.opening[0], *map(w.says, PIECES), *w.tail()],
    "anthropic")
odd("pings everywhere", lambda w: [x for e in w.whole for x in (w.event("ping"), e)], "anthropic")
odd("no choices in the first event (Azure)", lambda w: [
    sse({"choices": [], "prompt_filter_results": []}), *w.whole], "openai")
odd("`content: null`, an empty delta, `delta: null`, and no delta", lambda w: [
    *w.head, w.says(None), w.choice({}), w.choice(None), sse({"choices": [{"index": 0}]}), *w.rest],
    "openai")
odd("`choices: null`, and an empty object", within(sse({"choices": None}), sse({})), "openai")
odd("the index of the choice is `null`", lambda w: [
    *w.opening, *(w.choice({"content": p}, index=None) for p in PIECES), *w.tail()], "openai")
odd("a choice that was not requested", lambda w: [
    *w.head, w.choice({"content": "other"}, index=1), *w.rest], "openai")
odd("usage with the finish reason (llama.cpp, Mistral)", lambda w: [*w.head, w.says(PIECES[3]), sse(
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
     "usage": {"prompt_tokens": 7, "completion_tokens": 5}}), sse("[DONE]")], "openai")
odd("provisional usage on every event (vLLM)", lambda w: [
    *w.opening, *(sse({"choices": [{"index": 0, "delta": {"content": p}}],
                       "usage": {"prompt_tokens": 7, "completion_tokens": n}})
                  for n, p in enumerate(PIECES)), *w.tail()], "openai")
odd("`usage: null` on every event", lambda w: [
    *w.opening, *(sse({"choices": [{"index": 0, "delta": {"content": p}}], "usage": None})
                  for p in PIECES), *w.tail()], "openai")
odd("`[DONE]` with spaces around it", lambda w: [*w.whole[:-1], b"data:   [DONE]  \n\n"], "openai")
odd("`[DONE]` in a format without it", lambda w: [
    *(w.whole[:-1] if w.anthropic else w.whole), sse("[DONE]")], "anthropic responses gemini")
odd("reasoning under two names at once", lambda w: [*w.opening, *(w.choice(
    {"reasoning": p, "reasoning_content": p}) for p in PIECES), *w.tail()], "openai",
    text="", reasoning=WHOLE)
odd("alternating text and reasoning", lambda w: [
    *w.opening, *(e for p in PIECES for e in (w.says(p), w.thinks(p))), *w.tail()],
    reasoning=WHOLE)
odd("text as a list of parts (Mistral)", lambda w: [*w.opening, *(w.choice(
    {"content": [{"type": "text", "text": p}]}) for p in PIECES), *w.tail()], "openai")
odd("unknown fields at every level", lambda w: [
    e.replace(b'{"', b'{"zzz":[{"a":null}],"') for e in w.whole])
odd("a complete answer as one event of the stream",
    lambda w: [sse(w.whole_body()), sse("[DONE]")] if w.kind != "openai" else [
        sse({"object": "chat.completion", "choices": [{"index": 0, "finish_reason": "stop",
             "message": {"role": "assistant", "content": WHOLE}}],
             "usage": {"prompt_tokens": 7, "completion_tokens": 5}}), sse("[DONE]")],
    "openai responses gemini")

# -- tool calls ------------------------------------------------------------------------------------

CALLS = "Tool calls"
ARGS = '{"city": "Paris"}'
_ = msgspec.UNSET


def piece(w: Wire, index: Any = _, id: Any = _, name: Any = _, args: Any = _) -> bytes:
    """A piece of a call on OpenAI's wire; what is not given is absent."""
    inner = {k: v for k, v in (("name", name), ("arguments", args)) if v is not _}
    call = {"index": index, "id": id, "function": inner or _}
    return w.choice({"tool_calls": [{k: v for k, v in call.items() if v is not _}]})


def calls(
    fault: str, pieces: list[tuple[Any, ...]], *good: tuple[str, str],
    bad: tuple[tuple[str, str], ...] = (), reason: str = "tool_calls",
) -> None:
    """Of OpenAI's wire."""
    promise(CALLS, fault, lambda w: [*w.opening, *(piece(w, *p) for p in pieces), *w.tail(reason)],
            finished(text="", reason=reason, calls=good, bad_calls=bad), wires="openai")


A, B, ONE, TWO = ("a", ARGS), ("b", "{}"), '{"city":', ' "Paris"}'
calls("two calls with interleaved pieces", [
    (0, "c1", "a", ""), (1, "c2", "b", ""), (0, _, _, ONE), (1, _, _, "{"), (0, _, _, TWO),
    (1, _, _, "}")], A, B)
calls("no index (Gemini)", [(_, "c1", "a", ONE), (_, _, _, TWO), (_, "c2", "b", "{}")], A, B)
calls("the index is `null`", [(None, "c1", "a", ONE), (None, _, _, TWO), (None, "c2", "b", "{}")], A, B)
calls("the same index for all (Ollama)", [(0, "c1", "a", ARGS), (0, "c2", "b", "{}")], A, B)
calls("… and no id", [(0, _, "a", ARGS), (0, _, "b", "{}")], A, B)
calls("negative indexes", [(-1, "c1", "a", ONE), (-2, "c2", "b", "{}"), (-1, _, _, TWO)], A, B)
calls("an index of 1,000,000,000", [(10**9, "c1", "a", ONE), (10**9, _, _, TWO)], A)
calls("calls out of order, kept as sent", [(5, "c2", "b", "{}"), (1, "c1", "a", ARGS)], B, A)
calls("no id at all", [(0, _, "a", ONE), (0, _, _, TWO), (1, _, "b", "{}")], A, B)
calls("the id `\"null\"` (Mistral)", [(0, "null", "a", ARGS), (1, "null", "b", "{}")], A, B)
calls("empty ids and names in later pieces", [(0, "c1", "a", ONE), (0, "", "", TWO)], A)
calls("id and name repeated with every piece", [(0, "c1", "a", ONE), (0, "c1", "a", TWO)], A)
calls("a different id with every piece", [(0, "c1", "a", ONE), (0, "c2", _, TWO)], A)
calls("the index changes with every piece", [(0, "c1", "a", ONE), (1, "c1", _, TWO)], A)
calls("the name after the arguments", [(0, "c1", _, ONE), (0, _, "a", TWO)], A)
calls("no name", [(0, "c1", _, ARGS)], bad=(("", ARGS),))
calls("no arguments", [(0, "c1", "a")], ("a", ""))
calls("arguments that are `null`", [(0, "c1", "a", None)], ("a", ""))
calls("arguments that are an object", [(0, "c1", "a", {"city": "Paris"})], ("a", '{"city":"Paris"}'))
calls("arguments that are not JSON", [(0, "c1", "a", "city=Paris")], bad=(("a", "city=Paris"),))
calls("arguments that are not an object", [(0, "c1", "a", "[1]")], bad=(("a", "[1]"),))
calls("arguments that are cut, with the finish reason `length`", [(0, "c1", "b", "{}"), (1, "c2", "a", ONE)],
      bad=(B, ("a", ONE)), reason="length")
calls("a complete call, with the finish reason `content_filter`", [(0, "c1", "a", ARGS)], bad=(A,), reason="content_filter")
calls("a call without arguments, with an unknown finish reason", [(0, "c1", "a", "")],
      bad=(("a", ""),), reason="tired")
calls("the name repeated with every piece (MiniMax)", [
    (0, "c1", "a", ""), (0, _, "a", ONE), (0, _, "a", TWO), (0, _, "a", "")], A)
calls("the name in pieces", [(0, "c1", "get_", ""), (0, _, "weather", ""), (0, _, _, ARGS)], ("get_weather", ARGS))
calls("one id for two calls (DeepSeek, GLM)", [(0, "c1", "a", ARGS), (1, "c1", "b", "{}")], A, B)
calls("one id and one index for two calls (through OpenRouter)", [
    (0, "c1", "a", ARGS), (0, "c1", "b", "{}")], A, B)
calls("one call under two indexes (LocalAI)", [(0, "c1", "a", ""), (1, "c1", "a", ARGS)], A)
calls("the arguments repeated at the end", [(0, "c1", "a", ""), (0, _, _, ONE), (0, _, _, TWO), (0, _, _, ARGS)], A)
calls("all arguments so far with every piece", [(0, "c1", "a", ""), (0, _, _, ONE), (0, _, _, ARGS)], A)
calls("`{}`, then the arguments (Bedrock)", [(0, "c1", "a", "{}"), (0, _, _, ONE), (0, _, _, TWO)], A)
calls("the arguments, then `{}`", [(0, "c1", "a", ONE), (0, _, _, TWO), (0, _, _, "{}")], A)
calls("the arguments `\"null\"`", [(0, "c1", "a", "null")], ("a", ""))
calls("two different objects as arguments", [(0, "c1", "a", ARGS), (0, _, _, '{"city": "Rome"}')],
      bad=(("a", ARGS + '{"city": "Rome"}'),))
calls("a piece that says nothing", [(0, _, _, ""), (0, "c1", "a", ARGS), (1, _, _, "")], A)
calls("a name of only spaces", [(0, "c1", " ", ARGS)], bad=(("", ARGS),))
calls("a call, but the finish reason is `stop`", [(0, "c1", "a", ARGS)], A, reason="stop")
calls("100,000 nested brackets as arguments", [(0, "c1", "a", "[" * 100_000)],
      bad=(("a", "[" * 100_000),))
calls("arguments that are a number", [(0, "c1", "a", 7)], bad=(("a", "7"),))
promise(CALLS, "a call that is `null`", lambda w: [*w.head, w.choice({"tool_calls": [None]}), *w.rest],
        finished(), wires="openai")
promise(CALLS, "129 calls", lambda w: [
    *w.opening, *(piece(w, n, f"c{n}", "a", "{}") for n in range(129)), *w.tail("tool_calls")],
    errored("LimitExceeded tool calls", text="", bad_calls=(("a", "{}"),) * 128), wires="openai")
promise(CALLS, "the connection breaks after a complete call",
        lambda w: [*w.opening, piece(w, 0, "c1", "a", ARGS), eof],
        truncated("ConnectionCut", text="", bad_calls=(A,)), wires="openai")


def blocks(
    fault: str, events: Any, *good: tuple[str, str], bad: tuple[tuple[str, str], ...] = (),
    reason: str = "tool_use", sees: Said | None = None,
) -> None:
    """Of Anthropic's wire."""
    promise(CALLS, fault, lambda w: [w.opening[0], *events(w), *w.tail(reason)[1:]],
            sees or finished(text="", reason=reason, calls=good, bad_calls=bad), wires="anthropic")


def call(w: Wire, index: Any, name: str, *pieces: str, **more: Any) -> list[bytes]:
    start = w.opens("tool_use", index, **{"id": f"c{index}", "name": name, "input": {}, **more})
    return [start, *(w.changes("input_json_delta", index, partial_json=p) for p in pieces)]


blocks("two blocks with interleaved pieces", lambda w: [
    e for pair in zip(call(w, 0, "a", ONE, TWO), call(w, 1, "b", "{", "}"), strict=True)
    for e in pair], A, B)
blocks("a block without arguments", lambda w: call(w, 0, "a"), ("a", ""))
blocks("a block with its arguments from the start", lambda w: call(w, 0, "a", input={"city": "Paris"}),
       ("a", '{"city":"Paris"}'))
blocks("blocks out of order, kept as sent", lambda w: [*call(w, 5, "b", "{}"), *call(w, 1, "a", ARGS)],
       B, A)
blocks("two blocks with the same index", lambda w: [*call(w, 0, "a", ARGS), *call(w, 0, "b", "{}")], A, B)
blocks("negative indexes", lambda w: [*call(w, -1, "a", ARGS), *call(w, -2, "b", "{}")], A, B)
blocks("an index of 1,000,000,000", lambda w: call(w, 10**9, "a", ONE, TWO), A)
blocks("a block without id", lambda w: call(w, 0, "a", ARGS, id=None), A)
blocks("a block without name", lambda w: call(w, 0, "", ARGS), bad=(("", ARGS),))
blocks("arguments for a block that never started", lambda w: [
    *call(w, 0, "a", ARGS), w.changes("input_json_delta", 7, partial_json="{}")], A, bad=(("", "{}"),))
blocks("arguments that are not JSON", lambda w: call(w, 0, "a", "city"), bad=(("a", "city"),))
blocks("arguments that are cut, with the finish reason `max_tokens`", lambda w: [
    *call(w, 0, "b", "{}"), *call(w, 1, "a", ONE)], bad=(B, ("a", ONE)), reason="max_tokens")
blocks("a complete block, with the stop reason `refusal`", lambda w: call(w, 0, "a", ARGS), bad=(A,), reason="refusal")
blocks("one id for two blocks (Kimi)", lambda w: [
    *call(w, 0, "a", ARGS), *call(w, 1, "b", "{}", id="c0")], A, B)
blocks("arguments from the start, and again in pieces", lambda w: call(
    w, 0, "a", ONE, TWO, input={"city": "Paris"}), A)
blocks("no arguments yet, with the finish reason `max_tokens`", lambda w: call(w, 0, "a"), bad=(("a", ""),),
       reason="max_tokens")
blocks("the index is `null`", lambda w: call(w, None, "a", ARGS), A)
