"""A stand-in for the batch APIs of OpenAI and Anthropic, written from their references.

What a request's prompt begins with decides what becomes of it: ``expire``, ``cancel``, ``refuse``,
``vanish`` (no line at all), ``twice`` (two lines), anything else is answered. ``work`` counts what was
worked on, and so is paid for. A batch is over after ``looks`` looks at it, without a clock.

``faults`` has, for each step (``upload``, ``create``, ``look``, ``list``, ``results``, ``cancel``), what
goes wrong with its next calls: a status, ``"lost"`` (the request does not arrive), ``"cut"`` (it is
carried out, and the connection breaks before the answer), ``"half"`` (half of the body comes).
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from .endpoint import ThreadedServer

USAGE = {"prompt_tokens": 1_000, "completion_tokens": 500, "total_tokens": 1_500}
CUT = "cut"


class Batch:
    def __init__(
        self, id: str, requests: list[dict[str, Any]], created: float, **more: Any
    ) -> None:
        self.id = id
        self.requests = requests
        self.created = created
        self.looks = 0
        self.status = "validating"
        self.cancelled = False
        self.unlisted = 0
        """Lists in which it does not show up yet."""
        self.more = more
        self.lines: list[bytes] = []
        """Lines of results, once it is over; for OpenAI, those of answers."""
        self.errors: list[bytes] = []


class StandIn:
    """The state of both vendors, and their answers to calls."""

    def __init__(self, key: str = "sk-test-0123456789abcdef") -> None:
        self.now = time.time
        self.key = key
        self.looks = 2
        self.faults: dict[str, list[Any]] = {}
        self.calls: list[str] = []
        """The step of each call that arrived."""
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, Batch] = {}
        self.work: Counter[str] = Counter()
        """Prompts that were worked on, which is what is paid for."""
        self.unlisted = 0
        self.full = 0
        """Batches that OpenAI does not take next, because its queue is full."""
        self.not_taken: tuple[str, str] | None = None
        self.early_file = False
        """OpenAI names the file of answers before the batch is over."""
        self.late_file = 0
        """Looks at a batch that is over in which OpenAI does not name it yet."""
        self.results_at = ""
        """Another address of Anthropic's results than the one asked."""
        self.reversed = False
        self.lost_lines = 0
        """Readings of results of which the last line is left out."""
        self.oldest_first = False
        """Lists have the oldest batches first, as an imitation's may."""
        self.status_of_expiry = "expired"

    # -- calls -------------------------------------------------------------------------------

    def handle(
        self, method: str, url: str, headers: Any, body: bytes
    ) -> tuple[int, dict[str, str], bytes, str]:
        """Answer a call: status, headers, body, and the fault in carrying it out."""
        parts = urlsplit(url)
        path = re.sub("^.*?/v1", "", parts.path)
        step, act = self._route(method, path)
        self.calls.append(step)
        planned = self.faults.get(step) or []
        fault = planned.pop(0) if planned else None
        if fault == "lost":
            return 0, {}, b"", "lost"
        if isinstance(fault, int):
            told = {"error": {"message": f"the server says {fault}", "type": "told", "code": None}}
            if fault == 429:
                return fault, {"retry-after": "2"}, json.dumps(told).encode(), ""
            return fault, {}, json.dumps(told).encode(), ""
        given = headers.get("authorization") or headers.get("x-api-key") or ""
        if given.removeprefix("Bearer ") != self.key:
            told = {"error": {"message": f"Incorrect API key: {given}", "type": "auth"}}
            return 401, {}, json.dumps(told).encode(), ""
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        status, answer = act(path, query, headers, body)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        return status, {"content-type": "application/json"}, data, fault or ""

    def _route(self, method: str, path: str) -> tuple[str, Any]:
        routes = [
            ("POST", "/files", "upload", self._upload),
            ("GET", "/files/[^/]+/content", "results", self._content),
            ("POST", "/batches", "create", self._create),
            ("GET", "/batches", "list", self._list),
            ("GET", "/batches/[^/]+", "look", self._look),
            ("POST", "/batches/[^/]+/cancel", "cancel", self._cancel),
            ("POST", "/messages/batches", "create", self._create_messages),
            ("GET", "/messages/batches", "list", self._list_messages),
            ("GET", "/messages/batches/[^/]+", "look", self._look_messages),
            ("GET", "/messages/batches/[^/]+/results", "results", self._results_messages),
            ("POST", "/messages/batches/[^/]+/cancel", "cancel", self._cancel_messages),
        ]
        for verb, pattern, step, act in routes:
            if verb == method and re.fullmatch(pattern, path):
                return step, act
        return "none", lambda *_: (404, {"error": {"message": "no such path"}})

    # -- OpenAI ------------------------------------------------------------------------------

    def _upload(self, path: str, query: Any, headers: Any, body: bytes) -> tuple[int, Any]:
        mark = re.search("boundary=(.*)", headers["content-type"])[1]  # type: ignore[index]
        parts = body.split(f"--{mark}".encode())
        assert (parts[0], parts[-1]) == (b"", b"--\r\n"), "not multipart"
        found = {}
        for part in parts[1:-1]:
            head, _, data = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
            name = re.search(rb'name="(\w+)"', head)[1].decode()  # type: ignore[index]
            found[name] = data.removesuffix(b"\r\n")
        assert found["purpose"] == b"batch"
        id = f"file-{len(self.files)}"
        self.files[id] = found["file"]
        return 200, {"id": id, "object": "file", "purpose": "batch", "bytes": len(found["file"])}

    def _create(self, path: str, query: Any, headers: Any, body: bytes) -> tuple[int, Any]:
        asked = json.loads(body)
        assert asked["completion_window"] == "24h"
        requests = [json.loads(line) for line in self.files[asked["input_file_id"]].splitlines()]
        assert len({r["custom_id"] for r in requests}) == len(requests)
        assert all(r["url"] == asked["endpoint"] and r["method"] == "POST" for r in requests)
        assert not any({"stream", "stream_options"} & set(r["body"]) for r in requests)
        id = f"batch_{len(self.batches)}"
        batch = Batch(id, requests, self.now(), metadata=asked["metadata"])
        batch.unlisted = self.unlisted
        self.batches[id] = batch
        return 200, self._batch(batch)

    def _batch(self, batch: Batch) -> dict[str, Any]:
        over = batch.status in ("completed", "expired", "cancelled")
        named = over or (self.early_file and batch.status == "in_progress")
        if over and self.late_file:
            self.late_file, named = self.late_file - 1, False
        out, bad = f"file-out-{batch.id}", f"file-err-{batch.id}"
        failed = [batch.more["failure"]] if "failure" in batch.more else []
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": batch.requests[0]["url"],
            "input_file_id": "file-x",
            "completion_window": "24h",
            "status": batch.status,
            "created_at": int(batch.created),
            "output_file_id": out if named and (batch.lines or not over) else None,
            "error_file_id": bad if over and batch.errors else None,
            "errors": {"object": "list", "data": failed} if failed else None,
            "request_counts": {
                "total": len(batch.requests),
                "completed": len(batch.lines),
                "failed": len(batch.errors),
            },
            "metadata": batch.more["metadata"],
        }

    def _look(self, path: str, query: Any, headers: Any, body: bytes) -> tuple[int, Any]:
        batch = self.batches.get(path.split("/")[2])
        if batch is None:
            return 404, {"error": {"message": "No batch found", "type": "invalid_request_error"}}
        if batch.status in ("validating", "in_progress", "finalizing", "cancelling"):
            batch.looks += 1
            refused = self.not_taken
            if self.full:
                self.full -= 1
                refused = ("token_limit_exceeded", "Enqueued token limit reached")
            if refused is not None:
                batch.status = "failed"
                batch.more["failure"] = {"code": refused[0], "message": refused[1], "line": None}
            elif batch.looks >= self.looks or batch.cancelled:
                self._work(batch)
            elif batch.looks > 1:
                batch.status = "in_progress"
        return 200, self._batch(batch)

    def _work(self, batch: Batch) -> None:
        batch.status = "cancelled" if batch.cancelled else "completed"
        for number, request in enumerate(batch.requests):
            text = request["url"] == "/v1/completions"
            body = request["body"]
            prompt = body["prompt"] if text else body["messages"][-1]["content"]
            word = "cancel" if batch.cancelled and number else prompt.split()[0]
            line = {"id": f"batch_req_{number}", "custom_id": request["custom_id"]}
            if word in ("expire", "cancel"):
                if word == "expire":
                    batch.status = self.status_of_expiry
                code = {"expire": "batch_expired", "cancel": "batch_cancelled"}[word]
                error = {"code": code, "message": "This request could not be executed."}
                batch.errors.append(json.dumps({**line, "response": None, "error": error}).encode())
            elif word == "refuse":
                told = {"error": {"message": "bad request", "type": "invalid_request_error"}}
                answer = {"status_code": 400, "request_id": f"req-{number}", "body": told}
                batch.errors.append(
                    json.dumps({**line, "response": answer, "error": None}).encode()
                )
            elif word != "vanish":
                self.work[prompt] += 1
                said = continuation(prompt) if text else chat(prompt)
                answer = {"status_code": 200, "request_id": f"req-{number}", "body": said}
                made = json.dumps({**line, "response": answer, "error": None}).encode()
                batch.lines += [made] * (2 if word == "twice" else 1)

    def _content(self, path: str, query: Any, headers: Any, body: bytes) -> tuple[int, Any]:
        kind, id = re.fullmatch("/files/file-(out|err)-(.*)/content", path).groups()  # type: ignore[union-attr]
        batch = self.batches[id]
        return 200, self._lines(batch.lines if kind == "out" else batch.errors)

    def _lines(self, lines: list[bytes]) -> bytes:
        shown = lines[::-1] if self.reversed else lines
        if self.lost_lines:
            self.lost_lines -= 1
            shown = shown[:-1]
        return b"".join(line + b"\n" for line in shown)

    def _listed(self, after: str | None) -> tuple[list[Batch], bool]:
        newest = list(self.batches.values())[:: 1 if self.oldest_first else -1]
        shown = []
        for batch in newest:
            if batch.unlisted:
                batch.unlisted -= 1
            else:
                shown.append(batch)
        if after is not None:
            shown = shown[[batch.id for batch in shown].index(after) + 1 :]
        return shown[:2], len(shown) > 2  # pages of two

    def _list(self, path: str, query: Any, headers: Any, body: bytes) -> tuple[int, Any]:
        shown, more = self._listed(query.get("after"))
        return 200, {"object": "list", "data": [self._batch(b) for b in shown], "has_more": more}

    def _cancel(self, path: str, query: Any, headers: Any, body: bytes) -> tuple[int, Any]:
        batch = self.batches[path.split("/")[2]]
        if batch.status in ("completed", "expired", "failed", "cancelled"):
            return 409, {"error": {"message": f"Cannot cancel a batch with status {batch.status}"}}
        batch.cancelled, batch.status = True, "cancelling"
        return 200, self._batch(batch)

    # -- Anthropic ---------------------------------------------------------------------------

    def _create_messages(self, path: str, query: Any, headers: Any, body: bytes) -> tuple[int, Any]:
        assert headers["anthropic-version"]
        requests = json.loads(body)["requests"]
        assert all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", r["custom_id"]) for r in requests)
        assert not any("stream" in r["params"] for r in requests)
        id = f"msgbatch_{len(self.batches)}"
        batch = self.batches[id] = Batch(id, requests, self.now())
        batch.status, batch.unlisted = "in_progress", self.unlisted
        return 200, self._message_batch(batch)

    def _message_batch(self, batch: Batch) -> dict[str, Any]:
        kinds = Counter(json.loads(line)["result"]["type"] for line in batch.lines)
        over = batch.status == "ended"
        counts = {name: kinds[name] for name in ("succeeded", "errored", "canceled", "expired")}
        left = 0 if over else len(batch.requests)
        counts |= {"processing": left}
        if over:  # of those that vanish, the counts say something else
            counts["succeeded"] += len(batch.requests) - sum(counts.values())
        base = self.results_at or "http://elsewhere.invalid/v1"
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": batch.status,
            "request_counts": counts,
            "created_at": datetime.fromtimestamp(batch.created, UTC).isoformat(),
            "expires_at": datetime.fromtimestamp(batch.created + 86_400, UTC).isoformat(),
            "ended_at": None,
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": f"{base}/messages/batches/{batch.id}/results" if over else None,
        }

    def _look_messages(self, path: str, query: Any, headers: Any, body: bytes) -> tuple[int, Any]:
        batch = self.batches.get(path.split("/")[3])
        if batch is None:
            return 404, {"type": "error", "error": {"type": "not_found_error", "message": "none"}}
        self._go_on(batch)
        return 200, self._message_batch(batch)

    def _go_on(self, batch: Batch) -> None:
        if batch.status == "ended":
            return
        batch.looks += 1
        if batch.looks < self.looks and not batch.cancelled:
            return
        batch.status = "ended"
        for number, request in enumerate(batch.requests):
            content = request["params"]["messages"][-1]["content"]
            prompt = content if isinstance(content, str) else content[-1]["text"]
            word = "cancel" if batch.cancelled and number else prompt.split()[0]
            result: dict[str, Any]
            if word in ("expire", "cancel"):
                result = {"type": {"expire": "expired", "cancel": "canceled"}[word]}
            elif word == "refuse":
                told = {"type": "invalid_request_error", "message": "bad request"}
                result = {"type": "errored", "error": {"type": "error", "error": told}}
            elif word == "vanish":
                continue
            else:
                self.work[prompt] += 1
                result = {"type": "succeeded", "message": message(prompt)}
            made = json.dumps({"custom_id": request["custom_id"], "result": result}).encode()
            batch.lines += [made] * (2 if word == "twice" else 1)

    def _results_messages(
        self, path: str, query: Any, headers: Any, body: bytes
    ) -> tuple[int, Any]:
        return 200, self._lines(self.batches[path.split("/")[3]].lines)

    def _list_messages(self, path: str, query: Any, headers: Any, body: bytes) -> tuple[int, Any]:
        shown, more = self._listed(query.get("after_id"))
        for batch in shown:
            self._go_on(batch)
        data = [self._message_batch(batch) for batch in shown]
        return 200, {"data": data, "has_more": more, "first_id": None, "last_id": None}

    def _cancel_messages(self, path: str, query: Any, headers: Any, body: bytes) -> tuple[int, Any]:
        batch = self.batches[path.split("/")[3]]
        if batch.status == "ended":
            told = {"type": "invalid_request_error", "message": "it has ended"}
            return 400, {"type": "error", "error": told}
        batch.cancelled, batch.status = True, "canceling"
        return 200, self._message_batch(batch)


def continuation(prompt: str) -> dict[str, Any]:
    """An answer of text completions."""
    choice = {"index": 0, "text": f"to {prompt}", "logprobs": None, "finish_reason": "stop"}
    return {
        "id": f"cmpl-{prompt}",
        "object": "text_completion",
        "choices": [choice],
        "usage": USAGE,
    }


def chat(prompt: str) -> dict[str, Any]:
    said = {"role": "assistant", "content": f"to {prompt}", "refusal": None}
    return {
        "id": f"chatcmpl-{len(prompt)}",
        "object": "chat.completion",
        "created": 1,
        "model": "m-1",
        "choices": [{"index": 0, "message": said, "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE,
        "service_tier": "default",
    }


def message(prompt: str) -> dict[str, Any]:
    return {
        "id": f"msg_{len(prompt)}",
        "type": "message",
        "role": "assistant",
        "model": "m-1",
        "content": [{"type": "text", "text": f"to {prompt}"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1_000, "output_tokens": 500, "service_tier": "batch"},
    }


class StandInTransport(httpx.AsyncBaseTransport):
    """The stand-in without a socket, for tests on a mocked clock."""

    def __init__(self, stand_in: StandIn) -> None:
        self.stand_in = stand_in

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = request.content
        url = str(request.url)
        status, headers, data, fault = self.stand_in.handle(
            request.method, url, request.headers, body
        )
        if fault in ("lost", CUT):
            raise httpx.ReadError("the connection broke")
        return httpx.Response(status, headers=headers, stream=_Data(data, half=fault == "half"))


class _Data(httpx.AsyncByteStream):
    def __init__(self, data: bytes, *, half: bool) -> None:
        self.data, self.half = data, half

    async def __aiter__(self) -> Any:
        middle = len(self.data) // 2
        yield self.data[:middle]
        if self.half:
            raise httpx.RemoteProtocolError("the connection broke")
        yield self.data[middle:]


class BatchServer(ThreadedServer):
    """The stand-in on a socket of the loopback interface, for tests of the command."""

    def __init__(self, stand_in: StandIn | None = None) -> None:
        self.stand_in = StandIn() if stand_in is None else stand_in
        self.lock = threading.Lock()
        super().__init__()
        self.url = self.url.replace("/api/v1", "/v1")

    def post(self, request: Any, body: bytes) -> None:
        self._answer("POST", request, body)

    def get(self, request: Any) -> None:
        self._answer("GET", request, b"")

    def _answer(self, method: str, request: Any, body: bytes) -> None:
        with self.lock:
            status, headers, data, fault = self.stand_in.handle(
                method, request.path, request.headers, body
            )
        if fault in ("lost", CUT):
            request.close_connection = True
            request.connection.close()
            return
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("content-length", str(len(data)))
        request.end_headers()
        request.wfile.write(data[: len(data) // 2] if fault == "half" else data)
        request.close_connection = fault == "half"
