"""A facet that moves from one store to another: who serves it now, who will, and how that is remembered.

The stored placement says it for all processes, so a move survives each of them. What is stored is read and changed here
without the rest of the text, which is nobody's business that moves something.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from polystore.embedders import read_made, write_configs
from polystore.embedding import Embedder
from polystore.model import Placement
from polystore.protocols import SupportsRebuild
from polystore.selection.candidate import Candidate
from polystore.selection.placement import FACETS

PARTS = ("facets", "upcoming", "leaving", "previous", "rates")
_OTHER = "~2"


def origin(name: str) -> str:
    """The configured store that a place belongs to, see `other_place`."""
    return name.removesuffix(_OTHER)


def other_place(name: str) -> str:
    """A copy that can be rebuilt has two places on its server, `search` and `search~2`: while one serves, the other one
    is filled. No configured store has such a name."""
    return name.removesuffix(_OTHER) if name.endswith(_OTHER) else name + _OTHER


def moved(before: Placement, wanted: Placement, stores: Mapping[str, Candidate], anew: Collection[str]) -> Placement:
    """The wanted placement, in which what served `before` goes on serving until what is wanted is complete.

    Not so a facet that goes to the store that commits, which makes it before anybody asks; one that is made `anew`; and
    one whose store cannot serve it any more. A store that is not configured here goes on, too: other processes may have
    it. A place that a rebuild has chosen stays, and so does a rebuild under way. A copy that is given one more facet is
    built anew with it in its other place, and serves what it has until then.
    """
    facets: dict[str, str] = {}
    upcoming: dict[str, str] = {}
    given: dict[str, dict[str, str]] = {}
    for facet, store in wanted.facets.items():
        served, next_one = before.facets.get(facet), before.upcoming.get(facet)
        begun = next_one if next_one is not None and origin(next_one) == store else None
        if served is not None and origin(served) == store:
            facets[facet] = served
            if begun is not None:
                upcoming[facet] = begun
        elif served is None or store == wanted.authority or facet in anew or not _able(served, facet, stores):
            facets[facet] = store
            given[facet] = facets
        else:
            facets[facet] = served
            upcoming[facet] = begun or store
            if begun is None:
                given[facet] = upcoming
    _in_other_places(wanted, stores, facets, upcoming, given)
    leaving = {
        facet: name
        for facet, name in before.leaving.items()
        if facet in facets and name not in (facets[facet], upcoming.get(facet))
    }
    previous = {
        facet: name
        for facet, name in before.previous.items()
        if facet in facets and origin(name) == origin(facets[facet])
        if name not in (facets[facet], upcoming.get(facet))
    }
    rates = {facet: rate for facet, rate in before.rates.items() if facet in upcoming}
    roles = ((before.upcoming, upcoming), (before.leaving, leaving), (before.previous, previous))
    standing = {now["vector"] for was, now in roles if "vector" in now and was.get("vector") == now["vector"]}
    made = {name: words for name, words in before.made.items() if name in standing}
    parts = {"upcoming": upcoming, "leaving": leaving, "previous": previous, "rates": rates, "made": made}
    return replace(wanted, facets=facets, **parts)


def _in_other_places(
    wanted: Placement,
    stores: Mapping[str, Candidate],
    facets: dict[str, str],
    upcoming: dict[str, str],
    given: Mapping[str, dict[str, str]],
) -> None:
    """Let facets that are `given` to stores (in one of the two mappings) begin in the other place of a copy that serves
    already, where it has one: filling a copy makes it unreadable as a whole."""
    for facet, part in given.items():
        store = wanted.facets[facet]
        standing = {f: name for f, name in facets.items() if f not in given and origin(name) == store}
        if not standing or store in (wanted.home, wanted.authority) or not stores[store].can(SupportsRebuild):
            continue
        staying = [f for f in standing if origin(upcoming.get(f, store)) == store]
        begun = next((upcoming[f] for f in staying if f in upcoming), None)
        part[facet] = place = begun or other_place(standing[min(standing)])
        upcoming |= dict.fromkeys(staying, place)


def _able(store: str, facet: str, stores: Mapping[str, Candidate]) -> bool:
    """Its role for the facet may have been taken away: that is how a facet is moved. Of one that is not configured here
    others know."""
    one = stores.get(origin(store))
    return one is None or one.can(FACETS[facet][1])


def read_moves(text: str, placement: Placement) -> Placement:
    """The placement with what the stored text says of its facets. A process whose class has others passes them over."""
    stored: dict[str, Any] = msgspec.json.decode(text)
    said = {part: _of(placement, stored.get(part, {})) for part in PARTS}
    said["facets"] = {**placement.facets, **said["facets"]}
    now = replace(placement, **said, made=stored.get("made", {}))
    return with_made(now, stored.get("made_of", {}).get("vector"))


def with_made(placement: Placement, serving: str | None) -> Placement:
    """The placement with how the vectors that serve are made, None: not remembered; and of its other places what
    differs from that."""
    place = placement.facets.get("vector")
    if place is None or serving is None:
        return replace(placement, made={})
    placement = replace(placement, made={**placement.made, place: serving})
    return replace(placement, made={**made_otherwise(placement), place: serving})


def made_otherwise(placement: Placement) -> dict[str, str]:
    """Of the places that hold vectors, or held them last, those whose are made otherwise than where they are served."""
    held = {part.get("vector") for part in (placement.upcoming, placement.leaving, placement.previous)}
    serving = placement.made.get(placement.facets.get("vector", ""))
    return {name: words for name, words in sorted(placement.made.items()) if name in held and words != serving}


def write_moves(text: str, placement: Placement, embedders: Sequence[Embedder] = ()) -> str:
    """The stored text with what the placement says of its facets, and with what would make those of the `embedders`
    again that its vectors are made with."""
    stored: dict[str, Any] = msgspec.json.decode(text)
    for part in PARTS:
        others = {facet: name for facet, name in stored.get(part, {}).items() if facet not in placement.facets}
        stored[part] = dict(sorted({**others, **getattr(placement, part)}.items()))
        if not stored[part] and part != "facets":
            del stored[part]
    if (serving := placement.made.get(placement.facets.get("vector", ""))) is not None:
        before, others = stored.get("made_of", {}), made_otherwise(placement)
        models = {one.model for words in (serving, *others.values()) for one in read_made(words).values()}
        configs = write_configs(models, embedders, before.get("embedders", ""))
        stored["made_of"] = {**before, "vector": serving, "embedders": configs}
        stored.pop("made", None)
        if others:
            stored["made"] = others
    return msgspec.json.encode(stored).decode()


def configs_in(text: str) -> str:
    """What would make the embedders again that made the stored vectors, as `write_configs` wrote it."""
    stored: dict[str, Any] = msgspec.json.decode(text)
    return str(stored.get("made_of", {}).get("embedders", ""))


def _of(placement: Placement, said: Mapping[str, Any]) -> dict[str, Any]:
    return {facet: name for facet, name in said.items() if facet in placement.facets}
