"""The command ``trio-minillm``: its subcommands, and the one line that a bug comes out as."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option
from typer.core import TyperCommand

import trio_minillm as llm

from ..local._named import KEYS, variable_of
from ._batch import batch
from ._bench import HEADINGS, bench
from ._chat import chat
from ._compare import compare
from ._costs import costs
from ._foreign_options import NAMES_HERE
from ._output import EXIT_CODES
from ._report import report
from ._serve import serve
from ._terminal import say


def _keys_text() -> str:
    """Return a line for each kind with the variable of its key, and of that at another server."""
    lines = [f"  {variable:<22}{kind}:…\n" for kind, variable in KEYS.items()]
    for kind, variable in KEYS.items():
        if (other := variable_of(kind, "a base URL")) != variable:
            lines.append(f"  {other:<22}{kind}:… with --base-url\n")
    return "".join(lines)


_EPILOG = "\b\nKeys come from the environment:\n" + _keys_text()
_EPILOG += "\n\b\nExit codes:\n" + "".join(f"  {n:>3}  {what}\n" for n, what in EXIT_CODES.items())


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trio-minillm {llm.__version__}")
        raise typer.Exit


class _Command(TyperCommand):
    """A command whose errors name a wrong value without the words of what checks it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as exc:
            exc.message = exc.message.removeprefix("Value error, ")  # pydantic's
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


def _root(
    version: Annotated[
        bool, Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Stream answers of language models, and see how they ended and what they cost."""


def main() -> None:
    """Run the command. Ends in ``SystemExit`` with one of `EXIT_CODES`."""
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,  # they show locals, and those hold keys
        rich_markup_mode=None,  # prompts and model names in usage errors are no markup
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(epilog=_EPILOG)(_root)
    app.command(cls=_Command, epilog=_EPILOG)(chat)
    app.command(cls=_BenchCommand, epilog=_EPILOG)(bench)
    app.command(cls=_Command, epilog=_EPILOG)(batch)
    app.command(cls=_Command)(report)
    app.command(cls=_Command)(compare)
    app.command(cls=_Command)(costs)
    app.command(cls=_Command)(serve)
    try:
        app(prog_name="trio-minillm")
    except Exception as exc:  # noqa: BLE001 - a bug: show its place, for its message may be secret
        frames = traceback.extract_tb(exc.__traceback__)
        while isinstance(exc, ExceptionGroup):
            exc = exc.exceptions[0]
            frames = traceback.extract_tb(exc.__traceback__) or frames
        place = frames[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        say(f"error: a bug in trio-minillm: {type(exc).__name__} at {where}\n")
        raise SystemExit(1) from None
