"""The command as a module: ``python -m trio_minillm``. Nothing else imports it."""

from trio_minillm.cli import main

main()
