"""The agent as a child process, and Korean conversations made for its tests."""

from __future__ import annotations

import contextlib
import csv
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
NOUNS = (
    "친구 학교 바다 여행 커피 선물 편지 시간 마음 음악 영화 도서관 자전거 강아지 고양이 아침 저녁 비밀 약속 겨울 여름"
)
PARTICLES = "이 가 을 를 은 는 도 만 에서 에게 이랑 하고 부터 까지"
ENDS = "좋아요 싫어 그리워 생각나 기다려 시작했어 끝났네 어렵다 궁금해 고마워 잊었어 만났지"


def arguments(*more: str | Path) -> list[str]:
    return [sys.executable, "-m", "agent", *map(str, more)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")])}


def run(*more: str | Path, code: int = 0) -> str:
    """What the agent prints, on both streams, when nobody sits at a terminal."""
    done = subprocess.run(
        arguments(*more), env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def start(*more: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments(*more),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def verify(data: Path) -> str:
    """`polystore verify` finds no difference; what it says."""
    done = subprocess.run(
        [Path(sys.executable).with_name("polystore"), "-c", data / "polystore.toml", "verify"],
        cwd=data.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 differences" in done.stdout
    return done.stdout


def wait_until_imported(
    child: subprocess.Popen[str], data: Path, count: int, committed: Callable[[Path], int] | None = None
) -> None:
    """Return when so many messages are `committed` at the home, or the child has ended."""
    committed = committed or imported
    reached, deadline = -1, time.monotonic() + 60
    while (now := committed(data)) < count and child.poll() is None:
        if now > reached:
            reached, deadline = now, time.monotonic() + 60
        assert time.monotonic() < deadline, f"no more than {reached}"
        time.sleep(0.002)


def imported(data: Path) -> int:
    """Messages committed at the home, -1 before there is one; asked beside the agent, not through it."""
    home = data / ("agent.db" if (data / "agent.db").exists() else "home.db")
    with (
        contextlib.suppress(sqlite3.OperationalError),
        contextlib.closing(sqlite3.connect(f"file:{home}?mode=ro", uri=True)) as db,
    ):
        return int(db.execute("SELECT count(*) FROM message WHERE source != '/chat'").fetchone()[0])
    return -1


def pairs(count: int, seed: int) -> list[tuple[str, str]]:
    """Questions and answers, no two texts equal."""
    rng = random.Random(seed)
    nouns, particles, ends = NOUNS.split(), PARTICLES.split(), ENDS.split()
    texts: dict[str, None] = {}
    while len(texts) < 2 * count:
        name = "".join(chr(rng.randrange(ord("가"), ord("힣") + 1)) for _ in range(rng.randint(2, 4)))
        words = [rng.choice(nouns) + rng.choice(particles) for _ in range(rng.randint(1, 3))]
        texts[" ".join([name + rng.choice(particles), *words, rng.choice(ends)])] = None
    listed = list(texts)
    return list(zip(listed[::2], listed[1::2], strict=True))


def write_csv(path: Path, said: list[tuple[str, str]], encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows([("Q", "A"), *said])
    return path
