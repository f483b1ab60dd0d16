"""Print the table of ratios: `make bench`, or `python -m benchmarks --rows 9,12 --json results.json`."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sqlite3
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks import cached, embedded, facade, facts, imports, mysql, networked, postgresql
from benchmarks.measure import ROUNDS, Ratio, load

ROWS: Mapping[int, Callable[[Path], Coroutine[Any, Any, list[Ratio]] | list[Ratio]]] = {
    1: postgresql.get_by_id,
    3: postgresql.write_and_outbox,
    5: postgresql.durable_write,
    6: imports.ten_thousand,
    7: networked.get_by_id,
    8: cached.get_by_id,
    9: embedded.get_by_id,
    10: embedded.write_and_outbox,
    11: embedded.vector_query,
    12: embedded.full_text,
    14: facade.cpu_per_operation,
    15: facade.import_time,
    19: postgresql.sqlalchemy,
    21: facts.points,
    22: mysql.write_and_outbox,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", default=",".join(map(str, ROWS)), help="numbers of the rows to measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON too")
    parser.add_argument("--million", action="store_true", help="row 6 with a million records: minutes, 5 GB of disk")
    arguments = parser.parse_args()
    rows = [int(text) for text in arguments.rows.split(",")]
    if unknown := set(rows) - set(ROWS):
        parser.error(f"no such rows: {sorted(unknown)}; known: {', '.join(map(str, ROWS))}")
    console = Console(width=None if os.isatty(1) else 160)
    machine = f"{platform.python_implementation()} {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
    machine += f"{os.cpu_count()} cores, load {load()}; {ROUNDS} interleaved rounds, medians; fsync on on all sides"
    console.print(machine, highlight=False)
    results: list[Ratio] = []
    for row in rows:
        with tempfile.TemporaryDirectory() as directory, console.status(f"row {row}"):
            measure = imports.million if row == 6 and arguments.million else ROWS[row]
            measured = measure(Path(directory))
            results += measured if isinstance(measured, list) else asyncio.run(measured)
    console.print(table(results))
    console.print(f"load at the end {load()}", highlight=False)
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode({"machine": machine, "rows": results})))


def table(results: list[Ratio]) -> Table:
    out = Table("row", "operation", "against", "target", "measured", "spread", "", "ours", "theirs")
    for one in results:
        verdict = "" if one.met is None else "met" if one.met else "MISSED"
        spread = f"{one.low:.2f} - {one.high:.2f}"
        out.add_row(
            str(one.row),
            one.operation,
            one.against,
            one.target,
            f"{one.ratio:.2f}",
            spread,
            verdict,
            one.ours,
            one.theirs,
        )
    return out


if __name__ == "__main__":
    main()
