"""A model for the lm-evaluation-harness: ``python -m trio_minillm.adapters.lm_eval run …``.

Importing this module registers the model ``trio_minillm``. Run as a program it is the harness's own
command with that model added, because the harness has no entry points for models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import trio
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model

from .._batch.files.response_cache import ResponseCache
from .._batch.types import BatchRequest, BatchResult
from .._client import Client
from .._types.errors import MiniLLMError
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

LIKELIHOOD = (
    "the wire formats of trio_minillm give no log probabilities of the prompt: only tasks with"
    " output_type generate_until can be run"
)


class Chat(str):
    """A conversation as JSON, in place of the text that a chat template would make of it."""

    __slots__ = ()


@register_model("trio_minillm")
class TrioMiniLLM(LM):  # type: ignore[misc]
    """A model with any wire format of this library, for tasks that generate text.

    ``model`` is ``KIND:NAME`` as on the command line of `trio_minillm` (``openai:``,
    ``openai-responses:``, ``anthropic:``, ``openrouter:``, ``compatible:`` with ``base_url``, ``local`` or
    ``local:PATH.gguf``); other arguments are those of the model's constructor, or of
    `open_local_model`. ``concurrency`` and the rates are those of `Client.batch`. ``cache`` is a
    file in which answers are kept (`ResponseCache`), so that a run that was killed continues where
    it was.

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
        batch_size: Any = None,
        max_batch_size: Any = None,
        device: str | None = None,
        **model_options: Any,
    ) -> None:
        super().__init__()
        self.model = model
        self.max_gen_toks = max_gen_toks
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
        """Raise ``NotImplementedError``, because chat wire formats don't give these."""
        raise NotImplementedError(LIKELIHOOD)

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Raise ``NotImplementedError``, because chat wire formats don't give these."""
        raise NotImplementedError(LIKELIHOOD)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return the texts, in order, each cut before the first of its stop sequences."""
        return trio.run(self._generate, requests)

    async def _generate(self, instances: Sequence[Instance]) -> list[str]:
        texts: list[str | None] = [None] * len(instances)
        failed: list[MiniLLMError] = []

        def take(result: BatchResult) -> None:
            if result.response is None:
                assert result.error is not None
                failed.append(result.error)
                return
            args = instances[result.index].args
            text = texts[result.index] = cut(result.response.content, stops_of(args[1]))
            self.cache_hook.add_partial("generate_until", args, text)

        async with open_both(self.model, {}, **self._model_options) as (client, model):
            if self._cache is None:
                await self._run(client, model, instances, take)
            else:
                with ResponseCache(self._cache) as cache:
                    await self._run(client, model, instances, take, cache=cache)
        if failed:
            failed[0].add_note(f"{len(failed)} of {len(instances)} requests failed")
            raise failed[0]
        return [text for text in texts if text is not None]

    async def _run(
        self, client: Client, model: Model, instances: Sequence[Instance], take: Any, **more: Any
    ) -> None:
        requests = self._requests(instances, blank_stops=model.provider.name != "anthropic")
        async with client.batch(requests, model=model, **self._batch_options, **more) as results:
            async for result in results:
                take(result)

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
