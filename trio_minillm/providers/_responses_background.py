"""Responses in the background: OpenAI goes on with them when the connection breaks.

Their events have rising numbers, by which a stream is taken up again, for as long as the server keeps
it: https://developers.openai.com/docs/guides/background.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Annotated, Final
from urllib.parse import quote, urlencode

import msgspec

from .._types.errors import ProtocolError
from ._base import Continuation, FollowUp
from ._coerce import loose_object, number

LONGEST_NUMBER: Final = 2**53
"""Largest number of an event that is believed."""
LONGEST_ID: Final = 512
"""Characters of the longest id that is asked for; OpenAI's have some 60."""


class _Numbered(msgspec.Struct, gc=False):
    """An event, as far as its number."""

    sequence_number: Annotated[int, msgspec.Meta(ge=0, le=LONGEST_NUMBER)] | None = None


_decode = msgspec.json.Decoder(_Numbered).decode


def _loose_number(data: bytes) -> int | None:
    """Return the number of an event that is no strict JSON: half a character, say."""
    with suppress(msgspec.DecodeError, ProtocolError, UnicodeError, RecursionError):
        given = number(loose_object(data, []).get("sequence_number"), "", [])
        return given if given is not None and given >= 0 else None
    return None


class BackgroundResponse(Continuation):
    """The way back to a response at ``url``, the endpoint at which it was asked for.

    ``include`` and ``obfuscated`` are what was asked for with it: else its later events lack what the
    earlier ones had.
    """

    def __init__(
        self, url: str, *, include: Iterable[str] = (), obfuscated: bool | None = None
    ) -> None:
        self._endpoint, _, self._query = url.partition("?")
        asked = [("include[]", one) for one in include]
        if obfuscated is not None:
            asked.append(("include_obfuscation", "true" if obfuscated else "false"))
        self._asked = asked

    def position_in(self, data: bytes) -> int | None:
        try:
            return _decode(data).sequence_number
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return _loose_number(data)

    def resume_request(self, response_id: str, position: int) -> FollowUp | None:
        asked = [("stream", "true"), ("starting_after", position), *self._asked]
        place = self._place(response_id)
        return None if place is None else FollowUp(url=self._url(place, urlencode(asked)))

    def cancel_request(self, response_id: str) -> FollowUp | None:
        place = self._place(response_id)
        return None if place is None else FollowUp(url=self._url(f"{place}/cancel"), method="POST")

    def _place(self, response_id: str) -> str | None:
        """Return the address of a response; ``None`` if its id would lead to another place."""
        if len(response_id) > LONGEST_ID or not response_id.strip("."):
            return None
        return f"{self._endpoint}/{quote(response_id, safe='')}"

    def _url(self, place: str, own: str = "") -> str:
        asked = "&".join(filter(None, (own, self._query)))
        return f"{place}?{asked}" if asked else place
