"""Blobs and the files that records name, broken."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from polystore_adapters.memory import MemoryRepository, MemoryServer
from polystore_adapters.memory.claims import DraftedClaims
from polystore_adapters.memory.home import Drafts

from polystore.errors import NotFound
from polystore.model import Key, ObjectPage, StoredObject, Upload
from polystore.testing.conformance import FileClaimsConformance, ObjectsConformance
from tests.contract.broken.registry import fails


@fails(ObjectsConformance, "test_a_key_is_written_once")
class OverwritesAKey(MemoryRepository):
    async def finish_object(self, upload: Upload, made: StoredObject) -> None:
        await self.remove_objects([upload.key])
        await super().finish_object(upload, made)


@fails(ObjectsConformance, "test_of_several_that_finish_one_key_at_once_one_wins")
class LooksBeforeItWrites(MemoryRepository):
    """As if two steps were one."""

    async def finish_object(self, upload: Upload, made: StoredObject) -> None:
        (standing,) = await self.stat_objects([upload.key])
        if standing is not None:
            await super().finish_object(upload, made)
        else:
            self.server.blobs.remove_objects([upload.key])
            self.server.blobs.finish_object(upload, made)


@fails(ObjectsConformance, "test_finishing_again_is_done_already")
class RefusesItsOwnRepeat(MemoryRepository):
    async def finish_object(self, upload: Upload, made: StoredObject) -> None:
        if upload.key in self.server.blobs.objects:
            raise NotFound("the upload is over")
        await super().finish_object(upload, made)


@fails(ObjectsConformance, "test_ranges_are_exact")
class ShortRange(MemoryRepository):
    """Reads end at the end of a part."""

    async def read_object(self, key: str, start: int, end: int) -> bytes:
        boundary = (start // self.limits.part_bytes + 1) * self.limits.part_bytes
        return await super().read_object(key, start, min(end, boundary))


@fails(ObjectsConformance, "test_ranges_are_exact")
@fails(ObjectsConformance, "test_content_comes_back_whole_whatever_its_size")
class InclusiveEnd(MemoryRepository):
    """As HTTP counts."""

    async def read_object(self, key: str, start: int, end: int) -> bytes:
        return await super().read_object(key, start, end + 1)


@fails(ObjectsConformance, "test_the_content_type_is_kept")
@fails(ObjectsConformance, "test_a_key_is_written_once")
class ForgetsContentType(MemoryRepository):
    async def finish_object(self, upload: Upload, made: StoredObject) -> None:
        await super().finish_object(upload, msgspec.structs.replace(made, content_type="application/octet-stream"))


@fails(ObjectsConformance, "test_nothing_is_seen_before_it_is_finished")
class HalfWrittenIsSeen(MemoryRepository):
    async def read_object(self, key: str, start: int, end: int) -> bytes:
        if key not in self.server.blobs.objects and self.server.blobs.uploads:
            return next(iter(self.server.blobs.uploads.values())).data[0][start:end]
        return await super().read_object(key, start, end)


@fails(ObjectsConformance, "test_missing_parts_make_no_content")
@fails(ObjectsConformance, "test_an_abandoned_upload_is_forgotten_and_content_is_not")
class FinishesWhatIsThere(MemoryRepository):
    async def finish_object(self, upload: Upload, made: StoredObject) -> None:
        parts = self.server.blobs.uploads.get(upload.id)
        size = sum(map(len, parts.data.values())) if parts is not None else 0
        await super().finish_object(upload, msgspec.structs.replace(made, size=size))


@fails(ObjectsConformance, "test_the_list_is_sorted_and_comes_in_pages")
class ListsAsWritten(MemoryRepository):
    async def list_objects(self, prefix: str, after: str, limit: int) -> ObjectPage:
        found = [one for one, _ in self.server.blobs.objects.values() if one.key.startswith(prefix) and one.key > after]
        return ObjectPage(found[:limit], 0)


@fails(ObjectsConformance, "test_the_list_is_sorted_and_comes_in_pages")
class ListsFolderByFolder(MemoryRepository):
    """As a walk over directories does that sorts names, and not keys: a/b before a-b."""

    async def list_objects(self, prefix: str, after: str, limit: int) -> ObjectPage:
        page = await super().list_objects(prefix, "", 1_000)
        found = sorted(page.objects, key=lambda one: one.key.split("/"))
        found = [one for one in found if one.key.split("/") > after.split("/") or not after]
        return ObjectPage(found[:limit], page.now_us)


@fails(ObjectsConformance, "test_the_list_knows_how_old_content_is")
class SaysTheTimeOfTheList(MemoryRepository):
    """As if all content were of this moment."""

    async def list_objects(self, prefix: str, after: str, limit: int) -> ObjectPage:
        page = await super().list_objects(prefix, after, limit)
        return ObjectPage([msgspec.structs.replace(one, created_us=page.now_us) for one in page.objects], page.now_us)


@fails(ObjectsConformance, "test_only_uploads_that_nobody_touches_are_discarded")
class DiscardsWhatIsUnderWay(MemoryRepository):
    async def discard_parts(self, idle_us: int) -> bool:
        return await super().discard_parts(0)


@fails(ObjectsConformance, "test_only_uploads_that_nobody_touches_are_discarded")
class DiscardsNothing(MemoryRepository):
    async def discard_parts(self, idle_us: int) -> bool:
        return False


@fails(ObjectsConformance, "test_what_is_removed_is_gone_and_may_be_removed_again")
class ForgetsButStillReads(MemoryRepository):
    """What was removed is not listed any more, and that is all."""

    async def remove_objects(self, keys: Sequence[str]) -> None:
        self.server.blobs.object_keys[:] = [key for key in self.server.blobs.object_keys if key not in keys]


@fails(ObjectsConformance, "test_an_abandoned_upload_is_forgotten_and_content_is_not")
class AbandonsContent(MemoryRepository):
    async def abandon_object(self, upload: Upload) -> None:
        await super().abandon_object(upload)
        await self.remove_objects([upload.key])


@fails(ObjectsConformance, "test_a_part_may_be_put_again")
class KeepsTheFirstPart(MemoryRepository):
    async def put_part(self, upload: Upload, index: int, data: bytes) -> None:
        parts = self.server.blobs.uploads.get(upload.id)
        if parts is None or index not in parts.data:
            await super().put_part(upload, index, data)


@fails(ObjectsConformance, "test_keys_that_could_mean_something_else_are_refused")
class TakesAnyKey(MemoryRepository):
    async def stat_objects(self, keys: Sequence[str]) -> list[StoredObject | None]:
        return [None for _ in keys]


@fails(ObjectsConformance, "test_stat_answers_in_the_order_asked")
class StatsWhatItFinds(MemoryRepository):
    async def stat_objects(self, keys: Sequence[str]) -> list[StoredObject | None]:
        found = [one for one in await super().stat_objects(sorted(set(keys))) if one is not None]
        return [*found, *[None] * (len(keys) - len(found))]


# -- who names what -----------------------------------------------------------------------------------------------


class _TakesAll(DraftedClaims):
    def claim(self, key: Key, files: set[str]) -> None:
        for file in files & self._claims.named.keys():
            self._claims.files_of[self._claims.named.pop(file)].discard(file)
        super().claim(key, files)


@fails(FileClaimsConformance, "test_a_file_is_named_by_one_record")
@fails(FileClaimsConformance, "test_of_several_that_name_one_file_at_once_one_wins")
class TakesFilesAway(MemoryServer):
    """The last record to name a file has it."""

    def drafts(self) -> Drafts:
        drafts = super().drafts()
        drafts.claims = _TakesAll(self.claims)
        return drafts


@fails(FileClaimsConformance, "test_a_condemned_file_cannot_be_named")
@fails(FileClaimsConformance, "test_a_file_is_either_named_or_condemned")
class ForgetsTheCondemned(MemoryRepository):
    async def condemn(self, keys: Sequence[str], released_us: int, only_ask: bool) -> list[bool]:
        return await super().condemn(keys, released_us, True)


@fails(FileClaimsConformance, "test_asking_changes_nothing")
class AskingCondemns(MemoryRepository):
    async def condemn(self, keys: Sequence[str], released_us: int, only_ask: bool) -> list[bool]:
        return await super().condemn(keys, released_us, False)


@fails(FileClaimsConformance, "test_a_released_file_is_kept_for_its_time")
class ReleasedIsGone(MemoryRepository):
    async def condemn(self, keys: Sequence[str], released_us: int, only_ask: bool) -> list[bool]:
        return await super().condemn(keys, 0, only_ask)


@fails(FileClaimsConformance, "test_a_file_is_free_when_its_record_is_replaced_or_deleted")
class HoldsForEver(MemoryServer):
    """What was named once stays so."""

    def drafts(self) -> Drafts:
        drafts = super().drafts()
        drafts.claims = _KeepsAll(self.claims)
        return drafts


class _KeepsAll(DraftedClaims):
    def claim(self, key: Key, files: set[str]) -> None:
        super().claim(key, files | self._claims.files_of.get(key, set()))


@fails(FileClaimsConformance, "test_a_commit_that_fails_names_nothing")
@fails(FileClaimsConformance, "test_a_commit_that_fails_disturbs_none_beside_it")
class ClaimsAtOnce(MemoryServer):
    """What a commit names is named before the commit is decided."""

    def drafts(self) -> Drafts:
        drafts = super().drafts()
        drafts.claims = _AtOnce(self.claims)
        return drafts


class _AtOnce(DraftedClaims):
    def claim(self, key: Key, files: set[str]) -> None:
        super().claim(key, files)
        self.install(0)
