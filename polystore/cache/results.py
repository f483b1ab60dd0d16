"""Results of queries, under names that the application chose."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

import msgspec

from polystore.cache.entries import RESULT_TTL_S, part, spread_us
from polystore.cache.records import LOOKS, WAIT_S
from polystore.cache.store import Bypass, CacheStore
from polystore.protocols import Fill, Invalidation, SupportsCache

Answered = Literal["hit", "miss", "bypass"]


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    """`of` says which query it is the result of."""

    of: bytes
    result: bytes


_decoder = msgspec.msgpack.Decoder(_Entry)


class Results:
    """What queries of one tenant have found, as bytes. They have no versions, so an invalidation removes whatever there
    is, and leaves no floor."""

    def __init__(self, cache: CacheStore, tenant: str) -> None:
        self._cache = cache
        self._tenant = tenant

    def _name(self, chosen: str) -> str:
        return f"{part(self._tenant)}//{part(chosen)}"

    async def get(self, chosen: str, of: bytes, ask: Callable[[], Awaitable[bytes]]) -> tuple[bytes, Answered]:
        """The result under this name, or what `ask` answers, which is then kept for five seconds. Under one name there
        is one query: another one with the same name is asked every time. Raises what `ask` raises."""
        name = self._name(chosen)
        token = self._cache.env.random.getrandbits(62) + 1
        try:
            entry, leased = await self._entry(name, token)
            known = None if entry is None else _decoder.decode(entry)
        except (Bypass, ValueError):
            self._cache.counts.bypassed += 1
            return await ask(), "bypass"
        if known is not None:
            return (known.result, "hit") if known.of == of else (await ask(), "bypass")
        self._cache.counts.misses += 1
        if not leased:
            return await ask(), "miss"
        return await self._lead(name, token, of, ask), "miss"

    async def _entry(self, name: str, token: int) -> tuple[bytes | None, bool]:
        """What is there; else whether the lease is granted."""
        for _ in range(LOOKS):
            (entry,) = await self._cache.ask(SupportsCache.lookup, (name,))
            if entry is not None:
                self._cache.counts.hits += 1
                return entry, False
            if (flight := self._cache.flights.get(name)) is not None:
                await asyncio.wait((flight,))
                continue
            (answer,) = await self._cache.ask(SupportsCache.lease, (name,), token)
            if isinstance(answer, bytes):
                return answer, False
            if answer == "leased" and name not in self._cache.flights:
                return None, True
            await asyncio.sleep(WAIT_S)
        return None, False

    async def _lead(self, name: str, token: int, of: bytes, ask: Callable[[], Awaitable[bytes]]) -> bytes:
        """Ask, after the lease was granted, and fill in."""
        flights = self._cache.flights
        landed = flights[name] = asyncio.get_running_loop().create_future()

        def land(_: object = None) -> None:
            del flights[name]
            landed.set_result(None)

        filling: asyncio.Task[None] | None = None
        try:
            result = await ask()
            entry = msgspec.msgpack.encode(_Entry(of, result))
            filling = self._cache.fill([Fill(name, token, 0, entry, spread_us(RESULT_TTL_S, self._cache.env))])
        finally:
            if filling is None:
                land()
            else:
                filling.add_done_callback(land)
        return result

    async def forget(self, chosen: Sequence[str]) -> None:
        """What is under these names is outdated. A cache that fails keeps it for five seconds at most."""
        if chosen:
            try:
                await self._cache.ask(
                    SupportsCache.invalidate, [Invalidation(self._name(name), None) for name in chosen]
                )
            except Bypass:
                self._cache.counts.bypassed += len(chosen)
