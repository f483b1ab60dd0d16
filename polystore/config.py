"""What an application is told from outside: `polystore.toml`, a mapping of the same shape, or one URL.

    entities = ["myapp.models", "myapp.more:Person"]   # modules (all their @entity classes) or single classes
    import_paths = ["src"]                             # looked into first; relative to this file
    url = "embedded:data"                              # one store, or a profile of several; and/or:

    [stores.main]
    url = "postgresql://app:${PGPASSWORD}@db/app"
    roles = ["home", "full_text"]                      # default: all that the adapter can
    required = true
    timeout_s = 10.0
    [stores.main.options]                              # the adapter's own

    [embedders.default]
    url = "https://llm.example/v1"                     # or kind = "hashed", kind = "sentence-transformers"
    model = "bge-m3"
    dimension = 1024
    api_key = "${LLM_KEY}"

    [pins.memory]                                      # by entity; the rest is the selector's
    home = "main"

`${NAME}` in any text is the environment's variable, as it stands: inside a URL it must be percent-encoded where a URL
needs that. `$${` is `${`. The paths of `sqlite:`, `file:` and `embedded:` are relative to the file (else to the working
directory). Errors say where: `stores.main.roles[1]`; they never show a value that could be a secret.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

import msgspec

from polystore.embedders import EmbedderConfig, checked
from polystore.errors import ConfigurationError
from polystore.registry import profile, scheme_of, unknown

S = TypeVar("S", bound=msgspec.Struct)

Role = Literal[
    "home",
    "journal",
    "cache",
    "live_state",
    "document",
    "full_text",
    "vector",
    "graph",
    "time_series",
    "file",
    "stream",
]
ROLES: tuple[str, ...] = get_args(Role)
"""What a store can be used for."""
DEFAULT_FILE = "polystore.toml"
DEFAULT_URL = "embedded:.polystore"
SINGLE = "main"
"""The name of the store when only one URL is given."""
TIMEOUT_S_MAX = 86_400

_PATHS = frozenset({"sqlite", "file", "embedded"})
_ENTITIES = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*)?")
_STORE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{")


class StoreConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One store. `roles` None: all that the adapter can. A store that is not `required` may be down at start."""

    url: str
    roles: tuple[str, ...] | None = None
    required: bool = True
    timeout_s: float = 10.0
    options: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"StoreConfig({redact(self.url)!r}, roles={self.roles}, required={self.required})"


class Pins(msgspec.Struct, frozen=True, kw_only=True):
    """The stores that the configuration itself chooses for an entity; None leaves the choice to the selector."""

    home: str | None = None
    journal: str | None = None
    full_text: str | None = None
    vector: str | None = None
    graph: str | None = None
    time_series: str | None = None
    cache: str | None = None


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A checked configuration: names are known, types are right, variables are filled in, paths are absolute.

    `source` says where it came from, for messages.
    """

    entities: tuple[str, ...]
    import_paths: tuple[str, ...]
    stores: Mapping[str, StoreConfig]
    embedders: Mapping[str, EmbedderConfig]
    pins: Mapping[str, Mapping[str, str]]
    base_dir: str
    source: str


class _File(msgspec.Struct, frozen=True, kw_only=True):
    """The top of a configuration. The tables inside are checked one by one, so that messages can say where."""

    entities: tuple[str, ...] = ()
    import_paths: tuple[str, ...] = ()
    url: str | None = None
    stores: dict[str, Any] = {}
    embedders: dict[str, Any] = {}
    pins: dict[str, Any] = {}


def load_config(
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None, env_vars: Mapping[str, str] = os.environ
) -> Config:
    """The configuration from a file, a URL or a mapping; None: the file or URL in `POLYSTORE_CONFIG`, else
    `./polystore.toml`, else `embedded:./.polystore`. Raises ConfigurationError."""
    if config is None:
        if named := env_vars.get("POLYSTORE_CONFIG"):
            with _within("POLYSTORE_CONFIG"):
                return load_config(named, env_vars)
        if not Path(DEFAULT_FILE).exists():
            return _checked({"url": DEFAULT_URL}, env_vars, Path.cwd(), f"{DEFAULT_URL}, as no {DEFAULT_FILE} is here")
        config = DEFAULT_FILE
    if isinstance(config, Mapping):
        return _checked(config, env_vars, Path.cwd(), "the mapping given to open")
    if isinstance(config, str) and scheme_of(config):
        return _checked({"url": config}, env_vars, Path.cwd(), "the URL given to open")
    path = Path(config)
    return _checked(_read(path), env_vars, path.absolute().parent, str(path))


def _read(path: Path) -> Mapping[str, Any]:
    import tomllib

    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no file {str(path)!r}: give the path of a polystore.toml, or a URL such as embedded:./data"
        ) from None
    except OSError as e:
        raise ConfigurationError(f"{path} cannot be read: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigurationError(f"{path} is not a TOML file: {e}") from e


@contextlib.contextmanager
def _within(place: str) -> Generator[None]:
    """Put the place before the message of a ConfigurationError."""
    try:
        yield
    except ConfigurationError as e:
        raise ConfigurationError(f"{place}: {e}") from e.__cause__


def _checked(raw: Mapping[str, Any], env_vars: Mapping[str, str], base_dir: Path, source: str) -> Config:
    with _within(source):
        top = _fill(_File, _substituted(raw, env_vars, ""), "")
        tables = dict(_single(top, base_dir))
        for name, table in top.stores.items():
            if name in tables:
                raise ConfigurationError(f"stores.{name}: url= at the top brings a store of this name already")
            tables[name] = table
        stores = {name: _store(name, table, base_dir) for name, table in tables.items()}
        return Config(
            entities=top.entities,
            import_paths=tuple(str(base_dir / path) for path in top.import_paths),
            stores=stores,
            embedders={name: _embedder(name, table) for name, table in top.embedders.items()},
            pins={entity: _pins(entity, table, stores) for entity, table in top.pins.items()},
            base_dir=str(base_dir),
            source=source,
        )


def _substituted(value: Any, env_vars: Mapping[str, str], where: str) -> Any:
    """The value with all variables filled in, to the bottom."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: _variable(found, env_vars, where), value)
    if isinstance(value, Mapping):
        table = cast(Mapping[Any, Any], value)
        return {k: _substituted(v, env_vars, f"{where}.{k}" if where else str(k)) for k, v in table.items()}
    if isinstance(value, (list, tuple)):
        items = cast(Sequence[Any], value)
        return [_substituted(v, env_vars, f"{where}[{i}]") for i, v in enumerate(items)]
    return value


def _variable(found: re.Match[str], env_vars: Mapping[str, str], where: str) -> str:
    if found[0] == "$${":
        return "${"
    if found[1] is None:
        raise ConfigurationError(f"{where}: ${{ must be followed by a name and }}; write $${{ for the text ${{")
    if found[1] not in env_vars:
        raise ConfigurationError(f"{where}: the environment variable {found[1]} is not set")
    return env_vars[found[1]]


def _fill(struct: type[S], table: object, where: str) -> S:
    """The table as a struct. Unknown keys are named with the known ones, wrong types with the place."""
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{where}: a table is needed, not {type(table).__name__}")
    fields = {field.name: field for field in msgspec.structs.fields(struct)}
    values: dict[str, Any] = {}
    for key, value in cast(Mapping[str, Any], table).items():
        place = f"{where}.{key}" if where else str(key)
        if key not in fields:
            raise unknown(f"{where}: the key" if where else "the key", str(key), fields)
        try:
            values[key] = msgspec.convert(value, fields[key].type)
        except msgspec.ValidationError as e:
            reason, _, inner = str(e).partition(" - at `$")
            reason = reason.replace("Expected", "expected").replace(" | null", "").replace("`object`", "`table`")
            raise ConfigurationError(f"{place}{inner.rstrip('`')}: {reason}") from None
    missing = [name for name, field in fields.items() if field.required and name not in values]
    if missing:
        raise ConfigurationError(f"{where}: {missing[0]} is missing")
    return struct(**values)


def _single(top: _File, base_dir: Path) -> Mapping[str, Any]:
    """The stores of `url`: one, or those of its profile. Without any store the default URL stands in."""
    url = top.url if top.url is not None or top.stores else DEFAULT_URL
    if url is None:
        return {}
    url = _absolute(url, base_dir)
    return profile(url) or {SINGLE: {"url": url}}


def _store(name: str, table: object, base_dir: Path) -> StoreConfig:
    where = f"stores.{name}"
    if not _STORE.fullmatch(name):
        raise ConfigurationError(f"{where}: a store's name is letters, digits, _ and -, and begins with a letter")
    store = _fill(StoreConfig, table, where)
    for i, role in enumerate(store.roles or ()):
        if role not in ROLES:
            raise unknown(f"{where}.roles[{i}]: the role", role, ROLES)
    if not 0 < store.timeout_s <= TIMEOUT_S_MAX:
        raise ConfigurationError(f"{where}.timeout_s: must be more than 0 and at most {TIMEOUT_S_MAX}")
    if scheme_of(store.url) is None:
        raise ConfigurationError(f"{where}.url: a URL begins with a scheme and a colon, such as sqlite:data.db")
    if profile(store.url) is not None:
        raise ConfigurationError(
            f"{where}.url: {scheme_of(store.url)}: stands for several stores; write it as url= at the top of the file"
        )
    return msgspec.structs.replace(store, url=_absolute(store.url, base_dir))


def _embedder(name: str, table: object) -> EmbedderConfig:
    embedder = _fill(EmbedderConfig, table, f"embedders.{name}")
    return checked(embedder, f"embedders.{name}")


def _pins(entity: str, table: object, stores: Mapping[str, StoreConfig]) -> dict[str, str]:
    pins = msgspec.structs.asdict(_fill(Pins, table, f"pins.{entity}"))
    for part, store in pins.items():
        if store is not None and store not in stores:
            raise unknown(f"pins.{entity}.{part}: the store", store, stores)
    return {part: store for part, store in pins.items() if store is not None}


def _absolute(url: str, base_dir: Path) -> str:
    """The URL with the path of a local store made absolute."""
    scheme, _, rest = url.partition(":")
    if scheme.lower() not in _PATHS or not rest or rest[0] in "/:":
        return url  # absolute, or something for the adapter to refuse
    path, question, options = rest.partition("?")
    return f"{scheme}:{os.path.normpath(base_dir / path)}{question}{options}"


def redact(url: str) -> str:
    """The URL without user, password and anything in its options that looks like a secret: fit for messages."""
    url = re.sub(r"(?<=://).*@", "***@", url, flags=re.DOTALL)
    return re.sub(r"([?&][^=&#]*(?:pass|pwd|secret|token|key)[^=&#]*=)[^&#]*", r"\1***", url, flags=re.IGNORECASE)


def resolve_entities(config: Config) -> list[type[Any]]:
    """The classes that `entities` names, in order, each once. Imports their modules; `import_paths` are looked into
    first and stay importable. Raises ConfigurationError when a module or class is not there, EntityError."""
    import sys

    for path in reversed(config.import_paths):
        if path not in sys.path:
            sys.path.insert(0, path)
    found: dict[type[Any], None] = {}
    for i, name in enumerate(config.entities):
        found.update(dict.fromkeys(_classes(name, f"{config.source}: entities[{i}]")))
    return list(found)


def _classes(name: str, where: str) -> list[type[Any]]:
    import importlib

    from polystore.entity import is_entity

    if not _ENTITIES.fullmatch(name):
        raise ConfigurationError(f"{where}: {name!r} is neither a module, as in myapp.models, nor myapp.models:Class")
    module_name, _, class_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as e:
        if e.name is None or not f"{module_name}.".startswith(f"{e.name}."):
            raise  # the module is there; something that it imports is not
        raise ConfigurationError(f"{where}: no module {e.name!r}; add its folder to import_paths") from e
    classes = {key: value for key, value in vars(module).items() if is_entity(value)}
    if not class_name:
        if not classes:
            raise ConfigurationError(f"{where}: the module {module_name!r} has no class under @entity()")
        return list(classes.values())
    if class_name not in classes:
        raise unknown(f"{where}: the entity class", class_name, classes)
    return [classes[class_name]]
