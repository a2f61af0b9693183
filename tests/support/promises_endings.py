"""Promises for faults of HTTP, for the endings of answers, and for silence; see `promises`."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import msgspec

import trio_minillm as llm
from trio_minillm.testing import Reply, eof, forever, hang, raw, reply, reset, sse, wire

from .promises import (
    PIECES,
    SO_FAR,
    WHOLE,
    Promises,
    Said,
    Wire,
    errored,
    finished,
    known,
    truncated,
)


def mid_chunk(w: Wire) -> Reply:
    steps = list(wire(reply(*w.head, w.says("lost"))).steps)
    return raw(*steps[:-2], steps[-2][:-20], eof)


def framed(w: Wire, body: list[bytes], *ends: Any, surplus: int = 0, **more: Any) -> Reply:
    """A body with a length, which says more or less than comes."""
    length = sum(map(len, body)) + surplus
    return reply(*body, *ends, framing="length", length=length, **more)


def whole_json(w: Wire) -> bytes:
    return msgspec.json.encode(w.whole_body())


def plain(body: bytes, kind: str = "application/json", **more: Any) -> Reply:
    return reply(body, headers={"content-type": kind}, framing="length", **more)


def refusal(status: int, words: str = "no", code: str = "", **headers: str) -> Reply:
    body = msgspec.json.encode({"error": {"message": words, "code": code or None}})
    fields = {k.replace("_", "-"): v for k, v in headers.items()}
    return (
        plain(body, status=status)
        if not headers
        else reply(
            body,
            status=status,
            framing="length",
            headers={"content-type": "application/json", **fields},
        )
    )


def zipped(w: Wire, tail: bytes) -> Reply:
    """Return a reply that sends the text so far, compressed and flushed, and ``tail`` in one read."""
    packer = zlib.compressobj(wbits=31)
    data = packer.compress(b"".join(w.head)) + packer.flush(zlib.Z_SYNC_FLUSH)
    return reply(data + tail, headers=GZIP)


ENDINGS = Promises()
promise = ENDINGS.add

GZIP = {"content-encoding": "gzip", "content-type": "text/event-stream"}

# fmt: off
# -- cuts ------------------------------------------------------------------------------------------

CUTS = "The connection or the body ends too early"

promise(CUTS, "the body ends cleanly between two events", lambda w: w.head,
        truncated("EndedEarly", connection="kept"))
promise(CUTS, "… in the middle of an event", lambda w: [*w.head, w.says("lost")[:-9]],
        truncated("EndedEarly", connection="kept"))
promise(CUTS, "the connection closes between two events", lambda w: [*w.head, eof],
        truncated("ConnectionCut"))
promise(CUTS, "… in the middle of an event", lambda w: [*w.head, w.says("lost")[:-9], eof],
        truncated("ConnectionCut"))
promise(CUTS, "… in the middle of an HTTP chunk", mid_chunk, truncated("ConnectionCut"))
promise(CUTS, "the connection is reset between two events", lambda w: [*w.head, 0.01, reset],
        truncated("ConnectionCut", seconds=0.01))
promise(CUTS, "… in the middle of an event", lambda w: [*w.head, w.says("lost")[:-9], 0.01, reset],
        truncated("ConnectionCut", seconds=0.01))
promise(CUTS, "`content-length` is larger than the body, and the connection closes",
        lambda w: framed(w, w.head, eof, surplus=100), truncated("ConnectionCut"))
promise(CUTS, "`content-length` is smaller than the body",
        lambda w: framed(w, w.whole, surplus=-sum(map(len, w.rest)), keep_alive=False),
        truncated("EndedEarly"))
promise(CUTS, "HTTP/1.0, where closing ends the body: closed in the middle",
        lambda w: reply(*w.head, http="1.0", framing="close"), truncated("EndedEarly"))
promise(CUTS, "… reset in the middle",
        lambda w: reply(*w.head, 0.01, reset, http="1.0", framing="close"),
        truncated("ConnectionCut", seconds=0.01))
promise(CUTS, "… closed after the complete answer",
        lambda w: reply(*w.whole, http="1.0", framing="close"), finished(connection="closed"))
promise(CUTS, "the connection closes after the headers", lambda w: [eof],
        truncated("ConnectionCut", text="", usage="unknown"))
promise(CUTS, "… after a first event without content", lambda w: [w.opening[0], eof],
        truncated("ConnectionCut", text=""))
promise(CUTS, "… in the middle of the headers; then the server recovers",
        lambda w: raw(b"HTTP/1.1 200 OK\r\ncontent-ty", eof), finished(tries=2), again=True)
promise(CUTS, "… before any answer; then the server recovers", lambda w: raw(eof),
        finished(tries=2), again=True)
promise(CUTS, "… before any answer, every time", lambda w: raw(eof),
        errored("RetriesExhausted: SendError", text="", usage="unknown", tries=3))
promise(CUTS, "the connection closes after the complete answer, without the last HTTP chunk",
        lambda w: [*w.whole, eof], finished(connection="closed"))
promise(CUTS, "a compressed body is cut",
        lambda w: reply(gzip.compress(b"".join(w.head))[:-8], headers=GZIP),
        truncated("ConnectionCut", connection=None))
promise(CUTS, "… but after the complete answer",
        lambda w: reply(gzip.compress(b"".join(w.whole))[:-8], headers=GZIP), finished())
promise(CUTS, "compressed data is corrupt in the middle; the data before it counts",
        lambda w: zipped(w, b"\xff" * 9), errored("ProtocolError", connection=None))
promise(CUTS, "… the checksum is wrong, after the complete answer",
        lambda w: reply(gzip.compress(b"".join(w.whole))[:-8] + b"\0" * 8, headers=GZIP),
        finished(connection=None))

# -- ends ------------------------------------------------------------------------------------------

ENDS = "Something is missing or extra after the answer"


def said(w: Wire, *more: Any) -> list[Any]:
    return [*w.head, w.says(PIECES[3]), *more]


promise(ENDS, "no usage", lambda w: said(w, *w.tail(usage=False)), finished(usage=known))
promise(ENDS, "no usage and no end marker; the body ends",
        lambda w: said(w, *w.tail(usage=False, end=False)),
        finished(usage=known, notes="without"))
promise(ENDS, "… the connection breaks",
        lambda w: said(w, *w.tail(usage=False, end=False), eof),
        finished(usage=known, notes="without", connection="closed"))
promise(ENDS, "… the connection stays open and silent",
        lambda w: said(w, *w.tail(usage=False, end=False), hang),
        finished(usage=known, notes="usage_grace", connection="closed", seconds=1.0))
promise(ENDS, "… and only comments arrive",
        lambda w: said(w, *w.tail(usage=False, end=False), forever(b": ping\n\n", 0.3)),
        finished(usage=known, notes="usage_grace", connection="closed", seconds=1.0))
promise(ENDS, "no end marker; the body ends", lambda w: said(w, *w.tail(end=False)), finished())
promise(ENDS, "… the connection stays open and silent", lambda w: said(w, *w.tail(end=False), hang),
        finished(connection="closed", seconds=0.25))
promise(ENDS, "the answer is complete, but the body does not end", lambda w: [*w.whole, hang],
        finished(connection="closed"))
promise(ENDS, "… and more events arrive forever", lambda w: [*w.whole, forever(w.says("no") * 9, 0.1)],
        finished(connection="closed"), wires="openai anthropic responses")
promise(ENDS, "usage and the end marker, but no finish reason", lambda w: said(w, *w.tail(None)),
        finished(reason=None))
promise(ENDS, "the end marker, but neither finish reason nor usage",
        lambda w: said(w, *w.tail(None, usage=False)), lambda w: (
            finished(reason=None, usage=known) if w.anthropic
            else truncated("EndedEarly", text=WHOLE, connection=None))(w))
promise(ENDS, "only the end marker", lambda w: w.tail(None, usage=False)[-1:],
        truncated("EndedEarly", text="", usage="unknown", connection=None))
promise(ENDS, "an object of an unknown shape, and the end marker",
        lambda w: [sse({"result": "no model is loaded"}), *w.tail(None, usage=False)[-1:]],
        errored("ProviderError server", text="", usage="unknown", connection=None))
promise(ENDS, "a finish reason, then more content", lambda w: [
        *w.head, *w.tail(usage=False, end=False), w.says(PIECES[3]), *w.tail()],
        finished(notes="content followed a finish reason"), wires="openai gemini")
promise(ENDS, "… then the connection breaks", lambda w: [
        *w.head, *w.tail(usage=False, end=False), w.says(PIECES[3]), eof],
        truncated("ConnectionCut", text=WHOLE, connection="closed"), wires="openai gemini")
promise(ENDS, "a finish reason before any content, then a long silence; the clock `first_chunk` applies",
        lambda w: [*w.opening, *w.tail(usage=False, end=False), 9.0, *w.head, *w.rest],
        finished(seconds=9.0, notes="content followed"), wires="openai gemini")
promise(ENDS, "usage, but neither finish reason nor end marker", lambda w: said(w, *w.tail(None, end=False)),
        truncated("EndedEarly", text=WHOLE, usage="provisional", connection="kept"))
promise(ENDS, "the end marker without its blank line",
        lambda w: said(w, *w.tail()[:-1], w.tail()[-1].rstrip()), finished())
promise(ENDS, "half of the end marker", lambda w: said(w, *w.tail()[:-1], w.tail()[-1][:-7]),
        finished(), wires="openai anthropic")
promise(ENDS, "half of the last event, which has the finish reason",
        lambda w: said(w, *w.tail()[:-1], w.tail()[-1][:-7]),
        truncated("EndedEarly", text=WHOLE, connection="kept"), wires="responses gemini")
promise(ENDS, "the finish reason twice",
        lambda w: said(w, *w.tail(usage=False, end=False), *w.tail()[1 if w.anthropic else 0:]),
        finished())
promise(ENDS, "two different finish reasons; the last one counts",
        lambda w: said(w, *w.tail(w.length, usage=False, end=False),
                       *w.tail()[1 if w.anthropic else 0:]),
        finished(notes="finish reasons"))
promise(ENDS, "text after the end marker", lambda w: [*w.whole, w.says("no")], finished(),
        wires="openai anthropic responses")
promise(ENDS, "an error after the end marker", lambda w: [*w.whole, w.error(529)], finished(),
        wires="openai anthropic responses")
promise(ENDS, "an error after the finish reason",
        lambda w: said(w, *w.tail(usage=False, end=False), w.error(529)),
        errored("ProviderError overloaded", text=WHOLE, reason=lambda w: w.stop))
promise(ENDS, "the same text 1,000 times, which is a valid answer",
        lambda w: [*w.opening, *[w.says("ha ")] * 1000, *w.tail()], finished(text="ha " * 1000))

# -- errors in a 200 -------------------------------------------------------------------------------

ERRORS = "Errors after HTTP 200"
OVER = "ProviderError overloaded"

promise(ERRORS, "the format's error event in the middle", lambda w: [*w.head, w.error(529), *w.rest],
        errored(OVER))
promise(ERRORS, "… as the first event: overloaded", lambda w: [w.error(529)],
        finished(tries=2), again=True)
promise(ERRORS, "… after an opening: overloaded", lambda w: [*w.opening[:1], w.error(529)],
        finished(tries=2), again=True)
promise(ERRORS, "… as the first event: invalid request", lambda w: [w.error(400)],
        errored("ProviderError invalid", text="", usage="unknown"))
promise(ERRORS, "… as the first event, every time", lambda w: [w.error(529)],
        errored("RetriesExhausted: " + OVER, text="", usage="unknown", tries=3))
promise(ERRORS, "`error` is a string",
        lambda w: [*w.head, sse({"error": "the model is overloaded"}), *w.rest],
        errored(OVER))
promise(ERRORS, "`error` is a string, next to text",
        lambda w: [*w.head, sse({"error": "Overloaded", "choices": [{"index": 0, "delta": {"content": "x"}}]})],
        errored(OVER, text=SO_FAR + "x"), wires="openai")
promise(ERRORS, "a failure code next to text (iFlytek, MiniMax)",
        lambda w: [*w.head, sse({"code": 503, "message": "Overloaded", "choices": [
            {"index": 0, "delta": {"content": "x"}}]})],
        errored(OVER, text=SO_FAR + "x"), wires="openai")
promise(ERRORS, "an error message that is not JSON (`data: Error: …`), then usage and the end marker",
        lambda w: [*w.head, sse("Error: engine overloaded"), *w.tail(None)],
        errored(OVER, skipped=1, usage="provisional"), wires="openai")
promise(ERRORS, "… then the body ends", lambda w: [*w.head, sse("Error: engine overloaded")],
        errored(OVER, skipped=1))
promise(ERRORS, "… then the answer continues", lambda w: [*w.head, sse("Error: upstream lost, retrying"), *w.rest],
        finished(skipped=1, notes="not JSON"))
promise(ERRORS, "`error` in a choice",
        lambda w: [*w.head, w.choice({}, None, error={"message": "no", "code": 503}), *w.rest],
        errored(OVER), wires="openai")
promise(ERRORS, "… with the finish reason `error`",
        lambda w: [*w.head, w.choice({}, "error", error={"message": "no", "code": 503}), *w.rest],
        errored(OVER), wires="openai")
promise(ERRORS, "only the finish reason `error`", lambda w: [*w.head, w.choice({}, "error"), *w.rest],
        errored("ProviderError server"), wires="openai")
promise(ERRORS, "`error` next to a choice with the finish reason `error` (OpenRouter)",
        lambda w: [*w.head, sse({"error": {"code": 503, "message": "no"}, "choices": [
            {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]}), *w.rest],
        errored(OVER), wires="openai")
promise(ERRORS, "`x_groq.error`",
        lambda w: [*w.head, sse({"choices": [], "x_groq": {"error": "overloaded"}}), *w.rest],
        errored(OVER), wires="openai")
promise(ERRORS, "`event: error` with an object",
        lambda w: [*w.head, sse({"message": "no", "code": 503}, "error"), *w.rest],
        errored("ProviderError overloaded"))
promise(ERRORS, "`event: error` with text",
        lambda w: [*w.head, sse("we are overloaded", "error"), *w.rest], errored(OVER))
promise(ERRORS, "an `error:` line (llama.cpp)",
        lambda w: [*w.head, b'error: {"code":503,"message":"no"}\n\n', *w.rest], errored(OVER))
promise(ERRORS, "an empty `error` (`null`, `{}`), which is not an error",
        lambda w: [*w.head, sse({"error": None, "choices": []}), sse({"error": {}, "choices": []}),
                   *w.rest], finished(), wires="openai")
promise(ERRORS, "a JSON error instead of a stream: overloaded",
        lambda w: plain(b'{"type":"error","error":{"message":"no","code":503}}'),
        finished(tries=2), again=True)
promise(ERRORS, "… invalid request",
        lambda w: plain(b'{"type":"error","error":{"message":"no","code":400}}'),
        errored("ProviderError invalid", text="", usage="unknown"))
promise(ERRORS, "a JSON answer instead of a stream", lambda w: plain(whole_json(w)), finished())
promise(ERRORS, "half of a JSON answer", lambda w: plain(whole_json(w)[:-40]),
        errored("ProtocolError", text="", usage="unknown"))
promise(ERRORS, "JSON that is neither an error nor an answer: an object",
        lambda w: plain(b'{"status":"ok"}'),
        errored("ProviderError server", text="", usage="unknown", connection="kept"))
promise(ERRORS, "… an empty object", lambda w: plain(b"{}"),
        errored("ProviderError server", text="", usage="unknown", connection="kept"))
promise(ERRORS, "… a number", lambda w: plain(b"5"),
        errored("ProviderError server", text="", usage="unknown", connection="kept"))
promise(ERRORS, "… a list without an object in it", lambda w: plain(b"[1, 2]"), lambda w: (
            # For Gemini it is a stream, and these are words in it.
            errored("ProviderError server" if w.gemini else "ProtocolError", text="", usage="unknown"))(w))
promise(ERRORS, "an HTML page instead of a stream",
        lambda w: plain(b"<!doctype html><title>Sign in</title>", "text/html"),
        errored("ProtocolError", text="", usage="unknown"))
promise(ERRORS, "a compressed body without `content-encoding`",
        lambda w: plain(gzip.compress(b"".join(w.whole)), "text/event-stream"),
        errored("ProtocolError", text="", usage="unknown"))
promise(ERRORS, "plain text instead of a stream", lambda w: plain(b"no\n", "text/plain"),
        errored("ProviderError server", text="", usage="unknown", connection="kept"))
promise(ERRORS, "an empty body", lambda w: [],
        truncated("EndedEarly", text="", usage="unknown", connection="kept"))
promise(ERRORS, "HTTP 204", lambda w: reply(status=204, headers={}),
        truncated("EndedEarly", text="", usage="unknown", connection="kept"))
promise(ERRORS, "only comments", lambda w: [b": hello\n\n"] * 9,
        truncated("EndedEarly", text="", usage="unknown", connection="kept"))

# -- refusals --------------------------------------------------------------------------------------

STATUS = "HTTP status and headers"


def refused(kind: str, **more: Any) -> Said:
    return errored(f"RefusedError {kind}", **{"text": "", "usage": "unknown", **more})


promise(STATUS, "401", lambda w: refusal(401), refused("auth"))
promise(STATUS, "400", lambda w: refusal(400), refused("invalid"))
promise(STATUS, "429; then the server recovers", lambda w: refusal(429), finished(tries=2), again=True)
promise(STATUS, "429 because the quota is exhausted",
        lambda w: refusal(429, "you exceeded your current quota", "insufficient_quota"),
        refused("quota"))
promise(STATUS, "503, every time", lambda w: refusal(503),
        errored("RetriesExhausted: RefusedError overloaded", text="", usage="unknown", tries=3))
promise(STATUS, "429 with `retry-after: 60`, which is obeyed", lambda w: refusal(429, retry_after="60"),
        finished(tries=2, seconds=60.0), again=True)
promise(STATUS, "429 with `retry-after: 61`, which is raised at once", lambda w: refusal(429, retry_after="61"),
        refused("rate_limit 61 s"), again=True)
promise(STATUS, "503 with `retry-after-ms: 1500`", lambda w: refusal(503, retry_after_ms="1500"),
        finished(tries=2, seconds=1.5), again=True)
promise(STATUS, "429 with `x-should-retry: false`",
        lambda w: refusal(429, x_should_retry="false"), refused("rate_limit"), again=True)
promise(STATUS, "502 with an HTML page", lambda w: plain(b"<html>", "text/html", status=502),
        finished(tries=2), again=True)
promise(STATUS, "400 with a body that never ends",
        lambda w: reply(b'{"error":{"message":"no"}', forever(b" " * 8192, 0.01), status=400),
        refused("invalid", connection="closed"))
promise(STATUS, "400 with a body that never arrives",
        lambda w: reply(hang, status=400), refused("invalid", seconds=10.0, connection="closed"))
promise(STATUS, "a redirect, which is not followed",
        lambda w: reply(status=307, headers={"location": "http://127.0.0.1:9/"}, framing="length"),
        refused("invalid"))
promise(STATUS, "… to an invalid address; the request is not repeated",
        lambda w: reply(status=308, headers={"location": "javascript:alert(1)"}, framing="length"),
        refused("invalid"), again=True)
promise(STATUS, "something other than HTTP", lambda w: raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n", eof),
        errored("ProtocolError", text="", usage="unknown"))
promise(STATUS, "a chunk size that is not a number",
        lambda w: raw(*wire(reply(*w.head)).steps[:-1], b"zz\r\nno\r\n", eof),
        truncated("ConnectionCut"))

# -- clocks ----------------------------------------------------------------------------------------

CLOCKS = "Silence, with the default clocks"
DRIP = 50.0


def late(clock: str, seconds: float, **more: Any) -> Said:
    return errored(f"StreamTimeout {clock}", seconds=seconds, **{"connection": "closed", **more})


NOTHING: dict[str, Any] = {"text": "", "usage": "unknown"}
promise(CLOCKS, "no headers", lambda w: reply(wait=hang), late("first_chunk", 300.0, **NOTHING))
promise(CLOCKS, "headers, then nothing", lambda w: [hang], late("first_chunk", 300.0, **NOTHING))
promise(CLOCKS, "headers, then comments forever", lambda w: [forever(b": wait\n\n", DRIP)],
        late("first_chunk", 300.0, **NOTHING))
promise(CLOCKS, "headers after 299 s, then the answer",
        lambda w: reply(*w.whole, wait=299.0), finished(seconds=299.0))
promise(CLOCKS, "headers, byte by byte, forever",
        lambda w: raw(b"HTTP/1.1 200 OK\r\n", forever(b"x-a: b\r\n", DRIP)),
        late("first_chunk", 300.0, **NOTHING))
promise(CLOCKS, "a first event without content, then silence", lambda w: [w.opening[0], hang],
        late("first_chunk", 300.0, text=""))
promise(CLOCKS, "silence in the middle", lambda w: [*w.head, hang], late("idle", 120.0))
promise(CLOCKS, "comments in the middle, forever", lambda w: [*w.head, forever(b": ping\n\n", DRIP)],
        late("idle", 120.0))
promise(CLOCKS, "pings in the middle, forever",
        lambda w: [*w.head, forever(w.event("ping"), DRIP)], late("idle", 120.0), wires="anthropic")
promise(CLOCKS, "a proxy's keep-alive events in the middle, forever",
        lambda w: [*w.head, forever(b"event: keepalive\ndata: {}\n\n", DRIP)], late("idle", 120.0))
promise(CLOCKS, "empty deltas in the middle, forever",
        lambda w: [*w.head, forever(w.says(""), DRIP)], late("idle", 120.0))
promise(CLOCKS, "empty pieces of a tool call's arguments, forever",
        lambda w: [*w.head, forever(w.changes("input_json_delta", partial_json="") if w.anthropic else
                   w.delta("function_call_arguments", "", 1) if w.responses else
                   w.candidate({"functionCall": {"willContinue": True}}) if w.gemini else
                   w.choice({"tool_calls": [{"index": 0, "function": {"arguments": ""}}]}), DRIP)],
        late("idle", 120.0))
promise(CLOCKS, "one byte at a time of an endless event",
        lambda w: [*w.head, forever(b"d", DRIP)], late("idle", 120.0))
promise(CLOCKS, "silence in the middle, with `idle` off", lambda w: [*w.head, hang],
        late("byte_idle", 120.0), timeouts=llm.Timeouts(idle=None))
promise(CLOCKS, "text every 119 s, ten times", lambda w: [
            *w.opening, *(x for _ in range(10) for x in (w.says("a"), 119.0)), *w.tail()],
        finished(text="a" * 10, seconds=1190.0), ways=("iterate",))
promise(CLOCKS, "reasoning every 119 s, ten times", lambda w: [
            w.opening[0], *(x for _ in range(10) for x in (
                w.thinks("a"), 119.0)), *w.tail(text="")],
        finished(text="", reasoning="a" * 10, seconds=1190.0), ways=("iterate",))
promise(CLOCKS, "arguments of a tool call every 119 s, ten times", lambda w: [
            w.opening[0],
            w.opens("tool_use", id="c", name="f") if w.anthropic else
            w.adds(w.call("f")) if w.responses else
            w.choice({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]}),
            *(x for _ in range(10) for x in (
                w.changes("input_json_delta", partial_json=" ") if w.anthropic else
                w.delta("function_call_arguments", " ") if w.responses else
                w.choice({"tool_calls": [{"index": 0, "function": {"arguments": " "}}]}), 119.0)),
            *w.tail(w.calls, text="")],
        finished(text="", seconds=1190.0, reason=lambda w: w.calls, calls=(("f", " " * 10),)),
        ways=("iterate",))
promise(CLOCKS, "events of an unknown type every 119 s, ten times", lambda w: [
            *w.head, *(x for _ in range(10) for x in (w.event("news"), 119.0)), *w.rest],
        finished(seconds=1190.0), ways=("iterate",), wires="anthropic responses")
promise(CLOCKS, "text every 60 s, forever, with `complete()`",
        lambda w: [*w.opening, forever(w.says(""), w.says("a"), 60.0)],
        late("total", 600.0, text="a" * 10), ways=("complete",))
promise(CLOCKS, "… with `stream()` and `total=300`",
        lambda w: [*w.opening, forever(w.says("a"), 60.0)],
        late("total", 300.0, text="a" * 5), ways=("iterate",), timeouts=llm.Timeouts(total=300))
promise(CLOCKS, "a server asks for a wait longer than the rest of `total`",
        lambda w: refusal(429, retry_after="50"), refused("rate_limit 50 s"),
        timeouts=llm.Timeouts(total=40), again=True)
