"""What a simulation records, as nobody inside could: every change of every store, every call of every writer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from polystore.model import Key, RetryRow, Value
from polystore.results import WriteResult

HOME = "home"


class Change(Value, frozen=True, gc=False):
    """A store's record went from version `before` to `after`; 0: there was nothing, 0 after: it vanished."""

    store: str
    key: Key
    before: int
    after: int
    deleted: bool
    hash: bytes
    n: int = 0
    op: str = ""
    expires_us: int = 0
    at_us: int = 0
    late: str = ""
    """Of a store that cannot compare: why nothing could hold this write off any more, see `UnguardedRepository`."""


class Read(Value, frozen=True, gc=False):
    """A read of a copy, after `caught_up` had said that it holds `wanted`, found `found` (0: nothing)."""

    process: str
    store: str
    key: Key
    wanted: int
    found: int


class Hit(Value, frozen=True, gc=False):
    """The cache gave a record at version `found` while the home was at `newest` and it had acknowledged `told`. `owed`:
    the home still owed it the newest version."""

    key: Key
    found: int
    newest: int
    told: int
    owed: bool


class CachedRead(Value, frozen=True, gc=False):
    """A read that asked the cache first, begun when that had acknowledged `told`, found version `found` with the number
    `n` of the write (None: absent)."""

    process: str
    key: Key
    told: int
    found: int
    n: int | None
    began_us: int
    ended_us: int


@dataclass
class Append:
    """A call that appended facts: each has a number that no other fact has. `state` as of an `Attempt`."""

    facts: Sequence[int]
    state: Literal["invoked", "ok", "failed"] = "invoked"


@dataclass
class Attempt:
    """One call of `manager.write`, by number. `state` invoked: it never came back, its process died. `doubt`: a try of
    it, this one or one before with the same op_id, ended with an unknown outcome, so that it may still happen."""

    n: int
    process: str
    keys: Sequence[Key]
    op: str
    state: Literal["invoked", "ok", "failed", "unknown"] = "invoked"
    doubt: bool = False
    error: str = ""
    results: Sequence[WriteResult] = ()
    held: Sequence[Mapping[str, int]] = ()
    """For each result: the version that each copy truly held in the moment of the answer."""


@dataclass
class History:
    """Everything in the order in which it happened. `log`, when set, hears of it as text."""

    commits: list[Change] = field(default_factory=list[Change])
    changes: list[Change] = field(default_factory=list[Change])
    """Of copies."""
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    reads: list[Read] = field(default_factory=list[Read])
    hits: list[Hit] = field(default_factory=list[Hit])
    cached_reads: list[CachedRead] = field(default_factory=list[CachedRead])
    expired: list[str] = field(default_factory=list[str])
    """What a server did wrong with a record that expires, in words."""
    incomplete: list[str] = field(default_factory=list[str])
    """Searches that were answered from a copy that lacked something, in words."""
    lost: list[str] = field(default_factory=list[str])
    """Bodies that went from a journal and were not at their home, in words."""
    corrupted: set[tuple[str, Key]] = field(default_factory=set[tuple[str, Key]])
    """(copy, record): made wrong behind everybody's back."""
    repaired: list[tuple[str, Key]] = field(default_factory=list[tuple[str, Key]])
    """Overwritten because it was taken for wrong, corrupted or not."""
    appends: list[Append] = field(default_factory=list[Append])
    problems: Counter[str] = field(default_factory=Counter[str])
    """What managers could tell nobody, and counted."""
    covered: Counter[str] = field(default_factory=Counter[str])
    """How often each fault, crashpoint and kill came about."""
    log: Callable[[str], None] | None = None

    def overtaken(self, why: Collection[str] = ("landed", "over")) -> set[tuple[str, Key]]:
        """(copy, record) of which a write that came too late has replaced a newer one."""
        return {(one.store, one.key) for one in self.changes if one.late in why and one.after < one.before}

    def note(self, text: str) -> None:
        if self.log is not None:
            self.log(text)


class State(Value, frozen=True, gc=False):
    """What a store holds of one record."""

    version: int
    deleted: bool
    hash: bytes = b""
    vector: bytes | None = None


class Final(Value, frozen=True):
    """How everything stands at the end. `drained` False: what was owed when the time was over is in `owed`."""

    stores: Mapping[str, Mapping[Key, State]]
    copies: Mapping[str, frozenset[str]]
    """Entity type -> its copies."""
    poisoned: frozenset[tuple[str, Key]]
    """(copy, record): the copy refuses what the home holds now."""
    vectors: Mapping[Key, bytes]
    """The vector that each live record should have, where its vectors are stored."""
    drained: bool
    owed: str
    parked: Sequence[RetryRow]
    facts: Mapping[int, int] = {}
    """Number of a fact -> how many there are of it."""
    overdue: Sequence[Key] = ()
    """Records that have expired long ago and are still at the home."""
