"""Which format a file has, and the module for one of them, imported when it is used."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Literal, get_args

from polystore.errors import ConfigurationError
from polystore.registry import unknown

Format = Literal["csv", "jsonl", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)
_SUFFIXES: dict[str, Format] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


def format_of(path: Path, given: str | None) -> Format:
    """The given format, else the one that the name's ending means. Raises ConfigurationError where neither helps."""
    if given is not None:
        for known in FORMATS:
            if given == known:
                return known
        raise unknown("the format", given, FORMATS)
    suffix = path.with_suffix("").suffix if is_gzip(path) else path.suffix
    found = _SUFFIXES.get(suffix.lower())
    if found is None:
        raise ConfigurationError(
            f"{path.name}: its ending names no format; rename it (.csv, .jsonl, .parquet, the first two also with .gz) "
            f"or say the format: {', '.join(FORMATS)}"
        )
    return found


def is_gzip(path: Path) -> bool:
    """Whether the name says that the file is compressed."""
    return path.suffix.lower() == ".gz"


def arrow(module: str = "pyarrow") -> Any:
    """A module of pyarrow. Raises ConfigurationError naming what to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise ConfigurationError(
            'Parquet files need pyarrow, which is not installed: pip install "polystore-hybrid[parquet]"'
        ) from None
