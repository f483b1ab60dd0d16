"""What the tests of measures and logs share: a person with measures, a log, and how an architecture of them is run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest

from polystore import FullText, HybridDataArchitecture, Index, Measure, entity, new_id
from polystore.consistency import Settings
from polystore.env import Env
from tests.integration.facade.world import Config, config_of

DAY = datetime(2026, 3, 1, tzinfo=UTC)
SPLIT: Mapping[str, Any] = {
    "stores": {
        "home": {"url": "memory:", "roles": ["home", "journal"]},
        "facts": {"url": "memory:", "roles": ["time_series"]},
        "words": {"url": "memory:", "roles": ["full_text"]},
    }
}
PROMPT = Settings(poll_s=0.02, retry_base_s=0.005, retry_max_s=0.02)


@entity()
@dataclass(kw_only=True)
class Person:
    id: str
    name: str = ""
    mood: ClassVar[Measure[float]] = Measure(float, unit="valence")
    steps: ClassVar[Measure[int]] = Measure(int)
    awake: ClassVar[Measure[bool]] = Measure(bool)
    place: ClassVar[Measure[str]] = Measure(str)
    pulse: ClassVar[Measure[int]] = Measure(int, unit="1/min", retention_s=3600)
    secret: ClassVar[Measure[float]] = Measure(float, on_delete="erase")


@entity()
@dataclass(kw_only=True)
class Account:
    number: int
    id: int
    balance: ClassVar[Measure[float]] = Measure(float)


@entity(data_type="log")
@dataclass(kw_only=True)
class Event:
    id: str = field(default_factory=new_id)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    text: Annotated[str, FullText()]
    level: Annotated[int, Index()] = 0
    cost: Decimal | None = None


@entity(data_type="log", ttl_s=60)
@dataclass(kw_only=True)
class Brief:
    id: int
    at: datetime


ENTITIES = [Person, Account, Event, Brief]
PROFILES = ("split", "one memory", "sqlite", "embedded")
Test = Callable[[HybridDataArchitecture], Coroutine[Any, Any, None]]

everywhere = pytest.mark.parametrize("profile", PROFILES)


def config(profile: str, directory: Path) -> Config:
    return SPLIT if profile == "split" else config_of(profile, directory)


def run(
    test: Test, configured: Config = SPLIT, *, env: Env | None = None, settings: Settings = PROMPT, **options: Any
) -> None:
    async def main() -> None:
        entities = options.get("entities", ENTITIES)
        async with HybridDataArchitecture.open(configured, entities=entities, env=env, settings=settings) as hda:
            await test(hda)

    asyncio.run(main())


def at(minutes: float = 0.0) -> datetime:
    return DAY + timedelta(minutes=minutes)
