"""The command `joyedit`, and `python -m joyedit`."""

from __future__ import annotations

import signal


def start() -> None:
    """Run the command line of this process, and exit with its code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until `main` takes it: Ctrl-C while Python imports ends the process, and prints no traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from joyedit.cli.main import main

    main()


if __name__ == "__main__":
    start()
