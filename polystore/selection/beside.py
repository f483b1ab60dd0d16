"""Where what is not a record lives: measures and files beside records, logs and state by themselves.

None of it has copies: the store it lives in is its home, and stays so when the configuration changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from polystore.config import Role
from polystore.entity import EntityType
from polystore.errors import ConfigurationError, did_you_mean
from polystore.model import Considered, Placement
from polystore.protocols import SupportsLog, SupportsObjects, SupportsState, SupportsTimeRange
from polystore.selection.candidate import Candidate, first_reason, rank, second_reason
from polystore.selection.matrix import ROLES, Kind, row_of
from polystore.selection.state import check_state

BESIDE: Final[Mapping[Role, tuple[str, type]]] = {
    "time_series": ("Measure()", SupportsTimeRange),
    "file": ("FileRef", SupportsObjects),
}
"""Role -> how a class declares it, and what a store needs for it."""
ALONE: Final[Mapping[Kind, type]] = {"fact": SupportsLog, "state": SupportsState}
"""Kind of an entity that is no record -> what its home needs."""


def kind_of(entity: EntityType[Any]) -> Kind:
    """The kind of data that the declaration means.

    Raises ConfigurationError for an unknown data_type, for one that no class can have as a whole, and for facts or
    state that need transactions.
    """
    if entity.data_type is None:
        return "record"
    try:
        row = row_of(entity.data_type)
    except ConfigurationError as e:
        raise ConfigurationError(f"{entity.cls.__name__}: {e}") from None
    mend = {
        "time_series": "declare a Measure() on the entity that the points belong to",
        "file": "give the record that names the content a field of type FileRef, and save it by hda.files",
    }
    if row.data_type in mend:
        raise ConfigurationError(
            f"{entity.cls.__name__}: data_type {entity.data_type!r} is no kind of entity; {mend[row.data_type]}"
        )
    if row.kind != "record" and entity.needs is not None and entity.needs.transactions:
        raise ConfigurationError(
            f"{entity.cls.__name__}: data_type {entity.data_type!r} means {row.kind}, which takes no part in "
            "transactions; drop Needs(transactions=True), or drop data_type to keep it as records"
        )
    return row.kind


def asked_beside(entity: EntityType[Any]) -> list[Role]:
    """The roles that belong to the records of this entity."""
    asked: list[Role] = []
    if entity.measures:
        asked.append("time_series")
    if entity.files:
        asked.append("file")
    return asked


def place_beside(
    entity: EntityType[Any], role: Role, stores: Sequence[Candidate], home: str, pin: str | None
) -> tuple[Candidate, list[Considered]]:
    """The store of a role beside the records, and what was considered. Raises ConfigurationError.

    Files have one store for the whole application, so there the home of this entity is nothing special.
    """
    words, capability = BESIDE[role]
    return _choose(entity, role, capability, stores, "" if role == "file" else home, pin, words)


def place_alone(
    entity: EntityType[Any], stores: Sequence[Candidate], pins: Mapping[str, str], stored: str | None
) -> Placement:
    """The placement of an entity that is no record. `stored` is its home since first use: it stays there.

    Raises ConfigurationError when no store can be its home, or when that of first use is gone.
    """
    assert entity.data_type is not None
    row = row_of(entity.data_type)
    for part in pins:
        if part != "home":
            raise _fail(entity, f"the configuration pins {part}; {row.data_type} has nothing but a home")
    if row.kind == "state":
        check_state(entity)
    capability = ALONE[row.kind]
    declared = f"data_type {entity.data_type!r}"
    if stored is not None:
        by_name = {store.name: store for store in stores}
        if stored not in by_name or not by_name[stored].can(capability):
            raise _fail(
                entity,
                f"it lives in the store {stored!r} since its first use, which is not configured or cannot hold it"
                f"{did_you_mean(stored, by_name)}; configure it again under this name",
            )
        considered = [Considered("home", stored, True, "its home since first use")]
        return Placement(entity.name, stored, {}, rule=declared, why=(row.why,), considered=considered)
    chosen, considered = _choose(entity, row.home, capability, stores, "", pins.get("home"), declared)
    return Placement(entity.name, chosen.name, {}, rule=declared, why=(row.why,), considered=considered)


def _choose(
    entity: EntityType[Any],
    role: Role,
    capability: type,
    stores: Sequence[Candidate],
    home: str,
    pin: str | None,
    declared: str,
) -> tuple[Candidate, list[Considered]]:
    """Pinned, else dedicated (a store that is no home), else the home of the records, else any other; each time the
    best of its kind."""
    preference = ROLES[role]
    reasons = {store.name: _unfit(store, role, capability) for store in stores}
    fit = [store for store in stores if not reasons[store.name]]
    if pin is not None and pin not in [store.name for store in fit]:
        why = reasons.get(pin, "no store has this name")
        raise _fail(entity, f"the configuration pins {role} to {pin!r}, but {why}; pin another store, or mend that")
    if not fit:
        said = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise _fail(
            entity,
            f"no configured store can hold its {declared} ({said}); add {role!r} to the roles of a store that can, or "
            f"configure one ({', '.join(preference.stores)})",
        )

    def order(store: Candidate) -> tuple[bool, int, int]:
        group = 1 if store.name == home else 0 if "home" not in store.roles else 2
        return store.name != pin, group, rank(store, preference)

    chosen = min(fit, key=order)
    considered = [
        Considered(role, store.name, False, reasons[store.name] or second_reason(store, chosen, pin is not None))
        for store in stores
        if store is not chosen
    ]
    reason = first_reason(chosen, preference, stores, pin is not None)
    return chosen, [*considered, Considered(role, chosen.name, True, reason)]


def _unfit(store: Candidate, role: Role, capability: type) -> str:
    if role not in store.roles:
        return f"its roles do not include {role}"
    if not store.can(capability):
        return f"it lacks the capability ({capability.__name__})"
    return ""


def _fail(entity: EntityType[Any], reason: str) -> ConfigurationError:
    return ConfigurationError(f"{entity.cls.__name__}: {reason}")
