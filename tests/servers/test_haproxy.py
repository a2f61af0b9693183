"""haproxy in front of the embedded model: passing on, reloads, cuts, time limits, TLS, refusals."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

import trio_minillm as llm
from trio_minillm.local import open_local_server

from ..support.behind import (
    ONCE,
    PROMPT,
    answers,
    broken,
    falling_silent,
    kill,
    leaves_nothing_running,
    not_sent,
    refused,
)
from ..support.peers import hanging, serving
from ..support.programs import Program, free_port, needs, running

pytestmark = needs("haproxy", "apt-get install haproxy")

CONFIGURATION = """
global
  maxconn 200
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server {seconds}s
  retries 0
  {defaults}
frontend all
  bind 127.0.0.1:{port} {bind}
  {frontend}
  default_backend model
backend model
  server one 127.0.0.1:{upstream}
"""


@contextmanager
def haproxy(upstream: int, folder: Path, **more: object) -> Iterator[Program]:
    """haproxy in front of a port, with more in these parts of its configuration."""
    port = free_port()
    parts = {"seconds": 60, "defaults": "", "bind": "", "frontend": "", **more}
    written = CONFIGURATION.format(port=port, upstream=upstream, **parts)
    (folder / "haproxy.cfg").write_text(written)
    # Master and worker, so that SIGUSR2 reloads.
    with running("haproxy", "-W", "-f", "haproxy.cfg", port=port, folder=folder) as program:
        yield program


async def test_an_answer_comes_through(embedded, tmp_path: Path) -> None:
    with haproxy(embedded.port, tmp_path) as program:
        through = await answers(embedded.at(program.url))
        await answers(embedded.anthropic_at(program.url))
    assert through.content == (await answers(embedded.at(embedded.url))).content


async def test_compression_is_not_asked_for(embedded, tmp_path: Path) -> None:
    gzip = "compression algo gzip\n  compression type text/event-stream"
    with haproxy(embedded.port, tmp_path, defaults=gzip) as program:
        await answers(embedded.at(program.url))


async def test_a_reload_cuts_no_answer_and_fails_no_request(embedded, tmp_path: Path) -> None:
    with haproxy(embedded.port, tmp_path) as program:
        (old,) = program.children()
        model = embedded.at(program.url)
        async with llm.open_client(retry=ONCE) as client:
            await client.complete(model, PROMPT, max_tokens=2)  # leaves a connection
            async with client.stream(model, PROMPT, max_tokens=200) as stream:
                await stream.next_chunk()
                program.send(signal.SIGUSR2)
                with trio.fail_after(30):
                    while program.children() in ([old], []):
                        await trio.sleep(0.01)
                await trio.sleep(0.5)  # until the new process listens
                await client.complete(model, PROMPT, max_tokens=2)
                await stream.collect()
            assert stream.response.outcome is llm.Outcome.FINISHED
            for _ in range(3):
                await client.complete(model, PROMPT, max_tokens=2)


async def test_a_killed_process_cuts_the_answer(embedded, tmp_path: Path) -> None:
    with haproxy(embedded.port, tmp_path) as program:
        await broken(embedded.at(program.url), program.kill, llm.ConnectionCut)
        await not_sent(embedded.at(program.url), "(?i)refused|reset|attempts")


async def test_a_model_that_dies_cuts_the_answer(tmp_path: Path) -> None:
    async with open_local_server(context=1024, slots=1) as server:
        port = int(server.base_url.rpartition(":")[2])
        with haproxy(port, tmp_path) as program:
            model = llm.compatible(
                "m", base_url=f"{program.url}/v1", api_key=server.model().api_key
            )
            await broken(model, lambda: kill(server.pid), llm.ConnectionCut)
            await refused(model, 503, "overloaded", attempts=2)


async def test_a_stream_that_is_left_is_not_generated_further(embedded, tmp_path: Path) -> None:
    with haproxy(embedded.port, tmp_path, defaults="option abortonclose") as program:
        await leaves_nothing_running(embedded.at(program.url), embedded.url, embedded.key)


async def test_silence_before_the_answer_is_a_504(embedded, tmp_path: Path) -> None:
    async with serving(hanging) as upstream:
        with haproxy(upstream.port, tmp_path, seconds=1) as program:
            await refused(embedded.at(program.url), 504, "timeout", attempts=2)


async def test_silence_inside_the_answer_cuts_it(embedded, tmp_path: Path) -> None:
    async with serving(falling_silent) as upstream:
        with haproxy(upstream.port, tmp_path, seconds=1) as program:
            await broken(embedded.at(program.url), lambda: None, llm.ConnectionCut)


async def test_a_rate_limit_is_tried_again(embedded, tmp_path: Path) -> None:
    limited = "http-request deny deny_status 429"
    with haproxy(embedded.port, tmp_path, frontend=limited) as program:
        await refused(embedded.at(program.url), 429, "rate_limit", attempts=2)


@pytest.mark.parametrize("alpn", ["", "alpn h2,http/1.1"])
async def test_it_is_asked_over_tls(
    certificates, embedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alpn: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    with haproxy(embedded.port, tmp_path, bind=f"ssl crt {certificates.good} {alpn}") as program:
        await answers(embedded.at(program.url.replace("http:", "https:")))


async def test_an_expired_certificate_is_named(
    certificates, embedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    with haproxy(embedded.port, tmp_path, bind=f"ssl crt {certificates.expired}") as program:
        await not_sent(embedded.at(program.url.replace("http:", "https:")), "(?i)expired")
