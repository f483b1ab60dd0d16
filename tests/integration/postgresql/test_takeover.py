"""A worker that lives and is slow: what it has in hand is its own for a minute, and then anybody's, harmlessly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from polystore import FullText, HybridDataArchitecture, entity
from polystore.consistency import Settings
from polystore.consistency.verify import Verifier
from tests.integration.cache.world import StoppingEnv
from tests.postgresql import configured, fresh_schema, server

PATIENT = Settings(poll_s=0.1, call_timeout_s=40, batch_deadline_s=45, worker_dead_s=50, detach_s=40, drain_s=0)
"""A call to a copy may take most of the minute, so that its rows are still owed when the minute is over."""


@entity()
@dataclass
class Page:
    id: str
    text: Annotated[str, FullText()]


class Shop:
    """A home and a copy in two schemas, for any number of workers."""

    def __init__(self, home: str, words: str) -> None:
        self._home = home.partition(",")[0]
        self.config = {
            "stores": {
                "home": configured(home, roles=["home", "journal"]),
                "words": configured(words, roles=["full_text"], timeout_s=60),
            }
        }

    @asynccontextmanager
    async def worker(self, env: StoppingEnv) -> AsyncGenerator[HybridDataArchitecture]:
        async with HybridDataArchitecture.open(self.config, entities=[Page], settings=PATIENT, env=env) as hda:
            yield hda

    async def value(self, sql: str) -> Any:
        return await asyncio.to_thread(server().value, sql.format(self._home))

    async def owed(self) -> list[int]:
        """Rows of the outbox, and those that wait for another try or are parked."""
        return [await self.value(f"SELECT count(*) FROM {{}}.{table}") for table in ("ps_outbox", "ps_retry")]

    async def owners(self) -> set[str]:
        return set(await self.value("SELECT coalesce(array_agg(owner), '{{}}') FROM {}.ps_outbox"))

    async def forward(self, seconds: int) -> None:
        """The server's clock goes on, and every worker beats in between, so that none looks dead."""
        ahead = "UPDATE {0}.test_clock SET ahead = ahead + interval '3 s' RETURNING 0"
        fresh = "SELECT min(beat_us) > 1e6 * extract(epoch FROM {0}.clock_timestamp()) - 2e6 FROM {0}.ps_worker"
        for _ in range(0, seconds, 3):
            await self.value(ahead)
            await until(lambda: self.value(fresh))


async def until(true: Any) -> None:
    async with asyncio.timeout(20):
        while not await true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def test_the_backlog_of_a_slow_worker_is_left_to_it_and_after_a_minute_taken_over_without_harm() -> None:
    async def main(shop: Shop) -> None:
        slow, quick = StoppingEnv(), StoppingEnv()
        async with shop.worker(slow) as one:
            pages = one.collection(Page)
            gate = slow.stop("words", "apply")
            for n in range(5):
                await pages.put(Page(f"p{n}", "첫째 판"))
            await gate.arrived.wait()
            await shop.forward(30)
            async with shop.worker(quick) as other:
                await asyncio.gather(*(other.collection(Page).put(Page(f"q{n}", "옆집")) for n in range(5)))
                await until(lambda: looked(quick, 5))
                assert await shop.owners() == {one.manager.worker}, "what is left is the living worker's own"
                before = await pages.load("p0")
                await shop.forward(31)
                await until(lambda: nothing(shop))
                hits = await other.collection(Page).search("첫째", limit=10)
                assert {hit.value.id for hit in hits} == {f"p{n}" for n in range(5)}
                newer = await other.collection(Page).put(Page("p0", "둘째 판"), ack="applied")
                assert newer.version is not None
                assert newer.version > before.version
                gate.open()  # what the slow one brings now is old, and its rows are gone
                await one.settle(10)
                verifier = Verifier(other.stores, other.manager.placements, other.manager.embedders)
                assert [found async for found in verifier.differences("page")] == []
                assert [hit.value.id for hit in await pages.search("둘째")] == ["p0"]
        assert await shop.owed() == [0, 0], "nothing was parked, and nothing is owed"

    with fresh_schema() as home, fresh_schema() as words:
        asyncio.run(main(Shop(home, words)))


async def looked(env: StoppingEnv, times: int) -> bool:
    """Whether this worker has looked so often for what others left behind."""
    return env.count("home", "claim") >= times


async def nothing(shop: Shop) -> bool:
    return await shop.owed() == [0, 0]
