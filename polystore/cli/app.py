"""`polystore`: the options before the command, and the list of commands."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import polystore
from polystore.cli import (
    conformance,
    data,
    dead_letters,
    epoch,
    facts,
    rebuild,
    relations,
    repair,
    stores,
    sweep,
    transfer,
    worker,
)
from polystore.cli.running import Context


class _Program(TyperGroup):
    """`--json` may stand behind the command too, where the hand puts it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        if "--json" in args[:end]:
            args = ["--json", *(arg for arg in args[:end] if arg != "--json"), *args[end:]]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Program,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Look into an application's stores, check them, and mend what is owed.",
    epilog="Exit codes: 0 done, 1 the answer is no, 2 usage or configuration, 3 a store failed, 130 interrupted.",
)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"polystore {polystore.__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[
        str | None, typer.Option("--config", "-c", metavar="FILE|URL", help="polystore.toml, or the URL of a store.")
    ] = None,
    entities: Annotated[
        list[str] | None,
        typer.Option(
            "--entities",
            "-e",
            metavar="MODULE",
            help="Module of entities, or module:Class; needed with a URL. Repeated.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON; also behind the command.")] = False,
    tenant: Annotated[str, typer.Option(help="Look at this tenant's records.")] = "",
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which polystore this is.")
    ] = False,
) -> None:
    context.obj = Context(config, tuple(entities or ()), json, tenant)


app.command()(stores.init)
app.command()(stores.check)
app.command()(stores.explain)
app.command()(stores.status)
app.command()(data.get)
app.command()(data.find)
app.command()(data.search)
app.command()(data.similar)
app.command()(relations.related)
app.command()(relations.path)
app.command()(facts.series)
app.command()(facts.log)
app.command("import")(transfer.import_)
app.command("export")(transfer.export_)
app.command()(transfer.transfer)
app.command()(stores.verify)
app.command()(repair.repair)
app.command()(sweep.sweep)
app.command()(rebuild.rebuild)
app.command()(worker.worker)
app.command()(conformance.conformance)
app.add_typer(dead_letters.app, name="dlq", help="Dead letters: records that a copy refused.")
app.add_typer(epoch.app, name="epoch", help="Go on with a home that was restored to the past.")
