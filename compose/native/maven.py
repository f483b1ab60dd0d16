"""Java programs out of Maven's registry, resolved by the machine's own Maven with checksums required."""

import re
import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compose.native import cache
from compose.native.cache import Say
from compose.native.place import StackError

NEEDS_JAVA = 17
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>local</groupId><artifactId>run</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>{}</dependencies></project>"""
DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"


@dataclass(frozen=True, kw_only=True)
class Jars:
    """`artifacts` (group:artifact:version) and all that they need to run, in the folder `lib`."""

    name: str
    version: str
    artifacts: Sequence[str]

    def build(self, folder: Path, say: Say) -> str:
        say(f"downloading {self.name} {self.version}")
        pom = folder / "pom.xml"
        pom.write_text(POM.format("".join(DEPENDENCY.format(*one.split(":")) for one in self.artifacts)))
        jars = cache.removed(folder / "lib")
        maven(
            folder,
            say,
            "-f",
            pom,
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
            f"-DoutputDirectory={jars}",
        )
        return self.version


@dataclass(frozen=True, kw_only=True)
class Unzipped:
    """The content of one zip file (`group:artifact:version:zip`) whose only folder becomes `tree`."""

    name: str
    version: str
    artifact: str

    def build(self, folder: Path, say: Say) -> str:
        say(f"downloading {self.name} {self.version}")
        archives = cache.removed(folder / "archives")
        maven(folder, say, "dependency:copy", f"-Dartifact={self.artifact}", f"-DoutputDirectory={archives}")
        (archive,) = archives.iterdir()
        unpacked = cache.removed(folder / "unpacked")
        with zipfile.ZipFile(archive) as content:
            content.extractall(unpacked)
        (tree,) = unpacked.iterdir()
        for program in (tree / "bin").iterdir():  # zipfile forgets modes
            program.chmod(0o755)
        tree.rename(cache.removed(folder / "tree"))
        cache.removed(archives)
        unpacked.rmdir()
        return self.version


def maven(folder: Path, say: Say, *words: str | Path) -> None:
    """Run Maven with a repository of its own, kept until the build is complete."""
    java()
    program = shutil.which("mvn")
    if program is None:
        raise StackError("needs Maven to download it: install it, or use Docker (compose/compose.yaml)")
    repository = folder / "repository"
    command = [*cache.MORTAL, program, "-B", "-q", "-C", f"-Dmaven.repo.local={repository}", *words]
    with cache.told(say, lambda: f"downloading {cache.megabytes(repository)} MB"):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(f"mvn failed: {(done.stdout + done.stderr).strip()[-1000:]}")
    cache.removed(repository)


def java() -> Path:
    """The machine's Java, `NEEDS_JAVA` or later."""
    program = shutil.which("java")
    if program is not None:
        said = subprocess.run([program, "-version"], capture_output=True, text=True, check=False).stderr
        found = re.search(r'version "(\d+)', said)
        if found is not None and int(found[1]) >= NEEDS_JAVA:
            return Path(program).resolve()
    raise StackError(f"needs Java {NEEDS_JAVA} or later: install a JDK, or use Docker (compose/compose.yaml)")
