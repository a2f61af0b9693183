"""Three seconds of the soak; ``python -m nox -s soak`` runs it for five minutes."""

from __future__ import annotations

import os
import subprocess
import sys

from .support.paths import BENCHMARKS
from .support.wires import FORMATS

SOAK = BENCHMARKS / "soak.py"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(SOAK), *options]
    # Its files import each other, from the folder of the script.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=env
    )


def test_every_outcome_is_as_scripted_and_nothing_is_left() -> None:
    done = run("--seconds", "3", "--streams", "30", "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 with another outcome" in done.stdout
    assert "finished" in done.stdout
    assert all(f"on {wire}" in done.stdout for wire in FORMATS)
