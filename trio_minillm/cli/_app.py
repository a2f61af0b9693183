"""The command ``trio-minillm``: its subcommands, and the one line that any error comes out as."""

from __future__ import annotations

import os
import re
import signal
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer import Option
from typer.core import TyperCommand, TyperGroup

import trio_minillm as llm

from ..local._named import KEYS, variable_of
from ._foreign_options import NAMES_HERE
from ._output import one_line
from ._terminal import print_error, say

EXIT_CODES_PAGE = "https://trio-minillm.github.io/trio-minillm/reference/exit-codes/"
"""The page with the table of exit codes."""


def _keys_text() -> str:
    """Return a line for each variable, with the kinds of models whose keys it has."""
    kinds: dict[str, list[str]] = {}
    for kind, variable in KEYS.items():
        kinds.setdefault(variable, []).append(f"{kind}:")
    for kind, variable in KEYS.items():
        if (other := variable_of(kind, "a base URL")) is not None and other != variable:
            kinds[other].append(f"{kind}: with --base-url")
    return "".join(f"  {variable:<22}{', '.join(of)}\n" for variable, of in kinds.items())


_EPILOG = (
    f"\b\nKeys come from the environment:\n{_keys_text()}\n\b\nExit codes: {EXIT_CODES_PAGE}\n"
)

SUBCOMMANDS = {
    "chat": (
        'chat "Why is the sea salty?" -m openai:gpt-5-mini',
        'chat "Summarise:" - -m anthropic:claude-haiku-4-5 < report.txt',
        'chat "Hello" -m compatible:qwen3 --base-url http://127.0.0.1:8080/v1',
    ),
    "batch": (
        "batch in.jsonl out.jsonl -m openai:gpt-5-mini --dry-run",
        "batch in.jsonl out.jsonl -m openai:gpt-5-mini --max-cost 20",
        "batch questions.csv out.jsonl -m local --key id --prompt question",
    ),
    "models": (
        "models openai",
        "models openrouter haiku",
        "models compatible --base-url http://127.0.0.1:8080/v1",
    ),
    "costs": (
        "costs costs.jsonl",
        "costs costs.jsonl --by user",
        "costs costs.jsonl --settle",
    ),
    "bench": (),
    "report": (),
    "compare": (),
    "serve": (),
}
"""The subcommands, in the order of ``--help``, and what is shown under the help of each."""


def _examples(command: str) -> str | None:
    if not SUBCOMMANDS[command]:
        return None
    lines = "".join(f"  trio-minillm {example}\n" for example in SUBCOMMANDS[command])
    return f"\b\nExamples:\n{lines}"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trio-minillm {llm.__version__}")
        raise typer.Exit


_CHECKER = r"^Value error, |^Input (?=should be)|, unable to parse .*"
"""Words of pydantic's, which checks values for typer, that say nothing to a user."""


class _Command(TyperCommand):
    """A command whose errors say which command it is, and name a wrong value without the words of what
    checks it.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as exc:  # typer has no public name for what it raises
            if getattr(exc, "ctx", ctx) is None:
                vars(exc).update(ctx=ctx)
            if isinstance(exc, typer.BadParameter):
                exc.message = re.sub(_CHECKER, "", exc.message)
            raise


class _BenchCommand(_Command):
    """The command ``bench``: its many options under headings, and those of other programs known by name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as exc:  # typer has no public name for what an unknown option raises
            name = getattr(exc, "option_name", "")
            if (here := NAMES_HERE.get(name)) is not None:
                message = f"No such option: {name}; here it is {here}"
                vars(exc).update(message=message, possibilities=None)
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        from ._bench import HEADINGS

        sections: list[tuple[str, list[tuple[str, str]]]] = []
        for param in self.get_params(ctx):
            heading = HEADINGS.get(param.name or "")
            if heading is not None or not sections:
                sections.append((heading or "Options", []))
            if (record := param.get_help_record(ctx)) is not None:
                sections[-1][1].append(record)
        for heading, records in sections:
            with formatter.section(heading):
                formatter.write_dl(records)


def _subcommand(name: str) -> Any:
    """Import a subcommand, and return it as typer runs it."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    kind = _BenchCommand if name == "bench" else _Command
    function = getattr(import_module(f"._{name}", __package__), name)
    app.command(name, cls=kind, epilog=_examples(name))(function)
    return typer.main.get_command(app)


class _Group(TyperGroup):
    """The command without a subcommand. Each subcommand is imported when it is asked for: the benchmark's
    modules take longer to import than all that a conversation needs.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands: dict[str, Any] = dict.fromkeys(SUBCOMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.commands and self.commands[cmd_name] is None:
            self.commands[cmd_name] = _subcommand(cmd_name)
        return self.commands.get(cmd_name)


def _root(
    context: typer.Context,
    version: Annotated[
        bool, Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Ask language models, stream their answers, and see how each ended and what it cost."""
    if context.invoked_subcommand is None:
        say(f"{context.get_help()}\n")
        raise typer.Exit(2)


def usage_line(error: Any) -> str:
    """Return one line for a command line that typer can't read: what is wrong, and where help is."""
    words = str(error.format_message())
    if near := getattr(error, "possibilities", None):
        words = f"{error.message}; did you mean {near[0]}?"
    words = words.replace(". Did you mean", "; did you mean")
    words = re.sub(
        r"Got unexpected extra argument\(s\) \((.*)\)", r"Unexpected argument: \1", words
    )
    context = getattr(error, "ctx", None)
    command = "trio-minillm" if context is None else context.command_path
    return f"{words[:1].lower()}{one_line(words[1:].rstrip('.'))} (see {command} --help)"


def _failure_line(error: Exception) -> str:
    """Return one line for what no command has expected: a file or a device that fails, or a bug. Of a bug
    it names the place alone, because its message may be secret.
    """
    frames = traceback.extract_tb(error.__traceback__)
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
        frames = traceback.extract_tb(error.__traceback__) or frames
    if isinstance(error, OSError) and error.strerror:
        place = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return one_line(f"{place}{error.strerror}")
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
    return f"a bug in trio-minillm: {type(error).__name__} at {where}"


def _leave(code: int | None) -> NoReturn:
    """End in ``SystemExit``; at once if Ctrl-C comes while Python shuts down, which would show where."""
    with suppress(ValueError):  # in another thread than the main one, none comes
        signal.signal(signal.SIGINT, lambda *_: os._exit(code or 0))
    raise SystemExit(code)


def main() -> None:
    """Run the command. Ends in ``SystemExit`` with one of the documented exit codes."""
    app = typer.Typer(
        cls=_Group,
        pretty_exceptions_enable=False,  # they show locals, and those hold keys
        rich_markup_mode=None,  # prompts and model names in usage errors are no markup
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(epilog=_EPILOG, invoke_without_command=True)(_root)
    try:
        code = app(prog_name="trio-minillm", standalone_mode=False)
    except SystemExit as exc:  # which typer raises if it can't write to a pipe that nobody reads
        raise SystemExit(
            141 if isinstance(exc.__context__, BrokenPipeError) else exc.code
        ) from None
    except Exception as exc:  # what typer raises has no public name
        if isinstance(exc, ModuleNotFoundError):
            raise  # the caller knows what brings it
        misuse = hasattr(exc, "format_message")
        line, code = (usage_line(exc), 2) if misuse else (_failure_line(exc), 1)
    else:
        _leave(code)
    print_error(f"error: {line}")
    _leave(code)
