"""`sqlite:PATH`: all kinds of data in one SQLite file; and `embedded:DIR`, a profile
of such files, one for each role, and a directory for blobs.

Read `database.py` first (connections, group commit), then `table.py` and `records.py` (rows and the guard),
`commit.py`, `journal.py`, `prepare.py`; `repository.py` puts them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from polystore.env import Env
from polystore.errors import ConfigurationError

if TYPE_CHECKING:
    from polystore_adapters.sqlite.repository import SqliteRepository

__all__ = ["connect", "embedded_profile"]

_ROLES = {
    "home": ["home", "journal"],
    "full_text": ["full_text"],
    "vector": ["vector"],
    "graph": ["graph"],
    "facts": ["time_series"],
    "state": ["live_state"],
}


async def connect(url: str, options: Mapping[str, Any], env: Env) -> SqliteRepository:
    """The file PATH, absolute or relative to the working directory; it is made by `prepare`. Options: see `Options`.

    Raises ConfigurationError, StoreCorrupt, SchemaMismatch, PermissionDenied.
    """
    from polystore_adapters.sqlite.options import parse
    from polystore_adapters.sqlite.repository import SqliteRepository  # imports SQLAlchemy

    known = parse(options)
    repository = SqliteRepository(_path(url, "sqlite") + ("~2" if known.place == 2 else ""), known, env)
    await repository.open()
    return repository


def embedded_profile(url: str) -> Mapping[str, Mapping[str, Any]]:
    """The stores of `embedded:DIR`: a file for each role, so that no index slows the commit of the records down, and a
    directory for files."""
    directory = _path(url, "embedded").rstrip("/")
    return {
        **{name: {"url": f"sqlite:{directory}/{name}.db", "roles": roles} for name, roles in _ROLES.items()},
        "files": {"url": f"file:{directory}/files", "roles": ["file"]},
    }


def _path(url: str, scheme: str) -> str:
    """The path after the scheme. Raises ConfigurationError for what only looks like one."""
    path = url.partition(":")[2]
    if not path or path.startswith(("//", ":")) or "\0" in path:
        raise ConfigurationError(
            f"{scheme}: is followed by a path, for example {scheme}:data/app or {scheme}:/srv/data/app; for a store in "
            "memory use memory:"
        )
    return path
