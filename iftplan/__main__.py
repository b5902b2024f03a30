"""`python -m iftplan`."""

from iftplan.cli.main import main

if __name__ == "__main__":
    main()
