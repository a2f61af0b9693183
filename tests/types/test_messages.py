"""Messages: parts from bytes, paths and URLs, OpenAI's format, and reprs without content."""

from __future__ import annotations

import io
import pprint
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import rich.console
import rich.pretty
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import (
    AudioPart,
    DocumentPart,
    ImagePart,
    Message,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
    ToolResult,
)
from trio_minillm._types.messages import Quiet
from trio_minillm._types.openai_messages import messages_of
from trio_minillm.providers import Request

from ..support.media import PDF, PDF64, PNG, PNG64, WAV, WAV64

# -- turns -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "role"),
    [
        (llm.system, "system"),
        (llm.developer, "developer"),
        (llm.user, "user"),
        (llm.assistant, "assistant"),
    ],
)
def test_a_turn_is_text_and_parts_in_order(make: Callable[..., Message], role: str) -> None:
    image = llm.image(PNG)
    for message in (make("a", image, "b"), make(["a", image, "b"]), make("a", [image, ["b"]])):
        assert message == Message(
            role=role,  # type: ignore[arg-type]
            parts=(TextPart("a"), image, TextPart("b")),
        )
        assert message.text == "ab"
    assert make().parts == ()


def test_a_turn_may_be_named() -> None:
    assert llm.user("hi", name="ann").name == "ann"
    assert llm.assistant("hi", name="bot").name == "bot"


@pytest.mark.parametrize("wrong", [5, None, {"type": "text"}, b"bytes", ["x", 5]])
def test_a_turn_of_anything_else_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="made of text and parts"):
        llm.user(wrong)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TextPart(None), "text must be str, not NoneType"),  # type: ignore[arg-type]
        (lambda: llm.text(5), "text must be str, not int"),  # type: ignore[arg-type]
        (lambda: RefusalPart(b"no"), "text must be str, not bytes"),  # type: ignore[arg-type]
        (lambda: ReasoningPart(text=None), "text must be str, not NoneType"),  # type: ignore[arg-type]
        (lambda: ReasoningPart(raw="x"), "raw must be dict or None, not str"),  # type: ignore[arg-type]
        (lambda: llm.OpaquePart(wire="w", raw=5), "raw must be dict, not int"),  # type: ignore[arg-type]
        (lambda: ImagePart(data="x"), "data must be bytes or None, not str"),  # type: ignore[arg-type]
        (lambda: ImagePart(url=5), "url must be str or None, not int"),  # type: ignore[arg-type]
        (lambda: ToolCall(id=5, name="f"), "id must be str, not int"),  # type: ignore[arg-type]
        (lambda: ToolCall(id="1", name=f), "name must be str, not function"),  # type: ignore[arg-type]
        (lambda: ToolCall(id="1", name="f", arguments={}), "arguments must be str, not dict"),  # type: ignore[arg-type]
        (lambda: ToolResult(call_id=5, content=()), "call_id must be str, not int"),  # type: ignore[arg-type]
        (lambda: Message(role="user", parts="x"), "parts must be a tuple of parts, not str"),  # type: ignore[arg-type]
        (lambda: Message(role="user", parts=5), "parts must be a tuple of parts, not int"),  # type: ignore[arg-type]
        (lambda: Message(role="user", parts=("x",)), "made of text and parts, not str"),  # type: ignore[arg-type]
        (lambda: llm.user("x", name=5), "name must be str, not int"),  # type: ignore[arg-type]
    ],
)
def test_a_part_with_a_wrong_type_is_never_made(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: llm.text("x", cache="9 weeks"),  # type: ignore[arg-type]
        lambda: llm.user("x", cache="2h"),  # type: ignore[arg-type]
        lambda: llm.image("https://h/a", cache=5),  # type: ignore[arg-type]
        lambda: llm.tool_result("1", "x", cache="2h"),  # type: ignore[arg-type]
        lambda: llm.Tool(name="t", cache="2h"),  # type: ignore[arg-type]
    ],
)
def test_a_cache_breakpoint_has_a_lifetime_that_is_known(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="cache must be True, '5m' or '1h'"):
        make()


def test_a_message_has_a_role_that_is_known() -> None:
    with pytest.raises(ValueError, match="role must be one of system, developer, user, assistant"):
        Message(role="boss", parts=())  # type: ignore[arg-type]


async def f() -> str:
    return "x"


@pytest.mark.parametrize("wrong", [5, None, {"a": 1}, ["x"], b"x", llm.audio(WAV)])
def test_a_tools_result_is_text_or_parts(wrong: Any) -> None:
    kind = type(wrong).__name__
    with pytest.raises(TypeError, match=f"a tool's result is made of text and parts, not {kind}$"):
        llm.tool_result("call_1", wrong)


def test_a_tools_result_that_was_not_awaited_says_so() -> None:
    pending = f()
    with pytest.raises(TypeError, match="not coroutine: await it"):
        llm.tool_result("call_1", pending)  # type: ignore[arg-type]
    pending.close()


@pytest.mark.parametrize("cache", [True, "5m", "1h"])
def test_a_cache_breakpoint_stands_behind_the_last_part(cache: Any) -> None:
    image = llm.image(PNG)
    assert llm.user("a", image, cache=cache).parts == (TextPart("a"), llm.image(PNG, cache=cache))
    assert llm.system("a", "b", cache=cache).parts == (TextPart("a"), TextPart("b", cache))
    assert llm.text("a", cache=cache) == TextPart("a", cache)
    assert llm.user(cache=cache).parts == ()
    result = llm.tool_result("call_1", "x", cache=cache).parts[0]
    assert isinstance(result, ToolResult)
    assert result.cache == cache


@pytest.mark.parametrize("part", [RefusalPart("no"), ToolCall(id="1", name="f")])
def test_not_every_part_can_carry_one(part: Any) -> None:
    with pytest.raises(ValueError, match="can't carry a cache breakpoint"):
        llm.assistant(part, cache=True)
    assert llm.assistant(part, cache=None).parts == (part,)


def test_a_tool_result_answers_a_call_or_its_id() -> None:
    call = ToolCall(id="call_1", name="sky", arguments="{}")
    image = llm.image(PNG)
    assert llm.tool_result(call, "blue", image, is_error=True) == Message(
        role="tool",
        parts=(
            ToolResult(
                call_id="call_1", name="sky", content=(TextPart("blue"), image), is_error=True
            ),
        ),
    )
    by_id = llm.tool_result("call_1", "blue", " sky").parts[0]
    assert isinstance(by_id, ToolResult)
    assert (by_id.call_id, by_id.name, by_id.text) == ("call_1", None, "blue sky")


@pytest.mark.parametrize(
    ("arguments", "type", "value"),
    [
        ('{"a": 1}', Any, {"a": 1}),
        ("", Any, {}),
        (" \n", Any, {}),
        ('{"a": 1}', dict[str, int], {"a": 1}),
        ("[1]", Any, [1]),
    ],
)
def test_a_calls_arguments_are_read_on_demand(arguments: str, type: Any, value: Any) -> None:
    assert ToolCall(id="1", name="f", arguments=arguments).parsed(type) == value


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ('{"a": ', msgspec.DecodeError),
        ("text", msgspec.DecodeError),
        ('{"a": "x"}', msgspec.ValidationError),
    ],
)
def test_arguments_that_cant_be_read(arguments: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        ToolCall(id="1", name="f", arguments=arguments).parsed(dict[str, int])


# -- media -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0JFIF", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (WAV, "audio/wav"),
        (PDF, "application/pdf"),
        (b"ID3\x04", "audio/mpeg"),
        (b"\xff\xfb\x90", "audio/mpeg"),
        (b"fLaC", "audio/flac"),
        (b"OggS", "audio/ogg"),
    ],
)
def test_the_media_type_is_told_from_the_bytes(data: bytes, media_type: str) -> None:
    for given_bytes in (data, bytearray(data), memoryview(data)):
        part = llm.document(given_bytes)  # type: ignore[arg-type]
        assert (part.media_type, part.data) == (media_type, data)


@pytest.mark.parametrize("data", [b"", b"plain text", b"RIFF", b"RIFF\x00\x00\x00\x00AVI "])
def test_unknown_bytes_need_a_media_type(data: bytes) -> None:
    with pytest.raises(ValueError, match="give media_type="):
        llm.image(data)
    assert llm.image(data, media_type="image/x").media_type == "image/x"


@pytest.mark.parametrize(
    ("name", "data", "media_type"),
    [
        ("a.png", b"anything", "image/png"),  # the name says it
        ("a.txt", b"hello", "text/plain"),
        ("a.bin.unknown", PNG, "image/png"),  # the bytes say it
        ("a", PDF, "application/pdf"),
    ],
)
def test_media_from_a_path(tmp_path: Path, name: str, data: bytes, media_type: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    part = llm.document(path)
    assert (part.data, part.media_type, part.title) == (data, media_type, name)
    assert llm.document(path, title="T", media_type="x/y").title == "T"
    assert llm.document(path, media_type="x/y").media_type == "x/y"


def test_media_from_a_url() -> None:
    assert llm.image("https://h/a.png") == ImagePart(url="https://h/a.png", media_type="image/png")
    assert llm.image("https://h/a").media_type is None
    assert llm.image("https://h/a", media_type="image/gif").media_type == "image/gif"
    assert llm.image("https://h/a.png").data_url() == "https://h/a.png"
    with pytest.raises(ValueError, match="no bytes"):
        llm.image("https://h/a.png").base64()


def test_a_data_url_is_its_bytes() -> None:
    part = llm.image(f"data:image/png;base64,{PNG64}", detail="low", cache=True)
    assert part == ImagePart(data=PNG, media_type="image/png", detail="low", cache=True)
    assert part.data_url() == f"data:image/png;base64,{PNG64}"
    assert part.base64() == PNG64
    charset = f"data:text/plain;charset=utf-8;base64,{PNG64}"
    assert llm.document(charset).media_type == "text/plain"
    assert llm.image("data:image/x;base64,eHh4", media_type="image/y").media_type == "image/y"


@pytest.mark.parametrize("given", ["image/jpeg", "image/jpg", "image/x", "image/png"])
def test_an_image_has_the_type_that_its_bytes_show(given: str) -> None:
    """Servers refuse a picture that is said to be another's kind, and the whole request with it."""
    assert llm.image(PNG, media_type=given).media_type == "image/png"
    assert llm.image(f"data:{given};base64,{PNG64}").media_type == "image/png"
    assert ImagePart(data=b"\xff\xd8\xff\xe0", media_type=given).media_type == "image/jpeg"


def test_where_the_bytes_show_nothing_the_given_type_counts() -> None:
    assert llm.image(b"?", media_type="image/avif").media_type == "image/avif"
    assert llm.image(b"?", media_type="image/jpg").media_type == "image/jpeg"
    assert llm.document(PNG, media_type="text/plain").media_type == "text/plain"


def test_a_data_url_without_a_type_is_sniffed() -> None:
    assert llm.image(f"data:;base64,{PNG64}").media_type == "image/png"


@pytest.mark.parametrize(
    "wrong", ["data:image/png,abc", "data:image/png;base64,!!", "data:image/png;base64,abc"]
)
def test_a_data_url_that_is_not_base64(wrong: str) -> None:
    with pytest.raises(ValueError):
        llm.image(wrong)


@pytest.mark.parametrize("name", ["/etc/passwd", "cat.png", "", "C:\\x.png"])
def test_a_string_never_names_a_file(name: str) -> None:
    with pytest.raises(ValueError, match=r"give a pathlib.Path"):
        llm.image(name)


@pytest.mark.parametrize("source", [10**30, 5, ["a"], None])
def test_media_come_from_nothing_else(source: Any) -> None:
    for make in (llm.image, llm.audio, llm.document):
        with pytest.raises(TypeError, match=r"bytes, a pathlib.Path or a URL"):
            make(source)


def test_a_result_belongs_to_a_call() -> None:
    with pytest.raises(TypeError, match="the call, or its id"):
        llm.tool_result(5, "blue")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [{}, {"data": b"x", "url": "https://h"}, {"url": "https://h", "file_id": "f"}],
)
def test_media_are_in_exactly_one_place(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        ImagePart(**fields)


def test_bytes_always_have_a_media_type() -> None:
    with pytest.raises(ValueError, match="media_type"):
        ImagePart(data=b"no magic")


@pytest.mark.parametrize(
    ("media_type", "word"),
    [
        ("audio/wav", "wav"),
        ("audio/x-wav", "wav"),
        ("audio/wave", "wav"),
        ("audio/vnd.wave", "wav"),
        ("audio/mpeg", "mp3"),
        ("audio/mp3", "mp3"),
        ("audio/flac", "flac"),
        ("audio/ogg", "ogg"),
        ("audio/x-aiff", "aiff"),
    ],
)
def test_the_wires_word_for_a_format_of_sound(media_type: str, word: str) -> None:
    assert llm.audio(b"x", media_type=media_type).format == word


@given(st.binary(max_size=64))
def test_bytes_survive_a_data_url(data: bytes) -> None:
    part = ImagePart(data=data, media_type="image/png")
    assert llm.image(part.data_url()) == part


# -- OpenAI's format -------------------------------------------------------------------------


def test_a_string_is_a_user_turn_and_a_message_is_itself() -> None:
    assert messages_of("hi") == (llm.user("hi"),)
    assert messages_of(llm.system("x")) == (llm.system("x"),)
    assert messages_of([llm.system("x"), {"role": "user", "content": "hi"}]) == (
        llm.system("x"),
        llm.user("hi"),
    )


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"role": "system", "content": "x"}, llm.system("x")),
        ({"role": "developer", "content": "x"}, llm.developer("x")),
        ({"role": "user", "content": "x", "name": "ann"}, llm.user("x", name="ann")),
        ({"role": "user", "content": [{"type": "text", "text": "x"}]}, llm.user("x")),
        ({"role": "user", "content": []}, llm.user()),
        ({"role": "assistant", "content": None}, llm.assistant()),
        ({"role": "assistant"}, llm.assistant()),
        (
            {"role": "assistant", "content": None, "refusal": "no"},
            llm.assistant(RefusalPart("no")),
        ),
        (
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            llm.assistant(RefusalPart("no")),
        ),
        (
            {
                "role": "assistant",
                "content": "let me see",
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "sky", "arguments": '{"a": 1}'},
                    },
                    {"id": "call_2", "type": "custom", "custom": {"name": "sql", "input": "x"}},
                ],
            },
            llm.assistant(
                "let me see",
                ToolCall(id="call_1", name="sky", arguments='{"a": 1}'),
                ToolCall(id="call_2", name="sql", arguments="x", type="custom"),
            ),
        ),
        (
            {"role": "tool", "tool_call_id": "call_1", "content": "blue"},
            llm.tool_result("call_1", "blue"),
        ),
        (
            {
                "role": "tool",
                "tool_call_id": "call_1",
                "content": [{"type": "text", "text": "blue"}],
            },
            llm.tool_result("call_1", "blue"),
        ),
    ],
)
def test_a_message_in_openais_format(raw: dict[str, Any], message: Message) -> None:
    assert messages_of([raw]) == (message,)
    assert llm.message_of(raw) == message


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        (
            {"type": "image_url", "image_url": {"url": "https://h/a.png", "detail": "low"}},
            llm.image("https://h/a.png", detail="low"),
        ),
        (
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG64}"}},
            llm.image(PNG),
        ),
        (
            {"type": "input_audio", "input_audio": {"data": WAV64, "format": "wav"}},
            AudioPart(data=WAV, media_type="audio/wav"),
        ),
        (
            {
                "type": "file",
                "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF64}"},
            },
            llm.document(PDF, title="a.pdf"),
        ),
        ({"type": "file", "file": {"file_id": "file-1"}}, DocumentPart(file_id="file-1")),
        (  # OpenRouter
            {"type": "file", "file": {"filename": "a", "file_data": "https://h/a.pdf"}},
            llm.document("https://h/a.pdf", title="a"),
        ),
        (
            {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}},
            llm.text("x", cache=True),
        ),
        (
            {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            llm.text("x", cache="1h"),
        ),
    ],
)
def test_a_part_in_openais_format(raw: dict[str, Any], part: Any) -> None:
    assert llm.message_of({"role": "user", "content": [raw]}).parts == (part,)


WIRE_WANTS_BACK = {"extra_content": {"google": {"thought_signature": "c2ln"}}}


def test_what_the_wire_wants_back_is_kept() -> None:
    """A Gemini signature beside a call, OpenRouter's reasoning, the name beside a result."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    (read,) = llm.message_of({"role": "assistant", "tool_calls": [call | WIRE_WANTS_BACK]}).parts
    assert isinstance(read, ToolCall)
    assert read.extra == WIRE_WANTS_BACK
    (result,) = llm.message_of(
        {"role": "tool", "tool_call_id": "1", "name": "f", "content": "x"}
    ).parts
    assert isinstance(result, ToolResult)
    assert result.name == "f"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"reasoning": "hm"}, "hm"),
        ({"reasoning_content": "hm"}, "hm"),
        ({"reasoning_details": [{"type": "reasoning.text", "text": "hm", "signature": "s"}]}, "hm"),
    ],
)
def test_reasoning_beside_the_content_is_not_lost(fields: dict[str, Any], text: str) -> None:
    message = llm.message_of({"role": "assistant", "content": "x", **fields})
    assert [p.text for p in message.parts if isinstance(p, ReasoningPart)] == [text]


def test_the_deprecated_function_call_is_a_call() -> None:
    message = llm.message_of(
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "f", "arguments": "{}"},
        }
    )
    (call,) = message.parts
    assert isinstance(call, ToolCall)
    assert (call.name, call.arguments) == ("f", "{}")
    result = llm.message_of({"role": "function", "name": "f", "content": "x"}).parts[0]
    assert isinstance(result, ToolResult)
    assert result.call_id == call.id  # the answer belongs to it


SECRET = "hunter2"


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"content": SECRET},
        {"role": SECRET},
        {"role": ["user"]},
        {"role": "user", "content": 5},
        {"role": "user", "content": [SECRET]},
        {"role": "user", "content": {"type": "text"}},
        {"role": "user", "content": [{"type": "text"}]},
        {"role": "user", "content": [{"text": SECRET}]},
        {"role": "user", "content": [{"type": "text", "text": 5}]},
        {"role": "user", "content": [{"type": "text", "text": None}]},
        {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": SECRET}]},
        {"role": "user", "content": [{"type": "video", "video": SECRET}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": f"https://{SECRET}"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": SECRET}}]},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": WAV64}}]},
        {
            "role": "user",
            "content": [{"type": "input_audio", "input_audio": {"data": "!!", "format": "wav"}}],
        },
        {"role": "user", "content": [{"type": "file", "file": {"filename": SECRET}}]},
        {"role": "tool", "content": SECRET},
        {"role": "tool", "tool_call_id": 5, "content": SECRET},
        {  # no format takes audio in a tool result: it must not vanish
            "role": "tool",
            "tool_call_id": "1",
            "content": [{"type": "input_audio", "input_audio": {"data": WAV64, "format": "wav"}}],
        },
        {"role": "assistant", "reasoning": 5},
        {"role": "assistant", "reasoning_details": [SECRET]},
        {"role": "assistant", "tool_calls": [SECRET]},
        {"role": "assistant", "tool_calls": {"id": SECRET}},
        {"role": "assistant", "tool_calls": [{"id": "1", "type": "function"}]},
        {"role": "assistant", "tool_calls": [{"id": "1", "type": "new", "new": {}}]},
        {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f"}}]},
        {
            "role": "assistant",
            "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"a": SECRET}}}],
        },
    ],
)
def test_a_wrong_mapping_is_named_and_not_shown(raw: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"messages\[1\]") as caught:
        messages_of([llm.user("x"), raw])
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("wrong", [5.0, True, "hi", None, ("role", "user")])
def test_a_wrong_message_is_named(wrong: Any) -> None:
    with pytest.raises(TypeError, match=rf"messages\[0\] is of type {type(wrong).__name__}, not"):
        messages_of([wrong])


@pytest.mark.parametrize("wrong", [5, None, b"x", bytearray(b"x"), memoryview(b"x")])
def test_what_is_no_prompt_is_named(wrong: Any) -> None:
    kind = type(wrong).__name__
    with pytest.raises(
        TypeError, match=f"messages must be a prompt, a message or a list of messages, not {kind}$"
    ):
        messages_of(wrong)


def test_a_part_is_no_message() -> None:
    with pytest.raises(TypeError, match=r"not TextPart: put parts into llm\.user"):
        messages_of(llm.text("x"))  # type: ignore[arg-type]


def test_a_single_mapping_is_one_message() -> None:
    assert messages_of({"role": "user", "content": "x"}) == (llm.user("x"),)
    with pytest.raises(ValueError, match=r"messages\[0\]: no 'role'"):
        messages_of({"content": "x"})


def test_no_message_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no message"):
        messages_of([])


# -- repr -------------------------------------------------------------------------

CALL = ToolCall(id="call_1", name="sky", arguments=f'{{"a": "{SECRET}"}}', extra={"x": SECRET})
QUIET: list[tuple[Any, str]] = [
    (TextPart(SECRET, citations=({"cited_text": SECRET},)), "<TextPart 7 characters>"),
    (
        ImagePart(data=SECRET.encode(), media_type="image/png", detail="low"),
        "<ImagePart image/png 7 bytes>",
    ),
    (ImagePart(url=f"https://h/{SECRET}"), "<ImagePart ? url>"),
    (DocumentPart(file_id=SECRET, title=SECRET, context=SECRET), "<DocumentPart ? file_id>"),
    (AudioPart(data=b"", media_type="audio/wav"), "<AudioPart audio/wav 0 bytes>"),
    (RefusalPart(SECRET), "<RefusalPart 7 characters>"),
    (ReasoningPart(text=SECRET), "<ReasoningPart 7 characters>"),
    (
        ReasoningPart(text=SECRET, signature=SECRET, encrypted=SECRET, raw={"x": SECRET}),
        "<ReasoningPart 7 characters signed>",
    ),
    (CALL, "<ToolCall sky 16 characters of arguments>"),
    (
        ToolResult(call_id="call_1", content=(TextPart(SECRET),)),
        "<ToolResult call_1 1 parts>",
    ),
    (
        llm.OpaquePart(wire="anthropic", raw={"type": "compaction", "content": SECRET}),
        "<OpaquePart anthropic compaction>",
    ),
    (llm.OpaquePart(wire="anthropic", raw={"x": SECRET}), "<OpaquePart anthropic ?>"),
    (llm.user(SECRET, llm.image(PNG)), "<Message user ['TextPart', 'ImagePart']>"),
]
MODEL = llm.openrouter(
    "m/x", api_key=SECRET, headers={"x-key": SECRET}, extra={"k": SECRET}, app_title=SECRET
)
REQUEST = Request(
    model=MODEL,
    messages=(llm.user(SECRET),),
    params={"user": SECRET, "tools": [SECRET]},
    extra={"k": SECRET},
)
QUIET += [
    (MODEL, "<Model openrouter:m/x>"),
    (REQUEST, "<Request <Model openrouter:m/x> 1 messages>"),
    (
        llm.CompletionResponse(choices=(llm.Choice(content=SECRET, reasoning=SECRET),)),
        "<CompletionResponse None None 7 characters, 0 tool calls>",
    ),
]


def test_what_has_nothing_to_say_says_its_kind() -> None:
    class Thing(Quiet):
        __slots__ = ("secret",)

    assert repr(Thing()) == "<Thing>"


def rich_text(thing: Any) -> str:
    out = io.StringIO()
    rich.console.Console(file=out, width=200).print(rich.pretty.Pretty(thing))
    return out.getvalue()


@pytest.mark.parametrize(("thing", "shown"), QUIET, ids=lambda x: x if isinstance(x, str) else "")
def test_what_is_printed_is_kinds_and_sizes(thing: Any, shown: str) -> None:
    assert repr(thing) == shown


@pytest.mark.parametrize("thing", [thing for thing, _ in QUIET], ids=lambda x: type(x).__name__)
@pytest.mark.parametrize(
    "show",
    [repr, str, ascii, pprint.pformat, rich_text, "{}".format, "{!r}".format, "%s".__mod__],
    ids=lambda f: getattr(f, "__name__", "format"),
)
def test_no_way_of_printing_shows_content(thing: Any, show: Callable[[Any], str]) -> None:
    for wrapped in (thing, [thing], {"k": thing}, (thing, [thing])):
        try:
            assert SECRET not in show(wrapped)
        except TypeError:  # "%s" of a tuple
            assert isinstance(wrapped, tuple)


def test_what_a_provider_echoes_is_not_printed_with_an_error() -> None:
    """OpenRouter's moderation error quotes the prompt in ``metadata.flagged_input``."""
    body = b'{"error": {"code": 403, "message": "no", "metadata": {"flagged_input": "hunter2"}}}'
    info = MODEL.provider.parse_error(403, body)
    error = llm.RefusedError(info)
    for shown in (repr(error), str(error), repr(error.args), repr(info), rich_text(info)):
        assert SECRET not in shown


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_key": f"{SECRET}\n"},
        {"api_key": f" {SECRET}"},
        {"api_key": f"{SECRET}ü"},
        {"headers": {"x": f"{SECRET}\r\ny: z"}},
        {"base_url": f"ftp://{SECRET}"},
        {"base_url": f"api.{SECRET}.com"},
    ],
)
def test_a_model_that_cant_be_sent_to_does_not_show_why_in_full(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as caught:
        llm.openai("m", **{"api_key": "k", **wrong})
    assert SECRET not in str(caught.value)


def test_a_key_comes_from_the_environment_or_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"  {SECRET}\n")
    assert llm.openai("m").api_key == SECRET
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ValueError, match="set OPENAI_API_KEY"):
        llm.openai("m")
    for empty in ("", " "):  # a variable that is not set, read by the caller
        with pytest.raises(ValueError, match="set OPENAI_API_KEY"):
            llm.openai("m", api_key=empty)
    assert llm.openai("m", base_url="http://localhost/v1").api_key is None
    assert llm.openai("m", base_url="http://localhost/v1", api_key="").api_key is None
    # A compatible server never gets a key that it was not given.
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert llm.compatible("m", base_url="http://h/v1").api_key is None
