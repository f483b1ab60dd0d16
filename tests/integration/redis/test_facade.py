"""Live state and a cache on Redis, written through the facade: what is there, redis-cli says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from polystore import HybridDataArchitecture, entity
from tests.redis_servers import Place, cli
from tests.stack import url_of


@entity(data_type="session", ttl_s=1800)
@dataclass(kw_only=True)
class Session:
    id: str
    user: str
    pages: list[str] = field(default_factory=list[str])


@entity(data_type="counter", key="name")
@dataclass(kw_only=True)
class Counter:
    name: str
    hits: int = 0


@entity(cache="bounded")
@dataclass(kw_only=True)
class Profile:
    id: str
    name: str


@pytest.fixture(name="place", params=["redis", "valkey"])
def given_place(request: pytest.FixtureRequest) -> Generator[Place]:
    place = Place(url_of(request.param))
    yield place
    place.clear()


def opened(directory: Path, place: Place) -> Any:
    stores = {
        "main": {"url": f"sqlite:{directory}/main.db"},
        "live": {"url": place.url, "roles": ["live_state", "cache"], "options": {"prefix": place.prefix}},
    }
    config = {"stores": stores, "pins": {"profile": {"cache": "live"}}}
    return HybridDataArchitecture.open(config, entities=[Session, Counter, Profile])


def fields(place: Place, key: str) -> dict[str, Any]:
    """Of a value; the tag beside them is under the empty name."""
    lines = cli(place.url, "HGETALL", key).split("\n")
    return {name: json.loads(text) for name, text in zip(lines[::2], lines[1::2], strict=True) if name}


def test_sessions_and_counters_are_hashes_that_any_program_reads(place: Place, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path, place) as hda:
            await hda.state(Session).put(Session(id="a/1", user="민지", pages=["/"]))
            await hda.tenant("acme").state(Session).put(Session(id="a/1", user="지우"), ttl_s=60)
            await hda.state(Counter).put(Counter(name="home"))
            for _ in range(3):
                await hda.state(Counter).incr("home", "hits", 2)
            await hda.state(Session).put(Session(id="gone", user="x"))
            await hda.state(Session).delete("gone")
            assert (await hda.limiter("login", limit=2, per_s=60).take("민지")).allowed

    asyncio.run(main())
    prefix = place.prefix
    session = f"{prefix}:s:{{/session/a%2F1}}"
    assert fields(place, session) == {"id": "a/1", "user": "민지", "pages": ["/"]}
    assert 1700 < int(cli(place.url, "TTL", session)) <= 1800
    of_acme = f"{prefix}:s:{{acme/session/a%2F1}}"
    assert fields(place, of_acme)["user"] == "지우"
    assert 0 < int(cli(place.url, "TTL", of_acme)) <= 60
    counter = f"{prefix}:s:{{/counter/home}}"
    assert fields(place, counter)["hits"] == 6
    assert cli(place.url, "TTL", counter) == "-1"
    found = cli(place.url, "--scan", "--pattern", f"{prefix}:s:*").split("\n")
    assert sorted(found) == sorted([session, of_acme, counter])
    assert len(cli(place.url, "--scan", "--pattern", f"{prefix}:l:*").split("\n")) == 1


def test_a_cached_record_lies_there_at_its_version_and_goes_with_a_write(place: Place, tmp_path: Path) -> None:
    async def main() -> None:
        value = f"{place.prefix}:v:{{/profile/a}}"
        async with opened(tmp_path, place) as hda:
            profiles = hda.collection(Profile)
            result = await profiles.put(Profile(id="a", name="민지"))
            await hda.settle(10)
            assert await profiles.get("a") == Profile(id="a", name="민지")
            await _until(lambda: "민지" in cli(place.url, "GET", value))
            assert int(cli(place.url, "GET", value)[:14], 16) == result.version
            assert 0 < int(cli(place.url, "PTTL", value)) <= 330_000
            await profiles.delete("a")
            await _until(lambda: "민지" not in cli(place.url, "GET", value))
            assert await profiles.get("a") is None

    asyncio.run(main())


async def _until(true: Any) -> None:
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(true):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
