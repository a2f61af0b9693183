"""Look-ups of names: shared, kept, in threads that are not the application's."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from trio_minillm._http import dialing, lookup
from trio_minillm._http.dialing import _connect, dial
from trio_minillm._http.lookup import KEEP_SECONDS, MAX_KEPT, MAX_THREADS, Resolver

from ..support.peers import SOON, answering, serving

REAL = socket.getaddrinfo


class Names:
    """Stand-in for ``getaddrinfo`` that resolves every name to loopback, once ``go`` is set."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = threading.Event()
        self.failure: OSError | None = None
        self.addresses: list[tuple[Any, ...]] = [(socket.AF_INET, ("127.0.0.1", 0))]

    def __call__(self, host: Any, port: Any, *args: Any, **more: Any) -> Any:
        if args or more.get("flags"):
            return REAL(host, port, *args, **more)
        self.asked.append(host)
        assert self.go.wait(SOON)
        if self.failure is not None:
            raise self.failure
        return [(family, socket.SOCK_STREAM, 6, "", address) for family, address in self.addresses]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    found = Names()
    monkeypatch.setattr(socket, "getaddrinfo", found)
    yield found
    found.go.set()


async def untold(event: str) -> None:
    raise AssertionError(event)


def at(port: int, told: Callable[[str], Any] = untold) -> Callable[[Resolver, str], Any]:
    async def connect(resolver: Resolver, host: str) -> None:
        (await dial(resolver, host, port, told)).close()

    return connect


async def asked(names: Names, count: int) -> None:
    """Wait until so many look-ups are in threads."""
    with trio.fail_after(SOON):
        while len(names.asked) < count:
            await trio.sleep(0.001)


async def test_requests_share_a_look_up_and_its_addresses_are_kept(names: Names) -> None:
    resolver = Resolver()
    async with serving(answering) as server:
        connect = at(server.port)
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(connect, resolver, "model.test")
            await asked(names, 1)
            names.go.set()
        await connect(resolver, "model.test")
        assert names.asked == ["model.test"]
        await connect(resolver, "other.test")
        assert names.asked == ["model.test", "other.test"]


async def test_addresses_are_not_kept_for_long(names: Names) -> None:
    clock = trio.lowlevel.current_clock()
    resolver = Resolver()
    names.go.set()
    async with serving(answering) as server:
        connect = at(server.port)
        await connect(resolver, "model.test")
        assert resolver.known("model.test")
        with pytest.MonkeyPatch.context() as patch:
            now = clock.current_time()
            patch.setattr(trio, "current_time", lambda: now + KEEP_SECONDS + 1)
            assert resolver.known("model.test") is None


async def test_a_bounded_number_of_hosts_is_kept(names: Names) -> None:
    resolver = Resolver()
    names.go.set()
    resolver.known("127.0.0.1")
    for n in range(MAX_KEPT + 5):
        await resolver.begin(f"h{n}.test").for_targets()
    assert resolver.known("h0.test") is None
    assert resolver.known(f"h{MAX_KEPT + 4}.test")


async def test_a_failure_is_told_to_all_and_not_kept(names: Names) -> None:
    resolver, failures = Resolver(), []
    names.failure = socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def fail() -> None:
        with pytest.raises(socket.gaierror) as caught:
            await dial(resolver, "model.test", 80, untold)
        failures.append(caught.value)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(fail)
        await asked(names, 1)
        names.go.set()
    assert len({id(exc) for exc in failures}) == 3, "each raises one of its own"
    names.failure = None
    async with serving(answering) as server:
        await at(server.port)(resolver, "model.test")
    assert len(names.asked) == 2


async def test_a_request_that_gives_up_leaves_its_look_up_to_others(names: Names) -> None:
    resolver = Resolver()
    async with serving(answering) as server:
        connect = at(server.port)
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as first:
                nursery.start_soon(connect, resolver, "model.test")
                async with trio.open_nursery() as inner:
                    inner.start_soon(connect, resolver, "model.test")
                    await asked(names, 1)
                    first.cancel()
            names.go.set()
        assert names.asked == ["model.test"]


async def test_a_resolver_that_hangs_holds_up_nobody_elses_threads(names: Names) -> None:
    resolver = Resolver()
    limiter = trio.to_thread.current_default_thread_limiter()
    told: list[str] = []

    async def tell(event: str) -> None:
        told.append(event)

    async with trio.open_nursery() as nursery:
        for n in range(MAX_THREADS + 3):
            nursery.start_soon(dial, resolver, f"h{n}.test", 80, tell)
        await asked(names, MAX_THREADS)
        assert limiter.borrowed_tokens == 0
        assert await trio.to_thread.run_sync(int) == 0
        assert len(names.asked) == MAX_THREADS
        assert told == ["connection_pool.wait.started"] * 3, "in line, under no clock"
        nursery.cancel_scope.cancel()
    # Those in line have left it; a thread that is free again takes none of them.
    names.go.set()
    with trio.fail_after(SOON):
        while resolver._threads:
            await trio.sleep(0.001)
    assert len(names.asked) == MAX_THREADS


async def test_the_line_goes_on_when_a_thread_is_free(names: Names) -> None:
    resolver, told = Resolver(), []

    async def tell(event: str) -> None:
        told.append(event)

    async with serving(answering) as server:
        connect = at(server.port, tell)
        async with trio.open_nursery() as nursery:
            for n in range(MAX_THREADS + 1):
                nursery.start_soon(connect, resolver, f"h{n}.test")
            await asked(names, MAX_THREADS)
            names.go.set()
    assert told == ["connection_pool.wait.started", "connection_pool.wait.complete"]
    assert len(names.asked) == MAX_THREADS + 1


async def test_an_address_in_numbers_asks_nobody(names: Names) -> None:
    async with serving(answering) as server:
        await at(server.port)(Resolver(), "127.0.0.1")
    assert names.asked == []


async def test_an_address_in_numbers_is_read_once_in_a_while(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def getaddrinfo(host: str, *args: Any, **more: Any) -> Any:
        read.append(host)
        return REAL(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    resolver, now = Resolver(), trio.current_time()
    for _ in range(3):
        assert resolver.in_numbers("127.0.0.1") == [(socket.AF_INET, ("127.0.0.1", 0))]
    assert read == ["127.0.0.1"]
    monkeypatch.setattr(trio, "current_time", lambda: now + KEEP_SECONDS + 1)
    assert resolver.in_numbers("127.0.0.1")
    assert read == ["127.0.0.1"] * 2
    resolver.forget("127.0.0.1")
    assert resolver.in_numbers("127.0.0.1")
    assert read == ["127.0.0.1"] * 3


async def test_a_known_name_is_not_read_as_numbers(names: Names) -> None:
    resolver = Resolver()
    names.go.set()
    assert resolver.in_numbers("model.test") is None
    await resolver.begin("model.test").for_targets()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", None)
        assert resolver.in_numbers("model.test") is None
        assert resolver.known("model.test") == names.addresses


async def test_a_resolver_of_the_programs_own_is_asked_for_names_alone(names: Names) -> None:
    class Refusing(trio.abc.HostnameResolver):
        async def getaddrinfo(self, host: Any, *args: Any) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, f"asked for {host!r}")

        async def getnameinfo(self, *args: Any) -> Any:
            raise NotImplementedError

    own = Refusing()
    trio.socket.set_custom_hostname_resolver(own)
    async with serving(answering) as server:
        await at(server.port)(Resolver(), "127.0.0.1")
        for _ in range(2):  # asking for the resolver leaves it in its place
            with pytest.raises(socket.gaierror, match="asked for"):
                await at(server.port)(Resolver(), "model.test")
    assert trio.socket.set_custom_hostname_resolver(None) is own
    assert names.asked == []


async def test_addresses_of_which_none_answers_are_looked_up_anew(names: Names) -> None:
    resolver = Resolver()
    names.go.set()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for _ in range(2):
        with pytest.raises(OSError, match=r"."):
            await dial(resolver, "model.test", port, untold)
    assert len(names.asked) == 2


async def test_of_two_addresses_the_one_that_answers_is_taken(names: Names) -> None:
    names.go.set()
    async with serving(answering) as server:
        names.addresses = [
            (socket.AF_INET, ("127.0.0.2", 0)),  # nobody listens there
            (socket.AF_INET, ("127.0.0.1", 0)),
        ]
        sock = await dial(Resolver(), "model.test", server.port, untold)
        assert sock.getpeername() == ("127.0.0.1", server.port)
        sock.close()


async def test_without_a_free_file_no_host_is_called_unknown(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's look-up says so, since it can open neither its files nor a socket."""
    names.failure = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    names.go.set()
    full = OSError(errno.EMFILE, "Too many open files")
    monkeypatch.setattr(lookup, "out_of_files", lambda: full)
    with pytest.raises(OSError, match="Too many") as caught:
        await dial(Resolver(), "model.test", 80, untold)
    assert caught.value.errno == errno.EMFILE


def test_a_look_up_that_outlasts_its_run_changes_nothing_in_the_next(names: Names) -> None:
    resolver = Resolver()

    async def give_up() -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(dial, resolver, "model.test", 80, untold))
                await asked(names, 1)
                scope.cancel()

    async def again() -> None:
        async with serving(answering) as server:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(at(server.port), resolver, "model.test")
                await asked(names, 2)
                names.go.set()

    trio.run(give_up)
    trio.run(again)
    assert names.asked == ["model.test"] * 2


async def test_a_connection_to_this_machine_is_waited_for_only_if_it_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[object] = []
    real = trio.lowlevel.wait_writable

    async def wait_writable(sock: Any) -> None:
        waited.append(sock)
        await real(sock)

    monkeypatch.setattr(trio.lowlevel, "wait_writable", wait_writable)
    async with serving(answering) as server:
        here = (socket.AF_INET, ("127.0.0.1", 0))
        with trio.testing.assert_checkpoints():
            (await _connect(here, server.port)).close()
        at_once = len(waited)
        monkeypatch.setattr(dialing, "_is_connected", lambda sock: False)
        with trio.testing.assert_checkpoints():
            (await _connect(here, server.port)).close()
    assert len(waited) == at_once + 1


async def test_who_is_cancelled_connects_to_nobody() -> None:
    """Also where the system refuses at once, so that nothing is waited for."""
    nobody = (socket.AF_INET, ("255.255.255.255", 0))
    with pytest.raises(OSError):
        await _connect(nobody, 80)
    with trio.CancelScope() as scope:
        scope.cancel()
        await _connect(nobody, 80)
    assert scope.cancelled_caught
