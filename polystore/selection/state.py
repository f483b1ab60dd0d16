"""What state may declare, and where the state that no entity declares lives: limits and channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polystore.config import Config
from polystore.entity import EntityType
from polystore.errors import ConfigurationError
from polystore.registry import scheme_of
from polystore.selection.candidate import Candidate, rank
from polystore.selection.matrix import ROLES
from polystore.store import Store


def check_state(entity: EntityType[Any]) -> None:
    """Raises ConfigurationError for what a class declares and state cannot have."""
    declared: Mapping[str, object] = {
        "FullText()": entity.full_text,
        "Embedding()": entity.embeddings,
        "Relation()": entity.relations,
        "Unique()": entity.unique,
        "Index()": entity.index,
        "Measure()": entity.measures,
        "FileRef": entity.files,
        "renamed=": entity.renamed,
    }
    for words, fields in declared.items():
        if fields:
            raise ConfigurationError(
                f"{entity.cls.__name__}: data_type {entity.data_type!r} means state, which is found by its key alone "
                f"and has no {words}; drop that, or drop data_type to keep it as records"
            )


def live_state_store(config: Config, stores: Mapping[str, Store]) -> str | None:
    """The store of limits and channels: one with the role live_state, dedicated before one that is a home, each time
    the best of its kind. One that is configured for it and does not answer is waited for, not replaced: processes that
    opened at other times would count apart. None: there is none."""
    able: list[Candidate] = []
    for name, one in config.stores.items():
        roles = stores[name].roles if name in stores else frozenset(one.roles or ())
        if "live_state" in roles:
            able.append(Candidate(name, scheme_of(one.url) or "", roles))
    chosen = min(able, key=lambda store: ("home" in store.roles, rank(store, ROLES["live_state"])), default=None)
    return None if chosen is None else chosen.name
