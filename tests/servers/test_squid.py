"""squid as the proxy of the environment, plain and by tunnel, between the client and the model.

The model has a name that only squid can look up: what comes through did not go past it.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import trio_minillm as llm

from ..support.behind import (
    ONCE,
    PROMPT,
    answers,
    broken,
    leaves_nothing_running,
    not_sent,
    refused,
)
from ..support.nginx import nginx, tls
from ..support.programs import Program, free_port, needs, running

pytestmark = [needs("squid", "apt-get install squid"), needs("nginx", "for TLS behind it")]

HELPER = Path("/usr/lib/squid/basic_ncsa_auth")
CONFIGURATION = """
http_port 127.0.0.1:{port}
{more}
acl SSL_ports port 1-65535
http_access allow all
hosts_file {folder}/hosts
dns_nameservers 127.0.0.1
cache deny all
access_log stdio:{folder}/access.log squid
cache_log {folder}/cache.log
pid_filename {folder}/squid.pid
coredump_dir {folder}
shutdown_lifetime 1 seconds
pinger_enable off
"""


@contextmanager
def squid(folder: Path, more: str = "") -> Iterator[Program]:
    port = free_port()
    (folder / "hosts").write_text("127.0.0.1 model.test\n")
    written = CONFIGURATION.format(port=port, folder=folder, more=more)
    (folder / "squid.conf").write_text(written)
    service = f"minillm{port}"  # names its shared memory, which it leaves there if it is killed
    command = ("squid", "-N", "-n", service, "-f", str(folder / "squid.conf"))
    try:
        with running(*command, port=port, folder=folder) as program:
            yield program
    finally:
        for left in Path("/dev/shm").glob(f"{service}-*"):
            left.unlink()


def asked(folder: Path) -> list[str]:
    """Return the requests that squid has logged."""
    lines = (folder / "access.log").read_text().splitlines()
    named = (line.split()[5:7] for line in lines)
    return [" ".join(words) for words in named if words[0] != "-"]  # not of the wait for its port


@pytest.fixture
def folder(certificates, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for squid, which gives up the rights of root if it has them."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o777)
        yield Path(made)


@pytest.mark.filterwarnings("ignore:the API key is sent to model.test unencrypted")
@pytest.mark.parametrize("scheme", ["http", "https"])
class TestThroughIt:
    """The same for both ways through a proxy: forwarded, and in a tunnel."""

    @contextmanager
    def model(self, scheme, embedded, folder, certificates, monkeypatch, more="", user=""):
        """The model behind squid, and squid; over TLS it is behind nginx as well."""
        behind = folder / "nginx"
        behind.mkdir()
        with nginx(embedded.port, behind, **tls(certificates.good)) as secure:
            with squid(folder, more) as program:
                proxy = program.url.replace("//", f"//{user}")
                monkeypatch.setenv(f"{scheme}_proxy", proxy)
                port = secure.port if scheme == "https" else embedded.port
                yield embedded.at(f"{scheme}://model.test:{port}"), program

    async def test_an_answer_comes_through(
        self, scheme, embedded, folder, certificates, monkeypatch
    ) -> None:
        with self.model(scheme, embedded, folder, certificates, monkeypatch) as (model, _):
            await answers(model)
        assert all("model.test" in line for line in asked(folder))
        assert asked(folder)[0].startswith("CONNECT" if scheme == "https" else "POST")

    async def test_a_killed_proxy_cuts_the_answer(
        self, scheme, embedded, folder, certificates, monkeypatch
    ) -> None:
        with self.model(scheme, embedded, folder, certificates, monkeypatch) as (model, program):
            await broken(model, program.kill, llm.ConnectionCut)
            await not_sent(model, rf"the proxy .*{program.port}.*from {scheme}_proxy")

    async def test_a_stream_that_is_left_is_not_generated_further(
        self, scheme, embedded, folder, certificates, monkeypatch
    ) -> None:
        with self.model(scheme, embedded, folder, certificates, monkeypatch) as (model, _):
            await leaves_nothing_running(model, embedded.url, embedded.key)

    async def test_what_it_denies_is_refused_once(
        self, scheme, embedded, folder, certificates, monkeypatch
    ) -> None:
        more = "http_access deny all"
        with self.model(scheme, embedded, folder, certificates, monkeypatch, more) as (model, _):
            await refused(model, 403, "auth", attempts=1)

    @pytest.mark.skipif(not HELPER.exists(), reason="squid's helper for passwords is missing")
    @pytest.mark.parametrize("password", ["right", "s3cret"])
    async def test_its_password(
        self, scheme, embedded, folder, certificates, monkeypatch, password
    ) -> None:
        hashed = subprocess.run(
            ["openssl", "passwd", "-apr1", "right"], capture_output=True, text=True, check=True
        ).stdout
        (folder / "users").write_text(f"me:{hashed}")
        more = f"auth_param basic program {HELPER} {folder}/users\nacl known proxy_auth REQUIRED\nhttp_access deny !known"
        user = f"me:{password}@"
        with self.model(scheme, embedded, folder, certificates, monkeypatch, more, user=user) as (
            model,
            _,
        ):
            if password == "right":
                await answers(model)
            else:
                error = await refused(model, 407, "auth", attempts=1)
                assert password not in str(error)

    async def test_a_server_that_is_not_there(
        self, scheme, embedded, folder, certificates, monkeypatch
    ) -> None:
        with self.model(scheme, embedded, folder, certificates, monkeypatch):
            nobody = embedded.at(f"{scheme}://model.test:{free_port()}")
            await refused(nobody, 503, "overloaded", attempts=2)

    async def test_this_machine_and_exceptions_are_asked_without(
        self, scheme, embedded, folder, certificates, monkeypatch
    ) -> None:
        monkeypatch.setenv("no_proxy", "model.test")
        with self.model(scheme, embedded, folder, certificates, monkeypatch) as (model, _):
            await answers(embedded.at(embedded.url))
            async with llm.open_client(retry=ONCE) as client:
                with pytest.raises(llm.SendError):  # nobody else knows the name
                    await client.complete(model, PROMPT)
        assert asked(folder) == []
