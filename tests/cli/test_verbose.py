"""``--verbose``: what is shown of requests and responses, and what is not."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="needs the extra [cli]")
pytest.importorskip("rich", reason="needs the extra [cli]")

from ..support.command import COMMAND, KEY, LIMIT, environment, run
from ..support.endpoint import HELLO, Endpoint, ThreadedServer, begin

PROMPT = "a private prompt"


class Busy(ThreadedServer):
    """Refuses the first request, and answers the others."""

    def __init__(self) -> None:
        self.asked = 0
        super().__init__()

    def post(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        self.asked += 1
        if self.asked == 1:
            begin(
                request,
                429,
                retry_after_ms="1",
                x_request_id="req-1",
                set_cookie=f"k={KEY}",
                location="/x?of=nobody",
            )
            request.wfile.write(json.dumps({"error": {"message": f"{PROMPT} {KEY}"}}).encode())
        else:
            begin(request, 200, x_request_id="req-2")
            request.wfile.write(HELLO)


@pytest.fixture
def busy() -> Iterator[Busy]:
    with Busy() as made:
        yield made


def test_chat_shows_each_attempt_and_no_secret(busy: Busy) -> None:
    where = ["-m", "compatible:m", "--base-url", f"{busy.url}?token-of=nobody"]
    ran = run([*COMMAND, "chat", PROMPT, *where, "--verbose"])
    assert (ran.code, ran.out) == (0, "Hello.\n")
    assert PROMPT not in ran.err
    assert KEY not in ran.err
    assert "nobody" not in ran.err
    lines = [line for line in ran.err.splitlines() if line.startswith("[")]
    first = [line for line in lines if line.startswith("[1] ")]
    second = [line for line in lines if line.startswith("[2] ")]
    assert first[0] == f"[1] > POST {busy.url}/chat/completions"
    assert "[1] > authorization: [hidden]" in first
    (body,) = (line for line in first if " body of " in line)
    assert re.search(r"> body of \d+ bytes: .*model 3.*messages \d+", body)
    assert any(re.fullmatch(r"\[1\] < HTTP 429 after \d\.\d{3} s", line) for line in first)
    assert "[1] < x-request-id: req-1" in first
    assert "[1] < set-cookie: [hidden]" in first
    assert "[1] < location: /x?[hidden]" in first
    assert first[-2].startswith("[1] * errored after ")
    assert first[-2].endswith(", request req-1")
    assert first[-1] == "[1] * RefusedError 429 rate_limit; another attempt follows"
    assert re.match(r"\[2\] \* attempt 2 of this request, after a wait of \d\.\d{3} s", second[0])
    assert any("* first content after " in line for line in second)
    assert any(line.startswith("[2] < HTTP 200 after ") for line in second)
    assert re.fullmatch(
        rf"\[2\] \* finished after \d\.\d{{3}} s, {len(HELLO)} bytes, 2 chunks, request req-2",
        second[-1],
    )


def test_what_is_told_begins_a_line_where_answer_and_notes_go_to_one_place(busy: Busy) -> None:
    where = ["-m", "compatible:m", "--base-url", busy.url]
    command = [*COMMAND, "chat", PROMPT, *where, "--verbose"]
    ran = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env=environment(),
        timeout=LIMIT,
    )
    told = ran.stdout.decode().partition("Hello.")[2]
    assert told.startswith("\n[2] < HTTP 200"), told


def test_batch_shows_every_request(endpoint: Endpoint, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    lines = [json.dumps({"key": f"k{n}", "prompt": PROMPT}) for n in range(3)]
    source.write_text("\n".join(lines))
    where = ["-m", "compatible:m", "--base-url", endpoint.url]
    ran = run([*COMMAND, "batch", str(source), str(tmp_path / "out.jsonl"), *where, "-v"])
    assert ran.code == 0
    assert PROMPT not in ran.err
    for number in (1, 2, 3):
        assert f"[{number}] > POST {endpoint.url}/chat/completions\n" in ran.err
        assert f"[{number}] * finished after " in ran.err


def test_a_failure_to_send_has_no_response() -> None:
    where = ["-m", "compatible:m", "--base-url", "http://127.0.0.1:1/v1", "--attempts", "1"]
    ran = run([*COMMAND, "chat", PROMPT, *where, "-v"])
    assert ran.code == 3
    assert "[1] * SendError\n" in ran.err
    assert " < " not in ran.err
