"""Words for the numbers of HTTP, as httpx has them: a server's own may repeat a key."""

from __future__ import annotations

_OTHERS = {
    413: "Request Entity Too Large",
    414: "Request-URI Too Long",
    416: "Requested Range Not Satisfiable",
    418: "I'm a teapot",
    422: "Unprocessable Entity",
}
"""Phrases that newer versions of Python have changed, or spell in another way."""


def phrase_of(status: int) -> str:
    """Return the registered phrase of a status; empty if it has none."""
    from http import HTTPStatus  # for logs and rare failures alone

    try:
        return _OTHERS.get(status) or HTTPStatus(status).phrase
    except ValueError:
        return ""
