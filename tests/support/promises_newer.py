"""Promises for what only OpenAI's Responses or Gemini's format can have; see `promises`.

Most were reported of a server, a relay or another client.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from trio_minillm.testing import Reply, eof, faults, forever, hang, json_reply, reply, reset, sse

from .promises import (
    PIECES,
    SO_FAR,
    WHOLE,
    Promise,
    Promises,
    Said,
    Wire,
    as_array,
    errored,
    finished,
    truncated,
)
from .promises_endings import CLOCKS, CUTS, DRIP, ENDS, ERRORS, OVER, STATUS, late, plain, refused
from .promises_events import ARGS, CALLS, MALFORMED, ODD, UNUSUAL, with_more

NEWER = Promises()
promise = NEWER.add
NOTHING: dict[str, Any] = {"text": "", "usage": "unknown"}
A, CUSTOM = ("a", ARGS), ("a", "SELECT 1")


def spared(fault: str, event: Any, wires: str, group: str = ODD, **more: Any) -> None:
    """The event in the middle of an answer costs nothing else."""
    promise(
        group,
        fault,
        lambda w: [*w.head, event(w) if callable(event) else event, *w.rest],
        finished(**more),
        wires=wires,
    )


# fmt: off
# -- the array -------------------------------------------------------------------------------------

def array(w: Any, *more: bytes, end: bytes = b"\n]\n") -> list[bytes]:
    """The answer as an array, with more elements in it."""
    made = as_array(reply(*w.head, *w.rest))
    assert made is not None
    whole = [step for step in made.steps if isinstance(step, bytes)]
    return [*whole[:4], *more, *whole[4:-1], whole[-1].removesuffix(b"\n]\n") + end]


promise(CUTS, "an array without its closing bracket", lambda w: array(w, end=b""), finished(),
        wires="gemini_array")
promise(ENDS, "text after the closing bracket of an array",
        lambda w: [*array(w), b', {"candidates":[{"content":{"parts":[{"text":"no"}]}}]}'], finished(),
        wires="gemini_array")
promise(ENDS, "… and more of it forever",
        lambda w: [*array(w), forever(b'{"candidates":[]}' * 9, 0.1)], finished(connection="closed"),
        wires="gemini_array")
promise(UNUSUAL, "an array, one byte at a time", lambda w: [bytes([b]) for b in b"".join(array(w))],
        finished(), wires="gemini_array")
promise(UNUSUAL, "an array with spaces, line ends, and commas between its elements",
        lambda w: array(w, b"\r\n\r\n  ,,\t\n"), finished(), wires="gemini_array")
promise(UNUSUAL, "an array after a byte-order mark and spaces",
        lambda w: [b"\xef\xbb\xbf \r\n", *array(w)], finished(), wires="gemini_array")
promise(UNUSUAL, "an array as `text/event-stream`", array, finished(), wires="gemini_array")
promise(ODD, "words, numbers, and lists between the elements of an array",
        lambda w: array(w, b',"ping", 7, null, []'), finished(skipped=2), wires="gemini_array")
promise(MALFORMED, "half of an array element, then more elements",
        lambda w: array(w, b', {"candidates":[{"content"'), truncated("EndedEarly", connection="kept"),
        wires="gemini_array")
promise(ERRORS, "an empty array", lambda w: plain(b"[]"),
        truncated("EndedEarly", connection="kept", **NOTHING), wires="gemini_array")
promise(ERRORS, "an array with only an error in it: overloaded", lambda w: plain(
    b'[{"error":{"code":503,"message":"no","status":"UNAVAILABLE"}}]\n'), finished(tries=2), again=True,
    wires="gemini")
promise(STATUS, "400 with the error in an array", lambda w: plain(
    b'[{"error":{"code":400,"message":"no","status":"INVALID_ARGUMENT"}}]\n', status=400),
    refused("invalid"), wires="gemini")

# -- Gemini ----------------------------------------------------------------------------------------

promise(STATUS, "429 with the wait in its body", lambda w: plain(
    b'{"error":{"code":429,"message":"no","status":"RESOURCE_EXHAUSTED","details":[{"@type":'
    b'"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"61s"}]}}', status=429),
    refused("rate_limit 61 s"), wires="gemini")
for _reason in ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS",
                "MALFORMED_RESPONSE"):
    promise(ERRORS, f"the finish reason `{_reason}`",
            lambda w, r=_reason: [*w.head, w.candidate(reason=r)], errored("ProviderError server"),
            wires="gemini")
promise(ERRORS, "the finish reason `MALFORMED_FUNCTION_CALL` in a candidate without content, at once",
        lambda w: [w.candidate(reason="MALFORMED_FUNCTION_CALL", inner={"content": None})],
        finished(tries=2), again=True, wires="gemini")
promise(ERRORS, "the finish reason `MALFORMED_FUNCTION_CALL` next to a thought signature",
        lambda w: [w.candidate({"thoughtSignature": "c2ln"}, reason="MALFORMED_FUNCTION_CALL")],
        errored("ProviderError server", text=""), wires="gemini")
promise(ERRORS, "`promptFeedback` with a block reason, and no candidate",
        lambda w: [sse({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
                        "usageMetadata": {"promptTokenCount": 6}})],
        errored("ProviderError invalid", text="", usage="provisional"), wires="gemini")
promise(ERRORS, "… in the middle", lambda w: [*w.head, sse({"promptFeedback": {"blockReason": "OTHER"}})],
        errored("ProviderError invalid"), wires="gemini")
promise(ERRORS, "an error over several lines without field names", lambda w: [
    *w.head, b'{\n  "error": {\n    "code": 503,\n    "message": "no",\n    "status": "UNAVAILABLE"\n  }\n}\n\n'],
    errored(OVER), wires="gemini responses")
promise(ERRORS, "an error in a list, as one event", lambda w: [
    *w.head, sse([{"error": {"code": 503, "message": "no", "status": "UNAVAILABLE"}}]), *w.rest],
    errored(OVER), wires="gemini responses")
for _reason in ("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "OTHER",
                "IMAGE_SAFETY", "NO_IMAGE", "MAX_TOKENS"):
    promise(UNUSUAL, f"the finish reason `{_reason}`",
            lambda w, r=_reason: [*w.head, w.says(PIECES[3]), *w.tail(r)], finished(reason=_reason),
            wires="gemini")
promise(UNUSUAL, "the finish reason in a candidate without content, and no text at all",
        lambda w: [w.candidate(reason="STOP", inner={"content": {"role": "model"}}, usageMetadata={
            "promptTokenCount": 6, "totalTokenCount": 6})], finished(text=""), wires="gemini")
promise(UNUSUAL, "the finish reason `STOP` with every piece", lambda w: [
    *(w.candidate({"text": p}, reason="STOP") for p in PIECES[:3]),
    w.candidate({"text": PIECES[3]}, reason="STOP", usageMetadata={
        "promptTokenCount": 6, "candidatesTokenCount": 5})],
    finished(notes="content followed"), wires="gemini")
promise(UNUSUAL, "only thoughts, then the finish reason without content", lambda w: [
    w.thinks("hm"), *w.tail()], finished(text="", reasoning="hm"), wires="gemini")
spared("a candidate without content", lambda w: w.candidate(inner={"content": None}), "gemini", UNUSUAL)
spared("a candidate with content and no parts", lambda w: w.candidate(inner={"content": {"role": "model"}}),
       "gemini", UNUSUAL)
spared("no candidates, an empty list, or null", lambda w: sse({"modelVersion": "m"})
       + sse({"candidates": []}) + sse({"candidates": None}), "gemini", UNUSUAL)
promise(UNUSUAL, "usage in a separate event after the finish reason", lambda w: [
    *w.head, w.says(PIECES[3]), *w.tail(usage=False), sse({"candidates": [], "usageMetadata": {
        "promptTokenCount": 6, "candidatesTokenCount": 5}})], finished(), wires="gemini")
promise(UNUSUAL, "usage that rises with each piece", lambda w: [
    *w.opening, *(w.candidate({"text": p}, usageMetadata={"promptTokenCount": 6, "candidatesTokenCount": n + 1})
                  for n, p in enumerate(PIECES)), *w.tail()], finished(), wires="gemini")
promise(UNUSUAL, "counts of tokens as text", lambda w: [*w.head, w.says(PIECES[3]), w.candidate(
    reason="STOP", usageMetadata={"promptTokenCount": "6", "candidatesTokenCount": "5"})], finished(),
    wires="gemini")
promise(UNUSUAL, "sources of the answer after the finish reason", lambda w: [
    *w.head, w.says(PIECES[3]), *w.tail(), w.candidate(inner={"groundingMetadata": {
        "groundingChunks": [{"web": {"uri": "https://sea.invalid"}}]}})], finished(), wires="gemini")
promise(UNUSUAL, "every event wrapped in `response` (Code Assist)", lambda w: [
    e.replace(b"data: {", b'data: {"traceId":"t","response":{', 1).replace(b"}\n\n", b"}}\n\n")
    for e in w.whole], finished(), wires="gemini")
spared("… or an element wrapped in another object", lambda w: sse({"response": None}), "gemini")
spared("`FINISH_REASON_UNSPECIFIED` and `BLOCK_REASON_UNSPECIFIED`, which are no reasons", lambda w: w.candidate(
    reason="FINISH_REASON_UNSPECIFIED", promptFeedback={"blockReason": "BLOCK_REASON_UNSPECIFIED"}),
    "gemini", UNUSUAL)
spared("`promptFeedback` without a block reason", lambda w: w.candidate(
    promptFeedback={"safetyRatings": []}), "gemini", UNUSUAL)
spared("bare words as an event (`\"message\"`)", sse('"message"'), "gemini", skipped=1)
promise(MALFORMED, "one event split into two by a proxy", lambda w: [
    *w.head, w.says("lost")[:60] + b"\n\n", b"data: " + w.says("lost")[60:], *w.rest],
    errored("ProtocolError event {bad}", connection=None), wires="gemini")
spared("a part that is `null`, empty, or text", lambda w: w.candidate(None, {}, "more"), "gemini",
       text=with_more("more"))
spared("text in a part with unknown fields", lambda w: w.candidate(
    {"text": "more", "partMetadata": {"a": 1}}), "gemini", text=with_more("more"))
spared("… with empty fields of other kinds", lambda w: w.candidate(
    {"text": "more", "functionCall": None, "inlineData": None}), "gemini", text=with_more("more"))
spared("a thought in a part with unknown fields", lambda w: w.candidate(
    {"text": "hm", "thought": True, "partMetadata": {"a": 1}}), "gemini", reasoning="hm")
spared("`thought: false` and a signature next to text", lambda w: w.candidate(
    {"text": "more", "thought": False, "thoughtSignature": "c2ln"}), "gemini", text=with_more("more"))
spared("a signature in a separate part", lambda w: w.candidate({"thoughtSignature": "c2ln"})
       + w.candidate({"text": "", "thoughtSignature": "c2ln"}), "gemini", UNUSUAL)
spared("parts that are text, or one object", lambda w: w.candidate(inner={"content": {"parts": "mo"}})
       + w.candidate(inner={"content": {"parts": {"text": "re"}}}), "gemini", text=with_more("more"))
spared("content that is text, or a list of parts", lambda w: w.candidate(inner={"content": "mo"})
       + w.candidate(inner={"content": [{"text": "re"}]}), "gemini", text=with_more("more"))
spared("`candidates` is an object", lambda w: sse(
    {"candidates": {"content": {"parts": [{"text": "more"}]}}}), "gemini", text=with_more("more"))
spared("a candidate is `null`, or its index", lambda w: sse({"candidates": [None]})
       + w.candidate({"text": "more"}, inner={"index": None}), "gemini", text=with_more("more"))
spared("safety ratings, sources, and metadata of the wrong type", lambda w: w.candidate(
    {"text": "more"}, inner={"safetyRatings": 7, "citationMetadata": [], "groundingMetadata": "x",
                             "avgLogprobs": {}}), "gemini", text=with_more("more"))
promise(CLOCKS, "events with only the prompt's usage, forever", lambda w: [
    *w.head, forever(sse({"usageMetadata": {"promptTokenCount": 6, "totalTokenCount": 6}}), DRIP)],
    late("idle", 120.0), wires="gemini")
promise(CLOCKS, "… and no text before them", lambda w: [
    forever(sse({"usageMetadata": {"promptTokenCount": 6}}), DRIP)],
    late("first_chunk", 300.0, text=""), wires="gemini")


def parts(fault: str, *made: Any, good: Any = (), bad: Any = (), reason: str = "STOP", **more: Any) -> None:
    """Calls on Gemini's wire, with the finish reason in an event of its own."""
    promise(CALLS, fault, lambda w: [*w.opening, *(w.candidate(*p) for p in made), *w.tail(reason)],
            finished(**{"text": "", "calls": good, "bad_calls": bad, "reason": reason, **more}), wires="gemini")


def function(name: Any = "a", args: Any = None, **more: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, **({} if args is None else {"args": args}), **more}}


PARIS = {"city": "Paris"}
BARE = ("a", '{"city":"Paris"}')
parts("a complete call in one event, and the finish reason in the next", [function(args=PARIS)], good=(BARE,))
parts("no arguments", [function()], good=(("a", "{}"),))
parts("arguments that are `null`", [{"functionCall": {"name": "a", "args": None}}], good=(("a", "{}"),))
parts("arguments that are JSON as text", [function(args=ARGS)], good=(A,))
parts("two calls in one event, and the same call again in the next", [function(args=PARIS), function("b")],
      [function(args=PARIS)], good=(BARE, ("b", "{}"), BARE))
parts("a call in snake case (`function_call`)", [{"function_call": {"name": "a", "args": PARIS}}], good=(BARE,))
parts("a signature next to a call", [{**function(args=PARIS), "thoughtSignature": "c2ln"}], good=(BARE,))
parts("a call, but the finish reason is `MAX_TOKENS`", [function(args=PARIS)], bad=(BARE,), reason="MAX_TOKENS")
parts("a call, but the finish reason is `SAFETY`", [function(args=PARIS)], bad=(BARE,), reason="SAFETY")
parts("arguments with JSON paths", [function(partialArgs=[{"jsonPath": "$.city", "stringValue": "Pa",
      "willContinue": True}], willContinue=True)], [{"functionCall": {"partialArgs": [{"jsonPath": "$.city",
      "stringValue": "ris"}], "willContinue": True}}], [{"functionCall": {}}], good=(BARE,))
promise(CALLS, "the connection breaks after a complete call (Gemini)",
        lambda w: [*w.opening, w.candidate(function(args=PARIS)), eof],
        truncated("ConnectionCut", text="", bad_calls=(BARE,)), wires="gemini")
promise(CALLS, "a call that is not an object", lambda w: [*w.head, w.candidate({"functionCall": "a"}), *w.rest],
        errored("ProtocolError event {bad}"), wires="gemini")

# -- OpenAI's Responses: ends and errors -----------------------------------------------------------


def ending(fault: str, steps: Any, **more: Any) -> None:
    promise(ENDS, fault, steps, finished(**more), wires="responses")


ending("only the last event, with the complete answer in it", lambda w: w.tail()[-1:])
ending("only the first and the last event", lambda w: [w.opening[0], *w.tail()[-1:]])
ending("the complete text in `output_text.done`, and no output in the last event", lambda w: [
    w.opening[0], w.tail()[0], w.ends("completed")])
ending("… in `output_item.done`", lambda w: [w.opening[0], w.tail()[1], w.ends("completed")])
ending("only deltas, and no output in the last event", lambda w: [*w.head, w.says(PIECES[3]), w.ends("completed")])
ending("the last event twice", lambda w: [*w.whole, w.whole[-1]])
ending("the last event is `response.done` (gateways)", lambda w: [
    *w.whole[:-1], w.event("done", response=w.whole_body())])
ending("`response.incomplete` without details", lambda w: [
    *w.head, w.says(PIECES[3]), w.ends("incomplete", w.item(), incomplete_details=None)], reason="incomplete")
ending("`response.incomplete`, because of a filter", lambda w: [
    *w.head, w.says(PIECES[3]), w.ends("incomplete", incomplete_details={"reason": "content_filter"})],
    reason="incomplete")
ending("a last event whose response has no status", lambda w: [
    *w.head, w.says(PIECES[3]), w.ends("completed", status=None)])
ending("… has the status `in_progress`", lambda w: [
    *w.head, w.says(PIECES[3]), w.ends("completed", status="in_progress")])
ending("usage that is null", lambda w: [*w.head, w.says(PIECES[3]), w.ends("completed", usage=None)],
       usage="unknown")
ending("… that is text", lambda w: [*w.head, w.says(PIECES[3]), w.ends("completed", usage="x")],
       usage="provisional", notes="usage")
ending("… whose counts are text", lambda w: [*w.head, w.says(PIECES[3]), w.ends("completed", usage={
    "input_tokens": "7", "output_tokens": "5"})])
ending("… without details, or with null details", lambda w: [
    *w.head, w.says(PIECES[3]), w.ends("completed", usage={
        "input_tokens": 7, "output_tokens": 5, "input_tokens_details": None, "output_tokens_details": None})])
ending("a last event without id, model and object", lambda w: [*w.head, w.says(PIECES[3]), w.event(
    "completed", response={"status": "completed", "usage": {"input_tokens": 7, "output_tokens": 5}})])
promise(ENDS, "a last event without a response", lambda w: [*w.head, w.says(PIECES[3]), w.event("completed")],
        finished(usage="unknown"), wires="responses")
promise(ENDS, "`response.in_progress` is the last event, and `[DONE]` follows",
        lambda w: [w.opening[0], *w.head[1:], w.event("in_progress", response=w.response("in_progress")), sse("[DONE]")],
        truncated("EndedEarly", connection=None), wires="responses")
promise(ENDS, "only an object of an unknown shape", lambda w: [sse({"result": "no model is loaded"})],
        errored("ProviderError server", connection="kept", **NOTHING), wires="responses gemini")
promise(ENDS, "only `[DONE]`", lambda w: [sse("[DONE]")],
        truncated("EndedEarly", connection=None, **NOTHING), wires="responses gemini")


def failing(fault: str, *events: Any, error: str = OVER, usage: str = "unknown", **more: Any) -> None:
    promise(ERRORS, fault, lambda w: [*w.head, *(e(w) for e in events), *w.rest],
            errored(error, usage=usage, **more), wires="responses")


OVERLOADED = {"code": "server_is_overloaded", "message": "no"}
failing("`response.failed` with an error", lambda w: w.ends("failed", error=OVERLOADED), usage="provisional")
failing("… without one", lambda w: w.ends("failed", error=None), error="ProviderError server", usage="provisional")
failing("… without a response", lambda w: w.event("failed"), error="ProviderError server")
failing("… with `status: completed`", lambda w: w.ends("failed", status="completed"),
        error="ProviderError server", usage="provisional")
failing("`response.completed` with `status: failed`", lambda w: w.ends("completed", status="failed"),
        error="ProviderError server", usage="provisional")
failing("… with an error", lambda w: w.ends("completed", error=OVERLOADED), usage="provisional")
failing("`response.incomplete` because of a rate limit", lambda w: w.ends(
    "incomplete", incomplete_details={"reason": "rate_limit_exceeded"}), error="ProviderError rate_limit",
    usage="provisional")
failing("`response.cancelled`", lambda w: w.ends("cancelled"), error="ProviderError server", usage="provisional")
failing("an `error` event with its message in an object (Azure)", lambda w: sse(
    {"type": "error", "error": {**OVERLOADED, "type": "server_error", "param": None}}, "error"))
failing("… without a message", lambda w: sse({"type": "error", "code": None, "message": None}, "error"),
        error="ProviderError server")
failing("… without its SSE name", lambda w: sse({"type": "error", **OVERLOADED}))
failing("`response.error` with an object", lambda w: w.event("error", error=OVERLOADED))
failing("an error without a type", lambda w: sse({"error": OVERLOADED}))
failing("an error next to a delta", lambda w: w.delta("output_text", "x", error=OVERLOADED))
promise(ERRORS, "`response.failed` as the first event: overloaded", lambda w: [w.ends("failed", error=OVERLOADED)],
        finished(tries=2), again=True, wires="responses")
promise(ERRORS, "… without an error in it", lambda w: [
    w.opening[0], w.ends("failed", error=None, usage=None)], finished(tries=2), again=True, wires="responses")
promise(ERRORS, "`response.created` with an error in it", lambda w: [
    w.event("created", response=w.response("failed", error=OVERLOADED))], finished(tries=2), again=True,
    wires="responses")
spared("a tool's failure (`response.mcp_call.failed`)", lambda w: w.event("mcp_call.failed", output_index=3),
       "responses", UNUSUAL)
spared("a tool's item with an error in it", lambda w: w.closes(
    {"type": "mcp_call", "id": "m", "error": {"message": "no"}}, 3), "responses", UNUSUAL)

# -- OpenAI's Responses: events --------------------------------------------------------------------

spared("a keep-alive with a type", sse({"type": "keepalive", "sequence_number": 7}), "responses", UNUSUAL)
spared("steps of a hosted tool, and its item", lambda w: w.adds({"type": "web_search_call", "id": "s"}, 3)
       + w.event("web_search_call.searching", output_index=3)
       + w.closes({"type": "web_search_call", "id": "s", "status": "completed"}, 3), "responses", UNUSUAL)
spared("an item of an unknown type", lambda w: w.adds({"type": "smell", "id": "s"}, 3), "responses", UNUSUAL)
spared("an item without a type", lambda w: w.adds({}, 3), "responses", notes="item")
spared("an item that is `null`", lambda w: w.adds(None, 3), "responses", notes="item")
spared("an annotation that is not an object", lambda w: w.event(
    "output_text.annotation.added", output_index=0, annotation="x"), "responses", notes="annotation")
spared("a part that is `null`", lambda w: w.event("content_part.done", output_index=0, part=None), "responses")
spared("an event without a type", lambda w: sse({}), "responses")
spared("… whose type is `null`", lambda w: sse({"type": None}), "responses")
spared("`logprobs` of the wrong type", lambda w: w.delta("output_text", "more", logprobs={"a": 1}), "responses",
       text=with_more("more"))
spared("padding next to the text (`obfuscation`)", lambda w: w.delta("output_text", "more", obfuscation="x" * 99),
       "responses", UNUSUAL, text=with_more("more"))
spared("a delta that is `null`, or empty", lambda w: w.says(None) + w.says("") + w.says([]), "responses", UNUSUAL)
spared("reasoning in deltas with other names", lambda w: w.delta("reasoning", "a", 1)
       + w.delta("reasoning_summary", "b", 1), "responses", reasoning="a")


def other(fault: str, steps: Any, **more: Any) -> None:
    promise(UNUSUAL, fault, steps, finished(**more), wires="responses")


other("event names, but no types in the data", lambda w: [
    e.replace(b'"type":"response.', b'"was":"response.', 1) for e in w.whole])
other("types in the data, but no event names", lambda w: [e.partition(b"\n")[2] for e in w.whole])
other("no event that starts the message or its text (llama.cpp, relays)", lambda w: [
    w.opening[0], *map(w.says, PIECES), *w.tail()])
other("no indexes and no ids at all (llama.cpp, Lemonade)", lambda w: [
    w.opening[0], w.adds(w.item(""), None), *(w.event("output_text.delta", delta=p) for p in PIECES),
    w.event("output_text.done", text=WHOLE), w.closes(w.item(), None), w.ends("completed", w.item())])
other("a different message id in each event (vLLM, litellm)", lambda w: [
    *w.opening, *(w.delta("output_text", p, content_index=0, item_id=f"m{n}") for n, p in enumerate(PIECES)),
    w.closes({**w.item(), "id": "m8"}), w.ends("completed", {**w.item(), "id": "m9"})])
other("a content index that rises with each delta (vLLM)", lambda w: [
    *w.opening, *(w.delta("output_text", p, content_index=n + 1) for n, p in enumerate(PIECES)),
    w.event("output_text.done", output_index=0, content_index=len(PIECES) + 1, text=WHOLE),
    w.closes(w.item()), w.ends("completed", w.item())])
other("a different output index at the end", lambda w: [
    *w.opening, *map(w.says, PIECES), w.closes(w.item(), 2), w.ends("completed", w.item())])
other("text after the end of its item (litellm)", lambda w: [
    *w.head, w.closes(w.item(SO_FAR)), w.says(PIECES[3]), w.ends("completed", w.item())])
other("reasoning and the message under one index", lambda w: [
    w.opening[0], w.adds({"type": "reasoning", "id": "r", "summary": []}), w.delta("reasoning_text", "hm"),
    *map(w.says, PIECES), w.closes({"type": "reasoning", "id": "r", "content": [
        {"type": "reasoning_text", "text": "hm"}]}), *w.tail()], reasoning="hm")
other("reasoning as text, and again as a summary", lambda w: [
    w.opening[0], w.delta("reasoning_text", "hm", content_index=0), w.delta(
        "reasoning_summary_text", "hm", summary_index=0), *map(w.says, PIECES), *w.tail()], reasoning="hm")
other("reasoning events of vLLM (`reasoning_part`)", lambda w: [
    w.opening[0], w.event("reasoning_part.added", output_index=1, part={"type": "reasoning_text", "text": ""}),
    w.delta("reasoning_text", "hm", 1), w.event("reasoning_part.done", output_index=1, part={
        "type": "reasoning_text", "text": "hm"}), *w.opening[1:], *map(w.says, PIECES), *w.tail()], reasoning="hm")
other("an empty reasoning item", lambda w: [
    w.opening[0], w.closes({"type": "reasoning", "id": "r", "summary": []}, 1), *w.opening[1:],
    *map(w.says, PIECES), *w.tail()])
other("`response.queued` and `response.created` again", lambda w: [
    w.event("queued", response=w.response("queued")), w.opening[0], w.opening[0], *w.whole[1:]])
other("the message twice in the last event", lambda w: [
    *w.head, w.says(PIECES[3]), w.ends("completed", w.item(), w.item())])
other("output that is null, and an output text beside it", lambda w: [
    *w.head, w.says(PIECES[3]), w.event("completed", response={
        **w.response("completed"), "output": None, "output_text": WHOLE,
        "usage": {"input_tokens": 7, "output_tokens": 5}})])


def item(fault: str, steps: Any, *good: Any, bad: Any = (), reason: str = "completed", **more: Any) -> None:
    """Calls on the wire of OpenAI's Responses."""
    promise(CALLS, fault, lambda w: [w.opening[0], *steps(w)],
            finished(text="", reason=reason, calls=good, bad_calls=bad, **more), wires="responses")


def argued(w: Any, *pieces: Any, **more: Any) -> list[bytes]:
    return [w.delta("function_call_arguments", p, **more) for p in pieces]


ONE, TWO = '{"city":', ' "Paris"}'
item("a call in deltas, in `.done`, and in both items", lambda w: [
    w.adds(w.call()), *argued(w, ONE, TWO), w.event("function_call_arguments.done", output_index=0, arguments=ARGS),
    w.closes(w.call(arguments=ARGS)), w.ends("completed", w.call(arguments=ARGS))], A)
item("arguments only in `function_call_arguments.done` (Codex Spark)", lambda w: [
    w.adds(w.call()), w.event("function_call_arguments.done", output_index=0, arguments=ARGS),
    w.closes(w.call()), w.ends("completed")], A)
item("… only in `output_item.done`", lambda w: [
    w.adds(w.call()), w.closes(w.call(arguments=ARGS)), w.ends("completed")], A)
item("… only in the last event", lambda w: [w.adds(w.call()), w.ends("completed", w.call(arguments=ARGS))], A)
item("… only at the start of the item", lambda w: [w.adds(w.call(arguments=ARGS)), w.ends("completed")], A)
item("a call only in the last event", lambda w: [w.ends("completed", w.call(arguments=ARGS))], A)
item("no event that starts the call", lambda w: [
    *argued(w, ONE, TWO), w.closes(w.call(arguments=ARGS)), w.ends("completed")], A)
item("a call without indexes and ids (llama.cpp)", lambda w: [
    w.adds({"type": "function_call", "call_id": "c", "name": "a", "arguments": ""}, None),
    *(w.event("function_call_arguments.delta", delta=p) for p in (ONE, TWO)),
    w.closes({"type": "function_call", "call_id": "c", "name": "a", "arguments": ARGS}, None),
    w.ends("completed")], A)
item("two calls under one index", lambda w: [
    w.adds(w.call("a")), *argued(w, ONE, TWO), w.closes(w.call("a", ARGS)),
    w.adds(w.call("b", id="c2")), *argued(w, "{}"), w.closes(w.call("b", "{}", "c2")),
    w.ends("completed", w.call("a", ARGS), w.call("b", "{}", "c2"))], A, ("b", "{}"))
item("two calls as items with interleaved pieces", lambda w: [
    w.adds(w.call("a"), 0), w.adds(w.call("b", id="c2"), 1), *argued(w, ONE), *argued(w, "{", index=1),
    *argued(w, TWO), *argued(w, "}", index=1), w.ends("completed")], A, ("b", "{}"))
item("arguments that are an object", lambda w: [
    w.adds(w.call()), w.closes(w.call(arguments={"city": "Paris"})), w.ends("completed")], ("a", '{"city":"Paris"}'))
item("arguments that are `null`", lambda w: [w.closes(w.call(arguments=None)), w.ends("completed")], ("a", ""))
item("arguments that are not JSON", lambda w: [w.closes(w.call(arguments="city")), w.ends("completed")],
     bad=(("a", "city"),))
item("a call without a name", lambda w: [w.closes(w.call(None, ARGS)), w.ends("completed")], bad=(("", ARGS),))
item("arguments that are cut, and `response.incomplete`", lambda w: [
    w.adds(w.call()), *argued(w, ONE), w.ends("incomplete", incomplete_details={"reason": "max_output_tokens"})],
    bad=(("a", ONE),), reason="incomplete")
item("a complete call, and `response.incomplete` because of a filter", lambda w: [
    w.closes(w.call(arguments=ARGS)), w.ends("incomplete", incomplete_details={"reason": "content_filter"})],
    bad=(A,), reason="incomplete")
item("a custom tool's input", lambda w: [
    w.adds({**w.call(), "type": "custom_tool_call", "input": ""}), w.delta("custom_tool_call_input", "SELECT "),
    w.delta("custom_tool_call_input", "1"), w.ends("completed")], CUSTOM)
promise(CALLS, "the connection breaks after a complete call (Responses)",
        lambda w: [w.opening[0], w.closes(w.call(arguments=ARGS)), eof],
        truncated("ConnectionCut", text="", bad_calls=(A,)), wires="responses")

# -- in the background -----------------------------------------------------------------------------

BACKGROUND = "Responses in the background"


def numbered(w: Wire) -> list[bytes]:
    """The events of an answer with their numbers."""
    out = []
    for number, event in enumerate(w.whole):
        name, data = event.decode().rstrip("\n").split("\n")
        fields = json.loads(data.removeprefix("data: "))
        out.append(sse({**fields, "sequence_number": number}, name.removeprefix("event: ")))
    return out


def background(
    fault: str, steps: Callable[[list[bytes], int], list[Any]], sees: Said, **more: Any
) -> None:
    """Add a promise of which ``steps`` makes the replies: of the events, and how many come before a cut."""

    def replies(w: Wire) -> list[Reply] | None:
        if not w.responses:
            return None
        made = steps(numbered(w), len(w.head))
        return [one if isinstance(one, Reply) else reply(*one) for one in made]

    NEWER.append(Promise(BACKGROUND, fault, replies, sees, options={"background": True}, **more))


BUSY = json_reply({"error": {"message": "no"}}, status=503) | faults.status(503, retry_after=2)
UNKNOWN = json_reply({"error": {"message": "no"}}, status=404)

def whole(**more: Any) -> Said:
    return finished(**{"connection": None, "resumes": 1, **more})

def cut(error: str = "ConnectionCut", **more: Any) -> Said:
    return truncated(error, connection=None, **more)

background("the connection ends in the middle", lambda e, n: [[*e[:n], eof], e[n:]], whole())
background("it breaks in the middle", lambda e, n: [[*e[:n], reset], e[n:]], whole())
background("the body ends cleanly in the middle", lambda e, n: [e[:n], e[n:]], whole())
background("… in the middle of an event", lambda e, n: [[*e[:n], e[n][:40], eof], e[n:]], whole())
background("… and again after each event", lambda e, n: [[one, eof] for one in e],
           whole(resumes=lambda w: len(w.whole) - 1))
background("… before any text", lambda e, n: [[*e[:2], eof], e[2:]], whole())
background("… before the answer's id", lambda e, n: [[e[0][:40], eof]],
           cut(text="", usage="unknown"))
background("the server falls silent in the middle", lambda e, n: [[*e[:n], hang], e[n:]],
           whole(seconds=120))
background("… and falls silent again", lambda e, n: [[*e[:n], hang], [hang]],
           errored("StreamTimeout idle", connection=None, seconds=240, resumes=1))
background("the server repeats earlier events", lambda e, n: [[*e[:n], eof], e], whole())
background("the first of the following events is missing", lambda e, n: [[*e[:n], eof], e[n + 1:]],
           cut(resumes=1))
background("a complete answer arrives instead",
           lambda e, n: [[*e[:n], eof], json_reply({"object": "response", "output": []})],
           cut(resumes=1))
background("503 at first, with `retry-after: 2`", lambda e, n: [[*e[:n], eof], BUSY, BUSY, e[n:]],
           whole(seconds=4))
background("404: the server does not know the answer", lambda e, n: [[*e[:n], eof], UNKNOWN], cut())
