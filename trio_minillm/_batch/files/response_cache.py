"""A cache of finished answers in a file of SQLite, so that each is paid for once.

On Trio's loop there is only a look-up by a unique key (about 20 µs). Writes go to a worker thread, in
one transaction for all that wait.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec
import trio
from msgspec.structs import replace

from ..._protocol.request import Prepared
from ..._types.cost import CostInfo, CostResolution
from ..._types.errors import MiniLLMError
from ..._types.response import CompletionResponse, Outcome
from ...providers.anthropic import OAUTH_BETA
from .cache_format import dump_response, load_response
from .locks import lacks_ranges, warn_unlocked

MAX_ANSWER = 64 << 20
"""Bytes of the longest answer that is stored, as JSON."""
READ_SECONDS = 1.0
"""Seconds that a look-up may wait for another process. In SQLite's WAL mode a reader waits only while
the first process after a crash repairs the file."""
WRITE_SECONDS = 60.0
"""Seconds that a write may wait for those of other processes."""
BUSY_SECONDS = 0.01
"""Seconds between two tries to put a new file into WAL mode, which takes a few milliseconds."""

FREE = CostInfo(Decimal(0), CostResolution.RESOLVED, "cache")
"""Cost of an answer from the cache."""

_MAGIC = b"SQLite format 3\0"
_APPLICATION = 0x6D6C6C63  # "mllc", in the file's header
_VERSION = 1
_SCHEMA = """
CREATE TABLE answers (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, used INTEGER NOT NULL, answer BLOB NOT NULL
);
CREATE INDEX by_use ON answers (used);
CREATE TABLE size (answers INTEGER NOT NULL);
INSERT INTO size VALUES (0);
CREATE TRIGGER more AFTER INSERT ON answers BEGIN UPDATE size SET answers = answers + 1; END;
CREATE TRIGGER fewer AFTER DELETE ON answers BEGIN UPDATE size SET answers = answers - 1; END;
"""
_DECIDING_HEADERS = ("anthropic-version", "anthropic-beta", "openai-beta")
"""Headers on which an answer depends, also where a caller gave them by hand."""
_log = logging.getLogger("trio_minillm")


class CacheError(MiniLLMError):
    """The file is not a cache of this library, is damaged, or has a newer version."""


class ResponseCache:
    """Finished answers in a file, which are found again by the exact request: ``cache=`` of a
    batch.

    Two requests are the same if their wire format, address, model, body, and sample number are, to
    the byte. A local model has another address after each start, so its ``identity`` counts
    instead. API keys and a model's ``headers`` make no difference and are not stored. Prompts are
    not stored either, but only a hash of the complete request.

    - ``path`` is the file. Its folder must exist and be on a local disk. A folder without locks is
      reported once, and only one process at a time may use a file there. The file is created with
      mode 0600.
    - ``max_entries`` limits the number of answers. The least recently used ones are dropped. The
      default is no limit.

    Guarantees:

    - An answer survives the death of the process once `put` has returned. After a power failure,
      the newest answers may be missing, but the file is intact.
    - Any number of processes on one machine may use the file at the same time.
    - Only answers with the outcome ``finished`` are stored. A found answer is the stored one,
      except that it costs nothing (``cost`` is 0 USD, from ``"cache"``).
    - An error of the file while it is in use costs no request its answer. The answer is not found
      or not stored, which is logged once and counted in `faults`.

    A cache belongs to one Trio loop and one process. It can be pickled, and opens the file again
    when it is unpickled. Close it, or use it as ``with llm.ResponseCache(path) as cache``.

    Raises ``OSError`` if the file can't be read or written, and `CacheError` if it is something
    else.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_entries: int | None = None) -> None:
        if max_entries is not None and (type(max_entries) is not int or max_entries < 1):
            raise ValueError("max_entries must be a whole number, 1 or more")
        self.path: Path = Path(path).absolute()  # a program may change its directory
        self.max_entries: int | None = max_entries
        self.hits: int = 0
        """Look-ups that found an answer."""
        self.misses: int = 0
        """Look-ups that found none."""
        self.faults: int = 0
        """Look-ups and answers that were lost to a fault of the file."""
        self.unwritten: str | None = None
        """The reason why answers could not be stored, if some could not."""
        self._pid = os.getpid()
        self._turn = trio.Lock()
        self._new: dict[bytes, bytes] = {}
        self._used: dict[bytes, int] = {}
        self._reads: sqlite3.Connection | None = None
        self._writes: sqlite3.Connection | None = None
        self._open()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.path, self.max_entries)

    def __repr__(self) -> str:
        return f"<ResponseCache {self.hits} hits, {self.misses} misses>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Return the number of answers in the file, of all processes."""
        row = self._reader().execute("SELECT answers FROM size").fetchone()
        return int(row[0])

    def get(self, key: bytes, response_type: Any = None) -> CompletionResponse | None:
        """Return the answer to the request with this key (from `request_key`), or ``None``.

        ``response_type`` is the request's type, for `CompletionResponse.parsed`.
        """
        reader = self._reader()
        try:
            row = reader.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
            found = None if row is None else load_response(row[0])
        except (sqlite3.Error, msgspec.MsgspecError, ValueError, IndexError) as error:
            self._fault("read", error)
            found = None
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        if self.max_entries is not None:
            self._used[key] = time.time_ns()
        return replace(found, cost=FREE, response_type=response_type)

    async def put(self, key: bytes, response: CompletionResponse) -> None:
        """Store an answer, and return once it is in the file. An answer that is not finished is
        ignored.

        Answers that arrive while another is written share the next transaction.
        """
        self._reader()
        if response.outcome is Outcome.FINISHED:
            answer = self._dumped(response)
            if answer is not None:
                self._new[key] = answer
        async with self._turn:
            if key in self._new:  # else it went with another's
                await self._flush()

    def close(self) -> None:
        """Write the answers that a cancelled `put` left behind, and close the file. You may call
        this again.
        """
        if self._pid != os.getpid():
            return
        if self._writes is not None and (self._new or self._used):
            self._write(self._new, self._used)
            self._new, self._used = {}, {}
        for connection in (self._reads, self._writes):
            if connection is not None:
                connection.close()
        self._reads = self._writes = None

    def __del__(self) -> None:
        # Python 3.13 warns about a connection that is left open.
        for name in ("_reads", "_writes"):
            connection = getattr(self, name, None)
            if connection is not None and self._pid == os.getpid():
                connection.close()

    # -- the file --------------------------------------------------------------------------

    def _open(self) -> None:
        path = self.path
        if not path.parent.is_dir():
            raise FileNotFoundError(
                errno.ENOENT, "the cache's folder does not exist", str(path.parent)
            )
        if path.exists() and not path.is_file():
            code = errno.EISDIR if path.is_dir() else errno.EINVAL
            raise OSError(code, "the cache must be a regular file", str(path))
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "rb+") as file:
            head = file.read(len(_MAGIC))  # SQLite's side files get the same mode
            unlocked = lacks_ranges(file.fileno())
        try:
            if head not in (b"", _MAGIC):  # SQLite would write over one that is very short
                raise sqlite3.DatabaseError("file is not a database")
            self._writes = self._connect(WRITE_SECONDS, unlocked is None)
            _prepare(self._writes)
            if unlocked is None:
                self._reads = self._connect(READ_SECONDS)
                self._reads.execute("PRAGMA query_only = 1")
            else:  # without locks, only sharing a connection keeps a reader from half a write
                self._reads = self._writes
                danger = "a second process that opens it at the same time can ruin it"
                warn_unlocked(path, unlocked, danger)
            self._reads.execute("SELECT answers FROM size").fetchone()
        except sqlite3.Error as error:
            self.close()
            raise CacheError(f"not a usable response cache: {path} ({error})") from None
        except CacheError as error:
            self.close()
            raise CacheError(f"{error}: {path}") from None

    def _connect(self, seconds: float, locks: bool = True) -> sqlite3.Connection:
        # The connection for writes moves between worker threads, one at a time.
        connection = sqlite3.connect(
            self.path.as_uri() + ("" if locks else "?vfs=unix-none"),
            uri=True,
            timeout=seconds,
            isolation_level=None,
            check_same_thread=False,
        )
        if not locks:  # its WAL mode then needs no memory that processes share
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _reader(self) -> sqlite3.Connection:
        if self._pid != os.getpid():
            raise RuntimeError("this cache was opened in another process: open it in each")
        if self._reads is None:
            raise RuntimeError("this cache is closed")
        return self._reads

    def _dumped(self, response: CompletionResponse) -> bytes | None:
        try:
            answer = dump_response(response)
        except (TypeError, ValueError, RecursionError) as error:  # a foreign wire's metadata
            self._fault("encoded", error)
            return None
        return answer if len(answer) <= MAX_ANSWER else None

    async def _flush(self) -> None:
        new, self._new = self._new, {}
        used, self._used = self._used, {}
        try:
            await trio.to_thread.run_sync(self._write, new, used)
        except BaseException:  # cancelled before it began
            self._new = new | self._new
            self._used = used | self._used
            raise

    def _write(self, new: dict[bytes, bytes], used: dict[bytes, int]) -> None:
        """Write all in one transaction, in a worker thread (or in `close`)."""
        writer = self._writes
        assert writer is not None
        now = time.time_ns()
        try:
            writer.execute("BEGIN IMMEDIATE")
            try:
                writer.executemany(
                    "UPDATE answers SET used = ? WHERE key = ?", ((t, k) for k, t in used.items())
                )
                writer.executemany(
                    "INSERT INTO answers (key, used, answer) VALUES (?, ?, ?) ON CONFLICT (key)"
                    " DO UPDATE SET used = excluded.used, answer = excluded.answer",
                    ((key, now, answer) for key, answer in new.items()),
                )
                if self.max_entries is not None:
                    writer.execute(
                        "DELETE FROM answers WHERE id IN (SELECT id FROM answers ORDER BY used, id"
                        " LIMIT max(0, (SELECT answers FROM size) - ?))",
                        (self.max_entries,),
                    )
                writer.execute("COMMIT")
            except BaseException:
                if writer.in_transaction:
                    writer.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            self.unwritten = _words(error)
            self._fault("written", error, len(new))

    def _fault(self, what: str, error: Exception, count: int = 1) -> None:
        if not self.faults:
            told = what, _words(error)
            _log.warning(
                "the response cache %s can't be %s (%s): continuing without it", self.path, *told
            )
        self.faults += count


def _words(error: Exception) -> str:
    if not isinstance(error, sqlite3.Error):
        return type(error).__name__
    full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return os.strerror(errno.ENOSPC) if full else str(error)


def _reopened(path: Path, max_entries: int | None) -> ResponseCache:
    return ResponseCache(path, max_entries=max_entries)


def _prepare(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty file. Raises `CacheError`, and changes nothing, for another kind of
    file.
    """
    connection.execute(
        "BEGIN"
    )  # else another process could make the file in the middle of the check
    try:
        _check_file(connection)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    _use_wal(connection)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _check_file(connection):  # another process may have made them meanwhile
            for statement in _statements(_SCHEMA):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Put the file into WAL mode. SQLite itself does not wait where two processes do that at once."""
    give_up = time.monotonic() + WRITE_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
        time.sleep(BUSY_SECONDS)


def _check_file(connection: sqlite3.Connection) -> bool:
    """Return True if the file is a cache, False if it is empty. Raises `CacheError` for all else."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (things,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not application and not version and not things:
        return False
    if application != _APPLICATION:
        raise CacheError("a database of another program, not a response cache")
    if version != _VERSION:
        raise CacheError(f"a response cache of version {version}, not {_VERSION}")
    return True


def _statements(script: str) -> Iterable[str]:
    """Yield the statements of a script. (``executescript`` would end the transaction.)"""
    statement = ""
    for line in script.strip().splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def request_key(request: Prepared, sample: int = 0) -> bytes:
    """Return the hash that two requests share if and only if they are the same; 32 bytes."""
    model = request.model
    provider, url = model.provider, request.url
    if model.identity is not None:  # no request has an address of this scheme
        url = urlsplit(url)._replace(scheme="local", netloc=model.identity).geturl()
    headers = {k: request.headers[k] for k in _DECIDING_HEADERS if k in request.headers}
    betas = headers.get("anthropic-beta", "").split(",")
    if OAUTH_BETA in betas:  # no answer depends on the kind of the key
        headers["anthropic-beta"] = ",".join(beta for beta in betas if beta != OAUTH_BETA)
        if betas == [OAUTH_BETA]:
            del headers["anthropic-beta"]
    asked = (
        *(_VERSION, provider.name, url, model.name, headers),
        *(request.expect_usage, request.choices, request.lenient, sample),
    )
    digest = hashlib.sha256(msgspec.json.encode(asked))
    digest.update(b"\n")
    digest.update(request.body)
    return digest.digest()
