"""Fuzz: ``python tests/fuzz/run.py [--runs 1000000] [--jobs 2] [--target answer …]``.

Coverage-guided, by atheris (libFuzzer), with the changes of `mutate` and libFuzzer's own. What it
finds is written to ``crash-…`` in the folder ``--out``, and ``--replay FILE`` shows it again, without
atheris. Its work is kept nowhere else: the seeds are made in code.
"""

from __future__ import annotations

import argparse
import atexit
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1]))

SHARES = {"answer": 0.4, "http": 0.2, "refusal": 0.2, "request": 0.2}
"""Share of the runs that each target gets."""
SLOW_SECONDS = 5
"""An input that takes longer is a fault."""
MEMORY_MB = 768
"""A process that takes more is a fault; the corpus and libFuzzer's tables are in it."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs in all")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--target", action="append", choices=SHARES, help="only these")
    parser.add_argument("--seed", type=int, default=None, help="to see a run again")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--replay", type=Path, help="run one input and show what it does")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def fuzz(target: str, runs: int, seed: int, out: Path) -> None:
    """One process of libFuzzer; it does not return."""
    import atheris  # type: ignore[import-not-found,unused-ignore]

    with atheris.instrument_imports(include=["trio_minillm"]):
        from fuzz import mutate, targets

        from trio_minillm._protocol import sse as _sse
    _sse.QUICK_BYTES = targets.HELD
    check = targets.TARGETS[target]
    folder = Path(tempfile.mkdtemp(prefix="corpus-", dir=out))
    for number, body in enumerate(mutate.seeds(target)):
        (folder / f"{number:04}").write_bytes(body)

    def change(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.3:
            return bytes(atheris.Mutate(data, most))
        return mutate.mutated(target, data, rng)[:most]

    options = {
        "atheris_runs": runs,
        "seed": seed,
        "max_len": mutate.MAX_BODY + targets.HEAD,
        "timeout": SLOW_SECONDS,
        "rss_limit_mb": MEMORY_MB,
        "artifact_prefix": f"{out}/{target}-",
        "print_final_stats": 1,
        "verbosity": 0,
    }
    argv = [sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(folder)]
    # libFuzzer's alarm would otherwise hit the interpreter while it shuts down.
    atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)
    atheris.Setup(argv, check, custom_mutator=change)
    atheris.Fuzz()


def replay(path: Path) -> None:
    from fuzz import targets

    from trio_minillm._protocol import sse as _sse

    _sse.QUICK_BYTES = targets.HELD
    target = path.name.partition("-")[0]
    targets.TARGETS[target](path.read_bytes())
    print(f"{path}: {target} holds")


def main() -> int:
    given = arguments()
    if given.replay:
        replay(given.replay)
        return 0
    try:
        import atheris  # noqa: F401
    except ImportError:
        sys.exit("atheris is missing: python -m pip install atheris (or: python -m nox -s fuzz)")
    given.out.mkdir(parents=True, exist_ok=True)
    names = given.target or list(SHARES)
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(2**31)
    if given.worker:
        fuzz(names[0], given.runs, seed, given.out)
    return supervise(names, given, seed)


def supervise(names: list[str], given: argparse.Namespace, seed: int) -> int:
    """Every target in as many processes as jobs, that many at once; the longest first."""
    total = sum(SHARES[name] for name in names)
    waiting: list[tuple[str, int]] = []
    for name in names:
        runs = int(given.runs * SHARES[name] / total)
        waiting += [(name, runs // given.jobs)] * given.jobs
    running: list[tuple[str, int, subprocess.Popen[bytes]]] = []
    failed, began = [], time.monotonic()
    while waiting or running:
        while waiting and len(running) < given.jobs:
            (name, runs), seed = waiting.pop(0), seed + 1
            log = given.out / f"{name}-{seed}.log"
            command = [sys.executable, str(HERE), "--worker", "--target", name]
            command += ["--runs", str(runs), "--seed", str(seed), "--out", str(given.out)]
            with log.open("wb") as out:
                process = subprocess.Popen(command, stdout=out, stderr=out)
            running.append((name, seed, process))
        time.sleep(0.2)
        for one in [r for r in running if r[2].poll() is not None]:
            running.remove(one)
            name, number, process = one
            spent = time.monotonic() - began
            print(f"{spent:6.0f} s  {name} (seed {number}): {_verdict(process)}", flush=True)
            if process.returncode:
                failed.append(given.out / f"{name}-{number}.log")
    for log in failed:
        print(f"\n== {log}\n{log.read_text(errors='replace')[-4000:]}")
    print(f"{given.runs:,} inputs in {time.monotonic() - began:.0f} s, {len(failed)} faults")
    return 1 if failed else 0


def _verdict(process: subprocess.Popen[bytes]) -> str:
    return "holds" if process.returncode == 0 else f"FAILED ({process.returncode})"


if __name__ == "__main__":
    sys.exit(main())
