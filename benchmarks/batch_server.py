"""A server for the benchmarks of batches, in a process of its own.

It answers thousands of connections with a delay, slows down under load, and can have a limit of
requests a minute. Options, as ``name=value``: ``delay`` (seconds until an answer), ``knee`` (with n
requests at once, each takes ``1 + (n / knee)²`` times as long), ``per_minute`` (429 above it) and
``counts`` (``bucket``, ``window`` or ``log``: the way in which it counts), ``tell`` (send rate-limit
headers). It prints its port; for each line of standard input it prints its counts since the last
one as JSON; it ends when standard input is closed.
"""

from __future__ import annotations

import heapq
import json
import select
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Any

import epoll_server
import open_files

REFUSAL = b'{"error":{"message":"Rate limit reached","code":"rate_limit_exceeded"}}'


class Limit:
    """A limit of requests a minute, counted in one of the three usual ways."""

    def __init__(self, per_minute: float, counts: str) -> None:
        self.per_minute, self.counts = per_minute, counts
        self.started = self.at = time.monotonic()
        # A bucket holds ten seconds' worth.
        self.level = self.size = max(1.0, per_minute / 6)
        self.log: deque[float] = deque()
        self.window, self.used = 0, 0

    def admits(self, now: float) -> bool:
        if self.counts == "bucket":
            rate = self.per_minute / 60
            self.level = min(self.size, self.level + (now - self.at) * rate)
            self.at = now
            self.level -= (good := self.level >= 1)
            return good
        if self.counts == "log":
            while self.log and self.log[0] <= now - 60:
                self.log.popleft()
            if good := len(self.log) < self.per_minute:
                self.log.append(now)
            return good
        if (window := int((now - self.started) / 60)) != self.window:
            self.window, self.used = window, 0
        self.used += (good := self.used < self.per_minute)
        return good

    def headers(self, now: float) -> bytes:
        left = {
            "bucket": self.level,
            "log": self.per_minute - len(self.log),
            "window": self.per_minute - self.used,
        }[self.counts]
        whole_in = {
            "bucket": (self.size - self.level) * 60 / self.per_minute,
            "log": 60 - (now - self.log[-1] if self.log else 60),
            "window": 60 - (now - self.started) % 60,
        }[self.counts]
        return (
            f"x-ratelimit-limit-requests: {self.per_minute:.0f}\r\n"
            f"x-ratelimit-remaining-requests: {left:.0f}\r\n"
            f"x-ratelimit-reset-requests: {whole_in:.3f}s\r\n"
        ).encode()


class Server:
    def __init__(self, options: dict[str, str]) -> None:
        self.delay = float(options.get("delay", 0))
        self.knee = float(options.get("knee", 0))
        per_minute = float(options.get("per_minute", 0))
        self.limit = Limit(per_minute, options.get("counts", "bucket")) if per_minute else None
        self.tell = options.get("tell") == "yes"
        self.socks: dict[int, socket.socket] = {}
        self.got: dict[int, bytes] = {}
        self.due: list[tuple[float, int, bytes]] = []
        self.running = 0
        self.accepted: list[float] = []
        self.refused: list[float] = []
        self.epoll = select.epoll()

    def serve(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        listener.setblocking(False)
        print(listener.getsockname()[1], flush=True)
        self.epoll.register(listener, select.EPOLLIN)
        self.epoll.register(sys.stdin.fileno(), select.EPOLLIN)
        while True:
            now = time.monotonic()
            while self.due and self.due[0][0] <= now:
                _, number, data = heapq.heappop(self.due)
                self.running -= 1
                self.send(number, data)
            wait = max(0.0, self.due[0][0] - now) if self.due else -1
            for number, _ in self.epoll.poll(wait):
                if number == listener.fileno():
                    self.accept(listener)
                elif number == sys.stdin.fileno():
                    if not sys.stdin.readline():
                        return
                    self.report()
                else:
                    self.read(number)

    def report(self) -> None:
        told: dict[str, Any] = {"accepted": self.accepted, "refused": self.refused}
        print(json.dumps(told), flush=True)
        self.accepted, self.refused = [], []

    def accept(self, listener: socket.socket) -> None:
        with suppress(BlockingIOError):
            while True:
                sock, _ = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.socks[sock.fileno()], self.got[sock.fileno()] = sock, b""
                self.epoll.register(sock, select.EPOLLIN)

    def read(self, number: int) -> None:
        data = b""
        with suppress(OSError):
            data = self.socks[number].recv(65536)
        if not data:
            self.epoll.unregister(number)
            self.socks.pop(number).close()
            return
        got = self.got[number] + data
        head, end, body = got.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if not end or len(body) < length:
            self.got[number] = got
            return
        self.got[number] = b""
        self.answer(number)

    def answer(self, number: int) -> None:
        now = time.monotonic()
        good = self.limit is None or self.limit.admits(now)
        told = self.limit.headers(now) if self.limit is not None and self.tell else b""
        (self.accepted if good else self.refused).append(now)
        if not good:
            status = b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\n"
            length = b"content-length: %d\r\n\r\n" % len(REFUSAL)
            self.send(number, status + told + length + REFUSAL)
            return
        data = epoll_server.SHORT["short"]
        if told:
            first, _, rest = data.partition(b"\r\n")
            data = first + b"\r\n" + told + rest
        self.running += 1
        slower = 1 + (self.running / self.knee) ** 2 if self.knee else 1
        if self.delay:
            heapq.heappush(self.due, (now + self.delay * slower, number, data))
        else:
            self.running -= 1
            self.send(number, data)

    def send(self, number: int, data: bytes) -> None:
        if number in self.socks:
            with suppress(OSError):
                self.socks[number].send(data)


if __name__ == "__main__":
    open_files.raise_limit()
    Server(dict(word.split("=", 1) for word in sys.argv[1:])).serve()
