"""Where the command line begins: `pacemark`, or `python -m pacemark`."""

import sys


def entry() -> None:
    """Load the command line and call it. Ctrl-C while it loads, for some tenths of a second, is one line too."""
    try:
        from pacemark.cli import main

        main()
    except KeyboardInterrupt:
        sys.stderr.write("pacemark: stopped\n")
        sys.exit(130)


if __name__ == "__main__":
    entry()
