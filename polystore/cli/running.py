"""What all commands share: opening what the configuration names, exit codes, output as tables or JSON.

Exit codes: 0 done; 1 the answer is no (a difference, a store that does not answer, no such record); 2 wrong usage,
configuration or input; 3 a store failed; 130 interrupted.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from polystore.architecture import HybridDataArchitecture
from polystore.config import Config, load_config, resolve_entities
from polystore.entity import EntityType
from polystore.errors import ConfigurationError, NotFound, PolystoreError, StalenessTimeout, StoreError
from polystore.store import Store

NO, USAGE, STORE_FAILED, INTERRUPTED = 1, 2, 3, 130


class Context(msgspec.Struct):
    """The options that stand before the command."""

    config: str | None = None
    entities: tuple[str, ...] = ()
    json: bool = False
    tenant: str = ""
    console: Console = msgspec.field(default_factory=Console)
    errors: Console = msgspec.field(default_factory=lambda: Console(stderr=True))

    def loaded(self) -> Config:
        """The configuration. Raises ConfigurationError."""
        return load_config(self.config)

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[HybridDataArchitecture]:
        """The configured architecture, at the chosen tenant. Raises what `open` raises."""
        loaded = self.loaded()
        if not loaded.entities and not self.entities:
            raise ConfigurationError(
                f"{loaded.source}: no entities; name their modules: --entities MODULE before the command, or entities "
                "in polystore.toml, which `polystore init` writes"
            )
        named = msgspec.structs.replace(
            loaded, entities=self.entities, import_paths=(os.getcwd(),), source="--entities"
        )
        async with HybridDataArchitecture.open(self.config, entities=resolve_entities(named)) as hda:
            yield hda.tenant(self.tenant) if self.tenant else hda

    @property
    def silent(self) -> bool:
        """Whether nobody watches: no progress is shown."""
        return self.json or not self.errors.is_terminal

    def say(self, text: str) -> None:
        """A line for a reader; nothing with --json."""
        if not self.json:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def show(self, rows: Sequence[Mapping[str, Any]], title: str = "", empty: str = "nothing found") -> None:
        """Rows as a table, or as a JSON array."""
        if self.json:
            self.emit(list(rows))
        elif not rows:
            self.say(empty)
        else:
            table = Table(title=title or None, title_justify="left")
            for name in rows[0]:
                table.add_column(name, overflow="fold")
            for row in rows:
                table.add_row(*(_cell(value) for value in row.values()))
            self.console.print(table)

    def emit(self, value: Any) -> None:
        """A value as JSON, one document on standard output."""
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def run(context: Context, command: Callable[[], Coroutine[Any, Any, int | None]]) -> None:
    """Run a command and end with its exit code; errors become a line on standard error, never a traceback."""
    try:
        code = asyncio.run(command()) or 0
    except KeyboardInterrupt:
        context.errors.print("interrupted; what was committed is kept, and the next start goes on from there")
        code = INTERRUPTED
    except PolystoreError as e:
        text = "\n".join((f"{type(e).__name__}: {e}", *getattr(e, "__notes__", ())))
        context.errors.print(text, style="red", highlight=False, markup=False, soft_wrap=True)
        code = (
            NO if isinstance(e, NotFound) else STORE_FAILED if isinstance(e, (StoreError, StalenessTimeout)) else USAGE
        )
    raise typer.Exit(code)


def homes_of(hda: HybridDataArchitecture) -> list[Store]:
    """The stores that commit records, each once: their journals say what is owed."""
    names = dict.fromkeys(placement.authority for placement in hda.manager.placements.values())
    return [hda.stores[name] for name in names]


def entity_named(hda: HybridDataArchitecture, name: str) -> EntityType[Any]:
    """The entity of this name. Raises ConfigurationError listing the known ones."""
    known = hda.types.get(name) or next((one for one in hda.types.values() if one.cls.__name__ == name), None)
    if known is None:
        raise ConfigurationError(f"no entity is named {name!r}; known: {', '.join(sorted(hda.types))}")
    return known


def key_of(entity: EntityType[Any], text: str) -> Any:
    """The key that a text on the command line means. Raises ConfigurationError."""
    try:
        return entity.key_value(text)
    except ValueError:
        kind = entity.fields[entity.key].kind.name
        raise ConfigurationError(f"{entity.name}: a key is a {kind}, which {text!r} is not") from None


def plain(entity: EntityType[Any], value: Any) -> dict[str, Any]:
    """A record as JSON can say it."""
    out: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(entity.encode(value)))
    return out
