"""The replay server for thousands of connections: one thread polls them, another paces the events.

The request's model says what to answer: ``short`` and ``short-anthropic`` are whole answers with one
piece of text;
``hold`` is one piece, then silence until the client goes away; ``paced/GROUP/N/CHUNKS/RATE`` is one
piece at once and, as soon as N requests of the group have come, CHUNKS more on each of them, RATE a
second on all together, one connection after the other. Their text is the time of sending, in
nanoseconds of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress

from answers import END, HEAD, Answer, chunk, events, openai_delta

SETTLE = 1.0
"""Seconds between the last request of a group and its first paced event, if it is large."""
_STAMP = "%019d"


_first, *_rest = events(Answer("openai", "text", "burst", 1))
SHORT = {"short": HEAD + chunk(_first) + chunk(b"".join(_rest)) + END}
"""Whole answers with one piece of text, by the name of the model: in OpenAI's format and Anthropic's."""
_events = list(events(Answer("anthropic", "text", "burst", 1)))
SHORT["short-anthropic"] = HEAD + b"".join(map(chunk, _events)) + END
HOLD = HEAD + chunk(_first)
ENDING = chunk(b"".join(_rest)) + END
_before, _after = (
    part.encode()
    for part in chunk(openai_delta(f'{{"content":"{_STAMP % 0}"}}')).decode().split(_STAMP % 0)
)


def _send(sock: socket.socket, data: bytes) -> None:
    with suppress(OSError):  # a client that does not read, or has left, gets no more
        sock.send(data)


def _pace(socks: list[socket.socket], chunks: int, rate: float) -> None:
    """Send on one connection after the other at the rate; late pieces are sent at once."""
    started = time.monotonic() + min(SETTLE, len(socks) / 50)
    for number in range(chunks * len(socks)):
        wait = started + number / rate - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        stamp = (_STAMP % time.monotonic_ns()).encode()
        _send(socks[number % len(socks)], _before + stamp + _after)
    for sock in socks:
        _send(sock, ENDING)


class _Server:
    def __init__(
        self, listener: socket.socket, request_in: Callable[[bytes], tuple[str, int] | None]
    ) -> None:
        self._listener = listener
        self._request_in = request_in
        self._epoll = select.epoll()
        self._socks: dict[int, socket.socket] = {}
        self._got: dict[int, bytes] = defaultdict(bytes)
        self._groups: dict[str, list[socket.socket]] = defaultdict(list)

    def serve(self) -> None:
        self._listener.setblocking(False)
        self._epoll.register(self._listener, select.EPOLLIN)
        while True:
            for number, _ in self._epoll.poll():
                if number == self._listener.fileno():
                    self._accept()
                else:
                    self._read(number)

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            while True:
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._socks[sock.fileno()] = sock
                self._epoll.register(sock, select.EPOLLIN)

    def _read(self, number: int) -> None:
        sock, data = self._socks[number], b""
        with suppress(OSError):
            data = sock.recv(65536)
        if not data:
            self._got.pop(number, None)
            del self._socks[number]
            self._epoll.unregister(number)
            sock.close()
            return
        self._got[number] += data
        request = self._request_in(self._got[number])
        if request is not None:
            name, length = request
            self._got[number] = self._got[number][length:]
            self._answer(sock, name)

    def _answer(self, sock: socket.socket, name: str) -> None:
        if name in SHORT:
            _send(sock, SHORT[name])
            return
        _send(sock, HOLD)
        if name != "hold":
            _, _, size, chunks, rate = name.split("/")
            group = self._groups[name]
            group.append(sock)
            if len(group) == int(size):
                work = (self._groups.pop(name), int(chunks), float(rate))
                threading.Thread(target=_pace, args=work, daemon=True).start()


def serve(listener: socket.socket, request_in: Callable[[bytes], tuple[str, int] | None]) -> None:
    """Serve the connections of a listener for ever."""
    _Server(listener, request_in).serve()
