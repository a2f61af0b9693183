"""nginx in front of the embedded model: passing on, buffering, reloads, cuts, TLS, and refusals."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
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
from ..support.nginx import nginx, tls
from ..support.peers import hanging, serving
from ..support.programs import Program, free_port, needs

pytestmark = needs("nginx", "apt-get install nginx-light")


@pytest.mark.parametrize(
    "location",
    [
        "",
        "proxy_buffering off;",
        "proxy_buffer_size 1k; proxy_buffers 4 1k; proxy_busy_buffers_size 2k;",
    ],
)
async def test_an_answer_comes_through(embedded, tmp_path: Path, location: str) -> None:
    with nginx(embedded.port, tmp_path, location=location) as program:
        through = await answers(embedded.at(program.url))
        await answers(embedded.anthropic_at(program.url))
    assert through.content == (await answers(embedded.at(embedded.url))).content


@pytest.mark.parametrize("asked", [False, True])
async def test_compression_is_not_asked_for_but_understood(
    embedded, tmp_path: Path, asked: bool
) -> None:
    gzip = "gzip on; gzip_types *; gzip_proxied any; gzip_min_length 1;"
    headers = {"accept-encoding": "gzip"} if asked else {}
    with nginx(embedded.port, tmp_path, http=gzip) as program:
        async with llm.open_client(retry=ONCE) as client:
            model = embedded.at(program.url)
            async with client.stream(model, PROMPT, max_tokens=20, headers=headers) as stream:
                await stream.collect()
    assert stream.response.outcome is llm.Outcome.FINISHED
    assert (stream.headers.get("content-encoding") == "gzip") == asked


async def test_a_reload_cuts_no_answer_and_fails_no_request(embedded, tmp_path: Path) -> None:
    with nginx(embedded.port, tmp_path, location="proxy_buffering off;") as program:
        (old,) = program.children()
        model = embedded.at(program.url)
        async with llm.open_client(retry=ONCE) as client:
            await client.complete(model, PROMPT, max_tokens=2)  # leaves a connection
            async with client.stream(model, PROMPT, max_tokens=200) as stream:
                await stream.next_chunk()
                program.send(signal.SIGHUP)
                with trio.fail_after(30):
                    while program.children() in ([old], []):
                        await trio.sleep(0.01)
                await client.complete(model, PROMPT, max_tokens=2)
                await stream.collect()
            assert stream.response.outcome is llm.Outcome.FINISHED
            assert stream.response.usage.completion_tokens > 100
            with trio.fail_after(30):
                while old in program.children():
                    await trio.sleep(0.01)
            for _ in range(3):  # on connections that the old process has closed
                await client.complete(model, PROMPT, max_tokens=2)


async def test_a_killed_worker_cuts_the_answer(embedded, tmp_path: Path) -> None:
    with nginx(embedded.port, tmp_path, location="proxy_buffering off;") as program:
        model = embedded.at(program.url)
        await broken(model, lambda: kill(program.children()[0]), llm.ConnectionCut)
        await answers(model)  # there is another one


@pytest.mark.parametrize("buffering", ["on", "off"])
async def test_a_model_that_dies_cuts_the_answer(tmp_path: Path, buffering: str) -> None:
    async with open_local_server(context=1024, slots=1) as server:
        port = int(server.base_url.rpartition(":")[2])
        location = f"proxy_buffering {buffering};"
        with nginx(port, tmp_path, location=location) as program:
            model = llm.compatible(
                "m", base_url=f"{program.url}/v1", api_key=server.model().api_key
            )
            await broken(model, lambda: kill(server.pid), llm.ConnectionCut)
            await refused(model, 502, "server", attempts=2)


async def test_a_stream_that_is_left_is_not_generated_further(embedded, tmp_path: Path) -> None:
    with nginx(embedded.port, tmp_path) as program:
        await leaves_nothing_running(embedded.at(program.url), embedded.url, embedded.key)


async def test_nobody_behind_it_is_a_502(embedded, tmp_path: Path) -> None:
    with nginx(free_port(), tmp_path) as program:
        error = await refused(embedded.at(program.url), 502, "server", attempts=2)
    assert "502 Bad Gateway" in str(error)


async def test_silence_before_the_answer_is_a_504(embedded, tmp_path: Path) -> None:
    async with serving(hanging) as upstream:
        with nginx(upstream.port, tmp_path, location="proxy_read_timeout 1s;") as program:
            await refused(embedded.at(program.url), 504, "timeout", attempts=2)


async def test_silence_inside_the_answer_cuts_it(embedded, tmp_path: Path) -> None:
    async with serving(falling_silent) as upstream:
        location = "proxy_read_timeout 1s; proxy_buffering off;"
        with nginx(upstream.port, tmp_path, location=location) as program:
            partial = await broken(embedded.at(program.url), lambda: None, llm.ConnectionCut)
    assert partial.outcome is llm.Outcome.TRUNCATED


async def test_what_is_too_large_is_not_tried_again(embedded, tmp_path: Path) -> None:
    with nginx(embedded.port, tmp_path, server="client_max_body_size 1k;") as program:
        await refused(embedded.at(program.url), 413, "invalid", attempts=1, prompt="x" * 2_000_000)


async def test_a_rate_limit_is_tried_again(embedded, tmp_path: Path) -> None:
    parts = {
        "http": "limit_req_zone $binary_remote_addr zone=all:1m rate=1r/m; limit_req_status 429;",
        "location": "limit_req zone=all;",
    }
    with nginx(embedded.port, tmp_path, **parts) as program:
        async with llm.open_client(retry=ONCE) as client:
            await client.complete(embedded.at(program.url), PROMPT, max_tokens=2)
        await refused(embedded.at(program.url), 429, "rate_limit", attempts=2)


# -- TLS -----------------------------------------------------------------------------------------


def secure(program: Program) -> str:
    return program.url.replace("http:", "https:")


@pytest.fixture
def trusted(certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))


async def test_it_is_asked_over_tls(trusted, certificates, embedded, tmp_path: Path) -> None:
    with nginx(embedded.port, tmp_path, **tls(certificates.good)) as program:
        await answers(embedded.at(secure(program)))


@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        ("expired", "(?i)expired"),
        ("wrong_host", "(?i)wrong host name|mismatch"),
        ("unknown_authority", "(?i)unknown authority|unable to get local issuer"),
    ],
)
async def test_a_certificate_that_is_not_accepted_is_named(
    trusted, certificates, embedded, tmp_path: Path, certificate: str, words: str
) -> None:
    with nginx(embedded.port, tmp_path, **tls(getattr(certificates, certificate))) as program:
        await not_sent(embedded.at(secure(program)), words)


async def test_plain_http_where_tls_is_spoken_is_refused(
    trusted, certificates, embedded, tmp_path: Path
) -> None:
    with nginx(embedded.port, tmp_path, **{**tls(certificates.good), "listen": "ssl"}) as program:
        error = await refused(embedded.at(program.url), 400, "invalid", attempts=1)
    assert "plain HTTP request was sent to HTTPS port" in str(error)


async def test_tls_where_none_is_spoken_is_named(embedded, tmp_path: Path) -> None:
    with nginx(embedded.port, tmp_path) as program:
        await not_sent(embedded.at(secure(program)), "(?i)TLS|SSL")


async def test_http2_of_a_client_is_refused(
    trusted, certificates, embedded, tmp_path: Path
) -> None:
    with nginx(embedded.port, tmp_path, **tls(certificates.good)) as program:
        async with httpx.AsyncClient(http2=True, trust_env=True) as http:
            async with llm.open_client(http_client=http, retry=ONCE) as client:
                with pytest.raises(llm.SendError, match="HTTP/2"):
                    await client.complete(embedded.at(secure(program)), PROMPT)


async def test_an_idle_connection_that_it_has_closed_is_replaced(embedded, tmp_path: Path) -> None:
    with nginx(embedded.port, tmp_path, http="keepalive_timeout 1s;") as program:
        async with llm.open_client(retry=ONCE) as client:
            for _ in range(2):
                await client.complete(embedded.at(program.url), PROMPT, max_tokens=2)
                await trio.sleep(1.5)
