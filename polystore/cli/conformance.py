"""The command conformance: the kit, run on the store behind a URL."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Annotated

import typer

from polystore.cli.running import USAGE, Context


def conformance(
    context: typer.Context,
    url: Annotated[
        str,
        typer.Argument(
            help="Of the server; or, with {} where a name may stand, of a store for each test: sqlite:kit/{}.db"
        ),
    ],
    layers: Annotated[
        bool, typer.Option("--layers", help="What is done as a copy, under retry, breaker and the like too.")
    ] = False,
    kit: Annotated[
        list[str] | None, typer.Option("--kit", metavar="CLASS", help="This class of the kit only. Repeated.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="TEXT", help="Tests whose names hold this. Repeated.")
    ] = None,
) -> None:
    """Run the conformance kit on a store, and say what passed. Needs pytest. Of PostgreSQL, MariaDB, MongoDB and Redis
    each test gets a schema, a database or a prefix of its own, which is removed afterwards. Exit code 1 when a test
    failed."""
    state: Context = context.obj
    # In a process of its own: nothing that ships imports the kit, and pytest takes over whatever it runs in.
    command = [sys.executable, "-m", "polystore.testing.kit", url, *(["--json"] if state.json else [])]
    command += ["--layers"] if layers else []
    command += [*(f"--kit={name}" for name in kit or ()), *(f"--only={text}" for text in only or ())]
    if importlib.util.find_spec("pytest") is None:
        state.errors.print("the kit needs pytest: pip install pytest")
        raise typer.Exit(USAGE) from None
    raise typer.Exit(subprocess.run(command, check=False).returncode)
