"""Writes docs/reference/stores.md, and the table of servers in the READMEs, from what the kit said:
`python docs/stores.py [--all] [NAME=URL ...]`.

The reports in docs/reference/conformance of the named stores are brought up to date first: the classes of the kit that
they do not tell of yet, or that have more tests or fewer by now, are run, with --all every one. A test says when that
is due.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from polystore.testing import conformance
from polystore.testing.places import places, somewhere
from polystore.testing.report import Report, Row, classes, count, introduced

REPORTS = Path(__file__).parent / "reference/conformance"
PAGE = Path(__file__).parent / "reference/stores.md"
ROOT = Path(__file__).parents[1]
READMES = {"README.md": ("store", "server", "tests passed"), "README.ko.md": ("저장소", "서버", "통과한 테스트")}
BEGIN, END = "<!-- made by docs/stores.py -->", "<!-- end -->"
ORDER = (
    *("memory", "sqlite", "file", "postgresql", "mariadb", "mysql", "mongodb", "redis", "valkey", "elasticsearch"),
    *("neo4j", "chromadb", "influxdb", "s3"),
)
HEAD = """# What the stores can do

Made by `docs/stores.py` from the reports of [`polystore conformance`](command-line.md#polystore-conformance). A mark
means: the store claims it, and every test that the kit has for it passed on the server named below.
"""
WORDS = {
    "SupportsCommit": "home of records",
    "SupportsJournal": "journal: outbox, retries, versions",
    "SupportsEpoch": "goes on above versions that were lost",
    "SupportsKeptBodies": "journal of homes that cannot commit",
    "SupportsSchema": "tables made, compared, carried along",
    "SupportsRebuild": "copies built anew beside those that serve",
    "SupportsAlias": "a name for others, of the place that serves",
    "SupportsFilter": "conditions and orders",
    "SupportsTextSearch": "full text",
    "SupportsCounts": "counts by value and by time",
    "SupportsRefresh": "what others wrote, found when asked for",
    "SupportsVectorSearch": "vectors",
    "SupportsTraversal": "relations",
    "SupportsApplicationTables": "tables of the application as homes",
    "SupportsFileClaims": "records that name files",
    "SupportsObjects": "files",
    "SupportsTimeRange": "measures",
    "SupportsLog": "logs",
    "SupportsSpill": "facts kept for stores that are down",
    "SupportsState": "live state, limits, channels",
    "SupportsCache": "cache",
    "SupportsInlineCache": "cache in the process",
    "SupportsInlineGet": "reads without a task switch",
}
"""Claim -> what an application gets by it."""


def reports() -> dict[str, Report]:
    """Those that are kept, by name, in the order of the table."""
    found = {path.stem: msgspec.json.decode(path.read_bytes(), type=Report) for path in REPORTS.glob("*.json")}
    return dict(
        sorted(found.items(), key=lambda item: (ORDER.index(item[0]) if item[0] in ORDER else len(ORDER), item[0]))
    )


def page() -> str:
    """The text of the page. Raises KeyError for a claim without words, ValueError for a report of failures."""
    known = reports()
    for name, report in known.items():
        if not report.passed:
            raise ValueError(f"{name}: {report.failures}")
        for claim in report.claims:
            WORDS[claim]
    lines = [HEAD, _row("", known), _row("---", [":-:"] * len(known))]
    for claim, words in WORDS.items():
        lines.append(_row(words, ["●" if claim in passed(one) else "" for one in known.values()]))
    lines += ["", "What the kit ran on:", "", tested("store", "server", "tests passed")]
    return "\n".join(lines)


def tested(*heads: str) -> str:
    """A table of what the kit ran on: store, server with version, how many tests passed."""
    lines = [_row(heads[0], heads[1:]), _row("---", ["---", "--:"])]
    for name, one in reports().items():
        lines.append(_row(name, [f"{one.server} {one.version}".strip(), f"{sum(row.passed for row in one.rows):,}"]))
    return "\n".join(lines) + "\n"


def readme(name: str) -> str:
    """The README with the table of today."""
    before, begin, rest = (ROOT / name).read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{begin}\n{tested(*READMES[name])}{end}{after}"


def passed(report: Report) -> set[str]:
    """The names of the protocols that the store claims and whose classes of the kit ran."""
    ran = {getattr(conformance, row.name) for row in report.rows}
    return {one.protocol.__name__ for one in ran if issubclass(one, conformance.Conformance)}


def _row(first: str, rest: Sequence[str] | dict[str, Report]) -> str:
    return f"| {' | '.join([first, *rest])} |"


def run(name: str, url: str, *, everything: bool) -> None:
    """Bring the report of a store up to date: what it does not tell yet is run, or `everything`. Raises
    CalledProcessError when a test failed."""
    kept: dict[tuple[str, str], Row] = {}
    path = REPORTS / f"{name}.json"
    if path.exists() and not everything:
        kept = {(row.name, row.way): row for row in msgspec.json.decode(path.read_bytes(), type=Report).rows}
    report, claims = asyncio.run(introduced(somewhere(url)))
    made = classes(claims, places(url), layers=False).values()
    wanted = [(one.__name__, one.way) for one in made]
    told = {place: row.passed for place, row in kept.items()}
    missing = {one.__name__ for one in made if told.get((one.__name__, one.way)) != count(one)}
    if missing:
        command = [sys.executable, "-m", "polystore.testing.kit", url, "--json", *(f"--kit={one}" for one in missing)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        found = msgspec.json.decode(done.stdout, type=Report)
        kept |= {(row.name, row.way): row for row in found.rows}
    report.rows = [kept[one] for one in wanted]
    REPORTS.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


if __name__ == "__main__":
    everything = "--all" in sys.argv
    with tempfile.TemporaryDirectory() as folder:
        for argument in [one for one in sys.argv[1:] if one != "--all"]:
            name, _, url = argument.partition("=")
            run(name, url.replace("{folder}", folder), everything=everything)
    PAGE.write_text(page(), encoding="utf-8")
    for name in READMES:
        (ROOT / name).write_text(readme(name), encoding="utf-8")
