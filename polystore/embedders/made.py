"""How the vectors of an entity's fields are made: what is remembered, so that vectors of two models never meet."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from polystore.embedders.configured import EmbedderConfig, config_of, make, public
from polystore.embedding import Embedder
from polystore.entity import EntityType
from polystore.errors import ConfigurationError
from polystore.facets import Metric

log = logging.getLogger("polystore")

GIVEN = "given"
"""What the vectors of `list[float]` fields are made with: nothing."""


class Made(msgspec.Struct, frozen=True):
    """How the vectors of one field are made and compared. model: see `model_of`."""

    model: str
    dimension: int
    metric: Metric


def model_of(embedder: Embedder) -> str:
    """The identity of an embedder's vectors: its model and their dimension, not the name under which it is
    configured."""
    return f"{embedder.name}:{embedder.dimension}"


def made(entity: EntityType[Any], embedders: Mapping[str, Embedder]) -> dict[str, Made]:
    """How the configured embedders make the vectors of a type's fields. Raises ConfigurationError for an embedder that
    is not configured, or makes another dimension than declared."""
    out: dict[str, Made] = {}
    for field, one in sorted(entity.embeddings.items()):
        if field in entity.embedded_texts:
            _check(embedders, entity, field)
            embedder = embedders[one.embedder]
            out[field] = Made(model_of(embedder), embedder.dimension, one.metric)
        else:
            out[field] = Made(GIVEN, one.dimension or 0, one.metric)
    return out


def _check(embedders: Mapping[str, Embedder], one: EntityType[Any], field: str) -> None:
    name = one.embeddings[field].embedder
    embedder = embedders.get(name)
    if embedder is None:
        known = ", ".join(sorted(embedders)) or "none"
        raise ConfigurationError(
            f"{one.cls.__name__}.{field}: no embedder is named {name!r}; configured: {known}. Add "
            f"[embedders.{name}] to the configuration, or pass embedders={{{name!r}: ...}} to open"
        )
    wanted = one.embeddings[field].dimension
    if wanted is not None and wanted != embedder.dimension:
        raise ConfigurationError(
            f"{one.cls.__name__}.{field} declares dimension {wanted}, embedder {name!r} makes {embedder.dimension}"
        )


def write_made(fields: Mapping[str, Made]) -> str:
    """As text, equal for equal makings."""
    return msgspec.json.encode(dict(sorted(fields.items()))).decode()


def read_made(text: str) -> dict[str, Made]:
    """From the text of `write_made`; empty for any other."""
    try:
        return msgspec.json.decode(text, type=dict[str, Made])
    except msgspec.DecodeError:
        return {}


def kept(before: Mapping[str, Made], wanted: Mapping[str, Made], renamed: Mapping[str, str]) -> dict[str, Made]:
    """How the stored vectors of each field are made: as `before` says where a text has such, under its old name if it
    was `renamed` (new -> old); else as `wanted`."""
    out: dict[str, Made] = {}
    for field, one in wanted.items():
        old = before.get(field) or before.get(renamed.get(field, field))
        out[field] = one if old is None or GIVEN in (old.model, one.model) else old
    return out


def write_configs(models: Iterable[str], embedders: Iterable[Embedder], before: str) -> str:
    """What would make the embedders of these models again, without keys, as text; `before` is the last such text."""
    known = {model_of(one): config for one in embedders if (config := public(one)) is not None}
    configs = {**_read_configs(before), **known}
    return msgspec.json.encode({model: configs[model] for model in sorted(configs.keys() & set(models))}).decode()


def _read_configs(text: str) -> dict[str, EmbedderConfig]:
    try:
        return msgspec.json.decode(text, type=dict[str, EmbedderConfig])
    except msgspec.DecodeError:
        return {}


def made_again(models: Iterable[str], embedders: Iterable[Embedder], remembered: str) -> list[Embedder]:
    """The embedders of those models that no configured one makes, as far as `remembered` (`write_configs`) can make
    them. A key is taken from the configured embedder of the same URL: another server must not see it."""
    configured = list(embedders)
    configs = _read_configs(remembered)
    keys = {one.url: one.api_key for embedder in configured if (one := config_of(embedder)) is not None}
    found: list[Embedder] = []
    for model in sorted((set(models) & configs.keys()) - {model_of(one) for one in configured}):
        config = configs[model]
        try:
            again = make(msgspec.structs.replace(config, api_key=keys.get(config.url, "")))
        except ConfigurationError as e:
            log.warning("the embedder of stored vectors, %s, cannot be made any more: %s", model, e)
            continue
        if model_of(again) == model:  # of this version of polystore
            found.append(again)
    return found
