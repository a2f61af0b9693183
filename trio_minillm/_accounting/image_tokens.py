"""Upper bounds for the input tokens of an image, by its vendor's published rules.

The size is read from the first bytes of the image itself.
"""

from __future__ import annotations

from .._types.messages import ImagePart

CLAUDE_PATCH = 28
CLAUDE_PIXELS_PER_TOKEN = 750
CLAUDE_MOST = 4784
"""Anthropic's guide "Vision": one token for each patch of 28 x 28 pixels (before 2026: width x
height / 750), and images are scaled down to 4784 of them; to 1568 before Opus 4.7."""

OPENAI_PATCH = 32
OPENAI_FACTOR = 2.46
OPENAI_MOST = 3779
"""OpenAI's guide "Images and vision": patches of 32 x 32 pixels, of which at most 1536 times
2.46 (gpt-4.1-nano, the largest factor) or 2500 times 1.2 (gpt-5.4 and later) are counted with
the details ``low`` and ``high``."""

OPENAI_UNSCALED_FACTOR = 1.2
"""OpenAI's guide "Images and vision": ``original`` and, since gpt-5.5, ``auto`` leave an image as
large as it is. Images of 12 megapixels were counted as 14364 tokens (126 x 95 patches times 1.2)."""

OPENAI_TILE = 512
OPENAI_TILES = (85, 170)
OPENAI_MINI_TILES = (2833, 5667)
"""OpenAI's guide "Images and vision", for older models: a base and a price per tile of 512
pixels, after scaling to at most 2048 pixels with the short side at 768, so 8 tiles at most;
gpt-4o-mini counts more."""


def image_tokens(part: ImagePart, model: str) -> int | None:
    """Return the most tokens that an image can be for a model; ``None`` if there is no bound."""
    size = None if part.data is None else image_size(part.data)
    name = model.lower().rpartition("/")[2]
    if "claude" in name:
        return _claude(size)
    if name.startswith(("gpt-", "chatgpt-", "o1", "o3", "o4")) and "oss" not in name:
        return _openai(size, part.detail, name)
    return None


def _claude(size: tuple[int, int] | None) -> int:
    if size is None:
        return CLAUDE_MOST
    width, height = size
    patches = -(-width // CLAUDE_PATCH) * -(-height // CLAUDE_PATCH)
    return min(CLAUDE_MOST, max(patches, -(-width * height // CLAUDE_PIXELS_PER_TOKEN)))


def _openai(size: tuple[int, int] | None, detail: str | None, name: str) -> int | None:
    base, each = OPENAI_MINI_TILES if "4o-mini" in name else OPENAI_TILES
    scaled = detail in ("low", "high")
    if size is None:
        tiles = base + 8 * each
        return max(tiles, OPENAI_MOST) if scaled or "4o-mini" in name else None
    short, long = sorted(size)
    # A small image is taken to be scaled up to 768: the guide does not say that it isn't.
    across = min(4, -(-(768 * long) // (short * OPENAI_TILE)))
    patches = -(-short // OPENAI_PATCH) * -(-long // OPENAI_PATCH)
    most = max(base + 2 * across * each, min(OPENAI_MOST, _times(patches, OPENAI_FACTOR)))
    return most if scaled else max(most, _times(patches, OPENAI_UNSCALED_FACTOR))


def _times(patches: int, factor: float) -> int:
    return int(patches * factor) + 1


# -- size ------------------------------------------------------------------------------------


def image_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels of a PNG, JPEG, GIF or WebP; ``None`` if it can't be read."""
    width, height = _size(data) or (0, 0)
    return (width, height) if width > 0 and height > 0 else None


def _size(data: bytes) -> tuple[int, int] | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR":
        return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    if data.startswith((b"GIF87a", b"GIF89a")):
        return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    return None


_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """Walk from segment to segment to the frame header, which has the size."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind in _FRAMES:
            return int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        if kind == 0xFF:  # fill
            at += 1
        elif kind in _ALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = data[24:27], data[27:30]
        return int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1
    if kind == b"VP8L" and data[20:21] == b"\x2f":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = data[26:28], data[28:30]
        mask = 0x3FFF
        return int.from_bytes(width, "little") & mask, int.from_bytes(height, "little") & mask
    return None
