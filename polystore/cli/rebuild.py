"""`polystore rebuild`: vectors made anew with the configured embedders."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from polystore.cli.running import Context, run
from polystore.consistency.rebuild import RebuildProgress


def rebuild(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[STORE|ENTITY]...", help="Of these; without any, of all entities.")
    ] = None,
) -> None:
    """Make vectors anew with the configured embedders, then change over. The old ones serve meanwhile, and what was
    interrupted goes on where it stopped. Without a change nothing is embedded; vectors that no model is asked for any
    more are removed."""
    state: Context = context.obj

    async def command() -> None:
        async with state.opened() as hda:
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
            if state.json:
                state.emit({etype: {"embedded": texts[etype], "models": models[etype]} for etype in texts})
            for etype, count in texts.items():
                served = ", ".join(f"{field} by {model}" for field, model in models[etype].items())
                state.say(f"{etype}: {count:,} texts embedded here; {served}")

    run(state, command)
