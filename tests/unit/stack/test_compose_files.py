"""The promises of the Compose files, held without Docker: a file for each server, pinned, watched, on loopback
ports that .env can move, with volumes that have names; and the same addresses as `make up` gives."""

import os
import re
import shutil
import subprocess
import tomllib
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from compose import docker
from compose.native import place, stack
from compose.native.recipes.postgresql import BUILTIN_LOCALE

FILES = sorted(set(place.COMPOSE.glob("*.yaml")) - {docker.FILE})
PORT = re.compile(r"127\.0\.0\.1:\$\{(POLYSTORE_[A-Z0-9_]+_PORT):-(\d+)\}")


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((place.COMPOSE / name).read_text())
    return found


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = read(f"{name}.yaml")["services"][name]
    return found


def example() -> dict[str, str]:
    lines = (place.COMPOSE / ".env.example").read_text().splitlines()
    return dict(line.split("=") for line in lines if line and not line.startswith("#"))


every = pytest.mark.parametrize("name", [file.stem for file in FILES])


def test_every_server_has_a_file_and_every_file_is_included() -> None:
    assert {file.stem for file in FILES} == stack.RECIPES.keys()
    assert sorted(read("compose.yaml")["include"]) == [file.name for file in FILES]


@every
def test_file_holds_one_service_with_its_own_name(name: str) -> None:
    assert list(read(f"{name}.yaml")["services"]) == [name]


@every
def test_image_is_pinned_to_a_version(name: str) -> None:
    assert re.fullmatch(r"[\w/-]+:(v?\d+\.\d+[\w.-]*|RELEASE\.[\dTZ-]+)", service(name)["image"])


def test_what_is_built_starts_from_pinned_images() -> None:
    for file in place.COMPOSE.glob("*/Dockerfile"):
        images = re.findall(r"^FROM (\S+)", file.read_text(), re.MULTILINE)
        assert images
        assert all(re.fullmatch(r"[\w/-]+:\d+\.\d+\.\d+[\w.-]*", image) for image in images)


@every
def test_health_is_checked_soon_and_for_a_bounded_time(name: str) -> None:
    check = service(name)["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries"} <= check.keys()


@every
def test_ports_are_on_loopback_and_move_by_a_variable_that_the_example_names(name: str) -> None:
    one = service(name)
    if one.get("network_mode") == "host":
        assert one["command"][1:3] == ["-host", place.HOST]
        assert f"${{{place.port_variable(name)}:-{stack.RECIPES[name].port}}}" in one["command"]
        return
    (port,) = one["ports"]
    found = PORT.match(port)
    assert found is not None
    assert (found[1], int(found[2])) == (place.port_variable(name), stack.RECIPES[name].port)
    assert example()[found[1]] == found[2]


@pytest.mark.parametrize("name", ["redis-sentinel", "redis-cluster"])
def test_all_nodes_have_ports(name: str) -> None:
    first, last = (place.port_variable(name) + end for end in ("", "_LAST"))
    ports = "-".join(f"${{{variable}:-{example()[variable]}}}" for variable in (first, last))
    assert service(name)["ports"] == [f"{place.HOST}:{ports}:{ports}"]
    assert int(example()[last]) - int(example()[first]) + 1 == stack.RECIPES[name].ports


def test_no_two_servers_share_a_port() -> None:
    ports = [port for one in stack.RECIPES.values() for port in range(one.port, one.port + one.ports)]
    assert len(set(ports)) == len(ports)


@every
def test_data_are_in_volumes_with_names(name: str) -> None:
    sources = [volume.partition(":")[0] for volume in service(name).get("volumes", [])]
    named = [source for source in sources if not source.startswith("./")]
    assert named or name in ("pgbouncer", "toxiproxy")  # which keep nothing
    assert set(named) == read(f"{name}.yaml").get("volumes", {}).keys()
    assert all((place.COMPOSE / source).is_file() for source in sources if source.startswith("./"))


@every
def test_password_is_that_of_the_url(name: str) -> None:
    """In the file, or in the script that it mounts."""
    texts = [(place.COMPOSE / f"{name}.yaml").read_text()]
    texts += [(place.COMPOSE / mounted.split(":")[0]).read_text() for mounted in service(name).get("volumes", [])[1:]
              if mounted.startswith("./")]  # fmt: skip
    assert place.PASSWORD not in stack.RECIPES[name].url(1) or any(place.PASSWORD in text for text in texts)


@pytest.mark.parametrize(("name", "locale"), [("postgresql", BUILTIN_LOCALE), ("postgresql-old", ["--locale=C"])])
def test_postgresql_is_made_for_utf8_whatever_the_locale(name: str, locale: list[str]) -> None:
    """The locale C alone means SQL_ASCII, which the built-in locale refuses: the server ended at its first start."""
    given = service(name)["environment"]["POSTGRES_INITDB_ARGS"].split()
    assert given == ["--encoding=UTF8", *locale]


def of_core() -> set[str]:
    return {name for name in stack.RECIPES if "core" in service(name)["profiles"]}


def named_in(configuration: str) -> set[str]:
    """The servers whose addresses a configuration names."""
    known = {urlsplit(one.url(one.port)).netloc: one.name for one in stack.RECIPES.values()}
    stores = tomllib.loads((place.COMPOSE / configuration).read_text())["stores"]
    urls: list[str] = [store["url"] for store in stores.values()]
    return {known[urlsplit(url).netloc] for url in urls}


def test_the_configurations_of_the_demo_name_the_servers_of_their_profiles() -> None:
    assert named_in("core.toml") == of_core()
    assert named_in("polystore.toml") > of_core()
    assert len(named_in("polystore.toml")) == 8


def test_core_is_a_part_of_full() -> None:
    assert of_core() == {"postgresql", "redis", "mongodb"}
    assert all("full" in service(name)["profiles"] for name in stack.RECIPES)


@pytest.mark.parametrize(
    ("name", "address"),
    [("postgresql", "127.0.0.1"), ("postgresql-old", "127.0.0.1"), ("mysql", "--host=127.0.0.1"),
     ("mongodb", "/dev/tcp/$$HOSTNAME/27017"), ("influxdb", "http://localhost:8086")],
)  # fmt: skip
def test_server_that_an_image_runs_at_its_first_start_is_not_taken_for_the_real_one(name: str, address: str) -> None:
    """It answers at a socket, at localhost alone, or at another port; MariaDB's image brings a check that knows it."""
    assert any(address in word for word in service(name)["healthcheck"]["test"])


def test_docker_compose_itself_accepts_the_files() -> None:
    if shutil.which("docker") is None or subprocess.run(["docker", "compose", "version"], check=False).returncode:
        pytest.skip("docker compose: not installed; where it is, it reads the files, without a daemon too")
    command = ["docker", "compose", "--file", str(docker.FILE), "--profile", "full", "config", "--services"]
    moved = os.environ | {place.port_variable("redis"): "26379"}
    done = subprocess.run(command, capture_output=True, text=True, env=moved, check=True)
    assert set(done.stdout.split()) == stack.RECIPES.keys()
