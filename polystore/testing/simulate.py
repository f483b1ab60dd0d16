"""`python -m polystore.testing.simulate`: run the simulation for many seeds (`make simulate SEEDS=n FIRST=k`).

Prints every seed that broke a promise, with the command that replays it, then what was covered. Exit code 1 when one
did. Every hundredth seed runs twice: the same seed must have the same history.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from polystore.testing.simulation import Report, simulate
from polystore.testing.simulation.bugs import BUGS, planted

AGAIN_EVERY = 100
_CHUNK = 10


def judge(seed: int) -> Report:
    """The seed's report; whatever breaks the simulation itself, and a second run that differs, are violations too."""
    logging.getLogger("polystore.consistency").setLevel(logging.CRITICAL)  # thousands of outages are meant
    try:
        report = simulate(seed)
        if seed % AGAIN_EVERY == 0 and simulate(seed).trace != report.trace:
            report.violations.append("deterministic: the same seed had another history")
    except Exception as e:  # noqa: BLE001 -- the other seeds go on
        lines = "".join(traceback.format_exception(e)).splitlines()
        return Report.broken(seed, "simulation: " + "\n    ".join(lines[-30:]))
    return report


def run(seeds: Iterable[int], jobs: int, bug: str | None = None) -> Iterator[Report]:
    """The reports of the seeds, in their order, from so many processes."""
    if jobs == 1:
        with planted(bug) if bug else contextlib.nullcontext():
            yield from map(judge, seeds)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), _plant, (bug,)) as pool:
        yield from pool.map(judge, seeds, chunksize=_CHUNK)


_until_exit = contextlib.ExitStack()


def _plant(bug: str | None) -> None:
    """In a child process, which keeps the bug until it ends."""
    if bug:
        _until_exit.enter_context(planted(bug))


def replay(seed: int, bug: str | None = None) -> str:
    """The command that runs this seed again."""
    if bug:
        return f"python -m polystore.testing.simulate --seeds 1 --first {seed} --bug {bug}"
    return f"make simulate SEEDS=1 FIRST={seed}"


def told(report: Report, bug: str | None = None) -> str:
    """What a failing seed has to say."""
    lines = [f"seed {report.seed}: {violation}" for violation in report.violations[:10]]
    more = [f"seed {report.seed}: and {len(report.violations) - 10} more"] if len(report.violations) > 10 else []
    return "\n".join([*lines, *more, f"  replay: {replay(report.seed, bug)}"])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m polystore.testing.simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many processes")
    parser.add_argument("--bug", choices=sorted(BUGS), help="plant this bug: it should be found")
    parser.add_argument("--trace", action="store_true", help="print every event of the first seed, and only that")
    options = parser.parse_args(arguments)
    if options.trace:
        with planted(options.bug) if options.bug else contextlib.nullcontext():
            return _finish([simulate(options.first, _say)], options.bug, time.monotonic())
    seeds = range(options.first, options.first + options.seeds)
    jobs = max(1, min(options.jobs, options.seeds // _CHUNK))
    started = time.monotonic()
    return _finish(run(seeds, jobs, options.bug), options.bug, started)


def _finish(reports: Iterable[Report], bug: str | None, started: float) -> int:
    covered: Counter[str] = Counter()
    done: list[Report] = []
    for report in reports:
        covered.update(report.covered)
        done.append(report)
        if report.violations:
            _say(told(report, bug))
        elif len(done) % 100 == 0:
            _say(f"{len(done)} seeds, {len(done) / (time.monotonic() - started):.1f} a second")
    seconds = time.monotonic() - started
    failing = sum(bool(report.violations) for report in done)
    virtual_s = sum(report.virtual_s for report in done)
    writes = sum(report.writes for report in done)
    for name, count in sorted(covered.items()):
        _say(f"{count:>10}  {name}")
    _say(
        f"{len(done)} seeds, {failing} failing, {writes} writes, {len(done) / seconds:.1f} seeds/s, virtual/real "
        f"{virtual_s / seconds:.0f}, slowest to deliver everything {max((r.drain_s for r in done), default=0):.1f} s"
    )
    return 1 if failing else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
