"""A model for the lm-evaluation-harness: ``python -m trio_minillm.adapters.lm_eval run …``.

Importing this module registers the model ``trio_minillm``. Run as a program it is the harness's own
command with that model added, because the harness has no entry points for models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import trio
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model

from .._batch.files.response_cache import ResponseCache
from .._batch.types import BatchRequest
from .._types.echo import split_echo
from .._types.errors import MiniLLMError, RefusedError
from .._types.response import CompletionResponse
from ..providers import Model
from ._portal import open_both

if TYPE_CHECKING:

    class LM:
        """The harness's base class of models, which has no types."""

        cache_hook: Any
else:
    from lm_eval.api.model import LM

MAX_STOPS = 4
"""Stop sequences that are sent, for OpenAI takes no more; the text is cut here at the others."""

SAME = ("temperature", "top_p", "top_k", "min_p", "seed", "frequency_penalty", "presence_penalty")
"""Generation settings of tasks that are parameters of the same name here."""

SCORED: dict[str, Any] = {"max_tokens": 1, "temperature": 0, "echo": True, "logprobs": True}
"""Parameters of a request for the log probabilities of its prompt. Some servers take ``max_tokens=0``
for no bound (llama-cpp-python), others refuse it. The one token that is generated has a number, too: by
that it shows whether they stand in their places."""

LIKELIHOOD = (
    "log probabilities of the prompt exist only in text completions: give model=text:NAME and"
    " base_url=, for a server that has them (vLLM, SGLang, llama-cpp-python with logits_all). On other"
    " wire formats, only tasks with output_type generate_until can be run"
)
NOT_GIVEN = (
    "the server gave no log probabilities of the prompt, which this task needs: vLLM, SGLang and"
    " llama-cpp-python with logits_all do; llama.cpp's own server does not"
)
NO_BEGINNING = (
    "the server gave no log probability for the first token, which has nothing before it: give"
    " prefix=, a text to put before each prompt: that of the token that starts a document in this"
    " model (<|endoftext|>, <s>), or a line break if the server leaves that one out"
)
MISPLACED = (
    "the server's log probabilities are shifted by one token, because the last token has none:"
    " llama-cpp-python does this for a model whose prompts do not begin with a token for the start of"
    " a document. Give that token as prefix="
)


class Chat(str):
    """A conversation as JSON, in place of the text that a chat template would make of it."""

    __slots__ = ()


@register_model("trio_minillm")
class TrioMiniLLM(LM):  # type: ignore[misc]
    """A model with any wire format of this library, for tasks that generate text; over text completions
    also for those that compare likelihoods, if the server gives log probabilities of the prompt.

    ``model`` is ``KIND:NAME`` as on the command line of `trio_minillm` (``openai:``,
    ``openai-responses:``, ``anthropic:``, ``openrouter:``, ``compatible:`` or ``text:`` with ``base_url``, ``local`` or
    ``local:PATH.gguf``); other arguments are those of the model's constructor, or of
    `open_local_model`. ``concurrency`` and the rates are those of `Client.batch`. ``cache`` is a
    file in which answers are kept (`ResponseCache`), so that a run that was killed continues where
    it was. ``prefix`` is put before each text whose likelihood is asked for.

    All requests of a task are one batch. If some fail, the first error is raised once the others
    are done, because the harness has no place for a missing answer.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        concurrency: int | Literal["auto"] = "auto",
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        cache: str | None = None,
        max_gen_toks: int = 256,
        prefix: str = "",
        batch_size: Any = None,
        max_batch_size: Any = None,
        device: str | None = None,
        **model_options: Any,
    ) -> None:
        super().__init__()
        self.model = model
        self.max_gen_toks = max_gen_toks
        self.prefix = prefix
        self._cache = cache
        self._model_options = {"base_url": base_url, "api_key": api_key, **model_options}
        self._batch_options: dict[str, Any] = {
            "concurrency": concurrency,
            "requests_per_minute": requests_per_minute,
            "tokens_per_minute": tokens_per_minute,
        }

    @property
    def tokenizer_name(self) -> str:
        """The name by which the harness tells its own caches of requests apart."""
        return self.model

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return the conversation itself, because the server has the template."""
        return Chat(msgspec.json.encode(chat_history).decode())

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Return for each continuation of a context the log of its probability, and whether each of its
        tokens is the likeliest.

        Blanks at the end of a context count to the continuation, as everywhere in the harness. A token
        that is part of both counts, too. Raises ``NotImplementedError`` for a wire format or a server
        that gives no log probabilities of the prompt.
        """
        pairs = [_moved(*instance.args[:2]) for instance in requests]
        return self._scored("loglikelihood", requests, pairs)

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Return the log of each text's probability, which is that of all its tokens.

        A text that is longer than the model's context is refused by the server. Raises as
        `loglikelihood` does.
        """
        pairs = [("", str(instance.args[0])) for instance in requests]
        scores = self._scored("loglikelihood_rolling", requests, pairs)
        return [logprob for logprob, _ in scores]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return the texts, in order, each cut before the first of its stop sequences."""

        def read(number: int, response: CompletionResponse) -> str:
            args = requests[number].args
            text = cut(response.text, stops_of(args[1]))
            self.cache_hook.add_partial("generate_until", args, text)
            return text

        def asked(model: Model) -> Iterator[BatchRequest]:
            return self._requests(requests, blank_stops=model.provider.name != "anthropic")

        return trio.run(self._answers, len(requests), asked, read)

    def _scored(
        self, kind: str, requests: Sequence[Instance], pairs: Sequence[tuple[str, str]]
    ) -> list[tuple[float, bool]]:
        """Return the scores of continuations, each in a pair with its context."""

        def read(number: int, response: CompletionResponse) -> tuple[float, bool]:
            context, continuation = pairs[number]
            found = score(response, self.prefix + context, continuation)
            told = found if kind == "loglikelihood" else found[0]
            self.cache_hook.add_partial(kind, requests[number].args, told)
            return found

        def asked(model: Model) -> Iterator[BatchRequest]:
            if model.provider.name != "text":
                raise NotImplementedError(LIKELIHOOD)
            prompts = enumerate(self.prefix + "".join(pair) for pair in pairs)
            return (BatchRequest(str(n), prompt, params=dict(SCORED)) for n, prompt in prompts)

        try:
            return trio.run(self._answers, len(pairs), asked, read)
        except RefusedError as exc:
            exc.add_note(f"if it is the echo that was refused: {NOT_GIVEN}")
            raise

    async def _answers(
        self,
        size: int,
        asked: Callable[[Model], Iterator[BatchRequest]],
        read: Callable[[int, CompletionResponse], Any],
    ) -> list[Any]:
        """Return what ``read`` makes of each answer, in the order of the requests."""
        found: dict[int, Any] = {}
        failed: list[MiniLLMError] = []
        async with AsyncExitStack() as stack:
            client, model = await stack.enter_async_context(
                open_both(self.model, {}, **self._model_options)
            )
            more: dict[str, Any] = {}
            if self._cache is not None:
                more["cache"] = stack.enter_context(ResponseCache(self._cache))
            batch = client.batch(asked(model), model=model, **self._batch_options, **more)
            async for result in await stack.enter_async_context(batch):
                if result.response is None:
                    assert result.error is not None
                    failed.append(result.error)
                else:
                    found[result.index] = read(result.index, result.response)
        if failed:
            failed[0].add_note(f"{len(failed)} of {size} requests failed")
            raise failed[0]
        return [found[number] for number in sorted(found)]

    def _requests(
        self, instances: Iterable[Instance], *, blank_stops: bool
    ) -> Iterator[BatchRequest]:
        """Yield the requests. Stop sequences of white space alone, which Anthropic refuses, are sent
        with ``blank_stops`` only: the texts are cut at them in any case.
        """
        for number, instance in enumerate(instances):
            context, settings = instance.args[:2]
            if len(instance.args) > 2:
                raise NotImplementedError("tasks with pictures or sound can't be run")
            messages = msgspec.json.decode(str(context)) if isinstance(context, Chat) else context
            params, extra = params_of(settings, self.max_gen_toks)
            if not blank_stops:
                params["stop"] = [stop for stop in params.get("stop", ()) if stop.strip()]
            yield BatchRequest(str(number), messages, params=params, extra=extra)


def params_of(settings: dict[str, Any], max_tokens: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a task's ``generation_kwargs`` as parameters, and the rest as extra fields.

    Without ``do_sample`` the temperature is 0 unless it is set, as everywhere in the harness.
    """
    given = {k: v for k, v in settings.items() if k not in ("until", "do_sample")}
    params: dict[str, Any] = {name: given.pop(name) for name in SAME if name in given}
    sizes = [given.pop(n, None) for n in ("max_gen_toks", "max_tokens", "max_completion_tokens")]
    params["max_tokens"] = next((size for size in sizes if size is not None), max_tokens)
    if not settings.get("do_sample"):
        params.setdefault("temperature", 0)
    stops = stops_of(settings)
    if stops:
        params["stop"] = stops[:MAX_STOPS]
    return params, given


def score(response: CompletionResponse, context: str, continuation: str) -> tuple[float, bool]:
    """Return the log probability of a continuation, of which a prompt in an answer consists behind its
    context, and whether each token of it is the likeliest.

    Raises ``NotImplementedError`` if the answer does not have these, and ``ValueError`` if they are not
    what they should be.
    """
    whole = context + continuation
    if not response.text.startswith(whole):
        raise NotImplementedError(NOT_GIVEN)
    echo = split_echo(response, whole)
    places = pairwise([*(entry["text_offset"] for entry in echo.prompt), len(whole)])
    scored = [
        entry
        for entry, (start, end) in zip(echo.prompt, places, strict=True)
        if start >= len(context) or end > len(context)
    ]
    late = bool(scored) and scored[0]["text_offset"] > len(context)  # what is before has no number
    if any(entry["logprob"] is None for entry in scored) or (late and not context):
        raise ValueError(NO_BEGINNING)
    if not scored or late or not all(entry["top_logprobs"] for entry in scored):
        raise NotImplementedError(NOT_GIVEN)
    if echo.text and not echo.completion:
        raise ValueError(MISPLACED)
    greedy = all(entry["logprob"] >= _highest(entry) for entry in scored)
    return math.fsum(entry["logprob"] for entry in scored), greedy


def _highest(entry: dict[str, Any]) -> float:
    """Return the log probability of the likeliest token in a place."""
    return max((one["logprob"] for one in entry["top_logprobs"]), default=-math.inf)


def _moved(context: str, continuation: str) -> tuple[str, str]:
    """Return a pair with the blanks at the end of its context in the continuation."""
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


def stops_of(settings: dict[str, Any]) -> list[str]:
    """Return the stop sequences of a task, without empty ones."""
    until = settings.get("until") or []
    return [stop for stop in ([until] if isinstance(until, str) else until) if stop]


def cut(text: str, stops: Sequence[str]) -> str:
    """Return the text before the first stop sequence."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=None)]


def main() -> None:
    """Run the harness's own command."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
