"""Where things are kept, who runs them, and the ports: the same as the Compose files say."""

import os
import socket
from pathlib import Path

COMPOSE = Path(__file__).parents[1]
USER, PASSWORD, DATABASE = "polystore", "polystore-test", "polystore"
HOST = "127.0.0.1"
NOBODY = 65534  # runs the servers when root calls: several of them refuse root


class StackError(Exception):
    """What a server could not be had or started for, and what mends it."""


def unprivileged() -> int | None:
    """The uid, and gid, that servers run as, or None: as whoever calls."""
    return NOBODY if os.geteuid() == 0 else None


def root() -> Path:
    """The folder of everything that is downloaded, built or kept by servers; outside any checkout, one for each user.

    root's own home is closed to the user that runs the servers, so root has a folder in /var/cache.
    """
    named = os.environ.get("XDG_CACHE_HOME")
    caches = Path(named) if named else Path("/var/cache") if os.geteuid() == 0 else Path.home() / ".cache"
    return caches / "polystore" / "stack"


def settings() -> dict[str, str]:
    """compose/.env, which the environment overrides: as Docker Compose has it."""
    try:
        lines = (COMPOSE / ".env").read_text().splitlines()
    except FileNotFoundError:
        lines = []
    pairs = (line.partition("=") for line in lines if "=" in line and not line.lstrip().startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs} | dict(os.environ)


def port_variable(server: str) -> str:
    return f"POLYSTORE_{server.upper().replace('-', '_')}_PORT"


def url_variable(server: str) -> str:
    return f"POLYSTORE_TEST_{server.upper().replace('-', '_')}_URL"


def port_of(server: str, default: int) -> int:
    return int(settings().get(port_variable(server), default))


def is_free(port: int) -> bool:
    """Whether a server could listen at this port of the loopback address now."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((HOST, port))
        except OSError:
            return False
    return True


def answers(port: int, ask: bytes = b"", expect: bytes = b"") -> bool:
    """Whether somebody listens at `port` and answers `ask` with `expect` somewhere in the first 4096 bytes."""
    try:
        with socket.create_connection((HOST, port), timeout=2) as one:
            one.sendall(ask)
            return not expect or expect in one.recv(4096)
    except OSError:
        return False
