"""The options of ``bench`` on its prompts: given, out of a file, or made."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from typer import Option

import trio_minillm as llm

from .._accounting.tokenizers import counter, encoding_at_hand
from .._bench.plan import Plan
from .._bench.prompts.collected import MAX_TOKENS, Collected, PromptError, shape_of
from .._bench.prompts.files import Form, Reading, read_prompts
from .._bench.prompts.prompt import OWN_WORDS, Prompt
from .._bench.prompts.synthetic import MADE, Synthetic, longest_of, tokens_of
from .._serve.distributions import Distribution, distribution
from .._types.messages import Quiet
from ._bench_request_options import MAX_TOKENS as MOST_TOKENS
from ._bench_request_options import Asked, RequestChoice
from ._output import Misuse

if TYPE_CHECKING:
    from .._bench.figures.figures import Figures  # brings numpy

PROMPT = "Tell me a long story about the sea."
"""The prompt by default."""
SAME = "same"
"""Value of ``--output-tokens`` for the lengths of recorded answers."""
_CHARACTERS = 4
"""Characters of a token, where nothing better is known of a text."""

_HELP = {
    "prompt": "The prompt to send.",
    "prompts": "Prompts to send in turn: JSON lines, .csv, .tsv, .parquet, conversations, or text"
    " with one prompt per line; or a folder of such files.",
    "prompt_column": "Column of the file with the prompt.",
    "system_column": "Column of the file with the system message.",
    "format": "Format of the file, if its name and first bytes do not show it.",
    "turns": "Maximum turns per conversation. [1]",
    "think": "Seconds between an answer and the next turn.",
    "input_tokens": "Generate prompts of N tokens: a number, uniform(LOW, HIGH), normal(MEAN, SD), lognormal(MEDIAN, SIGMA), or exp(MEAN).",
    "output_tokens": "Maximum tokens per answer, in the same forms; or same, for the lengths of the answers in the file.",
    "prefix_share": "Share of each generated prompt, from its start, that is the same in all: 0 to 1.",
    "unique": "Start each prompt with a few fresh words, so that no cache holds it.",
}
PromptText = Annotated[str | None, Option("--prompt", metavar="TEXT", help=_HELP["prompt"])]
PromptFile = Annotated[Path | None, Option("--prompts", metavar="FILE", help=_HELP["prompts"])]
PromptColumn = Annotated[str | None, Option(metavar="COL", help=_HELP["prompt_column"])]
SystemColumn = Annotated[str | None, Option(metavar="COL", help=_HELP["system_column"])]
PromptFormat = Annotated[Form | None, Option("--format", help=_HELP["format"])]
Turns = Annotated[int | None, Option(metavar="N", min=1, help=_HELP["turns"])]
Think = Annotated[float | None, Option(metavar="S", help=_HELP["think"])]
InputTokens = Annotated[str | None, Option(metavar="N", help=_HELP["input_tokens"])]
OutputTokens = Annotated[str | None, Option(metavar="N", help=_HELP["output_tokens"])]
PrefixShare = Annotated[float | None, Option(metavar="SHARE", help=_HELP["prefix_share"])]
Unique = Annotated[bool, Option("--unique", help=_HELP["unique"])]


class Prompts(msgspec.Struct, frozen=True, kw_only=True):
    """The prompts of a command, or the lengths of those that are yet to be made."""

    prompts: tuple[Prompt, ...] = ()
    synthetic: Synthetic | None = None
    recordings: tuple[Path, ...] = ()
    """Recordings that tell the lengths of prompts to be made."""
    think: float = 0.0
    kind: str
    """``text``, ``file``, ``made``, or ``lengths``: made as long as those of a file."""
    output: str | None = None
    """The lengths of answers that were wanted, as they were given."""
    notes: tuple[str, ...] = ()
    lengths: dict[str, Any] | None = None
    """The wanted lengths of made prompts, and how they were measured."""

    def context(self, least: int, output: int) -> int:
        """Return the tokens for which a local model needs room: ``least``, or more for long made prompts.

        ``output`` is the longest answer of all requests.
        """
        return least if self.synthetic is None else max(least, longest_of(self.synthetic, output))

    async def made(
        self, client: llm.Client, model: llm.Model, plan: Plan, **options: Any
    ) -> Prompts:
        """Return these with the prompts for this model, where they are made and not given.

        The options are those of `made_for`, and it raises the same.
        """
        from .._bench.prompts.fitting import described, made_for
        from .._bench.prompts.recordings import recorded_shapes

        wanted = self.synthetic
        if wanted is None:
            return self
        for path in self.recordings:
            shapes = (*wanted.shapes, *await recorded_shapes(path))
            wanted = msgspec.structs.replace(wanted, shapes=shapes)
        found, fit = await made_for(wanted, client, model, plan, **options)
        return msgspec.structs.replace(
            self,
            prompts=tuple(found.prompts),
            notes=(*self.notes, f"the prompts were generated, and their tokens were {fit.how}"),
            lengths=described(wanted, fit),
        )

    def told(self, figures: Figures) -> list[str]:
        """Return what qualifies figures of these prompts."""
        from .._bench.output.table import CUT  # brings numpy

        notes = list(self.notes)
        ended = sum(n for reason, n in figures.reasons.items() if reason not in CUT)
        if self.output is not None and ended:
            notes.append(
                f"{ended:,} of {figures.finished:,} answers ended before their maximum length;"
                " --ignore-eos prevents this on servers that accept it"
            )
        return notes

    def config(self) -> dict[str, Any]:
        """Return their kind, number and sizes for a result."""
        sizes = shape_of(self.prompts)
        return {
            "kind": self.kind,
            **sizes,
            "think": self.think,
            "output_tokens": self.output,
            "made": self.lengths,
        }


class PromptChoice(Quiet, msgspec.Struct, frozen=True, kw_only=True):
    """The options on prompts, as they were given. Its 11 attributes are these options."""

    prompt: str | None = None
    prompts: Path | None = None
    prompt_column: str | None = None
    system_column: str | None = None
    format: Form | None = None
    turns: int | None = None
    think: float | None = None
    input_tokens: str | None = None
    output_tokens: str | None = None
    prefix_share: float | None = None
    unique: bool = False

    @property
    def source(self) -> str:
        """The option that says where the prompts come from. Raises `Misuse` if there are several."""
        sources = ("prompt", "prompts", "input_tokens")
        given = [_named(name) for name in sources if getattr(self, name) is not None]
        if len(given) > 1:
            raise Misuse(f"{given[0]} can't be combined with {given[1]}")
        return given[0] if given else "--prompt"

    def asked(self, asking: RequestChoice, kind: str) -> Asked:
        """Return the part that is the same in every request to a model of this kind. Raises `Misuse`."""
        most = asking.max_tokens
        if self.output_tokens is not None:
            if most is not None:
                raise Misuse("--max-tokens can't be combined with --output-tokens")
            if self.output_tokens != SAME:
                lengths = lengths_from("--output-tokens", self.output_tokens)
                most = None if lengths is None else max(1, round(lengths.mean))
        return asking.asked(
            kind,
            max_tokens=MOST_TOKENS if most is None else most,
            to_the_end=kind == "local" and self.output_tokens is not None,
        )

    def read(self, model: llm.Model | str, asked: Asked, most: int | None, seed: int) -> Prompts:
        """Return the prompts. ``most`` is the number that will be sent, if that is known. Raises `Misuse`."""
        source = self.source
        self._check(source)
        same = self.output_tokens == SAME
        output = None if same else lengths_from("--output-tokens", self.output_tokens)
        count = MADE if most is None else min(MADE, most)
        notes: list[str] = []
        if source == "--input-tokens":
            return self._to_make(output, count, seed)
        if self.prompts is not None:
            read = self._of_file(self.prompts, model, asked, most, notes)
            if not read.prompts:
                return self._to_make_like(read, seed)
            found = read.prompts
            if same and not any("max_tokens" in prompt.params for prompt in found):
                raise Misuse("--output-tokens same needs a file of conversations")
        else:
            text = PROMPT if self.prompt is None else self.prompt
            if not text.strip():
                raise Misuse("the prompt is empty")
            own = (0, OWN_WORDS) if self.unique else None
            varied = output is not None and output.constant is None
            found = [Prompt(messages=text, own=own)] * (count if varied else 1)
        if output is not None:
            found = _with_lengths(found, output, seed)
        return Prompts(
            kind="text" if self.prompts is None else "file",
            prompts=tuple(found),
            think=self.think or 0.0,
            output=self.output_tokens,
            notes=tuple(notes),
        )

    def _check(self, source: str) -> None:
        """Raise `Misuse` for an option that has no effect on prompts of this source."""
        goes_with = {
            "prompt_column": ("--prompts",),
            "system_column": ("--prompts",),
            "format": ("--prompts",),
            "turns": ("--prompts", "--input-tokens"),
            "prefix_share": ("--input-tokens",),
        }
        for name, sources in goes_with.items():
            if getattr(self, name) is not None and source not in sources:
                raise Misuse(f"{_named(name)} needs {' or '.join(sources)}")
        if self.output_tokens == SAME and source != "--prompts":
            raise Misuse("--output-tokens same needs --prompts")
        if self.think is not None and not (0 <= self.think < math.inf):
            raise Misuse("--think must be a number of seconds, 0 or more")
        if self.think and (self.turns or 1) < 2:
            raise Misuse("--think needs --turns of 2 or more")
        if self.prefix_share is not None and not 0 <= self.prefix_share <= 1:
            raise Misuse("--prefix-share must be from 0 to 1")

    def _to_make(self, output: Distribution | None, count: int, seed: int) -> Prompts:
        tokens = lengths_from("--input-tokens", self.input_tokens)
        assert tokens is not None
        wanted = Synthetic(
            tokens=tokens,
            output=output,
            turns=self.turns or 1,
            prefix_share=self.prefix_share or 0.0,
            count=count,
            seed=seed,
        )
        return Prompts(
            kind="made", synthetic=wanted, think=self.think or 0.0, output=self.output_tokens
        )

    def _to_make_like(self, read: Collected, seed: int) -> Prompts:
        """Return prompts that are to be made as long as those of a file."""
        for name in ("turns", "output_tokens", "unique"):
            if getattr(self, name):
                raise Misuse(
                    f"{_named(name)} can't be combined with a file of lengths or recordings"
                )
        wanted = Synthetic(shapes=tuple(read.shapes), seed=seed)
        return Prompts(kind="lengths", synthetic=wanted, recordings=tuple(read.recordings))

    def _of_file(
        self,
        path: Path,
        model: llm.Model | str,
        asked: Asked,
        most: int | None,
        notes: list[str],
    ) -> Collected:
        local = isinstance(model, str)
        if local:  # its server, which is not there yet, speaks the same format
            model = llm.compatible("local", base_url="http://127.0.0.1", extra=asked.extra)
        assert isinstance(model, llm.Model)
        reading = Reading(
            model=model,
            params=asked.params,
            prompt=self.prompt_column,
            system=self.system_column,
            form=self.format,
            turns=self.turns or 1,
            count=_counter(model, notes) if self.output_tokens == SAME else None,
            unique=self.unique,
            most=most,
        )
        try:
            return read_prompts(path, reading)
        except (PromptError, ImportError) as exc:
            raise Misuse(f"the prompts {exc}") from exc
        except OSError as exc:
            raise Misuse(f"the prompts {path}: {exc.strerror or exc}") from exc


def lengths_from(option: str, given: str | None) -> Distribution | None:
    """Return a number of tokens, or a distribution of such numbers. Raises `Misuse`."""
    if given is None:
        return None
    try:
        found = distribution(given, option)
    except ValueError as exc:
        raise Misuse(str(exc)) from None
    if found.mean < 1 or found.mean > MAX_TOKENS:
        raise Misuse(f"the mean of {option} must be from 1 to {MAX_TOKENS:,} tokens")
    return found


def _named(name: str) -> str:
    return "--" + name.replace("_", "-")


def _counter(model: llm.Model, notes: list[str]) -> Callable[[str], int]:
    """Return a function that counts the tokens of a recorded answer, and note how good it is."""
    encoding = encoding_at_hand(model.name)
    if encoding is not None:
        notes.append(f"the tokens of recorded answers were counted by tiktoken ({encoding})")
        return counter(encoding, model.name)
    notes.append(f"the tokens of recorded answers were estimated at {_CHARACTERS} characters each")
    return lambda text: round(len(text) / _CHARACTERS)


def _with_lengths(prompts: list[Prompt], output: Distribution, seed: int) -> list[Prompt]:
    """Return the prompts with a longest answer for each that has none of its own."""
    draw = random.Random(seed)
    return [
        prompt
        if "max_tokens" in prompt.params
        else msgspec.structs.replace(
            prompt,
            params={**prompt.params, "max_tokens": tokens_of(output, draw)},
            lengths=tuple(tokens_of(output, draw) for _ in prompt.turns),
        )
        for prompt in prompts
    ]
