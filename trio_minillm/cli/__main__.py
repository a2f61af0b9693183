"""The command as a module: ``python -m trio_minillm.cli``."""

from trio_minillm.cli import main

main()
