"""An application whose conversations live in a store that cannot commit, for the tests of that."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, cast

from polystore import (
    Collection,
    FileRef,
    FullText,
    HybridDataArchitecture,
    Measure,
    Unavailable,
    Unique,
    entity,
)
from polystore.consistency import Settings
from polystore.consistency.verify import Verifier
from polystore.model import JOURNAL_BODY, Key, RetryRow
from polystore.protocols import SupportsJournal
from polystore.testing.documents import Documents

R = TypeVar("R")

PROMPT = Settings(awaken_spread_s=0.01, retry_max_s=0.1, poll_s=0.05)


@entity(data_type="conversation")
@dataclass(kw_only=True)
class Talk:
    id: str
    topic: Annotated[str, FullText()]
    slug: Annotated[str | None, Unique()] = None
    turns: list[str] = field(default_factory=list[str])
    stars: int = 0


@entity()
@dataclass(kw_only=True)
class Member:
    id: str
    name: str


@entity(name="talk", data_type="conversation")
@dataclass(kw_only=True)
class Post:
    id: str
    text: str
    photo: FileRef | None = None
    mood: ClassVar[Measure[float]] = Measure(float, on_delete="erase")


@entity()
@dataclass(kw_only=True)
class Named:
    id: str
    name: Annotated[str, FullText()]


def config(directory: Path, **more: Mapping[str, Any]) -> dict[str, Any]:
    stores = {
        "main": {"url": f"sqlite:{directory}/main.db"},
        "docs": {"url": f"documents:sqlite:{directory}/docs.db"},
        **more,
    }
    return {"stores": stores, "pins": {"talk": {"home": "docs"}}}


def opened(directory: Path, *entities: type[Any], **more: Mapping[str, Any]) -> Any:
    return HybridDataArchitecture.open(config(directory, **more), entities=entities or [Talk, Member], settings=PROMPT)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def home(hda: HybridDataArchitecture) -> Any:
    """The home as the test can break it."""
    return cast(Documents, hda.stores["docs"].repository)


def one_star_more(talk: Talk) -> Talk:
    return dataclasses.replace(talk, stars=talk.stars + 1)


async def kept(hda: HybridDataArchitecture, id: str) -> bool:
    """Whether the journal has the body."""
    (record,) = await hda.stores["main"].repository.get([Key("", "talk", id)])
    assert record is not None
    assert record.body is not None
    return record.body[JOURNAL_BODY] is not None


async def owes(hda: HybridDataArchitecture, copy: str, number: int) -> bool:
    backlog = await hda.stores["main"].call(SupportsJournal.backlog)
    return backlog.retry.get(copy) == number


async def differences(hda: HybridDataArchitecture) -> list[tuple[str, str, str]]:
    await hda.settle(30)
    verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
    return [(one.store, one.key.id, one.problem) async for one in verifier.differences("talk")]


async def until(ask: Callable[[], Awaitable[R]], timeout_s: float) -> R:
    """The first answer that is one; a store may not answer for a while."""
    async with asyncio.timeout(timeout_s):
        while True:
            with contextlib.suppress(Unavailable):
                if answer := await ask():
                    return answer
            await asyncio.sleep(0.02)


async def nothing_there(talks: Collection[Talk]) -> bool:
    return await talks.get("a") is None and not await talks.count()


async def dead_letters(hda: HybridDataArchitecture) -> Sequence[RetryRow]:
    return (await hda.stores["main"].call(SupportsJournal.parked, None, None, 9))[0]


class Down:
    """Inside, the home does not answer."""

    def __init__(self, hda: HybridDataArchitecture) -> None:
        self._home = home(hda)

    def __enter__(self) -> None:
        async def nothing(*_: object) -> Any:
            raise Unavailable("it is down")

        for verb in ("get", "apply", "find", "ping"):
            setattr(self._home, verb, nothing)

    def __exit__(self, *_: object) -> None:
        for verb in ("get", "apply", "find", "ping"):
            delattr(self._home, verb)
