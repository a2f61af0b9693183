"""The lm-evaluation-harness's own task on our batch, and what goes between the two."""

import json
from functools import partial

import pytest

import trio_minillm as llm
from trio_minillm.adapters import _portal
from trio_minillm.testing import ScriptedTransport, openai_events, reply

pytest.importorskip("lm_eval", reason="lm_eval is not installed (extra: lm-eval)")

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager

from trio_minillm.adapters.lm_eval import Chat, TrioMiniLLM, cut, params_of, stops_of

# What the harness and the packages that it loads do is their business.
pytestmark = pytest.mark.filterwarnings("ignore")

URL = "http://test.invalid/v1"

TASK = """
task: capitals
dataset_path: json
dataset_kwargs:
  data_files:
    test: {path}
test_split: test
output_type: generate_until
doc_to_text: "What is the capital of {{{{country}}}}?"
doc_to_target: "{{{{capital}}}}"
generation_kwargs:
  until: ["\\n"]
  max_gen_toks: 16
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture
def serve(monkeypatch):
    """Answer what the model asks from a script."""

    def made(*replies):
        transport = ScriptedTransport(*replies)
        monkeypatch.setattr(_portal, "open_client", partial(llm.open_client, transport=transport))
        return transport

    return made


def model(**options):
    return TrioMiniLLM("compatible:m", base_url=URL, **options)


def instance(context, **settings):
    return Instance(request_type="generate_until", doc={}, arguments=(context, settings), idx=0)


@pytest.mark.parametrize("chat", [False, True])
def test_a_task_runs(serve, monkeypatch, tmp_path, chat):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "capitals.jsonl"
    rows = [("France", "Paris"), ("Italy", "Rome"), ("Texas", "Paris")]
    data.write_text("".join(json.dumps({"country": c, "capital": t}) + "\n" for c, t in rows))
    (tmp_path / "capitals.yaml").write_text(TASK.format(path=data))
    transport = serve(reply(*openai_events("Pa", "ris\nand more")))
    results = lm_eval.simple_evaluate(
        model=get_model("trio_minillm")("compatible:m", base_url=URL),
        tasks=["capitals"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        apply_chat_template=chat,
        bootstrap_iters=0,
    )
    assert results["results"]["capitals"]["exact_match,none"] == pytest.approx(2 / 3)
    assert {body["messages"][-1]["content"] for body in transport.bodies} == {
        f"What is the capital of {country}?" for country, _ in rows
    }
    for body in transport.bodies:
        assert (body["max_tokens"], body["temperature"], body["stop"]) == (16, 0, ["\n"])


def test_answers_are_in_the_order_of_the_requests(serve):
    asked = [instance(f"q{n}", until=[]) for n in range(6)]
    transport = serve(*[reply((6 - n) / 50, *openai_events(f"a{n}")) for n in range(6)])
    answers = model(concurrency=6).generate_until(asked)
    sent = [body["messages"][0]["content"] for body in transport.bodies]
    assert answers == [f"a{sent.index(f'q{n}')}" for n in range(6)]


def test_chats_keep_their_roles(serve):
    transport = serve(reply(*openai_events("yes")))
    made = model()
    history = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "?"}]
    context = made.apply_chat_template(history)
    assert isinstance(context, Chat)
    assert made.generate_until([instance(context)]) == ["yes"]
    assert transport.bodies[0]["messages"] == history


def test_what_failed_is_raised_when_the_rest_is_done(serve, tmp_path):
    bad = reply(b'{"error":{"message":"no"}}', status=400)
    transport = serve(bad, reply(*openai_events("yes")))
    asked = [instance(f"q{n}") for n in range(3)]
    cache = str(tmp_path / "answers")
    with pytest.raises(llm.RefusedError, match="no") as caught:
        model(concurrency=1, cache=cache).generate_until(asked)
    assert caught.value.__notes__ == ["1 of 3 requests failed"]
    assert len(transport.requests) == 3
    assert model(concurrency=1, cache=cache).generate_until(asked) == ["yes"] * 3
    assert len(transport.requests) == 4


def test_the_harness_s_own_cache_is_told(serve):
    serve(reply(*openai_events("yes no")))
    made, told = model(), []
    made.cache_hook.add_partial = lambda *args: told.append(args)
    one = instance("q", until=[" no"])
    made.generate_until([one])
    assert told == [("generate_until", one.args, "yes")]


@pytest.mark.parametrize("method", ["loglikelihood", "loglikelihood_rolling"])
def test_likelihoods_are_refused_with_a_reason(method):
    with pytest.raises(NotImplementedError, match="log probabilities of the prompt"):
        getattr(model(), method)([])


def test_pictures_are_refused(serve):
    serve()
    one = Instance(
        request_type="generate_until", doc={}, arguments=("q", {}, {"visual": []}), idx=0
    )
    with pytest.raises(NotImplementedError, match="pictures"):
        model().generate_until([one])


def test_settings_of_a_task():
    params, extra = params_of({"until": "x", "max_gen_toks": 5, "top_p": 0.5, "odd": 1}, 256)
    assert params == {"max_tokens": 5, "temperature": 0, "top_p": 0.5, "stop": ["x"]}
    assert extra == {"odd": 1}
    params, extra = params_of({"do_sample": True, "until": [str(n) for n in range(6)]}, 256)
    assert params == {"max_tokens": 256, "stop": ["0", "1", "2", "3"]}
    assert extra == {}
    assert params_of({"temperature": 0.7}, 9)[0] == {"max_tokens": 9, "temperature": 0.7}


def test_stops():
    assert stops_of({"until": ["", "a"]}) == ["a"]
    assert stops_of({}) == []
    assert cut("one two three", ["three", "two"]) == "one "
    assert cut("one", ["x"]) == cut("one", []) == "one"
