"""The limit of open files of this process, which bounds how many connections it can have."""

from __future__ import annotations

from contextlib import suppress

ENOUGH_FILES = 65_536
"""Files that the limit is raised to, at most: as many connections as one address of this machine can
have to one of a server's."""


def raise_file_limit() -> None:
    """Raise this process's soft limit of open files, as far as its hard limit allows.

    The soft one is 256 (macOS) or 1,024 (Linux) by default, for the sake of programs that use
    ``select``; a connection is a file. It is never lowered, and stays as it is where the system
    refuses, or knows no such limit (Windows).
    """
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(ENOUGH_FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
