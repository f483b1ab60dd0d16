"""The servers that tests run against: those of `make up`, or wherever POLYSTORE_TEST_<STORE>_URL points.

    url = server("postgresql")          # a fixture: the URL, or the test is skipped and says why

    with own_server("redis") as redis:  # one of the test's own, that it may stop and kill
        redis.kill()
        redis.start()

POLYSTORE_TEST_REQUIRE names servers whose absence is a failure: `postgresql,redis`.
"""

import functools
import os
import re
import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from compose.native import own, place, stack
from compose.native.processes import Process
from compose.native.server import Site

NOTED = Path(__file__).parents[1] / "compose" / "servers.env"
REQUIRED = "POLYSTORE_TEST_REQUIRE"
ANSWER_S = 5


def server(name: str) -> Callable[[], str]:
    """A fixture with the URL of the server `name`. Without one its test is skipped, or fails if it is required."""

    @pytest.fixture(scope="session", name=name)
    def url() -> str:
        return url_of(name)

    return url


def url_of(name: str) -> str:
    """The URL of the server `name`. Skips, or fails if it is required, when there is none."""
    reason = absence(name)
    if reason is not None:
        absent(name, reason)
    return urls()[name]


@contextmanager
def own_server(name: str, settings: Sequence[str] = ()) -> Generator[own.OwnServer]:
    """A server with data of its own, for this block; skips, or fails if it is required, where it was never built.
    `settings`: more words for its program, as they are at each of its starts."""
    recipe = stack.RECIPES[name]

    def processes(site: Site) -> list[Process]:
        return [replace(one, command=[*one.command, *settings]) for one in recipe.processes(site)]

    try:
        with own.own(replace(recipe, processes=processes)) as mine:
            yield mine
    except own.NotBuilt as error:
        absent(name, str(error))


def absent(name: str, reason: str) -> None:
    if name in required():
        pytest.fail(f"{name} is required by {REQUIRED}: {reason}", pytrace=False)
    pytest.skip(f"{name}: {reason}")


def required() -> set[str]:
    names = set(os.environ.get(REQUIRED, "").replace(",", " ").split())
    if unknown := names - stack.RECIPES.keys():
        pytest.fail(
            f"{REQUIRED} names {', '.join(sorted(unknown))}: there are {', '.join(stack.RECIPES)}", pytrace=False
        )
    return names


def overview() -> str:
    """For the head of a run: which servers there are, and which not."""
    present = [f"{name} {stack.version(name)}" for name in urls() if absence(name) is None]
    missing = [name for name in stack.RECIPES if absence(name) is not None]
    absent_ones = f"; not there: {', '.join(missing)} (make up)" if missing else ""
    return f"servers: {', '.join(present) or 'none'}{absent_ones}"


@functools.cache
def urls() -> dict[str, str]:
    """Server -> URL, of all that are named: the environment wins over what `make up` wrote."""
    try:
        lines = NOTED.read_text().splitlines()
    except FileNotFoundError:
        lines = []
    noted = {name: value for name, _, value in (line.partition("=") for line in lines)}
    found = {name: (noted | dict(os.environ)).get(place.url_variable(name), "") for name in stack.RECIPES}
    return {name: url for name, url in found.items() if url}


@functools.cache
def absence(name: str) -> str | None:
    """Why there is no such server, and the mend; None: one listens."""
    url = urls().get(name)
    if url is None:
        return f"not running: make up S={name}, or set {place.url_variable(name)}"
    host, port = address(url)
    try:
        socket.create_connection((host, port), timeout=ANSWER_S).close()
    except OSError:
        return f"nothing listens at {host}:{port}: make up S={name}"
    return None


def address(url: str) -> tuple[str, int]:
    """Host and port of a URL; the first, where there are several."""
    found = re.match(r"[^:]+://(?:[^@/]*@)?(\[[^\]]+\]|[^:,/]+):(\d+)", url)
    assert found is not None, "a URL of a server names its host and port"
    return found[1].strip("[]"), int(found[2])
