"""A program of a Go module, built by the machine's own Go: checksums are those of Go's checksum database."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from compose.native import cache
from compose.native.cache import Say
from compose.native.place import StackError


@dataclass(frozen=True, kw_only=True)
class GoProgram:
    """The program of `package` at `version`, as the file `bin/name`."""

    name: str
    version: str
    package: str
    needs_go: tuple[int, int]

    def build(self, folder: Path, say: Say) -> str:
        compiler = shutil.which("go")
        if compiler is None or go_version(compiler) < self.needs_go:
            least = ".".join(map(str, self.needs_go))
            raise StackError(f"needs Go {least} or later to build {self.name}: install it, or use Docker")
        built = folder / "built"
        shutil.rmtree(built, ignore_errors=True)
        say(f"building {self.name} {self.version}")
        settings = {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod -buildvcs=false", "CGO_ENABLED": "0"}
        environment = settings | {"GOBIN": str(built)}
        go(folder, environment, say, "install", "-v", "-trimpath", f"{self.package}@v{self.version}")
        (folder / "bin").mkdir(exist_ok=True)
        (program,) = built.iterdir()
        program.chmod(0o755)
        program.rename(folder / "bin" / self.name)
        built.rmdir()
        return self.version


def go(work: Path, more: Mapping[str, str], say: Say, *words: str | Path) -> None:
    """Run Go's command in `work`; with `-v` it names each module that it downloads and each package that it compiles,
    and how many those are is told."""
    named = work / "go.log"
    command = [*cache.MORTAL, "go", *words]
    with named.open("wb") as log, cache.told(say, lambda: f"building: {count(named)} modules and packages"):
        done = subprocess.run(command, cwd=work, env=os.environ | more, stdout=log, stderr=log, check=False)
    if done.returncode:
        raise StackError(f"go {words[0]} {words[-1]} failed: {named.read_text(errors='replace').strip()[-1000:]}")
    named.unlink()


def count(named: Path) -> int:
    return named.read_bytes().count(b"\n")


def go_version(compiler: str) -> tuple[int, ...]:
    said = subprocess.run([compiler, "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in said.strip().removeprefix("go").split(".")[:2])
