"""What a test gets that asks for a server: its URL, or a reason why not."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.native import place
from compose.native.stack import RECIPES
from tests import stack


@pytest.fixture(autouse=True)
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout in which nothing was started; the file to write servers into."""
    for name in RECIPES:
        monkeypatch.delenv(place.url_variable(name), raising=False)
    monkeypatch.delenv(stack.REQUIRED, raising=False)
    file = tmp_path / "servers.env"
    monkeypatch.setattr(stack, "NOTED", file)
    forget()
    yield file
    forget()


def forget() -> None:
    stack.urls.cache_clear()
    stack.absence.cache_clear()


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server((place.HOST, 0)) as one:
        yield f"redis://:secret@{place.HOST}:{one.getsockname()[1]}/0"


def test_url_is_what_make_up_wrote(noted: Path, listening: str) -> None:
    noted.write_text(f"POLYSTORE_TEST_REDIS_URL={listening}\n")
    assert stack.url_of("redis") == listening


def test_environment_wins(noted: Path, listening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noted.write_text("POLYSTORE_TEST_REDIS_URL=redis://elsewhere:1\n")
    monkeypatch.setenv("POLYSTORE_TEST_REDIS_URL", listening)
    assert stack.url_of("redis") == listening


def test_without_a_server_the_test_is_skipped_and_says_how_to_have_one() -> None:
    with pytest.raises(pytest.skip.Exception, match="redis-cluster: not running: make up S=redis-cluster"):
        stack.url_of("redis-cluster")


def test_a_server_that_was_stopped_is_absent_and_its_password_is_not_shown(noted: Path) -> None:
    with socket.create_server((place.HOST, 0)) as one:
        port = one.getsockname()[1]
    noted.write_text(f"POLYSTORE_TEST_REDIS_URL=redis://:secret@{place.HOST}:{port}/0\n")
    with pytest.raises(pytest.skip.Exception, match=f"nothing listens at {place.HOST}:{port}: make up") as skipped:
        stack.url_of("redis")
    assert "secret" not in str(skipped.value)


def test_absence_of_a_required_server_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(stack.REQUIRED, "postgresql, redis")
    with pytest.raises(pytest.fail.Exception, match="redis is required by POLYSTORE_TEST_REQUIRE: not running"):
        stack.url_of("redis")
    with pytest.raises(pytest.skip.Exception):
        stack.url_of("mariadb")


def test_a_required_server_that_does_not_exist_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(stack.REQUIRED, "postgres")
    with pytest.raises(pytest.fail.Exception, match="names postgres: there are influxdb, minio, mongodb, "):
        stack.url_of("redis")


@pytest.mark.parametrize("name", list(RECIPES))
def test_address_is_found_in_every_url(name: str) -> None:
    recipe = RECIPES[name]
    host, port = stack.address(recipe.url(recipe.port))
    assert host == place.HOST
    assert recipe.port <= port < recipe.port + recipe.ports


def test_a_run_begins_with_the_servers_that_there_are(noted: Path, listening: str) -> None:
    noted.write_text(f"POLYSTORE_TEST_VALKEY_URL={listening}\n")
    assert stack.overview().startswith("servers: valkey ")
    assert "not there: influxdb, minio, mongodb" in stack.overview()
