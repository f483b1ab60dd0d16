"""Conditions. The server has no index of fields: what is asked for by key is looked up, everything by key is read from
the keys in order, and anything else looks at all records of the type and tenant, up to a bound."""

from __future__ import annotations

from collections.abc import Sequence

from polystore.errors import UnsupportedOperation
from polystore.filters import All, Checked, Compare, Sort, predicate
from polystore.model import Key, Record
from polystore_adapters.redis.records import Records


async def find(
    records: Records, etype: str, tenant: str, where: Checked | None, order: Sequence[Sort], limit: int, most: int
) -> list[Record]:
    """See `SupportsFilter.find`. Raises UnsupportedOperation where more than `most` records would be looked at: not for
    a page of all records by key, from the first or behind a key."""
    key = (records.types[etype].entity.key,)
    if [(sort.path, sort.descending) for sort in order[:1]] == [(key, False)]:
        match where:
            case None:
                return await records.by_key(etype, tenant, None, limit)
            case Compare(path, ">", value, _) if path == key:
                return await records.by_key(etype, tenant, str(value), limit)
            case _:
                pass
    found = await _meant(records, etype, tenant, where, most)
    for sort in reversed(order):  # sorting is stable: the least important comes first
        found = _sorted(found, sort)
    return found[: max(limit, 0)]


async def count(records: Records, etype: str, tenant: str, where: Checked | None, most: int) -> int:
    """See `SupportsFilter.count`; as `find`, but that without a condition any number is counted."""
    if where is None:
        return (await records.sizes(etype, [tenant]))[0]
    return len(await _meant(records, etype, tenant, where, most))


async def _meant(records: Records, etype: str, tenant: str, where: Checked | None, most: int) -> list[Record]:
    ids = _ids(records, etype, where)
    if ids is not None:
        asked = await records.get([Key(tenant, etype, id) for id in ids])
        found = [one for one in asked if one is not None]
    else:
        (size,) = await records.sizes(etype, [tenant])
        if size > most:
            raise UnsupportedOperation(
                f"{etype}: this store has no index of fields, and finds among {most} records at most (option "
                f"find_max); there are {size}. Ask by key, raise find_max, or give the type a home that has indexes"
            )
        found = await records.everything(etype, tenant)
    holds = predicate(where) if where is not None else None
    return [one for one in found if one.body is not None and (holds is None or holds(one.body))]


def _ids(records: Records, etype: str, where: Checked | None) -> list[str] | None:
    """The keys that the condition names; None when others may be meant."""
    entity = records.types[etype].entity
    for part in where.parts if isinstance(where, All) else (where,):
        if isinstance(part, Compare) and part.path == (entity.key,) and part.op in ("==", "in"):
            values = part.value if part.op == "in" else [part.value]
            return sorted({entity.key_id(value) for value in values if value not in (None, "")})
    return None


def _sorted(found: list[Record], sort: Sort) -> list[Record]:
    (field,) = sort.path
    present = [(one.body[field], one) for one in found if one.body is not None and one.body[field] is not None]
    missing = [one for one in found if one.body is None or one.body[field] is None]
    present.sort(key=lambda pair: pair[0], reverse=sort.descending)
    return [one for _, one in present] + missing
