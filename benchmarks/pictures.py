"""Draw the pictures of terminals in ``docs/pictures/`` from real runs, with the local model.

    python benchmarks/pictures.py              all of them
    python benchmarks/pictures.py chat bench   some

Each command runs in a pseudo-terminal. pyte keeps the screen as a terminal would show it, and rich makes an
SVG of it. The SVG names the reader's own fonts, so that it loads nothing from elsewhere. Numbers differ from
run to run; the pictures are evidence of one, not a test.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pyte
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.style import Style
from rich.text import Text

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "pictures"
COLUMNS, ROWS = 104, 60
TOPICS = (
    "the sea", "the sky", "snow", "cats", "leaves", "bread", "stars", "rivers", "bees", "glass",
    "rain", "clocks", "salt", "wind", "moss", "sand", "owls", "rust", "tides", "ice",
)  # fmt: skip
FORMAT = re.sub(r"(?s)<!--.*?-->|@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT).replace(
    "font-family: Fira Code, monospace",
    "font-family: ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace",
)


class Picture(NamedTuple):
    """A command to run, and the moment at which its screen is drawn."""

    command: str
    moment: Callable[[str], bool] | None = None
    """True for the text of the screen to draw; without it, the last one is drawn."""


def half_done(text: str) -> bool:
    found = re.search(r"(\d+)% ", text)
    return found is not None and int(found[1]) >= 50


PICTURES = {
    "chat": Picture(
        "chat 'Why is the sea salty? Answer in one short sentence.' -m local --temperature 0"
    ),
    "batch": Picture("batch in.jsonl out.jsonl -m local", half_done),
    "bench": Picture("bench -m local --requests 40 --concurrency 4 --max-tokens 32"),
}


class Screen(pyte.Screen):
    """A terminal that shows dim text as bright black, since pyte knows no dim."""

    def select_graphic_rendition(self, *attrs: int, **how: Any) -> None:
        super().select_graphic_rendition(*(90 if attr == 2 else attr for attr in attrs), **how)


def run(picture: Picture, folder: str) -> Text:
    """Run the command in a terminal, and return what it shows at the moment."""
    words = shlex.split(picture.command)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    screen = Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    stream.feed(f"\x1b[1m$ trio-minillm {picture.command}\x1b[0m\r\n".encode())
    drawn = None
    process = subprocess.Popen(
        [sys.executable, "-m", "trio_minillm.cli", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env={**os.environ, "TERM": "xterm-256color", "COLORTERM": ""},
        start_new_session=True,
    )
    os.close(theirs)
    while data := read(ours):
        stream.feed(data)
        if drawn is None and picture.moment and picture.moment("\n".join(screen.display)):
            drawn = text_of(screen)
    os.close(ours)
    if process.wait() != 0:
        sys.exit(
            f"{picture.command} ended with {process.returncode}:\n" + "\n".join(screen.display)
        )
    return drawn or text_of(screen)


def read(terminal: int) -> bytes:
    """Return what was written to the terminal, ``b""`` once nobody has it open."""
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says EIO
        return b""


def text_of(screen: pyte.Screen) -> Text:
    """Return the screen's lines, without the empty ones below the last."""
    lines = []
    for row in range(screen.lines):
        line = Text()
        cells = (screen.buffer[row][column] for column in range(screen.columns))
        for (color, bold), same in groupby(cells, key=lambda cell: (cell.fg, cell.bold)):
            line.append(
                "".join(cell.data for cell in same), Style(color=color_of(color), bold=bold)
            )
        line.rstrip()
        lines.append(line)
    while lines and not lines[-1]:
        lines.pop()
    return Text("\n").join(lines)


def color_of(name: str) -> str | None:
    """Return rich's name of a colour of pyte's."""
    if name == "default":
        return None
    if re.fullmatch("[0-9a-f]{6}", name):
        return f"#{name}"
    name = name.replace("brown", "yellow")
    return f"bright_{name.removeprefix('bright')}" if name.startswith("bright") else name


def draw(name: str, text: Text) -> None:
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(text, soft_wrap=True)
    FOLDER.mkdir(exist_ok=True)
    svg = console.export_svg(title="", code_format=FORMAT, unique_id=name)
    lines = [line.rstrip() for line in svg.splitlines() if line.strip()]
    (FOLDER / f"{name}.svg").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    for name in sys.argv[1:] or PICTURES:
        with tempfile.TemporaryDirectory() as folder:
            lines = [
                json.dumps({"key": t, "prompt": f"Say something about {t}.", "max_tokens": 32})
                for t in TOPICS
            ]
            Path(folder, "in.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
            draw(name, run(PICTURES[name], folder))
        print(FOLDER / f"{name}.svg")


if __name__ == "__main__":
    main()
