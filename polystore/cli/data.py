"""Commands about records: get, find, search, similar."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
import typer

from polystore.cli.running import Context, entity_named, key_of, plain, run
from polystore.entity import EntityType
from polystore.errors import ConfigurationError
from polystore.filters import Expr, F, Field, path_of
from polystore.kinds import TYPES
from polystore.results import Found, Hit

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
