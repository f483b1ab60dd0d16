"""Sizes as quantities: "500MB", "1.5 GB", "1GiB", or bytes as int. Never compared as strings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

from polystore.errors import ConfigurationError

UNITS: Final[Mapping[str, int]] = {
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate(("k", "M", "G", "T", "P"), start=1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate(("K", "M", "G", "T", "P"), start=1)},
}
"""Unit -> bytes. Decimal units by powers of 1000 (SI), binary ones by powers of 1024 (IEC 80000-13)."""

_BYTES_BY_UNIT = {unit.lower(): size for unit, size in UNITS.items()}
# 18 digits reach past any real amount and keep a hostile text from costing time.
_QUANTITY = re.compile(r"\s*(-?[0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([a-z]*)\s*", re.IGNORECASE)


def parse_size(size: str | int) -> int:
    """The number of bytes that `size` says.

    An int is bytes. A text is a number and a unit of `UNITS`, in any case ("mb" are megabytes, never megabits), with or
    without spaces; a fraction of a byte is dropped. A text without unit is refused: "500" may have been meant as
    megabytes. Raises ConfigurationError for everything else, negative amounts included.
    """
    if isinstance(size, int) and not isinstance(size, bool):
        amount: Fraction | int = size
    elif isinstance(size, str):
        amount = _parse(size)
    else:
        raise ConfigurationError(f"a size is a text like '1.5 GB' or an int of bytes, not {type(size).__name__}")
    if amount < 0:
        raise ConfigurationError(f"size {size!r} is negative; a size is 0 bytes or more")
    return int(amount)


def _parse(text: str) -> Fraction:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ConfigurationError(f"size {text!r} is not a number and a unit; write it like '1.5 GB'; {_known_units()}")
    number, unit = match.groups()
    if not unit:
        raise ConfigurationError(f"size {text!r} has no unit; write '{number} B' for bytes; {_known_units()}")
    if unit.lower() not in _BYTES_BY_UNIT:
        raise ConfigurationError(f"size {text!r} has the unknown unit {unit!r}; {_known_units()}")
    return Fraction(number) * _BYTES_BY_UNIT[unit.lower()]


def _known_units() -> str:
    return f"units: {', '.join(UNITS)}"
