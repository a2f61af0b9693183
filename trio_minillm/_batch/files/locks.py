"""Locks that keep processes apart in a file, and file systems that have none."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such locks: two writers are not kept apart
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS: bool = fcntl is not None
"""False on Windows."""
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
"""Errors of file systems without locks: NFS without its lock daemon, Lustre mounted without
``flock``, some in user space."""

_log = logging.getLogger("trio_minillm")


def lock_whole(fd: int) -> OSError | None:
    """Lock an open file for this process, until it is closed.

    Returns the reason if the file system has no locks. Raises `BlockingIOError` if another open
    file has the lock.
    """
    if fcntl is None:
        return None
    return _refusal(partial(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB))


def lacks_ranges(fd: int) -> OSError | None:
    """Return the reason if the file system has no locks on parts of a file, as SQLite needs them."""
    if fcntl is None:
        return None
    # The first byte, shared: SQLite locks only bytes far behind it, so this disturbs nobody.
    return _refusal(partial(fcntl.lockf, fd, fcntl.LOCK_SH | fcntl.LOCK_NB, 1))


def _refusal(lock: Callable[[], None]) -> OSError | None:
    try:
        lock()
    except OSError as exc:
        if exc.errno not in _NO_LOCKS:
            raise
        return exc
    return None


def warn_unlocked(path: Path, why: OSError, danger: str) -> None:
    """Say once for this file that nothing keeps other processes away, and what they could do."""
    reason = why.strerror or type(why).__name__
    _log.warning("%s is on a file system without locks (%s): %s", path, reason, danger)
