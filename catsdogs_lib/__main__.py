"""``python -m catsdogs_lib``: the command line, where no script is installed."""

from catsdogs_lib.cli import main

if __name__ == "__main__":
    main()
