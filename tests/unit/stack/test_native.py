"""The tool behind `make up`: what is built once, what it says when it cannot, which processes are alive."""

import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from compose import __main__ as command
from compose import docker
from compose.native import cache, debian, golang, own, place, processes, server, stack
from compose.native.place import StackError
from compose.native.processes import Process, Running
from compose.native.server import Recipe, Site


def quiet(_: str) -> None: ...


@dataclass
class Two:
    """An artifact of two steps that counts them, and can be killed between."""

    name: str = "two"
    version: str = "1"
    steps: list[str] = field(default_factory=list[str])
    dies: bool = False

    def build(self, folder: Path, say: cache.Say) -> str:
        say("working")
        if not (folder / "first").exists():
            self.steps.append("first")
            (folder / "first").write_text("downloaded")
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        self.steps.append("second")
        return "1.2.3"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of what the machine has already is seen."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "polystore" / "stack"


def test_what_is_complete_is_not_built_again(home: Path) -> None:
    artifact = Two()
    assert cache.found(artifact) is None
    assert cache.obtain(artifact, quiet) == home / "two-1"
    cache.obtain(artifact, quiet)
    assert artifact.steps == ["first", "second"]
    assert cache.found(artifact) == "1.2.3"


def test_a_build_killed_in_the_middle_goes_on_with_what_it_had(home: Path) -> None:
    child = os.fork()
    if child == 0:  # pragma: no cover -- ends by SIGKILL
        cache.obtain(Two(dies=True), quiet)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (home / "two-1" / "first").exists()
    artifact = Two()
    assert cache.found(artifact) is None
    cache.obtain(artifact, quiet)
    assert artifact.steps == ["second"]


def test_callers_at_once_build_once() -> None:
    artifact = Two()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(cache.obtain, [artifact] * 8, [quiet] * 8))
    assert artifact.steps == ["first", "second"]


def test_a_failed_build_is_not_complete() -> None:
    class Lacks(Two):
        def build(self, folder: Path, say: cache.Say) -> str:
            raise StackError("needs what this machine lacks")

    with pytest.raises(StackError, match="lacks"):
        cache.obtain(Lacks(), quiet)
    assert cache.found(Lacks()) is None


def test_another_way_to_build_has_another_folder() -> None:
    one = debian.DebianTree(name="x", suite="bookworm", packages=["a"], programs=["usr/bin/a"])
    other = debian.DebianTree(name="x", suite="bookworm", packages=["a", "b"], programs=["usr/bin/a"])
    assert one.version.startswith("bookworm-")
    assert one.version != other.version


@pytest.mark.parametrize(
    ("package", "version"), [("5:7.0.15-1~deb12u7", "7.0.15"), ("8.1.1+dfsg1-3+deb13u2", "8.1.1"), ("18.6-3", "18.6")]
)
def test_version_of_a_package_is_the_vendors(package: str, version: str) -> None:
    assert debian.upstream(package) == version


def test_package_of_the_plan_is_taken_and_not_an_older_one_beside_it(tmp_path: Path) -> None:
    for version in ("5%3a7.0.15-1", "5%3a7.0.14-1"):
        (tmp_path / f"redis-server_{version}_amd64.deb").touch()
    assert debian.archive(tmp_path, "redis-server", "5:7.0.15-1").name == "redis-server_5%3a7.0.15-1_amd64.deb"


def test_program_behind_a_link_is_bound_to_the_libraries_beside_it(tmp_path: Path) -> None:
    """Debian's redis-server is a link."""
    libraries = tmp_path / "usr/lib" / f"{platform.machine()}-linux-gnu"
    libraries.mkdir(parents=True)
    loader = libraries / f"ld-linux-{platform.machine().replace('_', '-')}.so.2"
    loader.touch()
    program, link = tmp_path / "usr/bin/real", tmp_path / "usr/bin/link"
    program.parent.mkdir()
    shutil.copy("/bin/true", program)
    link.symlink_to("real")
    debian.relocate(tmp_path, [link])
    assert debian.patch(["--print-rpath"], [program]).strip() == str(libraries)
    assert debian.patch(["--print-interpreter"], [program]).strip() == str(loader)


def test_machine_without_go_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    program = golang.GoProgram(name="x", version="1.0.0", package="example.invalid/x", needs_go=(1, 24))
    with pytest.raises(StackError, match=r"needs Go 1\.24 or later to build x: install it, or use Docker"):
        cache.obtain(program, quiet)


def test_build_tells_how_far_it_is_and_what_it_failed_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A go that compiles two packages, and goes on once that was told."""
    told, said = tmp_path / "told", list[str]()
    compiler = tmp_path / "go"
    compiler.write_text(f"""#!/bin/sh
[ "$1" = env ] && echo go1.26 && exit
echo example.invalid/x >&2; echo example.invalid/y >&2
until [ -e {told} ]; do sleep 0.02; done
[ "$4" = example.invalid/x@v1.0.0 ] || exit 1
mkdir -p "$GOBIN" && touch "$GOBIN/server"
""")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(cache, "TELL_S", 0.02)

    def say(text: str) -> None:
        said.append(text)
        if "2 modules and packages" in text:
            told.touch()

    one = golang.GoProgram(name="x", version="1.0.0", package="example.invalid/x", needs_go=(1, 24))
    assert (cache.obtain(one, say) / "bin" / "x").exists()
    assert said[0] == "building x 1.0.0"
    assert "building: 2 modules and packages" in said
    other = golang.GoProgram(name="z", version="1.0.0", package="example.invalid/z", needs_go=(1, 24))
    with pytest.raises(StackError, match=r"(?s)go install example\.invalid/z@v1\.0\.0 failed: .*invalid/y"):
        cache.obtain(other, say)


def test_megabytes_are_counted_while_files_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "kept").write_bytes(bytes(3_000_000))
    (tmp_path / "gone").write_bytes(bytes(3_000_000))
    lstat = os.lstat

    def renamed_before(path: str) -> os.stat_result:
        (tmp_path / "gone").unlink(missing_ok=True)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", renamed_before)
    assert cache.megabytes(tmp_path) == 3


def test_machine_without_apt_is_told_to_use_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(StackError, match="needs apt and dpkg and util-linux"):
        debian.configure("bookworm", tmp_path)


def test_mirror_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYSTORE_DEBIAN_MIRROR", "http://mirror.invalid/debian")
    assert debian.mirror() == "http://mirror.invalid/debian"


def test_environment_wins_over_the_file_and_the_file_over_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(place, "COMPOSE", tmp_path)
    assert place.port_of("redis-cluster", 16400) == 16400
    (tmp_path / ".env").write_text("# ports\nPOLYSTORE_REDIS_CLUSTER_PORT=17400\n")
    assert place.port_of("redis-cluster", 16400) == 17400
    monkeypatch.setenv("POLYSTORE_REDIS_CLUSTER_PORT", "18400")
    assert place.port_of("redis-cluster", 16400) == 18400


def listener(port: int) -> list[str | Path]:
    script = f"import socket; s = socket.create_server(('{place.HOST}', {port})); print('here', flush=True); s.accept()"
    return [sys.executable, "-c", script]


def recipe(command: Sequence[str | Path] | None = None) -> Recipe:
    def all_of_it(site: Site) -> list[Process]:
        return [
            Process(
                name="listener",
                command=command or listener(site.port),
                ready=lambda: "here" in processes.log_of(site.store, "listener").read_text(),
            )
        ]

    return Recipe(name="listener", port=1, artifacts=[], url=str, processes=all_of_it)


@pytest.fixture
def site(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """As whoever runs the tests: the interpreter may not be open to the unprivileged user."""
    monkeypatch.setattr(place, "unprivileged", lambda: None)
    monkeypatch.setattr(processes, "unprivileged", lambda: None)
    where = Site(home / "data" / "listener", own.free_ports(1))
    yield where
    server.down(recipe(), where)


def test_up_down_twice(site: Site) -> None:
    one = recipe()
    for _ in range(2):
        assert server.up(one, site, quiet)
        assert server.serves(one, site)
        assert not server.up(one, site, quiet), "it runs"
        assert server.down(one, site)
        assert not server.serves(one, site)
        assert place.is_free(site.port)
        assert not server.down(one, site)


def test_a_taken_port_is_named_with_the_variable_that_moves_it(site: Site) -> None:
    with (
        socket.create_server((place.HOST, site.port)),
        pytest.raises(StackError, match=f"port {site.port} is taken by another program.*POLYSTORE_LISTENER_PORT"),
    ):
        server.up(recipe(), site, quiet)


def test_a_server_that_ends_at_once_leaves_its_last_words(site: Site) -> None:
    one = recipe([sys.executable, "-c", "raise SystemExit('no such option')"])
    with pytest.raises(StackError, match=r"listener .*no such option.*listener\.log"):
        server.up(one, site, quiet)


def test_a_killed_server_is_started_anew(site: Site) -> None:
    one = recipe()
    server.up(one, site, quiet)
    (running,) = server.noted(site).values()
    processes.stop(running, signal.SIGKILL)
    assert not server.serves(one, site)
    assert server.up(one, site, quiet)


def test_another_process_with_the_number_of_an_old_one_is_left_alone() -> None:
    stranger = Running(os.getpid(), began=1)
    assert not processes.is_alive(stranger)
    processes.stop(stranger, signal.SIGKILL)  # this process goes on


def test_an_ended_process_that_nobody_waited_for_is_not_alive() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    state = processes.state_of(ended.pid)
    assert state is not None
    assert processes.wait_until(lambda: not processes.is_alive(Running(ended.pid, state.began)), 20)
    ended.wait()


def test_one_server_that_cannot_be_had_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    class Lacks(Two):
        def build(self, folder: Path, say: cache.Say) -> str:
            raise StackError("needs what this machine lacks")

    good = recipe()
    bad = Recipe(name="bad", port=1, artifacts=[Lacks()], url=str, processes=good.processes)
    after = Recipe(name="after", port=1, artifacts=[], url=str, processes=good.processes, after=["bad"])
    monkeypatch.setattr(stack, "RECIPES", {one.name: one for one in (bad, after, good)})
    monkeypatch.setenv("POLYSTORE_LISTENER_PORT", str(site.port))
    said: list[tuple[str, str]] = []
    answers = stack.up(["after", "listener"], lambda name, text: said.append((name, text)))
    assert answers["listener"].error is None
    assert answers["bad"].error == "needs what this machine lacks"
    assert answers["after"].error == "needs bad"


def test_names_may_be_short() -> None:
    assert command.chosen("postgres,redis") == ["postgresql", "redis"]
    assert command.chosen("") == list(stack.RECIPES)
    with pytest.raises(StackError, match="no server is called oracle"):
        command.chosen("oracle")


@pytest.mark.parametrize("answer", [True, False])
def test_docker_is_used_where_an_answers_unless_told(answer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "answers", lambda: answer)
    monkeypatch.delenv("STACK", raising=False)
    assert command.by_docker() is answer
    monkeypatch.setenv("STACK", "native")
    assert not command.by_docker()
    monkeypatch.setenv("STACK", "podman")
    with pytest.raises(StackError, match="STACK=podman"):
        command.by_docker()


def test_a_docker_client_without_a_daemon_is_no_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client = tmp_path / "docker"
    client.write_text("#!/bin/sh\necho 'cannot connect' >&2; exit 1\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
    assert not docker.answers()
    client.write_text("#!/bin/sh\n")
    assert docker.answers()


MODEL = {
    "services": {
        "redis": {"volumes": [{"type": "volume", "source": "redis"}]},
        "mysql": {"volumes": [{"type": "volume", "source": "mysql"}, {"type": "bind", "source": "/create.sql"}]},
        "toxiproxy": {},
    },
    "volumes": {"redis": {"name": "mine_redis"}, "mysql": {"name": "mine_mysql"}},
}
FAKE = """#!/bin/sh
echo "$*" >> {log}
case "$*" in
*" config "*) echo '{model}' ;;
*" up "*mysql*) exit 1 ;;
*" ps --services "*) echo redis ;;
esac
"""


@pytest.fixture
def docker_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A docker whose redis runs and whose mysql does not start; the file that it writes its words into."""
    client, log = tmp_path / "docker", tmp_path / "words"
    client.write_text(FAKE.format(log=log, model=json.dumps(MODEL)))
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
    monkeypatch.setenv("STACK", "docker")
    monkeypatch.setattr(command, "SERVERS", tmp_path / "servers.env")
    return log


def test_docker_removes_the_data_of_the_servers_that_are_named_alone(docker_words: Path) -> None:
    docker.down(["mysql", "toxiproxy"], data=True)
    assert "volume rm --force mine_mysql" in docker_words.read_text().splitlines()
    docker_words.unlink()
    docker.down(["redis"], data=False)
    assert "volume rm" not in docker_words.read_text()


def test_server_that_docker_cannot_start_hides_none_of_the_others(docker_words: Path) -> None:
    assert command.main(["up", "redis,mysql"]) == 1
    assert (docker_words.with_name("servers.env")).read_text() == (
        "POLYSTORE_TEST_REDIS_URL=redis://:polystore-test@127.0.0.1:16379/0\n"
    )


def test_without_docker_its_absence_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match="docker is not installed: STACK=native"):
        docker.up(["redis"])


def test_own_server_that_was_never_built_says_so() -> None:
    with pytest.raises(own.NotBuilt, match=re.escape("make up STACK=native S=redis")), own.own(stack.RECIPES["redis"]):
        pass


def test_servers_of_tests_that_were_killed_are_swept_and_those_of_others_are_not(site: Site, home: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left, used = (Site(home / "own" / f"listener-{pid}-0", own.free_ports(1)) for pid in (dead.pid, os.getpid()))
    for one in (left, used):
        server.up(recipe(), one, quiet)
    own.sweep()
    assert not left.data.exists()
    assert place.is_free(left.port)
    assert server.serves(recipe(), used)
    server.down(recipe(), used)


def test_free_ports_are_below_those_of_the_kernel() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert own.PORTS.stop + 10_000 < first


def test_a_process_that_ends_while_its_children_are_looked_for_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(self: Path) -> Iterator[Path]:
        raise ProcessLookupError(3, "No such process", str(self))

    monkeypatch.setattr(Path, "iterdir", ended)
    assert processes.descendants(os.getpid()) == []
