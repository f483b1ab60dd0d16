"""`polystore worker`: a process that only delivers."""

from __future__ import annotations

import asyncio
import contextlib
import signal

import typer

from polystore.cli.running import Context, run


def worker(context: typer.Context) -> None:
    """Take over and deliver what other processes write, until SIGTERM or Ctrl-C. Any number may run."""
    state: Context = context.obj

    async def command() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C ends it as it ends every command
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with state.opened() as hda:
            state.say(f"delivering {', '.join(sorted(hda.types))}")
            await stop.wait()

    run(state, command)
