"""The `iftplan` command, by its name or as `python -m iftplan`."""

import signal


def main() -> None:
    """Run the command line; Ctrl-C before it is loaded ends the process as signals do, with no traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from iftplan.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
