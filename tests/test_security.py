"""Tests of what `SECURITY.md` promises: keys and prompts show nowhere, and keys go nowhere else.

`Everything` looks wherever a program might write an error down: messages, ``repr``, attributes,
tracebacks with and without local variables, what rich makes of them, causes and contexts, logs of
every library at every level, warnings, and the ledger.
"""

from __future__ import annotations

import gc
import logging
import pickle
import stat
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

import trio_minillm as llm
from trio_minillm import Retry, Timeouts
from trio_minillm.testing import ScriptedTransport, hang, openai_events, reply

from .support.peers import Peer, Script, answering, ours, serving, theirs
from .support.spellings import KEY, VALUE, pieces_of, spelled, spellings
from .support.wires import MAKERS

PROMPT = "the plan of the canary is yellow"


CANARIES = [*pieces_of(KEY), *pieces_of(VALUE), *pieces_of(PROMPT)]


class Everything:
    """Collects what could be written down somewhere, and looks for the canaries in it."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self.warnings: list[warnings.WarningMessage] = []
        self._shown: list[tuple[str, str]] = []

    def error(self, error: BaseException) -> None:
        for number, one in enumerate(family(error)):
            name = f"{number} {type(one).__name__}"
            self.text(f"{name} str", str(one))
            self.text(f"{name} repr", repr(one))
            if isinstance(one, llm.MiniLLMError):
                self.text(f"{name} vars", repr(vars(one)))
                self.text(f"{name} args", repr(one.args))
                self.text(f"{name} pickle", repr(pickle.dumps(one)))
        self.text("traceback", "".join(traceback.format_exception(error)))

    def locals_of(self, error: BaseException) -> None:
        """The local variables of this library's frames, and of those below them."""
        for one in family(error):
            for frame, _ in traceback.walk_tb(one.__traceback__):
                place = f"{frame.f_code.co_filename}:{frame.f_code.co_qualname}"
                if "/tests/" in frame.f_code.co_filename:
                    continue  # who gives a key has it
                for name, value in frame.f_locals.items():
                    self.text(f"local {name} of {place}", repr(value))

    def text(self, where: str, text: str) -> None:
        self._shown.append((where, text))

    def leaks(self, *, of_httpx: bool = True) -> list[str]:
        """Return the places where a canary shows.

        httpx's own transport logs what servers say, whoever uses it.
        """
        shown = [*self._shown]
        shown += [
            (f"log of {r.name}", f"{r.getMessage()} {vars(r)!r}")
            for r in self._caplog.records
            if of_httpx or not r.name.startswith("http")
        ]
        shown += [("warning", str(w.message)) for w in self.warnings]
        return sorted({f"{w}: {c}" for w, text in shown for c in CANARIES if c in spelled(text)})


def family(error: BaseException) -> Iterator[BaseException]:
    """The error, its causes and contexts, and the errors that it holds."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__, *getattr(one, "errors", ())]
        waiting += getattr(one, "exceptions", ())


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture) -> Iterator[Everything]:
    loggers = [logging.getLogger(n) for n in ("", "httpx", "httpcore", "trio", "trio_minillm")]
    before = [(logger, logger.level) for logger in loggers]
    for logger in loggers:
        logger.setLevel(1)
    found = Everything(caplog)
    with caplog.at_level(1), warnings.catch_warnings(record=True) as found.warnings:
        warnings.simplefilter("always")
        yield found
        gc.collect()
    for logger, level in before:
        logger.setLevel(level)


def key_of(key: str, *_: Any) -> str:
    return key


def headers_of(key: str, request: llm.RequestToSign) -> dict[str, str]:
    return {**request.headers, "authorization": f"Own {key}"}


def model(base_url: str = "http://test.invalid/v1", wire: str = "compatible") -> llm.Model:
    """Return a model on a wire, or one whose key is ``asked`` for, or whose requests are ``signed``."""
    if wire in ("asked", "signed"):  # by functions whose own repr shows the key
        how: Any = {"api_key": partial(key_of, KEY)}
        if wire == "signed":
            how = {"sign": partial(headers_of, KEY)}
        return llm.compatible("m", base_url=base_url, headers={"x-mine": VALUE}, **how)
    make = getattr(llm, wire)
    made: llm.Model = make("m", base_url=base_url, api_key=KEY, headers={"x-mine": VALUE})
    return made


FAST = Timeouts(connect=2, first_chunk=2, idle=2, byte_idle=2, total=3, settlement=0)
ONCE = Retry(attempts=1)


async def failure(
    transport: httpx.AsyncBaseTransport, target: llm.Model, **options: Any
) -> llm.MiniLLMError:
    async with llm.open_client(transport=transport, timeouts=FAST, retry=ONCE) as client:
        with pytest.raises(llm.MiniLLMError) as caught:
            async with client.stream(target, PROMPT, **options) as stream:
                await stream.collect()
        return caught.value


# -- everywhere else -----------------------------------------------------------------------------

CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
LATER = b"\r\n9\r\ndata: {}\n\r\n"


def on_the_wire(text: bytes) -> dict[str, Script]:
    """Servers that break HTTP, and say the key while they do."""

    def says(*pieces: bytes) -> Script:
        async def script(peer: Peer) -> None:
            if await peer.request():
                await peer.send(*pieces)

        return script

    async def resets(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    async def resets_at_once(peer: Peer) -> None:
        peer.reset()

    async def resets_later(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + LATER)
        peer.reset()

    async def hangs(peer: Peer) -> None:
        while await peer.receive():
            pass

    return {
        "no HTTP": says(text),
        "a status line": says(b"HTTP/1.1 " + text + b"\r\n\r\n"),
        "a version": says(b"HTTP/" + text + b" 200 OK\r\n\r\n"),
        "a reason": says(b"HTTP/1.1 400 " + text + b"\r\ncontent-length: 0\r\n\r\n"),
        "a bad header": says(CHUNKED + text + b"\r\n\r\n"),
        "a bad name": says(CHUNKED + b"(" + text + b": x\r\n\r\n"),
        "a bad value": says(CHUNKED + b"x: " + text + b"\0\r\n\r\n"),
        "a bad length": says(b"HTTP/1.1 200 OK\r\ncontent-length: " + text + b"\r\n\r\n"),
        "a bad coding": says(b"HTTP/1.1 200 OK\r\ntransfer-encoding: " + text + b"\r\n\r\n"),
        "a bad chunk": says(CHUNKED + b"\r\n" + text + b"\r\n"),
        "a bad chunk later": says(CHUNKED + LATER + text + b"\r\n"),
        "a location": says(
            b"HTTP/1.1 307 Moved\r\ncontent-length: 0\r\nlocation: http://[" + text + b"\r\n\r\n"
        ),
        "a port": says(
            b"HTTP/1.1 307 M\r\ncontent-length: 0\r\nlocation: http://x:" + text + b"/\r\n\r\n"
        ),
        "nothing": says(),
        "a reset": resets,
        "a reset at once": resets_at_once,
        "a reset later": resets_later,
        "silence": hangs,
    }


@pytest.mark.parametrize("fault", on_the_wire(b""))
@pytest.mark.parametrize("transport", [ours, theirs])
@pytest.mark.parametrize("wire", ["compatible", "anthropic"])
async def test_a_failure_on_the_wire_shows_neither_key_nor_prompt(
    fault: str, transport: Any, wire: str, everything: Everything, mock_clock: Any
) -> None:
    mock_clock.autojump_threshold = 0.02
    async with serving(on_the_wire(KEY.encode())[fault], seconds=60) as server:
        target = model(server.url + "v1", wire)
        http = transport()
        async with http:
            error = await failure(http, target)
    everything.error(error)
    assert everything.leaks(of_httpx=transport is ours) == []


# -- what a server repeats -------------------------------------------------------------------------


SPELLED = [
    pytest.param(text, id=f"{whose}: {how}")
    for whose, secret in (("key", KEY), ("header", VALUE))
    for how, text in spellings(secret).items()
]


def echoes(text: str) -> dict[str, Any]:
    """Answers that repeat a text, in every place that an error may quote."""
    inner = f'{{"error":{{"message":"bad key {text}!","code":400}}}}'
    return {
        "error body": reply(inner.encode(), status=401),
        "error code": reply(b'{"error":{"message":"x","code":"%s"}}' % text.encode(), status=400),
        "error type": reply(b'{"error":{"message":"x","type":"%s"}}' % text.encode(), status=400),
        "metadata": reply(
            b'{"error":{"message":"x","metadata":{"raw":"%s","more":[{"%s":1}]}}}'
            % (text.encode(), text.encode()),
            status=400,
        ),
        "html": reply(f"<html>{text}</html>".encode(), status=502),
        "at the excerpt's end": reply(b"x" * (2000 - len(text) // 2) + text.encode(), status=400),
        "after much": reply(
            b'{"error":{"message":"' + b"x" * 1985 + text.encode() + b'"}}', status=400
        ),
        "a body that stops": reply(f'{{"error": "key {text}'.encode(), hang, status=401),
        "in band": reply(f"data: {inner}\n\n".encode()),
        "in band, named": reply(f"event: error\ndata: {inner}\n\n".encode()),
        "in band, no JSON": reply(f"event: error\ndata: {text}\n\n".encode()),
        "an error line": reply(f"error: {text}\n\n".encode()),
        "not JSON": reply(f"data: {text}\n\n".encode()),
        "a body of JSON": reply(inner.encode()),
        "a body of HTML": reply(f"<html>{text}</html>".encode()),
        "a JSON body of no meaning": reply(f'{{"{text}": "{text}"}}'.encode()),
        "a wrong type": reply(f'data: {{"choices": "{text}", "{text}": 1}}\n\n'.encode()),
        "a header": reply(b"{}", status=400, headers={"x-request-id": text, "x-echo": text}),
        "a retry header": reply(b"{}", status=429, headers={"retry-after": text}),
        "an encoding": reply(b"{}", headers={"content-encoding": text}),
        "a redirect": reply(b"", status=307, headers={"location": f"http://x/{text}"}),
        "a redirect to nowhere": reply(b"", status=308, headers={"location": f"http://[{text}"}),
    }


@pytest.mark.parametrize("where", echoes("x"))
@pytest.mark.parametrize("text", SPELLED)
@pytest.mark.parametrize("wire", ["compatible", "anthropic", "asked", "signed"])
async def test_what_a_server_repeats_is_shown_nowhere(
    where: str, text: str, wire: str, everything: Everything, autojump_clock: Any
) -> None:
    error = await failure(ScriptedTransport(echoes(text)[where]), model(wire=wire))
    everything.error(error)
    assert everything.leaks() == []


@pytest.mark.parametrize("length", [60_000, 70_000, 1_000_000])
@pytest.mark.parametrize("text", SPELLED)
async def test_not_even_in_long_events(
    length: int, text: str, everything: Everything, autojump_clock: Any
) -> None:
    event = f'{{"error":{{"message":"bad key {text}!","code":400,"pad":"{"x" * length}"}}}}'
    transport = ScriptedTransport(reply(f"data: {event}\n\n".encode()))
    everything.error(await failure(transport, model()))
    assert everything.leaks() == []


# -- what a program prints of its own ---------------------------------------------------------------


@pytest.mark.parametrize("fault", on_the_wire(b""))
@pytest.mark.parametrize("transport", [ours, theirs])
@pytest.mark.parametrize("wire", ["compatible", "anthropic", "asked", "signed"])
async def test_no_local_variable_below_the_caller_has_key_or_prompt(
    fault: str, transport: Any, wire: str, everything: Everything, mock_clock: Any
) -> None:
    """Error trackers, rich and ``pytest -l`` print the local variables of a traceback."""
    mock_clock.autojump_threshold = 0.02
    async with serving(on_the_wire(b"nonsense")[fault], seconds=60) as server, transport() as http:
        options = {"transport": http, "timeouts": FAST, "retry": Retry(attempts=2)}
        async with llm.open_client(**options) as client:
            with pytest.raises(llm.MiniLLMError) as caught:
                await client.complete(
                    model(server.url, wire), PROMPT, headers={"x-mine": VALUE}, extra={"x": PROMPT}
                )
    everything.error(caught.value)
    everything.locals_of(caught.value)
    assert everything.leaks() == []


@pytest.mark.parametrize("transport", [ours, theirs])
async def test_nor_while_a_long_request_goes_out(
    transport: Any, everything: Everything, mock_clock: Any
) -> None:
    mock_clock.autojump_threshold = 0.02

    async def resets(peer: Peer) -> None:
        await peer.receive()
        peer.reset()

    async with serving(resets, seconds=60) as server, transport() as http:
        async with llm.open_client(transport=http, timeouts=FAST, retry=ONCE) as client:
            with pytest.raises(llm.SendError) as caught:
                await client.complete(model(server.url), PROMPT * 200_000)
    everything.locals_of(caught.value)
    assert everything.leaks() == []


def test_no_repr_shows_them() -> None:
    target = model()
    with pytest.warns(UserWarning, match="unencrypted"):
        far = llm.openai("m", base_url="http://example.com", api_key=KEY)
    shown = [target, far, llm.user(PROMPT), llm.text(PROMPT), llm.system(PROMPT)]
    shown += [llm.image(PROMPT.encode(), media_type="image/png"), llm.tool_result("a", PROMPT)]
    for value in shown:
        for text in (repr(value), str(value), repr([value]), rich_of(value)):
            assert not any(canary in text for canary in CANARIES), type(value)


def rich_of(value: object) -> str:
    pretty = pytest.importorskip("rich.pretty")
    return str(pretty.pretty_repr(value))


# -- what is refused ---------------------------------------------------------------------------------

BAD = ["\n", "\r", "\r\nx-evil: 1", "\0", "\t", " ", "\x7f", "\x1b[2J", "ü", "\u2028", "\ud800"]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", ["before", "behind", "inside"])
def test_keys_that_can_not_be_sent_are_refused_without_being_shown(
    bad: str, place: str, everything: Everything, monkeypatch: pytest.MonkeyPatch
) -> None:
    if bad == " " and place == "inside":
        return  # "Bearer a b" is a header's value; what is wrong with it the server says
    key = {"before": bad + KEY, "behind": KEY + bad, "inside": KEY[:5] + bad + KEY[5:]}[place]
    good = llm.compatible("m", base_url="http://127.0.0.1", api_key="good")
    tries: list[Callable[[], object]] = [partial(make, "m", api_key=key) for make in MAKERS]
    tries += [partial(make, "m", api_key="k", headers={"x": key}) for make in MAKERS]
    tries += [partial(make, "m", api_key="k", headers={"x" + bad: "v"}) for make in MAKERS]
    tries += [partial(msgspec.structs.replace, good, api_key=key)]
    tries += [partial(msgspec.structs.replace, good, headers={"x": key})]
    for attempt in tries:
        with pytest.raises(ValueError, match=r"printable ASCII|HTTP token") as caught:
            attempt()
        everything.error(caught.value)
    for maker, variable in zip(
        MAKERS, ("OPENAI_API_KEY", "OPENROUTER_API_KEY", "ANTHROPIC_API_KEY"), strict=False
    ):
        if "\0" in key or "\ud800" in key or key.strip().isprintable():
            continue  # no variable holds it; blanks around a variable's value are a shell's
        monkeypatch.setenv(variable, key)
        with pytest.raises(ValueError, match=f"{variable}: API keys") as caught:
            maker("m")
        everything.error(caught.value)
        everything.locals_of(caught.value)
    assert everything.leaks() == []


@pytest.mark.parametrize("bad", BAD)
async def test_nor_is_anything_of_a_call_sent_that_could_not_be(bad: str) -> None:
    transport = ScriptedTransport()
    async with llm.open_client(transport=transport) as client:
        for headers in ({"x": f"v{bad}"}, {f"x{bad}": "v"}):
            with pytest.raises(ValueError, match=r"printable ASCII|HTTP token"):
                client.stream(model(), "Hi", headers=headers)
        with pytest.raises(ValueError, match="betas must be printable"):
            client.stream(model(wire="anthropic"), "Hi", max_tokens=5, betas=[f"a{bad}"])
    assert transport.requests == []


async def test_a_host_that_is_no_name_is_not_sent_to() -> None:
    async with llm.open_client(retry=ONCE) as client:
        with pytest.raises(llm.SendError, match="could not be sent"):
            await client.complete(llm.compatible("m", base_url="http://xn--/v1"), "Hi")


@pytest.mark.parametrize("name", ["authorization", "Authorization", "messages", "stream", "model"])
async def test_extra_fields_stay_in_the_body_and_decide_nothing_twice(name: str) -> None:
    transport = ScriptedTransport()
    async with llm.open_client(transport=transport) as client:
        if name.lower() == "authorization":
            await client.complete(model(), "Hi", extra={name: "Bearer other"})
            (request,) = transport.requests
            assert request.headers["authorization"] == f"Bearer {KEY}"
        else:
            with pytest.raises(ValueError, match="extra must not contain"):
                await client.complete(model(), "Hi", extra={name: "other"})


# -- where keys go -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("transport", [ours, theirs])
@pytest.mark.parametrize("where", ["elsewhere", "itself"])
async def test_nothing_follows_a_redirect(status: int, transport: Any, where: str) -> None:
    async with serving(answering) as elsewhere:

        async def moved(peer: Peer) -> None:
            target = elsewhere.url if where == "elsewhere" else "/v1/again"
            while await peer.request():
                await peer.reply(b"", b"location: " + target.encode(), status=b"%d Moved" % status)

        async with (
            serving(moved) as server,
            httpx.AsyncClient(transport=transport(), follow_redirects=True) as http,
            llm.open_client(http_client=http, retry=Retry(attempts=3)) as client,
        ):
            with pytest.raises(llm.RefusedError, match="redirects; not followed") as caught:
                await client.complete(model(server.url), PROMPT)
            assert caught.value.status == status
            assert len(server.requests) == 1
        assert elsewhere.connections == 0


async def test_a_proxy_of_the_environment_gets_no_key_of_an_https_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And no password of ``.netrc`` goes out."""
    (tmp_path / ".netrc").write_text("machine model.test login me password netrc-canary\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    seen = bytearray()

    async def proxy(peer: Peer) -> None:
        seen.extend(await peer.until(b"\r\n\r\n"))
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        seen.extend(await peer.receive())

    for name in ("no_proxy", "NO_PROXY", "http_proxy", "all_proxy", "ALL_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with serving(proxy) as server:
        monkeypatch.setenv("https_proxy", server.url)
        async with llm.open_client(retry=ONCE) as client:
            with pytest.raises(llm.SendError):
                await client.complete(model("https://model.test/v1"), PROMPT)
    assert seen.startswith(b"CONNECT model.test:443 HTTP/1.1\r\n")
    assert b"\x16\x03" in seen, "TLS begins"
    for canary in ("netrc", *CANARIES):
        assert canary.encode() not in seen


async def test_certificates_that_are_not_trusted_end_it_before_the_request(
    everything: Everything,
) -> None:
    async with serving(answering, tls=True) as server:
        async with llm.open_client(retry=ONCE) as client:  # knows nothing of the test's authority
            with pytest.raises(llm.SendError, match="CERTIFICATE_VERIFY_FAILED") as caught:
                await client.complete(model(server.url), PROMPT)
        assert server.requests == []
    everything.error(caught.value)
    assert everything.leaks() == []


async def test_books_hold_neither_key_nor_prompt(tmp_path: Path, autojump_clock: Any) -> None:
    path = tmp_path / "books.jsonl"
    answers = [*echoes(KEY).values(), reply(*openai_events(PROMPT))]
    ledger = llm.JSONLLedger(path)
    options = {"timeouts": FAST, "retry": ONCE, "ledger": ledger}
    async with llm.open_client(transport=ScriptedTransport(*answers), **options) as client:
        for _ in answers:
            with suppress(llm.MiniLLMError):
                await client.complete(model(), PROMPT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ledger.attempts == len(answers)
    assert not any(canary in path.read_text() for canary in CANARIES)
