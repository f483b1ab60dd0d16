"""The current state of records at their home, as changes."""

from __future__ import annotations

from collections.abc import Mapping

from polystore.errors import DecodeError, StalenessTimeout
from polystore.model import EVERYTHING, UNREADABLE, Change, Key, key_hash
from polystore.protocols import Repository
from polystore.store import Store

PROBE = 100
"""Records that are looked at to tell a damaged record from a type that this process cannot read."""


async def load(home: Store, versions: Mapping[Key, int]) -> dict[Key, Change]:
    """The newest state of each record, whatever version was asked for: older events coalesce into it.

    `versions` maps key to the version owed, which a record that the home knows nothing of any more is deleted at: its
    tombstone was collected. A record that a home which cannot commit has lost is left out. Raises what the home
    raises; DecodeError means that this process cannot read the type.
    """
    keys = list(versions)
    try:
        records = await home.get(keys)
    except StalenessTimeout as e:
        # All that were lost are told at once, after one wait: the others are asked for without them.
        rest = {key: version for key, version in versions.items() if key not in e.lost}
        if len(rest) == len(versions):
            raise
        return await load(home, rest) if rest else {}
    changes: dict[Key, Change] = {}
    for key, record in zip(keys, records, strict=True):
        h = key_hash(key.tenant, key.etype, key.id)
        if record is None:
            changes[key] = Change(key, versions[key], h, None, b"", 0)
        else:
            changes[key] = Change(
                key, record.version, h, record.body, record.hash, record.updated_us, expires_us=record.expires_us
            )
    return changes


async def load_each(home: Store, versions: Mapping[Key, int]) -> tuple[dict[Key, Change], dict[Key, DecodeError]]:
    """As `load` for records of one type and tenant, those apart that are damaged at the home: they hold up no others.
    Raises DecodeError only where this process can read none of the type."""
    try:
        return await load(home, versions), {}
    except DecodeError as e:
        if len(versions) == 1:
            (key,) = versions
            if not await _readable(home, key.etype):
                raise
            return {}, {key: e}
    keys, half = list(versions), len(versions) // 2
    parts = [await load_each(home, {key: versions[key] for key in some}) for some in (keys[:half], keys[half:])]
    (changes, damaged), (more, others) = parts
    return {**changes, **more}, {**damaged, **others}


async def _readable(home: Store, etype: str) -> bool:
    looked = 0
    for tenant in await home.call(Repository.tenants, etype):
        page = await home.call(Repository.scan, etype, tenant, EVERYTHING, None, PROBE - looked)
        if any(one.fault != UNREADABLE for one in page.stamps):
            return True
        looked += len(page.stamps)
        if looked >= PROBE:
            break
    return False
