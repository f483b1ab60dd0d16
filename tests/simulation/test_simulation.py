"""Histories of several processes from one seed each: no promise is broken, and every planted bug is found."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from polystore.model import Key
from polystore.results import Token as Text
from polystore.results import WriteResult
from polystore.testing import simulate
from polystore.testing.simulation.bugs import BUGS, planted
from polystore.testing.simulation.checkers import CHECKERS
from polystore.testing.simulation.history import Append, Attempt, CachedRead, Change, Final, History, Hit, Read, State
from polystore.testing.simulation.network import FAULTS
from polystore.testing.simulation.scenario import CRASHPOINTS, PASSED_TOO, Scenario

SEEDS, CHUNK = 300, 100
"""`make simulate` runs more."""


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_seed_breaks_a_promise(first: int) -> None:
    """Also: every fault happens, every crashpoint is passed, most of them kill; one seed in a hundred runs twice."""
    reports = [simulate.judge(seed) for seed in range(first, first + CHUNK)]
    failing = [simulate.told(report) for report in reports if report.violations]
    assert not failing, "\n".join(failing)
    covered = {name for report in reports for name in report.covered}
    assert covered >= {f"fault {fault}" for fault in FAULTS} | {f"passed {name}" for name in CRASHPOINTS}
    assert covered >= {"body settled", "body released"}
    assert covered >= {"store added", "rebuilt", "searched at search", "searched at words"}
    passed = {name.removeprefix("passed ") for name in covered if name.startswith("passed ")}
    assert passed == {*CRASHPOINTS, *PASSED_TOO}, "scenario.py names every crashpoint of the code that runs here"
    assert len({name for name in covered if name.startswith("died at ")}) > len(CRASHPOINTS) // 2


def fits(bug: str, scenario: Scenario) -> bool:
    """Whether a bug is looked for in such a seed: those of repairs and of moves where these are, the others where
    nothing moves, which takes less time."""
    return scenario.corrupted if "repair" in bug else ("move" in bug) is bool(scenario.grown)


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str) -> None:
    _, within = BUGS[bug]
    with planted(bug):
        seeds = [seed for seed in range(within) if fits(bug, Scenario.draw(seed))]
        found = next((seed for seed in seeds if simulate.judge(seed).violations), None)
    assert found is not None, f"{bug}: not found in {within} seeds"


def test_a_seed_has_one_history_whatever_the_hash_seed() -> None:
    code = "from polystore.testing.simulate import judge; print([judge(seed).trace for seed in (3, 16, 33, 47)])"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    traces = {
        subprocess.run(
            [sys.executable, "-c", code], env=env | {"PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(traces) == 1


def test_the_command_says_what_was_covered(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate.main(["--seeds", "3", "--first", "40"]) == 0
    out = capsys.readouterr().out
    assert "passed write.committed" in out
    assert "3 seeds, 0 failing" in out


def test_the_command_prints_how_to_replay_a_failing_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate.main(["--seeds", "1", "--first", "0", "--bug", "no_guard"]) == 1
    out = capsys.readouterr().out
    assert "seed 0: monotonic: search" in out
    assert "replay: python -m polystore.testing.simulate --seeds 1 --first 0 --bug no_guard" in out
    assert simulate.replay(17) == "make simulate SEEDS=1 FIRST=17"


def test_the_trace_of_a_seed_names_what_happened(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate.main(["--trace", "--first", "40"]) == 0
    out = capsys.readouterr().out
    assert "p0 -> home.commit" in out
    assert "calm" in out


# -- the checkers: each sees the one thing that it is for ---------------------------------------------------------

KEY = Key("a", "note", "n1")
NOTHING = Final(
    stores={"home": {}, "search": {}},
    copies={"note": frozenset({"search"})},
    poisoned=frozenset(),
    vectors={},
    drained=True,
    owed="",
    parked=(),
)


def commit(before: int, after: int, *, n: int = 0, op: str = "", hash: bytes = b"") -> Change:
    return Change("home", KEY, before, after, False, hash, n, op)


def change(before: int, after: int, *, deleted: bool = False, hash: bytes = b"") -> Change:
    return Change("search", KEY, before, after, deleted, hash)


def attempt(version: int, *, op: str = "", search: str = "pending", held: int = 0, state: str = "ok") -> Attempt:
    result = WriteResult("n1", version, True, Text(), {"home": "committed", "search": search})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    made = Attempt(1, "p0", [KEY], op, results=[result], held=[{"search": held}])
    made.state = state  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    return made


def ends(home: State | None, search: State | None) -> Final:
    stores = {"home": {KEY: home} if home else {}, "search": {KEY: search} if search else {}}
    return Final(stores, NOTHING.copies, frozenset(), {}, True, "", ())


WRONG: dict[str, tuple[str, Callable[[], tuple[History, Final]]]] = {
    "a missing record": ("converged", lambda: (History(), ends(State(5, False), None))),
    "a deleted record that lives": ("converged", lambda: (History(), ends(State(5, True), State(4, False)))),
    "an older record": ("converged", lambda: (History(), ends(State(5, False), State(4, False)))),
    "another content": ("converged", lambda: (History(), ends(State(5, False, b"a"), State(5, False, b"b")))),
    "a version that drops": ("monotonic", lambda: (History(changes=[change(5, 4)]), NOTHING)),
    "a record that vanishes": ("monotonic", lambda: (History(changes=[change(5, 0, deleted=True)]), NOTHING)),
    "a version of nobody": ("no_phantom", lambda: (History(changes=[change(0, 5)]), NOTHING)),
    "a content of nobody": (
        "no_phantom",
        lambda: (History([commit(0, 5, hash=b"a")], [change(0, 5, hash=b"b")]), NOTHING),
    ),
    "a dead that returns": (
        "no_resurrect",
        lambda: (History(changes=[change(4, 6, deleted=True), change(6, 0, deleted=True), change(0, 5)]), NOTHING),
    ),
    "an acknowledged write that is gone": (
        "no_lost_ack",
        lambda: (History(attempts=[attempt(5)]), ends(State(4, False), None)),
    ),
    "an applied that was not": (
        "no_lost_ack",
        lambda: (History(attempts=[attempt(5, search="applied", held=4)]), ends(State(5, False), State(5, False))),
    ),
    "a failure that was written": (
        "no_lost_ack",
        lambda: (History([commit(0, 5, n=1)], attempts=[attempt(0, state="failed")]), NOTHING),
    ),
    "a write between": ("no_lost_update", lambda: (History([commit(0, 5), commit(4, 6)]), NOTHING)),
    "a repeat that wrote twice": (
        "applied_once",
        lambda: (History([commit(0, 5, op="o"), commit(5, 6, op="o")], attempts=[attempt(5, op="o")]), NOTHING),
    ),
    "a repeat with another answer": (
        "applied_once",
        lambda: (History([commit(0, 5, op="o")], attempts=[attempt(6, op="o")]), NOTHING),
    ),
    "a mistake": (
        "no_surprise",
        lambda: (History(problems=Counter(["retries for x could not work: KeyError: 'a'"])), NOTHING),
    ),
    "a hit older than an invalidation": ("stale_bound", lambda: (History(hits=[Hit(KEY, 4, 5, 5, True)]), NOTHING)),
    "an old hit that nobody owes": ("stale_bound", lambda: (History(hits=[Hit(KEY, 4, 5, 4, False)]), NOTHING)),
    "a read older than an invalidation": (
        "stale_bound",
        lambda: (History(cached_reads=[CachedRead("p0", KEY, 5, 4, 1, 0, 0)]), NOTHING),
    ),
    "a cached content that nobody wrote": (
        "stale_bound",
        lambda: (History([commit(0, 5, n=1)], cached_reads=[CachedRead("p0", KEY, 5, 5, 2, 0, 0)]), NOTHING),
    ),
    "an old entry at the end": (
        "stale_bound",
        lambda: (History(), replace(NOTHING, stores={"home": {KEY: State(5, False)}, "cache": {KEY: State(4, False)}})),
    ),
    "an expired record that a server shows": ("expiry", lambda: (History(expired=["home shows n1"]), NOTHING)),
    "an expired record that a cache shows": (
        "expiry",
        lambda: (
            History([replace(commit(0, 5, n=1), expires_us=7)], cached_reads=[CachedRead("p0", KEY, 5, 5, 1, 8, 9)]),
            NOTHING,
        ),
    ),
    "an expired record that nobody deletes": ("expiry", lambda: (History(), replace(NOTHING, overdue=[KEY]))),
    "a search that lacks something": (
        "complete_answers",
        lambda: (History(incomplete=["search answered p0"]), NOTHING),
    ),
    "a fact that is lost": ("facts_kept", lambda: (History(appends=[Append([1], "ok")]), NOTHING)),
    "a fact that is there twice": (
        "facts_kept",
        lambda: (History(appends=[Append([1], "failed")]), replace(NOTHING, facts={1: 2})),
    ),
    "a fact that nobody sent": ("facts_kept", lambda: (History(), replace(NOTHING, facts={1: 1}))),
    "an old state after a token": ("ryw", lambda: (History(reads=[Read("p0", "search", KEY, 5, 4)]), NOTHING)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_checker_sees_what_it_is_for(wrong: str) -> None:
    checker, make = WRONG[wrong]
    history, final = make()
    assert list(CHECKERS[checker](history, final)), f"{checker} says nothing about {wrong}"


def test_no_checker_objects_to_a_history_without_fault() -> None:
    history = History(
        [commit(0, 5, n=1, op="o", hash=b"a")],
        [change(0, 5, hash=b"a")],
        [attempt(5, op="o", search="applied", held=5)],
        [Read("p0", "search", KEY, 5, 5)],
        [Hit(KEY, 0, 5, 0, True), Hit(KEY, 5, 5, 5, False)],
        [CachedRead("p0", KEY, 5, 5, 1, 0, 0), CachedRead("p0", KEY, 0, 0, None, 0, 0)],
    )
    final = ends(State(5, False, b"a"), State(5, False, b"a"))
    assert [list(check(history, final)) for check in CHECKERS.values()] == [[] for _ in CHECKERS]
