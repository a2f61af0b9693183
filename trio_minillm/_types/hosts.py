"""Hosts of addresses: which of them can only be this machine."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from typing import TypeAlias

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_PART = r"0x[0-9a-f]{1,8}|0[0-7]{0,11}|[1-9][0-9]{0,9}"


def is_this_machine(host: str) -> bool:
    """Return whether a host, without brackets, can only be this machine.

    Those are the names and the numbers that are reserved for the loopback interface (RFC 6761, RFC
    1122, RFC 4291).
    """
    host = host.lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    number = ip_address(host)
    return number is not None and number.is_loopback


def ip_address(host: str, *, unwrap: bool = True) -> IPAddress | None:
    """Return the IP address that a host stands for without a look-up, or None for a name.

    IPv4 addresses are also taken in the spellings in which connecting takes them: ``127.1``,
    ``0x7f000001``. ``unwrap`` returns the one that is inside of an IPv6 address.
    """
    with suppress(ValueError):
        number = ipaddress.ip_address(host)
        return (getattr(number, "ipv4_mapped", None) if unwrap else None) or number
    parts = host.split(".")
    if len(parts) > 4 or not all(re.fullmatch(_PART, part) for part in parts):
        return None
    *first, last = (int(p, 16 if "x" in p else 8 if p[0] == "0" else 10) for p in parts)
    if max(first, default=0) > 255 or last >= 256 ** (4 - len(first)):
        return None
    value = sum(byte << 8 * (3 - place) for place, byte in enumerate(first))
    return ipaddress.IPv4Address(value + last)
