"""Types that a type checker must infer for values of answers; checked by mypy and pyright, never run.

pyright reads it in strict mode: what a user annotates without brackets must stay clean there.
"""
# pyright: strict

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Unpack, assert_type

import msgspec

import trio_minillm as llm
from trio_minillm import batch


class City(msgspec.Struct):
    name: str


class Town(msgspec.Struct):
    name: str


def shown(response: llm.CompletionResponse) -> str:
    return response.content


def named(response: llm.CompletionResponse[City]) -> str:
    return response.value.name


async def whole(client: llm.Client, model: llm.Model) -> llm.CompletionResponse:
    response = await client.complete(model, "Hi", response_format=City, max_tokens=3)
    assert_type(response, llm.CompletionResponse[City])
    assert_type(response.value, City)
    named(response)
    shown(response)
    cities = await client.complete(model, "Hi", response_format=list[City], retries_invalid=2)
    assert_type(cities.value, list[City])
    plain = await client.complete(model, "Hi", temperature=0.5)
    assert_type(plain, llm.CompletionResponse)
    assert_type(plain, llm.CompletionResponse[Any])
    for given in ("json", {"type": "json_object"}, llm.JSONSchema(schema={}), None):
        assert_type(
            await client.complete(model, "Hi", response_format=given), llm.CompletionResponse
        )
    either = await client.complete(model, "Hi", response_format=City | Town)
    print(either.value)  # not known to mypy
    plain = response  # a variable of any type takes one of a type
    both: list[llm.CompletionResponse] = [plain, response]
    shown(both[0])
    return response


async def passed_on(
    client: llm.Client, model: llm.Model, **params: Unpack[llm.Params]
) -> llm.CompletionResponse:
    return await client.complete(model, "Hi", **params)


async def of_a_type_that_is_given(
    client: llm.Client, model: llm.Model, type: type[llm.Usage], maybe: type[City] | None
) -> None:
    assert_type((await client.complete(model, "Hi", response_format=type)).value, llm.Usage)
    shown(await client.complete(model, "Hi", response_format=maybe))


async def wrong(client: llm.Client, model: llm.Model) -> None:
    response = await client.complete(model, "Hi", response_format=City)
    print(response.value.population)  # type: ignore[attr-defined] # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType, reportAttributeAccessIssue]
    town: Town = response.value  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
    print(town)
    await client.complete(model, "Hi", response_format=City, max_tokens="3")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]


def into_another(response: llm.CompletionResponse) -> None:
    assert_type(response.parsed(City), City)
    assert_type(response.parsed(list[City]), list[City])
    assert_type(response.parsed(), Any)


def invalid(response: llm.CompletionResponse[City]) -> None:
    try:
        response.value  # noqa: B018
    except llm.InvalidAnswer as error:
        assert_type(error.path, str | None)
        assert_type(error.text, str)
        assert_type(error.response, llm.CompletionResponse)
        decode_error: msgspec.DecodeError = error
        print(decode_error)
    try:
        response.parsed()
    except llm.MismatchedAnswer as error:
        mismatch: msgspec.ValidationError = error
        ours: llm.MiniLLMError = error
        print(mismatch, ours)


# -- batches -------------------------------------------------------------------------------------


async def many(client: llm.Client, model: llm.Model) -> None:
    cities = [llm.BatchRequest(f"k{n}", "Hi", response_format=City, seed=n) for n in range(3)]
    assert_type(cities, list[llm.BatchRequest[City]])
    async with client.batch(cities, model=model) as results:
        assert_type(results, llm.Batch[City])
        async for result in results:
            assert_type(result, llm.BatchResult[City])
            assert_type(result.value, City | None)
            assert_type(result.response, llm.CompletionResponse[City] | None)
        async with results.watch() as watch:
            async for result in watch:
                assert_type(result.value, City | None)
    later = client.vendor_batch(cities, model=model, journal="x")
    assert_type(later, batch.VendorBatch[City])


def plain_requests() -> Iterator[llm.BatchRequest]:
    yield llm.BatchRequest("a", [llm.user("Hi")], max_tokens=3, tools=[City], model=None)
    yield llm.BatchRequest("b", "Hi", params={"max_tokens": 3}, meta={"x": 1}, samples=[1, 2])
    yield llm.BatchRequest("c", "Hi", response_format="json")
    yield llm.BatchRequest("d", "Hi", response_format=City)
    llm.BatchRequest("e", "Hi", max_tokens="3")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue]
    llm.BatchRequest("f", "Hi", temprature=1)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]


async def slow_requests() -> AsyncIterator[llm.BatchRequest]:
    for request in plain_requests():
        yield request


def judged(result: llm.BatchResult) -> None:
    if result.ok:
        print(result.value)


async def all_kinds(client: llm.Client, model: llm.Model) -> None:
    async with client.batch(plain_requests(), model=model, validate=judged) as results:
        assert_type(results, llm.Batch)
        async for result in results:
            judged(result)
    await client.batch(slow_requests(), model=model).run(judged)
    await client.batch(batch.RequestFile("x", model=model), model=model).run(judged)
