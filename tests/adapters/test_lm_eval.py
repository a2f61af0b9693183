"""The lm-evaluation-harness's own task on our batch, and what goes between the two."""

import json
import re
from functools import partial

import pytest

import trio_minillm as llm
from trio_minillm.adapters import _portal
from trio_minillm.testing import ScriptedTransport, json_reply, openai_events, reply, text_events

pytest.importorskip("lm_eval", reason="lm_eval is not installed (extra: lm-eval)")

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager

from trio_minillm.adapters.lm_eval import (
    LIKELIHOOD,
    MISPLACED,
    NO_BEGINNING,
    NOT_GIVEN,
    Chat,
    TrioMiniLLM,
    cut,
    params_of,
    stops_of,
)

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
    with pytest.raises(NotImplementedError) as caught:
        getattr(model(), method)([])
    assert str(caught.value) == LIKELIHOOD


def echo(text, *entries, generated=" x"):
    """A whole answer that repeats its prompt; entries are a token, its number and the highest one."""
    places = [sum(len(token) for token, *_ in entries[:n]) for n in range(len(entries))]
    logprobs = {
        "tokens": [token for token, *_ in entries],
        "token_logprobs": [own for _, own, _ in entries],
        "top_logprobs": [
            None if best is None else {"?": best, token: own} for token, own, best in entries
        ],
        "text_offset": places,
    }
    choice = {"text": text + generated, "index": 0, "finish_reason": "length", "logprobs": logprobs}
    usage = {"prompt_tokens": len(entries), "completion_tokens": 1}
    return json_reply({"id": "cmpl-1", "choices": [choice], "usage": usage})


def likelihood(*pairs, rolling=False, **options):
    kind = "loglikelihood_rolling" if rolling else "loglikelihood"
    asked = [Instance(request_type=kind, doc={}, arguments=pair, idx=0) for pair in pairs]
    made = TrioMiniLLM("text:m", **{"base_url": URL, "concurrency": 1, **options})
    return getattr(made, kind)(asked)


ENDED = (" x", -3.0, -1.0)
"""The token that was generated; a penalty may have made it other than the likeliest."""


def test_likelihoods_of_continuations(serve, tmp_path):
    transport = serve(
        echo("a b c", ("a", None, None), (" b", -2.0, -2.0), (" c", -0.5, -0.5), ENDED),
        echo("a b d", ("a", None, None), (" b", -2.0, -2.0), (" d", -4.0, -0.5), ENDED),
        echo("a b c", ("a", None, None), (" b", -2.0, -2.0), (" c", -0.5, -0.5), ENDED),
    )
    pairs = ("a b", " c"), ("a b", " d"), ("a", " b c")
    cache = str(tmp_path / "answers")
    for _ in range(2):  # the second time, they are in the cache
        found = likelihood(*pairs, cache=cache)
        assert found == [(-0.5, True), (-4.0, False), (-2.5, True)]
    assert transport.bodies == [
        {
            "model": "m",
            "prompt": context + continuation,
            "stream": False,
            "max_tokens": 1,
            "temperature": 0,
            "echo": True,
            "logprobs": 1,
        }
        for context, continuation in pairs
    ]


def test_the_harness_s_cache_is_told_of_likelihoods(serve):
    serve(echo("a b", ("a", None, None), (" b", -2.0, -2.0), ENDED))
    made, told = TrioMiniLLM("text:m", base_url=URL), []
    made.cache_hook.add_partial = lambda *args: told.append(args)
    one = Instance(request_type="loglikelihood", doc={}, arguments=("a", " b"), idx=0)
    assert made.loglikelihood([one]) == [(-2.0, True)]
    assert told == [("loglikelihood", one.args, (-2.0, True))]


def test_blanks_at_the_end_of_a_context_count_to_the_continuation(serve):
    serve(echo("a b", ("a", None, None), (" b", -2.0, -2.0), ENDED))
    assert likelihood(("a ", "b")) == [(-2.0, True)]


def test_a_token_of_both_counts_to_the_continuation(serve):
    serve(echo("abcd", ("a", None, None), ("bc", -2.0, -2.0), ("d", -1.0, -1.0), ENDED))
    assert likelihood(("ab", "cd")) == [(-3.0, True)]


def test_likelihoods_of_whole_texts(serve):
    transport = serve(
        echo("a b", ("<s>", None, None), ("a", -3.0, -1.0), (" b", -2.0, -2.0), ENDED),
        echo("\na b", ("\n", None, None), ("a", -3.0, -1.0), (" b", -2.0, -2.0), ENDED),
    )
    assert likelihood(("a b",), rolling=True) == [-5.0]
    assert likelihood(("a b",), rolling=True, prefix="\n") == [-5.0]
    assert [body["prompt"] for body in transport.bodies] == ["a b", "\na b"]


@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        # llama.cpp's server passes over the echo
        (echo("", (" x", -1.0, -1.0)), NotImplementedError, NOT_GIVEN),
        (echo("a b"), NotImplementedError, NOT_GIVEN),
        (echo("a b", ("a", None, None), (" b", -2.0, None), ENDED), NotImplementedError, NOT_GIVEN),
        (echo("a b", ("a b", None, None), ENDED), ValueError, NO_BEGINNING),
        # llama-cpp-python, for a model without a token at the beginning
        (echo("a b", ("a", None, None), (" b", -9.0, -1.0)), ValueError, MISPLACED),
        (echo("a b", ("x", None, None), ("y", -9.0, -1.0)), ValueError, "do not add up"),
    ],
)
def test_numbers_that_are_none_are_no_score(serve, made, error, words):
    serve(made)
    with pytest.raises(error, match=re.escape(words)):
        likelihood(("a", " b"))


def test_a_text_without_a_beginning_has_no_score(serve):
    serve(echo("a b", ("a", None, None), (" b", -2.0, -2.0), ENDED))
    with pytest.raises(ValueError, match="prefix="):
        likelihood(("a b",), rolling=True)


def test_numbers_of_a_part_are_no_score(serve):
    serve(echo("a b c", (" c", -2.0, -2.0), ENDED))
    with pytest.raises(NotImplementedError, match=re.escape(NOT_GIVEN)):
        likelihood(("a", " b c"))
    with pytest.raises(ValueError, match=re.escape(NO_BEGINNING)):
        likelihood(("a b c",), rolling=True)
    assert likelihood(("a b", " c")) == [(-2.0, True)]


def test_a_refusal_says_what_it_may_mean(serve):
    serve(json_reply({"error": {"message": "Only no echo is supported"}}, status=400))
    with pytest.raises(llm.RefusedError, match="no echo") as caught:
        likelihood(("a", " b"))
    assert NOT_GIVEN in caught.value.__notes__[-1]


def test_a_prompt_of_text_completions_has_no_template(serve):
    transport = serve(reply(*text_events("Pa", "ris\nand more")))
    made = TrioMiniLLM("text:m", base_url=URL)
    assert made.generate_until([instance("The capital is", until="\n")]) == ["Paris"]
    assert transport.bodies[0]["prompt"] == "The capital is"
    with pytest.raises(ValueError, match="use a chat format"):
        made.generate_until(
            [instance(made.apply_chat_template([{"role": "system", "content": "a"}]))]
        )


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
