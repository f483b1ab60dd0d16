"""A program out of Python packages, for a Python that the user of the servers may run."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from compose.native import cache
from compose.native.cache import Say
from compose.native.debian import DebianTree
from compose.native.place import StackError

# The interpreter of the tests may lie in a folder that is closed to others; the server needs one of its own.
PYTHON = DebianTree(name="python-3.11", suite="bookworm", packages=["python3.11"], programs=["usr/bin/python3.11"])


@dataclass(frozen=True, kw_only=True)
class Packages:
    """What the file `pins` (a line for each package) names, in the folder `packages`."""

    name: str
    version: str
    pins: Path

    def build(self, folder: Path, say: Say) -> str:
        say(f"downloading {self.name} {self.version}")
        packages = cache.removed(folder / "packages")
        given: list[str | Path] = ["--target", packages, "-r", self.pins]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command = [*cache.MORTAL, *pip, "--python-version", "3.11", *given]
        parts = cache.removed(folder / "parts")  # where pip downloads to, and unpacks
        parts.mkdir()
        with cache.told(say, lambda: f"downloading and unpacking {cache.megabytes(folder)} MB"):
            environment = os.environ | {"TMPDIR": str(parts)}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StackError(f"pip install {self.name} failed: {done.stderr.strip()[-1000:]}")
        cache.removed(parts)
        return self.version


def python() -> Path:
    return cache.folder(PYTHON) / "tree/usr/bin/python3.11"
