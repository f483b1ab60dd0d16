"""`file:DIR`: blobs as files of a directory. Read `objects.py` for where they lie; `repository.py` is the store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from polystore.env import Env
from polystore.errors import ConfigurationError

if TYPE_CHECKING:
    from polystore_adapters.file.repository import FileRepository

__all__ = ["Options", "connect"]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """umask: the rights that others do not get on what is made here; 0o077: only the user that runs the application
    may read it. threads: how many disk operations run at the same time."""

    umask: int = 0o077
    threads: int = 4


async def connect(url: str, options: Mapping[str, Any], env: Env) -> FileRepository:
    """The directory DIR, absolute or relative to the working directory; it is made by `prepare`. Options: see
    `Options`. Raises ConfigurationError."""
    from polystore_adapters.file.repository import FileRepository

    path = url.partition(":")[2]
    if not path or path.startswith(("//", ":")) or "\0" in path:
        raise ConfigurationError("file: is followed by a directory, for example file:data/files or file:/srv/app/files")
    try:
        return FileRepository(Path(path), msgspec.convert(dict(options), Options), env)
    except msgspec.ValidationError as e:
        known = ", ".join(Options.__struct_fields__)
        raise ConfigurationError(f"options of a file: store: {e}; known: {known}") from None
