"""Millions of keys in little memory: a hash table in one block of bytes."""

from __future__ import annotations

from hashlib import blake2b

DIGEST = 16
"""Bytes of a key's hash. Two of 10**12 keys share one with a probability of 10**-15."""
_RECORD = DIGEST + 8
_EMPTY = bytes(DIGEST)


def digest(key: str) -> bytes:
    """A key's hash: the same on every machine and in every process."""
    return blake2b(key.encode(), digest_size=DIGEST).digest()


def in_shard(key: str, shard: tuple[int, int]) -> bool:
    """Whether a key belongs to the part ``(i, n)``, the i-th of n, counted from 1.

    Depends on the key alone: every key belongs to exactly one of the n parts, on every machine.
    """
    part, parts = shard
    return int.from_bytes(digest(key)[-8:], "big") % parts == part - 1


class KeyTable:
    """Keys by their hash, with a number below 2**64 each; 32 to 64 bytes a key, all told.

    A ``dict`` of the same takes 200. Looking up takes 1 µs, and the table doubles in one go.
    """

    def __init__(self) -> None:
        self._count = 0
        self._slots = bytearray(_RECORD * 1024)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def get(self, key: str) -> int | None:
        """The key's number, ``None`` if it is not here."""
        at = self._find(digest(key))
        record = self._slots[at : at + _RECORD]
        return None if record[:DIGEST] == _EMPTY else int.from_bytes(record[DIGEST:], "big")

    def put(self, key: str, number: int) -> None:
        """Keep a key, or change its number."""
        self._put(digest(key), number.to_bytes(8, "big"))
        if self._count * 4 > len(self._slots) // _RECORD * 3:
            self._double()

    def _put(self, name: bytes, number: bytes | bytearray) -> None:
        at = self._find(name)
        self._count += self._slots[at : at + DIGEST] == _EMPTY
        self._slots[at : at + _RECORD] = name + number

    def _find(self, name: bytes) -> int:
        """Where the record is, or would be."""
        slots, size = self._slots, len(self._slots)
        at = int.from_bytes(name[:8], "big") % (size // _RECORD) * _RECORD
        while (found := slots[at : at + DIGEST]) != name and found != _EMPTY:
            at = (at + _RECORD) % size
        return at

    def _double(self) -> None:
        old = self._slots
        self._slots, self._count = bytearray(2 * len(old)), 0
        for at in range(0, len(old), _RECORD):
            name = bytes(old[at : at + DIGEST])
            if name != _EMPTY:
                self._put(name, old[at + DIGEST : at + _RECORD])
