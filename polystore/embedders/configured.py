"""`[embedders.<name>]` of a configuration, and the embedder that it means."""

from __future__ import annotations

import re
from importlib.util import find_spec

import msgspec

from polystore.embedding import Embedder, HashedEmbedder
from polystore.errors import ConfigurationError, did_you_mean
from polystore.facets import DIMENSION_MAX

KINDS = ("hashed", "openai", "sentence-transformers")
"""The kinds of embedders that a configuration can name."""
_NEEDS = {"openai": ("url", "model", "dimension"), "sentence-transformers": ("model", "dimension"), "hashed": ()}
_TAKES = {
    "hashed": frozenset({"kind", "dimension"}),
    "sentence-transformers": frozenset(
        {"kind", "model", "dimension", "shorten", "query_prefix", "document_prefix", "batch_max", "chars_max"}
    ),
}
_URL = re.compile(r"https?://[^@?#\s/]+(/[^@?#\s]*)?")


class EmbedderConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One embedder. `kind` "": "openai" where there is a `url`, else "hashed".

    url: of the API, to which /embeddings is added; without user and options. dimension: components of the model's
    vectors; the hashed kind has a default. shorten: have the model cut its vectors to `dimension`, for models that are
    trained so. query_prefix, document_prefix: put before each text, as the model's card asks. timeout_s: of one call.
    batch_max: most texts in one call. chars_max: what is longer is cut. calls_per_minute: most calls for stored texts;
    questions are not held up.
    """

    kind: str = ""
    url: str = ""
    model: str = ""
    dimension: int | None = None
    api_key: str = ""
    shorten: bool = False
    query_prefix: str = ""
    document_prefix: str = ""
    timeout_s: float = 30.0
    batch_max: int = 32
    chars_max: int = 4_000
    calls_per_minute: float | None = None

    def __repr__(self) -> str:
        return f"EmbedderConfig(kind={self.kind!r}, url={self.url!r}, model={self.model!r}, dimension={self.dimension})"

    @property
    def name(self) -> str:
        """The model as vectors are known by: what is put before every document changes them all. The URL does not."""
        return f"{self.model} {self.document_prefix!r}" if self.document_prefix else self.model


def checked(config: EmbedderConfig, where: str) -> EmbedderConfig:
    """The configuration with its kind. Raises ConfigurationError, naming the place and never the key."""
    kind = config.kind or ("openai" if config.url else "hashed")
    if kind not in KINDS:
        hint = did_you_mean(kind, KINDS) or ";"
        raise ConfigurationError(f"{where}.kind: the kind {kind!r} is not known{hint} known: {', '.join(KINDS)}")
    if kind == "hashed" and config.model:
        raise ConfigurationError(
            f'{where}: model= needs the url= of a server that runs it, or kind = "sentence-transformers"'
        )
    for name in _NEEDS[kind]:
        if not getattr(config, name):
            raise ConfigurationError(f'{where}.{name} is missing: kind "{kind}" needs {", ".join(_NEEDS[kind])}')
    known = _TAKES.get(kind)
    for name in config.__struct_fields__:
        if known is not None and name not in known and getattr(config, name) != getattr(EmbedderConfig(), name):
            raise ConfigurationError(f'{where}.{name}: kind "{kind}" has no such setting')
    if config.url and not _URL.fullmatch(config.url):
        raise ConfigurationError(
            f"{where}.url: http:// or https:// and a path, as in https://host/v1; a key goes into api_key"
        )
    if config.dimension is not None and not 1 <= config.dimension <= DIMENSION_MAX:
        raise ConfigurationError(f"{where}.dimension: must be from 1 to {DIMENSION_MAX}")
    for name in ("timeout_s", "batch_max", "chars_max", "calls_per_minute"):
        value = getattr(config, name)
        if value is not None and not 0 < value <= 1_000_000:
            raise ConfigurationError(f"{where}.{name}: must be more than 0")
    if not all(" " <= char <= "~" for char in config.api_key):
        raise ConfigurationError(f"{where}.api_key: a key is of visible ASCII characters; look at its variable")
    return msgspec.structs.replace(config, kind=kind)


def make(config: EmbedderConfig) -> Embedder:
    """The embedder of a configuration. Nothing is connected, no model is loaded. Raises ConfigurationError when the
    configuration is wrong or the package that it needs is not installed."""
    config = checked(config, "embedder")
    if config.kind == "openai":
        _require("httpx", "polystore-hybrid[http]", config)
        from polystore.embedders.http import HttpEmbedder

        return HttpEmbedder(config)
    if config.kind == "sentence-transformers":
        _require("sentence_transformers", "sentence-transformers", config)
        from polystore.embedders.local import LocalEmbedder

        return LocalEmbedder(config)
    return HashedEmbedder() if config.dimension is None else HashedEmbedder(config.dimension)


def _require(module: str, package: str, config: EmbedderConfig) -> None:
    if find_spec(module) is None:
        raise ConfigurationError(f'an embedder of kind "{config.kind}" needs {module}: pip install "{package}"')


def public(embedder: Embedder) -> EmbedderConfig | None:
    """What would make this embedder again, without its key. None for one that the application brought."""
    if isinstance(embedder, HashedEmbedder):
        return EmbedderConfig(kind="hashed", dimension=embedder.dimension)
    config = config_of(embedder)
    return None if config is None else msgspec.structs.replace(config, api_key="")


def config_of(embedder: Embedder) -> EmbedderConfig | None:
    """What an embedder of this package was made of; it may hold a key."""
    config = getattr(embedder, "config", None)
    return config if isinstance(config, EmbedderConfig) else None
