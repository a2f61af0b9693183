"""Every recorded stream, through the front door: what a correct client makes of it.

A loopback server plays the bytes; the result is compared with ``*.expected.json``. Where ours
is another and right, `DISAGREEMENTS` says so, with the reason and our exact value.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm._protocol.decoder import ChunkDecoder
from trio_minillm._protocol.ingest import Ingest
from trio_minillm._types.errors import EndedEarly

from .support.recorded import Recording, recordings

ASKED = "the-model-that-was-asked-for"
CALL_BLOCKS = ("server_tool_use", "mcp_tool_use")
MANY = 200

MODELS: dict[str, Callable[[str], llm.Model]] = {
    "openai_chat": lambda url: llm.compatible(ASKED, base_url=url, api_key="test"),
    "openrouter": lambda url: llm.openrouter(ASKED, base_url=url, api_key="test"),
    "anthropic": lambda url: llm.anthropic(ASKED, base_url=url, api_key="test"),
    "openai_responses": lambda url: llm.openai_responses(ASKED, base_url=url, api_key="test"),
    "gemini": lambda url: llm.gemini(ASKED, base_url=url, api_key="test"),
}
PATHS = {
    "anthropic": b"POST /v1/messages ",
    "openai_responses": b"POST /responses ",
    "gemini": f"POST /v1beta/models/{ASKED}:streamGenerateContent?alt=sse ".encode(),
}

every_recording = pytest.mark.parametrize("recording", recordings(*MODELS))


# -- where ours is another and right ---------------------------------------------------------------


class Disagreement(NamedTuple):
    """Our value for the fields of a view that differ, and why it is defended."""

    reason: str
    applies: Callable[[Recording], bool]
    ours: Callable[[dict[str, Any]], dict[str, Any]]


def _usage(
    **changed: Callable[[dict[str, Any]], Any],
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def ours(view: dict[str, Any]) -> dict[str, Any]:
        usage = view["usage"]
        return {"usage": {**usage, **{k: make(usage) for k, make in changed.items()}}}

    return ours


def _named(name: str) -> Callable[[Recording], bool]:
    return lambda recording: recording.name == name


_THOUGHT = "Let me analyze this problem step by step to provide the best solution."

DISAGREEMENTS = {
    "reasoning is inside output": Disagreement(
        "xAI leaves reasoning out of completion_tokens, and its total shows it. Our buckets are"
        " the same for every wire: output is everything that was generated.",
        lambda r: "total" in (r.expected["usage"] or ()),
        _usage(output=lambda usage: usage["output"] + usage["reasoning"]),
    ),
    "a bucket can't be larger than the whole": Disagreement(
        "Mistral and xAI on Azure report more cached tokens than prompt tokens, which would make"
        " the uncached ones negative. The total is kept.",
        lambda r: (
            (r.expected["usage"] or {}).get("cache_read") is not None
            and r.expected["usage"]["cache_read"] > r.expected["usage"]["input_total"]
        ),
        _usage(cache_read=lambda usage: usage["input_total"]),
    ),
    "an empty model reads as the one that was asked": Disagreement(
        'Azure\'s old `messages` fixture says `"model": ""`.',
        lambda r: not r.expected["model"],
        lambda view: {"model": ASKED},
    ),
    "citations are annotations": Disagreement(
        "The recordings count the sources of grounding alone.",
        lambda r: b'"citationMetadata"' in r.body,
        lambda view: {"annotations": view["annotations"] + view["cited"]},
    ),
    "a prompt that was blocked is an error": Disagreement(
        "The recordings call it no error. There is no answer, and another attempt will not get one.",
        lambda r: bool(r.expected.get("block_reason")),
        lambda view: {"outcome": "errored", "error": ("SAFETY", None)},
    ),
    "[DONE] without a reason is an end": Disagreement(
        "The recordings call it truncated; the sentinel alone finishes, with reason None.",
        lambda r: r.expected.get("truncated", False) and r.expected["ends_with_done"],
        lambda view: {"outcome": "finished"},
    ),
    "OpenRouter: the stream ends at its error (gemini_2_5_flash_lite)": Disagreement(
        "Reason `stop` and MALFORMED_FUNCTION_CALL stand in the error's event, usage behind it.",
        _named("openrouter/req_llm__openrouter_google_gemini_2_5_flash_lite_object_streaming"),
        lambda view: (
            {"usage": None, "native": None}
            | {"choices": [{**view["choices"][0], "finish_reason": "tool_calls"}]}
        ),
    ),
    "Responses: the stream ends at its error": Disagreement(
        "The status `failed` stands behind it, in an event of its own that nobody waits for.",
        lambda r: r.dialect == "openai_responses" and bool(r.expected.get("error")),
        lambda view: {"choices": [{**view["choices"][0], "finish_reason": None}]},
    ),
    "Responses: the deltas count, not the text at the end": Disagreement(
        "Of a fixture whose deltas were trimmed, either text is right.",
        lambda r: r.expected.get("text_from_deltas") is not None,
        lambda view: (
            {"choices": [{**view["choices"][0], "content": "The command ran successfully."}]}
        ),
    ),
    "Responses: reasoning of an answer that was cut is shown": Disagreement(
        "The only event is one with reasoning, of which the expected result has none.",
        _named("openai_responses/client__Streams_ResponseReasoningTextDelta"),
        lambda view: {"choices": [{**view["choices"][0], "reasoning": "Let me analyze"}]},
    ),
    "Responses: … also where its only event is the one at its end": Disagreement(
        "As above.",
        _named("openai_responses/client__Streams_ResponseReasoningTextDone"),
        lambda view: ({"choices": [{**view["choices"][0], "reasoning": _THOUGHT}]}),
    ),
    "Responses: the model is the one of the opening": Disagreement(
        "The response at the end names none.",
        _named("openai_responses/prism__openai_stream-multiple-output-items-1"),
        lambda view: {"model": "gpt-4o"},
    ),
}


# -- views: what is compared ---------------------------------------------------------------------


def expected_view(recording: Recording) -> dict[str, Any]:
    """Return the view that ``.expected.json`` gives, updated by the disagreements that apply."""
    found = recording.expected
    error = found.get("error") or found.get("out_of_band_error")
    usage = found["usage"]
    fields = ("input_total", "cache_read", "cache_write", "output", "reasoning", "cost")
    view = {
        "id": found["id"],
        "model": found["model"],
        "choices": [
            {
                "content": choice["text"],
                "reasoning": choice["reasoning_text"],
                "refusal": choice["refusal"],
                "finish_reason": choice["finish_reason"],
                "calls": [
                    (c["id"] or made_id(n, found["id"]), c["name"], c["arguments_json"])
                    for n, c in enumerate(choice["tool_calls"])
                ],
            }
            for choice in found.get("choices") or [found]
        ],
        "server_calls": [
            (c["id"], c["name"], c["arguments_json"]) for c in found.get("server_tool_calls", ())
        ],
        "native": found.get("native_finish_reason"),
        "provider": found.get("provider"),
        "stop": (found.get("stop_sequence"), found.get("stop_details")),
        "annotations": found.get("n_annotations") or 0,
        "citations": found.get("n_citations", 0),
        "cited": cited(recording) if recording.dialect == "gemini" else 0,
        "usage": usage and {k: usage.get(k) for k in fields},
        "outcome": "errored" if error else "truncated" if found.get("truncated") else "finished",
        "error": error and (error["code"] and str(error["code"]), error["type"]),
    }
    for found in DISAGREEMENTS.values():
        if found.applies(recording):
            view |= found.ours(view)
    del view["cited"]
    return view


def cited(recording: Recording) -> int:
    """The number of sources in Gemini's citations, each event's own."""
    found = [c.get("citationMetadata") for e in recording.data for c in e.get("candidates", ())]
    return sum(len(sources) for one in found if one for sources in one.values())


def made_id(number: int, answer: str | None) -> str:
    """The id of a call that the server gave none: Gemini's wire can do without."""
    return "_".join(filter(None, ["call", str(number), answer]))


def our_view(response: llm.CompletionResponse, error: llm.MiniLLMError | None) -> dict[str, Any]:
    usage = response.usage
    opaque = [part.raw for part in response.parts if isinstance(part, llm.OpaquePart)]
    return {
        "id": response.id or None,
        "model": response.model,
        "choices": [
            {
                "content": choice.content,
                "reasoning": choice.reasoning,
                "refusal": choice.refusal,
                "finish_reason": choice.finish_reason,
                "calls": [
                    (part.id, part.name, _json(part))
                    for part in choice.parts
                    if isinstance(part, llm.ToolCall)
                ],
            }
            for choice in response.choices
        ],
        "server_calls": [
            (b["id"], b["name"], b["input"]) for b in opaque if b.get("type") in CALL_BLOCKS
        ],
        "native": response.metadata.get("native_finish_reason"),
        "provider": response.metadata.get("provider"),
        "stop": (response.metadata.get("stop_sequence"), response.metadata.get("stop_details")),
        "annotations": len(response.annotations),
        "citations": len(response.metadata.get("citations", ())),
        "usage": None
        if usage is None
        else {
            "input_total": usage.prompt_tokens,
            "cache_read": usage.cache_read_tokens,
            "cache_write": usage.cache_write_tokens,
            "output": usage.completion_tokens,
            "reasoning": usage.reasoning_tokens,
            "cost": usage.cost,
        },
        "outcome": str(response.outcome),
        "error": (error.code and str(error.code), error.info.type)
        if isinstance(error, llm.ProviderError)
        else None,
    }


def _json(call: llm.ToolCall) -> Any:
    if call.type == "custom":  # free text, which may look like JSON
        return None
    try:
        return json.loads(call.arguments.strip() or "{}")
    except ValueError:
        return None


# -- the way there -----------------------------------------------------------------------------


class Loopback:
    """An HTTP/1.1 server that answers every request with ``pieces``, an HTTP chunk each."""

    def __init__(self) -> None:
        self.pieces: Sequence[bytes] = ()
        self.content_type = "text/event-stream"
        self.path = b""
        self.url = ""

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, self._connection, 0, host="127.0.0.1")
            (listener,) = await nursery.start(serve)
            self.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
            task_status.started()

    async def _connection(self, stream: trio.SocketStream) -> None:
        received = b""
        try:
            while data := await stream.receive_some():
                received += data
                head, end, body = received.partition(b"\r\n\r\n")
                lengths = [
                    h for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:")
                ]
                wanted = int(lengths[0].partition(b":")[2]) if lengths else 0
                if end and len(body) == wanted:
                    received = b""
                    self.path = head
                    await self._answer(stream)
        except trio.BrokenResourceError:
            pass  # the client had seen enough

    async def _answer(self, stream: trio.SocketStream) -> None:
        head = f"content-type: {self.content_type}\r\ntransfer-encoding: chunked\r\n\r\n"
        await stream.send_all(b"HTTP/1.1 200 OK\r\n" + head.encode())
        for piece in self.pieces:
            await stream.send_all(b"%x\r\n%b\r\n" % (len(piece), piece))
        await stream.send_all(b"0\r\n\r\n")


class Result(NamedTuple):
    """Chunks, response and error that the caller of a stream got."""

    chunks: list[llm.StreamChunk]
    response: llm.CompletionResponse
    error: llm.MiniLLMError | None

    @property
    def said(self) -> tuple[Any, ...]:
        """All of it but the times."""
        return self.chunks, timeless(self.response), type(self.error), str(self.error)


def timeless(response: llm.CompletionResponse) -> llm.CompletionResponse:
    counted = llm.Timings(chunks=response.timings.chunks)
    return msgspec.structs.replace(response, timings=counted)


async def play(
    client: llm.Client, server: Loopback, recording: Recording, pieces: Sequence[bytes]
) -> Result:
    server.pieces = pieces
    server.content_type = recording.meta["content_type"]
    model = MODELS[recording.dialect](server.url)
    params: Any = {"n": len(recording.expected["choices"])} if choices(recording) > 1 else {}
    chunks: list[llm.StreamChunk] = []
    error = None
    async with client.stream(model, "Hello.", **params) as stream:
        try:
            async for chunk in stream:
                chunks.append(msgspec.structs.replace(chunk, received_at=0.0))
        except llm.StreamError as exc:
            error = exc
    assert error is stream.error
    return Result(chunks, stream.response, error)


def choices(recording: Recording) -> int:
    return len(recording.expected.get("choices") or [recording])


def cut_at(body: bytes, places: Iterable[int]) -> list[bytes]:
    at = [0, *sorted(set(places) - {0, len(body)}), len(body)]
    return [body[a:b] for a, b in pairwise(at)]


def random_cuts(recording: Recording, most: int) -> list[bytes]:
    body = recording.body
    chance = random.Random(recording.name)
    return cut_at(body, chance.sample(range(len(body)), min(most, len(body) // 10)))


def as_recorded(recording: Recording) -> list[bytes]:
    """The pieces in which the body came to whoever recorded it, where that is known."""
    sizes, at, pieces = recording.meta.get("chunk_sizes") or [], 0, []
    for size in sizes:
        pieces.append(recording.body[at : at + size])
        at += size
    assert not sizes or at == len(recording.body)
    return [piece for piece in pieces if piece]


# -- over HTTP ---------------------------------------------------------------------------------


@every_recording
async def test_a_recorded_stream_over_http(recording: Recording, nursery: trio.Nursery) -> None:
    server = Loopback()
    await nursery.start(server.run)
    clocks = llm.Timeouts(settlement=None)  # the server answers requests, not questions
    async with llm.open_client(timeouts=clocks) as client:
        whole = await play(client, server, recording, [recording.body])
        assert server.path.startswith(PATHS.get(recording.dialect, b"POST /chat/completions "))
        cut = await play(client, server, recording, random_cuts(recording, MANY))
        again = None
        if pieces := as_recorded(recording):
            again = await play(client, server, recording, pieces)

    response, error = whole.response, whole.error
    assert our_view(response, error) == expected_view(recording)
    check_calls(recording, response)
    check_usage(recording, response)
    check_error(recording, response, error)
    first = [chunk for chunk in whole.chunks if chunk.choice == 0]
    assert "".join(chunk.delta for chunk in first) == response.content
    assert "".join(chunk.reasoning for chunk in first) == response.reasoning

    assert cut.said == whole.said
    assert again is None or again.said == whole.said


def came_whole(recording: Recording) -> bool:
    """Return whether a call's input came as an object (Anthropic) and so has no string of its own."""
    if recording.dialect != "anthropic":
        return False
    blocks = [b for e in recording.data for b in e.get("message", {}).get("content", ())]
    blocks += [e["content_block"] for e in recording.data if "content_block" in e]
    return any(block.get("input") for block in blocks)


def check_calls(recording: Recording, response: llm.CompletionResponse) -> None:
    """The arguments are the wire's own string. Only what is whole may be executed: JSON, and
    in an answer that came to its end.
    """
    if recording.dialect != "gemini" and not came_whole(recording):
        strings = [part.arguments for part in response.parts if isinstance(part, llm.ToolCall)]
        assert strings == [call["arguments"] for call in recording.expected["tool_calls"]]
    for choice in response.choices:
        calls = [part for part in choice.parts if isinstance(part, llm.ToolCall)]
        whole = [
            response.outcome is llm.Outcome.FINISHED
            and (call.type == "custom" or _json(call) is not None)
            for call in calls
        ]
        assert [call in choice.tool_calls for call in calls] == whole
        assert [call not in choice.invalid_tool_calls for call in calls] == whole


def check_usage(recording: Recording, response: llm.CompletionResponse) -> None:
    usage = response.usage
    if usage is None:
        return
    assert usage.final is (response.outcome is llm.Outcome.FINISHED)
    raw = recording.expected["usage_raw"]
    assert {key: (usage.raw or {}).get(key) for key in raw} == raw
    total = recording.expected["usage"].get("total")
    assert total is None or usage.total_tokens == total


def check_error(
    recording: Recording, response: llm.CompletionResponse, error: llm.MiniLLMError | None
) -> None:
    """The error is of the outcome's kind, says what the server said, and has what arrived."""
    if response.outcome is llm.Outcome.FINISHED:
        assert error is None
        return
    assert error is not None
    if response.outcome is llm.Outcome.TRUNCATED:
        assert isinstance(error, EndedEarly)
    else:
        assert isinstance(error, llm.ProviderError)
        found = recording.expected
        said = found.get("error") or found.get("out_of_band_error") or {}
        assert (said.get("message") or found["block_reason"]) in error.info.message
    assert error.partial is not None
    assert timeless(error.partial) == timeless(response)


def test_every_disagreement_is_about_some_stream() -> None:
    found = [param.values[0] for param in recordings(*MODELS) if param.values[0]]
    for name, disagreement in DISAGREEMENTS.items():
        assert not found or any(disagreement.applies(r) for r in found), name


# -- without HTTP --------------------------------------------------------------------------------


def fold(recording: Recording, pieces: Iterable[bytes]) -> Result:
    """The core alone: bytes to chunks to a response."""
    model = MODELS[recording.dialect]("http://unused.invalid")
    provider = model.provider
    decoder = ChunkDecoder(provider)
    machine = Ingest(
        model=ASKED, expect_usage=True, choices=choices(recording), wire=provider.wire_at(model)
    )
    chunks: list[llm.StreamChunk] = []
    for piece in pieces:
        chunks += decoder.feed(piece, 0.0)
    chunks += decoder.finish(0.0)
    machine.ingest_all(chunks)
    machine.fail(decoder.error or EndedEarly("the body ended"))
    return Result(chunks, machine.response(), machine.error)


@every_recording
def test_the_core_does_not_see_how_the_bytes_were_cut(recording: Recording) -> None:
    body = recording.body
    whole = fold(recording, [body])
    assert our_view(whole.response, whole.error) == expected_view(recording)
    short = len(body) < 20_000
    pieces = [body[i : i + 1] for i in range(len(body))] if short else random_cuts(recording, MANY)
    assert fold(recording, pieces).said == whole.said


@every_recording
def test_the_framing_finds_all_events_and_comments(recording: Recording) -> None:
    decoder = llm.SSEDecoder()
    events = decoder.feed(recording.body) + decoder.flush()
    out_of_band = "out_of_band_error" in recording.expected  # a field `error:`, no data
    expected = recording.expected
    assert len(events) - out_of_band == expected["n_data_events"]
    assert decoder.comments == expected["n_comments"]


# -- Gemini's other framing ------------------------------------------------------------------------


def as_array(recording: Recording) -> bytes:
    """The same events as one JSON array, as Google sends it without ``alt=sse``."""
    lines = recording.body.replace(b"\r\n", b"\n").split(b"\n\n")
    events = [line.partition(b"data:")[2].strip() for line in lines if line.strip()]
    return b"[%b\n]\n" % b"\n,\r\n".join(events)


gemini_recordings = recordings("gemini")


@pytest.mark.parametrize("recording", gemini_recordings)
async def test_an_array_over_http(recording: Recording, nursery: trio.Nursery) -> None:
    server = Loopback()
    await nursery.start(server.run)
    body = as_array(recording)
    places = random.Random(recording.name).sample(range(len(body)), min(MANY, len(body) // 10))
    async with llm.open_client() as client:
        stream = await play(client, server, recording, [recording.body])
        whole = await play(client, server, recording, [body])
        cut = await play(client, server, recording, cut_at(body, places))
    assert whole.said == cut.said == stream.said


if gemini_recordings[0].values[0]:

    @given(st.sampled_from([p.values[0] for p in gemini_recordings]), st.booleans(), st.data())
    def test_any_pieces_of_both_framings(
        recording: Recording, array: bool, data: st.DataObject
    ) -> None:
        body = as_array(recording) if array else recording.body
        at = data.draw(st.lists(st.integers(0, len(body)), max_size=8))
        whole, cut = fold(recording, [body]), fold(recording, cut_at(body, at))
        assert cut.said == whole.said
        assert our_view(cut.response, cut.error) == expected_view(recording)


def parts_on_the_wire(recording: Recording) -> list[dict[str, Any]]:
    """Gemini's parts that must go back: all but thoughts and empty texts without a signature.

    Texts that follow each other are joined, up to one with a signature; a call in pieces is its first.
    """
    parts: list[dict[str, Any]] = []
    last: dict[str, Any] = {}
    for part in (
        part
        for event in recording.data
        for candidate in event.get("candidates", ())
        for part in candidate.get("content", {}).get("parts", ())
    ):
        signed = "thoughtSignature" in part
        if part.get("thought"):
            last = {}
        elif part.keys() == last.keys() == {"text"}:
            last["text"] += part["text"]
        elif part.get("text") == "" and not signed:
            continue
        elif "functionCall" not in part or part["functionCall"].get("name"):
            last = dict(part)
            parts.append(last)
    return parts


@pytest.mark.parametrize("recording", gemini_recordings)
def test_all_parts_go_back_in_order(recording: Recording) -> None:
    model = MODELS["gemini"]("http://unused.invalid")
    answer = fold(recording, [recording.body]).response
    messages = (llm.user("Hello."), answer.to_message(), llm.user("Go on."))
    request = llm.Request(model=model, messages=messages, params={}, extra={})
    turns = model.provider.build_request(request)["contents"]
    sent = next((turn["parts"] for turn in turns if turn["role"] == "model"), [])
    wire = parts_on_the_wire(recording)
    assert len(sent) == len(wire)
    for ours, theirs in zip(sent, wire, strict=True):
        if call := theirs.get("functionCall"):
            made = ours["functionCall"]
            assert (made["name"], made.get("id")) == (call["name"], call.get("id"))
            assert "args" not in call or made["args"] == call["args"]
            if "thoughtSignature" in theirs:
                assert ours["thoughtSignature"] == theirs["thoughtSignature"]
        else:
            assert ours == theirs


# -- the next turn -------------------------------------------------------------------------------


def next_turn(recording: Recording) -> dict[str, Any]:
    """The assistant's message in the request that goes on from a recorded answer."""
    model = MODELS[recording.dialect]("http://unused.invalid")
    answer = fold(recording, [recording.body]).response
    request = llm.Request(
        model=model,
        messages=(llm.user("Hello."), answer.to_message(), llm.user("Go on.")),
        params={},
        extra={},
    )
    messages = model.provider.build_request(request)["messages"]
    turns = [m for m in messages if m["role"] == "assistant"]
    assert len(turns) <= 1
    turn = turns[0] if turns else {"content": []}  # nothing was said
    if recording.dialect == "anthropic" and isinstance(turn["content"], str):
        turn["content"] = [{"type": "text", "text": turn["content"]}]  # the same, in short
    return turn


def blocks_on_the_wire(recording: Recording) -> list[dict[str, Any]]:
    """Anthropic's content blocks, put together as their reference says."""
    blocks: list[dict[str, Any]] = []
    inputs: dict[int, str] = {}  # by place in `blocks`
    at: dict[int, int] = {}  # the block that an index means now
    for event in recording.data:
        if event["type"] == "message_start":
            blocks += event["message"]["content"]
        elif event["type"] == "content_block_start":
            at[event["index"]] = len(blocks)
            blocks.append(dict(event["content_block"]))
        elif event["type"] == "content_block_delta":
            place, delta = at[event["index"]], event["delta"]
            kind, block = delta.pop("type"), blocks[place]
            if kind == "input_json_delta":
                inputs[place] = inputs.get(place, "") + delta["partial_json"]
            elif kind == "citations_delta":
                block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
            elif kind == "compaction_delta":
                block.update(delta)
            else:
                ((key, piece),) = delta.items()
                block[key] = block.get(key, "") + piece
    for place, text in inputs.items():
        try:
            blocks[place]["input"] = json.loads(text or "{}")
        except ValueError:
            blocks[place] = {}  # a call that was cut can't be sent back
    return [block for block in blocks if block and block.get("text", "x").strip()]


@pytest.mark.parametrize("recording", recordings("anthropic", containing=b"signature_delta"))
def test_signed_thinking_goes_back_as_it_came(recording: Recording) -> None:
    wire = [b for b in blocks_on_the_wire(recording) if b["type"] == "thinking"]
    assert any(block["signature"] for block in wire)
    assert [b for b in next_turn(recording)["content"] if b["type"] == "thinking"] == wire


@pytest.mark.parametrize("recording", recordings("anthropic"))
def test_all_blocks_go_back_in_order(recording: Recording) -> None:
    assert next_turn(recording)["content"] == blocks_on_the_wire(recording)


@pytest.mark.parametrize("recording", recordings("openai_responses"))
def test_all_items_go_back_in_order_with_their_reasoning(recording: Recording) -> None:
    """As the events at their ends have them: the response at the end encrypts reasoning anew."""
    ends = {e["item"].get("id"): e["item"] for e in recording.data if e["type"] == _ITEM_END}
    last = [e["response"] for e in recording.data if e["type"] == "response.completed"]
    listed = last[-1].get("output", ()) if last else ()
    items = [ends.get(item.get("id"), item) for item in listed]
    if not any(item["type"] == "reasoning" for item in items):
        return  # then ids stay behind
    model = llm.openai_responses("gpt-5", api_key="k")
    wire = model.provider.wire_at(model)
    answer = fold(recording, [recording.body]).response.to_message()
    turn = llm.Message(role="assistant", parts=tuple(_at(part, wire) for part in answer.parts))
    request = llm.Request(model=model, messages=(turn, llm.user("Go on.")), params={}, extra={})
    sent = model.provider.build_request(request)["input"][:-1]
    kept = [item for item in items if not _is_empty(item)]
    while kept and kept[-1]["type"] == "reasoning":
        kept.pop()
    found = [item for item in sent if item["type"] not in _RESULTS]
    assert [_bare(item) for item in found] == [_bare(item) for item in kept]


_ITEM_END = "response.output_item.done"
_RESULTS = ("function_call_output", "custom_tool_call_output")
"""Results of calls that nobody ran, which are made up."""


def _at(part: Any, wire: str) -> Any:
    mine = isinstance(part, llm.ReasoningPart | llm.OpaquePart)
    return msgspec.structs.replace(part, wire=wire) if mine else part


def _is_empty(item: dict[str, Any]) -> bool:
    texts = [part.get("text") or part.get("refusal") for part in item.get("content") or ()]
    return item["type"] == "message" and not any(texts)


def _bare(item: dict[str, Any]) -> dict[str, Any]:
    """An item without what may differ: its status, log probabilities, and what is null."""
    out = {k: v for k, v in item.items() if k != "status" and v is not None}
    if item["type"] == "message":
        out["content"] = [
            {k: v for k, v in part.items() if k != "logprobs"} for part in item["content"]
        ]
    return out


def merged_details(recording: Recording) -> list[dict[str, Any]]:
    """OpenRouter's reasoning blocks: pieces of text of one index follow each other."""
    merged: list[dict[str, Any]] = []
    for event in recording.data:
        for choice in event.get("choices") or ():
            for piece in choice["delta"].get("reasoning_details") or ():
                last = merged[-1] if merged else {}
                same = all(last.get(k) == piece.get(k) for k in ("type", "index"))
                if not same or piece["type"] == "reasoning.encrypted":
                    merged.append(dict(piece))
                    continue
                for key in ("text", "summary"):
                    if key in piece:
                        last[key] = last.get(key, "") + piece[key]
                if piece.get("signature"):
                    last["signature"] = piece["signature"]
    return merged


@pytest.mark.parametrize(
    "recording", recordings("openrouter", containing=b'"reasoning_details":[{')
)
def test_reasoning_details_go_back_merged(recording: Recording) -> None:
    assert next_turn(recording)["reasoning_details"] == merged_details(recording)
