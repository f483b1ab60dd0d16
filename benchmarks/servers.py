"""The servers that rows are measured on: POLYSTORE_TEST_<NAME>_URL, or what `make up` noted."""

from __future__ import annotations

import os
from pathlib import Path

NOTED = Path(__file__).parents[1] / "compose" / "servers.env"


class LeftOutError(Exception):
    """A row, or a part of one, cannot be measured here; the text says why."""


def url_of(name: str) -> str:
    """The URL of a server, by its name in `make stack-status`. Raises LeftOutError."""
    variable = f"POLYSTORE_TEST_{name.upper().replace('-', '_')}_URL"
    try:
        lines = NOTED.read_text().splitlines()
    except FileNotFoundError:
        lines = []
    noted = {key: value for key, _, value in (line.partition("=") for line in lines)}
    found = os.environ.get(variable) or noted.get(variable)
    if not found:
        raise LeftOutError(f"{name}: no {variable}, and none of `make up` in compose/{NOTED.name}")
    return found
