"""`polystore rebuild`: vectors made anew with the configured embedders, and copies built anew beside themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from polystore.architecture import HybridDataArchitecture
from polystore.cli.running import Context, run
from polystore.consistency.rebuild import RebuildProgress
from polystore.consistency.renewing import RenewProgress
from polystore.errors import ConfigurationError


def rebuild(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[STORE|ENTITY]...", help="Of these; without any, of all entities.")
    ] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to what served before the last one.")] = False,
    discard: Annotated[bool, typer.Option("--discard", help="Remove what the last one has left behind.")] = False,
    rate: Annotated[float, typer.Option(help="Fill in so many records a second at most; 0: as many as go.")] = 0.0,
) -> None:
    """Build anew, then change over; the old serves meanwhile, and what was interrupted goes on where it stopped.

    Of a STORE that serves copies, each copy in another place on the same server: filled, compared, then gone over to
    by every process. What served before is kept until the next rebuild. Of entities, and before that of the vectors in
    a STORE, what the configured embedders make: without a change of these nothing is embedded; vectors that no model is
    asked for any more are removed."""
    state: Context = context.obj

    async def command() -> None:
        async with state.opened() as hda:
            copies = [name for name in names or () if hda.manager.renewer.copied(name)]
            if rollback or discard:
                await _back(state, hda, names or [], rate=rate, discard=discard)
                return
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            with Progress(*columns, console=state.errors, transient=True, disable=state.silent) as progress:
                bars = {
                    etype: progress.add_task(etype, total=None) for etype in hda.manager.rebuilder.named(names or ())
                }

                def seen(now: RebuildProgress) -> None:
                    title = f"{now.entity}: {now.step}"
                    progress.update(bars[now.entity], description=title, completed=now.done, total=now.total)

                texts = await hda.rebuild(*(names or ()), progress=seen)
            models = {
                etype: {field: one.model for field, one in hda.manager.embedders.serving(etype).items()}
                for etype in texts
            }
            served_by = {name: await _copies(state, hda, name, rate=rate) for name in copies}
            if state.json:
                made = {etype: {"embedded": texts[etype], "models": models[etype]} for etype in texts}
                state.emit(made | {name: {"serves": serving} for name, serving in served_by.items()})
            for etype, count in texts.items():
                served = ", ".join(f"{field} by {model}" for field, model in models[etype].items())
                state.say(f"{etype}: {count:,} texts embedded here; {served}")

    run(state, command)


async def _back(state: Context, hda: HybridDataArchitecture, names: list[str], *, rate: float, discard: bool) -> None:
    if not names:
        raise ConfigurationError("name the store: polystore rebuild STORE --rollback, or --discard")
    if discard:
        emptied = {name: await hda.discard_copies(name) for name in names}
        if state.json:
            state.emit({name: {"emptied": places} for name, places in emptied.items()})
        for name, places in emptied.items():
            state.say(f"{name}: {', '.join(places)} emptied" if places else f"{name}: nothing was left behind")
        return
    served = {name: await _copies(state, hda, name, rate=rate, rollback=True) for name in names}
    if state.json:
        state.emit({name: {"serves": serving} for name, serving in served.items()})


async def _copies(
    state: Context, hda: HybridDataArchitecture, store: str, *, rate: float, rollback: bool = False
) -> Mapping[str, str]:
    """Rebuild the copies of a store; which place serves each entity then."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=state.errors, transient=True, disable=state.silent) as progress:
        bars = {etype: progress.add_task(etype, total=None) for etype in hda.manager.renewer.copied(store)}

        def seen(now: RenewProgress) -> None:
            title = f"{now.entity} in {store}: {now.step}"
            progress.update(bars[now.entity], description=title, completed=now.done, total=now.total)

        served = await hda.rebuild_copies(store, rollback=rollback, rate_per_s=rate, progress=seen)
    for etype, place in served.items():
        state.say(f"{etype}: {place} serves")
    return served
