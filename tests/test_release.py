"""A release: the changelog's section, the tag, and what keeps one from being made."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from datetime import date
from importlib.metadata import metadata
from pathlib import Path
from types import ModuleType

import pytest

from trio_minillm import __version__

from .support.paths import REPOSITORY

CHANGES = "# Changelog\n\n## 0.2.0 (unreleased)\n\n- New.\n\n## 0.1.0 (2026-01-02)\n\n- Old.\n"


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", REPOSITORY / ".ci" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


release = loaded()


def test_a_section_is_found_and_dated() -> None:
    assert release.section(CHANGES, "0.2.0") == ("unreleased", "- New.\n")
    assert release.section(CHANGES, "0.1.0") == ("2026-01-02", "- Old.\n")
    text = release.dated(CHANGES, "0.2.0", date(2026, 12, 1))
    assert text == CHANGES.replace("(unreleased)", "(2026-12-01)")


@pytest.mark.parametrize(
    ("text", "version", "reason"),
    [
        (CHANGES, "0.3.0", "0 sections"),
        (CHANGES, "0.1.0", "was released: 2026-01-02"),
        (CHANGES + CHANGES, "0.2.0", "2 sections"),
        (CHANGES.replace("- New.\n", ""), "0.2.0", "is empty"),
        (CHANGES, "0x2.0", "0 sections"),
    ],
)
def test_what_can_not_be_released_is_refused(text: str, version: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        release.dated(text, version, date(2026, 12, 1))


def test_the_version_of_the_code_has_a_section() -> None:
    source = (REPOSITORY / "trio_minillm" / "_version.py").read_text(encoding="utf-8")
    assert release.version_in(source) == __version__
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert release.section(changelog, __version__)[1]


def test_the_list_of_parts_gets_the_version() -> None:
    parts = '{"metadata": {"component": {"name": "trio-minillm"}}, "components": []}'
    found = json.loads(release.with_version(parts, "0.2.0"))
    assert found["metadata"]["component"] == {"name": "trio-minillm", "version": "0.2.0"}


def test_the_page_on_an_index_has_whole_addresses() -> None:
    """Which has no folder beside it, as README.md has."""
    page = metadata("trio-minillm").get_payload()
    targets = re.findall(r"\]\(([^)]+)\)", page)
    assert f"https://github.com/trio-minillm/trio-minillm/blob/v{__version__}/LICENSE" in targets
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page)
    assert pictures
    assert all(picture.startswith("https://raw.") for picture in pictures)
    assert all(target.startswith(("https://", "#")) for target in targets)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "Someone")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "someone@example.org")
    Path("trio_minillm").mkdir()
    Path("trio_minillm/_version.py").write_text('__version__ = "0.2.0"\n')
    Path("CHANGELOG.md").write_text(CHANGES)
    git("init", "--quiet", "--initial-branch=main")
    git("add", "--all")
    git("commit", "--quiet", "--message", "Begin")
    return tmp_path


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_release_is_a_commit_of_the_changelog_and_a_tag(repository: Path) -> None:
    assert release.main(["check"]) == 0
    assert release.main(["notes", "notes.md"]) == 0
    assert Path("notes.md").read_text() == "- New.\n"
    Path("notes.md").unlink()
    assert release.main(["tag"]) == 0
    assert git("tag", "--list") == "v0.2.0"
    assert git("log", "-1", "--format=%s") == "Release 0.2.0"
    assert git("diff", "--name-only", "HEAD~") == "CHANGELOG.md"
    assert "(unreleased)" not in Path("CHANGELOG.md").read_text()


@pytest.mark.parametrize("hindrance", ["a change", "another branch", "the tag"])
def test_a_release_is_not_made_from_just_anywhere(
    repository: Path, hindrance: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if hindrance == "a change":
        Path("new.py").touch()
    elif hindrance == "another branch":
        git("switch", "--quiet", "--create", "topic")
    else:
        git("tag", "v0.2.0")
    before = git("rev-parse", "HEAD")
    assert release.main(["tag"]) == 1
    reasons = {"a change": "new.py", "another branch": "topic", "the tag": "v0.2.0 exists"}
    assert reasons[hindrance] in capsys.readouterr().err
    assert git("rev-parse", "HEAD") == before
    assert Path("CHANGELOG.md").read_text() == CHANGES
