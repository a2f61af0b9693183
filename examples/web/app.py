"""A web page that shows an answer as it comes: an ASGI program on Trio, without a framework.

    python examples/web/app.py                                   a local model, http://127.0.0.1:8000
    python examples/web/app.py openai:gpt-5-mini 127.0.0.1:8080

It needs ``pip install 'hypercorn[trio]'``. ``POST /v1/chat/completions`` speaks OpenAI's format, whatever
the model speaks, so that any client of OpenAI's that streams can be used with it. ``GET /live`` joins
the newest answer from its beginning on. Who leaves is noticed at once, and what they were waiting for is
cancelled.
"""

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any

import trio

import trio_minillm as llm

PAGE = Path(__file__).with_name("page.html")
MAKERS = {"openrouter": llm.openrouter, "openai": llm.openai, "anthropic": llm.anthropic}
TAKEN = ("max_tokens", "temperature", "top_p", "stop", "seed", "tools", "tool_choice")
"""Parameters that a client may set."""
MAX_BODY = 2**20

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class App:
    """The ASGI program, for one model."""

    def __init__(self, client: llm.Client, model: llm.Model) -> None:
        self.client = client
        self.model = model
        self.newest: llm.Broadcast | None = None

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        elif scope["type"] == "http":
            asked = f"{scope['method']} {scope['path']}"
            if asked == "GET /":
                await reply(send, 200, "text/html; charset=utf-8", PAGE.read_bytes())
            elif asked == "POST /v1/chat/completions":
                body = await read(receive)
                await until_gone(receive, lambda: self.answer(body, send))
            elif asked == "GET /live" and self.newest is not None:
                listener = self.newest.subscribe(policy="detach")
                await until_gone(receive, lambda: send_events(send, llm.sse_of(listener)))
            else:
                await refuse(send, 404, "there is nothing here")

    async def answer(self, body: bytes, send: Send) -> None:
        try:
            asked = json.loads(body)
            if not isinstance(asked, dict) or "messages" not in asked:
                raise ValueError("the body must be a JSON object with messages")
            if asked.get("stream") is not True:
                raise ValueError("answers are only streamed here: ask with stream=true")
            params = {name: asked[name] for name in TAKEN if asked.get(name) is not None}
            stream = self.client.stream(self.model, asked["messages"], **params)
        except (LookupError, TypeError, ValueError) as error:
            await refuse(send, 400, str(error))
            return
        async with stream:
            try:
                await stream.next_chunk()  # sse_of gives it again
            except llm.MiniLLMError as error:  # nothing was sent so far: the status can say so
                await refuse(send, 502, str(error))
                return
            async with stream.broadcast() as self.newest:
                with self.newest.subscribe() as listener:
                    await send_events(send, llm.sse_of(listener))


async def until_gone(receive: Receive, work: Callable[[], Awaitable[None]]) -> None:
    """Do the work, and cancel it when the client has left."""

    async def wait_for_the_end() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_the_end)
        await work()
        nursery.cancel_scope.cancel()


async def send_events(send: Send, events: AsyncIterator[bytes]) -> None:
    await begin(send, 200, "text/event-stream")
    async for data in events:
        await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def begin(send: Send, status: int, content_type: str) -> None:
    headers = [(b"content-type", content_type.encode()), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def reply(send: Send, status: int, content_type: str, body: bytes) -> None:
    await begin(send, status, content_type)
    await send({"type": "http.response.body", "body": body})


async def refuse(send: Send, status: int, message: str) -> None:
    error = {"message": message, "type": "invalid_request_error" if status < 500 else "upstream"}
    await reply(send, status, "application/json", json.dumps({"error": error}).encode())


async def read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body") or len(body) > MAX_BODY:
            return body[:MAX_BODY]


async def lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def chosen(name: str) -> AbstractAsyncContextManager[llm.Model]:
    if name == "local":
        return llm.open_local_model()
    kind, _, rest = name.partition(":")
    return nullcontext(MAKERS[kind](rest))


async def main(*args: str) -> None:
    from hypercorn.config import Config
    from hypercorn.trio import serve

    name, address, *_ = (*args, *("local", "127.0.0.1:8000")[len(args) :])
    config = Config()
    config.bind = [address]
    async with chosen(name) as model, llm.open_client() as client:
        app: Any = App(client, model)  # hypercorn's types of messages are narrower than ASGI's
        await serve(app, config)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
