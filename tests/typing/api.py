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


class Watches:
    """An observer by its methods alone."""

    def attempt_began(self, attempt: llm.ObservedAttempt) -> None:
        assert_type(attempt.model, llm.Model)

    def answer_began(self, attempt: llm.ObservedAttempt, seconds: float) -> None: ...

    def attempt_ended(self, attempt: llm.ObservedAttempt, end: llm.AttemptEnd) -> None:
        assert_type(end.record, llm.CostRecord)


class WatchesTheEnd(llm.Observer):
    def attempt_ended(self, attempt: llm.ObservedAttempt, end: llm.AttemptEnd) -> None:
        assert_type(end.response, llm.CompletionResponse | None)


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
            async for field in stream.fields(repair=True):
                assert_type(field, llm.Field)
                assert_type(field.delta, str)
            async for city in stream.values(City, field="cities"):
                assert_type(city, City)
            async for element in stream.values():
                assert_type(element, Any)
            assert_type(stream.partial(), llm.Partial[Any])
            partial = stream.partial(City)
            assert_type(partial, llm.Partial[City])
            assert_type(partial.value, City | None)
            print(partial.value.name)  # type: ignore[union-attr]
            assert_type(stream.partial(list[City]).value, list[City] | None)
            async for call in stream.calls():
                assert_type(call, llm.StreamedCall)
                assert_type(call.tool_call, llm.ToolCall | None)
                async for field in call.fields():
                    assert_type(field.done, bool)
                async for city in call.values(City, field="cities"):
                    assert_type(city, City)
                assert_type(call.partial(City).value, City | None)
        stored = llm.openai_responses("m", api_key="k")
        assert_type(stored, llm.Model)
        await client.complete(stored, "Hi", include=["reasoning.encrypted_content"], store=False)
        await client.complete(stored, "Hi", background=True, retry=llm.Retry(resumes=2))
        response = await client.complete(model, "Hi", temperature=0.5)
        assert_type(response, llm.CompletionResponse)
        assert_type(response.to_message(), llm.Message)
        assert_type(response.tool_calls, tuple[llm.ToolCall, ...])
        choice = llm.fallback(
            llm.first_of(model, model, after=2.0), model, on=["clock", llm.RefusedError]
        )
        assert_type(choice, llm.ModelChoice)
        assert_type(await client.complete(choice, "Hi"), llm.CompletionResponse)
        assert_type(client.stream(choice, "Hi"), llm.TrackedStream)
        llm.fallback(model, on=lambda error: isinstance(error, llm.SendError))
        llm.fallback(model, on="weather")  # type: ignore[arg-type]
        llm.first_of(model, model)  # type: ignore[call-arg]
        client.batch([], model=choice)  # type: ignore[arg-type]
        client.stream(model, "Hi", temprature=1)  # type: ignore[call-arg]
        client.stream(model, "Hi", max_tokens="3")  # type: ignore[arg-type]
    async with llm.open_client(http_client=httpx.AsyncClient()):
        pass
    async with llm.open_client(transport=testing.ScriptedTransport(), observer=Watches()):
        pass
    async with llm.open_client(observer=WatchesTheEnd()) as client:
        run = client.run_tools(
            model, "Hi", tools=[weather], max_steps=3, total=60, errors="raise", temperature=1
        )
        assert_type(run, llm.ToolRun)
        async with run as entered:
            assert_type(entered, llm.ToolRun)
            async for step in run:
                assert_type(step, llm.StreamChunk | llm.ToolCall | llm.ToolResult)
            assert_type(await run.collect(), llm.CompletionResponse)
        assert_type(run.messages, list[llm.Message])
        assert_type(run.response, llm.CompletionResponse | None)
        client.run_tools(model, "Hi", errors="ignore")  # type: ignore[arg-type]
    async with llm.open_client(observer=llm.opentelemetry_observer(content=True)):
        pass
    async with llm.open_client(observer=testing.ScriptedTransport()):  # type: ignore[arg-type]
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
    assert_type(testing.tool_call("f", {"a": 1}), llm.ToolCall)
    parts: list[testing.AnswerPart] = [
        testing.reasoning("Hm.", signature="x"),
        "text",
        testing.tool_call("f", "{}", id="1"),
    ]
    assert_type(
        testing.answer(*parts, finish="length", usage=llm.Usage(completion_tokens=3)),
        testing.ReplyFunction,
    )
    testing.answer("a", finish="end_turn")  # type: ignore[arg-type]
    testing.answer(3)  # type: ignore[arg-type]
    async with llm.open_local_model(wire="anthropic") as local:
        assert_type(local, llm.Model)
    testing.check_provider(testing.model(Mine()), streams=[b""])
