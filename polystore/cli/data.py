"""Commands about records: get, find, search, similar, import."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from polystore.cli.running import NO, Context, entity_named, key_of, plain, run
from polystore.conditions import nearest
from polystore.entity import EntityType
from polystore.errors import ConfigurationError, InvalidData
from polystore.filters import Expr, F, Field, path_of
from polystore.kinds import TYPES
from polystore.model import VALUE_BYTES_MAX
from polystore.results import Found, Hit, ImportReport

_OPS = {"=": "==", "~": "contains"}
_WHERE = re.compile(r"\s*([\w.]+)\s*(==|=|!=|<=|>=|<|>|~)\s*(.*)", re.DOTALL)

Entity = Annotated[str, typer.Argument(help="Name of the entity.")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where", "-w", metavar="FIELD OP VALUE", help="OP: = != < <= > >= ~ (contains). Repeated: all must hold."
    ),
]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")]


def get(context: typer.Context, entity: Entity, key: Annotated[str, typer.Argument(help="The record's key.")]) -> None:
    """Show one record with its version. Exit code 1 when there is none."""
    state: Context = context.obj

    async def command() -> None:
        async with state.opened() as hda:
            one = entity_named(hda, entity)
            stored = await hda.collection(one.cls).load(key_of(one, key))
            record = {
                "version": stored.version,
                "written_at": stored.written_at.isoformat(),
                **plain(one, stored.value),
            }
            if state.json:
                state.emit(record)
            else:
                state.show([{"field": name, "value": value} for name, value in record.items()])

    run(state, command)


def find(
    context: typer.Context,
    entity: Entity,
    where: Where = None,
    order: Annotated[list[str] | None, typer.Option("--order", help="Field to sort by; -FIELD: descending.")] = None,
    limit: Limit = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on after the page that ended with this cursor.")] = None,
) -> None:
    """List records that satisfy conditions."""
    state: Context = context.obj

    async def command() -> None:
        async with state.opened() as hda:
            one = entity_named(hda, entity)
            sort = [F[name[1:]].desc() if name.startswith("-") else F[name].asc() for name in order or ()]
            page = await hda.collection(one.cls).find(conditions(one, where), order_by=sort, limit=limit, cursor=cursor)
            rows = [plain(one, value) for value in page]
            if state.json:
                state.emit({"records": rows, "cursor": page.cursor})
                return
            state.show(rows)
            if page.cursor:
                state.say(f"more: --cursor {page.cursor}")

    run(state, command)


def search(
    context: typer.Context,
    entity: Entity,
    text: Annotated[str, typer.Argument(help="Words to look for.")],
    where: Where = None,
    limit: Limit = 10,
) -> None:
    """Find records by the words in their texts."""
    state: Context = context.obj

    async def command() -> None:
        async with state.opened() as hda:
            one = entity_named(hda, entity)
            _show(state, one, await hda.collection(one.cls).search(text, where=conditions(one, where), limit=limit))

    run(state, command)


def similar(
    context: typer.Context,
    entity: Entity,
    text: Annotated[str, typer.Argument(help="A text to compare with.")],
    field: Annotated[str | None, typer.Option(help="The vector field, where there are several.")] = None,
    where: Where = None,
    limit: Limit = 10,
) -> None:
    """Find records whose texts are near to a text, as the configured embedder sees it."""
    state: Context = context.obj

    async def command() -> None:
        async with state.opened() as hda:
            one = entity_named(hda, entity)
            hits = await hda.collection(one.cls).similar(text, field=field, where=conditions(one, where), limit=limit)
            _show(state, one, hits)

    run(state, command)


def _show(state: Context, entity: EntityType[Any], hits: Found[Hit[Any]]) -> None:
    rows = [
        {
            "score": round(hit.score, 6),
            "version": hit.version,
            **plain(entity, hit.value),
            **({"highlights": {k: list(v) for k, v in hit.highlights.items()}} if state.json else {}),
        }
        for hit in hits
    ]
    state.show(rows)


def conditions(entity: EntityType[Any], texts: list[str] | None) -> Expr | None:
    """`--where` options as one condition. Raises ConfigurationError for a text that is none."""
    out: Expr | None = None
    for text in texts or ():
        found = _WHERE.fullmatch(text)
        if found is None:
            raise ConfigurationError(f"--where {text!r}: write FIELD OP VALUE, with OP one of = != < <= > >= ~")
        one = _comparison(entity, F[found[1]], found[1], found[2], found[3])
        out = one if out is None else out & one
    return out


def _comparison(entity: EntityType[Any], field: Field, name: str, op: str, text: str) -> Expr:
    spec = entity.fields.get(name)
    value: Any = text
    if text == "null":
        value = None
    elif spec is not None and spec.kind.name not in ("str", "json"):
        try:
            value = msgspec.convert(text, TYPES[spec.kind.name], strict=False)
        except msgspec.ValidationError:
            raise ConfigurationError(f"--where {name}: {text!r} is no {spec.kind.name}") from None
    return Expr(_OPS.get(op, op), (path_of(field), value))


def import_(
    context: typer.Context,
    entity: Entity,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JSON lines, or CSV with a header.")],
    on_conflict: Annotated[
        str, typer.Option(help="overwrite, skip or error: what to do with keys that exist.")
    ] = "overwrite",
    on_error: Annotated[str, typer.Option(help="stop or collect: what to do with records that do not fit.")] = "stop",
    ignore_unknown: Annotated[
        bool, typer.Option("--ignore-unknown", help="Leave out what the entity has no field for.")
    ] = False,
) -> None:
    """Import records from a file. A second run of the same file goes on where the first stopped."""
    state: Context = context.obj

    async def command() -> int:
        async with state.opened() as hda:
            one = entity_named(hda, entity)
            total = _count(file)
            source = _Source(one, file, stop=on_error == "stop", ignore_unknown=ignore_unknown)
            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
            with Progress(*columns, console=state.errors, transient=True, disable=state.silent) as progress:
                bar = progress.add_task(file.name, total=total)

                def seen(report: ImportReport) -> None:
                    progress.update(bar, completed=report.read)

                report = await hda.collection(one.cls).import_many(
                    source.values(),
                    on_conflict=_choice("--on-conflict", on_conflict, "overwrite", "skip", "error"),
                    on_error=_choice("--on-error", on_error, "stop", "collect"),
                    resume=f"{file.name}-{_digest(file)}{'-ignore-unknown' if ignore_unknown else ''}",
                    progress=seen,
                )
                progress.update(bar, description="delivering")
                await hda.settle(600.0)
            if state.json:
                state.emit(report)
            else:
                state.say(f"{report.read:,} read, {report.written:,} written, {report.skipped:,} skipped")
                for position, message in report.errors:
                    state.say(f"rejected, record {position + 1}: {message}")
            return NO if report.rejected else 0

    run(state, command)


def _choice(option: str, given: str, *known: Any) -> Any:
    if given not in known:
        raise ConfigurationError(f"{option} {given!r}: one of {', '.join(known)}")
    return given


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()[:16]


def _rows(file: Path) -> Iterator[Mapping[Any, Any] | InvalidData]:
    """The records of a file as dicts; an InvalidData in the place of a line that is none."""
    with file.open(encoding="utf-8-sig", newline="") as stream:
        if file.suffix.lower() == ".csv":
            csv.field_size_limit(VALUE_BYTES_MAX)
            yield from csv.DictReader(stream)
            return
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    yield msgspec.json.decode(line, type=dict[str, Any])
                except msgspec.DecodeError as e:
                    yield InvalidData(f"line {number} is not a JSON object: {e}")


def _count(file: Path) -> int:
    """How many records the file has. Raises InvalidData, before anything is written, when it cannot be read at all."""
    try:
        return sum(1 for _ in _rows(file))
    except UnicodeDecodeError as e:
        raise InvalidData(f"{file.name} is not UTF-8 ({e.reason}); save it as UTF-8, then import again") from None
    except csv.Error as e:
        raise InvalidData(f"{file.name} is not a CSV file: {e}") from None


class _Source:
    """The records of a file as values of an entity."""

    def __init__(self, entity: EntityType[Any], file: Path, *, stop: bool, ignore_unknown: bool) -> None:
        self._entity = entity
        self._file = file
        self._loose = file.suffix.lower() == ".csv"
        self._stop = stop
        self._ignore_unknown = ignore_unknown

    def values(self) -> Iterator[Any]:
        """In order, with an InvalidData in the place of a record that does not fit."""
        for number, row in enumerate(_rows(self._file), 1):
            try:
                yield self._value(row)
            except InvalidData as e:  # what is collected has its number in the report
                yield InvalidData(f"{self._file.name}, record {number}: {e}") if self._stop else e

    def _value(self, row: Mapping[Any, Any] | InvalidData) -> Any:
        if isinstance(row, InvalidData):
            raise row
        fields = self._entity.fields
        if not self._ignore_unknown:
            for name in row.keys() - fields.keys():
                raise InvalidData(self._unknown(name))
        known = {name: value for name, value in row.items() if name in fields and not (self._loose and value == "")}
        try:
            return msgspec.convert(known, self._entity.cls, strict=not self._loose)
        except msgspec.ValidationError as e:
            raise InvalidData(str(e)) from None

    def _unknown(self, name: str | None) -> str:
        mend = "mend the file, or leave it out by --ignore-unknown"
        if name is None:  # where csv puts the cells behind the last column
            return f"it has more cells than the header has columns; {mend}"
        return f"{self._entity.cls.__name__} has no field {name!r}{nearest(name, self._entity.fields)}; {mend}"
