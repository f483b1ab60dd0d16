"""Neo4j 5: copies of records as nodes, their relations as relationships. Read `nodes.py` first (what lies there), then
`records.py` (the guard), `graph.py` (walks), `prepare.py`; `server.py` is the driver.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from polystore.env import Env

if TYPE_CHECKING:
    from polystore_adapters.neo4j.repository import Neo4jRepository

__all__ = ["connect"]


async def connect(url: str, options: Mapping[str, Any], env: Env) -> Neo4jRepository:
    """`neo4j://USER:PASSWORD@HOST:PORT[/DATABASE]`, `bolt://` for one server without routing, `+s` and `+ssc` with TLS.
    Options: see `Options`; all others are the driver's own. Nothing is sent before the first call. Raises
    ConfigurationError."""
    from polystore_adapters.neo4j.repository import Neo4jRepository  # imports the driver
    from polystore_adapters.neo4j.server import Server, parse

    return Neo4jRepository(Server(parse(url, options)), env)
