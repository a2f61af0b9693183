"""The replay server: fixed answers (`answers`) over HTTP/1.1, plain and with TLS, on raw sockets.

The first event of an answer is sent alone and followed by a pause, in which a contender reads its
clock; so connecting, sending the request and reading the headers are not measured. Each connection
has a thread, since there is one at a time. A third port is for thousands (`epoll_server`).

It prints its three ports as JSON, and serves until its standard input is closed.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import answers
import epoll_server
import open_files

HEAD_START = 0.02
"""Seconds between the first event and the rest."""
TLS = Path(__file__).parent / "tls"
"""Folder of a test authority (``ca.pem``) and its certificate for localhost."""
BACKLOG = 4096
"""Connections that may wait to be accepted."""

_model = re.compile(rb'"model"\s*:\s*"([^"]*)"').search
_in_path = re.compile(rb"/v1beta/(\S+):streamGenerateContent").search
"""Gemini's requests name the model in their path."""


def request_in(got: bytes) -> tuple[str, int] | None:
    """Return the model of the first request and its length in bytes, once it is complete."""
    head, end, body = got.partition(b"\r\n\r\n")
    if not end:
        return None
    length = re.search(rb"(?i)\r\ncontent-length:\s*(\d+)", head)
    missing = int(length[1]) - len(body) if length else 0
    if missing > 0:
        return None
    found = _model(body) or _in_path(head)
    return (found[1].decode() if found else ""), len(got) + missing


class Plain:
    """A connection without TLS."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, pieces: list[bytes]) -> None:
        """Send all pieces in one write."""
        self.sock.sendall(b"".join(pieces))

    def recv(self) -> bytes:
        return self.sock.recv(65536)


class Secure(Plain):
    """A connection with TLS, in which each piece is a record of its own."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(sock)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                super().send([self._out.read()])
            if not (data := super().recv()):
                raise ConnectionError
            self._in.write(data)
        super().send([self._out.read()])

    def send(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self._tls.write(piece)
        self.sock.sendall(self._out.read())

    def recv(self) -> bytes:
        while True:
            try:
                return self._tls.read(65536)
            except ssl.SSLWantReadError:
                if not (data := super().recv()):
                    return b""
                self._in.write(data)
            except ssl.SSLZeroReturnError:
                return b""


def _serve(sock: socket.socket, context: ssl.SSLContext | None) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with sock, suppress(ConnectionError, ssl.SSLError):
        connection = Secure(sock, context) if context else Plain(sock)
        got = b""
        while data := connection.recv():
            got += data
            if (request := request_in(got)) is None:
                continue
            name, length = request
            got = got[length:]
            if name in epoll_server.SHORT:
                connection.send([epoll_server.SHORT[name]])
                continue
            first, *rest = answers.writes(name)
            pause = answers.LAYOUTS[answers.Answer.parse(name).layout].pause
            connection.send(first)
            time.sleep(HEAD_START)
            for pieces in rest:
                connection.send(pieces)
                if pause:
                    time.sleep(pause)


def _accept(listener: socket.socket, context: ssl.SSLContext | None) -> None:
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=_serve, args=(sock, context), daemon=True).start()


def main() -> None:
    """Serve on loopback until standard input ends."""
    if len(sys.argv) > 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(sys.argv[1])})
    open_files.raise_limit()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "srv.pem", TLS / "srv.key")
    ports = {}
    for scheme, of in (("http", None), ("https", context)):
        listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        ports[scheme] = listener.getsockname()[1]
        threading.Thread(target=_accept, args=(listener, of), daemon=True).start()
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    ports["many"] = listener.getsockname()[1]
    threading.Thread(target=epoll_server.serve, args=(listener, request_in), daemon=True).start()
    print(json.dumps(ports), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
