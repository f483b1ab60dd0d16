"""`python -m agent`: remember a conversation, then answer from it."""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agent.agent import Agent
from agent.chat import Chat
from agent.config import UnusableData, configured
from agent.models import Model
from agent.reading import Conversation, UnreadableInput, read
from polystore import HybridDataArchitecture, PolystoreError

SAMPLES = sorted(Path(__file__).parent.glob("sample/*.jsonl"))
PER_MINUTE = 60


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
    made.add_argument("--data", type=Path, metavar="DIR", help="where it remembers (default: .polystore)")
    made.add_argument(
        "--store",
        metavar="URL",
        help="embedded (a file for each role, the default), sqlite (one file for all), or another URL of polystore; "
        "kept in the data directory from its first start on",
    )
    made.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="a polystore.toml that names its stores, instead of a data directory",
    )
    made.add_argument(
        "--llm",
        metavar="URL",
        help="let a language model answer: the URL of a server with OpenAI's chat API, such as "
        "http://localhost:11434/v1. Its key is taken from OPENAI_API_KEY",
    )
    made.add_argument("--model", metavar="NAME", help="which of its models; default: the first that it lists")
    made.add_argument(
        "--per-minute",
        type=_positive,
        metavar="N",
        default=PER_MINUTE,
        help="messages to answer (default: %(default)s)",
    )
    return made


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10_000:
        raise ValueError
    return number


async def run(
    config: Path, options: argparse.Namespace, conversations: Sequence[Conversation], console: Console
) -> None:
    model = Model(options.llm, options.model, os.environ.get("OPENAI_API_KEY")) if options.llm else None
    async with HybridDataArchitecture.open(config) as hda:
        agent = Agent(hda, options.per_minute, model)
        if options.input or await agent.memory.knows_only([one.name for one in conversations]):
            for one in conversations:
                await learn(agent, one, console)
        chat = Chat(agent, console)
        await chat.greet()
        await (chat.terminal() if sys.stdin.isatty() else chat.tour())


async def learn(agent: Agent, conversation: Conversation, console: Console) -> None:
    if conversation.encoding != "UTF-8":
        console.print(f"{conversation.name} is no UTF-8; read as {conversation.encoding}", style="yellow")
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    started = time.perf_counter()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(conversation.name, total=len(conversation.lines))
        report = await agent.learner.learn(conversation, lambda report: bar.update(task, completed=report.read))
        bar.update(task, completed=report.read)
    if report.written:
        ms = (time.perf_counter() - started) * 1000
        await agent.company.did(f"learned {report.written:,} messages of {conversation.name}", ms)
    console.print(f"{conversation.name}: {report.written:,} new, {report.skipped:,} known; every store has them")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    try:
        conversations = [read(path) for path in ([options.input] if options.input else SAMPLES)]
        config: Path = options.config or configured(options.data, options.store)
        asyncio.run(run(config, options, conversations, console))
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
