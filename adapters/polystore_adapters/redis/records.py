"""Records: brought to given versions, each only when newer than what stands. Each is one step of the server's, with the
index that it stands in; what is known of all of them is written first."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import msgspec

from polystore.env import Env
from polystore.errors import PolystoreError, SchemaMismatch
from polystore.model import (
    APPLIED,
    HASH_SPACE,
    STALE,
    Change,
    HashSpan,
    Key,
    Outcome,
    Page,
    Record,
    Stamp,
    key_hash,
)
from polystore_adapters.redis.entries import Codec, digits
from polystore_adapters.redis.keys import BUCKETS, SPAN
from polystore_adapters.redis.server import Command, Script, Server
from polystore_adapters.redis.state import milliseconds

PAGE = 1_000
"""Records of one answer."""
SHARE = 24
"""More keys than its share that a bucket is asked for: of 500 in 16 buckets, seldom one is asked twice."""

# What has no version is damaged, and yields to any.
# The record, its index, what expires, the keys in order; version, whether that overwrites itself, entry, id, key in
# order, hash, when it expires or 0.
PUT = Script("""
local before = redis.call('GETRANGE', KEYS[1], 0, 13)
if #before < 14 or string.find(before, '%X') then before = '' end
if before > ARGV[1] or (before == ARGV[1] and ARGV[2] == '0') then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[6], ARGV[4])
redis.call('ZADD', KEYS[4], 0, ARGV[5])
if ARGV[7] == '0' then redis.call('ZREM', KEYS[3], ARGV[4]) else redis.call('ZADD', KEYS[3], ARGV[7], ARGV[4]) end
return 1
""")

# As above; version, whether that overwrites itself, tombstone, id, key in order, how long that is kept. UNLINK comes
# first: also a server without room must carry this out, and once a script has written, it may go on.
BURY = Script("""
local before = redis.call('GETRANGE', KEYS[1], 0, 13)
if #before < 14 or string.find(before, '%X') then before = '' end
if before > ARGV[1] or (before == ARGV[1] and ARGV[2] == '0') then return 0 end
redis.call('UNLINK', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[4])
redis.call('ZREM', KEYS[3], ARGV[4])
redis.call('ZREM', KEYS[4], ARGV[5])
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[3], 'PX', ARGV[6])
return 1
""")

# What is known of the type, its tenants; version, tenant. HDEL removes nothing, and lets the script go on as above.
NOTE = Script("""
redis.call('HDEL', KEYS[1], '')
local newest = redis.call('HGET', KEYS[1], 'newest')
if not newest or newest < ARGV[1] then redis.call('HSET', KEYS[1], 'newest', ARGV[1]) end
redis.call('SADD', KEYS[2], ARGV[2])
return 1
""")


class Types(dict[str, Codec]):
    """Entity name -> its codec, of the types that this repository was prepared for."""

    def __missing__(self, etype: str) -> Codec:
        raise SchemaMismatch(f"nothing is prepared for {etype!r}: prepare it with create=True first")


class Place(NamedTuple):
    """Where a record stands in the index of its type and tenant."""

    h: int
    id: str


class Records:
    """The records of a server."""

    def __init__(self, server: Server, env: Env, tombstone_ttl_s: float) -> None:
        self.server = server
        self.env = env
        self.types = Types()
        self._kept_ms = milliseconds(int(tombstone_ttl_s * 1e6))

    # -- reading --------------------------------------------------------------------------------------------------

    async def get(self, keys: Sequence[Key]) -> list[Record | None]:
        """See `Repository.get`."""
        places = [Place(key_hash(key.tenant, key.etype, key.id), key.id) for key in keys]
        return await self._read(keys, places)

    async def _read(self, keys: Sequence[Key], places: Sequence[Place]) -> list[Record | None]:
        codecs = [self.types[key.etype] for key in keys]
        found = zip(codecs, keys, await self._stored(keys, places), strict=True)
        now_us = self.env.now_us()
        return [None if stored is None else codec.record(key, stored, now_us) for codec, key, stored in found]

    async def _stored(self, keys: Sequence[Key], places: Sequence[Place]) -> list[bytes | None]:
        names = [self.server.keys.record(key, place.h)[0] for key, place in zip(keys, places, strict=True)]
        parts = [await self.server.get_all(names[i : i + PAGE]) for i in range(0, len(names), PAGE)]
        return list(chain(*parts))

    async def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        """See `Repository.scan`."""
        codec = self.types[etype]
        after = None if cursor is None else msgspec.json.decode(cursor, type=Place)
        stamps: list[Stamp] = []
        while len(stamps) < limit:
            wanted = limit - len(stamps)
            places = await self.places(etype, tenant, span, after, wanted)
            keys = [Key(tenant, etype, place.id) for place in places]
            for key, place, stored in zip(keys, places, await self._stored(keys, places), strict=True):
                stamp = None if stored is None else codec.stamp(key, place.h, stored, self.env.now_us())
                stamps += [] if stamp is None else [stamp]
            if len(places) < wanted:
                return Page(stamps, None)
            after = places[-1]
        return Page(stamps, None if after is None else msgspec.json.encode(after).decode())

    async def places(self, etype: str, tenant: str, span: HashSpan, after: Place | None, limit: int) -> list[Place]:
        """At most `limit` of the index, sorted by hash and id, behind `after`; fewer when there are no more."""
        low = span.low if after is None else max(span.low, after.h)
        first, last = low // SPAN, (span.high - 1) // SPAN
        found: list[Place] = []
        # Of many records the first bucket has enough, of few all others are asked at once.
        for buckets in (range(first, first + 1), range(first + 1, last + 1)):
            left = limit - len(found)
            asked: list[Command] = []
            for bucket in buckets if left > 0 and low < span.high else ():
                index = self.server.keys.index(etype, tenant, bucket)[0]
                begin = str(low)
                if after is not None and (bucket, low) == (first, after.h):  # others may have the same hash
                    asked.append(("ZRANGEBYSCORE", index, low, low))
                    begin = f"({low}"
                asked.append(("ZRANGEBYSCORE", index, begin, f"({span.high}", "LIMIT", 0, left))
            for ids in await self.server.run(asked, writes=False):
                places = [Place(key_hash(tenant, etype, id), id) for id in map(bytes.decode, ids)]
                found += [one for one in places if after is None or one > after]
        return found[:limit]

    async def by_key(self, etype: str, tenant: str, after: str | None, limit: int) -> list[Record]:
        """At most `limit` live records in the order of their keys, behind `after`; fewer when there are no more."""
        codec = self.types[etype]
        begin = b"-" if after is None else b"(" + codec.ordered(after).encode()
        found: list[Record] = []
        while len(found) < limit:
            wanted = limit - len(found)
            keys = await self._ordered(etype, tenant, begin, wanted)
            records = await self.get([Key(tenant, etype, codec.id_of(key)) for key in keys])
            found += [record for record in records if record is not None and record.body is not None]
            if len(keys) < wanted:
                break
            begin = b"(" + keys[-1]
        return found

    async def _ordered(self, etype: str, tenant: str, begin: bytes, limit: int) -> list[bytes]:
        """The first keys of all buckets. Each is asked for a little more than its share; what is behind the end of one
        that may have more is asked again."""
        found: list[bytes] = []
        while True:
            each = (limit - len(found)) // BUCKETS + SHARE
            lists = [self.server.keys.index(etype, tenant, bucket)[2] for bucket in range(BUCKETS)]
            asked: list[Command] = [("ZRANGEBYLEX", one, begin, "+", "LIMIT", 0, each) for one in lists]
            answers: list[list[bytes]] = await self.server.run(asked, writes=False)
            known = min((part[-1] for part in answers if len(part) == each), default=None)
            found += sorted(key for part in answers for key in part if known is None or key <= known)
            if known is None or len(found) >= limit:
                return found[:limit]
            begin = b"(" + known

    async def everything(self, etype: str, tenant: str) -> list[Record]:
        """All live records of a type and tenant."""
        places = await self.places(etype, tenant, HashSpan(0, HASH_SPACE), None, 1 << 53)
        records = await self._read([Key(tenant, etype, place.id) for place in places], places)
        return [record for record in records if record is not None and record.body is not None]

    async def sizes(self, etype: str, tenants: Sequence[str]) -> list[int]:
        """How many live records each tenant has."""
        now_us = self.env.now_us()
        asked: list[Command] = []
        for tenant in tenants:
            for bucket in range(BUCKETS):
                index, expiring, _ = self.server.keys.index(etype, tenant, bucket)
                asked += [("ZCARD", index), ("ZCOUNT", expiring, "-inf", now_us)]
        answers: list[int] = await self.server.run(asked, writes=False)
        each = 2 * BUCKETS
        parts = (answers[i : i + each] for i in range(0, len(answers), each))
        return [sum(part[::2]) - sum(part[1::2]) for part in parts]

    async def tenants(self, etype: str) -> list[str]:
        """See `Repository.tenants`."""
        found = await self.server.one(("SMEMBERS", self.server.keys.about(etype)[1]), writes=False)
        names = sorted(one.decode() for one in found)
        out: list[str] = []
        for start in range(0, len(names), PAGE // BUCKETS):
            some = names[start : start + PAGE // BUCKETS]
            out += [name for name, size in zip(some, await self.sizes(etype, some), strict=True) if size > 0]
        return out

    async def newest(self, etype: str) -> int:
        """See `Repository.newest`."""
        found = await self.server.one(("HGET", self.server.keys.about(etype)[0], "newest"), writes=False)
        return 0 if found is None else int(found, 16)

    # -- writing --------------------------------------------------------------------------------------------------

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        """See `Repository.apply`."""
        outcomes: list[Outcome] = [STALE] * len(changes)
        calls: list[tuple[Script, Command]] = []
        sent: list[int] = []
        newest: dict[tuple[str, str], int] = {}
        for i, change in enumerate(changes):
            try:
                calls.append(self._call(change))
            except PolystoreError as error:
                outcomes[i] = Outcome("rejected", error)
                continue
            sent.append(i)
            place = change.key.etype, change.key.tenant
            newest[place] = max(change.version, newest.get(place, 0))
        about = self.server.keys.about
        notes = [(NOTE, NOTE.call(about(etype), digits(v), tenant)) for (etype, tenant), v in newest.items()]
        answers = await self.server.scripts(calls, first=notes)
        for i, answer in zip(sent, answers, strict=True):
            outcomes[i] = APPLIED if answer else STALE
        return outcomes

    def _call(self, change: Change) -> tuple[Script, Command]:
        key, names = change.key, self.server.keys.record(change.key, change.h)
        codec = self.types[key.etype]
        first = digits(change.version), int(change.overwrites), codec.encoded(change), key.id, codec.ordered(key.id)
        if change.deleted:
            return BURY, BURY.call(names, *first, self._kept_ms)
        return PUT, PUT.call(names, *first, change.h, change.expires_us)
