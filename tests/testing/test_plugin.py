"""The pytest plugin, in pytest runs of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from ..support.paths import REPOSITORY as ROOT
from ..support.paths import doc

PLUGIN = ROOT / "trio_minillm" / "testing" / "_plugin.py"
INSTALLED = [e for e in entry_points(group="pytest11") if e.name == "trio_minillm"]

PAGE = doc("testing.md")
IN_MEMORY = PAGE.read_text().partition("```python\n")[2].partition("```")[0]
"""First example on the page: a program and its test."""

ON_A_SOCKET = """
import httpx, json

async def test_any_client(llm_server):
    async with httpx.AsyncClient() as client:
        asked = {"messages": [], "stream": True}
        response = await client.post(f"{llm_server.base_url}/chat/completions", json=asked)
    assert '"ok"' in response.text
    assert llm_server.bodies == [asked]
"""

LEAKY = """
import httpx

async def test_leak(llm_script):
    await llm_script.handle_async_request(httpx.Request("POST", "http://x/"))
"""


def run(folder: Path, test: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on one file, with the plugin as it is installed."""
    folder.joinpath("test_it.py").write_text(test)
    folder.joinpath("pytest.ini").write_text("[pytest]\n")  # or it takes ours, if that lies above
    if not INSTALLED:  # a checkout: in its place by hand
        folder.joinpath("pytest_trio_minillm.py").write_text(PLUGIN.read_text())
        options = ("-p", "pytest_trio_minillm", *options)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "test_it.py"],
        cwd=folder,
        env={**env, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("test", [IN_MEMORY, ON_A_SOCKET], ids=["memory", "socket"])
@pytest.mark.parametrize("mode", ["trio_mode", "marked", "anyio"])
def test_users_test_their_program(test, mode, tmp_path):
    options = ["-W", "error"]
    if mode == "trio_mode":
        options += ["-o", "trio_mode=true"]
    else:
        mark = "trio" if mode == "marked" else "anyio"
        test = f"import pytest\npytestmark = pytest.mark.{mark}\n{test}"
    if mode == "anyio":
        backend = "@pytest.fixture\ndef anyio_backend():\n    return 'trio'\n"
        test = test.replace(f"pytest.mark.{mark}\n", f"pytest.mark.{mark}\n{backend}")
        options += ["-p", "no:pytest_trio", "-p", "no:trio"]
    done = run(tmp_path, test, *options)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_a_response_that_is_left_open_fails_the_test(tmp_path):
    done = run(tmp_path, LEAKY, "-o", "trio_mode=true")
    assert "1 responses were not closed" in done.stdout


def test_who_does_not_use_it_does_not_pay_for_it(tmp_path):
    test = """
import sys

def test_nothing():
    assert "pytest_trio_minillm" in sys.modules
    assert not {"trio_minillm", "httpx", "msgspec"} & set(sys.modules)
"""
    options = ("-p", "no:trio", "-p", "no:anyio", "-p", "no:hypothesispytest")
    done = run(tmp_path, test, *options)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_fixtures_say_what_they_are(tmp_path):
    done = run(tmp_path, "", "--fixtures")
    fixtures = ("llm_script", "llm_model", "llm_client", "llm_server")
    for name in fixtures:
        assert f"{name} --" in done.stdout
        assert f"\n| `{name}` |" in PAGE.read_text()
