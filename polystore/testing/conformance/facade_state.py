"""State, limits and channels through the facade: an application whose stores can keep live state."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from polystore.architecture import HybridDataArchitecture
from polystore.entity import EntityType, entity, entity_type
from polystore.errors import AlreadyExists, Conflict, NotFound
from polystore.testing.conformance.base import InItsOwnLoop, same
from polystore.testing.conformance.entities import NO_CODE, VALUES, Address, Level, Mood
from polystore.testing.conformance.facade import Closing, Config

SHOWN = 40
"""Of the long lists of values."""


@entity(name="kit_moment", data_type="live_state")
@dataclass(kw_only=True)
class Moment:
    """Every field type."""

    id: str
    word: str = ""
    number: int = 0
    ratio: float = 0.0
    flag: bool = False
    raw: bytes = b""
    at: datetime = datetime(2024, 1, 1, tzinfo=UTC)
    day: date = date(2024, 1, 1)
    price: Decimal = Decimal(0)
    code: UUID = NO_CODE
    mood: Mood = Mood.CALM
    level: Level = Level.LOW
    address: Address | None = None
    rooms: list[Address] = field(default_factory=list[Address])
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    maybe_at: datetime | None = None
    maybe_price: Decimal | None = None


MOMENT: EntityType[Moment] = entity_type(Moment)


class StateFacadeConformance(InItsOwnLoop):
    """A subclass overrides the fixture `config`, as for `FacadeConformance`."""

    config: Config

    @pytest.fixture(name="config")
    def given_config(self) -> Config:
        """The one thing a subclass gives."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `config`, see {__name__}")

    @pytest.fixture(autouse=True)
    def given(self, config: Config) -> None:
        self.config = config
        self.opened = []

    async def open(self) -> HybridDataArchitecture:
        hda = await HybridDataArchitecture.open(self.config, entities=[Moment])
        self.opened.append(Closing(hda))
        return hda

    async def test_every_value_comes_back_exactly(self) -> None:
        moments = (await self.open()).state(Moment)
        given = [
            Moment(id=f"{name}-{i}", **{name: value})
            for name, values in VALUES.items()
            if name in MOMENT.fields
            for i, value in enumerate(values[:SHOWN])
        ]
        await asyncio.gather(*(moments.put(one) for one in given))
        for wanted, found in zip(given, await moments.get_many([one.id for one in given]), strict=True):
            assert found is not None
            assert same(MOMENT.encode(found), MOMENT.encode(wanted)), wanted.id

    async def test_eight_at_once_create_once_count_exactly_and_lose_no_change(self) -> None:
        hda = await self.open()
        moments = hda.state(Moment)
        made: list[int] = []
        appended: list[str] = []

        async def one(number: int) -> None:
            try:
                await moments.create(Moment(id="m", level=Level.HIGH))
                made.append(number)
            except AlreadyExists:
                pass
            for turn in range(10):
                await moments.incr("m", "number", number)
                await moments.incr("m", "ratio", 0.5)
                word = f"{number}{turn},"
                try:
                    await moments.update("m", partial(appended_to, word))
                    appended.append(word)
                except Conflict:  # five others came between
                    pass

        await asyncio.gather(*(one(number) for number in range(8)))
        found = await moments.get("m")
        assert found is not None
        assert (len(made), found.number, found.ratio, found.level) == (1, 280, 40.0, Level.HIGH)
        assert sorted(found.word.split(",")) == sorted(word.rstrip(",") for word in [*appended, ""])

    async def test_tenants_have_values_limits_and_channels_of_their_own(self) -> None:
        hda = await self.open()
        views = [hda.tenant(tenant) for tenant in ("a", "b")]
        for number, view in enumerate(views):
            await view.state(Moment).put(Moment(id="m", number=number))
            assert (await view.limiter("kit", limit=1, per_s=3600).take("m")).allowed
            assert not (await view.limiter("kit", limit=1, per_s=3600).take("m")).allowed
        assert [one and one.number for one in [await view.state(Moment).get("m") for view in views]] == [0, 1]
        async with views[0].channel("kit", type=int).subscribe() as messages:
            await views[1].channel("kit", type=int).publish(1)
            await views[0].channel("kit", type=int).publish(2)
            assert await anext(messages) == 2
        assert await views[0].state(Moment).delete("m")
        assert [key async for key in views[0].state(Moment).stream_keys()] == []
        assert [key async for key in views[1].state(Moment).stream_keys()] == ["m"]

    async def test_another_architecture_on_the_same_stores_sees_the_same(self) -> None:
        first = await self.open()
        await first.state(Moment).put(Moment(id="m", word="가"), ttl_s=3600)
        assert (await first.limiter("kit", limit=5, per_s=3600).take("m", cost=4)).allowed
        second = await self.open()
        assert await second.state(Moment).get("m") == Moment(id="m", word="가")
        assert 0 < (await second.state(Moment).ttl("m") or 0) <= 3600
        assert not (await second.limiter("kit", limit=5, per_s=3600).take("m", cost=2)).allowed
        await second.state(Moment).delete("m")
        with pytest.raises(NotFound):
            await first.state(Moment).update("m", {"word": "x"})


def appended_to(word: str, moment: Moment) -> Moment:
    return replace(moment, word=moment.word + word)
