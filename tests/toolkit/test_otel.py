"""OpenTelemetry's spans and metrics, with its real SDK, and nothing at all without one."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version

import pytest
import trio
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

import trio_minillm as llm
from trio_minillm._toolkit.observers import otel
from trio_minillm.testing import ScriptedTransport, hang, json_reply, openai_events, reply, sse

from ..support.conversations import Turn, chat
from ..support.wires import KINDS

PROMPT = "the prompt is private"
BUSY = json_reply({"error": {"message": f"no: {PROMPT}"}}, status=429)
USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}


def answer(*pauses):
    """An answer with usage, in as many pieces of text as there are pauses, each after its own."""

    def event(delta, reason=None, **more):
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return sse({"id": "gen-1", "model": "gpt-5-2026", "choices": [choice], **more})

    steps = [event({"role": "assistant", "content": ""}, service_tier="flex")]
    for number, pause in enumerate(pauses):
        steps += [pause, event({"content": f"<{number}>"})]
    steps += [event({}, "stop"), sse({"id": "gen-1", "choices": [], "usage": USAGE}), sse("[DONE]")]
    return reply(*steps)


class Telemetry:
    """A program's SDK, whose spans and metrics are kept in memory."""

    def __init__(self, **options):
        self.spans = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False)
        self.observer = llm.opentelemetry_observer(
            tracer_provider=self.tracer_provider, meter_provider=self.meter_provider, **options
        )

    def client(self, *script, **more):
        return llm.open_client(transport=ScriptedTransport(*script), observer=self.observer, **more)

    @property
    def finished(self):
        return self.spans.get_finished_spans()

    @property
    def metrics(self):
        """The points of each metric, by its name."""
        data = self.reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in (data.resource_metrics if data else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name):
        return self.metrics[f"gen_ai.client.{name}"].data.data_points


@pytest.fixture
def told():
    return Telemetry()


def model():
    return llm.openai("gpt-5", api_key="sk-test-0123456789")


IDENTITY = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-5",
    "server.address": "api.openai.com",
    "server.port": 443,
}


async def run(client, how, **params):
    if how == "complete":
        return await client.complete(model(), PROMPT, **params)
    async with client.stream(model(), PROMPT, **params) as stream:
        async for _ in stream:
            pass
    return stream.response


ways = pytest.mark.parametrize("how", ["complete", "stream"])


@ways
async def test_a_span(how, told, autojump_clock):
    params = {
        "max_tokens": 50,
        "temperature": 1,
        "top_p": 0.5,
        "stop": "END",
        "seed": 7,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
        "n": 1,
        "response_format": "json",
        "service_tier": "flex",
    }
    async with told.client(answer(2, 1, 1)) as client:
        await run(client, how, **params)
    (span,) = told.finished
    assert span.name == "chat gpt-5"
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    assert span.end_time - span.start_time == pytest.approx(4e9)
    assert span.instrumentation_scope.name == "trio_minillm"
    assert span.instrumentation_scope.schema_url == "https://opentelemetry.io/schemas/1.41.1"
    assert dict(span.attributes) == IDENTITY | {
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 1.0,
        "gen_ai.request.top_p": 0.5,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.request.seed": 7,
        "gen_ai.request.frequency_penalty": 0.1,
        "gen_ai.request.presence_penalty": 0.2,
        "gen_ai.output.type": "json",
        "gen_ai.response.id": "gen-1",
        "gen_ai.response.model": "gpt-5-2026",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": pytest.approx(2.0),
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.reasoning.output_tokens": 2,
        "openai.api.type": "chat_completions",
        "openai.request.service_tier": "flex",
        "openai.response.service_tier": "flex",
        "trio_minillm.outcome": "finished",
    }
    assert PROMPT not in span.to_json()


@ways
async def test_metrics(how, told, autojump_clock):
    async with told.client(answer(2, 1, 1)) as client:
        await run(client, how)
    answered = IDENTITY | {"gen_ai.response.model": "gpt-5-2026"}
    seconds = {
        "operation.duration": 4.0,
        "operation.time_to_first_chunk": 2.0,
        "operation.time_per_output_chunk": 1.0,
    }
    assert set(told.metrics) == {f"gen_ai.client.{n}" for n in (*seconds, "token.usage")}
    for name, expected in seconds.items():
        (point,) = told.points(name)
        assert dict(point.attributes) == answered
        assert (point.count, point.sum) == (1, pytest.approx(expected))
        assert point.explicit_bounds == otel.SECONDS
        assert told.metrics[f"gen_ai.client.{name}"].unit == "s"
    read, written = sorted(
        told.points("token.usage"), key=lambda p: p.attributes["gen_ai.token.type"]
    )
    assert dict(read.attributes) == answered | {"gen_ai.token.type": "input"}
    assert dict(written.attributes) == answered | {"gen_ai.token.type": "output"}
    assert (read.sum, written.sum) == (10, 7)
    assert read.explicit_bounds == otel.TOKENS
    assert told.metrics["gen_ai.client.token.usage"].unit == "{token}"


@ways
async def test_refused_and_tried_again(how, told, autojump_clock):
    async with told.client(BUSY, answer(0)) as client:
        await run(client, how)
    refused, answered = told.finished
    assert refused.status.status_code is StatusCode.ERROR
    assert refused.status.description == "RefusedError 429 rate_limit"
    assert refused.attributes["error.type"] == "429"
    assert refused.attributes["trio_minillm.outcome"] == "errored"
    assert "gen_ai.response.model" not in refused.attributes
    assert answered.status.status_code is StatusCode.UNSET
    assert "error.type" not in answered.attributes
    assert answered.attributes["trio_minillm.attempt"] == 2
    assert {p.attributes.get("error.type"): p.count for p in told.points("operation.duration")} == {
        "429": 1,
        None: 1,
    }
    assert PROMPT not in refused.to_json() + answered.to_json()


async def test_cancelled_is_no_error(told, autojump_clock):
    slow = reply(*openai_events("Hi")[:2], hang)
    async with told.client(slow) as client, client.stream(model(), PROMPT) as stream:
        await stream.next_chunk()
        await trio.sleep(5)
    (span,) = told.finished
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes["trio_minillm.outcome"] == "cancelled"
    assert "error.type" not in span.attributes
    assert span.end_time - span.start_time == pytest.approx(5e9)
    (point,) = told.points("operation.duration")
    assert "error.type" not in point.attributes


@ways
async def test_truncated(how, told, autojump_clock):
    async with told.client(reply(*openai_events("Hi")[:2])) as client:
        with pytest.raises(llm.StreamTruncated):
            await run(client, how)
    (span,) = told.finished
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "EndedEarly"
    assert span.attributes["trio_minillm.outcome"] == "truncated"
    assert span.attributes["gen_ai.response.time_to_first_chunk"] == 0


async def test_a_clock(told, autojump_clock):
    async with told.client(reply(hang)) as client:
        with pytest.raises(llm.StreamTimeout):
            await run(client, "complete", timeouts=llm.Timeouts(first_chunk=3))
    (span,) = told.finished
    assert span.attributes["error.type"] == "StreamTimeout"
    assert span.status.description == "StreamTimeout first_chunk"
    assert "gen_ai.client.operation.time_to_first_chunk" not in told.metrics


async def test_a_batch(told, autojump_clock):
    requests = [llm.BatchRequest(key=key, messages=PROMPT) for key in "ab"]
    tracer = told.tracer_provider.get_tracer("program")
    with tracer.start_as_current_span("program"):
        async with told.client(BUSY, answer(0), answer(0)) as client:
            async with client.batch(requests, model=model(), concurrency=1) as results:
                async for result in results:
                    assert result.response.content == "<0>"
    *attempts, program = told.finished
    assert sorted(s.attributes.get("trio_minillm.attempt", 1) for s in attempts) == [1, 1, 2]
    assert {s.parent.span_id for s in attempts} == {program.context.span_id}


async def test_parents_across_tasks(told, autojump_clock):
    """A span is the child of the one that is current where the call was made."""
    tracer = told.tracer_provider.get_tracer("program")

    async def ask(client, name, how):
        with tracer.start_as_current_span(name):
            await run(client, how)
            assert trace.get_current_span().name == name

    async with told.client(*[answer(1, 1)] * 4) as client, trio.open_nursery() as nursery:
        for number, how in enumerate(["complete", "stream"] * 2):
            nursery.start_soon(ask, client, f"task {number}", how)
    tasks = {s.context.span_id: s for s in told.finished if s.name.startswith("task")}
    chats = [s for s in told.finished if s.name == "chat gpt-5"]
    assert {s.parent.span_id for s in chats} == set(tasks)
    assert all(s.context.trace_id == tasks[s.parent.span_id].context.trace_id for s in chats)


async def test_a_call_that_is_entered_elsewhere(told, autojump_clock):
    """The call counts, not the block, which may be another task's."""
    tracer = told.tracer_provider.get_tracer("program")
    async with told.client(answer(0)) as client:
        with tracer.start_as_current_span("call"):
            stream = client.stream(model(), PROMPT)
        with tracer.start_as_current_span("block"):
            async with stream:
                await stream.collect()
    spans = {s.name: s for s in told.finished}
    assert spans["chat gpt-5"].parent.span_id == spans["call"].context.span_id


async def test_a_loop_of_tools(told, autojump_clock):
    """Its requests are children of the span around it; spans of a tool are that span's as well."""
    tracer = told.tracer_provider.get_tracer("program")

    async def sky() -> str:
        with tracer.start_as_current_span("sky"):
            return "clear"

    turns = Turn("", "", "", (("sky", "{}", ""),)), Turn("", "", "Yes.")
    script = [reply(*chat(number, turn)) for number, turn in enumerate(turns)]
    async with told.client(*script) as client:
        with tracer.start_as_current_span("loop"):
            async with client.run_tools(model(), PROMPT, tools=[sky]) as run:
                await run.collect()
    *inner, loop = told.finished
    assert [s.name for s in inner] == ["chat gpt-5", "sky", "chat gpt-5"]
    assert {s.parent.span_id for s in inner} == {loop.context.span_id}
    assert inner[0].attributes["gen_ai.response.finish_reasons"] == ("tool_calls",)


CALL = llm.ToolCall(id="c1", name="weather", arguments='{"city": "Paris"}')
HISTORY = [
    llm.system("Be brief."),
    llm.user(llm.text(PROMPT), llm.image("https://test.invalid/a.png")),
    llm.Message(role="assistant", parts=(llm.ReasoningPart(text="hm"), CALL)),
    llm.tool_result(CALL, "sunny"),
    llm.user(llm.document(b"some text", media_type="text/plain")),
    llm.user(llm.audio(b"RIFF", media_type="audio/wav")),
    llm.user(llm.ImagePart(file_id="file-1", media_type="image/png")),
    llm.Message(
        role="assistant",
        parts=(
            llm.RefusalPart("No."),
            llm.OpaquePart(wire="anthropic", raw={"type": "private"}),
            llm.ToolCall(id="c2", name="weather", arguments='{"city": '),
        ),
    ),
]


CONVENTIONAL = [
    {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
    {
        "role": "user",
        "parts": [
            {"type": "text", "content": PROMPT},
            {
                "type": "uri",
                "uri": "https://test.invalid/a.png",
                "modality": "image",
                "mime_type": "image/png",
            },
        ],
    },
    {
        "role": "assistant",
        "parts": [
            {"type": "reasoning", "content": "hm"},
            {"type": "tool_call", "id": "c1", "name": "weather", "arguments": {"city": "Paris"}},
        ],
    },
    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "sunny"}]},
    {
        "role": "user",
        "parts": [{"type": "document", "modality": "document", "mime_type": "text/plain"}],
    },
    {"role": "user", "parts": [{"type": "audio", "modality": "audio", "mime_type": "audio/wav"}]},
    {
        "role": "user",
        "parts": [
            {"type": "file", "file_id": "file-1", "modality": "image", "mime_type": "image/png"}
        ],
    },
    {
        "role": "assistant",
        "parts": [
            {"type": "refusal", "content": "No."},
            {"type": "opaque"},
            {"type": "tool_call", "id": "c2", "name": "weather", "arguments": '{"city": '},
        ],
    },
]
"""The same in the shape of the conventions: the words are there, the bytes of media are not."""


async def test_content_is_asked_for(autojump_clock):
    told = Telemetry(content=True)
    assert json.loads(otel._messages(HISTORY)) == CONVENTIONAL
    async with told.client(answer(0, 0)) as client:
        await client.complete(model(), HISTORY[:4])
    (span,) = told.finished
    assert json.loads(span.attributes["gen_ai.input.messages"]) == CONVENTIONAL[:4]
    assert json.loads(span.attributes["gen_ai.output.messages"]) == [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": "<0><1>"}],
            "finish_reason": "stop",
        }
    ]


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
async def test_every_wire(name, kind, told, autojump_clock):
    expected = {
        "openai": ("chat", "openai"),
        "openai-responses": ("chat", "openai"),
        "openrouter": ("chat", "openrouter"),
        "anthropic": ("chat", "anthropic"),
        "gemini": ("generate_content", "gcp.gemini"),
        "text": ("text_completion", "text"),
        "compatible": ("chat", "compatible"),
    }
    asked = kind.make("a-model", base_url=f"http://test.invalid{kind.base}")
    async with told.client(reply(*kind.events("Hi", " you"))) as client:
        await client.complete(asked, PROMPT)
    (span,) = told.finished
    operation, provider = expected[name]
    assert span.name == f"{operation} a-model"
    assert span.attributes["gen_ai.provider.name"] == provider
    assert span.attributes["server.address"] == "test.invalid"
    assert span.attributes["server.port"] == 80
    assert "gen_ai.response.finish_reasons" in span.attributes


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://api.mistral.ai/v1", "mistral_ai"),
        ("https://api.x.ai/v1", "x_ai"),
        ("https://api.perplexity.ai", "perplexity"),
        ("https://api.cohere.ai/compatibility/v1", "cohere"),
        ("https://mine.openai.azure.com/openai/v1", "azure.ai.openai"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "gcp.gemini"),
        ("https://us-east5-aiplatform.googleapis.com/v1/projects/p", "gcp.vertex_ai"),
        ("https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1", "aws.bedrock"),
        ("https://api.together.xyz/v1", "together"),
        ("http://127.0.0.1:8080/v1", "compatible"),
    ],
)
def test_providers(address, name):
    assert otel.provider_name(llm.compatible("m", base_url=address)) == name


async def test_what_is_not_sampled_is_measured(told, autojump_clock):
    never = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    told.observer = llm.opentelemetry_observer(
        tracer_provider=never, meter_provider=told.meter_provider, content=True
    )
    async with told.client(answer(1, 1)) as client:
        await client.complete(model(), PROMPT)
    assert told.points("operation.duration")[0].sum == pytest.approx(2.0)


async def test_a_tracer_that_fails_costs_no_answer(told, autojump_clock, monkeypatch, caplog):
    monkeypatch.setattr(told.observer, "_tracer", None)
    async with told.client(answer(1, 1)) as client:
        assert (await client.complete(model(), PROMPT)).content == "<0><1>"
    assert [r.levelname for r in caplog.records] == ["ERROR"]


async def test_another_wire_at_openai(told, autojump_clock):
    asked = llm.compatible("m", base_url="https://api.openai.com/v1", api_key="k" * 20)
    async with told.client(answer(1)) as client:
        await client.complete(asked, PROMPT)
    assert told.finished[0].attributes["gen_ai.provider.name"] == "openai"
    assert "openai.api.type" not in told.finished[0].attributes


# -- the names, as they are published --------------------------------------------------------------


def published():
    """Every name of an attribute or a metric in the installed conventions."""
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, openai_attributes
    from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
    from opentelemetry.semconv.attributes import error_attributes, server_attributes

    modules = gen_ai_attributes, openai_attributes, gen_ai_metrics, error_attributes
    return {
        value
        for module in (*modules, server_attributes)
        for value in vars(module).values()
        if isinstance(value, str)
    }


needs_conventions = pytest.mark.skipif(
    tuple(map(int, version("opentelemetry-semantic-conventions").split("b")[0].split(".")))
    < (0, 63),
    reason="conventions before 1.41.1",
)


@needs_conventions
async def test_names_are_published(autojump_clock):
    told = Telemetry(content=True)
    usage = {"cached_tokens": 1, "cache_write_tokens": 1}
    more = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": usage}
    done = sse({"id": "1", "choices": [], "usage": more})
    script = BUSY, answer(1, 1), reply(*openai_events("Hi")[:-1], done, sse("[DONE]"))
    async with told.client(*script) as client:
        await client.complete(model(), PROMPT, max_tokens=5, service_tier="flex", n=2)
        await client.complete(model(), PROMPT, temperature=1, top_p=1, seed=1, stop=["a"])
    used = {name for span in told.finished for name in span.attributes} | set(told.metrics)
    used |= {name for name, _ in otel._REQUEST.values()}
    for metric in told.metrics.values():
        used |= {name for point in metric.data.data_points for name in point.attributes}
    assert "gen_ai.usage.cache_creation.input_tokens" in used
    own = {name for name in used if name.startswith("trio_minillm.")}
    assert own == {"trio_minillm.outcome", "trio_minillm.attempt"}
    assert used - own <= published()


@needs_conventions
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_values_are_published():
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as names

    operations = {value.value for value in names.GenAiOperationNameValues}
    assert {"chat", *otel._OPERATIONS.values()} <= operations
    providers = {value.value for value in names.GenAiProviderNameValues}
    assert {*otel._SERVERS.values(), *otel._PROVIDERS.values()} <= providers
    assert {"gcp.vertex_ai", "aws.bedrock", "anthropic", "deepseek", "groq"} <= providers
    assert {value.value for value in names.GenAiTokenTypeValues} == {"input", "output"}


def test_without_the_api(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert llm.opentelemetry_observer() is None


def test_a_fault_of_the_installation_is_raised(monkeypatch):
    """It would look as if the extra was not installed."""

    def fail(*args):
        raise ModuleNotFoundError("no", name="deprecated")

    monkeypatch.setattr(otel, "_OpenTelemetryObserver", fail)
    with pytest.raises(ModuleNotFoundError):
        llm.opentelemetry_observer()


# -- without --------------------------------------------------------------------------------------

PROGRAM = """
import sys, trio, trio_minillm as llm
from trio_minillm.testing import ScriptedTransport, openai_events, reply

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry" and {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())

async def main():
    observer = llm.opentelemetry_observer()
    print(observer is None)
    transport = ScriptedTransport(reply(*openai_events("Hi")))
    async with llm.open_client(transport=transport, observer=observer) as client:
        print((await client.complete(llm.openai("m", api_key="k" * 20), "x")).content)
    print(any(name.startswith("opentelemetry.sdk") for name in sys.modules))

trio.run(main)
"""


@pytest.mark.parametrize("blocked", [True, False])
def test_without_the_api_or_the_sdk(blocked):
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(blocked=blocked)], capture_output=True, text=True
    )
    assert (ran.stdout.split(), ran.stderr) == ([str(blocked), "Hi", "False"], "")
