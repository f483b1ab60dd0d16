"""Commands about stores: init, check, explain, status, verify."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from polystore.architecture import HybridDataArchitecture
from polystore.cli.running import NO, USAGE, Context, entity_named, homes_of, run
from polystore.consistency.stage import HARMLESS, Stage
from polystore.consistency.verify import Difference, Verifier
from polystore.embedders import public
from polystore.errors import PolystoreError, StalenessTimeout
from polystore.protocols import Repository, SupportsJournal
from polystore.selection.explain import as_builtins, explanation

CHECK_S = 10.0
TEMPLATE = """\
# Where the application's classes are: modules, or module:Class. Folders in import_paths are looked into first.
entities = [{entities}]
import_paths = ["."]

# One URL for everything. Several stores are tables instead:
#   [stores.main]
#   url = "sqlite:data/main.db"
url = "{url}"
"""


def init(
    context: typer.Context,
    entities: Annotated[list[str] | None, typer.Argument(help="Modules of the entities, such as myapp.models.")] = None,
    url: Annotated[str, typer.Option(help="The store, or profile.")] = "embedded:data",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a polystore.toml."""
    state: Context = context.obj
    path = Path(state.config or "polystore.toml")
    if path.exists() and not force:
        state.errors.print(f"{path} exists; --force replaces it", highlight=False)
        raise typer.Exit(USAGE)
    named = ", ".join(f'"{name}"' for name in (*(entities or ()), *state.entities))
    try:
        path.write_text(TEMPLATE.format(entities=named, url=url), encoding="utf-8")
    except OSError as e:
        state.errors.print(f"{path} cannot be written: {e.strerror}", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(USAGE) from None
    state.say(f"wrote {path}")
    if state.json:
        state.emit({"wrote": str(path)})


def check(context: typer.Context) -> None:
    """Check the configuration, and ask every store who it is, every embedder for a vector. Exit code 1 when one does
    not answer."""
    state: Context = context.obj

    async def command() -> int:
        async with state.opened() as hda:
            rows: list[dict[str, Any]] = []
            for name in state.loaded().stores:
                store = hda.stores.get(name)
                row: dict[str, Any] = {"store": name, "answers": False, "server": "", "version": "", "ms": None}
                if store is not None:
                    started = time.perf_counter()
                    try:
                        instance = await store.call(Repository.ping)
                        ms = round((time.perf_counter() - started) * 1000, 1)
                        row |= {"answers": True, "server": instance.server, "version": instance.version, "ms": ms}
                    except PolystoreError as e:
                        row["server"] = str(e)
                rows.append(row)
            rows += [await _asked(target, stage) for target, stage in hda.manager.embedders.stages()]
            state.show(rows)
            return 0 if all(row["answers"] for row in rows) else NO

    run(state, command)


async def _asked(target: str, stage: Stage) -> dict[str, Any]:
    """What `check` says of an embedder."""
    config = public(stage.embedder)
    kind = type(stage.embedder).__name__ if config is None else config.kind
    row: dict[str, Any] = {"store": target, "answers": False, "server": kind, "version": "", "ms": None}
    started = time.perf_counter()
    try:
        await stage.embed([HARMLESS], "query", CHECK_S)
    except PolystoreError as e:
        return row | {"server": str(e)}
    return row | {"answers": True, "ms": round((time.perf_counter() - started) * 1000, 1)}


def explain(
    context: typer.Context, entity: Annotated[str | None, typer.Argument(help="One entity; else all.")] = None
) -> None:
    """Say where each entity lives, why, what else was considered, and what it costs."""
    state: Context = context.obj

    async def command() -> None:
        async with state.opened() as hda:
            names = [entity_named(hda, entity).name] if entity else sorted(hda.types)
            if state.json:
                state.emit(
                    {name: as_builtins(hda.remembered[name]) | {"vectors": _vectors(hda, name)} for name in names}
                )
            for name in names:
                state.say(explanation(hda.remembered[name]))
                for row in _vectors(hda, name):
                    state.say(f"  vectors    {row['field']}: made by {row['made by']}")

    run(state, command)


def status(context: typer.Context) -> None:
    """Show what is owed to which copy, how old the oldest is, and who works on it."""
    state: Context = context.obj

    async def command() -> None:
        async with state.opened() as hda:
            answer: dict[str, Any] = {"homes": [], "copies": [], "vectors": _vectors(hda), "kept": await _kept(hda)}
            answer["compared"] = await _compared(hda)
            answer["moves"] = _moves(hda)
            for home in homes_of(hda):
                backlog = await home.call(SupportsJournal.backlog)
                live = await home.call(SupportsJournal.beat, hda.manager.worker)
                now_us = hda.manager.env.now_us()
                oldest_s = None if backlog.oldest_us is None else round((now_us - backlog.oldest_us) / 1e6, 3)
                others = len(live - {hda.manager.worker})
                answer["homes"].append(
                    {"home": home.name, "owed": backlog.outbox, "oldest_s": oldest_s, "workers": others}
                )
                copies: dict[str, dict[str, str]] = {}
                for row in await home.call(SupportsJournal.targets):
                    copies.setdefault(row.name, {})[row.etype] = row.status
                answer["copies"].extend(
                    {
                        "home": home.name,
                        "copy": name,
                        "entities": entities,
                        "retry": backlog.retry.get(name, 0),
                        "dead letters": backlog.parked.get(name, 0),
                    }
                    for name, entities in copies.items()
                )
            if state.json:
                state.emit(answer)
                return
            state.show(answer["homes"])
            for row in answer["copies"]:
                row["entities"] = ", ".join(f"{name}: {status}" for name, status in row["entities"].items())
            state.show(answer["copies"], empty="no copies: the homes serve everything themselves")
            if answer["moves"]:
                state.show(answer["moves"])
            if answer["kept"]:
                state.show(answer["kept"])
            if answer["compared"]:
                state.show(answer["compared"], "compared by and by, in the round so far and in the one before")
            if any(row["configured"] for row in answer["vectors"]):
                state.show(answer["vectors"])
                state.say("polystore rebuild makes the vectors with what is configured")

    run(state, command)


def _moves(hda: HybridDataArchitecture) -> list[dict[str, str]]:
    """Facets that change their store: who serves, who will, and how far that is; what a rebuild has left behind."""
    rows: list[dict[str, str]] = []
    for etype, one in sorted(hda.manager.placements.items()):
        status = {row.name: row.status for row in hda.manager.line(etype).targets.rows(etype)}
        for facet, serves in one.facets.items():
            row = {"entity": etype, "facet": facet, "serves": serves, "to serve": "", "how far": "", "kept": ""}
            if (name := one.upcoming.get(facet)) is not None:
                how_far = "filled, to be compared" if status.get(name) == "active" else "is being filled"
                rows.append(row | {"to serve": name, "how far": how_far})
            elif facet in one.leaving or facet in one.previous:
                how_far = f"{one.leaving[facet]} is still delivered to" if facet in one.leaving else ""
                rows.append(row | {"how far": how_far, "kept": one.previous.get(facet, "")})
    return rows


async def _compared(hda: HybridDataArchitecture) -> list[dict[str, Any]]:
    """What the periodic comparison came upon, of the types for which there was one."""
    rows: list[dict[str, Any]] = []
    for etype in sorted(hda.manager.placements):
        one = await hda.manager.reconciler.state(etype)
        if one.ended_us:
            found = (one.compared, one.mended, one.left)
            names = ("compared", "repaired", "left")
            rounds = {**dict(zip(names, found, strict=True)), "last": dict(zip(names, one.last, strict=True))}
            times = {"ended": _time(one.ended_us), "round ended": _time(one.round_us)}
            rows.append({"entity": etype, **times, **rounds})
    return rows


def _time(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="seconds") if us else ""


async def _kept(hda: HybridDataArchitecture) -> list[dict[str, Any]]:
    """Facts that journals keep for stores that did not take them."""
    now_us = hda.manager.env.now_us()
    return [
        {
            "journal": journal,
            "kept for": one.store,
            "facts": one.facts,
            "bytes": one.bytes,
            "oldest_s": round((now_us - one.oldest_us) / 1e6, 3),
            "refused": one.aside,
            "error": one.error,
        }
        for journal, counts in (await hda.facts.kept()).items()
        for one in counts
    ]


def _vectors(hda: HybridDataArchitecture, entity: str | None = None) -> list[dict[str, str]]:
    """What made the vectors of each field, and what is configured where that is something else."""
    embedders = hda.manager.embedders
    rows: list[dict[str, str]] = []
    for etype in sorted(hda.manager.placements):
        if entity not in (None, etype):
            continue
        wanted = embedders.outdated(etype)
        for field, one in embedders.serving(etype).items():
            other = f"{wanted[field].model} {wanted[field].metric}" if field in wanted else ""
            rows.append({"entity": etype, "field": field, "made by": f"{one.model} {one.metric}", "configured": other})
    return rows


def verify(
    context: typer.Context,
    entity: Annotated[str | None, typer.Argument(help="One entity; else all.")] = None,
    limit: Annotated[int, typer.Option(help="Show at most this many differences; all are counted.")] = 20,
) -> None:
    """Compare every copy with its home: keys, versions, contents, vectors, both ways. Exit code 1 on a difference."""
    state: Context = context.obj

    async def command() -> int:
        async with state.opened() as hda:
            asked = [entity_named(hda, entity).name] if entity else sorted(hda.types)
            names = [name for name in asked if name in hda.manager.placements]  # state and facts have no copies
            columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            with Progress(*columns, console=state.errors, transient=True, disable=state.silent) as progress:
                bar = progress.add_task("settling")
                await _settle(state, hda)
                compared: dict[tuple[str, str], int] = {}

                def seen(etype: str, store: str, records: int) -> None:
                    compared[etype, store] = records
                    progress.update(bar, description=f"{etype} at {store}: {records:,} records")

                verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders, progress=seen)
                shown: list[Difference] = []
                count = 0
                for name in names:
                    async for difference in verifier.differences(name):
                        count += 1
                        if len(shown) < limit:
                            shown.append(difference)
            rows = [row_of(one) for one in shown]
            total = sum(compared.values())
            if state.json:
                state.emit({"compared": total, "differences": count, "shown": rows})
            else:
                if rows:
                    state.show(rows)
                state.say(f"{count} differences in {total:,} comparisons")
            return NO if count else 0

    run(state, command)


async def _settle(state: Context, hda: HybridDataArchitecture) -> None:
    """What is still on its way would look like a difference."""
    try:
        await hda.settle(30.0)
    except StalenessTimeout as e:
        state.errors.print(f"not everything is delivered: {e}", highlight=False, markup=False, soft_wrap=True)


def row_of(one: Difference) -> dict[str, Any]:
    """A difference as commands show it."""
    key = one.key
    return {
        "store": one.store,
        "entity": key.etype,
        "tenant": key.tenant,
        "key": key.id,
        "problem": one.problem,
        "home version": one.home_version,
        "copy version": one.copy_version,
        "detail": one.detail,
    }
