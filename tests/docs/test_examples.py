"""Every example in the documents runs, and prints what the document says.

The blocks of a page run in order, in one namespace and one temporary directory:

- `python`: runs, `await` at the top allowed. When its first line is `# name.py`, it is a file and is written instead.
- `toml`, `json`, `csv`: written when the first line is `# name`, else only shown.
- `text` right after a `python` block: what that block prints.
- `console`: lines with `$` are commands, the lines below are what they print. `polystore`, `python` and a few plain
  commands run for real; `make` must name an existing target; `pip`, `git` and `cd` are only shown.

A page with `<!-- server: redis -->` is run with the URL of that server in `REDIS_URL`, or skipped where there is none.

The Korean pages have the same blocks as the English ones, which `test_documents.py` checks; they are not run again.

In expected output `...` stands for anything within a line; as a line of its own, for any lines.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import os
import re
import subprocess
import sys
import types
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.docs.pages import NAMES, ROOT, Block, blocks
from tests.stack import url_of

SHOWN_ONLY = ("pip", "git", "cd")
RUN = ("polystore", "python", "cat", "kill", "export", "ls")
_SERVER = re.compile(r"<!-- server: (\w+) -->")
_TITLE = re.compile(r"# ([\w./-]+\.(?:py|toml|jsonl|csv))")


def pattern(expected: str) -> re.Pattern[str]:
    """The expected output as a pattern."""
    lines: list[str] = []
    for line in expected.rstrip("\n").split("\n"):
        if line.strip() == "...":
            lines.append(r"(?:.*\n)*?")
        else:
            lines.append(".*".join(re.escape(part) for part in line.rstrip().split("...")) + r"[ ]*\n")
    return re.compile("".join(lines))


def compare(where: str, expected: str, printed: str) -> None:
    printed = printed.strip("\n") + "\n"  # a progress bar may leave an empty line
    assert pattern(expected).fullmatch(printed), (
        f"{where}: the page shows\n{expected}\nbut this was printed:\n{printed}"
    )


class Page:
    """One page being tried, in a directory of its own."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.module = types.ModuleType("docs_" + re.sub(r"\W", "_", name))
        self.runner = asyncio.Runner()

    @contextlib.contextmanager
    def running(self) -> Generator[None]:
        """With the page's own loop, module and import path; everything is put back afterwards."""
        before = set(sys.modules)
        sys.modules[self.module.__name__] = self.module
        sys.path.insert(0, str(self.directory))
        try:
            with self.runner:
                yield
        finally:
            sys.path.remove(str(self.directory))
            for name in set(sys.modules) - before:
                file = getattr(sys.modules[name], "__file__", None)
                if name == self.module.__name__ or (file and Path(file).is_relative_to(self.directory)):
                    del sys.modules[name]

    def try_all(self) -> None:
        previous: tuple[Block, str] | None = None
        for block in blocks(ROOT / self.name):
            where = f"{self.name}:{block.line}"
            title = _TITLE.fullmatch(block.text.partition("\n")[0])
            printed = None
            if title:
                self.write(title[1], block.text)
            elif block.kind == "python":
                printed = self.python(block)
            elif block.kind == "console":
                self.console(where, block)
            elif block.kind == "text" and previous is not None:
                compare(where, block.text, previous[1])
            previous = None if printed is None else (block, printed)

    def write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".jsonl", ".csv"):  # these have no comments
            text = text.partition("\n")[2]
        path.write_text(text, encoding="utf-8")

    def python(self, block: Block) -> str:
        """What the block prints."""
        # empty lines before it: tracebacks then name the line of the page
        source = "\n" * (block.line - 1) + block.text
        code = compile(source, str(ROOT / self.name), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            if code.co_flags & inspect.CO_COROUTINE:
                self.runner.run(eval(code, self.module.__dict__))
            else:
                exec(code, self.module.__dict__)
        return out.getvalue()

    def console(self, where: str, block: Block) -> None:
        for command, expected in commands(block.text):
            first = command.split()[0]
            if first == "make":
                assert_targets(where, command)
            elif first not in SHOWN_ONLY:
                assert first in RUN, f"{where}: {first!r} is no command that an example may use"
                # The page's loop goes on meanwhile, as that of a reader's session does.
                compare(where, expected, self.runner.run(asyncio.to_thread(self.shell, where, command)))

    def shell(self, where: str, command: str) -> str:
        """What the command prints, on standard output and standard error; it must succeed."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "COLUMNS": "100", "PYTHONPATH": "", "PYTHONUTF8": "1"}
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.directory,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{where}: {command} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout


def commands(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the output shown below it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.split("\n")
        n = next(i for i, line in enumerate(lines) if not line.endswith("\\"))
        yield "\n".join(lines[: n + 1]), "\n".join(lines[n + 1 :])


def assert_targets(where: str, command: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for word in command.split("#")[0].split()[1:]:
        assert "=" in word or word in targets, f"{where}: make has no target {word!r}"


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith(".ko.md")])
def test_every_example_runs_and_prints_what_the_page_shows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if server := _SERVER.search((ROOT / name).read_text(encoding="utf-8")):
        monkeypatch.setenv(f"{server[1].upper()}_URL", url_of(server[1]))
    page = Page(name, tmp_path)
    with page.running():
        page.try_all()


def test_the_comparison_notices_another_output() -> None:
    compare("here", "a ... c\n...\nend", "a b c\nx\ny\nend\n")
    compare("here", "", "")
    for expected, printed in (("a", "b"), ("a", "a\nb"), ("a\n...\nz", "a\nb"), ("", "x"), ("a ... c", "a b")):
        with pytest.raises(AssertionError, match="the page shows"):
            compare("here", expected, printed)
