"""Redis as the home of records whose journal is another store: what lies there, and what a server may forget of what it
acknowledged. What is there is read with redis-cli, and with the driver."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest
from polystore_adapters.redis.keys import Keys
from redis import Redis

from compose.native.own import OwnServer
from polystore import (
    ConfigurationError,
    F,
    HybridDataArchitecture,
    Index,
    Needs,
    StalenessTimeout,
    UnsupportedOperation,
    entity,
    journaled,
)
from polystore.consistency import Settings
from polystore.consistency.verify import Verifier
from polystore.model import EVERYTHING, UNREADABLE, Key, key_hash
from polystore.protocols import Repository
from tests.redis_servers import Place, cli
from tests.stack import own_server, url_of

SETTINGS = Settings(poll_s=0.05, look_s=0.05, retry_max_s=0.1, awaken_spread_s=0.01)


@entity(needs=Needs(real_time=True))
@dataclass(kw_only=True)
class Player:
    id: str
    name: Annotated[str, Index()]
    score: int = 0
    items: list[str] = field(default_factory=list[str])


def stores(directory: Path, url: str, **options: Any) -> dict[str, Any]:
    return {
        "main": {"url": f"sqlite:{directory}/main.db", "roles": ["home", "journal"]},
        "fast": {"url": url, "roles": ["document"], "options": options},
    }


def opened(directory: Path, url: str, settings: Settings = SETTINGS, **options: Any) -> Any:
    config = {"stores": stores(directory, url, **options)}
    return HybridDataArchitecture.open(config, entities=[Player], settings=settings)


@contextmanager
def driver(url: str) -> Generator[Any]:
    made: Any = Redis  # says no types
    with made.from_url(url) as client:
        yield client


async def differences(hda: HybridDataArchitecture) -> list[tuple[str, str]]:
    await hda.settle(30)
    verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
    return [(one.key.id, one.problem) async for one in verifier.differences("player")]


async def until(ask: Callable[[], Awaitable[bool]], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not await ask():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def released(hda: HybridDataArchitecture) -> bool:
    """Whether the journal has no body any more."""
    journal: Any = hda.stores["main"].repository
    found = await journal.find("player", "", None, (), 1_000)
    return all(one.body[name] is None for one in found for name in ("journal_body", "journal_held_us"))


def stored(url: str, prefix: str) -> Mapping[str, Any]:
    """Id -> the score of what lies there."""
    with driver(url) as client:
        texts = [client.get(key) for key in client.scan_iter(match=f"{prefix}:r:*")]
    entries = [json.loads(text[14:]) for text in texts]
    return {one["body"]["id"]: one["body"]["score"] for one in entries if "body" in one}


# -- what lies there ----------------------------------------------------------------------------------------------


def test_a_record_of_real_time_lives_in_redis_as_json_that_any_program_reads(tmp_path: Path) -> None:
    place = Place(url_of("redis"))

    async def main() -> None:
        async with opened(tmp_path, place.url, prefix=place.prefix, find_max=2) as hda:
            placement = hda.remembered["player"].placement
            assert (placement.home, placement.journal) == ("fast", "main")
            players = hda.collection(Player)
            result = await players.put(Player(id="a/b", name="학교", score=1, items=["x"]))
            assert result.stores == {"main": "committed", "fast": "applied"}
            await players.update("a/b", {"score": 2})
            await players.put(Player(id="gone", name="x"))
            done = await players.delete("gone")
            key, gone = (_key(place.prefix, id) for id in ("a/b", "gone"))
            text = cli(place.url, "GET", key)
            entry = json.loads(text[14:])
            assert entry["body"] == {"id": "a/b", "name": "학교", "score": 2, "items": ["x"]}
            assert int(text[:14], 16) == (await players.load("a/b")).version
            assert int(cli(place.url, "GET", gone)[:14], 16) == done.version
            assert 0 < int(cli(place.url, "TTL", gone)) <= 7 * 86_400
            assert cli(place.url, "TTL", key) == "-1"
            assert list(await players.find(F.name == "학교")) == [await players.get("a/b")]
            await players.put_many([Player(id=f"{i}", name="y") for i in range(2)])
            assert (await players.count(), len(await players.find(F.id.in_(["0", "a/b"])))) == (3, 2)
            assert (await players.count(F.id == ""), len(await players.find(F.id.in_(["", "0"])))) == (0, 1)
            with pytest.raises(UnsupportedOperation, match="find_max"):
                await players.find(F.name == "y")
            assert await differences(hda) == []

    asyncio.run(main())
    place.clear()


def _key(prefix: str, id: str) -> str:
    return Keys(prefix).record(Key("", "player", id), key_hash("", "player", id))[0]


def test_damaged_records_are_told_among_the_others_and_repaired(tmp_path: Path) -> None:
    place = Place(url_of("redis"))

    async def main() -> None:
        async with opened(tmp_path, place.url, prefix=place.prefix) as hda:
            players = hda.collection(Player)
            await players.put_many([Player(id=id, name="n") for id in ("a", "b", "c")])
            await hda.settle(30)
            for id, kept in (("a", 14), ("b", 0)):
                key = _key(place.prefix, id)
                cli(place.url, "SET", key, cli(place.url, "GET", key)[:kept] + "no record")
            page = await hda.stores["fast"].call(Repository.scan, "player", "", EVERYTHING, None, 10)
            assert {one.id: (one.version > 0, one.fault) for one in page.stamps} == {
                "a": (True, UNREADABLE),
                "b": (False, UNREADABLE),
                "c": (True, ""),
            }
            assert {id for id, _ in await differences(hda)} == {"a", "b"}
            await hda.repair(Player)  # the journal still has what was just written
            assert await differences(hda) == []

    asyncio.run(main())
    place.clear()


def test_a_server_that_would_lose_records_by_its_configuration_is_refused(tmp_path: Path) -> None:
    async def main(url: str) -> None:
        for name, bad, good in (("appendonly", "no", "yes"), ("maxmemory", "100mb", "0")):
            cli(url, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            cli(url, "CONFIG", "SET", name, bad)
            with pytest.raises(ConfigurationError, match=r"append-only file|maxmemory-policy"):
                await opened(tmp_path, url)
            cli(url, "CONFIG", "SET", name, good)
        async with opened(tmp_path, url):
            pass

    with own_server("redis") as mine:
        asyncio.run(main(mine.url))


# -- what may be forgotten ----------------------------------------------------------------------------------------


@contextmanager
def tail_lost(mine: OwnServer) -> Generator[None]:
    """The server is killed at the end, and has forgotten what it acknowledged inside: as when the machine loses its
    power before the file was synced."""
    with driver(mine.url) as client:
        files = Path(client.config_get("dir")["dir"]) / "appendonlydir"
        client.config_set("appendfsync", "always")
        client.set("now", "in the file")
    kept = {path: path.read_bytes() for path in files.iterdir()}
    yield
    mine.kill()
    for path, content in kept.items():
        path.write_bytes(content)


@pytest.mark.parametrize("running", [True, False])
def test_what_a_killed_server_forgot_is_delivered_again(running: bool, tmp_path: Path) -> None:
    """Whether the application runs meanwhile, or is opened later: also deletes, and what was changed twice."""

    async def before(hda: HybridDataArchitecture) -> None:
        players = hda.collection(Player)
        await players.put_many([Player(id=f"{i}", name="n") for i in range(20)])
        await hda.settle(30)

    async def inside(hda: HybridDataArchitecture) -> None:
        players = hda.collection(Player)
        await players.put_many([Player(id=f"{i}", name="n", score=1) for i in range(10)])
        await players.update("3", {"score": 2})
        await players.put(Player(id="new", name="n"))
        await players.delete("19")
        await hda.settle(30)

    async def after(hda: HybridDataArchitecture) -> None:
        wanted = {f"{i}": int(i < 10) for i in range(19)} | {"3": 2, "new": 0}
        players = hda.collection(Player)
        for id, score in wanted.items():
            assert (await players.load(id)).value.score == score, "the journal has what the home forgot"

        async def there() -> bool:
            return dict(await asyncio.to_thread(stored, mine.url, "ps")) == wanted

        await until(there)
        assert await differences(hda) == []
        assert await players.count() == len(wanted)

    async def main() -> None:
        async with opened(tmp_path, mine.url) as hda:
            await before(hda)
            with tail_lost(mine):
                await inside(hda)
            if running:
                await asyncio.to_thread(mine.start)
                await after(hda)
        if not running:
            await asyncio.to_thread(mine.start)
            assert stored(mine.url, "ps") == {f"{i}": 0 for i in range(20)}, "it has forgotten the rest"
            async with opened(tmp_path, mine.url) as hda:
                await after(hda)

    with own_server("redis") as mine:
        asyncio.run(main())


def test_an_emptied_server_is_filled_with_what_the_journal_still_has_and_the_rest_is_told_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journaled, "PATIENCE_S", 0.1)
    place = Place(url_of("valkey"))

    async def main(settings: Settings) -> None:
        async with opened(tmp_path, place.url, settings, prefix=place.prefix) as hda:
            players = hda.collection(Player)
            await players.put_many([Player(id=f"{i}", name="n", score=i) for i in range(5)])
            await hda.settle(30)
            if settings.kept_s < 3:
                await until(lambda: released(hda))
                await players.put(Player(id="late", name="n"))
            await asyncio.to_thread(place.clear)
            if settings.kept_s < 3:
                await until(lambda: _has(place, {"late": 0}))
                with pytest.raises(StalenessTimeout, match="lost there"):
                    await players.get("3")
                assert set(await differences(hda)) == {(f"{i}", "lost") for i in range(5)}
            else:
                await until(lambda: _has(place, {f"{i}": i for i in range(5)}))
                assert await differences(hda) == []

    asyncio.run(main(SETTINGS))
    asyncio.run(main(Settings(poll_s=0.05, look_s=0.05, kept_s=2.0, retry_max_s=0.1, awaken_spread_s=0.01)))
    place.clear()


async def _has(place: Place, wanted: Mapping[str, int]) -> bool:
    return dict(await asyncio.to_thread(stored, place.url, place.prefix)) == dict(wanted)
