"""Keys that are asked for, and requests that are signed.

The servers here check what they get, as the real ones do: a bearer's token, or a signature over the
method, the address, the headers and the bytes of the body.
"""

from __future__ import annotations

import hashlib
import hmac
import pickle
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest
import trio

import trio_minillm as llm
from trio_minillm import Retry, Timeouts
from trio_minillm._http.credentials import (
    COMPLETE,
    STARTED,
    CredentialedExchange,
    SentOnce,
    exchange_with,
)
from trio_minillm._http.exchange import Exchange, Outgoing
from trio_minillm._http.httpx_exchange import HttpxExchange
from trio_minillm._http.roundtrip import CONNECTING, SENDING, SENT
from trio_minillm._http.transport_errors import ReadError
from trio_minillm._protocol.request import credentials_of, prepare
from trio_minillm.batch import BatchRequest
from trio_minillm.testing import (
    Reply,
    ScriptedTransport,
    ServedRequest,
    anthropic_events,
    hang,
    openai_events,
    reply,
    serve,
    settlement,
)

from ..support.wires import MAKERS, begin

KEYS = [f"token-{number}-0123456789abcdef" for number in range(9)]
JSON = {"content-type": "application/json"}
OPEN = reply(*begin("openrouter"), hang)


def refusal(text: str = "bad token", **headers: str) -> Reply:
    body = b'{"error":{"message":"%s","type":"authentication_error"}}' % text.encode()
    return reply(body, status=401, headers={**JSON, **headers})


class Source:
    """A function that returns these keys, one after the other, and the last again and again."""

    def __init__(self, *keys: Any) -> None:
        self.keys, self.asked = keys, 0

    def __call__(self) -> Any:
        self.asked += 1
        return self.keys[min(self.asked, len(self.keys)) - 1]

    async def later(self) -> Any:
        await trio.sleep(1)
        return self()

    async def at_once(self) -> Any:
        return self()


def takes(*good: str) -> Callable[[ServedRequest], Reply]:
    """A server that takes these tokens, and no others."""

    def answer(request: ServedRequest) -> Reply:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        known = scheme == "Bearer" and token in good
        return reply(*openai_events("Hi")) if known else refusal(f"bad token {token}")

    return answer


def model(key: Any = None, **options: Any) -> llm.Model:
    given = {"base_url": "http://test.invalid/v1", "api_key": key, **options}
    return llm.compatible("m", **given)


def bearers(transport: Any) -> list[str | None]:
    return [request.headers.get("authorization") for request in transport.requests]


async def ask(transport: Any, target: llm.Model, **options: Any) -> llm.CompletionResponse:
    async with llm.open_client(transport=transport) as client:
        return await client.complete(target, "Hi", **options)


# -- the key -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ask_it", [Source.__call__, Source.later, Source.at_once])
@pytest.mark.parametrize("by", ["stream", "complete", "batch", "scope"])
async def test_a_function_gives_the_key_with_each_attempt(
    ask_it: Any, by: str, autojump_clock: Any
) -> None:
    source = Source(*KEYS)
    target = model(partial(ask_it, source))
    transport = ScriptedTransport(takes(*KEYS))
    async with llm.open_client(transport=transport) as client:
        for _ in range(3):
            if by == "batch":
                async with client.batch([BatchRequest("k", "Hi")], model=target) as results:
                    answers = [result.response async for result in results]
            elif by == "stream":
                async with client.stream(target, "Hi") as stream:
                    answers = [await stream.collect()]
            else:
                asker = client.scope() if by == "scope" else client
                answers = [await asker.complete(target, "Hi")]
            assert [a and a.content for a in answers] == ["Hi"]
    assert bearers(transport) == [f"Bearer {key}" for key in KEYS[:3]]
    assert transport.open_bodies == 0


@pytest.mark.parametrize("make", MAKERS)
async def test_the_key_goes_where_the_models_own_would(make: Any, autojump_clock: Any) -> None:
    given = {"base_url": "http://test.invalid/v1"}
    sent = []
    for key in (KEYS[0], lambda: KEYS[0]):
        transport = ScriptedTransport(refusal())
        with pytest.raises(llm.RefusedError):
            await ask(transport, make("m", api_key=key, **given))
        sent.append(dict(transport.requests[0].headers.items()))
    assert sent[0] == sent[1]
    assert KEYS[0] in str(sent[0])


async def test_an_oauth_token_brings_its_beta(autojump_clock: Any) -> None:
    transport = ScriptedTransport(reply(*anthropic_events("Hi")))
    target = llm.anthropic("m", api_key=lambda: "sk-ant-oat01-0123456789")
    await ask(transport, target, betas=["mine"])
    headers = transport.requests[0].headers
    assert headers["anthropic-beta"] == "mine,oauth-2025-04-20"
    assert headers["authorization"] == "Bearer sk-ant-oat01-0123456789"


async def test_after_a_401_another_key_is_tried_once(autojump_clock: Any) -> None:
    source = Source(*KEYS)
    transport = ScriptedTransport(takes(KEYS[1]))
    answer = await ask(transport, model(source), retry=Retry(attempts=1))
    assert (answer.content, source.asked) == ("Hi", 2)
    assert bearers(transport) == [f"Bearer {KEYS[0]}", f"Bearer {KEYS[1]}"]
    assert transport.open_bodies == 0
    assert transport.read_to_end == 2  # both connections are kept


async def test_it_counts_as_one_attempt(autojump_clock: Any) -> None:
    busy = reply(b"{}", status=503, headers=JSON)
    transport = ScriptedTransport(busy, refusal(), reply(*openai_events("Hi")))
    async with llm.open_client(transport=transport) as client:
        async with client.stream(model(Source(*KEYS)), "Hi", retry=Retry(attempts=2)) as stream:
            assert (await stream.collect()).content == "Hi"
        assert [record.attempt for record in stream.records] == [1, 2]
    assert bearers(transport) == [f"Bearer {key}" for key in KEYS[:3]]


async def test_a_second_401_is_final_whatever_the_server_says(autojump_clock: Any) -> None:
    source = Source(*KEYS)
    transport = ScriptedTransport(refusal("no", **{"x-should-retry": "true"}))
    with pytest.raises(llm.RefusedError) as caught:
        await ask(transport, model(source))
    assert (caught.value.status, caught.value.kind) == (401, "auth")
    assert (len(transport.requests), source.asked) == (2, 2)
    assert transport.open_bodies == 0


async def test_the_same_key_again_is_not_sent_again(autojump_clock: Any) -> None:
    source = Source(KEYS[0])
    transport = ScriptedTransport(refusal(f"bad token {KEYS[0]}"))
    with pytest.raises(llm.RefusedError, match="bad token") as caught:
        await ask(transport, model(source))
    assert (len(transport.requests), source.asked) == (1, 2)
    assert KEYS[0] not in str(caught.value)
    assert transport.open_bodies == 0


async def test_a_403_is_no_401(autojump_clock: Any) -> None:
    source = Source(*KEYS)
    transport = ScriptedTransport(reply(b"{}", status=403, headers=JSON))
    with pytest.raises(llm.RefusedError):
        await ask(transport, model(source))
    assert source.asked == 1


async def test_a_401_with_a_key_of_ones_own_is_final(autojump_clock: Any) -> None:
    transport = ScriptedTransport(refusal())
    with pytest.raises(llm.RefusedError):
        await ask(transport, model(KEYS[0]))
    assert len(transport.requests) == 1


async def test_the_provider_is_asked_for_a_cost_with_a_key_of_the_moment(
    autojump_clock: Any,
) -> None:
    source = Source(*KEYS)
    target = llm.openrouter("m", api_key=source, base_url="http://test.invalid/v1")
    transport = ScriptedTransport(OPEN, settlements=[refusal(), settlement(0.5)])
    async with llm.open_client(transport=transport) as client:
        async with client.stream(target, "Hi") as stream:
            await anext(stream)
            response = await stream.cancel()
    assert response.cost.amount is not None
    asked = [request.headers["authorization"] for request in transport.questions]
    assert asked == [f"Bearer {KEYS[1]}", f"Bearer {KEYS[2]}"]


# -- functions that fail -----------------------------------------------------------------------


def raises() -> str:
    token = KEYS[0]
    raise RuntimeError(f"could not refresh {token}")


async def raises_later() -> str:
    await trio.sleep(1)
    return raises()


def shown(error: BaseException, *, variables: bool = True) -> str:
    """Everything that a program may print of an error, with the variables of our frames."""
    texts = ["".join(traceback.format_exception(error)), repr(error), repr(vars(error))]
    links: list[BaseException | None] = [error]
    while links:
        one = links.pop()
        if one is None:
            continue
        links += [one.__cause__, one.__context__, *getattr(one, "errors", ())]
        texts.append(repr(vars(one)))
        for frame, _ in traceback.walk_tb(one.__traceback__):
            if variables and "/tests/" not in frame.f_code.co_filename:
                texts += map(repr, frame.f_locals.values())
    return "\n".join(texts)


@pytest.mark.parametrize("source", [raises, raises_later])
@pytest.mark.parametrize("option", ["api_key", "sign"])
async def test_what_the_function_raises_is_told_without_its_words(
    source: Any, option: str, autojump_clock: Any
) -> None:
    transport = ScriptedTransport()
    call = (lambda request: source()) if option == "sign" else source
    target = llm.compatible("m", base_url="http://test.invalid/v1", **{option: call})
    with pytest.raises(llm.CredentialsError) as caught:
        await ask(transport, target, retry=Retry(attempts=1))
    error = caught.value
    assert f"the function {option} raised RuntimeError (in " in str(error)
    assert "test_credentials.py line " in str(error)
    assert type(error.__cause__) is RuntimeError
    assert isinstance(error, llm.SendError)
    assert (error.reason, error.permanent) == ("credentials", False)
    assert KEYS[0] not in shown(error)
    assert transport.requests == []


class Odd(Exception):
    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code

    def __str__(self) -> str:
        return f"{self.code} {self.args[0]}"


def odd() -> str:
    raise Odd(KEYS[0], 5)


def group() -> str:
    raise ExceptionGroup(KEYS[0], [ValueError(KEYS[0])])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (partial(int, KEYS[0]), "raised ValueError$"),
        (odd, r"raised Odd \(in odd, test_credentials.py line \d+\)$"),
        (group, "raised ExceptionGroup"),
    ],
)
async def test_whatever_it_raises(source: Any, words: str, autojump_clock: Any) -> None:
    with pytest.raises(llm.CredentialsError, match=words) as caught:
        await ask(ScriptedTransport(), model(source), retry=Retry(attempts=1))
    assert KEYS[0] not in shown(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.permanent, again.reason) == (str(caught.value), False, "credentials")


async def test_what_cancels_the_program_is_no_failure_of_the_function(autojump_clock: Any) -> None:
    def source() -> str:
        raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)) as caught:
        await ask(ScriptedTransport(), model(source))
    assert "CredentialsError" not in repr(caught.value)


async def test_a_function_that_failed_is_asked_again_with_the_next_attempt(
    autojump_clock: Any,
) -> None:
    calls: list[int] = []

    def source() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("the metadata server is away")
        return KEYS[0]

    assert (await ask(ScriptedTransport(takes(KEYS[0])), model(source))).content == "Hi"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (None, "returned NoneType, not str"),
        (KEYS[0].encode(), "returned bytes, not str"),
        ([KEYS[0]], "returned list, not str"),
        ("", "returned an empty text"),
        (
            f"{KEYS[0]}\n",
            "returned a value that can't be sent: API keys and headers must be printable",
        ),
        (f"Bearer {KEYS[0]}", "returned a value that can't be sent: api_key must be the key alone"),
    ],
)
@pytest.mark.parametrize("ask_it", [Source.__call__, Source.later])
async def test_what_is_no_key_is_told_and_not_tried_again(
    key: Any, words: str, ask_it: Any, autojump_clock: Any
) -> None:
    source = Source(key)
    transport = ScriptedTransport()
    with pytest.raises(llm.CredentialsError, match=f"^no key: the function api_key {words}") as e:
        await ask(transport, model(partial(ask_it, source)))
    assert (source.asked, transport.requests, e.value.permanent) == (1, [], True)
    assert KEYS[0] not in shown(e.value)


async def test_a_function_may_say_in_its_own_words_what_is_wrong(autojump_clock: Any) -> None:
    def source() -> str:
        raise llm.CredentialsError("log in first: `cloud login`", permanent=True)

    with pytest.raises(llm.CredentialsError, match=r"^log in first: `cloud login`$"):
        await ask(ScriptedTransport(), model(source))


def unlike_itself() -> str:
    try:
        return raises()
    except RuntimeError:
        raise llm.CredentialsError("log in first")  # noqa: B904 - as programs do


def caused() -> str:
    try:
        return raises()
    except RuntimeError as exc:
        raise llm.CredentialsError("log in first") from exc


def alone() -> str:
    try:
        return raises()
    except RuntimeError:
        raise llm.CredentialsError("log in first") from None


def interrupted() -> str:
    try:
        raise KeyboardInterrupt(KEYS[0])
    except KeyboardInterrupt as exc:
        raise llm.CredentialsError("log in first") from exc


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        (unlike_itself, RuntimeError),
        (caused, RuntimeError),
        (alone, type(None)),
        (interrupted, type(None)),
    ],
)
async def test_what_led_to_its_own_words_is_not_shown(
    source: Any, cause: Any, autojump_clock: Any
) -> None:
    with pytest.raises(llm.CredentialsError, match=r"^log in first$") as caught:
        await ask(ScriptedTransport(), model(source), retry=Retry(attempts=1))
    assert type(caught.value.__cause__) is cause
    assert KEYS[0] not in shown(caught.value)


@pytest.mark.parametrize("option", ["api_key", "sign"])
async def test_what_fails_while_it_is_cancelled_is_not_shown(
    option: str, autojump_clock: Any
) -> None:
    async def failing() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raises()

    async def source(*_: Any) -> Any:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(failing)
            nursery.start_soon(trio.sleep_forever)

    target = llm.compatible("m", base_url="http://test.invalid/v1", **{option: source})
    with pytest.raises(llm.ConnectTimeout, match="no key or signature within 3 s") as caught:
        await ask(
            ScriptedTransport(), target, timeouts=Timeouts(connect=3), retry=Retry(attempts=1)
        )
    assert KEYS[0] not in shown(caught.value)
    with trio.move_on_after(1) as scope:
        await ask(ScriptedTransport(), target)
    assert scope.cancelled_caught


async def test_a_failure_after_a_401_closes_what_was_refused(autojump_clock: Any) -> None:
    source = Source(KEYS[0], None)
    transport = ScriptedTransport(refusal())
    with pytest.raises(llm.CredentialsError, match="NoneType"):
        await ask(transport, model(source))
    assert transport.open_bodies == 0


@pytest.mark.parametrize("option", ["api_key", "sign"])
async def test_a_slow_function_runs_under_the_clock_of_connecting(
    option: str, autojump_clock: Any
) -> None:
    async def slow(*_: Any) -> Any:
        await trio.sleep(50)

    target = llm.compatible("m", base_url="http://test.invalid/v1", **{option: slow})
    clocks = Timeouts(connect=3)
    with pytest.raises(llm.ConnectTimeout) as caught:
        await ask(ScriptedTransport(), target, timeouts=clocks, retry=Retry(attempts=1))
    assert str(caught.value) == "no key or signature within 3 s (clock 'connect')"
    assert caught.value.reason == "credentials"
    assert trio.current_time() == pytest.approx(3)


async def test_its_time_is_not_that_of_the_first_content(autojump_clock: Any) -> None:
    source = Source(*KEYS)
    late = reply(4, *openai_events("Hi"))
    clocks = Timeouts(connect=2, first_chunk=5)
    transport = ScriptedTransport(refusal(), late)
    answer = await ask(transport, model(source.later), timeouts=clocks)
    assert answer.content == "Hi"
    assert trio.current_time() == pytest.approx(1 + 1 + 4)


async def test_cancelled_while_it_asks_nothing_is_left(autojump_clock: Any) -> None:
    transport = ScriptedTransport(refusal())
    source = Source(*KEYS)
    async with llm.open_client(transport=transport) as client:
        for seconds in (0.5, 1.5):  # in the first question, and in the one after the refusal
            with trio.move_on_after(seconds):
                await client.complete(model(source.later), "Hi")
            async with client.stream(model(source.later), "Hi"):
                await trio.sleep(seconds)
    assert transport.open_bodies == 0
    assert len(transport.requests) == 2


# -- signatures --------------------------------------------------------------------------------

SECRET = b"of both sides"


def signature(method: str, target: str, host: str, date: str, body: bytes) -> str:
    text = "\n".join([method, target, host, date, hashlib.sha256(body).hexdigest()])
    return hmac.new(SECRET, text.encode(), hashlib.sha256).hexdigest()


def sign(request: llm.RequestToSign) -> dict[str, str]:
    """A signature as AWS's is made, in short."""
    url = httpx.URL(request.url)
    date = "20300101T000000Z"
    made = signature(
        request.method, url.raw_path.decode(), request.headers["host"], date, request.body
    )
    return {"X-Date": date, "Authorization": f"HMAC-SHA256 Signature={made}"}


async def sign_later(request: llm.RequestToSign) -> dict[str, str]:
    await trio.lowlevel.checkpoint()
    return sign(request)


def verified(request: ServedRequest) -> Reply:
    headers = request.headers
    date = headers.get("x-date", "")
    made = signature(request.method, request.target, headers["host"], date, request.body)
    if headers.get("authorization") != f"HMAC-SHA256 Signature={made}":
        return reply(b"{}", status=403, headers=JSON)
    return reply(*openai_events("signed"))


@asynccontextmanager
async def no_transport() -> AsyncIterator[dict[str, Any]]:
    yield {}


@asynccontextmanager
async def transport_of_httpx() -> AsyncIterator[dict[str, Any]]:
    async with httpx.AsyncHTTPTransport() as transport:
        yield {"transport": transport}


@asynccontextmanager
async def client_of_httpx() -> AsyncIterator[dict[str, Any]]:
    async with httpx.AsyncClient(follow_redirects=True) as client:
        yield {"http_client": client}


WAYS = [no_transport, transport_of_httpx, client_of_httpx]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("hook", [sign, sign_later])
async def test_a_server_verifies_what_was_signed(way: Any, hook: Any) -> None:
    async with serve(verified) as server, way() as options:
        target = server.model(sign=hook, base_url=f"{server.base_url}?api-version=1")
        async with llm.open_client(**options) as client:
            assert (await client.complete(target, "Hi")).content == "signed"
            async with client.stream(target, "x" * 100_000) as stream:
                assert (await stream.collect()).content == "signed"
            async with client.batch([BatchRequest("k", "Hi")], model=target) as results:
                assert [r.response and r.response.content async for r in results] == ["signed"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_server_verifies_the_token_of_the_moment(way: Any) -> None:
    source = Source(*KEYS)
    async with serve(takes(KEYS[1], KEYS[2])) as server, way() as options:
        async with llm.open_client(**options) as client:
            for _ in range(2):
                answer = await client.complete(server.model(api_key=source.at_once), "Hi")
                assert answer.content == "Hi"
        assert bearers(server) == [f"Bearer {key}" for key in KEYS[:3]]


async def test_a_signature_is_made_after_the_key_and_anew_with_each_attempt(
    autojump_clock: Any,
) -> None:
    seen: list[llm.RequestToSign] = []

    def hook(request: llm.RequestToSign) -> dict[str, str]:
        seen.append(request)
        return {"x-signature": f"number-{len(seen)}", "user-agent": "mine"}

    busy = reply(b"{}", status=503, headers=JSON)
    transport = ScriptedTransport(busy, refusal(), reply(*openai_events("Hi")))
    await ask(transport, model(Source(*KEYS), sign=hook), temperature=0)
    assert [r.headers["x-signature"] for r in transport.requests] == [
        "number-1",
        "number-2",
        "number-3",
    ]
    assert [r.headers["authorization"] for r in seen] == [f"Bearer {key}" for key in KEYS[:3]]
    assert {r.headers["user-agent"] for r in transport.requests} == {"mine"}
    one = seen[0]
    assert (one.method, one.url) == ("POST", "http://test.invalid/v1/chat/completions")
    assert (one.headers["host"], one.headers["content-type"]) == (
        "test.invalid",
        JSON["content-type"],
    )
    assert [r.content for r in transport.requests] == [one.body] * 3
    assert repr(one) == "<POST request to sign>"
    assert list(one.__rich_repr__()) == ["POST request to sign"]


async def test_a_signature_replaces_a_header_however_a_provider_writes_its_name(
    autojump_clock: Any,
) -> None:
    class Capital(llm.providers.OpenAIChat):
        def auth_headers(self, model: llm.Model) -> dict[str, str]:
            return {"Authorization": f"Bearer {model.api_key}"}

    seen: list[llm.RequestToSign] = []

    def hook(request: llm.RequestToSign) -> dict[str, str]:
        seen.append(request)
        return {"Authorization": "HMAC-SHA256 Signature=1"}

    transport = ScriptedTransport(reply(*openai_events("Hi")))
    given = {"name": "m", "provider": Capital(), "base_url": "http://test.invalid/v1"}
    await ask(transport, llm.Model(**given, api_key=KEYS[0], sign=hook))
    assert seen[0].headers["authorization"] == f"Bearer {KEYS[0]}"
    sent = transport.requests[0].headers
    assert sent.get_list("authorization") == ["HMAC-SHA256 Signature=1"]


async def test_what_comes_back_from_sign_as_it_was_is_no_secret(autojump_clock: Any) -> None:
    missing = b'{"error":{"message":"no such model at test.invalid"}}'
    transport = ScriptedTransport(reply(missing, status=404, headers=JSON))
    target = model(sign=lambda request: {**request.headers, "authorization": KEYS[0]})
    with pytest.raises(llm.RefusedError, match=r"no such model at test\.invalid") as caught:
        await ask(transport, target)
    assert "asked http://test.invalid/v1/chat/completions" in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        (None, "returned NoneType, not a mapping of headers"),
        ([("a", "b")], "returned list, not a mapping"),
        (
            {"authorization": f"{KEYS[0]}\r\nx: y"},
            "returned a value that can't be sent: API keys and",
        ),
        ({"a b": "c"}, "returned a value that can't be sent: a header's name must be"),
        ({1: "c"}, "returned a value that can't be sent: a header's name must be"),
        ({"a": KEYS[0].encode()}, "returned a value that can't be sent: API keys and headers"),
        (
            {"Content-Length": "1"},
            "returned a value that can't be sent: headers must not say where",
        ),
    ],
)
async def test_what_are_no_headers_is_told(headers: Any, words: str, autojump_clock: Any) -> None:
    transport = ScriptedTransport()
    with pytest.raises(llm.CredentialsError, match=f"^not signed: the function sign {words}") as e:
        await ask(transport, model(sign=lambda request: headers))
    assert (transport.requests, e.value.permanent) == ([], True)
    assert KEYS[0] not in shown(e.value)


async def test_a_question_about_a_cost_is_signed_too(autojump_clock: Any) -> None:
    target = llm.openrouter("m", base_url="http://test.invalid/v1", sign=sign)
    transport = ScriptedTransport(OPEN, settlements=[settlement(0.5)])
    async with llm.open_client(transport=transport) as client:
        async with client.stream(target, "Hi") as stream:
            await anext(stream)
            await stream.cancel()
    (question,) = transport.questions
    path = question.url.raw_path.decode()
    made = signature("GET", path, "test.invalid", question.headers["x-date"], b"")
    assert question.headers["authorization"] == f"HMAC-SHA256 Signature={made}"


# -- where keys show, and where they go --------------------------------------------------------


def echo(request: ServedRequest) -> Reply:
    token = request.headers["authorization"].partition(" ")[2]
    body = b'{"error":{"message":"you said %s","code":"%s"}}' % (token.encode(), token.encode())
    return reply(body, status=400, headers={**JSON, "x-request-id": token, "x-echo": token})


def echo_in_band(request: ServedRequest) -> Reply:
    token = request.headers["authorization"].partition(" ")[2]
    events = openai_events("Hi")
    error = b'data: {"error":{"message":"you said %s","code":400}}\n\n' % token.encode()
    return reply(*events[:2], error, headers={"x-request-id": token})


@pytest.mark.parametrize("answer", [echo, echo_in_band])
@pytest.mark.parametrize(
    "given",
    [
        {"api_key": lambda: KEYS[0]},
        {"sign": lambda request: {"authorization": f"Bearer {KEYS[0]}"}},
        {"sign": lambda request: {"authorization": f"Sigv9 Credential={KEYS[0]}"}},
    ],
    ids=["key", "token", "signature"],
)
async def test_what_a_server_repeats_of_a_key_is_shown_nowhere(
    answer: Any, given: Any, caplog: pytest.LogCaptureFixture, autojump_clock: Any
) -> None:
    caplog.set_level(1)
    async with llm.open_client(transport=ScriptedTransport(answer)) as client:
        async with client.stream(model(**given), "Hi") as stream:
            with pytest.raises(llm.MiniLLMError) as caught:
                await stream.collect()
        everything = [shown(caught.value, variables=False), repr(caught.value.partial), caplog.text]
        everything += [repr(stream.headers), repr(stream.records), repr(vars(stream))]
    assert "you said" in str(caught.value)
    assert [text for text in everything if KEYS[0] in text] == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("given", ["api_key", "sign"])
async def test_nothing_follows_a_redirect(status: int, way: Any, given: str) -> None:
    options = {"api_key": Source(*KEYS)} if given == "api_key" else {"sign": sign}
    async with serve(reply(b"{}", status=200)) as elsewhere:
        moved = reply(b"", status=status, headers={"location": elsewhere.url})
        async with serve(moved) as server, way() as http, llm.open_client(**http) as client:
            with pytest.raises(llm.RefusedError, match="redirects; not followed"):
                await client.complete(server.model(**options), "Hi")
            assert len(server.requests) == 1
        assert elsewhere.connections == []


def test_models_are_equal_whatever_their_keys() -> None:
    def same() -> list[llm.Model]:
        keys: list[Any] = [None, KEYS[0], KEYS[1], Source(), Source().later]
        signs: list[Any] = [None, sign, sign_later]
        return [model(key, sign=hook) for key in keys for hook in signs]

    models = same()
    assert all(one == models[0] for one in models)
    assert len({*models}) == 1
    others = [
        llm.compatible("n", base_url="http://test.invalid/v1"),
        llm.compatible("m", base_url="http://other.invalid/v1"),
        llm.compatible("m", base_url="http://test.invalid/v1", server="vllm"),
        llm.openai("m", base_url="http://test.invalid/v1", api_key=KEYS[0]),
        model(extra={"a": 1}),
        model(headers={"a": "b"}),
        model(price=llm.TokenPrice(input=1, output=1)),
    ]
    assert models[0] not in others
    assert models[0] != "m"
    assert {repr(one) for one in models} == {"<Model compatible:m>"}


def test_an_answer_is_found_in_the_cache_whatever_the_key(tmp_path: Any) -> None:
    """And whoever asks for it, in another process as well."""

    async def main() -> None:
        transport = ScriptedTransport(reply(*anthropic_events("Hi")))
        keys: list[Any] = [KEYS[0], "sk-ant-oat01-0123456789", Source(*KEYS), Source(*KEYS).later]
        async with llm.open_client(transport=transport) as client:
            for number, key in enumerate(keys):
                with llm.ResponseCache(tmp_path / "cache.db") as cache:
                    target = llm.anthropic("m", api_key=key)
                    requests = [BatchRequest("k", "Hi")]
                    async with client.batch(requests, model=target, cache=cache) as results:
                        (result,) = [r async for r in results]
                assert result.response is not None
                assert (result.cached, len(transport.requests)) == (number > 0, 1)

    trio.run(main)


def test_functions_and_keys_go_not_together() -> None:
    given = {"provider": model().provider, "base_url": "http://test.invalid/v1", "name": "m"}
    with pytest.raises(ValueError, match="api_key or key_source, not both"):
        llm.Model(api_key=KEYS[0], key_source=lambda: KEYS[1], **given)
    for name in ("key_source", "sign"):
        with pytest.raises(TypeError, match=f"{name} must be a function or None, not str"):
            llm.Model(**{name: "x"}, **given)


class Empty(list[str]):
    """A function that is false, as a container of nothing is."""

    def __call__(self, *_: Any) -> Any:
        return KEYS[0]


@pytest.mark.parametrize(
    "given", [{"api_key": lambda: KEYS[0]}, {"api_key": Empty()}, {"sign": sign}, {"sign": Empty()}]
)
def test_no_key_of_the_environment_goes_beside_it(
    given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEYS[1])
    assert llm.openai("m", **given).api_key is None
    monkeypatch.delenv("OPENAI_API_KEY")
    assert llm.openai("m", **given).api_key is None


def test_they_are_warned_of_over_plain_http() -> None:
    for given in ({"api_key": lambda: KEYS[0]}, {"api_key": Empty()}, {"sign": sign}):
        with pytest.warns(UserWarning, match="unencrypted"):
            llm.compatible("m", base_url="http://example.com/v1", **given)


def test_what_a_model_has_is_not_shown_by_what_is_made_of_it() -> None:
    made = prepare(
        model(partial(Source, KEYS[0])), "Hi", {}, timeouts=Timeouts(), retry=Retry()
    ).credentials
    assert made is not None
    assert (repr(made), list(made.__rich_repr__())) == ("<Credentials>", ["credentials"])


@pytest.mark.parametrize(
    "events",
    [
        [CONNECTING, SENDING, SENT],
        [STARTED, COMPLETE, CONNECTING, SENDING, SENT, STARTED, CONNECTING, SENDING, SENT],
    ],
)
def test_a_request_that_is_to_go_out_once_may_be_sent(events: list[str]) -> None:
    progress = SentOnce()
    for event in events:
        progress(event)


@pytest.mark.parametrize("before", [[SENDING], [SENT], [SENDING, SENT], [STARTED, COMPLETE, SENT]])
def test_a_request_that_is_to_go_out_once_goes_out_on_no_other_connection(
    before: list[str],
) -> None:
    progress = SentOnce()
    for event in before:
        progress(event)
    with pytest.raises(ReadError, match="may have arrived"):
        progress(CONNECTING)


def test_only_who_has_functions_gets_an_exchange_that_asks_them() -> None:
    made: list[Exchange] = []

    def connect() -> Exchange:
        made.append(HttpxExchange(no_answer))
        return made[-1]

    async def no_answer(request: Outgoing) -> httpx.Response:
        raise AssertionError("nothing is sent here")

    def headers(asked: str, key: str) -> dict[str, str]:
        return {}

    plain, keyed = (
        credentials_of(llm.openai("m", api_key=key), headers, "") for key in ("k", lambda: "k")
    )
    assert exchange_with(connect, plain, no_secrets) is made[0]
    assert isinstance(exchange_with(connect, keyed, no_secrets), CredentialedExchange)
    assert len(made) == 1, "the second connects when it has its key"


def no_secrets(headers: object) -> None:
    raise AssertionError("nothing is asked here")
