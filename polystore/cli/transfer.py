"""Commands that move records between files and stores, and from other stores: import, export, transfer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar, cast

import msgspec
import typer
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from polystore.architecture import HybridDataArchitecture
from polystore.cli.data import Entity, Where, conditions
from polystore.cli.running import NO, Context, entity_named, run
from polystore.errors import ConfigurationError
from polystore.results import ImportReport
from polystore.sources import FileSource, Format, export
from polystore.transfer import Transferred
from polystore.transfer import transfer as everything

S = TypeVar("S", bound=str)
SETTLE_S = 600.0

FormatName = Annotated[
    str | None, typer.Option("--format", metavar="csv|jsonl|parquet", help="Default: by the ending of the name.")
]


def import_(
    context: typer.Context,
    entity: Entity,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV with a header, JSON lines, Parquet.")],
    format: FormatName = None,  # noqa: A002
    encoding: Annotated[str | None, typer.Option(help="Of CSV and JSON lines, such as cp949. Default: UTF-8.")] = None,
    rename: Annotated[
        list[str] | None, typer.Option("--rename", metavar="COLUMN=FIELD", help="A column of the file is this field.")
    ] = None,
    ignore_unknown: Annotated[
        bool, typer.Option("--ignore-unknown", help="Leave out what the entity has no field for.")
    ] = False,
    on_conflict: Annotated[
        str, typer.Option(help="overwrite, skip or error: what to do with keys that exist.")
    ] = "overwrite",
    on_error: Annotated[str, typer.Option(help="stop or collect: what to do with records that do not fit.")] = "stop",
    resume: Annotated[
        str | None, typer.Option(metavar="NAME", help="Keep the position under this name. Default: by the content.")
    ] = None,
) -> None:
    """Import records from a file. A second run of the same file goes on where the first stopped."""
    state: Context = context.obj

    async def command() -> int:
        async with state.opened() as hda:
            one = entity_named(hda, entity)
            source = FileSource(
                one.cls,
                file,
                format=cast(Format | None, format),
                encoding=encoding,
                renamed=dict(_pair(text) for text in rename or ()),
                ignore_unknown=ignore_unknown,
            )
            with _progress(state) as progress:
                bar = progress.add_task(file.name, total=1.0)

                def seen(_: ImportReport) -> None:
                    progress.update(bar, completed=source.done)

                report = await hda.collection(one.cls).import_many(
                    source,
                    on_conflict=_choice("--on-conflict", on_conflict, "overwrite", "skip", "error"),
                    on_error=_choice("--on-error", on_error, "stop", "collect"),
                    resume=resume or source.name(),
                    progress=seen,
                )
                progress.update(bar, description="delivering")
                await hda.settle(SETTLE_S)
            if state.json:
                state.emit(report)
            else:
                state.say(f"{report.read:,} read, {report.written:,} written, {report.skipped:,} skipped")
                for position, message in report.errors:
                    state.say(f"rejected, record {position + 1}: {message}")
            return NO if report.rejected else 0

    run(state, command)


def export_(
    context: typer.Context,
    entity: Entity,
    file: Annotated[Path, typer.Argument(dir_okay=False, help="Where to; - is standard output and needs --format.")],
    format: FormatName = None,  # noqa: A002
    where: Where = None,
) -> None:
    """Export records into a file, which appears when it is complete."""
    state: Context = context.obj

    async def command() -> None:
        async with state.opened() as hda:
            one = entity_named(hda, entity)
            records = hda.collection(one.cls)
            condition = conditions(one, where)
            with _progress(state) as progress:
                bar = progress.add_task(file.name, total=await records.count(condition))
                try:
                    count = await export(
                        records.stream(condition),
                        one.cls,
                        file,
                        format=cast(Format | None, format),
                        progress=lambda done: progress.update(bar, completed=done),
                    )
                except OSError as e:
                    raise ConfigurationError(f"{file} cannot be written: {e.strerror}") from None
            if str(file) == "-":
                return
            if state.json:
                state.emit({"file": str(file), "records": count})
            else:
                state.say(f"{count:,} records in {file}")

    run(state, command)


def transfer(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="FILE|URL", help="polystore.toml, or the URL of a store, that has everything now.")
    ],
    delete: Annotated[bool, typer.Option("--delete", help="Delete here what the source has not.")] = False,
) -> None:
    """Bring everything from other stores into those of the configuration: records of all tenants, the content of their
    files, points, logs. A second run brings what changed since, and goes on where the first stopped."""
    state: Context = context.obj

    async def command() -> None:
        if state.tenant:
            raise ConfigurationError("transfer brings all tenants: leave out --tenant")
        async with state.opened() as hda:
            classes = [one.cls for one in hda.types.values()]
            async with HybridDataArchitecture.open(source, entities=classes, schema="validate") as before:
                columns = (TextColumn("{task.description}"), SpinnerColumn(), TimeElapsedColumn())
                with Progress(*columns, console=state.errors, transient=True, disable=state.silent) as progress:
                    bar = progress.add_task("")

                    def seen(now: Transferred) -> None:
                        points = f", {now.points:,} points" if now.points else ""
                        progress.update(bar, description=f"{now.entity}: {now.read:,} read{points}")

                    done = await everything(before, hda, delete=delete, progress=seen)
                    progress.update(bar, description="delivering")
                    await hda.settle(SETTLE_S)
            state.show([msgspec.structs.asdict(one) for one in done], empty="no entities")

    run(state, command)


def _progress(state: Context) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=state.errors, transient=True, disable=state.silent)


def _choice(option: str, given: str, *known: S) -> S:
    for one in known:
        if given == one:
            return one
    raise ConfigurationError(f"{option} {given!r}: one of {', '.join(known)}")


def _pair(text: str) -> tuple[str, str]:
    column, equals, field = text.rpartition("=")
    if not equals:
        raise ConfigurationError(f"--rename {text!r}: write COLUMN=FIELD")
    return column, field
