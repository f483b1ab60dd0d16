"""Files through the facade, on every profile: saved first, named by one record, checked when read, swept when free."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import os
import random
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polystore import (
    ConfigurationError,
    FileRef,
    HybridDataArchitecture,
    IntegrityViolation,
    InvalidData,
    NotFound,
    StoreCorrupt,
    Unavailable,
    UnsupportedOperation,
    ValueTooLarge,
    entity,
    new_id,
)
from polystore.consistency import Settings
from polystore.model import Upload, file_key
from polystore.protocols import SupportsObjects
from polystore.testing.conformance import MovableEnv
from polystore.testing.conformance.objects import made
from tests.integration.facade.world import config_of, down, profiles

HOUR_S, DAY_S, WEEK_S = 3600, 86_400, 7 * 86_400


@entity()
@dataclass(kw_only=True)
class Picture:
    id: str = field(default_factory=new_id)
    title: str = ""
    photo: FileRef | None = None
    others: list[FileRef] = field(default_factory=list[FileRef])


@entity()
@dataclass(kw_only=True)
class Letter:
    id: str = field(default_factory=new_id)
    scan: FileRef


class World:
    """An open architecture whose clocks can be set forward."""

    def __init__(self, hda: HybridDataArchitecture, env: MovableEnv) -> None:
        self.hda, self.env = hda, env
        self.files = hda.files
        self.pictures = hda.collection(Picture)


def read_bytes(path: Path) -> bytes:
    return path.read_bytes()


def data_of(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@contextlib.asynccontextmanager
async def world(config: Any, **options: Any) -> AsyncGenerator[World]:
    env = MovableEnv()
    async with HybridDataArchitecture.open(config, entities=[Picture, Letter], env=env, **options) as hda:
        yield World(hda, env)


def config_for(profile: str, directory: Path) -> Any:
    """The profiles of the other tests, and "apart": files in a directory of their own beside a home of SQLite."""
    if profile == "split memory":
        return {"stores": {role: {"url": "memory:", "roles": [role]} for role in ("home", "file")}}
    if profile == "apart":
        home = {"url": f"sqlite:{directory}/home.db", "roles": ["home"]}
        return {"stores": {"home": home, "files": {"url": f"file:{directory}/apart"}}}
    return config_of(profile, directory)


PROFILES = [*profiles(), "apart"]
Test = Callable[[World], Coroutine[Any, Any, None]]


def everywhere(test: Test) -> Callable[[str, Path], None]:
    @pytest.mark.parametrize("profile", PROFILES)
    def run(profile: str, tmp_path: Path) -> None:
        async def whole() -> None:
            async with world(config_for(profile, tmp_path)) as one:
                await test(one)

        asyncio.run(whole())

    functools.update_wrapper(run, test, assigned=("__name__", "__doc__", "__module__"), updated=())
    del run.__wrapped__  # type: ignore[attr-defined]  # pytest would look at its parameters
    return run


async def part_bytes(one: World) -> int:
    name = one.hda.manager.placements["picture"].beside["file"]
    return one.hda.stores[name].limits.part_bytes


# -- in and out ---------------------------------------------------------------------------------------------------


class AsyncFile:
    """As web frameworks have uploads."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    async def read(self, size: int = -1) -> bytes:
        await asyncio.sleep(0)
        return self._file.read(min(size, 10_000))


@everywhere
async def test_content_of_every_kind_comes_back(one: World) -> None:
    size = 2 * await part_bytes(one) + 4321
    data = data_of(size)

    async def stream() -> AsyncIterator[bytes]:
        draw, start = random.Random(3), 0
        while start < size:
            end = start + draw.choice([1, 700, 100_000, 700_000])
            yield data[start:end]
            yield b""
            start = end

    with _a_file(data) as name, io.FileIO(name) as opened:
        path = Path(name)
        sources: list[Any] = [
            data,
            bytearray(data),
            memoryview(data),
            io.BytesIO(data),
            AsyncFile(data),
            stream(),
            path,
            opened,
        ]
        for source in sources:
            ref = await one.files.save(source, content_type="image/png")
            assert (ref.size, ref.content_type) == (size, "image/png"), source
            assert await one.files.read(ref) == data, source


@contextlib.contextmanager
def _a_file(data: bytes) -> Generator[str]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.name


@everywhere
async def test_an_empty_file_is_a_file(one: World) -> None:
    ref = await one.files.save(b"")
    assert ref.size == 0
    assert await one.files.read(ref) == b""
    assert await one.files.exists(ref)


@everywhere
async def test_saved_again_it_is_another_file(one: World) -> None:
    first, second = await one.files.save(b"same"), await one.files.save(b"same")
    assert first.key != second.key
    assert first.sha256 == second.sha256


@pytest.mark.parametrize("profile", PROFILES)
def test_every_range_is_exact(profile: str, tmp_path: Path) -> None:
    async def whole() -> None:
        async with world(config_for(profile, tmp_path)) as one:
            part = await part_bytes(one)
            data = data_of(2 * part + 99)
            ref = await one.files.save(data)
            loop = asyncio.get_running_loop()
            positions = st.integers(0, len(data)) | st.sampled_from([0, part - 1, part, part + 1, 2 * part, len(data)])

            @settings(max_examples=60, deadline=None, database=None)
            @given(positions, positions)
            def check(a: int, b: int) -> None:
                start, end = sorted((a, b))
                assert asyncio.run_coroutine_threadsafe(read(start, end), loop).result(30) == data[start:end]

            async def read(start: int, end: int) -> bytes:
                async with one.files.open(ref, start=start, end=end) as chunks:
                    return b"".join([chunk async for chunk in chunks])

            await asyncio.to_thread(check)
            for start, end in ((-1, 5), (5, 4), (0, len(data) + 1), (len(data) + 1, None), (0.0, 5)):
                with pytest.raises(InvalidData, match="range"):
                    one.files.open(ref, start=start, end=end)  # type: ignore[arg-type]

    asyncio.run(whole())


@everywhere
async def test_reading_is_bounded(one: World) -> None:
    ref = await one.files.save(b"12345")
    with pytest.raises(ValueTooLarge, match="5 bytes"):
        await one.files.read(ref, limit=4)
    assert await one.files.read(ref, limit=5) == b"12345"


@everywhere
async def test_what_is_no_content_is_refused_and_leaves_nothing(one: World) -> None:
    async def texts() -> AsyncIterator[Any]:
        yield b"good"
        yield "bad"

    for bad in ("a/path", 7, None, ["x"], io.StringIO("text"), texts()):
        with pytest.raises(InvalidData):
            await one.files.save(bad)  # type: ignore[arg-type]
    for kind in ("", "x" * 256, "text/plain\r\nSet-Cookie: x", "café", 7):
        with pytest.raises(InvalidData, match="content_type"):
            await one.files.save(b"x", content_type=kind)  # type: ignore[arg-type]
    one.env.forward(WEEK_S)
    assert (await one.hda.sweep_files(dry_run=True)).examined == 0


@everywhere
async def test_a_source_that_fails_or_is_cancelled_leaves_nothing(one: World) -> None:
    started = asyncio.Event()

    async def failing() -> AsyncIterator[bytes]:
        yield data_of(1 << 20)
        raise LookupError("the source broke")

    async def endless() -> AsyncIterator[bytes]:
        yield data_of(2 << 20)
        started.set()
        await asyncio.Event().wait()

    with pytest.raises(LookupError, match="broke"):
        await one.files.save(failing())
    saving = asyncio.create_task(one.files.save(endless()))
    await started.wait()
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    one.env.forward(WEEK_S)
    assert (await one.hda.sweep_files(dry_run=True)).examined == 0


@everywhere
async def test_a_file_is_written_whole_or_not_at_all(one: World) -> None:
    with tempfile.TemporaryDirectory() as folder:
        goal = Path(folder, "goal")
        ref = await one.files.save(b"content")
        await one.files.save_to(ref, goal)
        await one.files.delete(ref)
        with pytest.raises(NotFound):
            await one.files.save_to(ref, goal)
        assert os.listdir(folder) == ["goal"]
        assert read_bytes(goal) == b"content"


@everywhere
async def test_missing_content_is_not_corrupt_and_corrupt_is_not_missing(one: World) -> None:
    ref = await one.files.save(data_of(300_000))
    for wrong in (msgspec.structs.replace(ref, sha256="0" * 64), msgspec.structs.replace(ref, size=ref.size + 1)):
        with pytest.raises(StoreCorrupt, match="restore"):
            await one.files.read(wrong)
    async with one.files.open(msgspec.structs.replace(ref, sha256="0" * 64), start=1) as chunks:
        assert sum([len(chunk) async for chunk in chunks]) == ref.size - 1  # of a part nobody can say
    missing = msgspec.structs.replace(ref, key=file_key("", one.env.uuid7()))
    with pytest.raises(NotFound):
        await one.files.read(missing)
    with pytest.raises(NotFound):
        async with one.files.open(missing):
            raise AssertionError("it was opened")
    assert not await one.files.exists(missing)


@everywhere
async def test_an_address_is_that_of_the_file_or_there_is_none(one: World) -> None:
    ref = await one.files.save(b"content")
    store = one.hda.stores[one.hda.manager.placements["picture"].beside["file"]]
    if type(store.repository).__name__ == "FileRepository":
        url = await one.files.url(ref)
        assert read_bytes(Path(url.removeprefix("file://").replace("%40", "@"))) == b"content"
    else:
        with pytest.raises(UnsupportedOperation, match="open the file"):
            await one.files.url(ref)
    with pytest.raises(InvalidData, match="expires_s"):
        await one.files.url(ref, expires_s=0)


# -- the record that names it -------------------------------------------------------------------------------------


@everywhere
async def test_a_record_keeps_its_files(one: World) -> None:
    a, b, c = [await one.files.save(bytes([i])) for i in range(3)]
    picture = Picture(photo=a, others=[b, c])
    await one.pictures.put(picture)
    assert await one.pictures.get(picture.id) == picture
    await one.pictures.put(picture)
    await one.pictures.update(picture.id, {"photo": b, "others": [a]})
    stored = await one.pictures.get(picture.id)
    assert stored is not None
    assert (stored.photo, stored.others) == (b, [a])


@everywhere
async def test_a_record_cannot_name_what_is_not_there(one: World) -> None:
    ref = await one.files.save(b"there")
    wrong = [
        msgspec.structs.replace(ref, size=4),
        msgspec.structs.replace(ref, sha256="0" * 64),
        msgspec.structs.replace(ref, key=file_key("", one.env.uuid7())),
        msgspec.structs.replace(ref, key="../../etc/passwd"),
        msgspec.structs.replace(ref, key=file_key("other", one.env.uuid7())),
    ]
    for bad in wrong:
        with pytest.raises(InvalidData, match="a file that it names"):
            await one.pictures.put(Picture(id="p", others=[bad]))
        with pytest.raises(InvalidData, match="a file that it names"):
            await one.hda.write_operation({"core": {}, "files": {"photo": bad}}, entity="picture", key="p")
    assert await one.pictures.count() == 0


@everywhere
async def test_a_file_belongs_to_one_record(one: World) -> None:
    ref = await one.files.save(b"one")
    await one.pictures.put(Picture(id="a", photo=ref))
    with pytest.raises(IntegrityViolation, match="another record"):
        await one.pictures.put(Picture(id="b", others=[ref]))
    with pytest.raises(IntegrityViolation, match="another record"):
        await one.hda.collection(Letter).put(Letter(scan=ref))
    async with one.hda.transaction() as tx:
        tx.put(Picture(id="a"))
        tx.put(Letter(id="l", scan=ref))
    assert (await one.hda.collection(Letter).load("l")).value.scan == ref


@everywhere
async def test_of_many_records_that_name_a_file_at_once_one_does(one: World) -> None:
    for turn in range(5):
        ref = await one.files.save(b"x")
        puts = [one.pictures.put(Picture(id=f"{turn}-{i}", photo=ref)) for i in range(8)]
        answers = await asyncio.gather(*puts, return_exceptions=True)
        assert sum(not isinstance(answer, Exception) for answer in answers) == 1, answers
        assert sum(isinstance(answer, IntegrityViolation) for answer in answers) == 7, answers


@everywhere
async def test_a_tenant_has_its_own_files(one: World) -> None:
    ours, theirs = one.hda.tenant("ours"), one.hda.tenant("../ours")
    ref = await ours.files.save(b"ours")
    calls: list[Callable[[], Coroutine[Any, Any, object]]] = [
        lambda: theirs.files.read(ref),
        lambda: one.files.read(ref),
        lambda: theirs.files.delete(ref),
        lambda: theirs.files.exists(ref),
        lambda: theirs.files.url(ref),
        lambda: theirs.collection(Picture).put(Picture(photo=ref)),
        lambda: one.pictures.put(Picture(photo=ref)),
    ]
    for call in calls:
        with pytest.raises(InvalidData, match="another tenant"):
            await call()
    await ours.collection(Picture).put(Picture(photo=ref))
    assert await ours.files.read(ref) == b"ours"


@everywhere
async def test_the_store_is_asked_once_for_files_it_has_not_shown_yet(one: World) -> None:
    refs = [await one.files.save(bytes([i])) for i in range(3)]
    with one.hda.trace() as trace:
        await one.pictures.put(Picture(id="a", photo=refs[0], others=refs[1:]))
        await one.pictures.put(Picture(id="a", photo=refs[0], others=refs[1:]))
    assert [step.verb for step in trace.steps].count("stat_objects") == 0
    one.env.forward(2 * HOUR_S)
    with one.hda.trace() as trace:
        for _ in range(2):
            await one.pictures.put(Picture(id="a", photo=refs[0], others=refs[1:]))
    assert [step.verb for step in trace.steps].count("stat_objects") == 1


@everywhere
async def test_parts_of_a_write_may_be_files(one: World) -> None:
    a, b = await one.files.save(b"a"), await one.files.save(b"b")
    parts: Any = {"core": {"title": "t"}, "files": {"photo": msgspec.to_builtins(a), "others": [b]}}
    await one.hda.write_operation(parts, entity="picture", key="p")
    assert await one.pictures.get("p") == Picture(id="p", title="t", photo=a, others=[b])
    await one.hda.write_operation({"files": {"others": [], "photo": b}}, entity="picture", key="p")
    assert await one.pictures.get("p") == Picture(id="p", title="t", photo=b)
    with pytest.raises(InvalidData, match="fields it can have: photo, others"):
        await one.hda.write_operation({"files": {"title": b}}, entity="picture", key="p")
    for bad in ({"photo": {"key": 7}}, {"photo": "x"}):
        with pytest.raises(InvalidData, match="photo"):
            await one.hda.write_operation({"files": bad}, entity="picture", key="p")


def test_without_a_place_for_files_there_are_none() -> None:
    @entity()
    @dataclass
    class Plain:
        id: str

    async def whole() -> None:
        async with HybridDataArchitecture.open("memory:", entities=[Plain]) as hda:
            with pytest.raises(UnsupportedOperation, match="FileRef"):
                _ = hda.files

    asyncio.run(whole())


def test_while_the_store_of_files_is_down_records_that_name_new_files_wait_and_others_do_not() -> None:
    async def whole() -> None:
        stores = {"home": {"url": "memory:", "roles": ["home"]}, "files": {"url": "memory:", "roles": ["file"]}}
        async with world({"stores": stores}) as one:
            ref = await one.files.save(b"x")
            one.env.forward(2 * HOUR_S)
            with down(one.hda.stores["files"], "stat_objects"):
                with pytest.raises(Unavailable):
                    await one.pictures.put(Picture(id="a", photo=ref))
                await one.pictures.put(Picture(id="b"))
            assert not await one.pictures.exists("a")

    asyncio.run(whole())


# -- what nobody names any more -----------------------------------------------------------------------------------


@everywhere
async def test_the_sweep_removes_what_no_record_names_and_nothing_else(one: World) -> None:
    named, orphan = await one.files.save(b"named"), await one.files.save(b"orphan")
    other = one.hda.tenant("other")
    theirs, their_orphan = await other.files.save(b"theirs"), await other.files.save(b"lost")
    await one.pictures.put(Picture(photo=named))
    await other.collection(Picture).put(Picture(photo=theirs))
    assert (await one.hda.sweep_files()).removed == 0
    one.env.forward(DAY_S + 60)
    young = await one.files.save(b"young")
    dry = await one.hda.sweep_files(dry_run=True)
    assert (dry.examined, dry.removed, dry.bytes, dry.dry_run) == (4, 2, 10, True)
    assert await one.files.exists(orphan)
    seen: list[int] = []
    report = await one.hda.sweep_files(progress=lambda so_far: seen.append(so_far.removed))
    assert (report.removed, report.bytes, seen[-1]) == (2, 10, 2)
    assert not await one.files.exists(orphan)
    assert not await other.files.exists(their_orphan)
    for files, ref in ((one.files, named), (one.files, young), (other.files, theirs)):
        assert await files.exists(ref)
    assert (await one.hda.sweep_files()).removed == 0


@everywhere
async def test_replaced_and_deleted_content_stays_for_its_time(one: World) -> None:
    first, second = await one.files.save(b"first"), await one.files.save(b"second")
    await one.pictures.put(Picture(id="a", photo=first))
    one.env.forward(30 * DAY_S)
    await one.pictures.put(Picture(id="a", photo=second))
    one.env.forward(WEEK_S - 60)
    assert (await one.hda.sweep_files()).removed == 0
    await one.pictures.delete("a")
    one.env.forward(120)
    assert (await one.hda.sweep_files()).removed == 1
    assert not await one.files.exists(first)
    one.env.forward(WEEK_S)
    assert (await one.hda.sweep_files()).removed == 1
    assert not await one.files.exists(second)


@everywhere
async def test_content_that_is_named_again_in_its_time_stays(one: World) -> None:
    ref = await one.files.save(b"x")
    await one.pictures.put(Picture(id="a", photo=ref))
    await one.pictures.delete("a")
    one.env.forward(WEEK_S - 60)
    await one.pictures.put(Picture(id="b", photo=ref))
    one.env.forward(WEEK_S)
    assert (await one.hda.sweep_files()).removed == 0
    assert await one.files.read(ref) == b"x"


@everywhere
async def test_a_record_and_the_sweep_never_both_have_a_file(one: World) -> None:
    """The record is written while the sweep is at work: it is either refused, or its content is there."""
    both = {True: 0, False: 0}
    for turn in range(12):
        refs = [await one.files.save(bytes([turn, i])) for i in range(6)]

        async def later(id: str, ref: FileRef, ticks: int) -> None:
            for _ in range(ticks):
                await asyncio.sleep(0)
            await one.pictures.put(Picture(id=id, photo=ref))

        puts = [later(f"{turn}-{i}", ref, i * turn) for i, ref in enumerate(refs)]
        answers = await asyncio.gather(one.hda.sweep_files(older_than_s=0), *puts, return_exceptions=True)
        assert not isinstance(answers[0], Exception), answers[0]
        for ref, answer in zip(refs, answers[1:], strict=True):
            assert answer is None or isinstance(answer, InvalidData), answer
            assert await one.files.exists(ref) == (answer is None)
            both[answer is None] += 1
    assert both[True], both


@everywhere
async def test_content_that_a_record_names_cannot_be_deleted(one: World) -> None:
    ref = await one.files.save(b"x")
    await one.pictures.put(Picture(id="a", photo=ref))
    with pytest.raises(IntegrityViolation, match="a record names"):
        await one.files.delete(ref)
    assert await one.files.read(ref) == b"x"
    await one.pictures.delete("a")
    for _ in range(2):
        await one.files.delete(ref)
    with pytest.raises(NotFound):
        await one.files.read(ref)
    with pytest.raises(InvalidData):
        await one.pictures.put(Picture(id="a", photo=ref))


def test_the_files_of_another_home_are_not_swept(tmp_path: Path) -> None:
    """An application whose home was lost, or another one's directory: all of it would be content that nobody names."""

    def config(home: str) -> Any:
        main = {"url": f"sqlite:{tmp_path}/{home}.db", "roles": ["home", "journal"]}
        return {"stores": {"main": main, "files": {"url": f"file:{tmp_path}/files"}}}

    async def whole() -> None:
        async with world(config("first")) as one:
            ref = await one.files.save(b"x")
            await one.pictures.put(Picture(id="a", photo=ref))
        async with world(config("second")) as two:
            two.env.forward(WEEK_S)
            with pytest.raises(ConfigurationError, match="another home"):
                await two.hda.sweep_files()
            assert await two.files.exists(ref)
        async with world(config("first")) as one:
            one.env.forward(WEEK_S)
            assert (await one.hda.sweep_files()).removed == 0
        async with world(config("second")) as two:
            two.env.forward(WEEK_S)
            assert (await two.hda.sweep_files(adopt=True)).removed == 1

    asyncio.run(whole())


def test_an_open_architecture_sweeps_by_itself(tmp_path: Path) -> None:
    async def whole() -> None:
        often = Settings(file_sweep_s=0.02)
        async with world(f"embedded:{tmp_path}/app", settings=often) as one:
            ref = await one.files.save(b"x")
            one.env.forward(DAY_S + 60)
            async with asyncio.timeout(20):
                while await one.files.exists(ref):  # noqa: ASYNC110 -- nothing says when
                    await asyncio.sleep(0.01)

    asyncio.run(whole())


@everywhere
async def test_a_foreign_object_in_the_store_is_left_alone(one: World) -> None:
    store = one.hda.stores[one.hda.manager.placements["picture"].beside["file"]]
    for key in ("backups/monday", "~/zz/readme"):
        upload = Upload(key, str(one.env.uuid7()))
        await store.call(SupportsObjects.put_part, upload, 0, b"x")
        await store.call(SupportsObjects.finish_object, upload, made(key, b"x"))
    one.env.forward(WEEK_S)
    assert (await one.hda.sweep_files()).examined == 0
    assert None not in await store.call(SupportsObjects.stat_objects, ["backups/monday", "~/zz/readme"])
