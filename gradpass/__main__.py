"""Lets `python -m gradpass` do what `gradpass` does."""

from gradpass.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
