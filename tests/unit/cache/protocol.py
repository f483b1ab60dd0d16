"""The cache protocol for one key, walked through all orders in which its steps can happen.

Readers and writers take the steps of `polystore_adapters.memory.lease`, the real ones, and everything that may be
slow, late or lost is: between a reader's miss and its lease, its read and its fill; between a writer's commit and its
invalidation, which a relay repeats at any later time; writers die after the commit; value and control are evicted
apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from polystore_adapters.memory.lease import NOTHING, Control, Held, filled, intended, invalidated, leased

from polystore.protocols.cache import Fill, Invalidation, Leased

NOW = 1
FOREVER = 1 << 62


@cache
def value_of(version: int) -> Held:
    return Held(version, b"%d" % version, FOREVER)


@dataclass(frozen=True)
class Steps:
    """The four steps of the protocol; the tests of the tests replace one."""

    lease: Callable[[Held | None, Control, int, int], tuple[Control, Leased]] = leased
    fill: Callable[[Held | None, Control, Fill, int], tuple[Held | None, Control, bool]] = filled
    invalidate: Callable[[Held | None, Control, Invalidation, int], tuple[Held | None, Control]] = invalidated
    intend: Callable[[Control, int, int], Control] = intended


@dataclass(frozen=True)
class Setting:
    """What there is, and what goes wrong how often. replies_early: a writer's caller is answered at the commit and not
    after the invalidation. replaces: an invalidation puts the new value in the place of an older one. joins: a reader
    with a lease may take over what an earlier reader without one has read. lags: reads go to a replica, or to a home to
    which the journal's commits are applied later; tells_again: the invalidation is repeated when they are."""

    strict: bool = False
    replies_early: bool = False
    replaces: bool = True
    joins: bool = False
    lags: bool = False
    tells_again: bool = False
    writers: int = 2
    readers: int = 2
    reads: int = 1
    value_evictions: int = 1
    control_evictions: int = 1
    crashes: int = 1
    failovers: int = 0
    steps: Steps = Steps()


class State(NamedTuple):
    committed: int
    readable: int
    """What a read at the home finds; behind `committed` where it lags."""
    value: Held | None
    control: Control
    writers: tuple[tuple[str, int], ...]
    readers: tuple[tuple[str, int, int], ...]
    """(where it is, token, reads left)."""
    messages: frozenset[tuple[str, int, int]]
    """On their way: (fill, version, token) or (inv, version, writer)."""
    evictions: tuple[int, int, int, int]
    """Left: of values, of controls, crashes, fail-overs."""
    told: int
    """The newest version whose invalidation the cache has acknowledged."""
    replied: int
    """The newest version whose writer was told that it is written."""
    flight: int | None
    """What a reader without a lease has read and not yet delivered."""
    replica: tuple[Held | None, Control]
    """The cache as its standby knew it some time ago."""


Move = tuple[State, str]


class Walk:
    """All states that can be reached, and what is wrong with some: the name of the wrong -> how to get there. `enough`:
    the walk may end when all of these were found."""

    def __init__(self, setting: Setting, enough: frozenset[str] = frozenset({"never"})) -> None:
        self.setting = setting
        self.wrong: dict[str, str] = {}
        first = State(
            0,
            0,
            None,
            NOTHING,
            (("start", 0),) * setting.writers,
            (("idle", 0, setting.reads),) * setting.readers,
            frozenset(),
            (setting.value_evictions, setting.control_evictions, setting.crashes, setting.failovers),
            0,
            0,
            None,
            (None, NOTHING),
        )
        self.seen: dict[State, tuple[State, str] | None] = {first: None}
        todo = deque([first])
        while todo and not enough <= self.wrong.keys():
            state = todo.popleft()
            self._judge(state)
            for after, what in self._moves(state):
                if after not in self.seen:
                    self.seen[after] = (state, what)
                    todo.append(after)

    # -- what may not be --------------------------------------------------------------------------------------

    def _judge(self, state: State) -> None:
        value = state.value
        if value is None:
            return
        if value.version < state.told:
            self._found("resurrected", state)
        if self.setting.strict and value.version < state.replied:
            self._found("stale after the reply", state)
        written = state.readable == state.committed and all(where in ("done", "dead") for where, _ in state.writers)
        quiet = written and not state.messages and all(where == "idle" for where, _, _ in state.readers)
        if quiet and value.version < state.committed:
            self._found("stale for good", state)

    def _found(self, wrong: str, state: State) -> None:
        if wrong not in self.wrong:
            self.wrong[wrong] = self._way_to(state)

    def _way_to(self, state: State) -> str:
        way: list[str] = []
        step = self.seen[state]
        while step is not None:
            way.append(step[1])
            step = self.seen[step[0]]
        return ", ".join(reversed(way))

    # -- what may happen --------------------------------------------------------------------------------------

    def _moves(self, s: State) -> Iterator[Move]:
        if s.readable < s.committed:
            again = {("inv", s.readable + 1, 0)} if self.setting.tells_again else set[tuple[str, int, int]]()
            yield s._replace(readable=s.readable + 1, messages=s.messages | again), f"home holds {s.readable + 1}"
        for i, (where, version) in enumerate(s.writers):
            yield from self._write(s, i, where, version)
        for i, (where, token, left) in enumerate(s.readers):
            yield from self._read(s, i, where, token, left)
        if self.setting.joins and s.flight is None:
            yield s._replace(flight=s.readable), f"somebody without a lease has read {s.readable}"
        for message in s.messages:
            yield self._arrive(s._replace(messages=s.messages - {message}), *message)
        yield from self._evict(s)

    def _write(self, s: State, i: int, where: str, version: int) -> Iterator[Move]:
        strict = self.setting.strict

        def at(where: str, version: int) -> tuple[tuple[str, int], ...]:
            writers = (*s.writers[:i], (where, version), *s.writers[i + 1 :])
            return writers if strict else tuple(sorted(writers))  # which of them it is makes no difference

        if where == "start" and strict:
            control = self.setting.steps.intend(s.control, i + 1, NOW)
            yield s._replace(value=None, control=control, writers=at("ready", 0)), f"W{i} intends"
        elif where == "start":
            yield s._replace(writers=at("ready", 0)), f"W{i} begins"
        elif where == "ready":
            new = s.committed + 1
            readable = s.readable if self.setting.lags else new
            messages = s.messages | {("inv", new, i + 1 if strict else 0)}
            after = s._replace(committed=new, readable=readable, writers=at("committed", new), messages=messages)
            yield after._replace(replied=new if self.setting.replies_early else s.replied), f"W{i} commits {new}"
        elif where == "committed":
            after = self._invalidate(s, version, i + 1)._replace(writers=at("done", version))
            yield after._replace(replied=max(s.replied, version)), f"W{i} invalidates {version}"
            values, controls, crashes, failovers = s.evictions
            if crashes:
                left = (values, controls, crashes - 1, failovers)
                yield s._replace(writers=at("dead", version), evictions=left), f"W{i} dies"

    def _read(self, s: State, i: int, where: str, token: int, left: int) -> Iterator[Move]:
        def at(where: str, token: int, left: int) -> tuple[tuple[str, int, int], ...]:
            return tuple(sorted((*s.readers[:i], (where, token, left), *s.readers[i + 1 :])))

        if where == "idle" and left:
            if s.value is None:
                yield s._replace(readers=at("missed", 0, left)), f"R{i} misses"
            else:
                yield s._replace(readers=at("idle", 0, left - 1)), f"R{i} hits {s.value.version}"
        elif where == "missed":
            sent = {who for what, _, who in s.messages if what == "fill"}
            used = {s.control.token, s.replica[1].token, *(reader[1] for reader in s.readers), *sent}
            mine = min({1, 2, 3, 4, 5, 6} - used)
            control, answer = self.setting.steps.lease(s.value, s.control, mine, NOW)
            if answer == "leased":
                yield s._replace(control=control, readers=at("leased", mine, left)), f"R{i} has the lease"
            else:
                yield s._replace(control=control, readers=at("idle", 0, left - 1)), f"R{i}: {answer!r}"
        elif where == "leased":
            for version in {s.readable, s.readable if s.flight is None else s.flight}:
                messages = s.messages | {("fill", version, token)}
                yield s._replace(messages=messages, readers=at("idle", 0, left - 1)), f"R{i} reads {version}"

    def _arrive(self, s: State, what: str, version: int, who: int) -> Move:
        if what == "inv":
            return self._invalidate(s, version, who), f"relay invalidates {version}"
        fill = Fill("key", who, version, value_of(version).value, FOREVER - NOW)
        value, control, taken = self.setting.steps.fill(s.value, s.control, fill, NOW)
        return s._replace(value=value, control=control), f"fill {version} {'taken' if taken else 'refused'}"

    def _invalidate(self, s: State, version: int, writer: int) -> State:
        new = value_of(version).value if self.setting.replaces else None
        one = Invalidation("key", version, new, FOREVER - NOW, writer)
        value, control = self.setting.steps.invalidate(s.value, s.control, one, NOW)
        return s._replace(value=value, control=control, told=max(s.told, version))

    def _evict(self, s: State) -> Iterator[Move]:
        values, controls, crashes, failovers = s.evictions
        if values and s.value is not None:
            yield s._replace(value=None, evictions=(values - 1, controls, crashes, failovers)), "value evicted"
        if controls and s.control != NOTHING:
            left = (values, controls - 1, crashes, failovers)
            yield s._replace(control=NOTHING, evictions=left), "control evicted"
        if failovers:
            yield s._replace(replica=(s.value, s.control)), "standby catches up"
            value, control = s.replica
            left = (values, controls, crashes, failovers - 1)
            yield s._replace(value=value, control=control, evictions=left), "fail-over to the standby"
