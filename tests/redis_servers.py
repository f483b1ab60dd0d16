"""What the tests of the Redis adapter share: the servers, a prefix for each test, time that goes by at once; and what
redis-cli says, a program that knows nothing of polystore."""

import subprocess
from urllib.parse import urlsplit

from compose.native.recipes.redis import REDIS, program
from polystore.testing.places.redis import Prefix

SERVERS = ("redis", "valkey", "redis-sentinel", "redis-cluster")
Place = Prefix


def cli(url: str, *command: str) -> str:
    """The answer as text, an item a line; � for what is none."""
    parts = urlsplit(url)
    server = ["-h", str(parts.hostname), "-p", str(parts.port), "-a", str(parts.password), "--no-auth-warning"]
    asked = [str(program(REDIS, "redis-cli")), *server, "--raw", *command]
    answer = subprocess.run(asked, check=True, capture_output=True, timeout=20).stdout
    return answer.decode(errors="replace").rstrip("\n")
