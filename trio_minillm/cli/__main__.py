"""``python -m trio_minillm.cli``: the same as the command."""

from trio_minillm.cli import main

main()
