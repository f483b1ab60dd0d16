"""`polystore sweep`: content of files that no record names."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from polystore.cli.running import Context, run
from polystore.collection.sweeping import SweepReport


def sweep(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    older_than: Annotated[
        float, typer.Option("--older-than", metavar="HOURS", min=0, help="Age of content that no record ever named.")
    ] = 24.0,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="The files of a home that is lost are this one's from now on.")
    ] = False,
) -> None:
    """Remove the content, of all tenants, that no record names. Content whose record was replaced or deleted stays for
    its time, content that a record names stays in any case."""
    state: Context = context.obj

    async def command() -> None:
        async with state.opened() as hda:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            with Progress(*columns, console=state.errors, transient=True, disable=state.silent) as progress:
                bar = progress.add_task("0 files")

                def seen(now: SweepReport) -> None:
                    progress.update(bar, description=f"{now.examined:,} files, {now.removed:,} that no record names")

                report = await hda.sweep_files(
                    older_than_s=older_than * 3600, dry_run=dry_run, adopt=adopt, progress=seen
                )
            if state.json:
                state.emit(msgspec.to_builtins(report))
            verb = "would be removed" if dry_run else "removed"
            state.say(f"{report.examined:,} files looked at, {report.removed:,} {verb} ({report.bytes:,} bytes)")

    run(state, command)
