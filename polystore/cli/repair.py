"""`polystore repair`: what copies hold otherwise than their homes, brought there again."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from polystore.cli.running import NO, Context, run
from polystore.cli.stores import row_of
from polystore.consistency.mending import RepairReport


def repair(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[ENTITY|STORE]...", help="Of these; without any, all copies of all.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be repaired.")] = False,
    rate: Annotated[float | None, typer.Option(help="Compare at most this many records a second.", min=0.1)] = None,
) -> None:
    """Compare copies with their homes, both ways, and bring them what they lack or hold wrongly; what only they have is
    deleted there. Writes may go on: what is on its way is no difference. What a copy has in a newer version than its
    home is never touched, only told. May be interrupted at any time and begun again. Exit code 1 when differences
    remain."""
    state: Context = context.obj

    async def command() -> int:
        async with state.opened() as hda:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            with Progress(*columns, console=state.errors, transient=True, disable=state.silent) as progress:
                bar = progress.add_task("comparing")

                def seen(now: RepairReport) -> None:
                    progress.update(bar, description=_said(now, dry_run=dry_run))

                report = await hda.repair(*(names or ()), dry_run=dry_run, rate_per_s=rate, progress=seen)
        if state.json:
            kept = {"mended": report.mended, "owed": report.owed, "left": report.left, "skipped": report.skipped}
            state.emit({"compared": report.compared, **kept, "shown": [row_of(one) for one in report.shown]})
        else:
            if report.shown:
                state.show([row_of(one) for one in report.shown])
            for copy, why in report.skipped.items():
                state.say(f"{copy} was not compared: {why}")
            state.say(_said(report, dry_run=dry_run))
        return NO if report.owed or report.left or report.skipped else 0

    run(state, command)


def _said(report: RepairReport, *, dry_run: bool) -> str:
    kinds = ", ".join(f"{count} {problem}" for problem, count in sorted(report.mended.items()))
    parts = [f"{report.compared:,} comparisons"]
    if dry_run:
        return f"{parts[0]}: {report.left} differences"
    parts.append(f"{sum(report.mended.values())} repaired" + (f" ({kinds})" if kinds else ""))
    if report.owed:
        parts.append(f"{report.owed} owed to a copy that does not take them now")
    parts.append(f"{report.left} left as they are")
    return ", ".join(parts)
