"""Vectors of texts: at once for embedders inside the process, in a stage of its own for all others.

Each field is *served* by one model, the one that the vectors were made with that searches compare. The *configured*
model is another after the configuration changed; `polystore rebuild` makes its vectors beside the old ones and then
changes over. A copy that is filled with those meanwhile is brought them, while the one that serves is brought the old.
"""

from __future__ import annotations

import typing
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from polystore.consistency.stage import Stage
from polystore.consistency.targets import EMBED
from polystore.embedders import GIVEN, Made, made, made_again, model_of, read_made
from polystore.embedding import Embedder, InlineEmbedder, pack
from polystore.entity import EntityType
from polystore.env import SYSTEM_ENV, Env
from polystore.errors import ConfigurationError
from polystore.model import CALLER, Body, Change, Key, Placement, StoredVector, text_hash

Stored = Mapping[tuple[str, str], StoredVector]
"""(field, model) -> a stored vector of one record."""


class _Text(NamedTuple):
    """A text field: how its vectors are made. `inline` None: after the commit, or not at all any more."""

    made: Made
    inline: InlineEmbedder | None


_Texts = Mapping[str, _Text]


class Makings(NamedTuple):
    """How the vectors of one type are made, field by field: those that searches compare, and those in each store of
    which that is remembered."""

    serving: Mapping[str, Made]
    places: Mapping[str, Mapping[str, Made]]

    def at(self, store: str) -> Mapping[str, Made]:
        """How the vectors in a store are made."""
        return self.places.get(store, self.serving)


class Embedders:
    """Which models serve which fields, which are configured, and all that can be asked.

    `placements` say how stored vectors were made; what they leave out is served by its configured model. `others` are
    embedders beside the configured ones, which made stored vectors. `later`: entities whose vectors are all made after
    the commit, since others write them, too.
    """

    def __init__(
        self,
        types: Mapping[str, EntityType[Any]],
        embedders: Mapping[str, Embedder],
        placements: Mapping[str, Placement] = {},
        others: Sequence[Embedder] = (),
        env: Env = SYSTEM_ENV,
        later: Collection[str] = (),
    ) -> None:
        self._later = frozenset(later)
        self._env = env
        self._stages = {model_of(one): Stage(EMBED + model_of(one), one, env) for one in others}
        self._stages |= {model_of(one): Stage(EMBED + model_of(one), one, env) for one in embedders.values()}
        self._configured: dict[str, dict[str, Made]] = {}
        self._makings: dict[str, Makings] = {}
        self._texts: dict[str, _Texts] = {}
        self._places: dict[str, dict[str, _Texts]] = {}
        """Entity -> the stores whose vectors are made otherwise than those that searches compare."""
        self._given: dict[str, dict[str, Made]] = {}
        self._learned: list[Embedder] = []
        self.begun: dict[str, set[str]] = {}
        """Entity -> `embed:<model>` for those that this process rebuilds with, or goes on to."""
        self.elsewhere: dict[str, set[str]] = {}
        """Entity -> the models that other processes ask, of those that this one cannot."""
        self.times_served: Counter[str] = Counter()
        """How often each type was told what serves it: another number, perhaps another model."""
        self.switched: set[str] = set()
        """The types whose model changed while this process ran: what was written before may carry the old vectors."""
        for name, one in types.items():
            self._configured[name] = made(one, embedders)
            self._given[name] = {f: how for f, how in self._configured[name].items() if how.model == GIVEN}
            self._hold(name, Makings(self._configured[name], {}))
            placed = placements.get(name) or Placement(name, "", {})
            self._hold(name, self.remembered(placed))
            # What is to serve was begun by somebody who knows its model; of what leaves, nothing is begun.
            self.elsewhere[name] = self.models_in(name, placed.upcoming) - self._stages.keys() - {GIVEN}
            left = {EMBED + model for model in self.models_in(name, placed.leaving)}
            self.begun[name] = self.upcoming(name) - left
        self.times_served.clear()

    def models_in(self, etype: str, facets: Mapping[str, str]) -> set[str]:
        """The models that the vectors in one store of a placement are made with, by its facets, if it has vectors."""
        place = facets.get("vector")
        return set() if place is None else {one.model for one in self._makings[etype].at(place).values()}

    def remembered(self, placement: Placement) -> Makings:
        """What a placement says; of fields that it does not know, as they are served now."""
        etype, told = placement.etype, {name: read_made(words) for name, words in placement.made.items()}
        serving = self._whole(etype, told.get(placement.facets.get("vector", ""), {}), self._makings[etype].serving)
        return Makings(serving, {name: self._whole(etype, fields, serving) for name, fields in told.items()})

    def _whole(self, etype: str, fields: Mapping[str, Made], else_: Mapping[str, Made]) -> dict[str, Made]:
        given = self._given[etype]
        return {f: given[f] if f in given else fields.get(f, else_[f]) for f in self._configured[etype]}

    def makings(self, etype: str) -> Makings:
        """How the vectors of a type are made, in all its places."""
        return self._makings[etype]

    def hold(self, etype: str, makings: Makings) -> None:
        """From now on, these are the makings of the type's stored vectors."""
        before = self._makings[etype].serving
        self._hold(etype, makings)
        if makings.serving != before:
            self.times_served[etype] += 1
            self.switched.add(etype)

    def _hold(self, etype: str, makings: Makings) -> None:
        self._makings[etype] = makings
        self._texts[etype] = self._of(etype, makings.serving)
        others = {name: fields for name, fields in makings.places.items() if fields != makings.serving}
        self._places[etype] = {name: self._of(etype, fields) for name, fields in others.items()}

    def _of(self, etype: str, fields: Mapping[str, Made]) -> _Texts:
        # Decided once: an isinstance check of a runtime protocol costs microseconds, and inline() runs in every write.
        return {
            f: _Text(one, None if etype in self._later else self._inline(one.model))
            for f, one in sorted(fields.items())
            if f not in self._given[etype]
        }

    def _inline(self, model: str) -> InlineEmbedder | None:
        stage = self._stages.get(model)
        return stage.embedder if stage is not None and isinstance(stage.embedder, InlineEmbedder) else None

    def known(self) -> list[Embedder]:
        """All embedders that can be asked here."""
        return [stage.embedder for stage in self._stages.values()]

    def learn(self, placement: Placement, configs: str) -> None:
        """Make the embedders of its vectors that are not known here, as `configs` (`write_configs`) says."""
        models = [one.model for words in placement.made.values() for one in read_made(words).values()]
        for one in made_again(models, self.known(), configs):
            self._stages[model_of(one)] = Stage(EMBED + model_of(one), one, self._env)
            self._learned.append(one)

    async def aclose(self) -> None:
        """Close the embedders that were learned of; all others belong to who brought them."""
        for one in self._learned:
            close = getattr(one, "aclose", None)
            if close is not None:
                await close()

    # -- who makes what -----------------------------------------------------------------------------------------

    def stage(self, target: str) -> Stage | None:
        """The stage behind a pseudo-target; None for a model that this process cannot ask."""
        return self._stages.get(target.removeprefix(EMBED))

    def stages(self) -> list[tuple[str, Stage]]:
        """The pseudo-target and stage of every embedder that some field is served by, or configured with."""
        held = [fields for one in self._makings.values() for fields in (one.serving, *one.places.values())]
        models = {one.model for fields in (*self._configured.values(), *held) for one in fields.values()}
        return [(EMBED + model, self._stages[model]) for model in sorted(models & self._stages.keys())]

    def serving(self, etype: str) -> dict[str, Made]:
        """Field -> how the vectors that searches compare are made."""
        return dict(self._makings[etype].serving)

    def dimension(self, one: EntityType[Any], field: str) -> int:
        """Components of the vectors that searches compare."""
        return self.serving(one.name)[field].dimension

    def outdated(self, etype: str) -> dict[str, Made]:
        """Field -> how the configuration would have its vectors made, where they are made otherwise."""
        configured = self._configured[etype]
        return {
            field: configured[field] for field, text in self._texts[etype].items() if configured[field] != text.made
        }

    def gone(self, etype: str) -> set[str]:
        """The fields whose serving model cannot be asked any more."""
        return {field for field, text in self._texts[etype].items() if text.made.model not in self._stages}

    def pseudo_targets(self, etype: str, placement: Placement | None = None) -> set[str]:
        """`embed:<model>` for each model that serves the type and works after the commit; by a placement, for each that
        its copies are brought vectors of."""
        parts = () if placement is None else (placement.facets, placement.upcoming, placement.leaving)
        held = [self._at(etype, part["vector"]) for part in parts if "vector" in part]
        places = held or [self._texts[etype]]
        later = {text.made.model for texts in places for text in texts.values() if text.inline is None}
        return {EMBED + model for model in later & self._stages.keys()}

    def upcoming(self, etype: str) -> set[str]:
        """`embed:<model>` for each model that a rebuild of the type needs; models in this process make the vectors of
        existing records in the stage too."""
        serving = {field: text.made.model for field, text in self._texts[etype].items()}
        return {EMBED + one.model for field, one in self.outdated(etype).items() if one.model != serving[field]}

    def as_serving(self, etype: str, store: str) -> bool:
        """Whether the vectors in a store are made as those that searches compare, and that writes carry."""
        return store not in self._places[etype]

    def comparable(self, etype: str, field: str) -> None:
        """Raises ConfigurationError when nobody can say what is near in this field."""
        text = self._texts[etype].get(field)
        if text is not None and text.made.model not in self._stages:
            raise ConfigurationError(
                f"{etype}.{field}: its vectors were made with {text.made.model!r}, which this process cannot ask. "
                f"`polystore rebuild {etype}` makes them with the configured {self._configured[etype][field].model!r}; "
                "or configure the other one too, under any name"
            )

    # -- vectors of records -------------------------------------------------------------------------------------

    def inline(self, etype: str, body: Body, store: str = "") -> dict[str, bytes]:
        """The vectors that can be made without waiting, for the fields that `body` holds: those that searches compare,
        or those that a store has."""
        vectors: dict[str, bytes] = {}
        for field, text in self._at(etype, store).items():
            value = body.get(field)
            if value is not None and text.inline is not None:
                vectors[field] = text.inline.embed_now([value])[0]
        for field in self._given[etype]:
            value = body.get(field)
            if value is not None:
                vectors[field] = pack(value)
        return vectors

    def _at(self, etype: str, store: str) -> _Texts:
        return self._places[etype].get(store, self._texts[etype])

    def missing(self, change: Change) -> bool:
        """True when a field has a value but the change carries no vector of it."""
        body, etype = change.body, change.key.etype
        if body is None:
            return False
        return any(
            body.get(field) is not None and field not in change.vectors
            for fields in (self._texts[etype], self._given[etype])
            for field in fields
        )

    def complete(
        self, change: Change, stored: Stored, store: str, refused: Collection[str] = ()
    ) -> dict[str, bytes] | None:
        """All vectors of a change that a store has: given ones, then the caller's, then made at once, then the model's
        stored ones. None while one is still to be embedded. A text without a vector is left out where its model is
        gone, or is one of those that have `refused` the record."""
        vectors = {**self.inline(change.key.etype, typing.cast(Body, change.body), store), **change.vectors}
        for field, text, found in self._texts_of(change, stored, store):
            if found is not None:
                vectors[field] = found
            elif field not in vectors and text.made.model not in refused and self._asked(change.key.etype, text):
                return None
        return vectors

    def awaited(self, change: Change, stored: Stored, store: str) -> set[str]:
        """The models that have still to embed a text of this change, as a store has its vectors."""
        return {
            text.made.model
            for _, text, found in self._texts_of(change, stored, store)
            if found is None and text.inline is None and self._asked(change.key.etype, text)
        }

    def _texts_of(self, change: Change, stored: Stored, store: str) -> Iterator[tuple[str, _Text, bytes | None]]:
        """The fields whose texts the change brings without a vector, and what is stored for them."""
        body = typing.cast(Body, change.body)
        for field, text in self._at(change.key.etype, store).items():
            if (value := body.get(field)) is not None and field not in change.vectors:
                yield field, text, _current(stored, field, value, text.made)

    def _asked(self, etype: str, text: _Text) -> bool:
        """Whether anybody makes the vectors of this field."""
        return text.made.model in self._stages or text.made.model in self.elsewhere.get(etype, ())

    def texts(self, target: str, change: Change, stored: Stored) -> dict[str, str]:
        """Field -> text that the model of a pseudo-target still has to embed for this record; unchanged text is never
        embedded again."""
        model, etype = target.removeprefix(EMBED), change.key.etype
        out: dict[str, str] = {}
        for field, ways in self._ways(etype).items():
            value = change.body.get(field) if change.body is not None else None
            way = next((way for way in ways if way.model == model), None)
            if value is not None and way is not None and _current(stored, field, value, way) is None:
                out[field] = value
        return out

    def wants(self, etype: str, target: str) -> bool:
        """Whether any vectors of the type are made with the model of a pseudo-target, as far as is known here."""
        model = target.removeprefix(EMBED)
        return any(way.model == model for ways in self._ways(etype).values() for way in ways)

    def _ways(self, etype: str) -> dict[str, list[Made]]:
        """Field -> how its vectors are made here and there, and how they would be made as it is configured."""
        places = (self._texts[etype], *self._places[etype].values())
        return {
            field: [*(texts[field].made for texts in places), self._configured[etype][field]]
            for field in self._texts[etype]
        }

    async def query(self, etype: str, field: str, text: str, *, timeout_s: float) -> bytes:
        """The packed vector of a query text. Raises Unavailable, and what the embedder raises for good."""
        self.comparable(etype, field)
        served = self._texts[etype][field]
        if served.inline is not None:
            return served.inline.embed_now([text])[0]
        return (await self._stages[served.made.model].embed([text], "query", timeout_s))[0]


def _current(stored: Stored, field: str, text: str, way: Made) -> bytes | None:
    """The stored vector of this text: the caller's, where it has the dimension, else the model's."""
    digest = text_hash(text)
    for by in (CALLER, way.model):
        found = stored.get((field, by))
        if found is not None and found.text_hash == digest and len(found.vector) == 4 * way.dimension:
            return found.vector
    return None


def by_record(vectors: Sequence[StoredVector]) -> dict[Key, dict[tuple[str, str], StoredVector]]:
    out: dict[Key, dict[tuple[str, str], StoredVector]] = {}
    for one in vectors:
        out.setdefault(one.key, {})[one.field, one.embedder] = one
    return out
