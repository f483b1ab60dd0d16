"""`make up`, `make stack-status`, `make down` as they are typed, in a checkout of their own, with real Redis: without
Docker, and by Docker where it answers."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose import docker
from compose.native import cache, own, place
from compose.native.recipes.redis import REDIS
from tests.stack import absent

ROOT = Path(__file__).parents[3]


class Checkout:
    """The stack's files alone, and a folder for servers that knows the programs which are built already."""

    def __init__(self, folder: Path, port: int, stack: str = "native") -> None:
        self.folder, self.port, self.stack = folder, port, stack
        shutil.copytree(ROOT / "compose", folder / "compose", ignore=shutil.ignore_patterns("*.env", "__pycache__"))
        programs = folder / "cache" / "polystore" / "stack"
        programs.mkdir(parents=True)
        (programs / cache.folder(REDIS).name).symlink_to(cache.folder(REDIS))

    def say(self, *words: str, code: int = 0) -> str:
        mine = {"XDG_CACHE_HOME": str(self.folder / "cache"), "POLYSTORE_REDIS_PORT": str(self.port)}
        mine |= {"STACK": self.stack, "COMPOSE_PROJECT_NAME": self.folder.name}
        command = [sys.executable, "-m", "compose", *words]
        done = subprocess.run(
            command, cwd=self.folder, env=os.environ | mine, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def ask(self, command: str) -> str:
        with socket.create_connection((place.HOST, self.port)) as one, one.makefile() as answers:
            one.sendall(f"AUTH {place.PASSWORD}\r\n{command}\r\n".encode())
            assert answers.readline() == "+OK\n"
            return answers.readline().strip()

    def servers(self) -> str:
        return (self.folder / "compose" / "servers.env").read_text()


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    """In a folder that the unprivileged user of the servers can enter."""
    if cache.found(REDIS) is None:
        absent("redis", "not built: make up STACK=native S=redis")
    folder = place.root() / "own" / f"checkout-{os.getpid()}-{own.free_ports(1)}"
    folder.mkdir(parents=True)
    one = Checkout(folder, own.free_ports(1))
    yield one
    one.say("down")
    shutil.rmtree(folder)


def test_up_status_down_twice(checkout: Checkout) -> None:
    for _ in range(2):
        assert "redis: starting" in checkout.say("up", "redis")
        assert checkout.ask("PING") == "+PONG"
        assert checkout.servers() == f"POLYSTORE_TEST_REDIS_URL=redis://:polystore-test@127.0.0.1:{checkout.port}/0\n"
        assert " running " in checkout.say("up", "redis"), "nothing is started twice"
        (line,) = [line for line in checkout.say("status").splitlines() if line.startswith("redis ")]
        assert line.split()[:3] == ["redis", "serves", cache.found(REDIS)]
        assert checkout.say("down", "redis") == "redis: stopped\n"
        assert checkout.servers() == ""
        assert place.is_free(checkout.port)


def test_server_is_not_root_and_listens_on_loopback_alone(checkout: Checkout) -> None:
    checkout.say("up", "redis")
    listening = [
        line.split() for line in Path("/proc/net/tcp").read_text().splitlines() if f":{checkout.port:04X} " in line
    ]
    own_sockets = [words for words in listening if words[3] == "0A"]
    assert [words[1].partition(":")[0] for words in own_sockets] == ["0100007F"]
    uid = place.unprivileged()
    assert {int(words[7]) for words in own_sockets} == {os.geteuid() if uid is None else uid}
    assert f":{checkout.port:04X} 00000000" not in Path("/proc/net/tcp6").read_text()


def test_a_taken_port_is_an_error_that_names_the_mend(checkout: Checkout) -> None:
    with socket.create_server((place.HOST, checkout.port)):
        said = checkout.say("up", "redis", code=1)
    assert f"redis does not run: port {checkout.port} is taken by another program" in said
    assert "set POLYSTORE_REDIS_PORT" in said
    assert checkout.servers() == ""


def test_data_stay_until_they_are_removed(checkout: Checkout) -> None:
    checkout.say("up", "redis")
    checkout.ask("SET kept yes")
    checkout.say("down")
    checkout.say("up", "redis")
    assert checkout.ask("EXISTS kept") == ":1"
    checkout.say("down", "--data")
    checkout.say("up", "redis")
    assert checkout.ask("EXISTS kept") == ":0"


@pytest.fixture
def by_docker(tmp_path: Path) -> Iterator[Checkout]:
    """A project of its own, with the volumes of its own."""
    if not docker.answers():
        pytest.skip("docker: it does not answer, or has no Compose; where it does, it is up and down for real")
    port = own.free_ports(1)
    folder = tmp_path / f"checkout-{port}"
    folder.mkdir()
    one = Checkout(folder, port, "docker")
    yield one
    one.say("down", "--data")


def test_docker_gives_the_same_addresses_and_keeps_data_until_they_are_removed(by_docker: Checkout) -> None:
    by_docker.say("up", "redis")
    assert by_docker.ask("PING") == "+PONG"
    assert by_docker.servers() == f"POLYSTORE_TEST_REDIS_URL=redis://:polystore-test@127.0.0.1:{by_docker.port}/0\n"
    (line,) = [line for line in by_docker.say("status").splitlines() if line.startswith("redis ")]
    assert line.split()[:3] == ["redis", "healthy", "7.0.15-bookworm"]
    assert line.split()[-1].endswith(f"@127.0.0.1:{by_docker.port}/0")
    by_docker.ask("SET kept yes")
    by_docker.say("down", "redis")
    assert by_docker.servers() == ""
    assert place.is_free(by_docker.port)
    by_docker.say("up", "redis")
    assert by_docker.ask("EXISTS kept") == ":1"
    volume = f"{by_docker.folder.name}_redis"
    assert volume in docker.docker("volume", "ls", "--quiet").split()
    by_docker.say("down", "redis", "--data")
    assert volume not in docker.docker("volume", "ls", "--quiet").split()
