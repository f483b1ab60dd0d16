"""What is left of deleted records, removed when its time is over.

The newest version that was removed stays known: one document of the index, without a tenant and so no record, has it
for its own version. Two processes that purge at the same time cannot set it back: the server refuses what is older.
"""

from __future__ import annotations

from typing import Final

import msgspec

from polystore_adapters.elasticsearch.held import Held
from polystore_adapters.elasticsearch.records import bulk_action, outcome
from polystore_adapters.elasticsearch.server import Document, Server

PAGE: Final = 1_000
"""Tombstones that one call removes at most; no smaller than the largest batch of changes (`Limits.batch_max`), so that
whoever purges once for each batch removes more than it adds."""
NOTE: Final = "#newest"
"""The id of the note; those of records have a slash, or more behind the #."""


async def purge(server: Server, held: Held) -> bool:
    """Remove tombstones whose time is over, unless something newer came meanwhile. Returns whether there are more."""
    await server.seen(held.index)
    body: Document = {
        "query": {"range": {"ps_purge_us": {"lte": server.env.now_us()}}},
        "sort": [{"ps_purge_us": "asc"}],
        "size": PAGE,
        "_source": ["ps_version"],
        "track_total_hits": False,
    }
    hits = (await server.ask("POST", f"/{held.index}/_search", body))["hits"]["hits"]
    versions = {hit["_id"]: hit["_source"]["ps_version"] for hit in hits}
    if not versions:
        return False
    top = max(versions.values())
    lines = [bulk_action("index", held.index, NOTE, top, "external"), msgspec.json.encode({"ps_version": top})]
    await _sent(server, held, lines)
    await _sent(server, held, [bulk_action("delete", held.index, *one, "external_gte") for one in versions.items()])
    return len(versions) == PAGE


async def _sent(server: Server, held: Held, lines: list[bytes]) -> None:
    """Nothing is deleted before the note stands: a part of it that fails is raised."""
    for item in (await server.bulk(lines, held.index))["items"]:
        (one,) = item.values()
        if one["status"] != 404:  # somebody else has removed it
            outcome(one)
