"""inspect_ai's own tasks on our client, and what goes between the two."""

import base64
import gc
import json
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import trio_minillm as llm
from trio_minillm.adapters import _portal
from trio_minillm.testing import ScriptedTransport, openai_events, reply, sse

pytest.importorskip("inspect_ai", reason="inspect_ai is not installed (extra: inspect)")

import inspect_ai.model as im
from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import ToolCallError, ToolFunction, ToolInfo, ToolParams, tool
from inspect_ai.util import json_schema

from trio_minillm.adapters import _inspect_messages as messages
from trio_minillm.adapters.inspect_ai import TrioMiniLLM, output_of, params_of

from ..support.paths import REPOSITORY

# What inspect does with its own files and loops is its business.
pytestmark = pytest.mark.filterwarnings("ignore")

URL = "http://test.invalid/v1"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
PNG_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()


@pytest.fixture(autouse=True)
def inspect_s_leaks():
    """Its streams are left to the garbage collector, which warns of them: here, not later."""
    yield
    gc.collect()


@pytest.fixture
def serve(monkeypatch, tmp_path):
    """Answer what any client of the adapter asks from a script."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSPECT_LOG_DIR", str(tmp_path / "logs"))

    def made(*replies):
        transport = ScriptedTransport(*replies)
        monkeypatch.setattr(_portal, "open_client", partial(llm.open_client, transport=transport))
        return transport

    return made


def run(task, backend, monkeypatch, **options):
    monkeypatch.setenv("INSPECT_ASYNC_BACKEND", backend)
    model = im.get_model("trio_minillm/compatible:m", base_url=URL, memoize=False)
    (log,) = evaluate(task, model=model, display="none", fail_on_error=True, **options)
    return log


def call_events(name, arguments, *, finish="tool_calls"):
    """A stream with one tool call."""
    inner = {"index": 0, "id": "call_1", "function": {"name": name, "arguments": arguments}}
    head = {"id": "gen-1", "model": "m-1"}
    return [
        sse({**head, "choices": [{"index": 0, "delta": {"tool_calls": [inner]}}]}),
        sse({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}),
        sse("[DONE]"),
    ]


# -- inspect's own tasks -------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_a_task_runs(serve, monkeypatch, backend):
    transport = serve(reply(*openai_events("The answer is ", "42.")))
    samples = [Sample(input=f"question {n}", target="42" if n else "43") for n in range(5)]
    task = Task(dataset=samples, solver=generate(), scorer=includes())
    log = run(task, backend, monkeypatch, max_tokens=9, temperature=0.5, seed=7)
    assert log.status == "success", log.error
    assert log.results.scores[0].metrics["accuracy"].value == pytest.approx(0.8)
    (usage,) = log.stats.model_usage.values()
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (35, 10, 45)
    assert all(sample.output.stop_reason == "stop" for sample in log.samples)
    assert len(transport.requests) == 5
    body = transport.bodies[0]
    assert (body["max_tokens"], body["temperature"], body["seed"]) == (9, 0.5, 7)
    event = next(e for e in log.samples[0].events if e.event == "model")
    assert event.call.request["model"] == "m"
    assert event.call.response["choices"][0]["content"] == "The answer is 42."


@tool
def weather():
    async def execute(city: str) -> str:
        """The weather in a city.

        Args:
            city: Its name.
        """
        return f"sunny in {city}"

    return execute


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_a_tool_loop(serve, monkeypatch, backend):
    transport = serve(
        reply(*call_events("weather", '{"city": "Paris"}')),
        reply(*openai_events("It is sunny.")),
    )
    task = Task(
        dataset=[Sample(input="How is it in Paris?", target="sunny")],
        solver=[use_tools(weather()), generate()],
        scorer=includes(),
    )
    log = run(task, backend, monkeypatch)
    assert log.status == "success", log.error
    assert log.results.scores[0].metrics["accuracy"].value == 1
    first, second = transport.bodies
    (offered,) = first["tools"]
    assert offered["function"]["name"] == "weather"
    assert offered["function"]["parameters"]["required"] == ["city"]
    assert second["messages"][-1]["content"] == "sunny in Paris"
    assert second["messages"][-1]["tool_call_id"] == "call_1"
    assert second["messages"][-2]["tool_calls"][0]["function"]["arguments"] == '{"city":"Paris"}'


def test_inspect_retries_and_we_do_not(serve, monkeypatch):
    busy = reply(b'{"error":{"message":"slow down"}}', status=429)
    transport = serve(busy, reply(*openai_events("yes")))
    task = Task(dataset=[Sample(input="?", target="yes")], solver=generate(), scorer=includes())
    monkeypatch.setattr(TrioMiniLLM, "retry_wait", lambda self: lambda state: 0)
    log = run(task, "trio", monkeypatch)
    assert log.status == "success", log.error
    assert len(transport.requests) == 2
    events = [e for e in log.samples[0].events if e.event == "model"]
    assert [bool(e.error) for e in events] == [True, False]


def test_a_refusal_that_inspect_takes_for_an_answer(serve, monkeypatch):
    error = {"error": {"message": "too long for me", "code": "context_length_exceeded"}}
    serve(reply(json.dumps(error).encode(), status=400))
    task = Task(dataset=[Sample(input="?", target="yes")], solver=generate(), scorer=includes())
    log = run(task, "trio", monkeypatch)
    assert log.status == "success", log.error
    assert log.samples[0].output.stop_reason == "model_length"


def test_another_refusal_fails_the_task(serve, monkeypatch):
    serve(reply(b'{"error":{"message":"no such model"}}', status=404))
    task = Task(dataset=[Sample(input="?", target="yes")], solver=generate(), scorer=includes())
    log = run(task, "trio", monkeypatch)
    assert log.status == "error"
    assert "no such model" in log.error.message


def test_the_entry_point_is_declared():
    """In the metadata of what is built; another checkout may be what is installed here."""
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    points = project["project"]["entry-points"]["inspect_ai"]
    assert points == {"trio_minillm": TrioMiniLLM.__module__}


# -- settings ------------------------------------------------------------------------------------


def test_settings():
    config = im.GenerateConfig(
        max_tokens=5,
        temperature=0.0,
        top_k=3,
        stop_seqs=["x"],
        num_choices=2,
        logprobs=True,
        top_logprobs=4,
        logit_bias={42: 10.0},
        reasoning_effort="low",
        extra_body={"y": 1},
        extra_headers={"z": "1"},
        stream_idle_timeout=7,
        max_retries=3,
        response_schema=im.ResponseSchema(name="city", json_schema=json_schema(str)),
    )
    assert params_of(config) == {
        "max_tokens": 5,
        "temperature": 0.0,
        "top_k": 3,
        "stop": ["x"],
        "n": 2,
        "logprobs": True,
        "top_logprobs": 4,
        "logit_bias": {"42": 10},
        "reasoning": llm.Reasoning(effort="low"),
        "extra": {"y": 1},
        "headers": {"z": "1"},
        "timeouts": llm.Timeouts(idle=7),
        "response_format": llm.JSONSchema(schema={"type": "string"}, name="city"),
    }
    assert params_of(im.GenerateConfig()) == {}
    budget = im.GenerateConfig(reasoning_tokens=100, cache_prompt=True)
    assert params_of(budget) == {"reasoning": llm.Reasoning(budget=100), "cache": True}


def test_settings_that_would_be_without_effect_are_refused():
    with pytest.raises(ValueError, match="best_of, prompt_logprobs"):
        params_of(im.GenerateConfig(best_of=2, prompt_logprobs=1))


def test_every_setting_is_taken_or_refused_or_inspect_s_own():
    from trio_minillm.adapters.inspect_ai import SAME, UNSUPPORTED

    ours = {
        *SAME,
        *UNSUPPORTED,
        *("logit_bias", "reasoning_effort", "effort", "reasoning_summary", "reasoning_tokens"),
        *("response_schema", "cache_prompt", "extra_body", "extra_headers", "parallel_tool_calls"),
        "stream_idle_timeout",
    }
    theirs = {
        *("max_retries", "timeout", "attempt_timeout", "max_connections", "adaptive_connections"),
        *("system_message", "internal_tools", "max_tool_output", "fail_on_refusal", "cache"),
        "reasoning_history",
    }
    assert ours | theirs >= set(im.GenerateConfig.model_fields)


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", "auto"),
        ("any", "required"),
        ("none", "none"),
        (ToolFunction(name="f"), {"type": "function", "function": {"name": "f"}}),
    ],
)
async def test_tools(serve, choice, sent, autojump_clock):
    transport = serve(reply(*call_events("f", "{}")))
    api = TrioMiniLLM("compatible:m", base_url=URL)
    info = ToolInfo(name="f", description="what it does", parameters=ToolParams())
    config = im.GenerateConfig(parallel_tool_calls=False)
    output, call = await api.generate([im.ChatMessageUser(content="?")], [info], choice, config)
    (body,) = transport.bodies
    assert body["tool_choice"] == sent
    assert body["parallel_tool_calls"] is False
    assert body["tools"][0]["function"]["description"] == "what it does"
    assert output.stop_reason == "tool_calls"
    assert output.message.tool_calls[0].function == "f"
    assert call.error is None


async def test_media_are_left_out_of_the_log(serve, autojump_clock):
    serve(reply(*openai_events("a cat")))
    big = "data:image/png;base64," + base64.b64encode(PNG + bytes(30_000)).decode()
    content = [im.ContentText(text="what is it?"), im.ContentImage(image=big)]
    api = TrioMiniLLM("compatible:m", base_url=URL)
    user = im.ChatMessageUser(content=content)
    _, call = await api.generate([user], [], "auto", im.GenerateConfig())
    logged = json.dumps(call.request)
    assert "characters of media" in logged
    assert len(logged) < 1000


# -- judgement of errors -------------------------------------------------------------------------


def refused(status, kind):
    return llm.RefusedError(llm.ErrorInfo(message="m", kind=kind, status=status), retry_after=3)


def test_what_is_tried_again():
    api = TrioMiniLLM("openai:m", api_key="k")
    limited = api.should_retry(refused(429, "rate_limit"))
    assert (limited.retry, limited.kind, limited.retry_after) == (True, "rate_limit", 3)
    for error in (
        refused(503, "overloaded"),
        llm.ConnectTimeout(1),
        llm.StreamTimeout("idle", 1),
        llm.EndedEarly("x"),
    ):
        assert api.should_retry(error)
        assert api.should_retry(error).kind == "transient"
    for error in (
        refused(429, "quota"),
        refused(400, "invalid"),
        llm.ProtocolError("x"),
        ValueError("x"),
    ):
        assert not api.should_retry(error)
    assert api.is_auth_failure(refused(401, "auth"))
    assert not api.is_auth_failure(refused(403, "quota"))


def test_what_inspect_asks_of_a_model(monkeypatch):
    api = TrioMiniLLM("anthropic:claude-haiku-4-5", api_key="k")
    assert api.canonical_name() == "claude-haiku-4-5"
    assert api.tool_result_images()
    other = TrioMiniLLM("anthropic:claude-haiku-4-5", api_key="other")
    assert api.connection_key() != other.connection_key()


# -- messages ------------------------------------------------------------------------------------


def test_messages_of_inspect():
    said = messages.to_ours(
        im.ChatMessageUser(
            content=[
                im.ContentText(text="look", cache_breakpoint=True),
                im.ContentImage(image=PNG_URL, detail="low"),
                im.ContentAudio(audio="data:audio/wav;base64,AAAA", format="wav"),
                im.ContentDocument(document="data:application/pdf;base64,AAAA", filename="a.pdf"),
            ]
        )
    )
    text, image, sound, document = said.parts
    assert text == llm.TextPart("look", cache=True)
    assert (image.data, image.detail) == (PNG, "low")
    assert (sound.data, sound.format) == (bytes(3), "wav")
    assert (document.title, document.media_type) == ("a.pdf", "application/pdf")
    assert messages.to_ours(im.ChatMessageSystem(content="be brief")) == llm.system("be brief")


def test_answers_of_tools():
    answer = im.ChatMessageTool(content="42", tool_call_id="c", function="f")
    assert messages.to_ours(answer).parts[0] == llm.ToolResult(
        call_id="c", name="f", content=(llm.TextPart("42"),)
    )
    answer = im.ChatMessageTool(
        content="", tool_call_id="c", error=ToolCallError("timeout", "too slow")
    )
    (part,) = messages.to_ours(answer).parts
    assert (part.is_error, part.text) == (True, "Error: too slow")


@pytest.mark.parametrize(
    "content",
    [
        im.ContentImage(image="/etc/passwd"),
        im.ContentVideo(video="data:video/mp4;base64,AAAA", format="mp4"),
        im.ContentData(data={"what": 1}),
    ],
)
def test_content_without_a_place_is_refused(content):
    with pytest.raises(ValueError):
        messages.to_ours(im.ChatMessageUser(content=[content]))


def test_reasoning_of_other_providers_of_inspect():
    one = im.ContentReasoning(reasoning="hm", signature="s")
    hidden = im.ContentReasoning(reasoning="xyz", redacted=True, summary="in short")
    made = messages.to_ours(im.ChatMessageAssistant(content=[one, hidden]))
    assert made.parts == (
        llm.ReasoningPart(text="hm", signature="s"),
        llm.ReasoningPart(text="in short"),
    )


text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=10)
raw = st.dictionaries(text, text, max_size=2)
parts = st.one_of(
    st.builds(llm.TextPart, text),
    st.builds(llm.RefusalPart, text),
    st.builds(llm.OpaquePart, wire=text, raw=raw),
    st.builds(llm.ReasoningPart, text=text, signature=text, wire=text, raw=raw),
    st.builds(llm.ReasoningPart, encrypted=text, wire=text, raw=raw),
)
calls = st.builds(
    llm.ToolCall,
    id=st.just("c"),
    name=text,
    arguments=raw.map(lambda r: json.dumps(r, ensure_ascii=False, separators=(",", ":"))),
    extra=st.none() | st.dictionaries(text, text, min_size=1, max_size=2),
)


@given(
    st.lists(parts, max_size=4),
    st.lists(calls, max_size=3),
)
def test_an_answer_goes_back_as_it_came(said, called):
    """Through inspect's own JSON, as from its logs; texts of an answer may be joined."""
    called = [replace(call, id=f"call_{n}") for n, call in enumerate(called)]
    if all(isinstance(part, llm.TextPart) for part in said):
        said = [llm.TextPart("".join(part.text for part in said))] if said else []
    choice = llm.Choice(parts=(*said, *called), tool_calls=tuple(called))
    theirs = messages.from_ours(choice, "m")
    theirs = im.ChatMessageAssistant.model_validate_json(theirs.model_dump_json())
    assert messages.to_ours(theirs) == llm.Message(role="assistant", parts=(*said, *called))


def test_calls_that_must_not_be_executed():
    bad = llm.ToolCall(id="c", name="f", arguments='{"a": ')
    theirs = messages.from_ours(llm.Choice(parts=(bad,), invalid_tool_calls=(bad,)), "m")
    (call,) = theirs.tool_calls
    assert call.arguments == {}
    assert "cut short" in call.parse_error


def test_custom_calls():
    call = llm.ToolCall(id="c", name="f", arguments="free text", type="custom")
    theirs = messages.from_ours(llm.Choice(parts=(call,), tool_calls=(call,)), "m")
    assert theirs.tool_calls[0].arguments == {"input": "free text"}
    assert messages.to_ours(theirs).parts == (call,)


def test_citations():
    url = {"type": "url_citation", "url": "https://example.org", "title": "T"}
    page = {"type": "page_location", "cited_text": "c", "document_title": "D"}
    part = llm.TextPart("x", citations=(url, page))
    (content,) = messages.from_ours(llm.Choice(parts=(part,)), "m").content
    one, other = content.citations
    assert (one.type, one.url, one.title) == ("url", "https://example.org", "T")
    assert (other.type, other.cited_text, other.title, other.internal) == (
        "content",
        "c",
        "D",
        page,
    )


# -- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "theirs"),
    [
        ("stop", "stop"),
        ("length", "max_tokens"),
        ("max_tokens", "max_tokens"),
        ("refusal", "content_filter"),
        ("tool_use", "tool_calls"),
        (None, "unknown"),
        ("something", "unknown"),
    ],
)
def test_reasons(reason, theirs):
    response = llm.CompletionResponse(choices=(llm.Choice(finish_reason=reason),))
    assert output_of(response).stop_reason == theirs


def test_a_whole_answer():
    call = llm.ToolCall(id="c", name="f", arguments="{}")
    logprobs = {
        "content": [
            {
                "token": "a",
                "logprob": -0.5,
                "bytes": [97],
                "top_logprobs": [{"token": "b", "logprob": -1.0, "bytes": None}],
            }
        ],
        "refusal": None,
    }
    first = llm.Choice(parts=(call,), tool_calls=(call,), finish_reason="stop", logprobs=logprobs)
    second = llm.Choice(index=1, parts=(llm.TextPart("b"),), finish_reason="stop")
    response = llm.CompletionResponse(
        id="gen-1",
        model="m-1",
        choices=(first, second),
        usage=llm.Usage(
            uncached_input_tokens=5,
            cache_read_tokens=3,
            cache_write_tokens=2,
            completion_tokens=7,
            reasoning_tokens=4,
        ),
        cost=llm.CostInfo(llm.TokenPrice(input=1, output=1).input, llm.CostResolution.RESOLVED),
        notes=("odd",),
    )
    output = output_of(response)
    assert [choice.stop_reason for choice in output.choices] == ["tool_calls", "stop"]
    assert output.choices[1].message.content == "b"
    (token,) = output.choices[0].logprobs.content
    assert (token.token, token.logprob, token.top_logprobs[0].token) == ("a", -0.5, "b")
    usage = output.usage
    assert (usage.input_tokens, usage.input_tokens_cache_read) == (5, 3)
    assert (usage.input_tokens_cache_write, usage.output_tokens) == (2, 7)
    assert (usage.total_tokens, usage.reasoning_tokens, usage.total_cost) == (17, 4, 1.0)
    assert (output.response_id, output.metadata) == ("gen-1", {"notes": ["odd"]})


def test_unknown_usage_and_cost_are_not_zero():
    assert output_of(llm.CompletionResponse()).usage is None
    usage = llm.Usage(completion_tokens=1)
    assert output_of(llm.CompletionResponse(usage=usage)).usage.total_cost is None
