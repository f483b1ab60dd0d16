"""`polystore dlq`: the records that a copy refused, and what to do about them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from polystore.architecture import HybridDataArchitecture
from polystore.cli.running import NO, USAGE, Context, entity_named, homes_of, key_of, run
from polystore.errors import NotFound
from polystore.model import Key, RetryRow
from polystore.protocols import SupportsJournal

app = typer.Typer(no_args_is_help=True)

StoreName = Annotated[str | None, typer.Option("--store", help="Only those of this copy.")]
One = Annotated[str, typer.Argument(metavar="ENTITY", help="Name of the entity.")]
PAGE = 500


@app.command("list")
def list_(context: typer.Context, store: StoreName = None) -> None:
    """List dead letters. Exit code 1 when there are any."""
    state: Context = context.obj

    async def command() -> int:
        async with state.opened() as hda:
            rows = [_short(row) async for row in _letters(hda, store)]
            state.show(rows, empty="no dead letters")
            return NO if rows else 0

    run(state, command)


@app.command()
def show(context: typer.Context, entity: One, key: Annotated[str, typer.Argument(help="The record's key.")]) -> None:
    """Show all about the dead letters of one record."""
    state: Context = context.obj

    async def command() -> None:
        async with state.opened() as hda:
            wanted = _key(state, hda, entity, key)
            rows = [row async for row in _letters(hda, None) if row.key == wanted]
            if not rows:
                raise NotFound(f"no dead letter of {entity} {key!r}; `polystore dlq list` shows all")
            state.show([_long(row) for row in rows])

    run(state, command)


@app.command()
def retry(
    context: typer.Context,
    entity: Annotated[str | None, typer.Argument(help="With KEY: only this record's.")] = None,
    key: Annotated[str | None, typer.Argument()] = None,
    store: StoreName = None,
) -> None:
    """Try dead letters again, all of them or one record's."""
    _change(context, SupportsJournal.redrive, "tried again", entity, key, store)


@app.command()
def drop(
    context: typer.Context,
    entity: Annotated[str | None, typer.Argument(help="With KEY: only this record's.")] = None,
    key: Annotated[str | None, typer.Argument()] = None,
    store: StoreName = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Forget dead letters: the copy stays without these records until they change."""
    if not yes and not typer.confirm("The copies will miss these records until they change. Go on?", err=True):
        raise typer.Exit(USAGE)
    _change(context, SupportsJournal.drop, "dropped", entity, key, store)


def _change(
    context: typer.Context, method: Any, done: str, entity: str | None, key: str | None, store: str | None
) -> None:
    state: Context = context.obj
    if (entity is None) != (key is None):
        state.errors.print("give both ENTITY and KEY, or neither")
        raise typer.Exit(USAGE)

    async def command() -> int:
        async with state.opened() as hda:
            keys = None if entity is None or key is None else [_key(state, hda, entity, key)]
            count = 0
            for home in homes_of(hda):
                count += await home.call(method, store, keys)
            if state.json:
                state.emit({"count": count})
            state.say(f"{count} {done}")
            return 0 if count else NO

    run(state, command)


def _key(state: Context, hda: HybridDataArchitecture, entity: str, text: str) -> Key:
    """The record that is meant. Raises ConfigurationError for an unknown entity and what cannot be its key."""
    one = entity_named(hda, entity)
    return Key(state.tenant, one.name, one.key_id(key_of(one, text)))


async def _letters(hda: HybridDataArchitecture, store: str | None) -> AsyncGenerator[RetryRow]:
    for home in homes_of(hda):
        cursor: str | None = None
        while True:
            rows, cursor = await home.call(SupportsJournal.parked, store, cursor, PAGE)
            for row in rows:
                yield row
            if cursor is None:
                break


def _short(row: RetryRow) -> dict[str, Any]:
    key = row.key
    return {"copy": row.target, "entity": key.etype, "tenant": key.tenant, "key": key.id, "error": row.error}


def _long(row: RetryRow) -> dict[str, Any]:
    return {
        **_short(row),
        "class": row.error_class,
        "version": row.version,
        "attempts": row.attempts,
        "first": datetime.fromtimestamp(row.first_us / 1e6, UTC).isoformat(timespec="seconds"),
    }
