"""A secret, and the spellings in which servers, proxies and log lines may repeat it."""

from __future__ import annotations

import html
import json
from urllib.parse import quote

import httpx

KEY = "sk-canary/7+Zq=MvR2xW9tLb4KdHs"
"""With characters that JSON, URLs and HTML may spell otherwise."""
VALUE = "canary-header-0XyZ42aB"
"""The value of a header of the user's, which may be a key as well."""


def pieces_of(secret: str, size: int = 12) -> list[str]:
    """Every part of a secret that would give away something."""
    return [secret[n : n + size] for n in range(len(secret) - size + 1)]


def spelled(text: str) -> str:
    """The same with the usual escapes undone, over and over."""
    before = ""
    while text != before:
        before = text
        text = html.unescape(httpx.QueryParams("q=" + text.replace("+", "%2B"))["q"])
        text = text.replace("\\/", "/").replace("\\u002d", "-").replace("\\u002D", "-")
    return text


def spellings(secret: str) -> dict[str, str]:
    """A secret as servers, proxies and their log lines may write it."""
    return {
        "plain": secret,
        "bearer": f"Bearer {secret}",
        "json": json.dumps(secret)[1:-1].replace("/", "\\/"),
        "unicode": "".join(f"\\u{ord(c):04x}" for c in secret),
        "some unicode": secret.replace("-", "\\u002d").replace("+", "\\u002B"),
        "json in json": json.dumps(json.dumps(secret.replace("/", "\\/"))[1:-1])[1:-1],
        "url": quote(secret, safe=""),
        "url, lower": quote(secret, safe="").replace("%2F", "%2f").replace("%3D", "%3d"),
        "html": html.escape(secret).replace("=", "&#61;").replace("/", "&#x2F;"),
        "repr": repr(secret),
        "a prefix": secret[:16],
        "an end": secret[-16:],
        "all but an end": secret[:-3] + "***",
    }
