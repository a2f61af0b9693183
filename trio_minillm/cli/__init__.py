"""The command ``trio-minillm`` (extra ``cli``)."""

import sys

_NEEDED = ("numpy", "rich", "typer")
"""Packages that the extra brings."""


def main() -> None:
    """Run the command. Ends in ``SystemExit`` with one of the documented exit codes.

    If the extra ``cli`` is missing, one line on stderr says what to install.
    """
    try:
        from ._app import main as run

        run()
    except ModuleNotFoundError as exc:
        if exc.name not in _NEEDED:
            raise
        what = f"{exc.name} is not installed: pip install 'trio-minillm[cli]'"
        sys.stderr.write(f"error: {what}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:  # Ctrl-C that nothing else has responded to
        raise SystemExit(130) from None
