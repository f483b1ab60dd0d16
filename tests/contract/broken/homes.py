"""Homes, broken."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
from polystore_adapters.memory import MemoryRepository, MemoryServer

from polystore.errors import IntegrityViolation, NotFound
from polystore.model import (
    Commit,
    Committed,
    OpId,
    Write,
    Written,
)
from polystore.testing.conformance import (
    CommitConformance,
)
from tests.contract.broken.registry import fails


@fails(CommitConformance, "test_a_commit_is_carried_out_wholly_or_not_at_all", error=NotFound)
class NotAtomic(MemoryServer):
    """Each write of a commit becomes true by itself."""

    def _commit(self, commit: Commit) -> Committed:
        parts = [super(NotAtomic, self)._commit(Commit([one], commit.owner)) for one in commit.writes]
        return Committed([written for part in parts for written in part.written])


@fails(CommitConformance, "test_a_record_that_stands_counts_among_many_new_ones")
class ManyAreNew(MemoryServer):
    """What stands is looked for only before a few writes."""

    def _write(self, drafts: Any, write: Write) -> Written:
        if len(drafts.states) >= 4:
            self.part(write.key.etype, write.key.tenant).rows.pop(write.key.id, None)
        return super()._write(drafts, write)


@fails(CommitConformance, "test_many_new_records_in_one_commit_are_as_if_each_came_alone")
class OneEndForAll(MemoryServer):
    """The time to live of the first of many writes is taken for all of them."""

    def _commit(self, commit: Commit) -> Committed:
        if len(commit.writes) < 16:
            return super()._commit(commit)
        writes = [msgspec.structs.replace(one, ttl_us=commit.writes[0].ttl_us) for one in commit.writes]
        return super()._commit(msgspec.structs.replace(commit, writes=writes))


@fails(CommitConformance, "test_commits_of_one_call_are_apart")
class OneFailureFailsTheCall(MemoryServer):
    def commit(self, commits: Sequence[Commit]) -> list[Committed | Exception]:
        answers = super().commit(commits)
        failed = [a for a in answers if isinstance(a, Exception)]
        return [failed[0]] * len(answers) if failed else answers


@fails(CommitConformance, "test_delete_leaves_a_tombstone_and_a_recreated_record_is_newer")
class VersionsFromTheRow(MemoryServer):
    """The next version is drawn from what stands, which is nothing after a delete."""

    def _write(self, drafts: Any, write: Write) -> Written:
        part = self.part(write.key.etype, write.key.tenant)
        row = part.rows.get(write.key.id)
        self._version = row.version if row is not None else 1
        return super()._write(drafts, write)


@fails(CommitConformance, "test_versions_of_a_key_grow_whatever_runs_at_the_same_time")
class VersionDrawnEarly(MemoryRepository):
    """The version is drawn before the commit has the key to itself."""

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Exception]:
        server = cast(Any, self.server)
        drawn = server._version = server._version + 10
        for _ in range(drawn % 7):
            await asyncio.sleep(0)
        newest, server._version = server._version, drawn
        answers = await super().commit(commits)
        server._version = max(newest, drawn)
        return answers


@fails(CommitConformance, "test_a_write_with_an_expected_version_meets_exactly_that_version", kind="put")
class ExpectedVersionInserts(MemoryServer):
    def _write(self, drafts: Any, write: Write) -> Written:
        if write.kind == "put" and drafts.live(write.key) is None:
            write = msgspec.structs.replace(write, expect_version=None)
        return super()._write(drafts, write)


@fails(CommitConformance, "test_equal_decimals_are_one_unique_value_however_they_are_written")
class UniqueByItsText(MemoryServer):
    def unique_values(self, etype: str, body: Mapping[str, Any]) -> Any:
        return ((field, str(value)) for field, value in super().unique_values(etype, body))


@fails(CommitConformance, "test_unique_values_are_held_by_one_live_record_of_a_tenant")
@fails(CommitConformance, "test_of_many_that_want_one_unique_value_at_once_one_gets_it")
class UniqueForgotten(MemoryServer):
    def unique_values(self, etype: str, body: Mapping[str, Any]) -> Any:
        return iter(())


@fails(CommitConformance, "test_unique_values_are_held_by_one_live_record_of_a_tenant")
class UniqueOverTenantsToo(MemoryServer):
    def _commit(self, commit: Commit) -> Committed:
        for one in commit.writes:
            others = [part for tenant, part in self.parts(one.key.etype) if tenant != one.key.tenant]
            email = (one.body or {}).get("email")
            if any(row.body.get("email") == email for part in others for row in part.rows.values()):
                raise IntegrityViolation("taken")
        return super()._commit(commit)


@fails(CommitConformance, "test_a_repeated_operation_id_is_answered_and_not_carried_out_again")
@fails(CommitConformance, "test_one_operation_id_many_times_at_once_is_carried_out_once")
class OperationIdsForgotten(MemoryServer):
    def _done_before(self, op: OpId) -> Committed | None:
        return None


@fails(CommitConformance, "test_skip_leaves_equal_content_alone_and_writes_all_else")
class UpdateKeepsTheOldHash(MemoryServer):
    def _write(self, drafts: Any, write: Write) -> Written:
        row = drafts.live(write.key)
        written = super()._write(drafts, write)
        if write.kind == "update":
            state = drafts.states[write.key]
            drafts.states[write.key] = msgspec.structs.replace(state, hash=row.hash)
        return written


@fails(CommitConformance, "test_a_cancelled_commit_happened_wholly_or_not_at_all")
class HalfOfACancelledCommit(MemoryRepository):
    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Exception]:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.server.commit([msgspec.structs.replace(one, writes=one.writes[:1]) for one in commits])
            raise
        return await super().commit(commits)


@fails(CommitConformance, "test_an_operation_id_with_another_content_is_refused")
class AnyContentUnderAnOperationId(MemoryServer):
    def _commit(self, commit: Commit) -> Committed:
        op = commit.op and OpId(commit.op.tenant, commit.op.id, b"")
        return super()._commit(msgspec.structs.replace(commit, op=op))


@fails(CommitConformance, "test_update_needs_a_live_record")
class UpdateInserts(MemoryServer):
    def _write(self, drafts: Any, write: Write) -> Written:
        if write.kind == "update" and drafts.live(write.key) is None:
            write = msgspec.structs.replace(write, kind="put")
        return super()._write(drafts, write)
