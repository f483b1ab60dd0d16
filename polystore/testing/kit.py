"""What `polystore conformance` runs, in a process of its own: `python -m polystore.testing.kit URL`.

Exit codes: 0 all passed, 1 something failed, 2 the URL is wrong, 3 the store does not answer.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from polystore.errors import ConfigurationError, PolystoreError
from polystore.testing.places import forgotten, places, somewhere
from polystore.testing.report import Report, classes, introduced, run

PASSED, FAILED, USAGE, STORE_FAILED = 0, 1, 2, 3


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="polystore conformance")
    made.add_argument("url")
    made.add_argument("--json", action="store_true")
    made.add_argument("--layers", action="store_true")
    made.add_argument("--kit", action="append", default=[])
    made.add_argument("--only", action="append", default=[])
    return made


def show(report: Report, console: Console) -> None:
    table = Table(title=f"{report.adapter}: {report.server} {report.version}", title_justify="left")
    for name in ("kit", "on", "passed", "failed"):
        table.add_column(name, justify="right" if name in ("passed", "failed") else "left")
    for row in report.rows:
        style = "red" if row.failed else ""
        table.add_row(
            row.name.removesuffix("Conformance"), row.way, str(row.passed), str(row.failed or ""), style=style
        )
    console.print(table)
    for failure in report.failures:
        console.print(f"{failure.test}\n  {failure.why}", style="red", highlight=False, markup=False, soft_wrap=True)
    passed, failed = sum(row.passed for row in report.rows), sum(row.failed for row in report.rows)
    console.print(f"{passed} passed, {failed} failed in {report.took_s:g} s", highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    errors = Console(stderr=True)
    try:
        made = places(options.url)
        report, claims = asyncio.run(introduced(somewhere(options.url)))
    except PolystoreError as e:
        errors.print(f"{type(e).__name__}: {e}", style="red", highlight=False, markup=False, soft_wrap=True)
        return USAGE if isinstance(e, ConfigurationError) else STORE_FAILED
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=errors, disable=not errors.is_terminal or options.json) as bar:
        task = bar.add_task(f"{report.server} {report.version}", total=None)
        chosen = classes(claims, made, layers=options.layers, kit=options.kit)
        run(
            report,
            chosen,
            only=options.only,
            forgotten=forgotten(options.url),
            counted=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if options.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n")
    else:
        show(report, Console())
    return PASSED if report.passed else FAILED


if __name__ == "__main__":
    sys.exit(main())
