"""The bytes of an error's body as text in UTF-8, whatever the server or a proxy has made of them.

What comes next looks for keys in it, and would find none in another coding. Pure.
"""

from __future__ import annotations

import codecs
import re
import zlib

_GZIP = b"\x1f\x8b\x08"
"""The first bytes of gzip's data (RFC 1952, 2.3)."""
_CHARSET = r"(?i);\s*charset\s*=\s*[\"']?([\w.:-]{1,40})"
_OF_TEXT = (
    r"(?i)(?:iso[-_]?8859|windows|cp|utf|gb|big5|euc|shift[-_]?jis|sjis|koi8|latin|ks_c|tis|macintosh)"
    r"[\w:-]{0,20}"
)
"""Names of codings that pages are in. Python knows others, which are none of text, or slow."""
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def unzipped(body: bytes, most: int) -> bytes:
    """Return a body; of one that is gzip's data, and doesn't say so, what these hold.

    ``most`` bytes of it at most, and as far as they can be read.
    """
    if body.startswith(_GZIP):
        try:
            return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(body, most)
        except zlib.error:
            pass
    return body


def in_utf8(body: bytes, content_type: str) -> bytes:
    """Return a body in UTF-8. One in UTF-16 shows it; any other that is not in UTF-8 is in what its
    ``content-type`` says, which is often wrong.
    """
    charset = "" if _is_utf8(body) else _named(content_type)
    if body[:2] in _UTF_16_MARKS:
        charset = "utf-16"
    elif body[1:4:2] == b"\0\0":  # JSON and HTML begin with two characters of ASCII
        charset = "utf-16-le"
    elif body[:3:2] == b"\0\0":
        charset = "utf-16-be"
    try:
        return body.decode(charset, "replace").encode("utf-8", "replace") if charset else body
    except LookupError:  # it names no coding
        return body


def _is_utf8(body: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(body)  # it may be cut inside a character
    except UnicodeDecodeError:
        return False
    return True


def _named(content_type: str) -> str:
    named = re.search(_CHARSET, content_type)
    return named[1] if named and re.fullmatch(_OF_TEXT, named[1]) else ""
