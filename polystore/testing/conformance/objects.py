"""Blobs."""

from __future__ import annotations

import asyncio
import hashlib
import random
from typing import Any, cast

import pytest

from polystore.errors import AlreadyExists, InvalidData, NotFound, UnsupportedOperation
from polystore.model import StoredObject, Upload
from polystore.protocols import Repository, SupportsObjects
from polystore.testing.conformance.base import Conformance

DAY_S = 86_400.0
DAY_US = 86_400_000_000
HOSTILE = (
    *("", "/", "..", ".", "/etc/passwd", "../a", "a/../b", "a/..", "a//b", "a/", "./a", "a/./b", "a\\b", "a\0b"),
    *("a b", "ä", "a\n", "C:", "~/*", "a" * 201, "a/" * 256 + "a"),
)


def made(key: str, data: bytes, content_type: str = "text/x-kit") -> StoredObject:
    return StoredObject(key, len(data), hashlib.sha256(data).hexdigest(), content_type)


def alike(found: bytes, wanted: bytes) -> bool:
    """Instead of ==, for which a failed assertion of megabytes would be explained for minutes."""
    return found == wanted


class ObjectsConformance(Conformance):
    """A store of blobs: written once, seen when complete, read in ranges, listed in order."""

    protocol = SupportsObjects
    types = ()

    part_bytes: int

    async def blobs(self) -> SupportsObjects:
        repository: Repository = await self.open()
        self.part_bytes = repository.limits.part_bytes
        return cast(SupportsObjects, repository)

    def upload(self, key: str) -> Upload:
        return Upload(key, str(self.env.uuid7()))

    async def put(self, blobs: SupportsObjects, key: str, data: bytes, **more: Any) -> Upload:
        upload = self.upload(key)
        await self.put_parts(blobs, upload, data)
        await blobs.finish_object(upload, made(key, data, **more))
        return upload

    async def put_parts(self, blobs: SupportsObjects, upload: Upload, data: bytes) -> None:
        for index, start in enumerate(range(0, len(data), self.part_bytes)):
            await blobs.put_part(upload, index, data[start : start + self.part_bytes])

    async def whole(self, blobs: SupportsObjects, key: str, size: int) -> bytes:
        steps = range(0, size, self.part_bytes) or range(1)
        return b"".join([await blobs.read_object(key, start, min(size, start + self.part_bytes)) for start in steps])

    def drawn(self, size: int) -> bytes:
        return self.env.random.randbytes(size)

    async def test_content_comes_back_whole_whatever_its_size(self) -> None:
        blobs = await self.blobs()
        for size in (0, 1, self.part_bytes - 1, self.part_bytes, self.part_bytes + 1, 3 * self.part_bytes + 77):
            key, data = f"kit/size/{size}", self.drawn(size)
            await self.put(blobs, key, data)
            assert alike(await self.whole(blobs, key, size), data), size
            (known,) = await blobs.stat_objects([key])
            assert known is not None
            assert (known.key, known.size, known.sha256) == (key, size, made(key, data).sha256)

    async def test_another_connection_sees_what_was_finished(self) -> None:
        blobs, other = await self.blobs(), await self.blobs()
        await self.put(blobs, "kit/a", b"one")
        assert await other.read_object("kit/a", 0, 3) == b"one"

    async def test_ranges_are_exact(self) -> None:
        blobs = await self.blobs()
        data = self.drawn(2 * self.part_bytes + 1000)
        await self.put(blobs, "kit/a", data)
        draw = random.Random(5)
        edges = [0, 1, self.part_bytes - 1, self.part_bytes, self.part_bytes + 1, len(data) - 1, len(data)]
        ranges = [(a, b) for a in edges for b in edges if a <= b <= a + self.part_bytes]
        for _ in range(40):
            start = draw.randrange(len(data))
            ranges.append((start, min(len(data), start + draw.randrange(self.part_bytes))))
        for start, end in ranges:
            assert alike(await blobs.read_object("kit/a", start, end), data[start:end]), (start, end)

    async def test_a_range_beyond_the_end_is_what_is_there(self) -> None:
        blobs = await self.blobs()
        await self.put(blobs, "kit/a", b"abc")
        assert await blobs.read_object("kit/a", 1, 100) == b"bc"
        assert await blobs.read_object("kit/a", 3, 9) == b""

    async def test_nothing_is_seen_before_it_is_finished(self) -> None:
        blobs = await self.blobs()
        upload, data = self.upload("kit/a"), self.drawn(self.part_bytes + 5)
        await self.put_parts(blobs, upload, data)
        with pytest.raises(NotFound):
            await blobs.read_object("kit/a", 0, 1)
        assert await blobs.stat_objects(["kit/a"]) == [None]
        assert (await blobs.list_objects("", "", 10)).objects == []
        await blobs.finish_object(upload, made("kit/a", data))
        assert alike(await self.whole(blobs, "kit/a", len(data)), data)

    async def test_a_key_is_written_once(self) -> None:
        blobs = await self.blobs()
        await self.put(blobs, "kit/a", b"first")
        for data, kind in ((b"other", "text/x-kit"), (b"", "text/x-kit"), (b"first", "text/x-other")):
            with pytest.raises(AlreadyExists):
                await self.put(blobs, "kit/a", data, content_type=kind)
        assert await blobs.read_object("kit/a", 0, 9) == b"first"
        (known,) = await blobs.stat_objects(["kit/a"])
        assert known is not None
        assert (known.size, known.content_type) == (5, "text/x-kit")

    async def test_finishing_again_is_done_already(self) -> None:
        """An answer that got lost is asked for again."""
        blobs = await self.blobs()
        upload = await self.put(blobs, "kit/a", b"first")
        await blobs.finish_object(upload, made("kit/a", b"first"))
        assert await blobs.read_object("kit/a", 0, 9) == b"first"

    async def test_of_several_that_finish_one_key_at_once_one_wins(self) -> None:
        one, two = await self.blobs(), await self.blobs()
        for turn in range(5):
            key, datas = f"kit/{turn}", [self.drawn(self.part_bytes + 1 + i) for i in range(6)]
            puts = [self.put((one, two)[i % 2], key, data) for i, data in enumerate(datas)]
            answers = await asyncio.gather(*puts, return_exceptions=True)
            winners = [i for i, answer in enumerate(answers) if isinstance(answer, Upload)]
            assert len(winners) == 1, answers
            winner = winners[0]
            assert all(isinstance(a, AlreadyExists) for i, a in enumerate(answers) if i != winner), answers
            assert alike(await self.whole(one, key, len(datas[winner])), datas[winner])
            (known,) = await two.stat_objects([key])
            assert known is not None
            assert known.sha256 == made(key, datas[winner]).sha256

    async def test_a_part_may_be_put_again(self) -> None:
        blobs = await self.blobs()
        upload, data = self.upload("kit/a"), self.drawn(2 * self.part_bytes)
        await blobs.put_part(upload, 0, self.drawn(self.part_bytes))
        await self.put_parts(blobs, upload, data)
        await blobs.finish_object(upload, made("kit/a", data))
        assert alike(await self.whole(blobs, "kit/a", len(data)), data)

    async def test_missing_parts_make_no_content(self) -> None:
        blobs = await self.blobs()
        upload, data = self.upload("kit/a"), self.drawn(2 * self.part_bytes)
        await blobs.put_part(upload, 0, data[: self.part_bytes])
        for unfinished in (upload, self.upload("kit/a")):
            with pytest.raises(NotFound):
                await blobs.finish_object(unfinished, made("kit/a", data))
        assert await blobs.stat_objects(["kit/a"]) == [None]

    async def test_the_content_type_is_kept(self) -> None:
        blobs = await self.blobs()
        await self.put(blobs, "kit/a", b"x", content_type="image/svg+xml; charset=utf-8")
        (known,) = await blobs.stat_objects(["kit/a"])
        assert known is not None
        assert known.content_type == "image/svg+xml; charset=utf-8"
        assert (await blobs.list_objects("", "", 10)).objects[0].content_type == known.content_type

    async def test_stat_answers_in_the_order_asked(self) -> None:
        blobs = await self.blobs()
        for key in ("kit/b", "kit/a"):
            await self.put(blobs, key, key.encode())
        found = await blobs.stat_objects(["kit/a", "kit/none", "kit/b", "kit/a"])
        assert [one and one.key for one in found] == ["kit/a", None, "kit/b", "kit/a"]

    async def test_the_list_is_sorted_and_comes_in_pages(self) -> None:
        blobs = await self.blobs()
        keys = [
            "a",
            "a-b",
            "a.b/x",
            "a/b",
            "a/b/c",
            "a/b-c",
            "a/bb",
            "a0",
            "A",
            "Z/z",
            "~",
            "~/0",
            "%41/x",
            "b/1/2/3",
            "_",
        ]
        for key in keys:
            await self.put(blobs, key, key.encode())
        assert [one.key for one in (await blobs.list_objects("", "", 100)).objects] == sorted(keys)
        for limit in (1, 2, 7):
            listed: list[str] = []
            while page := (await blobs.list_objects("", listed[-1] if listed else "", limit)).objects:
                assert len(page) <= limit
                listed += [one.key for one in page]
            assert listed == sorted(keys), limit
        for prefix in ("a", "a/", "a/b", "a/b/", "~/", "nothing"):
            expected = sorted(key for key in keys if key.startswith(prefix))
            assert [one.key for one in (await blobs.list_objects(prefix, "", 100)).objects] == expected, prefix
            behind = [key for key in expected if key > "a/b"]
            assert [one.key for one in (await blobs.list_objects(prefix, "a/b", 100)).objects] == behind, prefix

    async def test_the_list_knows_how_old_content_is(self) -> None:
        blobs = await self.blobs()
        await self.put(blobs, "kit/old", b"x")
        self.env.forward(DAY_S + 1)
        await self.put(blobs, "kit/new", b"x")
        page = await blobs.list_objects("", "", 10)
        assert [one.key for one in page.objects if one.created_us <= page.now_us - DAY_US] == ["kit/old"]
        assert [one.key for one in page.objects] == ["kit/new", "kit/old"]

    async def test_what_is_removed_is_gone_and_may_be_removed_again(self) -> None:
        blobs = await self.blobs()
        await self.put(blobs, "kit/a", self.drawn(3 * self.part_bytes))
        await self.put(blobs, "kit/b", b"stays")
        for _ in range(2):
            await blobs.remove_objects(["kit/a", "kit/none"])
        with pytest.raises(NotFound):
            await blobs.read_object("kit/a", 0, 1)
        assert await blobs.stat_objects(["kit/a"]) == [None]
        assert [one.key for one in (await blobs.list_objects("", "", 10)).objects] == ["kit/b"]
        while await blobs.discard_parts(0):
            pass
        assert await blobs.read_object("kit/b", 0, 9) == b"stays"

    async def test_only_uploads_that_nobody_touches_are_discarded(self) -> None:
        blobs = await self.blobs()
        data = self.drawn(self.part_bytes + 1)
        await self.put(blobs, "kit/done", data)
        left = self.upload("kit/left")
        await self.put_parts(blobs, left, data)
        while await blobs.discard_parts(DAY_US):
            pass
        await blobs.finish_object(left, made("kit/left", data))
        late = self.upload("kit/late")
        await self.put_parts(blobs, late, data)
        self.env.forward(DAY_S + 1)
        while await blobs.discard_parts(DAY_US):
            pass
        with pytest.raises(NotFound):
            await blobs.finish_object(late, made("kit/late", data))
        for key in ("kit/done", "kit/left"):
            assert alike(await self.whole(blobs, key, len(data)), data)

    async def test_an_abandoned_upload_is_forgotten_and_content_is_not(self) -> None:
        blobs = await self.blobs()
        done, upload = await self.put(blobs, "kit/done", b"abc"), self.upload("kit/a")
        await blobs.put_part(upload, 0, b"abc")
        for one in (upload, upload, done):
            await blobs.abandon_object(one)
        with pytest.raises(NotFound):
            await blobs.finish_object(upload, made("kit/a", b"abc"))
        assert await blobs.read_object("kit/done", 0, 3) == b"abc"

    async def test_keys_that_could_mean_something_else_are_refused(self) -> None:
        blobs = await self.blobs()
        for key in HOSTILE:
            upload = self.upload(key)
            with pytest.raises(InvalidData):
                await blobs.put_part(upload, 0, b"x")
            with pytest.raises(InvalidData):
                await blobs.finish_object(upload, made(key, b""))
            with pytest.raises(InvalidData):
                await blobs.read_object(key, 0, 1)
            with pytest.raises(InvalidData):
                await blobs.stat_objects([key])
            with pytest.raises(InvalidData):
                await blobs.remove_objects([key])
        assert (await blobs.list_objects("", "", 10)).objects == []

    async def test_an_address_is_one_of_content_that_is_there(self) -> None:
        blobs = await self.blobs()
        await self.put(blobs, "kit/a", b"x")
        try:
            assert ":" in await blobs.object_url("kit/a", 60)
        except UnsupportedOperation:
            return
        with pytest.raises(NotFound):
            await blobs.object_url("kit/none", 60)
