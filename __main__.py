"""The command `credentials`, as it is installed: `python -m leadvibe_credentials`.

A wheel has these files in a directory of their own, so that `app` and `wsgi` are names in this
process only (ADR 25).
"""

import sys
from importlib import import_module
from pathlib import Path


def main() -> None:
    """Run the command."""
    sys.path.insert(0, str(Path(__file__).parent))
    import_module("app.cli.commands").main()


if __name__ == "__main__":
    main()
