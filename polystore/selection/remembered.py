"""Placement is remembered: what was stored at first use against what the selector would say today.

A home never moves because the configuration changed. Copies follow the configuration: a new one is filled from the
home, while the store that served before goes on serving, where there was one; one that is no longer wanted is turned
off.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from polystore import notebook
from polystore.entity import EntityType
from polystore.errors import ConfigurationError, did_you_mean
from polystore.model import Considered, Placement, Value
from polystore.selection.beside import BESIDE, place_alone
from polystore.selection.candidate import Candidate
from polystore.selection.moves import made_otherwise, moved, origin, with_made
from polystore.selection.placement import HOME_NEEDS, JOURNAL_NEEDS, JOURNALED_NEEDS, cost_of, unfit

FORMAT: Final = 1
"""Of the JSON text of a remembered placement."""


class Remembered(Value, frozen=True):
    """The placement that holds, and what has to happen so that it does.

    json: the text to store when `changed`. backfill: copies that hold nothing yet of this type, lack a facet, or hold
    one that is made differently now: they start as backfilling. fill: the same of facets at the home itself: existing
    records lack them. dropped: stores that are copies no longer: they become off. advice: what would be better, and how
    to get there.
    """

    placement: Placement
    json: str
    changed: bool
    backfill: frozenset[str] = frozenset()
    fill: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()
    advice: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        advice = notebook.table([{"advice": one} for one in self.advice]) if self.advice else ""
        return notebook.html_of(self.placement) + advice


class _Stored(Value, frozen=True):
    """What the JSON text holds. `rule` and `why` tell later readers what decided about the home."""

    home: str
    facets: Mapping[str, str]
    rule: str = ""
    why: tuple[str, ...] = ()
    made_of: Mapping[str, str] = {}
    beside: Mapping[str, str] = {}
    format: int = FORMAT
    journal: str | UnsetType = UNSET
    whole: bool | UnsetType = UNSET
    upcoming: Mapping[str, str] | UnsetType = UNSET
    leaving: Mapping[str, str] | UnsetType = UNSET
    previous: Mapping[str, str] | UnsetType = UNSET
    rates: Mapping[str, float] | UnsetType = UNSET
    made: Mapping[str, str] | UnsetType = UNSET

    def placement(self, etype: str) -> Placement:
        """What it says of the stores of records."""
        placed = Placement(
            *(etype, self.home, self.facets),
            journal=self.journal or "",
            upcoming=self.upcoming or {},
            leaving=self.leaving or {},
            previous=self.previous or {},
            rates=self.rates or {},
            made=self.made or {},
        )
        return with_made(placed, self.made_of.get("vector"))


def reconcile(
    stored: str | None,
    wanted: Placement,
    stores: Sequence[Candidate],
    owed: Mapping[str, int] = {},
    made_of: Mapping[str, str] = {},
    made: Mapping[str, str] = {},
) -> Remembered:
    """The placement of a type from the stored text (None: first use) and what `place` wants today.

    `owed` is the number of deliveries of this type that each store still waits for. `made_of` says for a facet, in any
    words, how what is stored of it is made: other words, and it is made anew; what is said of no facet is kept. `made`
    is `Placement.made` in today's words, of stores that do not serve: a field may have a new name. Raises
    ConfigurationError, saying how to mend it, when the stored home is not configured or cannot be home any more, when a
    store that is owed deliveries is not configured, and for a text of a newer polystore or one that cannot be read.
    """
    if stored is None:
        wanted = with_made(wanted, made_of.get("vector"))
        return Remembered(wanted, _json(wanted, made_of), True)
    before = _load(stored, wanted.etype)
    by_name = {store.name: store for store in stores}
    _check_home(wanted.etype, before, by_name)
    kept = wanted if wanted.home == before.home else _kept(before, wanted, by_name[before.home], stores)
    journal, whole = before.journal or "", bool(before.whole)
    if journal and not whole and journal in kept.facets.values():
        raise ConfigurationError(
            f"{wanted.etype}: {journal!r} is the journal of its home since its first use and keeps no whole records, "
            f"so it cannot serve {', '.join(f for f, name in kept.facets.items() if name == journal)}; configure "
            "another store for that, or pin one"
        )
    kept = msgspec.structs.replace(kept, journal=journal, whole=whole, beside=_kept_beside(before, wanted, by_name))
    anew = {facet for facet, words in before.made_of.items() if made_of.get(facet, words) != words}
    stood = before.placement(wanted.etype)
    stood = msgspec.structs.replace(stood, made={**stood.made, **made})
    kept = with_made(moved(stood, kept, by_name, anew), made_of.get("vector"))
    dropped = stood.targets().keys() - kept.targets().keys()
    gone = {name for name in dropped if origin(name) not in by_name}
    _check_owed(kept, {name: stood.targets()[name] for name in gone}, owed)
    text = _json(kept, made_of)
    fresh = {facet: store for facet, store in kept.facets.items() if facet in anew or before.facets.get(facet) != store}
    begun = {store for facet, store in kept.upcoming.items() if facet in anew or stood.upcoming.get(facet) != store}
    return Remembered(
        kept,
        text,
        text != stored,
        backfill=frozenset({*fresh.values(), *begun}) - {kept.authority},
        fill=frozenset(facet for facet, store in fresh.items() if store == kept.authority),
        dropped=frozenset(dropped),
        advice=_advice(before, wanted),
    )


def _check_owed(kept: Placement, gone: Mapping[str, Collection[str]], owed: Mapping[str, int]) -> None:
    """Of the facets of stores that are configured no more. Raises ConfigurationError for one that is owed something."""
    for name, facets in sorted(gone.items()):
        if owed.get(name):
            pins = " and ".join(f'{facet} = "{kept.facets[facet]}"' for facet in sorted({*facets} & kept.facets.keys()))
            raise ConfigurationError(
                f"{kept.etype}: the store {name!r} is not configured, but {owed[name]} deliveries to it are not done; "
                "configure it again and let them end. If it never answers again, configure it with `required = false`, "
                f"pin what it served ([pins.{kept.etype}]: {pins}) and open once; then remove both"
            )


def reconcile_alone(
    stored: str | None, entity: EntityType[Any], stores: Sequence[Candidate], pins: Mapping[str, str] = {}
) -> Remembered:
    """`place` and `reconcile` for an entity that is no record. Raises ConfigurationError."""
    before = None if stored is None else _load(stored, entity.name)
    placement = place_alone(entity, stores, pins, None if before is None else before.home)
    text = _json(placement, {})
    return Remembered(placement, text, text != stored)


def _kept_beside(before: _Stored, wanted: Placement, by_name: Mapping[str, Candidate]) -> dict[str, str]:
    """What belongs to the records stays where it is, too: nothing would be found in another store."""
    kept = {**wanted.beside, **{role: name for role, name in before.beside.items() if role in wanted.beside}}
    for role, name in kept.items():
        if name not in by_name or not by_name[name].can(BESIDE[role][1]):  # type: ignore[index]
            raise ConfigurationError(
                f"{wanted.etype}: its {role} is in the store {name!r} since its first use, which is not configured or "
                f"cannot hold it{did_you_mean(name, by_name)}; configure it again under this name"
            )
    return kept


def _json(placement: Placement, made_of: Mapping[str, str]) -> str:
    facets = dict(sorted(placement.facets.items()))
    return msgspec.json.encode(
        _Stored(
            *(placement.home, facets, placement.rule, tuple(placement.why), dict(made_of), dict(placement.beside)),
            journal=placement.journal or UNSET,
            whole=placement.whole or UNSET,
            upcoming=dict(sorted(placement.upcoming.items())) or UNSET,
            leaving=dict(sorted(placement.leaving.items())) or UNSET,
            previous=dict(sorted(placement.previous.items())) or UNSET,
            rates=dict(sorted(placement.rates.items())) or UNSET,
            made=made_otherwise(placement) or UNSET,
        )
    ).decode()


def _load(stored: str, etype: str) -> _Stored:
    try:
        found = msgspec.json.decode(stored, type=dict[str, Any])
        if found.get("format", 0) > FORMAT:
            raise ConfigurationError(
                f"{etype}: its placement was stored by a newer polystore (format {found['format']}, this one reads up "
                f"to {FORMAT}); upgrade polystore"
            )
        return msgspec.convert(found, _Stored)
    except (msgspec.DecodeError, TypeError) as e:
        raise ConfigurationError(
            f"{etype}: its stored placement cannot be read; the journal is damaged, restore it from a backup"
        ) from e


def _check_home(etype: str, before: _Stored, by_name: Mapping[str, Candidate]) -> None:
    home = by_name.get(before.home)
    if home is None:
        raise ConfigurationError(
            f"{etype}: its home is the store {before.home!r}, which is not configured"
            f"{did_you_mean(before.home, by_name)}; configure it again under this name: a home never moves "
            "because the configuration changed"
        )
    if not home.can(*(JOURNALED_NEEDS if before.journal else HOME_NEEDS)):
        raise ConfigurationError(
            f"{etype}: its home is the store {before.home!r}, but {home} cannot commit; give the name back to the "
            "store that holds the records"
        )
    if before.journal and (before.journal not in by_name or not by_name[before.journal].can(*JOURNAL_NEEDS)):
        raise ConfigurationError(
            f"{etype}: the journal of its home is the store {before.journal!r} since its first use, which is not "
            f"configured or cannot commit{did_you_mean(before.journal, by_name)}; configure it again under this name: "
            "it knows the versions of all records"
        )


def _kept(before: _Stored, wanted: Placement, home: Candidate, stores: Sequence[Candidate]) -> Placement:
    """The wanted placement around the stored home."""
    # What the wanted home would have served in its own commit, the stored one does where it can.
    facets = {
        facet: home.name if store == wanted.home and not unfit(home, facet) else store
        for facet, store in wanted.facets.items()
    }
    today = {"home": wanted.home, **wanted.facets}
    placed = {"home": home.name, **facets}

    def reconsidered(one: Considered) -> Considered:
        if one.role not in placed or placed[one.role] == today[one.role]:
            return one
        if one.store == today[one.role]:
            return Considered(one.role, one.store, False, f"today's answer, but the home stays {home.name}")
        if one.store == placed[one.role]:
            reason = "the home since first use" if one.role == "home" else "the home serves it, in its own commit"
            return Considered(one.role, one.store, True, reason)
        return one

    return msgspec.structs.replace(
        wanted,
        home=home.name,
        facets=facets,
        rule=before.rule,
        why=before.why,
        considered=tuple(map(reconsidered, wanted.considered)),
        cost=cost_of(home.name, {**facets, **({"journal": before.journal} if before.journal else {})}, stores),
    )


def _advice(before: _Stored, wanted: Placement) -> tuple[str, ...]:
    if wanted.home == before.home:
        return ()
    return (
        f"{wanted.etype} lives in {before.home!r} since its first use and stays there. Today the rule "
        f"{wanted.rule!r} would choose {wanted.home!r}. A home does not move because the configuration changed: "
        f"`polystore transfer` brings everything to the stores of another configuration, on {wanted.home!r}.",
    )
