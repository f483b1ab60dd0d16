"""`python -m compose up | down | status [servers]`: what `make up`, `make down` and `make stack-status` call."""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from compose import docker
from compose.native import own, place, stack

SERVERS = place.COMPOSE / "servers.env"  # what the tests read


def chosen(words: str) -> list[str]:
    """`postgres,redis` -> the servers of those names, or the first that begins so."""
    found: list[str] = []
    for word in filter(None, words.replace(",", " ").split()):
        names = [name for name in sorted(stack.RECIPES) if name.startswith(word)]
        if not names:
            raise place.StackError(f"no server is called {word}: there are {', '.join(stack.RECIPES)}")
        found.append(names[0])
    return found or list(stack.RECIPES)


def by_docker() -> bool:
    """STACK=docker or STACK=native says; else Docker, where it answers."""
    said = os.environ.get("STACK", "")
    if said not in ("", "docker", "native"):
        raise place.StackError(f"STACK={said}: it can be docker or native")
    return said == "docker" or (said == "" and docker.answers())


def note(names: Sequence[str]) -> None:
    """Write where the servers that run are."""
    lines = [f"{place.url_variable(name)}={url(name)}" for name in names]
    fresh = SERVERS.with_suffix(".new")
    fresh.write_text("".join(f"{line}\n" for line in lines))
    fresh.replace(SERVERS)


def url(name: str) -> str:
    recipe = stack.RECIPES[name]
    return recipe.url(recipe.site().port)


class Progress:
    """A table with a line for each server on a terminal; elsewhere, lines."""

    def __init__(self, console: Console) -> None:
        self.console, self.began = console, time.monotonic()
        self.said: dict[str, str] = {}
        self.live = Live(get_renderable=self.table, console=console, refresh_per_second=4)

    def table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, text in list(self.said.items()):
            table.add_row(name, text)
        return table

    def say(self, name: str, text: str) -> None:
        began = text.split()[0].rstrip(":")
        again = began in ("downloading", "building") and self.said.get(name, "").startswith(began)
        self.said[name] = text
        if not self.console.is_terminal and not again:
            self.console.print(
                f"{time.monotonic() - self.began:6.1f} s  {name}: {text}", highlight=False, soft_wrap=True
            )


def up(names: Sequence[str], console: Console) -> int:
    own.sweep()
    if by_docker():
        try:
            docker.up(names)
        finally:  # one that does not start hides none of the others
            note([name for name in stack.RECIPES if name in docker.serving()])
        return 0
    progress = Progress(console)
    with progress.live if console.is_terminal else progress.console:
        answers = stack.up(names, progress.say)
    note([name for name in stack.RECIPES if stack.serving(name)])
    table = Table("server", "version", "ready after", "URL", box=None, padding=(0, 2, 0, 0))
    for name, answer in answers.items():
        if answer.error is None:
            table.add_row(name, stack.version(name), f"{answer.took_s:.1f} s" if answer.fresh else "running", url(name))
    console.print(table, soft_wrap=True)
    failed = {name: answer.error for name, answer in answers.items() if answer.error is not None}
    for name, error in failed.items():
        console.print(f"{name} does not run: {error}", style="red", highlight=False, soft_wrap=True)
    return 1 if failed else 0


def down(names: Sequence[str], console: Console, *, data: bool) -> int:
    if by_docker():
        docker.down(names, data=data)
        note([name for name in stack.RECIPES if name in docker.serving()])
        return 0
    for name, stopped in stack.down(names).items():
        if data:
            shutil.rmtree(stack.RECIPES[name].site().data, ignore_errors=True)
        console.print(f"{name}: {'stopped' if stopped else 'did not run'}{', data removed' if data else ''}")
    note([name for name in stack.RECIPES if stack.serving(name)])
    return 0


def status(names: Sequence[str], console: Console) -> int:
    table = Table("server", "state", "version", "memory", "URL", box=None, padding=(0, 2, 0, 0))
    if by_docker():
        there = docker.services()
        for name in names:
            one = there.get(name, docker.Service("down", "-", "-"))
            table.add_row(name, one.state, one.version, one.memory, url(name))
        console.print(table, soft_wrap=True)
        return 0
    for name in names:
        serves = stack.serving(name)
        memory = f"{stack.memory_mb(name)} MB" if serves else "-"
        table.add_row(name, "serves" if serves else "down", stack.version(name), memory, url(name))
    console.print(table, soft_wrap=True)
    console.print(f"{place.root()}: downloads, programs, data, logs (data/NAME/store/log)", soft_wrap=True)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m compose", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status"])
    parser.add_argument("servers", nargs="?", default="", help="names, with commas between; default: all")
    parser.add_argument("--data", action="store_true", help="with down: remove the data too")
    given = parser.parse_args(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=200)
    try:
        names = chosen(given.servers)
        if given.command == "up":
            return up(names, console)
        return down(names, console, data=given.data) if given.command == "down" else status(names, console)
    except place.StackError as error:
        console.print(str(error), style="red", highlight=False, soft_wrap=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
