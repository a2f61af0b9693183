"""Types that a type checker must infer for the public names; checked by mypy, never run."""

from collections.abc import Sequence
from typing import Any, assert_type

import httpx
import httpx2
import httpx_sse
import msgspec
import trio

import trio_minillm as llm
from trio_minillm import testing


class City(msgspec.Struct):
    name: str


def weather(city: str, days: int = 1) -> str:
    return city * days


class Mine(llm.Provider):
    name = "mine"

    def endpoint_url(self, model: llm.Model) -> str:
        return model.base_url

    def auth_headers(self, model: llm.Model) -> dict[str, str]:
        return {}

    def build_request(self, request: llm.Request) -> dict[str, Any]:
        return {"messages": [m.text for m in request.messages]}

    def parse_chunk(self, data: bytes) -> llm.StreamChunk | None:
        return llm.StreamChunk(data.decode())

    def parse_response(self, body: bytes) -> Sequence[llm.StreamChunk]:
        return [llm.StreamChunk(body.decode())]


def key() -> str:
    return "k"


async def key_later() -> str:
    return "k"


def signature(request: llm.RequestToSign) -> dict[str, str]:
    return {"x": request.url, **request.headers}


async def signature_later(request: llm.RequestToSign) -> dict[str, str]:
    return {"x": request.body.hex()}


async def main() -> None:
    model = llm.openrouter("m", api_key="k", price=llm.TokenPrice(input=1, output=2))
    assert_type(model, llm.Model)
    async with llm.open_client(
        timeouts=llm.Timeouts(idle=3), retry=llm.Retry(attempts=1)
    ) as client:
        assert_type(client, llm.Client)
        async with client.stream(
            model,
            [llm.user("Hi", llm.image(b"x", media_type="image/png")), {"role": "user"}],
            max_tokens=3,
            tools=[weather, City, llm.Tool(name="x"), {"type": "web_search"}],
            reasoning="low",
            response_format=City,
            extra={"x": 1},
        ) as stream:
            assert_type(stream, llm.TrackedStream)
            channel: trio.abc.ReceiveChannel[llm.StreamChunk] = stream
            async for chunk in stream:
                assert_type(chunk.delta, str)
                assert_type(chunk.usage, llm.Usage | None)
            assert_type(await stream.next_chunk(), llm.StreamChunk | None)
            async with stream.broadcast(buffer=9, policy="detach") as hub:
                assert_type(hub, llm.Broadcast)
                with hub.subscribe(policy="drop_oldest") as listener:
                    assert_type(listener, llm.Listener)
                    received: trio.abc.ReceiveChannel[llm.StreamChunk] = listener
                    assert_type(await received.receive(), llm.StreamChunk)
                    assert_type(await listener.next_chunks(), list[llm.StreamChunk])
                stream.broadcast(policy="wait")  # type: ignore[arg-type]
            async for data in llm.sse_of(stream, keep_alive=None, describe=repr):
                assert_type(data, bytes)
            async for data in llm.sse_of(listener):
                assert_type(data, bytes)
            assert_type(await channel.receive(), llm.StreamChunk)
            assert_type(await stream.collect(), llm.CompletionResponse)
            assert_type(await stream.cancel(), llm.CompletionResponse)
            assert_type(stream.outcome, llm.Outcome | None)
        stored = llm.openai_responses("m", api_key="k")
        assert_type(stored, llm.Model)
        await client.complete(stored, "Hi", include=["reasoning.encrypted_content"], store=False)
        await client.complete(stored, "Hi", background=True, retry=llm.Retry(resumes=2))
        response = await client.complete(model, "Hi", temperature=0.5)
        assert_type(response, llm.CompletionResponse)
        assert_type(response.to_message(), llm.Message)
        assert_type(response.tool_calls, tuple[llm.ToolCall, ...])
        client.stream(model, "Hi", temprature=1)  # type: ignore[call-arg]
        client.stream(model, "Hi", max_tokens="3")  # type: ignore[arg-type]
    async with llm.open_client(http_client=httpx.AsyncClient()):
        pass
    async with llm.open_client(transport=testing.ScriptedTransport()):
        pass
    async with llm.open_client(http_client=httpx2.AsyncClient()):
        pass
    async with llm.open_client(transport=httpx2.AsyncHTTPTransport()):
        pass
    async with llm.open_client(http_client=httpx.Client()):  # type: ignore[arg-type]
        pass
    assert_type(llm.openai("m", api_key=key, sign=signature), llm.Model)
    assert_type(llm.anthropic("m", api_key=key_later, sign=signature_later), llm.Model)
    llm.openai("m", api_key=len)  # type: ignore[arg-type]
    llm.openai("m", sign=key)  # type: ignore[arg-type]
    source = httpx_sse.EventSource(httpx.Response(200))
    taken = llm.StreamingCompletion.from_event_source(
        source, model="m", provider=Mine(), expect_usage=False, idle_timeout=5
    )
    assert_type(taken, llm.StreamingCompletion)
    llm.StreamingCompletion.from_event_source(httpx2.Response(200), model)
    assert_type(llm.gemini("m", base_url="https://x", api_key="k", extra={"x": 1}), llm.Model)
    assert_type(testing.gemini_events("a", finish=None, usage=False), list[bytes])
    base = llm.text_completions("m", base_url="https://x", server="vllm", api_key="k")
    assert_type(base, llm.Model)
    async with llm.open_client() as client:
        response = await client.complete(base, [1, 2], echo=True, suffix="x", prompt_logprobs=1)
        assert_type(llm.split_echo(response, "x"), llm.Echo)
        await client.complete(base, llm.user(llm.TokensPart((1, 2))), best_of=2, logprobs=True)
    assert_type(testing.text_events("a", finish=None, usage=False, done=False), list[bytes])
    async with llm.open_local_model(wire="anthropic") as local:
        assert_type(local, llm.Model)
    testing.check_provider(testing.model(Mine()), streams=[b""])
