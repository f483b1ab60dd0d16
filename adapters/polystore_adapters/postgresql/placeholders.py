"""Parameters of one statement inside another."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(\d+)""")


def shifted(sql: str, by: int) -> str:
    """The SQL with $1 as $(by + 1) and so on. Texts and names in quotes stay as they are."""
    return _TOKEN.sub(lambda found: found[0] if found[1] is None else f"${int(found[1]) + by}", sql)
