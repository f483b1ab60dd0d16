"""What must hold, each a pure function over what was recorded and how everything stands at the end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from polystore import errors
from polystore.model import Key
from polystore.testing.simulation.history import HOME, Change, Final, History, State

_RAISED = re.compile(r"(?:failed|could not [\w ]+): ([A-Z]\w+): ")
Checker = Callable[[History, Final], Iterator[str]]


def _name(key: Key) -> str:
    return f"{key.tenant}/{key.etype}/{key.id}"


def converged(_history: History, final: Final) -> Iterator[str]:
    """G2, G6: every copy equals the home by key, version, content and vector; nothing is owed; nothing is parked but
    what a copy truly refuses."""
    if not final.drained:
        yield f"still owed when the time was over: {final.owed}"
    for row in final.parked:
        if (row.target, row.key) not in final.poisoned:
            yield f"{row.target} {_name(row.key)} is parked at {row.version}, but nothing is wrong with it: {row.error}"
    parked = {(row.target, row.key) for row in final.parked}
    home = final.stores[HOME]
    for store, records in final.stores.items():
        if store == HOME:
            continue
        for key in sorted({*home, *records}, key=_name):
            if store in final.copies[key.etype] and (store, key) not in parked:
                yield from _compare(store, key, home.get(key), records.get(key), final)


def _compare(store: str, key: Key, here: State | None, there: State | None, final: Final) -> Iterator[str]:
    if here is None or here.deleted:
        if there is not None and not there.deleted:
            yield f"{store} {_name(key)} lives at {there.version}, but is deleted at home"
        return
    if there is None or there.deleted:
        yield f"{store} {_name(key)} is missing, at home it is at {here.version}"
    elif (there.version, there.hash) != (here.version, here.hash):
        same = " with another content" if there.version == here.version else ""
        yield f"{store} {_name(key)} is at {there.version}{same}, at home at {here.version}"
    elif store == "vectors" and there.vector != final.vectors[key]:
        yield f"{store} {_name(key)} has not the vector of its text at {here.version}"


def monotonic(history: History, _final: Final) -> Iterator[str]:
    """G4: a record's version never drops in any store, the home included; a tombstone has a version too."""
    for change in (*history.commits, *history.changes):
        if change.after < change.before and not change.late:
            yield f"{change.store} {_name(change.key)} went from {change.before} to {change.after or 'nothing'}"


def no_phantom(history: History, _final: Final) -> Iterator[str]:
    """What a copy holds at a version is what was committed at that version; or nothing, if that has expired."""
    committed = {(one.key, one.after): (one.deleted, one.hash) for one in history.commits}
    ends = {(one.key, one.after): one.expires_us for one in history.commits if one.expires_us}
    for change in [one for one in history.changes if (one.store, one.key) not in history.corrupted]:
        wanted = committed.get((change.key, change.after))
        if change.deleted and 0 < ends.get((change.key, change.after), 0) <= change.at_us:
            continue
        if change.after and wanted is None:
            yield f"{change.store} {_name(change.key)} came to {change.after}, which nobody committed"
        elif change.after and wanted != (change.deleted, change.hash):
            yield f"{change.store} {_name(change.key)} came to {change.after} with another content than was committed"


def no_resurrect(history: History, _final: Final) -> Iterator[str]:
    """G5: what a copy has deleted does not come back by an older write."""
    buried: dict[tuple[str, Key], int] = {}
    for change in history.changes:
        place = (change.store, change.key)
        if change.deleted:
            buried[place] = max(change.after or change.before, buried.get(place, 0))
        elif change.after < buried.get(place, 0) and not change.late and place not in history.corrupted:
            yield f"{change.store} {_name(change.key)}, deleted at {buried[place]}, came back at {change.after}"


def no_lost_ack(history: History, final: Final) -> Iterator[str]:
    """G1: what a caller was told is true: the write is at home, or a newer one; and a copy that is said to have
    applied it had it in that moment. What failed for certain has left no trace."""
    home, overtaken = final.stores[HOME], history.overtaken() | history.corrupted
    for attempt in history.attempts:
        for key, result, held in zip(attempt.keys, attempt.results, attempt.held, strict=False):
            version = result.version or 0
            state = home.get(key)
            if version and (state is None or state.version < version):
                yield f"#{attempt.n} {_name(key)} was acknowledged at {version}, the home is at {state}"
            for store, status in result.stores.items():
                if status == "applied" and version and held.get(store, 0) < version and (store, key) not in overtaken:
                    yield f"#{attempt.n} {_name(key)} at {version}: applied at {store}, which held {held.get(store, 0)}"
    failed = {attempt.n: attempt for attempt in history.attempts if attempt.state == "failed" and not attempt.doubt}
    for commit in history.commits:
        if commit.n in failed:
            yield f"#{commit.n} {_name(commit.key)} is committed, but the caller was told {failed[commit.n].error}"


def no_lost_body(history: History, _final: Final) -> Iterator[str]:
    """A journal gives a body away only when the home that cannot commit holds it, at that version."""
    yield from history.lost


def complete_answers(history: History, _final: Final) -> Iterator[str]:
    """A facet that moves is served by who is complete: no search is answered from a copy that is still being filled, is
    filled no more, or differs from its home in what it is not owed."""
    yield from history.incomplete


def no_lost_update(history: History, _final: Final) -> Iterator[str]:
    """What a commit replaced is what the commit before it wrote: no write falls between."""
    standing: dict[Key, Change] = {}
    for commit in history.commits:
        before = standing.get(commit.key)
        if before is not None and commit.before != before.after:
            yield f"{_name(commit.key)} at {commit.after} replaced {commit.before}, but {before.after} stood there"
        standing[commit.key] = commit


def applied_once(history: History, _final: Final) -> Iterator[str]:
    """G1: however often a call is repeated with its op_id, it happens once, and the answer is what happened."""
    commits: dict[str, list[int]] = {}
    for commit in history.commits:
        commits.setdefault(commit.op, []).append(commit.after)
    for attempt in history.attempts:
        versions = commits.get(attempt.op, []) if attempt.op else []
        told = [result.version for result in attempt.results]
        if len(versions) > len(attempt.keys):
            yield f"#{attempt.n} of {len(attempt.keys)} writes was carried out again: {versions}"
        elif attempt.state == "ok" and not set(versions) <= set(told):
            yield f"#{attempt.n} was answered with {told}, but it was committed at {versions}"


def ryw(history: History, _final: Final) -> Iterator[str]:
    """G8: a copy that is said to have caught up with a token shows no older state."""
    overtaken = history.overtaken() | history.corrupted
    for read in history.reads:
        if read.found < read.wanted and (read.store, read.key) not in overtaken:
            found = read.found or "nothing"
            yield f"{read.process} read {_name(read.key)} at {read.store}: {found} after {read.wanted}"


def stale_bound(history: History, final: Final) -> Iterator[str]:
    """G7a: a hit is no older than what the cache has acknowledged, nor a read than what it had acknowledged when the
    read began. G7b: a hit is older than the home only while the home owes the cache the news; at the end nothing is
    owed, and so nothing is old. What is found at a version is what was committed at it."""
    numbers = {(one.key, one.after): None if one.deleted else one.n for one in history.commits}
    ends = {(one.key, one.after): one.expires_us for one in history.commits if one.expires_us}
    for hit in history.hits:
        if hit.found < hit.told:
            yield f"{_name(hit.key)} was found at {hit.found} after {hit.told} had been invalidated"
        elif hit.found < hit.newest and not hit.owed:
            yield f"{_name(hit.key)} was found at {hit.found}, the home is at {hit.newest}, and nobody owes the news"
    for read in history.cached_reads:
        if read.found < read.told:
            yield f"{read.process} read {_name(read.key)} at {read.found}, {read.told} had been invalidated before"
        elif read.n is None and 0 < ends.get((read.key, read.found), 0) <= read.ended_us:
            continue  # it has expired
        elif read.found and numbers.get((read.key, read.found), read.n) != read.n:
            yield f"{read.process} read {_name(read.key)} at {read.found} with another content than was committed"
    for key, state in final.stores.get("cache", {}).items():
        newest = final.stores[HOME].get(key)
        if final.drained and newest is not None and state.version < newest.version:
            yield f"{_name(key)} is in the cache at {state.version} for good, the home is at {newest.version}"


def expiry(history: History, final: Final) -> Iterator[str]:
    """What has expired is seen by nobody, and deleted by and by; what has not expired is not deleted for that."""
    yield from history.expired
    ends = {(one.key, one.after): one.expires_us for one in history.commits if one.expires_us}
    for read in history.cached_reads:
        if read.n is not None and 0 < ends.get((read.key, read.found), 0) <= read.began_us:
            yield f"{read.process} read {_name(read.key)} at {read.found}, which had expired"
    for key in final.overdue:
        yield f"{_name(key)} has expired long ago and is still there"


def facts_kept(history: History, final: Final) -> Iterator[str]:
    """Facts that were taken are there once everything is delivered, and none is there twice, or without being sent."""
    sent = {one for append in history.appends for one in append.facts}
    for append in history.appends:
        for one in append.facts:
            if append.state == "ok" and final.drained and not final.facts.get(one):
                yield f"fact {one} was taken and is lost"
    for one, count in final.facts.items():
        if count > 1:
            yield f"fact {one} is there {count} times"
        if one not in sent:
            yield f"fact {one} is there and was never sent"


def no_false_repair(history: History, _final: Final) -> Iterator[str]:
    """What is repaired was wrong: nothing that was only on its way."""
    for store, key in history.repaired:
        if (store, key) not in history.corrupted:
            yield f"{store} {_name(key)} was repaired, and nobody had corrupted it"


def no_surprise(history: History, _final: Final) -> Iterator[str]:
    """What goes wrong inside a manager is an error of polystore's, never a KeyError that somebody forgot."""
    for problem in history.problems:
        found = _RAISED.search(problem)
        if found and not hasattr(errors, found[1]):
            yield problem


CHECKERS: dict[str, Checker] = {
    one.__name__: one
    for one in (
        converged, monotonic, no_phantom, no_resurrect, no_lost_ack, no_lost_body, no_lost_update, applied_once, ryw,
        complete_answers, stale_bound, expiry, facts_kept, no_false_repair, no_surprise,
    )
}  # fmt: skip
