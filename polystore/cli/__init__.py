"""The command line, `polystore`. Needs the extra `cli`; nothing else of polystore does."""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point. Ends the process with one of the exit codes of `polystore.cli.running`."""
    try:
        from polystore.cli.app import app
    except ModuleNotFoundError as e:
        if e.name not in ("typer", "rich", "click"):
            raise
        sys.stderr.write(f'The command line needs {e.name}: pip install "polystore-hybrid[cli]"\n')
        raise SystemExit(2) from None
    app()
