"""The kit through the facade: an application on some stores, home and copies together, answers as the references do."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import pytest

from polystore.architecture import HybridDataArchitecture
from polystore.collection import Collection
from polystore.collection.relations import DEPTH_MAX
from polystore.consistency.verify import Verifier
from polystore.embedding import HashedEmbedder
from polystore.entity import EntityType
from polystore.errors import AlreadyExists, NotFound, VersionConflict
from polystore.facets import Edge
from polystore.filters import F, predicate
from polystore.model import Link
from polystore.results import WriteResult
from polystore.testing.conformance.base import InItsOwnLoop, chunks, same
from polystore.testing.conformance.entities import (
    ARTICLE,
    KIT,
    SPOT,
    THING,
    VALUES,
    WORDS,
    Article,
    Person,
    Since,
    Spot,
    Thing,
)
from polystore.testing.conformance.filters import Conditions, in_order, samples
from polystore.testing.conformance.text import KOREAN
from polystore.testing.conformance.traversal import breadth_first, every_path
from polystore.testing.conformance.vectors import METRICS, SCORES, drawn

T = TypeVar("T")
Config = str | Mapping[str, Any]


class Closing:
    """An architecture among the things that a test has opened."""

    def __init__(self, hda: HybridDataArchitecture) -> None:
        self._hda = hda
        self.aclose = hda.close

    @property
    def checked_out(self) -> int:
        return sum(getattr(one.repository, "checked_out", 0) for one in self._hda.stores.values())


class FacadeConformance(InItsOwnLoop):
    """A subclass overrides the fixture `config`: the configuration of an application, with empty stores."""

    config: Config

    @pytest.fixture(name="config")
    def given_config(self) -> Config:
        """The one thing a subclass gives: `@pytest.fixture(name="config") def given_config(self)`."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `config`, see {__name__}")

    @pytest.fixture(autouse=True)
    def given(self, config: Config) -> None:
        self.config = config
        self.opened = []

    async def open(self) -> HybridDataArchitecture:
        classes = [one.cls for one in KIT.values()]
        hda = await HybridDataArchitecture.open(self.config, entities=classes, embedders={"kit": HashedEmbedder()})
        self.opened.append(Closing(hda))
        return hda

    async def converged(self, hda: HybridDataArchitecture, etype: EntityType[Any]) -> None:
        """Nothing is owed any more, and every copy holds what its home holds."""
        await hda.settle(30)
        verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
        assert [one async for one in verifier.differences(etype.name)] == []

    async def test_every_value_comes_back_exactly(self) -> None:
        hda = await self.open()
        things = hda.collection(Thing)
        given = [Thing(id=f"{f}-{i}", **{f: v}) for f, values in VALUES.items() for i, v in enumerate(values)]
        for part in chunks(given, 50):
            await things.put_many(part)
        for part in chunks(given, 50):
            for wanted, found in zip(part, await things.get_many([one.id for one in part]), strict=True):
                assert found is not None
                assert same(THING.encode(found), THING.encode(wanted)), wanted.id
        articles = hda.collection(Article)
        await articles.put_many([Article(id=f"{i}", title=word, body=word) for i, word in enumerate(WORDS)])
        await self.converged(hda, ARTICLE)

    @pytest.mark.parametrize("seed", range(3))
    async def test_eight_writers_at_once_end_at_the_newest_versions_everywhere(self, seed: int) -> None:
        hda = await self.open()
        tenants = [view.collection(Article) for view in (hda, hda.tenant("acme"))]
        done: list[tuple[int, str, WriteResult, Article | None]] = []

        async def writer(number: int) -> None:
            r = random.Random(100 * seed + number)
            for turn in range(30):
                tenant, id = r.randrange(2), r.choice("abcdef")
                value = Article(id=id, title=f"학교 {number} {turn}", body=r.choice((None, "이야기")), stars=turn)
                result, left = await one_write(tenants[tenant], r.random(), value)
                if result is not None and result.version is not None:
                    done.append((tenant, id, result, left))

        await asyncio.gather(*(writer(number) for number in range(8)))
        assert len({result.version for _, _, result, _ in done}) == len(done)
        await self.converged(hda, ARTICLE)
        for tenant, articles in enumerate(tenants):
            for id in "abcdef":
                mine = [(result.version, left) for t, i, result, left in done if (t, i) == (tenant, id)]
                version, left = max(mine, key=lambda pair: pair[0] or 0)
                assert await articles.get(id) == left
                if left is not None:
                    assert (await articles.load(id)).version == version
                    hits = await articles.search(f'"{left.title}"', limit=10)
                    assert id in [hit.value.id for hit in hits]
            live = {id for id in "abcdef" if await articles.exists(id)}
            hits = await articles.search("학교", limit=100)
            assert {hit.value.id for hit in hits} == live
            assert all(hit.match_version == hit.version for hit in hits)

    async def test_conditions_orders_and_pages_answer_as_the_reference_does(self) -> None:
        hda = await self.open()
        things = hda.collection(Thing)
        values = samples(1)
        bodies = {value.id: THING.encode(value) for value in values}
        await things.put_many(values)
        conditions = Conditions(random.Random(1))
        for _ in range(100):
            condition = conditions.any()
            where = THING.condition(condition)
            assert where is not None
            holds = predicate(where)
            wanted = sorted(id for id, body in bodies.items() if holds(body))
            assert [value.id for value in await things.find(condition, limit=1_000)] == wanted, repr(condition)
            assert await things.count(condition) == len(wanted)
        for field, descending in (("maybe_at", True), ("maybe_word", False), ("price", True), ("flag", False)):
            order = F[field].desc() if descending else F[field].asc()
            found: list[str] = []
            cursor: str | None = None
            while True:
                page = await things.find(order_by=[order], limit=7, cursor=cursor)
                found += [value.id for value in page]
                cursor = page.cursor
                if cursor is None:
                    break
            assert found == in_order(bodies, (field, descending), ("id", False))

    async def test_pages_hold_what_stands_still_once_while_others_write(self) -> None:
        hda = await self.open()
        articles = hda.collection(Article)
        await articles.put_many([Article(id=f"stays-{i:02}", stars=i % 5) for i in range(40)])
        seen: list[str] = []
        cursor: str | None = None
        for turn in range(100):
            page = await articles.find(order_by=[F.stars.desc()], limit=3, cursor=cursor)
            seen += [value.id for value in page]
            cursor = page.cursor
            if cursor is None:
                break
            await articles.put(Article(id=f"new-{turn}", stars=turn % 5))
            await articles.delete(f"new-{turn - 1}")
        assert sorted(id for id in seen if id.startswith("stays")) == [f"stays-{i:02}" for i in range(40)]

    async def test_every_two_syllables_find_exactly_the_texts_that_hold_them(self) -> None:
        hda = await self.open()
        articles = hda.collection(Article)
        await articles.put_many([Article(id=f"{i:02}", title=text, stars=i) for i, text in enumerate(KOREAN)])
        await self.converged(hda, ARTICLE)
        words = {word for text in KOREAN for word in re.findall("[가-힣]+", text)}
        for pair in sorted({word[i : i + 2] for word in words for i in range(len(word) - 1)}):
            hits = await articles.search(pair, limit=100)
            assert {hit.value.id for hit in hits} == {f"{i:02}" for i, text in enumerate(KOREAN) if pair in text}, pair
            assert all(f"<mark>{pair}" in "".join(hit.highlights["title"]) for hit in hits)

    @pytest.mark.parametrize("field", METRICS)
    async def test_the_nearest_are_those_that_a_look_at_every_vector_finds(self, field: str) -> None:
        hda = await self.open()
        spots = hda.collection(Spot)
        vectors = drawn(60)
        for id, vector in vectors.items():
            value = Spot(id=id, stars=int(id))
            setattr(value, field, list(vector))
            await spots.put(value)
        await self.converged(hda, SPOT)
        for to in drawn(5, seed=2).values():
            scores = {id: SCORES[field](to, vector) for id, vector in vectors.items() if int(id) > 9}
            wanted = sorted(scores, key=lambda id: (-scores[id], id))
            hits = await spots.similar(list(to), field=field, where=F.stars > 9, limit=20)
            assert [hit.value.id for hit in hits] == wanted[:20]

    async def test_related_records_are_those_that_breadth_first_search_reaches(self) -> None:
        hda = await self.open()
        people = hda.collection(Person)
        r = random.Random(11)
        ids = [f"n{i:02}" for i in range(20)]
        ends = {id: sorted(r.sample(ids, r.randrange(3))) for id in ids}
        await people.put_many([Person(id=a, knows=[Edge(b, Since(2020)) for b in ends[a]]) for a in ids])
        await hda.settle(30)
        edges = {(a, b) for a in ids for b in ends[a]}
        for start in ids[::4]:
            found = await people.related(start, "KNOWS", into=Person, depth=DEPTH_MAX)
            wanted = [pair for pair in breadth_first(start, edges) if pair[0] <= DEPTH_MAX]
            assert [(one.depth, one.value.id) for one in found] == wanted

    async def test_paths_are_those_that_trying_everything_finds(self) -> None:
        hda = await self.open()
        people = hda.collection(Person)
        r = random.Random(5)
        ids = [f"n{i:02}" for i in range(10)]
        ends = {id: sorted(r.sample(ids, r.randrange(4))) for id in ids}
        await people.put_many([Person(id=a, knows=[Edge(b, Since(2020)) for b in ends[a]]) for a in ids])
        await hda.settle(30)
        links = [Link("kit_person", a, "KNOWS", "kit_person", b) for a in ids for b in ends[a]]
        for start, end in [r.sample(ids, 2) for _ in range(6)]:
            wanted = [
                [(link.id, link.type, link.to_id) for link in path] for path in every_path(links, start, end, "both", 4)
            ]
            found = await people.paths(start, end, "KNOWS", direction="both", depth_max=4, limit=10_000)
            assert [list(path) for path in found] == wanted
            nearest = await people.path(start, end, "KNOWS", direction="both", depth_max=4)
            assert list(nearest) == (wanted[0] if wanted else [])
            assert await people.paths(start, end, "KNOWS", direction="both", edges=F.year < 2000) == []


async def one_write(
    articles: Collection[Article], chance: float, value: Article
) -> tuple[WriteResult | None, Article | None]:
    """Some write of the value, and what it left under the key; None when it found that it could not be done."""
    if chance < 0.2:
        return await articles.delete(value.id), None
    if chance < 0.5:
        return await articles.put(value), value
    if chance < 0.6:
        return (await articles.put_many([value]))[0], value
    try:
        if chance < 0.75:
            return await articles.create(value), value
        changes: Mapping[str, Any] = {"title": value.title, "body": value.body, "stars": value.stars}
        if chance < 0.9:
            return await articles.update(value.id, changes), value
        return await articles.update(value.id, lambda _: value), value
    except (AlreadyExists, NotFound, VersionConflict):  # the last: five others came between
        return None, None
