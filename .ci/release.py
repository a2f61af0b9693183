"""What a release changes in the repository, and what is checked before: see `nox -s release`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

CHANGELOG = Path("CHANGELOG.md")
VERSION = Path("trio_minillm", "_version.py")
UNRELEASED = "unreleased"


def version_in(source: str) -> str:
    """Return the version that a ``_version.py`` names."""
    (found,) = re.findall(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    return str(found)


def section(changelog: str, version: str) -> tuple[str, str]:
    """Return what stands in parentheses in the heading of a version, and the text below it.

    Raises ``ValueError`` if the changelog has no such section, more than one, or nothing in it.
    """
    pattern = rf"(?ms)^## {re.escape(version)} \((.+?)\)\n(.*?)(?=^## |\Z)"
    found = re.findall(pattern, changelog)
    if len(found) != 1:
        raise ValueError(f"CHANGELOG.md has {len(found)} sections for version {version}")
    state, text = found[0]
    if not text.strip():
        raise ValueError(f"the section for version {version} in CHANGELOG.md is empty")
    return state, f"{text.strip()}\n"


def dated(changelog: str, version: str, day: date) -> str:
    """Return the changelog in which this version has been released on a day.

    Raises ``ValueError`` as `section` does, and if the version has been released already.
    """
    state, _ = section(changelog, version)
    if state != UNRELEASED:
        raise ValueError(f"version {version} was released: {state}")
    return changelog.replace(
        f"## {version} ({UNRELEASED})\n", f"## {version} ({day.isoformat()})\n"
    )


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def check(version: str) -> None:
    """Raise ``ValueError`` if the repository is not in a state from which to release."""
    if changed := git("status", "--porcelain"):
        raise ValueError(f"there are uncommitted changes:\n{changed}")
    if (branch := git("branch", "--show-current")) != "main":
        raise ValueError(f"releases are made on main, and this is {branch or 'no branch'}")
    if git("tag", "--list", f"v{version}"):
        raise ValueError(f"the tag v{version} exists")
    dated(CHANGELOG.read_text(encoding="utf-8"), version, date.min)


def with_version(parts: str, version: str) -> str:
    """Return a CycloneDX list of parts whose subject has this version: its maker finds none that is dynamic."""
    listed = json.loads(parts)
    listed["metadata"]["component"]["version"] = version
    return f"{json.dumps(listed, indent=2)}\n"


def main(arguments: Sequence[str]) -> int:
    """Run ``check``, ``notes FILE``, ``version FILE`` or ``tag``. Returns the exit code."""
    what, *rest = arguments
    version = version_in(VERSION.read_text(encoding="utf-8"))
    changelog = CHANGELOG.read_text(encoding="utf-8")
    try:
        if what == "check":
            check(version)
        elif what == "notes":
            Path(rest[0]).write_text(section(changelog, version)[1], encoding="utf-8")
        elif what == "version":
            parts = Path(rest[0])
            parts.write_text(with_version(parts.read_text("utf-8"), version), encoding="utf-8")
        else:
            check(version)
            text = dated(changelog, version, datetime.now(UTC).date())
            CHANGELOG.write_text(text, encoding="utf-8")
            git("commit", "--message", f"Release {version}", "--", str(CHANGELOG))
            git("tag", "--annotate", f"v{version}", "--message", f"trio-minillm {version}")
            print(f"made the tag v{version}: `git push origin main v{version}` publishes it")
    except ValueError as exc:
        print(f"release: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
