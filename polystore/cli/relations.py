"""Commands about relations: related, path."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from polystore.cli.data import Entity, Limit, Where, conditions
from polystore.cli.running import NO, Context, entity_named, key_of, plain, run
from polystore.entity import EntityType
from polystore.errors import ConfigurationError
from polystore.results import Path

Key = Annotated[str, typer.Argument(help="The record's key.")]
Types = Annotated[list[str], typer.Argument(help="Types of the relations to follow.")]
Direction = Annotated[
    str, typer.Option(help="out: what the record points at; in: what points at it; both.", metavar="out|in|both")
]


def related(
    context: typer.Context,
    entity: Entity,
    key: Key,
    types: Types,
    into: Annotated[str | None, typer.Option(help="Records of this entity only.")] = None,
    direction: Direction = "out",
    depth: Annotated[int, typer.Option(min=1, help="Steps at most.")] = 1,
    where: Where = None,
    limit: Limit = 20,
) -> None:
    """Show the records that relations lead to, nearest first."""
    state: Context = context.obj

    async def command() -> None:
        async with state.opened() as hda:
            one = entity_named(hda, entity)
            end = None if into is None else entity_named(hda, into)
            if where and end is None:
                raise ConfigurationError("--where is a condition on the related records: say --into, too")
            options: dict[str, Any] = {} if end is None else {"into": end.cls, "where": conditions(end, where)}
            found = await hda.collection(one.cls).related(
                key_of(one, key), types, direction=_direction(direction), depth=depth, limit=limit, **options
            )
            by_class = {one.cls: one for one in hda.types.values()}
            rows = [
                {
                    "depth": row.depth,
                    **_record(by_class[type(row.value)], row.value, whole=state.json),
                    "properties": dict(row.properties),
                    "path": [list(edge) for edge in row.path] if state.json else _drawn(row.path),
                }
                for row in found
            ]
            state.show(rows)

    run(state, command)


def _record(entity: EntityType[Any], value: Any, *, whole: bool) -> dict[str, Any]:
    record = plain(entity, value)
    return {"entity": entity.name, "record": record} if whole else {"entity": entity.name, "key": record[entity.key]}


def path(
    context: typer.Context,
    entity: Entity,
    key: Key,
    to: Annotated[str, typer.Argument(help="The key of the record to come to.")],
    types: Types,
    into: Annotated[str | None, typer.Option(help="The entity of that record, if it is another one.")] = None,
    direction: Direction = "out",
    depth_max: Annotated[int, typer.Option(min=1, help="Edges at most.")] = 6,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many paths at most, shortest first.")] = 1,
) -> None:
    """Show how relations lead from one record to another. Exit code 1 when they do not."""
    state: Context = context.obj

    async def command() -> int:
        async with state.opened() as hda:
            one = entity_named(hda, entity)
            end = one if into is None else entity_named(hda, into)
            found = await hda.collection(one.cls).paths(
                key_of(one, key),
                key_of(end, to),
                types,
                into=end.cls,
                direction=_direction(direction),
                depth_max=depth_max,
                limit=limit,
            )
            if state.json:
                state.emit(found)
            else:
                state.show([{"edges": len(one), "path": _drawn(one)} for one in found])
            return 0 if found else NO

    run(state, command)


def _direction(given: str) -> Any:
    if given not in ("out", "in", "both"):
        raise ConfigurationError(f"--direction {given!r}: one of out, in, both")
    return given


def _drawn(edges: Path) -> str:
    """The edges as they stand, one behind the other."""
    return ", ".join(f"{source} -{relation}-> {end}" for source, relation, end in edges)
