"""Vectors of texts: at once for embedders inside the process, in a stage of its own for all others."""

from __future__ import annotations

import asyncio
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from polystore.consistency.targets import EMBED
from polystore.embedding import Embedder, InlineEmbedder, Purpose, pack
from polystore.entity import EntityType
from polystore.errors import ConfigurationError, DimensionMismatch, InvalidData, Unavailable
from polystore.model import CALLER, Body, Change, Key, StoredVector, text_hash

GIVEN = "given"
"""What the vectors of `list[float]` fields are made with: nothing."""


def model_of(embedder: Embedder) -> str:
    """The identity of an embedder's vectors: its model, not the name under which it is configured."""
    return f"{embedder.name}:{embedder.dimension}"


class Embedders:
    """The configured embedders, and which entity fields use which."""

    def __init__(self, types: Mapping[str, EntityType[Any]], embedders: Mapping[str, Embedder]) -> None:
        self._embedders = embedders
        # Decided once: an isinstance check of a runtime protocol costs microseconds, and inline() runs in every write.
        self._inline = {name: e for name, e in embedders.items() if isinstance(e, InlineEmbedder)}
        self._text_fields: dict[str, dict[str, str]] = {}
        self._list_fields: dict[str, tuple[str, ...]] = {}
        for name, one in types.items():
            texts = {f: e.embedder for f, e in one.embedded_texts.items()}
            for field, embedder in texts.items():
                self._check(one, field, embedder)
            self._text_fields[name] = texts
            self._list_fields[name] = tuple(f for f in one.embeddings if f not in texts)

    def _check(self, one: EntityType[Any], field: str, name: str) -> None:
        embedder = self._embedders.get(name)
        if embedder is None:
            known = ", ".join(sorted(self._embedders)) or "none"
            raise ConfigurationError(
                f"{one.cls.__name__}.{field}: no embedder is named {name!r}; configured: {known}. Add "
                f"[embedders.{name}] to the configuration, or pass embedders={{{name!r}: ...}} to open"
            )
        wanted = one.embeddings[field].dimension
        if wanted is not None and wanted != embedder.dimension:
            raise ConfigurationError(
                f"{one.cls.__name__}.{field} declares dimension {wanted}, embedder {name!r} makes {embedder.dimension}"
            )

    def get(self, name: str) -> Embedder | None:
        return self._embedders.get(name)

    def model(self, name: str) -> str:
        """The identity of the vectors that a configured embedder makes."""
        return model_of(self._embedders[name])

    def made_by(self, one: EntityType[Any], field: str) -> str:
        """What the vectors of a field are made with, as stores remember it: vectors made with something else are other
        vectors, whatever the configuration calls the embedder."""
        name = self._text_fields[one.name].get(field)
        return GIVEN if name is None else model_of(self._embedders[name])

    def pseudo_targets(self, etype: str) -> set[str]:
        """`embed:<name>` for each embedder of the type that works after the commit."""
        names = set(self._text_fields[etype].values())
        return {EMBED + n for n in names if n not in self._inline}

    def dimension(self, one: EntityType[Any], field: str) -> int:
        embedding = one.embeddings[field]
        return embedding.dimension or self._embedders[embedding.embedder].dimension

    def inline(self, etype: str, body: Body) -> dict[str, bytes]:
        """The vectors that can be made without waiting, for the fields that `body` holds."""
        vectors: dict[str, bytes] = {}
        for field, name in self._text_fields[etype].items():
            text = body.get(field)
            if text is not None and name in self._inline:
                vectors[field] = self._inline[name].embed_now([text])[0]
        for field in self._list_fields[etype]:
            value = body.get(field)
            if value is not None:
                vectors[field] = pack(value)
        return vectors

    def missing(self, change: Change) -> bool:
        """True when a field has a value but the change carries no vector of it."""
        body, etype = change.body, change.key.etype
        if body is None:
            return False
        fields = (*self._text_fields[etype], *self._list_fields[etype])
        return any(body.get(field) is not None and field not in change.vectors for field in fields)

    def complete(self, change: Change, stored: Mapping[tuple[str, str], StoredVector]) -> dict[str, bytes] | None:
        """All vectors of a change: given ones, then the caller's, then made at once, then the embedder's stored ones;
        `stored` maps (field, embedder) to the record's stored vectors. None while one is still to be embedded."""
        body = typing.cast(Body, change.body)
        vectors = {**self.inline(change.key.etype, body), **change.vectors}
        for field, name in self._text_fields[change.key.etype].items():
            text = body.get(field)
            if text is None or field in change.vectors:
                continue
            digest = text_hash(text)
            for embedder in (CALLER, model_of(self._embedders[name])):
                found = stored.get((field, embedder))
                if found is not None and found.text_hash == digest:
                    vectors[field] = found.vector
                    break
            else:
                if field not in vectors:
                    return None
        return vectors

    def texts(self, embedder: str, change: Change, stored: Mapping[tuple[str, str], StoredVector]) -> dict[str, str]:
        """Field -> text that `embedder` still has to embed for this record; unchanged text is never embedded again."""
        out: dict[str, str] = {}
        for field, name in self._text_fields[change.key.etype].items():
            text = change.body.get(field) if change.body is not None else None
            if name != embedder or text is None:
                continue
            digest, makers = text_hash(text), (CALLER, model_of(self._embedders[name]))
            if not any((one := stored.get((field, by))) and one.text_hash == digest for by in makers):
                out[field] = text
        return out

    async def query(self, name: str, text: str, *, timeout_s: float) -> bytes:
        """The packed vector of a query text. Raises Unavailable."""
        if name in self._inline:
            return self._inline[name].embed_now([text])[0]
        return (await self.embed(name, [text], purpose="query", timeout_s=timeout_s))[0]

    async def embed(self, name: str, texts: Sequence[str], *, purpose: Purpose, timeout_s: float) -> list[bytes]:
        """Packed vectors of the texts, in batches of the embedder's size. Raises Unavailable when it fails or stalls,
        DimensionMismatch when it answers with another dimension than it declares."""
        embedder = self._embedders[name]
        out: list[bytes] = []
        for start in range(0, len(texts), embedder.batch_max):
            batch = [text[: embedder.chars_max] for text in texts[start : start + embedder.batch_max]]
            try:
                async with asyncio.timeout(timeout_s):
                    vectors = await embedder.embed(batch, purpose=purpose)
            except Unavailable:
                raise
            except Exception as e:  # whatever a client library raises: an embedder's outage is an outage, never poison
                raise Unavailable(
                    f"the embedder failed: {type(e).__name__}", store=EMBED + name, operation="embed"
                ) from e
            if len(vectors) != len(batch) or any(len(v) != embedder.dimension for v in vectors):
                raise DimensionMismatch(f"embedder {name!r} answered with another number of vectors or components")
            try:
                out += [pack(vector) for vector in vectors]
            except ValueError as e:
                raise InvalidData(f"embedder {name!r} made a vector that cannot be kept: {e}") from None
        return out


def by_record(vectors: Sequence[StoredVector]) -> dict[Key, dict[tuple[str, str], StoredVector]]:
    out: dict[Key, dict[tuple[str, str], StoredVector]] = {}
    for one in vectors:
        out.setdefault(one.key, {})[one.field, one.embedder] = one
    return out
