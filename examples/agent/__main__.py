"""`python -m agent`: remember a conversation, then answer from it."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agent.chat import Chat
from agent.memory import AGENT, USER, Memory
from agent.reading import Conversation, UnreadableInput, read
from polystore import HybridDataArchitecture, PolystoreError

SAMPLES = sorted(Path(__file__).parent.glob("sample/*.jsonl"))
CONFIG = """\
# Written by the agent at its first start. With this file every `polystore -c polystore.toml ...` works on its memory.
entities = ["agent.entities"]
import_paths = [{examples}]
url = "embedded:."
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="agent",
        description="An agent that remembers conversations, and answers from them in a chat.",
        epilog="Without a terminal it shows a fixed tour. Exit codes: 0 done, 1 a store failed, 2 wrong arguments, or "
        "a file or directory that cannot be used, 130 interrupted (start again to go on).",
    )
    made.add_argument(
        "--input",
        type=Path,
        metavar="FILE",
        help="a conversation: .csv with the columns Q and A, or speaker and text; .jsonl with speaker and text; else "
        "lines of 'speaker: text'. Default: a short one in Korean and one in English",
    )
    made.add_argument(
        "--data", type=Path, metavar="DIR", default=Path(".polystore"), help="where it remembers (default: %(default)s)"
    )
    return made


class UnusableData(Exception):
    """The data directory cannot be written."""


async def run(config: Path, conversations: Sequence[Conversation], samples: bool, console: Console) -> None:
    async with HybridDataArchitecture.open(config) as hda:
        memory = Memory(hda)
        if not samples or await memory.knows_only([one.name for one in conversations]):
            for one in conversations:
                await learn(memory, one, console)
        await memory.meet([AGENT, USER])
        chat = Chat(memory, console)
        await chat.greet()
        await (chat.terminal() if sys.stdin.isatty() else chat.tour())


async def learn(memory: Memory, conversation: Conversation, console: Console) -> None:
    if conversation.encoding != "UTF-8":
        console.print(f"{conversation.name} is no UTF-8; read as {conversation.encoding}", style="yellow")
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(conversation.name, total=len(conversation.lines))
        report = await memory.learn(conversation, lambda report: bar.update(task, completed=report.read))
        bar.update(task, completed=report.read)
    console.print(f"{conversation.name}: {report.written:,} new, {report.skipped:,} known; every store has them")


def configured(data: Path) -> Path:
    """The configuration in the data directory, written at the first start. Raises UnusableData."""
    config = data / "polystore.toml"
    examples = json.dumps(str(Path(__file__).parents[1].absolute()), ensure_ascii=False)
    try:
        if not config.exists():
            data.mkdir(parents=True, exist_ok=True)
            new = config.with_suffix(f".{os.getpid()}")
            new.write_text(CONFIG.format(examples=examples), encoding="utf-8")
            new.replace(config)  # whole or not at all, whenever this process ends
    except OSError as e:
        raise UnusableData(f"{data} cannot be used: {e.strerror}") from e
    return config


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    try:
        conversations = [read(path) for path in ([options.input] if options.input else SAMPLES)]
        asyncio.run(run(configured(options.data), conversations, not options.input, console))
    except KeyboardInterrupt:
        console.print("\nInterrupted. What is remembered is whole; start again with the same arguments to go on.")
        return 130
    except (UnreadableInput, UnusableData) as e:
        print(f"agent: {e}", file=sys.stderr)
        return 2
    except PolystoreError as e:
        print(f"agent: {type(e).__name__}: {e}", *getattr(e, "__notes__", ()), sep="\n", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
