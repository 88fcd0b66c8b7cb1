"""`python -m headgate` is the same program as `headgate`."""

from __future__ import annotations

from headgate.cli.app import main

if __name__ == "__main__":
    main()
