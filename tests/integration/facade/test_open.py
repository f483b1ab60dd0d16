"""Opening and closing: configuration, placements that are remembered, stores that are down, classes that changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
import pytest

from polystore import (
    ConfigurationError,
    Embedding,
    F,
    FullText,
    HybridDataArchitecture,
    InvalidData,
    SchemaMismatch,
    StoreCorrupt,
    Unavailable,
    entity,
    new_id,
    opening,
)
from polystore.config import StoreConfig
from polystore.embedding import HashedEmbedder, Purpose
from polystore.env import Env
from polystore.opening import latecomers
from polystore.store import Store, open_store
from tests.integration.facade.world import (
    ENTITIES,
    KOREAN,
    PROMPT,
    SPLIT,
    Memory,
    Person,
    config_of,
    profiles,
    remember,
)

open_hda = HybridDataArchitecture.open


def test_open_is_awaited_or_entered() -> None:
    async def main() -> None:
        hda = await open_hda("memory:", entities=ENTITIES)
        await hda.collection(Person).put(Person(id="p", name="x"))
        await hda.close()
        await hda.close()
        with pytest.raises(Unavailable, match="closed"):
            await hda.collection(Person).get("p")
        async with open_hda("memory:", entities=ENTITIES) as hda:
            assert await hda.collection(Person).get("p") is None

    asyncio.run(main())


def test_a_file_names_stores_and_entities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "facade_example.py").write_text(
        "import msgspec\nfrom polystore import entity\n\n"
        "@entity()\nclass Note(msgspec.Struct):\n    id: str\n    text: str\n"
    )
    (tmp_path / "polystore.toml").write_text(
        'url = "sqlite:app.db"\nentities = ["facade_example"]\nimport_paths = ["code"]\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))

    async def main() -> None:
        async with open_hda() as hda:
            note = hda.types["note"].cls
            await hda.collection(note).put(note(id="n", text="글"))

    asyncio.run(main())
    assert (tmp_path / "app.db").exists()


def test_what_was_stored_is_there_the_next_time(tmp_path: Path) -> None:
    async def main() -> None:
        for profile in ("sqlite", "embedded"):
            config = config_of(profile, tmp_path)
            async with open_hda(config, entities=ENTITIES) as hda:
                await hda.collection(Memory).put_many([Memory(id=id, text=text) for id, text in KOREAN.items()])
            # nobody waited for the copies: closing did
            async with open_hda(config, entities=ENTITIES) as hda:
                assert [hit.value.id for hit in await hda.collection(Memory).search("브레이크")] == ["m3"]
                assert (await hda.collection(Memory).similar(KOREAN["m2"], limit=1))[0].value.id == "m2"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("config", "entities", "match"),
    [
        ("memory:", [], "no entities"),
        ("mongo:", ENTITIES, "scheme"),
        ({"url": "memory:", "pins": {"memo": {"home": "main"}}}, ENTITIES, "pins.memo.*memory, person, reading"),
        ({"stores": {"words": {"url": "memory:", "roles": ["full_text"]}}}, ENTITIES, "home"),
        ({"stores": {"main": {"url": "memory:", "roles": ["cache"]}}}, ENTITIES, "main"),
        ("memory:", [Memory], "Person"),
        ("memory:", [int], "int"),
    ],
)
def test_what_cannot_work_says_so(config: Any, entities: Sequence[type], match: str) -> None:
    async def main() -> None:
        await open_hda(config, entities=entities)

    with pytest.raises(ConfigurationError, match=match):
        asyncio.run(main())


def test_an_unknown_class_is_refused_by_name() -> None:
    async def main() -> None:
        async with open_hda("memory:", entities=[Person]) as hda:
            with pytest.raises(ConfigurationError, match=r"Memory.*known: Person"):
                hda.collection(Memory)

    asyncio.run(main())


def test_a_tenants_name_follows_the_rules_of_keys() -> None:
    async def main() -> None:
        async with open_hda("memory:", entities=[Person]) as hda:
            for bad in ("", "a" * 129, "가" * 43, "a\0b", "\ud800", cast(Any, 7)):
                with pytest.raises(InvalidData, match="tenant"):
                    hda.tenant(bad)
            decomposed = hda.tenant("\u1112\u1161\u11ab")
            await decomposed.collection(Person).put(Person(id="p", name="x"))
            assert await hda.tenant("한").collection(Person).exists("p")
            await decomposed.close()
            with pytest.raises(Unavailable):
                await hda.collection(Person).get("p")

    asyncio.run(main())


class Watched:
    """`open_store`, keeping what it made and what was closed."""

    def __init__(self, failing: Mapping[str, Exception] | None = None) -> None:
        self.failing = failing or {}
        self.closed: list[str] = []
        self.plain = open_store

    async def __call__(self, name: str, config: StoreConfig, env: Env) -> Store:
        if name in self.failing:
            await asyncio.sleep(0)
            raise self.failing[name]
        store = await self.plain(name, config, env)
        plain = store.aclose

        async def aclose() -> None:
            self.closed.append(name)
            await plain()
            if name == "words":
                raise Unavailable("it would not close", store=name)

        store.aclose = aclose  # type: ignore[method-assign]
        return store


def test_an_open_that_fails_closes_what_it_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched({"ties": Unavailable("no route", store="ties")})
    monkeypatch.setattr(opening, "open_store", watched)

    async def main() -> None:
        await open_hda(SPLIT, entities=ENTITIES)

    with pytest.raises(Unavailable):
        asyncio.run(main())
    assert sorted(watched.closed) == ["home", "shapes", "words"]


def test_closing_closes_everything_also_when_something_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()
    monkeypatch.setattr(opening, "open_store", watched)

    async def main() -> None:
        hda = await open_hda(SPLIT, entities=ENTITIES)
        with pytest.raises(Unavailable, match="would not close"):
            await hda.close()
        await hda.close()

    asyncio.run(main())
    assert sorted(watched.closed) == ["home", "shapes", "ties", "words"]


def optional(tmp_path: Path) -> dict[str, Any]:
    return {
        "stores": {
            "home": {"url": f"sqlite:{tmp_path}/home.db", "roles": ["home", "graph"]},
            "words": {"url": f"sqlite:{tmp_path}/words.db", "roles": ["full_text"], "required": False},
            "shapes": {"url": f"sqlite:{tmp_path}/shapes.db", "roles": ["vector"]},
        }
    }


def test_an_optional_store_may_be_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with open_hda(optional(tmp_path), entities=ENTITIES, settings=PROMPT) as hda:
            await remember(hda)
        with monkeypatch.context() as patch:
            for module in (opening, latecomers):
                patch.setattr(module, "open_store", Watched({"words": Unavailable("no route", store="words")}))
            async with open_hda(optional(tmp_path), entities=ENTITIES, settings=PROMPT) as hda:
                memories = hda.collection(Memory)
                assert hda.remembered["memory"].placement.facets["full_text"] == "words"
                result = await memories.put(Memory(id="new", text="바다로 떠난 기차"))
                assert result.stores["words"] == "pending"
                assert (await memories.similar("바다로 떠난 기차", limit=1, after=result.token))[0].value.id == "new"
                with pytest.raises(Unavailable, match="words"):
                    await memories.search("기차")
                found = await hda.read_operation({"kind": "hybrid", "entity": "memory", "text": "바다로 떠난 기차"})
                assert found.degraded
                assert found.items[0].value.id == "new"
        async with open_hda(optional(tmp_path), entities=ENTITIES, settings=PROMPT) as hda:
            await hda.settle(20)
            assert [hit.value.id for hit in await hda.collection(Memory).search("기차")] == ["new"]

    asyncio.run(main())


def test_a_required_store_must_answer(tmp_path: Path) -> None:
    (tmp_path / "shapes.db").write_text("not a database at all, but long enough to be looked at" * 20)

    async def main() -> None:
        await open_hda(optional(tmp_path), entities=ENTITIES)

    with pytest.raises(StoreCorrupt) as caught:
        asyncio.run(main())
    assert caught.value.store == "shapes"


def test_validate_makes_nothing(tmp_path: Path) -> None:
    config = f"sqlite:{tmp_path}/app.db"

    async def main() -> None:
        with pytest.raises(SchemaMismatch, match="polystore init"):
            await open_hda(config, entities=ENTITIES, schema="validate")
        assert not (tmp_path / "app.db").exists()
        async with open_hda(config, entities=ENTITIES):
            pass
        async with open_hda(config, entities=ENTITIES, schema="validate") as hda:
            await hda.collection(Person).put(Person(id="p", name="x"))

    asyncio.run(main())


# -- placements -------------------------------------------------------------------------------------------------------


def test_a_home_stays_where_it_was_first(tmp_path: Path) -> None:
    first = {"stores": {"small": {"url": f"sqlite:{tmp_path}/small.db"}}}
    second = {**first, "stores": {**first["stores"], "big": {"url": f"sqlite:{tmp_path}/big.db"}}}
    wishes = {**second, "pins": {"person": {"home": "big"}}}

    async def main() -> None:
        async with open_hda(first, entities=[Person]) as hda:
            await hda.collection(Person).put(Person(id="p", name="민지"))
        async with open_hda(wishes, entities=[Person]) as hda:
            assert hda.remembered["person"].placement.home == "small"
            assert "big" in hda.remembered["person"].advice[0]
            assert await hda.collection(Person).exists("p")

    asyncio.run(main())


def test_a_store_that_changed_its_name_is_not_taken_for_another(tmp_path: Path) -> None:
    def stores(**files: str) -> dict[str, Any]:
        return {"stores": {name: {"url": f"sqlite:{tmp_path}/{file}.db"} for name, file in files.items()}}

    async def main() -> None:
        async with open_hda(stores(main="old"), entities=[Person]) as hda:
            await hda.collection(Person).put(Person(id="p", name="민지"))
        for config in (stores(tiny="old"), stores(main="new", tiny="old"), stores(tiny="old", main="new")):
            with pytest.raises(ConfigurationError, match="'tiny' is its home under the name 'main'"):
                await open_hda(config, entities=[Person])
        async with open_hda(stores(other="new"), entities=[Person]):
            pass
        with pytest.raises(ConfigurationError, match="'main' and 'other' are both its home"):
            await open_hda(stores(main="old", other="new"), entities=[Person])
        async with open_hda(stores(main="old"), entities=[Person]) as hda:
            assert await hda.collection(Person).exists("p")

    asyncio.run(main())


async def complete(read: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Wait until a copy that is being filled may be read: until then it says that it is not complete."""
    for _ in range(400):
        try:
            await read()
        except Unavailable as e:
            if "being filled" not in str(e):
                raise
            await asyncio.sleep(0.05)
        else:
            return
    raise AssertionError("the copy never became readable")


def test_a_new_copy_is_filled_from_the_home(tmp_path: Path) -> None:
    def config(*names: str) -> dict[str, Any]:
        roles = {"home": ["home", "full_text", "vector", "graph"], "words": ["full_text"], "shapes": ["vector"]}
        return {"stores": {n: {"url": f"sqlite:{tmp_path}/{n}.db", "roles": roles[n]} for n in names}}

    async def main() -> None:
        async with open_hda(config("home"), entities=ENTITIES, settings=PROMPT) as hda:
            await remember(hda)
        async with open_hda(config("home", "words", "shapes"), entities=ENTITIES, settings=PROMPT) as hda:
            memories = hda.collection(Memory)
            async with asyncio.timeout(20):
                while hda.remembered["memory"].placement.facets["full_text"] != "words":
                    assert {hit.value.id for hit in await memories.search("자전거")} == {"m1", "m3"}  # by the home
                    await asyncio.sleep(0.01)
            await hda.settle(20)
            hits = await memories.search("자전거")
            assert {hit.value.id for hit in hits} == {"m1", "m3"}
            assert (await memories.similar(KOREAN["m4"], limit=1))[0].value.id == "m4"

    asyncio.run(main())


@entity(name="diary")
class Diary(msgspec.Struct, kw_only=True):
    id: str = msgspec.field(default_factory=new_id)
    text: str


@entity(name="diary")
class SearchableDiary(msgspec.Struct, kw_only=True):
    id: str = msgspec.field(default_factory=new_id)
    text: Annotated[str, FullText(), Embedding()]
    mood: str = "calm"


@entity(name="diary")
class TitledDiary(msgspec.Struct, kw_only=True):
    id: str = msgspec.field(default_factory=new_id)
    text: Annotated[str, FullText(), Embedding()]
    mood: Annotated[str, FullText(), Embedding()] = "calm"


@pytest.mark.parametrize("profile", ["sqlite", "embedded"])
def test_a_class_that_gains_facets_is_searchable_with_its_old_records(profile: str, tmp_path: Path) -> None:
    config = config_of(profile, tmp_path)

    async def main() -> None:
        async with open_hda(config, entities=[Diary], settings=PROMPT) as hda:
            old = [Diary(id=id, text=text) for id, text in KOREAN.items()]
            await hda.collection(Diary).put_many(old + [Diary(text="채우는 글") for _ in range(490)])
            await hda.collection(Diary).put_many([Diary(id=f"z{i}", text=f"나중 글 {i}") for i in range(50)])
        async with open_hda(config, entities=[SearchableDiary], settings=PROMPT) as hda:
            diaries = hda.collection(SearchableDiary)
            await hda.settle(20)
            await complete(lambda: diaries.hybrid("자전거"))
            assert {hit.value.id for hit in await diaries.search("자전거")} == {"m1", "m3"}
            for id in ("m2", "z49"):
                text = cast(SearchableDiary, await diaries.get(id)).text
                assert (await diaries.similar(text, limit=1))[0].value.id == id
            assert cast(SearchableDiary, await diaries.get("m2")).mood == "calm"
            assert await diaries.count(F.mood == "calm") == 545
        async with open_hda(config, entities=[TitledDiary], settings=PROMPT) as hda:  # one more field of each
            titled = hda.collection(TitledDiary)
            await hda.settle(20)
            await complete(lambda: titled.hybrid("자전거"))
            assert {hit.value.id for hit in await titled.search("자전거 calm")} == {"m1", "m3"}
            by_mood = await titled.similar("calm", field="mood", where=F.id.startswith("m"))
            assert {hit.value.id for hit in by_mood} == KOREAN.keys()
            text = cast(TitledDiary, await titled.get("m2")).text
            assert (await titled.similar(text, field="text", limit=1))[0].value.id == "m2"

    asyncio.run(main())


# -- embedders --------------------------------------------------------------------------------------------------------


class Slow:
    """An embedder that works after the commit, as one behind a network does."""

    name = "slow-1"
    dimension = 64
    batch_max = 2
    chars_max = 1000

    def __init__(self) -> None:
        self.inner = HashedEmbedder(self.dimension)
        self.purposes: list[str] = []

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> Sequence[Sequence[float]]:
        assert len(texts) <= self.batch_max
        self.purposes.append(purpose)
        await asyncio.sleep(0.001)
        return await self.inner.embed(texts, purpose=purpose)


@pytest.mark.parametrize("profile", profiles())
def test_an_embedder_of_the_application_works_after_the_commit(profile: str, tmp_path: Path) -> None:
    async def main() -> None:
        slow = Slow()
        config = config_of(profile, tmp_path)
        async with open_hda(config, entities=ENTITIES, embedders={"default": slow}, settings=PROMPT) as hda:
            memories = hda.collection(Memory)
            for id, text in KOREAN.items():
                token = (await memories.put(Memory(id=id, text=text))).token
                (hit, *_) = await memories.similar(text, after=token)
                assert hit.value.id == id
                assert hit.score == pytest.approx(1.0, abs=1e-5)
            assert slow.purposes.count("document") >= len(KOREAN)
            assert slow.purposes.count("query") == len(KOREAN)

    asyncio.run(main())


def test_embedders_must_fit_the_fields() -> None:
    @entity(name="odd")
    class Odd(msgspec.Struct):
        id: str
        text: Annotated[str, Embedding("large")]

    @entity(name="narrow")
    class Narrow(msgspec.Struct):
        id: str
        text: Annotated[str, Embedding(dimension=7)]

    async def main() -> None:
        with pytest.raises(ConfigurationError, match=r"Odd\.text.*'large'.*default"):
            await open_hda("memory:", entities=[Odd])
        with pytest.raises(ConfigurationError, match=r"Narrow\.text.*7.*256"):
            await open_hda("memory:", entities=[Narrow])
        async with open_hda("memory:", entities=[Odd], embedders={"large": HashedEmbedder(32)}) as hda:
            await hda.collection(Odd).put(Odd("a", "글"))
            assert len(await hda.collection(Odd).similar([0.1] * 32)) == 1
        config = {"url": "memory:", "embedders": {"default": {"dimension": 7}}}
        async with open_hda(config, entities=[Narrow]) as hda:
            await hda.collection(Narrow).put(Narrow("a", "글"))
            assert len(await hda.collection(Narrow).similar("글")) == 1

    asyncio.run(main())
