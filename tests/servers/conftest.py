"""The servers that are put in front of the embedded model: real programs, on loopback only.

Plain ``pytest`` does not collect these tests: ``python -m nox -s servers`` runs them.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

import trio_minillm as llm

from ..support.local_model import missing

collect_ignore_glob = [] if os.environ.get("TRIO_MINILLM_SERVERS") else ["test_*.py"]

START = """
import sys, trio
from trio_minillm.local import open_local_server

async def main():
    async with open_local_server(context=1024, slots=4, tools=True) as server:
        print(server.base_url, server.model().api_key, server.name, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


class EmbeddedModel(NamedTuple):
    """The embedded model's server, which lives through all tests."""

    url: str
    key: str
    name: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def at(self, url: str) -> llm.Model:
        """The same model behind another program."""
        return llm.compatible(self.name, base_url=f"{url}/v1", server="llama.cpp", api_key=self.key)

    def anthropic_at(self, url: str) -> llm.Model:
        return llm.anthropic(self.name, base_url=url, api_key=self.key)


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedModel]:
    if reason := missing():
        pytest.skip(reason)
    import sys

    with subprocess.Popen(
        [sys.executable, "-c", START], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield EmbeddedModel(*process.stdout.readline().split())
        process.terminate()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment name no proxy but those of the test."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Certificates(NamedTuple):
    """Certificates of servers, each with its key in one file, and the authority to trust."""

    authority: Path
    good: Path
    """For localhost, 127.0.0.1 and model.test."""
    expired: Path
    wrong_host: Path
    unknown_authority: Path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    trustme = pytest.importorskip("trustme", reason="trustme is not installed")
    folder = tmp_path_factory.mktemp("tls")
    ours, theirs = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(str(folder / "ca.pem"))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    made = {
        "good": ours.issue_cert("localhost", "127.0.0.1", "model.test"),
        "expired": ours.issue_cert("127.0.0.1", not_after=yesterday),
        "wrong_host": ours.issue_cert("other.test"),
        "unknown_authority": theirs.issue_cert("127.0.0.1"),
    }
    for name, certificate in made.items():
        certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / f"{name}.pem"))
    return Certificates(folder / "ca.pem", *(folder / f"{name}.pem" for name in made))
