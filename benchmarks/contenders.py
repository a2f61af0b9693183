"""The contenders, each of which reads an answer of the replay server in its usual way.

A contender is an async context manager that yields a `Stream`: a function that asks for one
answer, and calls ``first`` with its first piece of text and ``take`` with every other one. The
module `measures` does the measuring. Libraries are imported inside functions, so that the other
contenders run without them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import lru_cache, partial
from typing import Any, NamedTuple

Take = Callable[[str], object]
Stream = Callable[[str, Take, Take], Awaitable[None]]
"""Function of a model's name, a callback for the first piece, and one for the others."""
PROMPT = "Go on."
PATHS = {
    "openai": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "responses": "/v1/responses",
    "gemini": "/v1beta/models/m:streamGenerateContent",
}
KEY = "none"


class Options(NamedTuple):
    """The address and the kind of answers that a contender is set up for."""

    url: str
    wire: str = "openai"
    kind: str = "text"


def body(model: str) -> dict[str, Any]:
    """Return the request body that the plain HTTP clients send."""
    messages = [{"role": "user", "content": PROMPT}]
    return {"model": model, "messages": messages, "stream": True}


def _models(options: Options) -> Callable[[str], Any]:
    """Return the function that makes this library's models, once each."""
    import trio_minillm as llm

    make, path = {
        "openai": (llm.openai, "/v1"),
        "anthropic": (llm.anthropic, ""),
        "responses": (llm.openai_responses, "/v1"),
        "gemini": (llm.gemini, ""),
    }[options.wire]
    return lru_cache(partial(make, base_url=options.url + path, api_key=KEY))


@asynccontextmanager
async def ours(options: Options) -> AsyncIterator[Stream]:
    """Open this library's public API with its defaults: `Client.stream`, iterated."""
    import trio_minillm as llm

    model_of = _models(options)
    async with llm.open_client() as client:

        async def text(model: str, first: Take, take: Take) -> None:
            async with client.stream(model_of(model), PROMPT) as stream:
                first((await stream.receive()).delta)
                async for chunk in stream:
                    take(chunk.delta)
            assert stream.outcome is llm.Outcome.FINISHED

        async def tool(model: str, first: Take, take: Take) -> None:
            async with client.stream(model_of(model), PROMPT) as stream:
                first(await anext(stream) and "")
                async for chunk in stream:
                    for call in chunk.tool_calls:
                        take(call.arguments)
            assert stream.response.tool_calls[0].parsed()

        yield text if options.kind == "text" else tool


@asynccontextmanager
async def ours_complete(options: Options) -> AsyncIterator[Stream]:
    """Open this library's `Client.complete`, where nobody watches the chunks."""
    import trio_minillm as llm

    model_of = _models(options)
    async with llm.open_client() as client:

        async def whole(model: str, first: Take, take: Take) -> None:
            response = await client.complete(model_of(model), PROMPT)
            assert response.outcome is llm.Outcome.FINISHED
            first(response.content)

        yield whole


def openai_text(event: bytes) -> str:
    """Return the text of an event, decoded with ``json``."""
    data = event.removeprefix(b"data: ")
    if data == b"[DONE]":
        return ""
    choices = json.loads(data)["choices"]
    return choices[0]["delta"].get("content", "") if choices else ""


def openai_tool(event: bytes) -> str:
    data = event.removeprefix(b"data: ")
    if data == b"[DONE]":
        return ""
    choices = json.loads(data)["choices"]
    calls = choices[0]["delta"].get("tool_calls") if choices else None
    return calls[0]["function"]["arguments"] if calls else ""


def anthropic_text(event: bytes) -> str:
    data = json.loads(event.partition(b"\ndata: ")[2])
    return data["delta"]["text"] if data["type"] == "content_block_delta" else ""


def responses_text(event: bytes) -> str:
    data = json.loads(event.partition(b"\ndata: ")[2])
    return data["delta"] if data["type"] == "response.output_text.delta" else ""


def gemini_text(event: bytes) -> str:
    candidates = json.loads(event.removeprefix(b"data: "))["candidates"]
    return "".join(part["text"] for part in candidates[0]["content"]["parts"])


TEXT_OF = {
    ("responses", "text"): responses_text,
    ("gemini", "text"): gemini_text,
    ("openai", "text"): openai_text,
    ("openai", "tool"): openai_tool,
    ("anthropic", "text"): anthropic_text,
}


@asynccontextmanager
async def aiohttp_json(options: Options) -> AsyncIterator[Stream]:
    """Open aiohttp with json, used well: each read as it comes, split at blank lines."""
    import aiohttp

    text_of, url = TEXT_OF[options.wire, options.kind], options.url + PATHS[options.wire]
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def stream(model: str, first: Take, take: Take) -> None:
            rest, emit = b"", first
            async with session.post(url, json=body(model)) as response:
                async for data in response.content.iter_any():
                    *events, rest = (rest + data).split(b"\n\n")
                    for event in events:
                        if text := text_of(event):
                            emit(text)
                            emit = take
            assert not rest

        yield stream


@asynccontextmanager
async def httpx_sse(options: Options) -> AsyncIterator[Stream]:
    """Open httpx, httpx-sse and json in a plain loop, under Trio."""
    import httpx
    from httpx_sse import aconnect_sse

    openai, url = options.wire == "openai", options.url + PATHS[options.wire]
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=None, limits=limits) as client:

        async def stream(model: str, first: Take, take: Take) -> None:
            emit = first
            async with aconnect_sse(client, "POST", url, json=body(model)) as source:
                async for event in source.aiter_sse():
                    if event.data == "[DONE]":
                        continue  # the body ends right behind it
                    data = json.loads(event.data)
                    if openai:
                        choices = data["choices"]
                        text = choices[0]["delta"].get("content", "") if choices else ""
                    elif data["type"] == "content_block_delta":
                        text = data["delta"]["text"]
                    else:
                        text = ""
                    if text:
                        emit(text)
                        emit = take

        yield stream


def _unlimited(module: Any) -> Any:
    """Return an SDK's own HTTP client without its limit of 1,000 connections."""
    try:
        import httpx2 as httpx  # which the SDKs use today
    except ImportError:
        import httpx
    return module.DefaultAsyncHttpxClient(limits=httpx.Limits(max_connections=None))


@asynccontextmanager
async def openai_sdk(options: Options) -> AsyncIterator[Stream]:
    import openai

    url, http = options.url + "/v1", _unlimited(openai)
    tool = options.kind == "tool"
    messages: Any = [{"role": "user", "content": PROMPT}]
    async with openai.AsyncOpenAI(api_key=KEY, base_url=url, http_client=http) as client:

        async def responses(model: str, first: Take, take: Take) -> None:
            emit = first
            async with await client.responses.create(
                model=model, input=PROMPT, stream=True
            ) as events:
                async for event in events:
                    if event.type == "response.output_text.delta":
                        emit(event.delta)
                        emit = take

        async def stream(model: str, first: Take, take: Take) -> None:
            events = await client.chat.completions.create(
                model=model, messages=messages, stream=True, stream_options={"include_usage": True}
            )
            async with events:
                async for event in events:
                    first(event.choices[0].delta.content or "")
                    break
                async for event in events:
                    for choice in event.choices:
                        if tool:
                            for call in choice.delta.tool_calls or ():
                                take(call.function.arguments)
                        else:
                            take(choice.delta.content or "")

        yield responses if options.wire == "responses" else stream


@asynccontextmanager
async def anthropic_sdk(options: Options) -> AsyncIterator[Stream]:
    import anthropic

    http = _unlimited(anthropic)
    messages: Any = [{"role": "user", "content": PROMPT}]
    async with anthropic.AsyncAnthropic(
        api_key=KEY, base_url=options.url, http_client=http
    ) as client:

        async def stream(model: str, first: Take, take: Take) -> None:
            events = await client.messages.create(
                model=model, messages=messages, max_tokens=100, stream=True
            )
            async with events:
                async for event in events:
                    if event.type == "content_block_delta":
                        first(event.delta.text)
                        break
                async for event in events:
                    if event.type == "content_block_delta":
                        take(event.delta.text)

        yield stream


# -- event loops -----------------------------------------------------------------------------


class Loop(NamedTuple):
    """The functions of an async library that the measures need."""

    run: Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]
    together: Callable[..., Coroutine[Any, Any, Any]]
    """Function that runs a number of tasks; with ``main``, until that returns."""
    event: Callable[[], Any]
    semaphore: Callable[[int], Any]


def trio_loop() -> Loop:
    import trio

    async def together(
        task: Callable[[int], Awaitable[None]],
        count: int,
        main: Callable[[], Awaitable[Any]] | None = None,
    ) -> Any:
        result = None
        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(task, number)
            if main is not None:
                result = await main()
                nursery.cancel_scope.cancel()
        return result

    return Loop(trio.run, together, trio.Event, trio.Semaphore)


def asyncio_loop() -> Loop:
    async def together(
        task: Callable[[int], Coroutine[Any, Any, None]],
        count: int,
        main: Callable[[], Awaitable[Any]] | None = None,
    ) -> Any:
        result = None
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(task(number)) for number in range(count)]
            if main is not None:
                result = await main()
                for one in tasks:
                    one.cancel()
        return result

    return Loop(lambda main: asyncio.run(main()), together, asyncio.Event, asyncio.Semaphore)


class Contender(NamedTuple):
    title: str
    needs: str
    """Module that it needs; a contender that is not installed is left out."""
    open: Callable[[Options], AbstractAsyncContextManager[Stream]] | None = None
    loop: Callable[[], Loop] = asyncio_loop


OURS, COMPLETE, FLOOR = "ours", "complete", "floor"
CONTENDERS = {
    OURS: Contender("trio_minillm", "trio_minillm", ours, trio_loop),
    COMPLETE: Contender("trio_minillm: complete", "trio_minillm", ours_complete, trio_loop),
    FLOOR: Contender("floor: sockets + msgspec", "msgspec"),
    "aiohttp": Contender("aiohttp + json", "aiohttp", aiohttp_json),
    "httpx": Contender("httpx + httpx-sse + json", "httpx_sse", httpx_sse, trio_loop),
    "openai": Contender("openai SDK", "openai", openai_sdk),
    "anthropic": Contender("anthropic SDK", "anthropic", anthropic_sdk),
}
