"""The database servers of the simulation: memory servers that tell the history what happened to them."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import datetime
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
from msgspec.structs import replace
from polystore_adapters.memory import MemoryServer

from polystore.embedding import Embedder, HashedEmbedder, Purpose, pack
from polystore.entity import EntityType, entity, entity_types
from polystore.env import Env
from polystore.errors import InvalidData
from polystore.facets import Embedding, FullText, Measure, Relation
from polystore.journaled import JournalEntity
from polystore.model import (
    CALLER,
    JOURNAL_BODY,
    Change,
    Commit,
    Committed,
    Held,
    Key,
    Match,
    Outcome,
    Placement,
    Record,
    Write,
    Written,
    text_hash,
)
from polystore.protocols import Layout, VectorSpec
from polystore.testing.simulation import history
from polystore.testing.simulation.history import HOME, History, State
from polystore.testing.simulation.scenario import Scenario

R = TypeVar("R")

POISON = "poison"
"""A text that begins so is refused by the poisoned copy."""
POISONED = "search"
DIMENSION = 4


@entity(name="person")
@dataclass
class Person:
    id: str
    n: int
    text: Annotated[str, FullText()]


@entity(name="note")
@dataclass
class Note:
    id: str
    n: int
    text: Annotated[str, FullText(), Embedding()]
    about: Annotated[list[str], Relation("ABOUT", to=Person)] = dataclass_field(default_factory=list[str])
    mood: ClassVar[Measure[int]] = Measure(int)


@entity(name="line", data_type="log")
@dataclass
class Line:
    id: str
    at: datetime
    n: int


TYPES: dict[str, EntityType[Any]] = entity_types([Person, Note])
LOGS: dict[str, EntityType[Any]] = entity_types([Line])
DOCUMENTS = "documents"
"""The home of notes that cannot commit, in a seed that has one."""
JOURNALED = JournalEntity(TYPES["note"])
FACTS = "facts"
"""The store of points and lines."""


def placements(scenario: Scenario, *, complete: bool = True) -> dict[str, Placement]:
    """Where everything lives; not `complete`: while a copy is taken out of the configuration."""
    graph = {"graph": "graph" if scenario.three_copies else "search"}
    facets = {"full_text": "search", "vector": "vectors"} | (graph if complete else {})
    cache = "cache" if scenario.cached and complete else ""
    home, journal = (DOCUMENTS, HOME) if scenario.journaled else (HOME, "")
    return {
        "note": Placement("note", home, facets, {"time_series": FACTS}, cache=cache, journal=journal),
        "person": Placement("person", HOME, {"full_text": "search"}, cache=cache),
    }


class SimEmbedder:
    """An embedder behind a network: slow, and in a flaky seed it fails."""

    name = "sim-1"
    dimension = DIMENSION
    batch_max = 3
    chars_max = 100

    def __init__(self, env: Env, *, flaky: bool) -> None:
        self._random = env.random
        self._flaky = flaky
        self.down = False

    def heal(self) -> None:
        self._flaky = self.down = False

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> Sequence[Sequence[float]]:
        await asyncio.sleep(self._random.expovariate(1 / 0.2))
        if self.down or (self._flaky and self._random.random() < 0.3):
            raise ConnectionError("the embedder does not answer")
        return [_vector(text) for text in texts]


def _vector(text: str) -> list[float]:
    return random.Random(zlib.crc32(text.encode())).choices((-1.0, -0.5, 0.5, 1.0), k=DIMENSION)


def embedder_of(scenario: Scenario, env: Env) -> SimEmbedder | HashedEmbedder:
    if scenario.embedder == "inline":
        return HashedEmbedder(DIMENSION)
    return SimEmbedder(env, flaky=scenario.embedder == "flaky")


def oracle(embedder: Embedder, text: str) -> bytes:
    """The vector that a text should have, whatever the way it took."""
    return embedder.embed_now([text])[0] if isinstance(embedder, HashedEmbedder) else pack(_vector(text))


class SimServer(MemoryServer):
    """A memory server under observation. `refuses`: it takes no poison."""

    def __init__(self, name: str, env: Env, seen: History, *, refuses: bool) -> None:
        super().__init__(env)
        self.name = name
        self.refuses = refuses
        self.lends_to: SimServer | None = None
        """Of a journal: the home that cannot commit."""
        self.compares = True
        """False: it writes whatever it is told."""
        self.late = ""
        """Why what it is told now comes too late, see `history.Change`."""
        self.asked: Callable[[str, str], None] | None = None
        """Told of each search, by entity type and tenant, in the moment in which it is answered."""
        self._seen = seen

    def standing(self, key: Key) -> State | None:
        """What is there of a record, without going through any code of a copy."""
        part = self.part(key.etype, key.tenant)
        if (row := part.rows.get(key.id)) is not None:
            vector = row.vectors.get("text")
            return State(row.version, False, row.hash, None if vector is None else pack(vector))
        tombstone = part.tombstones.get(key.id)
        return None if tombstone is None else State(tombstone.version, True)

    def version(self, key: Key) -> int:
        state = self.standing(key)
        return 0 if state is None else state.version

    def versions(self, keys: Sequence[Key]) -> list[int]:
        return [self.version(key) for key in keys]

    def leased_to(self, name: str, worker: str) -> bool:
        owner, until_us = self._leases.get(name, ("", 0))
        return owner == worker and self.env.now_us() < until_us

    def contents(self) -> dict[Key, State]:
        """What there is of every record; what has expired counts as deleted."""
        now_us = self.env.now_us()
        states: dict[Key, State] = {}
        for etype in self.layouts:
            for tenant, part in self.parts(etype):
                for id in (*part.rows, *part.tombstones):
                    key = Key(tenant, etype, id)
                    state = self.standing(key)
                    assert state is not None
                    states[key] = replace(state, deleted=True) if self._is_over(key, now_us) else state
        return states

    def poisons(self, change: Change) -> bool:
        return self.refuses and change.body is not None and str(change.body["text"]).startswith(POISON)

    def poisoned_at(self, refusing: Sequence[SimServer]) -> frozenset[tuple[str, Key]]:
        """At a home: what each of the copies refuses of what is here now."""
        return frozenset(
            (server.name, Key(tenant, etype, id))
            for server in refusing
            for etype in self.layouts
            for tenant, part in self.parts(etype)
            for id, row in part.rows.items()
            if str(row.body["text"]).startswith(POISON)
        )

    def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        bad = [self.poisons(change) for change in changes]
        if any(bad) and changes[0].h % 2:
            raise InvalidData("the index refuses a document")  # without a word about which
        before = {change.key: self.version(change.key) for change in changes}
        self._seen.repaired += [(self.name, change.key) for change in changes if change.overwrites]
        good = iter(super().apply([change for change, is_bad in zip(changes, bad, strict=True) if not is_bad]))
        for key, version in before.items():
            state = self.standing(key)
            if state is None or state.version != version:
                self._record(self._seen.changes, key, version, state)
        error = InvalidData("the index refuses this document")
        return [Outcome("rejected", error) if is_bad else next(good) for is_bad in bad]

    def _apply(self, change: Change) -> Outcome:
        if not self.compares:
            self.remove(change.key)
        return super()._apply(change)

    def commit(self, commits: Sequence[Commit]) -> list[Committed | Exception]:
        answers: list[Committed | Exception] = []
        for commit in commits:
            over = {write.key for write in commit.writes if self._is_over(write.key, self.env.now_us())}
            before = {write.key: self.version(write.key) for write in commit.writes}
            (answer,) = super().commit([commit])
            answers.append(answer)
            if isinstance(answer, Exception) or answer.repeated:
                continue
            for write, written in zip(commit.writes, answer.written, strict=True):
                if written.changed:
                    if write.kind == "expire" and write.key not in over:
                        self._seen.expired.append(f"{write.key.id} was deleted at {written.version} before its time")
                    self._committed(commit, write, written, before[write.key])
                    before[write.key] = written.version
        return answers

    def _committed(self, commit: Commit, write: Write, written: Written, before: int) -> None:
        body = write.body or {}
        if (packed := body.get(JOURNAL_BODY)) is not None:
            body = msgspec.msgpack.decode(packed)
        n = int(body.get("n", 0))
        state = State(written.version, write.kind in ("delete", "expire"), written.hash)
        self._seen.covered["expired"] += write.kind == "expire"
        self._record(self._seen.commits, write.key, before, state, n, commit, written.expires_us)

    def _is_over(self, key: Key, now_us: int) -> bool:
        row = self.part(key.etype, key.tenant).rows.get(key.id)
        return row is not None and 0 < row.expires_us <= now_us

    def get(self, keys: Sequence[Key]) -> list[Record | None]:
        found = super().get(keys)
        for record in found:
            if record is not None and record.body is not None and self._is_over(record.key, self.env.now_us()):
                self._seen.expired.append(f"{self.name} shows {record.key.id} at {record.version}, which has expired")
        return found

    def expires(self, key: Key) -> bool:
        row = self.part(key.etype, key.tenant).rows.get(key.id)
        return row is not None and row.expires_us > 0

    def search(self, etype: str, tenant: str, *question: Any, **named: Any) -> list[Match]:
        found = super().search(etype, tenant, *question, **named)
        if self.asked is not None:
            self.asked(etype, tenant)
        return found

    def _record(
        self,
        where: list[history.Change],
        key: Key,
        before: int,
        state: State | None,
        n: int = 0,
        commit: Commit | None = None,
        expires_us: int = 0,
    ) -> None:
        after, deleted, hash = (state.version, state.deleted, state.hash) if state else (0, True, b"")
        op = commit.op.id if commit and commit.op else ""
        at_us = self.env.now_us()
        where.append(history.Change(self.name, key, before, after, deleted, hash, n, op, expires_us, at_us, self.late))
        self._seen.note(f"{self.name} {key.tenant}/{key.etype}/{key.id}: {before} -> {after}{' deleted' * deleted}")

    # -- of a journal: a body goes only when the home has it ----------------------------------------------------

    def settle_held(self, held: Sequence[Held]) -> None:
        self._watched("settled", lambda: super(SimServer, self).settle_held(held))

    def release(self, etype: str, age_us: int, limit: int) -> int:
        return self._watched("released", lambda: super(SimServer, self).release(etype, age_us, limit))

    def _watched(self, how: str, step: Callable[[], R]) -> R:
        if (home := self.lends_to) is None:
            return step()
        before = self._bodies()
        result = step()
        for key in before - self._bodies():
            self._seen.covered[f"body {how}"] += 1
            there, version = home.standing(key), self.version(key)
            # What has expired is delivered as deleted, at the version that it had.
            buried = there is not None and there.deleted and not self._is_over(key, self.env.now_us())
            if there is None or buried or there.version != version:
                self._seen.lost.append(f"the body of {key.id} at {version} went, its home is at {there}")
        return result

    def _bodies(self) -> set[Key]:
        parts = self.parts(JOURNALED.name)
        return {
            Key(tenant, JOURNALED.name, id)
            for tenant, part in parts
            for id, row in part.rows.items()
            if row.body[JOURNAL_BODY] is not None
        }

    def overdue(self, grace_us: int) -> list[Key]:
        """At a home: what has expired long ago and is still there."""
        now_us = self.env.now_us() - grace_us
        return [key for key in self.contents() if self._is_over(key, now_us)]

    def facts(self) -> Counter[int]:
        """Number of a fact -> how many points and lines have it."""
        points = [int(value) for one in self._series.values() for value in one.values.values()]
        lines = [int(line.body["n"]) for log in self._logs.values() for line in log.values()]
        return Counter((*points, *lines))

    def wanted_vectors(self, embedder: Embedder) -> dict[Key, bytes]:
        """At a home: the vector that each live note should have wherever vectors are stored."""
        wanted: dict[Key, bytes] = {}
        for tenant, part in self.parts("note"):
            for id, row in part.rows.items():
                key, text = Key(tenant, "note", id), str(row.body["text"])
                given = self.stored.get(key, {}).get(("text", CALLER))
                current = given is not None and given.text_hash == text_hash(text)
                wanted[key] = given.vector if given is not None and current else oracle(embedder, text)
        return wanted


def layouts(name: str, scenario: Scenario, embedder: Embedder) -> list[Layout]:
    """What the store of this name holds."""
    specs = {"text": VectorSpec(DIMENSION, "cosine", "default")}
    found = [Layout(one, True, frozenset(), kind="fact") for one in LOGS.values() if name == FACTS]
    for etype, placement in placements(scenario).items():
        copies = placement.copies()
        if name == HOME:
            found.append(Layout(JOURNALED if placement.lent else TYPES[etype], True, frozenset()))
        elif name in copies and name != placement.cache:
            facets: Any = copies[name]
            found.append(Layout(TYPES[etype], False, facets, specs if "vector" in facets else {}))
    return found
