"""Which record names which file."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from polystore.entity import entity, entity_types
from polystore.errors import IntegrityViolation, InvalidData
from polystore.model import Commit, FileRef, file_key
from polystore.protocols import SupportsCommit, SupportsFileClaims
from polystore.testing.conformance.base import Conformance, commit, delete, update, write
from polystore.testing.conformance.objects import DAY_S, DAY_US


@entity()
@dataclass(kw_only=True)
class Album:
    id: str
    cover: FileRef | None = None
    pictures: list[FileRef] = field(default_factory=list[FileRef])


ALBUM = entity_types([Album])["album"]


class FileClaimsConformance(Conformance):
    """A home that knows which record names which file, as part of its commits."""

    protocol = SupportsFileClaims
    home: ClassVar[bool] = True
    types = (ALBUM,)

    def ref(self, data: bytes = b"x") -> FileRef:
        return FileRef(file_key("", self.env.uuid7()), hashlib.sha256(data).hexdigest(), len(data))

    async def claims(self) -> Any:
        return await self.open()

    async def name(self, home: SupportsCommit, id: str, cover: FileRef | None, *pictures: FileRef) -> None:
        await commit(home, write("put", ALBUM, Album(id=id, cover=cover, pictures=list(pictures))))

    async def may_go(
        self, home: SupportsFileClaims, *refs: FileRef, released_us: int = 0, ask: bool = True
    ) -> list[bool]:
        return await home.condemn([ref.key for ref in refs], released_us, ask)

    async def test_a_file_is_named_by_one_record(self) -> None:
        home = await self.claims()
        one, two, three = self.ref(), self.ref(), self.ref()
        await self.name(home, "a", one, two)
        await self.name(home, "a", two, one)  # where in the record it stands is its own affair
        for album in (Album(id="b", cover=one), Album(id="b", pictures=[three, two])):
            with pytest.raises(IntegrityViolation):
                await commit(home, write("put", ALBUM, album))
        await self.name(home, "b", three)
        with pytest.raises(IntegrityViolation):
            await commit(home, update(ALBUM, "b", {"cover": one}))
        assert await self.may_go(home, one, two, three) == [False, False, False]

    async def test_a_file_is_free_when_its_record_is_replaced_or_deleted(self) -> None:
        home = await self.claims()
        one, two = self.ref(), self.ref()
        await self.name(home, "a", one, two)
        await commit(home, update(ALBUM, "a", {"cover": None}))
        assert await self.may_go(home, one, two) == [True, False]
        await self.name(home, "b", one)
        await commit(home, delete(ALBUM, "a"))
        assert await self.may_go(home, one, two) == [False, True]
        await self.name(home, "c", two)
        assert await self.may_go(home, one, two) == [False, False]

    async def test_a_released_file_is_kept_for_its_time(self) -> None:
        home = await self.claims()
        one, never = self.ref(), self.ref()
        await self.name(home, "a", one)
        await commit(home, delete(ALBUM, "a"))
        assert await self.may_go(home, one, never, released_us=DAY_US) == [False, True]
        self.env.forward(DAY_S + 1)
        assert await self.may_go(home, one, released_us=DAY_US) == [True]

    async def test_a_condemned_file_cannot_be_named(self) -> None:
        home = await self.claims()
        one, two = self.ref(), self.ref()
        await self.name(home, "a", one)
        assert await self.may_go(home, one, two, ask=False) == [False, True]
        for _ in range(2):
            with pytest.raises(InvalidData):
                await self.name(home, "b", two)
            self.env.forward(DAY_S - 60)
            assert await self.may_go(home, two, ask=False) == [True]
        await self.name(home, "a", None, one)

    async def test_asking_changes_nothing(self) -> None:
        home = await self.claims()
        one = self.ref()
        assert await self.may_go(home, one) == [True]
        await self.name(home, "a", one)
        assert await self.may_go(home, one) == [False]

    async def test_a_commit_that_fails_names_nothing(self) -> None:
        home = await self.claims()
        held, one = self.ref(), self.ref()
        await self.name(home, "a", held)
        with pytest.raises(IntegrityViolation):
            await commit(
                home,
                write("put", ALBUM, Album(id="b", cover=one)),
                write("put", ALBUM, Album(id="c", cover=held)),
            )
        assert await self.may_go(home, held, one) == [False, True]
        await self.name(home, "d", one)

    async def test_a_commit_that_fails_disturbs_none_beside_it(self) -> None:
        """Several commits of one call: each is decided upon what those before it left."""
        home = await self.claims()
        held, one = self.ref(), self.ref()
        await self.name(home, "a", held)
        bad = [write("put", ALBUM, Album(id="b", cover=one)), write("put", ALBUM, Album(id="c", cover=held))]
        answers = await home.commit(
            [
                Commit(bad),
                Commit([write("put", ALBUM, Album(id="d", cover=one))]),
                Commit([write("put", ALBUM, Album(id="e", cover=one))]),
            ]
        )
        kinds = [type(answer).__name__ for answer in answers]
        assert kinds == ["IntegrityViolation", "Committed", "IntegrityViolation"]
        assert await self.may_go(home, held, one) == [False, False]

    async def test_of_several_that_name_one_file_at_once_one_wins(self) -> None:
        one, two = await self.claims(), await self.claims()
        for turn in range(10):
            ref = self.ref()
            names = [self.name((one, two)[i % 2], f"{turn}-{i}", ref) for i in range(6)]
            answers = await asyncio.gather(*names, return_exceptions=True)
            assert answers.count(None) == 1, answers
            assert all(answer is None or isinstance(answer, IntegrityViolation) for answer in answers), answers

    async def test_a_file_is_either_named_or_condemned(self) -> None:
        one, two = await self.claims(), await self.claims()
        for turn in range(20):
            ref = self.ref()
            calls = [self.name(one, f"{turn}", ref), self.may_go(two, ref, ask=False)]
            named, condemned = await asyncio.gather(*calls[:: 1 - 2 * (turn % 2)], return_exceptions=True)
            if turn % 2:
                named, condemned = condemned, named
            assert (named is None) != (condemned == [True]), (named, condemned)
            assert named is None or isinstance(named, InvalidData)
