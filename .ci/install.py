"""Make `.venv` and install the pinned packages: `install.py STAMP REQUIREMENTS`, for make, when STAMP is out of date.

A stamp says that the environment is complete. Interrupted at any moment or run twice at once, the next run ends in a
complete environment. Needs only Python.
"""

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 -- the one file that any Python may be asked to run
    sys.exit(f"polystore needs Python 3.11 or later, this is {sys.version.split()[0]}: make PYTHON=python3.13")

ROOT = Path(__file__).parents[1]
SOURCES = [ROOT / "requirements.txt", ROOT / "requirements-dev.txt", ROOT / "pyproject.toml"]


def current(stamp: Path) -> bool:
    return stamp.exists() and all(stamp.stat().st_mtime_ns > source.stat().st_mtime_ns for source in SOURCES)


def main(stamp: Path, requirements: Path) -> None:
    venv = stamp.parent
    python = venv / "bin" / "python"
    stamps = [venv / ".run", venv / ".dev"]
    with SOURCES[0].open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if current(stamp):  # made by the one that held the lock
            return

        def run(*command: str | Path) -> None:  # the child keeps the lock, should this process be killed
            subprocess.run(command, check=True, pass_fds=[lock.fileno()])

        pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        if not any(one.exists() for one in stamps) or not python.exists():  # half a package looks complete to pip
            print(f"making {venv.name}: {requirements.name}", flush=True)
            shutil.rmtree(venv, ignore_errors=True)
            run(sys.executable, "-m", "venv", venv)
        for one in stamps:
            one.unlink(missing_ok=True)
        run(*pip, "-r", requirements)
        run(*pip, "--no-build-isolation", "--no-deps", "--editable", ROOT)
        for one in {stamp, venv / ".run"}:  # what the demo needs is part of every environment
            one.touch()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]))
    except subprocess.CalledProcessError as failed:
        sys.exit(f"the installation failed: {' '.join(map(str, failed.cmd))} (exit {failed.returncode})")
