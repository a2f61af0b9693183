"""A server for the command line's tests: blocking, in threads, with a script of timed steps."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from .command import LIMIT

USAGE = {
    "prompt_tokens": 31,
    "completion_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 12},
    "completion_tokens_details": {"reasoning_tokens": 3},
}


def chunk(delta: dict[str, Any] | None = None, reason: str | None = None, **more: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": reason}]
    event = {"id": "gen-1", "model": "m-1", "choices": choices, **more}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def text(*pieces: str) -> bytes:
    return b"".join(chunk({"content": piece}) for piece in pieces)


END = chunk({}, "stop") + chunk(usage=USAGE) + b"data: [DONE]\n\n"
HELLO = chunk({"role": "assistant", "content": ""}) + text("Hel", "lo.") + END
Step = bytes | float | threading.Event
"""Bytes to send, seconds to wait, or an event to wait for."""
OPENING = chunk({"role": "assistant", "content": ""})


class ThreadedServer:
    """An HTTP server on loopback whose requests subclasses answer, each in a thread."""

    def __init__(self) -> None:
        self.release = threading.Event()
        """Set it to end the waiting of answers that are held back."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.post(self, self.rfile.read(int(self.headers["content-length"])))

            def do_GET(self) -> None:
                outer.get(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 256
            daemon_threads = False

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that left

        self.http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/api/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()

    def post(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        raise NotImplementedError

    def get(self, request: BaseHTTPRequestHandler) -> None:
        """Answer OpenRouter's clients, who ask what an answer cost: nothing is known of it."""
        begin(request, 404)

    def close(self) -> None:
        self.release.set()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def begin(request: BaseHTTPRequestHandler, status: int, **headers: str) -> None:
    """Send the status and the headers."""
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()


class Endpoint(ThreadedServer):
    """Answers the n-th request with ``script(n)``: a status and the steps of the body."""

    def __init__(self) -> None:
        self.script: Callable[[int], tuple[int, list[Step]]] = lambda n: (200, [HELLO])
        self.requests: list[dict[str, Any]] = []
        self.running = self.most = 0
        self.lock = threading.Lock()
        super().__init__()

    def post(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        with self.lock:
            number = len(self.requests)
            self.requests.append(json.loads(body))
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            status, steps = self.script(number)
            begin(request, status, x_generation_id=f"gen-{number}")
            for step in steps:
                if isinstance(step, bytes):
                    request.wfile.write(step)
                    request.wfile.flush()
                elif isinstance(step, float):
                    time.sleep(step)
                else:
                    step.wait(LIMIT)
        finally:
            with self.lock:
                self.running -= 1
