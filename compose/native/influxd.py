"""influxd: its module cannot be installed by name, since it replaces one of its own requirements, and a part of it, the
language Flux, is Rust.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from compose.native import cache
from compose.native.cache import Say
from compose.native.golang import go, go_version
from compose.native.place import StackError

NEEDS_GO = (1, 23)
NATS = "github.com/nats-io/nats-streaming-server@v0.11.2"
REPLACED = "github.com/influxdata/nats-streaming-server@v0.11.3-0.20201112040610-c277f7560803"
COMMAND = "github.com/influxdata/influxdb/v2/cmd/influxd"
PKG_CONFIG = "github.com/influxdata/pkg-config"  # finds the Rust part, and builds it
# Crates that deny their own warnings do not build with a newer compiler; RUSTFLAGS do not reach those of the build.
CAPPED = '#!/bin/sh\ncase " $* " in *" --cap-lints"*) exec "$@";; *) exec "$@" --cap-lints warn;; esac\n'


@dataclass(frozen=True, kw_only=True)
class Influxd:
    """The program, as the file `bin/influxd`."""

    name: str
    version: str

    def build(self, folder: Path, say: Say) -> str:
        compiler = shutil.which("go")
        if compiler is None or go_version(compiler) < NEEDS_GO or shutil.which("cargo") is None:
            least = ".".join(map(str, NEEDS_GO))
            raise StackError(
                f"needs Go {least} or later, Rust and a C compiler to build it: install them, or use Docker"
            )
        work = folder / "work"
        work.mkdir(exist_ok=True)
        environment = {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod -buildvcs=false"}
        say(f"building {self.name} {self.version}, which takes minutes")
        if not (work / "go.sum").exists():  # the last step that downloads writes it
            cache.removed(work).mkdir()
            go(work, environment, say, "mod", "init", "run")
            go(work, environment, say, "mod", "edit", "-replace", f"{NATS}={REPLACED}")
            go(work, environment, say, "get", "-v", "-tool", f"{COMMAND}@v{self.version}", f"{PKG_CONFIG}@v0.2.14")
        go(work, environment, say, "build", "-v", "-o", work / "pkg-config", PKG_CONFIG)
        capped = work / "capped"
        capped.write_text(CAPPED)
        capped.chmod(0o755)
        rust = {"PKG_CONFIG": str(work / "pkg-config"), "RUSTC_WRAPPER": str(capped), "CGO_ENABLED": "1"}
        rust["RUSTUP_TOOLCHAIN"] = "stable"  # where there is rustup: Flux asks for an old compiler
        linked = ["-ldflags", f"-s -w -X main.version=v{self.version}", "-tags", "sqlite_foreign_keys,sqlite_json"]
        program = folder / "bin" / "influxd"
        go(work, environment | rust, say, "build", "-v", "-trimpath", *linked, "-o", program, COMMAND)
        program.parent.chmod(0o755)
        program.chmod(0o755)
        cache.removed(work)
        return self.version
