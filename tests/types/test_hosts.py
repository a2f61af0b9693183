"""Which hosts are this machine."""

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_minillm._types.hosts import ip_address, is_this_machine


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST", "localhost.", "a.localhost", "127.0.0.1", "127.9.9.9", "127.1"),
        *("0x7f000001", "0x7F.1", "2130706433", "0177.0.0.1", "::1", "::ffff:127.0.0.1"),
    ],
)
def test_it_is_this_machine(host):
    assert is_this_machine(host)


@pytest.mark.parametrize(
    "host",
    [
        *("localhost.test", "xlocalhost", "128.0.0.1", "10.0.0.1", "::2", "fade", "127.0.0.1.test"),
        *("300.1.1.1", "127.256.1", "127.0.0.256", "127.1.1.1.1", "4294967296", "", ".", "127..1"),
        *("0.0.0.0", "::", "08.1", "127.0x", "-1", "127.1\n", "1_0.1"),
    ],
)
def test_it_is_not(host):
    assert not is_this_machine(host)


@given(st.ip_addresses())
def test_a_number_says_itself_what_it_is(number):
    inner = getattr(number, "ipv4_mapped", None) or number
    assert is_this_machine(str(number)) == inner.is_loopback


@given(st.text("0123456789abcdefx.", max_size=16))
def test_spellings_are_those_that_connecting_takes(host):
    try:
        expected = ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        expected = None
    assert ip_address(host) == expected
