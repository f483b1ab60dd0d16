"""All records of a home on Redis in the order of their keys: streamed, counted, transferred, whatever `find_max` is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from polystore_adapters.redis.server import Server

from polystore import F, HybridDataArchitecture, Index, SchemaMismatch, UnsupportedOperation, entity
from polystore.transfer import transfer
from tests.redis_servers import Place
from tests.stack import url_of

NUMBERS = [-(1 << 63), -10, -9, -1, 0, 1, 9, 10, (1 << 63) - 1]
NAMES = [f"{name}{n:02}" for name in ("", "a/b", "Z", "z", "학교 ", "{한}", "\U0001f600", "é") for n in range(50)]
FIND_MAX = 20


@entity()
@dataclass(kw_only=True)
class Word:
    id: str
    length: Annotated[int, Index()] = 0


@entity()
@dataclass(kw_only=True)
class Number:
    id: int


def opened(directory: Path, place: Place, **more: Any) -> Any:
    stores = {
        "main": {"url": f"sqlite:{directory}/main.db", "roles": ["home", "journal"]},
        "fast": {
            "url": place.url,
            "roles": ["document"],
            "options": {"prefix": place.prefix, "find_max": FIND_MAX},
        },
    }
    config = {"stores": stores, "pins": {name: {"home": "fast"} for name in ("word", "number")}}
    return HybridDataArchitecture.open(config, entities=[Word, Number], **more)


async def streamed(hda: HybridDataArchitecture, cls: type[Any]) -> list[Any]:
    return [one.id async for one in hda.collection(cls).stream(batch=64)]


async def fill(hda: HybridDataArchitecture) -> None:
    await hda.collection(Word).put_many([Word(id=id, length=len(id)) for id in NAMES])
    await hda.collection(Number).put_many([Number(id=id) for id in NUMBERS])


@pytest.mark.parametrize("server", ["redis", "redis-cluster"])
def test_all_records_come_by_key_a_page_at_a_time(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked with a condition is refused as before; what is deleted or over is in no page."""
    place, asked = Place(url_of(server)), list[int]()
    real = Server.get_all

    async def counted(self: Server, keys: Sequence[str]) -> list[bytes | None]:
        asked.append(len(keys))
        return await real(self, keys)

    async def main() -> None:
        async with (
            opened(tmp_path, place) as hda,
            HybridDataArchitecture.open(f"embedded:{tmp_path}/there", entities=[Word, Number]) as other,
        ):
            await fill(hda)
            words = hda.collection(Word)
            await hda.tenant("둘").collection(Word).put(Word(id="of another"))
            await words.put(Word(id="over"), ttl_s=0.001)
            await asyncio.gather(*(words.delete(id) for id in NAMES[:40]))
            await words.put(Word(id=NAMES[0]))
            await hda.settle(30)
            left = sorted([NAMES[0], *NAMES[40:]])
            monkeypatch.setattr(Server, "get_all", counted)
            assert (await streamed(hda, Word), await streamed(hda, Number)) == (left, NUMBERS)
            assert max(asked) <= 64 + 1, "a page reads what it gives, and one to see whether there are more"
            assert [one.id for one in await words.find(order_by=F.id, limit=3)] == left[:3]
            assert sum((await words.counts("length")).values()) == len(left)
            for refused in (words.find(F.length == 2), words.find(order_by=F.length), words.count(F.length == 2)):
                with pytest.raises(UnsupportedOperation, match="find_max"):
                    await refused
            await other.collection(Word).put(Word(id="not at the source"))
            done = {one.entity: (one.read, one.written, one.deleted) for one in await transfer(hda, other, delete=True)}
            assert done == {"word": (len(left) + 1, len(left) + 1, 1), "number": (len(NUMBERS), len(NUMBERS), 0)}
            assert await streamed(other, Word) == left

    asyncio.run(main())
    place.clear()


def test_a_home_of_before_has_its_keys_in_order_after_init(tmp_path: Path) -> None:
    place = Place(url_of("valkey"))

    async def main() -> None:
        async with opened(tmp_path, place) as hda:
            await fill(hda)
            await hda.settle(30)
        for key in list(place.keys()):
            if key.startswith(f"{place.prefix}:k:".encode()):
                place.client.delete(key)
            elif key.startswith(f"{place.prefix}:e:".encode()):
                place.client.hdel(key, "ordered")
        with pytest.raises(SchemaMismatch, match="order"):
            await opened(tmp_path, place, schema="validate")
        async with opened(tmp_path, place) as hda:
            assert (await streamed(hda, Word), await streamed(hda, Number)) == (sorted(NAMES), NUMBERS)
        async with opened(tmp_path, place, schema="validate"):
            pass

    asyncio.run(main())
    place.clear()
