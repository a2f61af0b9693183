"""Replies of a script out of a recording; `_recording` has the format of the file."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from ._script import Reply, ServedRequest, Step, eof, hang, reset

MAX_LINE: Final = 16 * 1024 * 1024
"""Bytes of a line that is read, so that memory is bounded; a read of a socket is 64 KiB at most."""


class _Line(msgspec.Struct, kw_only=True):
    n: int = -1
    t: float = 0.0
    recording: int | None = None
    method: str | None = None
    url: str = ""
    status: int | None = None
    headers: list[tuple[str, str]] = []
    text: str | None = None
    base64: bytes | None = None
    end: str | None = None


_decode_line = msgspec.json.Decoder(_Line).decode


def replay(
    path: str | os.PathLike[str], *, speed: float = 1.0, questions: bool = False
) -> tuple[Reply, ...]:
    """Return the responses of a recording as scripted replies, in the order of their requests.

    - ``path`` is the recording.
    - ``speed`` is how much faster than recorded the bytes arrive, in the same reads; ``math.inf``
      leaves out all pauses.
    - ``questions`` selects the replies to cost lookups and cancellations, for ``settlements=``. By
      default, you get those to all other requests.

    If the client had hung up, the reply stays silent after what was read.

    Raises ``ValueError``, with the place, for a file that is not a recording and for an exchange
    whose body was not recorded completely. Raises ``OSError`` if the file can't be read.
    """
    if not speed > 0:
        raise ValueError("speed must be above 0")
    exchanges: dict[int, list[_Line]] = {}
    for number, line in _lines(Path(path)):
        if line.method is not None:
            exchanges[line.n] = []
        elif line.n not in exchanges:
            raise ValueError(f"line {number}: there is no exchange {line.n}")
        exchanges[line.n].append(line)
    wanted = (e for _, e in sorted(exchanges.items()) if _is_question(e[0]) is questions)
    return tuple(_reply_of(lines, speed) for lines in wanted)


def _is_question(opening: _Line) -> bool:
    method, url = opening.method or "", opening.url
    return ServedRequest(method=method, target=url, headers={}, body=b"").is_question


def _lines(path: Path) -> Iterator[tuple[int, _Line]]:
    with path.open("rb") as file:
        number = 0
        while data := file.readline(MAX_LINE + 1):
            number += 1
            if len(data) > MAX_LINE:
                raise ValueError(f"line {number} has more than {MAX_LINE:,} bytes")
            if not data.endswith(b"\n") and number > 1:
                return  # torn: its writer was stopped
            try:
                line = _decode_line(data)
            except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
                raise ValueError(f"line {number} does not belong to a recording") from exc
            if number == 1 and line.recording != 1:
                raise ValueError("this is not a recording, or has another version")
            if number > 1:
                yield number, line
    if not number:
        raise ValueError("this is not a recording: it is empty")


def _reply_of(lines: list[_Line], speed: float) -> Reply:
    opening, *rest = lines
    last = rest[-1] if rest else opening
    if last.end in ("limit", "compressed"):
        raise ValueError(f"exchange {opening.n} was not recorded completely: {last.end}")
    head = rest[0] if rest and rest[0].status is not None else None
    if head is None:
        if last.end in (None, "left"):
            return Reply(wait=hang)
        return Reply(error=_error(last.end or ""))
    steps: list[Step] = []
    at = head.t
    for line in rest[1:]:
        if line.t > at and math.isfinite(speed):
            steps.append((line.t - at) / speed)
        at = max(at, line.t)
        if line.text is not None or line.base64 is not None:
            steps.append(line.base64 or (line.text or "").encode())
    if last.end is None or last.end == "left":
        steps.append(hang)
    elif last.end != "complete":
        steps.append(eof if last.end == "RemoteProtocolError" else reset)
    assert head.status is not None
    headers: dict[str, str] = {}
    for name, value in head.headers:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    coded = headers.pop("transfer-encoding", None)
    closes = "close" in headers.pop("connection", "").lower()
    return Reply(
        steps=tuple(steps),
        status=head.status,
        headers=headers,
        wait=head.t / speed,
        framing="close" if closes and not coded else "chunked",
        keep_alive=not closes,
    )


def _error(name: str) -> Exception:
    import httpx

    kind = getattr(httpx, name, None)
    if isinstance(kind, type) and issubclass(kind, httpx.TransportError):
        return kind("the recorded connection failed")
    return httpx.ConnectError(f"the recorded connection failed: {name}")
