"""The TLS context of the transport: what httpx's would trust, verify and offer."""

from __future__ import annotations

import shutil
import ssl
from pathlib import Path

import httpx
import pytest

from trio_minillm._http.tls import create_context

from ..support.certificates import trusting
from ..support.paths import TLS_FILES


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"):
        monkeypatch.delenv(name, raising=False)


def described(context: ssl.SSLContext) -> dict[str, object]:
    names = ("options", "verify_mode", "verify_flags", "check_hostname", "keylog_filename")
    names += ("minimum_version", "maximum_version", "post_handshake_auth", "protocol")
    found: dict[str, object] = {name: getattr(context, name) for name in names}
    stored = (context.cert_store_stats(), sorted(map(repr, context.get_ca_certs())))
    return {**found, "stored": stored, "ciphers": context.get_ciphers()}


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"SSL_CERT_FILE": "ca.pem"},
        {"SSL_CERT_FILE": "ca.pem", "SSL_CERT_DIR": "."},
        {"SSL_CERT_DIR": "."},
        {"SSL_CERT_DIR": "nowhere"},
        {"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""},
        {"SSLKEYLOGFILE": "keys"},
    ],
    ids=str,
)
def test_the_context_is_that_of_httpx(
    verify: bool, settings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(TLS_FILES / "ca.pem", tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    ours, theirs = create_context(verify), httpx.create_ssl_context(verify=verify)
    assert described(ours) == described(theirs)


def test_who_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not create_context(False).get_ca_certs()
    assert len(create_context(True).get_ca_certs()) > 50
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS_FILES / "ca.pem"))
    assert len(create_context(True).get_ca_certs()) == 1


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_authorities_that_can_not_be_read(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    seen = []
    for create in (create_context, lambda verify: httpx.create_ssl_context(verify=verify)):
        with pytest.raises(OSError) as caught:
            create(True)
        seen.append((type(caught.value), caught.value.errno))
    assert seen[0] == seen[1]


def test_a_context_is_taken_as_it_is() -> None:
    assert create_context(trusting()) is trusting()
