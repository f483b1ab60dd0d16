"""Embedders turn texts into vectors: what an application brings, what runs without a model, how vectors are kept."""

from __future__ import annotations

import math
import sys
import unicodedata
import zlib
from array import array
from collections import Counter
from collections.abc import Sequence
from operator import add
from typing import Literal, Protocol, runtime_checkable

from polystore.errors import ConfigurationError

Purpose = Literal["document", "query"]

_MEMO_MAX = 1 << 16
"""Features of one kind whose component is remembered, at most 7 MB; 20,000 short Korean messages have 17,000 and 30,000
of the two kinds."""


@runtime_checkable
class Embedder(Protocol):
    """What turns texts into vectors. Vectors of one `name` are comparable with one another and with no others."""

    @property
    def name(self) -> str:
        """Model and version. Vectors stored under another name are made anew by a rebuild."""
        ...

    @property
    def dimension(self) -> int:
        """Components of every vector."""
        ...

    @property
    def batch_max(self) -> int:
        """Most texts in one call."""
        ...

    @property
    def chars_max(self) -> int:
        """Most characters of one text that take part in its vector."""
        ...

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> Sequence[Sequence[float]]:
        """One vector for each text, in the order asked. `purpose` says whether they are stored or searched with; many
        models tell the two apart."""
        ...


@runtime_checkable
class InlineEmbedder(Embedder, Protocol):
    """An embedder in this process, quick and without failure, so that it runs within the write."""

    def embed_now(self, texts: Sequence[str]) -> list[bytes]:
        """One packed vector (see `pack`) for each text, in the order asked. Equal texts have equal bytes in every
        process and on every machine."""
        ...


class HashedEmbedder:
    """The embedder that needs no model: it matches the form of texts, not their meaning.

    "I love you" is close to "I loved you" and far from "my heart is yours"; a spelling mistake changes little; a text
    and its translation have nothing in common. Configure an embedder with a model to search by meaning.

    The features of a text, composed (NFC) and case folded, are its letters, its pairs of neighbouring characters, its
    pairs of characters one apart, which survive a change of the one between, and its length; white space counts as one
    space and closes the text on both sides. Each feature adds one to the component that CRC-32 gives it (feature
    hashing: Weinberger et al. 2009, https://arxiv.org/abs/0902.2206; signs made no difference here and could cancel a
    short text out). The vector has length 1, so the inner product is the cosine. Only the first `chars_max` characters
    take part.
    """

    name = "hashed-characters-1"
    batch_max = 1024
    chars_max = 8192

    def __init__(self, dimension: int = 256) -> None:
        if dimension < 1:
            raise ConfigurationError(f"HashedEmbedder: dimension is {dimension}; give 1 or more, 256 is the default")
        self.dimension = dimension
        self._near = _Components(dimension, "")
        self._apart = _Components(dimension, "\0")

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> Sequence[Sequence[float]]:
        """As `embed_now`; both purposes have the same vector."""
        return [unpack(vector) for vector in self.embed_now(texts)]

    def embed_now(self, texts: Sequence[str]) -> list[bytes]:
        """One packed vector for each text, in the order asked; never fails, an empty text has a vector too."""
        return [self._embed(unicodedata.normalize("NFC", text)[: self.chars_max]) for text in texts]

    def _embed(self, text: str) -> bytes:
        words = text.casefold().split()
        spaced = f" {' '.join(words)} "
        near, apart = self._near.__getitem__, self._apart.__getitem__
        components = [
            *map(near, "".join(words)),
            *map(near, map(add, spaced, spaced[1:])),
            *map(apart, map(add, spaced, spaced[2:])),
            near(f"\0\0{len(spaced)}"),
        ]
        counts = Counter(components)
        length = math.sqrt(sum([count * count for count in counts.values()]))
        vector = array("f", bytes(4 * self.dimension))
        for component, count in counts.items():
            vector[component] = count / length
        return _little_endian(vector).tobytes()


class _Components(dict[str, int]):
    """The component of each feature, worked out when it is first asked for. `between` stands between the characters of
    a feature when it is hashed."""

    def __init__(self, dimension: int, between: str) -> None:
        super().__init__()
        self._dimension = dimension
        self._between = between

    def __missing__(self, feature: str) -> int:
        if len(self) >= _MEMO_MAX:
            self.clear()
        # A lone surrogate has no UTF-8; the search for a text that no record can hold finds nothing, without an error.
        code = zlib.crc32(self._between.join(feature).encode("utf-8", "surrogatepass"))
        component = self[feature] = code % self._dimension
        return component


def pack(vector: Sequence[float]) -> bytes:
    """The vector as every store of bytes keeps it: 32-bit floats, little endian.

    Raises ValueError when a component is not finite or has no finite 32-bit float.
    """
    floats = array("f", vector)
    if not math.isfinite(sum(floats)):  # doubles: no sum of finite 32-bit floats overflows
        raise ValueError("this vector holds NaN, an infinity, or a number beyond 32-bit floats; give finite numbers")
    return _little_endian(floats).tobytes()


def unpack(packed: bytes) -> array[float]:
    """The vector of `pack`. Raises ValueError when the bytes are no whole number of 32-bit floats."""
    floats = array("f")
    floats.frombytes(packed)
    return _little_endian(floats)


def _little_endian(floats: array[float]) -> array[float]:
    """To little endian from this machine's order, or back."""
    if sys.byteorder == "big":
        floats.byteswap()
    return floats
