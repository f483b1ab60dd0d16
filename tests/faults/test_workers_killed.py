"""Several `polystore worker` at once deliver what others write and cannot bring to the copy themselves. Writers and
workers are killed: nothing acknowledged is lost, and the workers alone bring all of it there."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path

from tests.faults.test_postgresql_killed import SCRIPT, WORKERS, Worker, check, newest, owed
from tests.integration.sqlalchemy.test_five_lines import toml
from tests.postgresql import configured, fresh_schema, server

RATE, WRITTEN, ENDED_S = 150, 200, 60.0
NOWHERE = {"url": "postgresql://nobody@127.0.0.1:9/none", "required": False, "roles": ["full_text"]}


@contextlib.contextmanager
def delivering(folder: Path) -> Generator[subprocess.Popen[str]]:
    """A `polystore worker`; `begun` waits for it."""
    command = [sys.executable, "-c", "from polystore.cli import main; main()", "worker"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as worker:
        try:
            yield worker
        finally:
            worker.kill()


def begun(worker: subprocess.Popen[str]) -> None:
    assert worker.stdout is not None
    assert worker.stdout.readline() == "delivering kit_line\n"


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + ENDED_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_several_workers_deliver_what_killed_writers_left_though_one_of_them_is_killed(tmp_path: Path) -> None:
    with fresh_schema() as home, fresh_schema() as words, ExitStack() as living:
        main = configured(home, roles=["home", "journal"])
        whole = {"stores": {"main": main, "words": configured(words, roles=["full_text"])}}
        said = {**whole, "entities": [SCRIPT.stem], "import_paths": [str(SCRIPT.parent)]}
        (tmp_path / "polystore.toml").write_text(toml(said), encoding="utf-8")
        workers = [living.enter_context(delivering(tmp_path)) for _ in range(WORKERS)]
        for worker in workers:
            begun(worker)
        writers = list[Worker]()
        for turn in range(2):
            writers.append(Worker({"stores": {"main": main, "words": NOWHERE}}, f"w{turn}", RATE, tmp_path))
            until(lambda: sum(1 for _ in writers[-1].told()) >= WRITTEN)
            if not turn:
                until(lambda: owed(home) > 0)
                workers.pop().kill()
            writers[-1].kill()
        until(lambda: owed(home) == 0)
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        assert [worker.wait(ENDED_S) for worker in workers] == [0] * (WORKERS - 1)
        held = int(server().value(f"SELECT count(*) FROM {words.partition(',')[0]}.kit_line"))
        assert held > 0, "nobody else has this copy"
        asyncio.run(check(whole, home, newest(writers)))
