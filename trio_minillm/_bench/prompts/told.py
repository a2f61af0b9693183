"""The tokens of made prompts, beside those that the server has counted. Pure."""

from __future__ import annotations

from ..record import Record


class SizesTold:
    """The difference between the prompt tokens that were wanted and those of the answers' usage."""

    def __init__(self) -> None:
        self._count = 0
        self._wanted = self._told = self._apart = 0
        self._worst = 0

    def add(self, record: Record) -> None:
        """Count a request, if both numbers are known of it."""
        if record.asked_tokens is None or record.prompt_tokens is None:
            return
        apart = abs(record.prompt_tokens - record.asked_tokens)
        self._count += 1
        self._wanted += record.asked_tokens
        self._told += record.prompt_tokens
        self._apart += apart
        self._worst = max(self._worst, apart)

    def notes(self) -> list[str]:
        """Return a line on them, if there are any."""
        if not self._count:
            return []
        mean, wanted = self._told / self._count, self._wanted / self._count
        if not self._worst:
            return [f"prompts had the requested length: {wanted:,.1f} tokens on average"]
        apart = f"off by {self._apart / self._count:,.1f} on average, {self._worst:,} at most"
        told = f"prompts had {mean:,.1f} tokens on average instead of {wanted:,.1f}"
        return [f"{told} ({apart})"]
