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

from benchmarks import (
    cached,
    conversation,
    copying,
    delivery,
    embedded,
    facade,
    facts,
    imports,
    langgraph,
    memory,
    mysql,
    networked,
    objects,
    postgresql,
)
from benchmarks.measure import ROUNDS, Ratio, load
from benchmarks.servers import LeftOutError

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
    13: objects.put_and_get,
    14: facade.cpu_per_operation,
    15: facade.import_time,
    16: delivery.until_applied,
    17: delivery.throughput,
    18: memory.of_a_comparison,
    19: postgresql.sqlalchemy,
    20: langgraph.put_and_get,
    21: conversation.imported,
    22: mysql.write_and_outbox,
    23: facts.points,
    24: copying.ten_thousand,
}
MEASURED_WITH = {2: 1, 4: 3}  # one round gives both

MILLION = {6: imports.million, 24: copying.million, 18: memory.of_a_comparison_of_a_million}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", default=",".join(map(str, ROWS)), help="numbers of the rows to measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON too")
    parser.add_argument(
        "--million", action="store_true", help="rows 6, 18 and 24 with a million records: minutes, 5 GB of disk"
    )
    parser.add_argument("--input", type=Path, metavar="FILE", help="row 21: a conversation, as `make demo` takes it")
    arguments = parser.parse_args()
    wanted = [int(text) for text in arguments.rows.split(",")]
    if unknown := set(wanted) - set(ROWS) - set(MEASURED_WITH):
        parser.error(f"no such rows: {sorted(unknown)}; known: {', '.join(map(str, sorted([*ROWS, *MEASURED_WITH])))}")
    rows = dict.fromkeys(MEASURED_WITH.get(row, row) for row in wanted)
    console = Console(width=None if os.isatty(1) else 160)
    machine = f"{platform.python_implementation()} {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
    machine += f"{os.cpu_count()} cores, load {load()}; {ROUNDS} interleaved rounds, medians; fsync on on all sides"
    console.print(machine, highlight=False)
    if arguments.input:
        conversation.INPUT = arguments.input.absolute()
    results: list[Ratio] = []
    left_out: dict[int, str] = {}
    for row in rows:
        with tempfile.TemporaryDirectory() as directory, console.status(f"row {row}"):
            measure = MILLION.get(row, ROWS[row]) if arguments.million else ROWS[row]
            try:
                measured = measure(Path(directory))
                results += measured if isinstance(measured, list) else asyncio.run(measured)
            except LeftOutError as reason:
                left_out[row] = str(reason)
    console.print(table(results))
    for row, why in left_out.items():
        console.print(f"row {row} is left out: {why}", highlight=False)
    console.print(f"load at the end {load()}", highlight=False)
    if arguments.json:
        arguments.json.write_bytes(
            msgspec.json.format(msgspec.json.encode({"machine": machine, "rows": results, "left_out": left_out}))
        )


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
