"""URL scheme -> adapter, by the entry points `polystore.adapters`; and profiles, URLs that stand for several stores.

An alias is a second entry point that leads to the same function. Nothing is imported before its scheme is used.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from polystore.env import Env
from polystore.errors import ConfigurationError, did_you_mean
from polystore.protocols import Connect, Repository

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ADAPTERS = "polystore.adapters"
PROFILES = "polystore.profiles"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # two characters at least: C: is a drive


def unknown(what: str, name: str, known: Iterable[str]) -> ConfigurationError:
    """The error for a name that is not among the known ones: lists them and names the nearest."""
    names = sorted(known)
    hint = did_you_mean(name, names) or ";"
    return ConfigurationError(f"{what} {name!r} is not known{hint} known: {', '.join(names) or 'none'}")


def scheme_of(url: str) -> str | None:
    """The lower-case scheme of a URL; None for anything else, a path for instance."""
    found = _SCHEME.match(url)
    return found[1].lower() if found else None


@functools.cache
def installed(group: str) -> Mapping[str, EntryPoint]:
    """Name -> entry point of a group, looked up once in the life of the process."""
    from importlib.metadata import entry_points  # 10 ms that `import polystore` does not pay

    return {entry.name: entry for entry in reversed(entry_points(group=group))}  # the first on the path wins


def schemes() -> list[str]:
    """The schemes of all installed adapters."""
    return sorted(installed(ADAPTERS))


async def connect(url: str, options: Mapping[str, Any], env: Env) -> Repository:
    """The repository behind a URL. Raises ConfigurationError for a scheme that no installed adapter has and for an
    adapter whose driver is not installed, naming what to install; and whatever the adapter raises."""
    scheme = scheme_of(url)
    if scheme is None:
        raise ConfigurationError(f"a store's URL begins with a scheme and a colon; known: {', '.join(schemes())}")
    entry = installed(ADAPTERS).get(scheme)
    if entry is None:
        raise unknown("the URL scheme", scheme, schemes())
    with _drivers(entry):
        return await cast(Connect, entry.load())(url, options, env)


def profile(url: str) -> Mapping[str, Mapping[str, Any]] | None:
    """The stores that a profile's URL stands for: name -> settings as in `[stores.<name>]`. None for other URLs."""
    scheme = scheme_of(url)
    entry = installed(PROFILES).get(scheme) if scheme else None
    if entry is None:
        return None
    with _drivers(entry):
        return cast(Mapping[str, Mapping[str, Any]], entry.load()(url))


@contextlib.contextmanager
def _drivers(entry: EntryPoint) -> Generator[None]:
    """Turn a missing driver into what to install. By convention an adapter's extra has the name of its module."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if entry.dist is None or module in ("", "polystore", entry.module.partition(".")[0]):
            raise  # a broken installation or a mistake in the adapter: its own message says more
        extra = entry.module.rpartition(".")[2]
        offered = entry.dist.metadata.get_all("Provides-Extra") or []
        package = f'"{entry.dist.name}[{extra}]"' if extra in offered else module
        raise ConfigurationError(
            f"{entry.name}: needs the module {module!r}, which is not installed: pip install {package}"
        ) from error
