"""`polystore epoch`: going on with a home that was restored to the past."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from polystore.cli.running import Context, run
from polystore.env import SYSTEM_ENV
from polystore.errors import UnsupportedOperation
from polystore.protocols import SupportsEpoch
from polystore.registry import unknown
from polystore.store import open_store

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """Go on with a home that was restored to the past."""


@app.command()
def bump(context: typer.Context, store: Annotated[str, typer.Argument(help="The home, as configured.")]) -> None:
    """Have a home draw versions above all that it ever gave out, and its copies filled anew. A PostgreSQL server that
    took over for another one is noticed by itself; one whose files were put back is not."""
    state: Context = context.obj

    async def command() -> None:
        stores = state.loaded().stores
        if store not in stores:
            raise unknown("the store", store, stores)
        one = await open_store(store, stores[store], SYSTEM_ENV)
        try:
            if not one.supports(SupportsEpoch):
                raise UnsupportedOperation(
                    f"{store}: this store has no epochs; delete the data of its copies, which are then filled anew"
                )
            number = await cast(SupportsEpoch, one.repository).bump_epoch()  # not under a deadline: it takes its time
        finally:
            await one.aclose()
        state.say(f"{store}: epoch {number}; its copies are filled by the next process that opens them")
        if state.json:
            state.emit({"store": store, "epoch": number})

    run(state, command)
